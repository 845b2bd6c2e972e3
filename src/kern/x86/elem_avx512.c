/* elem_avx512.c - norms, activations, rotary positions, 16 values at a time; tails by masks. */
#include "kern/kern_parts.h"

#include "kern/x86/math_avx512.h"

/* Mask of the vector at i of n values. */
static inline __mmask16 tail(u32 i, u32 n) { return n - i >= 16 ? 0xffff : lanes_below(n - i); }

/* Square sum of x - mean. */
static f32 square_sum(const f32 *x, u32 n, f32 mean) {
    __m512 acc = _mm512_setzero_ps(), m = _mm512_set1_ps(mean);
    for (u32 i = 0; i < n; i += 16) {
        __mmask16 k = tail(i, n);
        __m512 d = _mm512_maskz_sub_ps(k, _mm512_maskz_loadu_ps(k, x + i), m);
        acc = _mm512_fmadd_ps(d, d, acc);
    }
    return sum_avx512(acc);
}

void avx512_rmsnorm(const f32 *x, const f32 *w, f32 eps, u32 n, f32 *y) {
    __m512 acc = _mm512_setzero_ps();
    for (u32 i = 0; i < n; i += 16) {
        __m512 v = _mm512_maskz_loadu_ps(tail(i, n), x + i);
        acc = _mm512_fmadd_ps(v, v, acc);
    }
    __m512 r = _mm512_set1_ps(1.0f / sqrtf(sum_avx512(acc) / (f32)n + eps));
    for (u32 i = 0; i < n; i += 16) {
        __mmask16 k = tail(i, n);
        __m512 v = _mm512_mul_ps(_mm512_maskz_loadu_ps(k, x + i), r);
        if (w)
            v = _mm512_mul_ps(v, _mm512_maskz_loadu_ps(k, w + i));
        _mm512_mask_storeu_ps(y + i, k, v);
    }
}

void avx512_layernorm(const f32 *x, const f32 *w, const f32 *b, f32 eps, u32 n, f32 *y) {
    __m512 acc = _mm512_setzero_ps();
    for (u32 i = 0; i < n; i += 16)
        acc = _mm512_add_ps(acc, _mm512_maskz_loadu_ps(tail(i, n), x + i));
    f32 mean = sum_avx512(acc) / (f32)n;
    __m512 m = _mm512_set1_ps(mean), r = _mm512_set1_ps(1.0f / sqrtf(square_sum(x, n, mean) / (f32)n + eps));
    for (u32 i = 0; i < n; i += 16) {
        __mmask16 k = tail(i, n);
        __m512 v = _mm512_mul_ps(_mm512_sub_ps(_mm512_maskz_loadu_ps(k, x + i), m), r);
        if (w)
            v = _mm512_mul_ps(v, _mm512_maskz_loadu_ps(k, w + i));
        if (b)
            v = _mm512_add_ps(v, _mm512_maskz_loadu_ps(k, b + i));
        _mm512_mask_storeu_ps(y + i, k, v);
    }
}

void avx512_add_scaled(f32 *y, const f32 *x, f32 scale, u32 n) {
    __m512 s = _mm512_set1_ps(scale);
    for (u32 i = 0; i < n; i += 16) {
        __mmask16 k = tail(i, n);
        __m512 v = _mm512_fmadd_ps(_mm512_maskz_loadu_ps(k, x + i), s, _mm512_maskz_loadu_ps(k, y + i));
        _mm512_mask_storeu_ps(y + i, k, v);
    }
}

/* x / (1 + exp(-z)) */
static inline __m512 sigmoid_times(__m512 x, __m512 z) {
    __m512 e = exp_avx512(_mm512_xor_ps(z, _mm512_set1_ps(-0.0f)));
    return _mm512_div_ps(x, _mm512_add_ps(_mm512_set1_ps(1.0f), e));
}

static inline __m512 gelu(__m512 x) {
    __m512 z = _mm512_fmadd_ps(_mm512_mul_ps(x, x), _mm512_set1_ps(KERN_GELU_C3), _mm512_set1_ps(KERN_GELU_C1));
    return sigmoid_times(x, _mm512_mul_ps(x, z));
}

void avx512_silu_mul(f32 *gate, const f32 *up, u32 n) {
    for (u32 i = 0; i < n; i += 16) {
        __mmask16 k = tail(i, n);
        __m512 x = _mm512_maskz_loadu_ps(k, gate + i);
        x = _mm512_mul_ps(sigmoid_times(x, x), _mm512_maskz_loadu_ps(k, up + i));
        _mm512_mask_storeu_ps(gate + i, k, x);
    }
}

void avx512_gelu_mul(f32 *gate, const f32 *up, u32 n) {
    for (u32 i = 0; i < n; i += 16) {
        __mmask16 k = tail(i, n);
        __m512 x = gelu(_mm512_maskz_loadu_ps(k, gate + i));
        _mm512_mask_storeu_ps(gate + i, k, _mm512_mul_ps(x, _mm512_maskz_loadu_ps(k, up + i)));
    }
}

void avx512_gelu(f32 *x, u32 n) {
    for (u32 i = 0; i < n; i += 16) {
        __mmask16 k = tail(i, n);
        _mm512_mask_storeu_ps(x + i, k, gelu(_mm512_maskz_loadu_ps(k, x + i)));
    }
}

void avx512_softcap(f32 *x, u32 n, f32 softcap) {
    __m512 cap = _mm512_set1_ps(softcap);
    for (u32 i = 0; i < n; i += 16) {
        __mmask16 k = tail(i, n);
        __m512 v = _mm512_div_ps(_mm512_maskz_loadu_ps(k, x + i), cap);
        _mm512_mask_storeu_ps(x + i, k, _mm512_mul_ps(cap, tanh_avx512(v)));
    }
}

/* (a, b) turned by the angle whose cosine and sine are c and s. */
static inline void rotate(__m512 *a, __m512 *b, __m512 c, __m512 s) {
    __m512 x0 = *a, x1 = *b;
    __m512 sign = _mm512_set1_ps(-0.0f);
    *a = _mm512_fmadd_ps(x0, c, _mm512_xor_ps(_mm512_mul_ps(x1, s), sign));
    *b = _mm512_fmadd_ps(x0, s, _mm512_mul_ps(x1, c));
}

static void rope_halves(f32 *x, u32 n_heads, u32 head_dim, u32 n_pairs, const f32 *cos_sin) {
    const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    const __m512i odd = _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
    for (u32 i = 0; i < n_pairs; i += 16) {
        __mmask16 k = tail(i, n_pairs), low = tail(2 * i, 2 * n_pairs);
        __mmask16 high = n_pairs - i > 8 ? tail(2 * i + 16, 2 * n_pairs) : 0;
        __m512 t0 = _mm512_maskz_loadu_ps(low, cos_sin + 2 * i), t1 = _mm512_maskz_loadu_ps(high, cos_sin + 2 * i + 16);
        __m512 c = _mm512_permutex2var_ps(t0, even, t1), s = _mm512_permutex2var_ps(t0, odd, t1);
        for (u32 h = 0; h < n_heads; h++) {
            f32 *p = x + (size_t)h * head_dim + i;
            __m512 a = _mm512_maskz_loadu_ps(k, p), b = _mm512_maskz_loadu_ps(k, p + n_pairs);
            rotate(&a, &b, c, s);
            _mm512_mask_storeu_ps(p, k, a);
            _mm512_mask_storeu_ps(p + n_pairs, k, b);
        }
    }
}

static void rope_neighbours(f32 *x, u32 n_heads, u32 head_dim, u32 n_rot, const f32 *cos_sin) {
    const __m512 sign = _mm512_set1_ps(-0.0f);
    for (u32 i = 0; i < n_rot; i += 16) {
        __mmask16 k = tail(i, n_rot);
        __m512 t = _mm512_maskz_loadu_ps(k, cos_sin + i);
        __m512 c = _mm512_moveldup_ps(t), s = _mm512_movehdup_ps(t);
        for (u32 h = 0; h < n_heads; h++) {
            f32 *p = x + (size_t)h * head_dim + i;
            __m512 v = _mm512_maskz_loadu_ps(k, p);
            __m512 x0 = _mm512_moveldup_ps(v), x1 = _mm512_movehdup_ps(v);
            __m512 a = _mm512_fmadd_ps(x0, c, _mm512_xor_ps(_mm512_mul_ps(x1, s), sign));
            __m512 b = _mm512_fmadd_ps(x0, s, _mm512_mul_ps(x1, c));
            _mm512_mask_storeu_ps(p, k, _mm512_mask_mov_ps(a, 0xaaaa, b));
        }
    }
}

void avx512_rope(f32 *x, u32 n_heads, u32 head_dim, u32 n_rot, bool neox, const f32 *cos_sin) {
    if (neox)
        rope_halves(x, n_heads, head_dim, n_rot / 2, cos_sin);
    else
        rope_neighbours(x, n_heads, head_dim, n_rot, cos_sin);
}
