/* elem_x86.h - norms, activations, rotary positions, 16 values at a time. Compiled once per tier, behind one of
 * the vec_*.h. */
#include "kern/x86/vec_math.h"

/* Square sum of x - mean; what lies behind n adds nothing. */
static f32 square_sum(const f32 *x, u32 n, f32 mean) {
    vec sum = vec_set(0), m = vec_set(mean);
    for (u32 i = 0; i < n; i += 16) {
        vec d = vec_sub(vec_load_n(x + i, n - i), m);
        if (n - i < 16)
            d = vec_cut(d, 0, n - i, vec_set(0));
        sum = vec_fma(d, d, sum);
    }
    return vec_sum(sum);
}

void TIER(rmsnorm)(const f32 *x, const f32 *w, f32 eps, u32 n, f32 *y) {
    vec r = vec_set(1.0f / sqrtf(square_sum(x, n, 0) / (f32)n + eps));
    for (u32 i = 0; i < n; i += 16) {
        vec v = vec_mul(vec_load_n(x + i, n - i), r);
        if (w)
            v = vec_mul(v, vec_load_n(w + i, n - i));
        vec_store_n(y + i, n - i, v);
    }
}

void TIER(layernorm)(const f32 *x, const f32 *w, const f32 *b, f32 eps, u32 n, f32 *y) {
    vec sum = vec_set(0);
    for (u32 i = 0; i < n; i += 16)
        sum = vec_add(sum, vec_load_n(x + i, n - i));
    f32 mean = vec_sum(sum) / (f32)n;
    vec m = vec_set(mean), r = vec_set(1.0f / sqrtf(square_sum(x, n, mean) / (f32)n + eps));
    for (u32 i = 0; i < n; i += 16) {
        vec v = vec_mul(vec_sub(vec_load_n(x + i, n - i), m), r);
        if (w)
            v = vec_mul(v, vec_load_n(w + i, n - i));
        if (b)
            v = vec_add(v, vec_load_n(b + i, n - i));
        vec_store_n(y + i, n - i, v);
    }
}

void TIER(add_scaled)(f32 *y, const f32 *x, f32 scale, u32 n) {
    vec s = vec_set(scale);
    for (u32 i = 0; i < n; i += 16)
        vec_store_n(y + i, n - i, vec_fma(vec_load_n(x + i, n - i), s, vec_load_n(y + i, n - i)));
}

/* x / (1 + exp(-z)) */
INLINE vec sigmoid_times(vec x, vec z) { return vec_div(x, vec_add(vec_set(1.0f), vec_exp(vec_negate(z)))); }

INLINE vec gelu(vec x) {
    return sigmoid_times(x, vec_mul(x, vec_fma(vec_mul(x, x), vec_set(KERN_GELU_C3), vec_set(KERN_GELU_C1))));
}

void TIER(silu_mul)(f32 *gate, const f32 *up, u32 n) {
    for (u32 i = 0; i < n; i += 16) {
        vec x = vec_load_n(gate + i, n - i);
        vec_store_n(gate + i, n - i, vec_mul(sigmoid_times(x, x), vec_load_n(up + i, n - i)));
    }
}

void TIER(gelu_mul)(f32 *gate, const f32 *up, u32 n) {
    for (u32 i = 0; i < n; i += 16)
        vec_store_n(gate + i, n - i, vec_mul(gelu(vec_load_n(gate + i, n - i)), vec_load_n(up + i, n - i)));
}

void TIER(gelu)(f32 *x, u32 n) {
    for (u32 i = 0; i < n; i += 16)
        vec_store_n(x + i, n - i, gelu(vec_load_n(x + i, n - i)));
}

void TIER(softcap)(f32 *x, u32 n, f32 softcap) {
    vec cap = vec_set(softcap);
    for (u32 i = 0; i < n; i += 16)
        vec_store_n(x + i, n - i, vec_mul(cap, vec_tanh(vec_div(vec_load_n(x + i, n - i), cap))));
}

/* Pairs i and i + n_pairs. */
static void rope_halves(f32 *x, u32 n_heads, u32 head_dim, u32 n_pairs, const f32 *cos_sin) {
    for (u32 i = 0; i < n_pairs; i += 16) {
        u32 n = n_pairs - i;
        vec low = vec_load_n(cos_sin + 2 * i, 2 * n), high = n > 8 ? vec_load_n(cos_sin + 2 * i + 16, 2 * n - 16) : vec_set(0);
        vec c = vec_pick(low, high, 0), s = vec_pick(low, high, 1);
        for (u32 h = 0; h < n_heads; h++) {
            f32 *p = x + (size_t)h * head_dim + i;
            vec x0 = vec_load_n(p, n), x1 = vec_load_n(p + n_pairs, n);
            vec_store_n(p, n, vec_fma(x0, c, vec_negate(vec_mul(x1, s))));
            vec_store_n(p + n_pairs, n, vec_fma(x0, s, vec_mul(x1, c)));
        }
    }
}

/* Pairs 2i and 2i + 1. */
static void rope_neighbours(f32 *x, u32 n_heads, u32 head_dim, u32 n_rot, const f32 *cos_sin) {
    for (u32 i = 0; i < n_rot; i += 16) {
        vec t = vec_load_n(cos_sin + i, n_rot - i), c = vec_first(t), s = vec_second(t);
        for (u32 h = 0; h < n_heads; h++) {
            f32 *p = x + (size_t)h * head_dim + i;
            vec v = vec_load_n(p, n_rot - i), x0 = vec_first(v), x1 = vec_second(v);
            vec a = vec_fma(x0, c, vec_negate(vec_mul(x1, s)));
            vec b = vec_fma(x0, s, vec_mul(x1, c));
            vec_store_n(p, n_rot - i, vec_join(a, b));
        }
    }
}

void TIER(rope)(f32 *x, u32 n_heads, u32 head_dim, u32 n_rot, bool neox, const f32 *cos_sin) {
    if (neox)
        rope_halves(x, n_heads, head_dim, n_rot / 2, cos_sin);
    else
        rope_neighbours(x, n_heads, head_dim, n_rot, cos_sin);
}
