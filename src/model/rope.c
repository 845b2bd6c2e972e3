/* rope.c - linear scaling divides positions; YaRN (Peng et al. 2023, section 3.2) divides only slow
 * frequencies and ramps between; longrope and llama 3 bring a factor per pair in the file. */
#include "model/rope.h"

#include <math.h>

#include "base/fmath.h"

#define PI 3.14159265358979323846

/* Index of the pair that turns n_turns times within the original context. */
static f64 yarn_pair(const struct hyper *h, f64 n_turns) {
    return (f64)h->n_rot * fm_log((f64)h->rope_ctx_orig / (n_turns * 2 * PI)) / (2 * fm_log(h->rope_base));
}

static f64 yarn_scale(f64 factor, f64 multiplier) {
    return factor <= 1 ? 1 : 0.1 * multiplier * fm_log(factor) + 1;
}

static void rope_init(struct rope *r, const struct hyper *h, f64 base, bool scaled, const f32 *factors,
                      struct arena *arena) {
    r->n_rot = h->n_rot;
    r->freq = ARENA_ARRAY(arena, f64, h->n_rot / 2);
    r->scale = scaled ? h->rope_attn_factor : 1;
    bool yarn = scaled && h->rope_scaling == ROPE_SCALING_YARN;
    f64 low = 0, high = 0;
    if (yarn) {
        low = MAX(0.0, floor(yarn_pair(h, h->yarn_beta_fast)));
        high = MIN((f64)h->n_rot - 1, ceil(yarn_pair(h, h->yarn_beta_slow)));
        r->scale *= yarn_scale(h->rope_factor, 1);
        if (h->yarn_log_multiplier != 0)
            r->scale /= yarn_scale(h->rope_factor, h->yarn_log_multiplier);
    }
    for (u32 i = 0; i < h->n_rot / 2; i++) {
        f64 freq = fm_pow(base, -2.0 * i / h->n_rot) / (factors ? (f64)factors[i] : 1);
        f64 stretched = scaled ? freq / h->rope_factor : freq;
        if (yarn) {
            f64 ramp = 1 - MIN(1.0, MAX(0.0, ((f64)i - low) / MAX(0.001, high - low)));
            stretched = stretched * (1 - ramp) + freq * ramp;
        }
        r->freq[i] = stretched;
    }
}

void ropes_init(struct ropes *out, const struct hyper *h, const f32 *usual, const f32 *lengthy,
                struct arena *arena) {
    memset(out, 0, sizeof *out);
    rope_init(&out->r[ROPE_USUAL], h, h->rope_base, true, usual, arena);
    out->ctx_orig = h->rope_ctx_orig;
    out->has_long = lengthy != NULL;
    if (lengthy)
        rope_init(&out->r[ROPE_LONG], h, h->rope_base, true, lengthy, arena);
    out->has_windowed = h->rope_base_windowed != 0;
    if (out->has_windowed)
        rope_init(&out->r[ROPE_WINDOWED], h, h->rope_base_windowed, false, NULL, arena);
}

void rope_angles(const struct rope *r, u32 pos, f32 *out) {
    for (u32 i = 0; i < r->n_rot / 2; i++) {
        f64 s, c;
        fm_sincos((f64)pos * r->freq[i], &s, &c);
        out[2 * i] = (f32)(c * r->scale);
        out[2 * i + 1] = (f32)(s * r->scale);
    }
}
