/* act.c - reference activations, soft cap and rotary positions. */
#include "kern/kern_parts.h"

#include <math.h>

#include "base/fmath.h"

/* x * sigmoid(x) */
static f32 silu(f32 x) { return x / (1.0f + fm_expf(-x)); }

/* x/2 * (1 + tanh(z)) with z = sqrt(2/pi) * (x + 0.044715 x^3) is x * sigmoid(2z): one exp, and no
 * cancellation where tanh is near -1. */
static f32 gelu(f32 x) { return x / (1.0f + fm_expf(-(x * fmaf(x * x, KERN_GELU_C3, KERN_GELU_C1)))); }

void ref_silu_mul(f32 *gate, const f32 *up, u32 n) {
    for (u32 i = 0; i < n; i++)
        gate[i] = silu(gate[i]) * up[i];
}

void ref_gelu_mul(f32 *gate, const f32 *up, u32 n) {
    for (u32 i = 0; i < n; i++)
        gate[i] = gelu(gate[i]) * up[i];
}

void ref_gelu(f32 *x, u32 n) {
    for (u32 i = 0; i < n; i++)
        x[i] = gelu(x[i]);
}

void ref_softcap(f32 *x, u32 n, f32 softcap) {
    for (u32 i = 0; i < n; i++)
        x[i] = softcap * fm_tanhf(x[i] / softcap);
}

void ref_rope(f32 *x, u32 n_heads, u32 head_dim, u32 n_rot, bool neox, const f32 *cos_sin) {
    u32 step = neox ? 1 : 2, apart = neox ? n_rot / 2 : 1;
    for (u32 h = 0; h < n_heads; h++, x += head_dim) {
        for (u32 i = 0; i < n_rot / 2; i++) {
            f32 c = cos_sin[2 * i], s = cos_sin[2 * i + 1];
            f32 *a = x + i * step, *b = a + apart;
            f32 x0 = *a, x1 = *b;
            *a = fmaf(x0, c, -(x1 * s));
            *b = fmaf(x0, s, x1 * c);
        }
    }
}
