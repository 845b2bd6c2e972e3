/* vocab_x86.h - passes over a row of logits: 50k to 262k values, so four vectors at a time hide the latencies
 * and each pass runs at the speed of memory or of exp. Compiled once per tier, behind one of the vec_*.h. */
#include "kern/x86/vec_math.h"

static f32 row_max(const f32 *x, u32 n) {
    vec a = vec_set(-INFINITY), b = a, c = a, d = a;
    u32 i = 0;
    for (; n - i >= 64; i += 64) {
        a = vec_max(vec_load(x + i), a);
        b = vec_max(vec_load(x + i + 16), b);
        c = vec_max(vec_load(x + i + 32), c);
        d = vec_max(vec_load(x + i + 48), d);
    }
    for (; i < n; i += 16)
        a = vec_max(vec_cut(vec_load_n(x + i, n - i), 0, n - i, a), a);
    return vec_largest(vec_max(vec_max(a, b), vec_max(c, d)));
}

static f32 block_sum(const f32 *x, u32 n, f32 max) {
    vec sum = vec_set(0), m = vec_set(max);
    u32 i = 0;
    for (; n - i >= 64; i += 64) {
        vec a = vec_exp_low(vec_sub(vec_load(x + i), m));
        vec b = vec_exp_low(vec_sub(vec_load(x + i + 16), m));
        vec c = vec_exp_low(vec_sub(vec_load(x + i + 32), m));
        vec d = vec_exp_low(vec_sub(vec_load(x + i + 48), m));
        sum = vec_add(vec_add(vec_add(vec_add(sum, a), b), c), d);
    }
    for (; i < n; i += 16) {
        vec e = vec_exp_low(vec_sub(vec_load_n(x + i, n - i), m));
        sum = vec_add(sum, vec_cut(e, 0, n - i, vec_set(0)));
    }
    return vec_sum(sum);
}

void TIER(logsumexp)(const f32 *x, u32 n, f32 *max, f64 *lse) {
    f32 m = row_max(x, n);
    *max = m + 0.0f;
    *lse = -INFINITY;
    if (m == -INFINITY)
        return;
    f64 sum = 0;
    for (u32 i = 0; i < n; i += KERN_VOCAB_BLOCK)
        sum = sum + (f64)block_sum(x + i, MIN(n - i, KERN_VOCAB_BLOCK), *max);
    *lse = fm_log(sum);
}

/* Hits are few: the loop over the bits of a vector is left at once for most. */
u32 TIER(above)(const f32 *x, u32 n, f32 threshold, u32 *out, u32 cap) {
    const vec t = vec_set(threshold);
    u32 found = 0;
    for (u32 i = 0; i < n; i += 16) {
        u32 bits = vec_at_least(vec_load_n(x + i, n - i), t);
        bits &= n - i < 16 ? (1u << (n - i)) - 1 : 0xffff;
        for (; bits; bits &= bits - 1) {
            if (found < cap)
                out[found] = i + (u32)__builtin_ctz(bits);
            found++;
        }
    }
    return found;
}

void TIER(maxima)(const f32 *x, u32 n, f32 *out) {
    for (u32 i = 0; i < n; i += KERN_MAXIMA)
        out[i / KERN_MAXIMA] = row_max(x + i, MIN(n - i, KERN_MAXIMA));
}
