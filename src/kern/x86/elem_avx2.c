/* elem_avx2.c - norms, activations, rotary positions, 8 values at a time; tails by masks. The 16 lanes of a
 * sum are two vectors. */
#include "kern/kern_parts.h"

#include "kern/x86/math_avx2.h"

/* The up to 8 values at p, of which n exist; lanes behind them are 0. */
static inline __m256 load(const f32 *p, u32 n) {
    return n >= 8 ? _mm256_loadu_ps(p) : _mm256_maskload_ps(p, lanes_below(n));
}

static inline void store(f32 *p, u32 n, __m256 v) {
    if (n >= 8)
        _mm256_storeu_ps(p, v);
    else
        _mm256_maskstore_ps(p, lanes_below(n), v);
}

/* How many of the values from i on exist. */
static inline u32 left(u32 n, u32 i) { return n > i ? n - i : 0; }

/* Square sum of x - mean. */
static f32 square_sum(const f32 *x, u32 n, f32 mean) {
    __m256 low = _mm256_setzero_ps(), high = low, m = _mm256_set1_ps(mean);
    u32 i = 0;
    for (; n - i >= 16; i += 16) {
        __m256 a = _mm256_sub_ps(_mm256_loadu_ps(x + i), m), b = _mm256_sub_ps(_mm256_loadu_ps(x + i + 8), m);
        low = _mm256_fmadd_ps(a, a, low);
        high = _mm256_fmadd_ps(b, b, high);
    }
    if (i < n) {
        __m256 in_low = _mm256_castsi256_ps(lanes_below(n - i)), in_high = _mm256_castsi256_ps(lanes_below(left(n, i + 8)));
        __m256 a = _mm256_and_ps(in_low, _mm256_sub_ps(load(x + i, n - i), m));
        low = _mm256_fmadd_ps(a, a, low);
        if (n - i > 8) {
            __m256 b = _mm256_and_ps(in_high, _mm256_sub_ps(load(x + i + 8, n - i - 8), m));
            high = _mm256_fmadd_ps(b, b, high);
        }
    }
    return sum_avx2(low, high);
}

static f32 sum(const f32 *x, u32 n) {
    __m256 low = _mm256_setzero_ps(), high = low;
    for (u32 i = 0; i < n; i += 16) {
        low = _mm256_add_ps(low, load(x + i, n - i));
        if (n - i > 8)
            high = _mm256_add_ps(high, load(x + i + 8, n - i - 8));
    }
    return sum_avx2(low, high);
}

void avx2_rmsnorm(const f32 *x, const f32 *w, f32 eps, u32 n, f32 *y) {
    __m256 r = _mm256_set1_ps(1.0f / sqrtf(square_sum(x, n, 0) / (f32)n + eps));
    for (u32 i = 0; i < n; i += 8) {
        __m256 v = _mm256_mul_ps(load(x + i, n - i), r);
        if (w)
            v = _mm256_mul_ps(v, load(w + i, n - i));
        store(y + i, n - i, v);
    }
}

void avx2_layernorm(const f32 *x, const f32 *w, const f32 *b, f32 eps, u32 n, f32 *y) {
    f32 mean = sum(x, n) / (f32)n;
    __m256 m = _mm256_set1_ps(mean), r = _mm256_set1_ps(1.0f / sqrtf(square_sum(x, n, mean) / (f32)n + eps));
    for (u32 i = 0; i < n; i += 8) {
        __m256 v = _mm256_mul_ps(_mm256_sub_ps(load(x + i, n - i), m), r);
        if (w)
            v = _mm256_mul_ps(v, load(w + i, n - i));
        if (b)
            v = _mm256_add_ps(v, load(b + i, n - i));
        store(y + i, n - i, v);
    }
}

void avx2_add_scaled(f32 *y, const f32 *x, f32 scale, u32 n) {
    __m256 s = _mm256_set1_ps(scale);
    for (u32 i = 0; i < n; i += 8)
        store(y + i, n - i, _mm256_fmadd_ps(load(x + i, n - i), s, load(y + i, n - i)));
}

/* x / (1 + exp(-z)) */
static inline __m256 sigmoid_times(__m256 x, __m256 z) {
    __m256 e = exp_avx2(_mm256_xor_ps(z, _mm256_set1_ps(-0.0f)));
    return _mm256_div_ps(x, _mm256_add_ps(_mm256_set1_ps(1.0f), e));
}

static inline __m256 gelu(__m256 x) {
    __m256 z = _mm256_fmadd_ps(_mm256_mul_ps(x, x), _mm256_set1_ps(KERN_GELU_C3), _mm256_set1_ps(KERN_GELU_C1));
    return sigmoid_times(x, _mm256_mul_ps(x, z));
}

void avx2_silu_mul(f32 *gate, const f32 *up, u32 n) {
    for (u32 i = 0; i < n; i += 8) {
        __m256 x = load(gate + i, n - i);
        store(gate + i, n - i, _mm256_mul_ps(sigmoid_times(x, x), load(up + i, n - i)));
    }
}

void avx2_gelu_mul(f32 *gate, const f32 *up, u32 n) {
    for (u32 i = 0; i < n; i += 8)
        store(gate + i, n - i, _mm256_mul_ps(gelu(load(gate + i, n - i)), load(up + i, n - i)));
}

void avx2_gelu(f32 *x, u32 n) {
    for (u32 i = 0; i < n; i += 8)
        store(x + i, n - i, gelu(load(x + i, n - i)));
}

void avx2_softcap(f32 *x, u32 n, f32 softcap) {
    __m256 cap = _mm256_set1_ps(softcap);
    for (u32 i = 0; i < n; i += 8)
        store(x + i, n - i, _mm256_mul_ps(cap, tanh_avx2(_mm256_div_ps(load(x + i, n - i), cap))));
}

static void rope_halves(f32 *x, u32 n_heads, u32 head_dim, u32 n_pairs, const f32 *cos_sin) {
    const __m256 sign = _mm256_set1_ps(-0.0f);
    const __m256i order = _mm256_setr_epi32(0, 1, 4, 5, 2, 3, 6, 7);
    for (u32 i = 0; i < n_pairs; i += 8) {
        u32 n = n_pairs - i;
        __m256 t0 = load(cos_sin + 2 * i, 2 * n), t1 = n > 4 ? load(cos_sin + 2 * i + 8, 2 * n - 8) : _mm256_setzero_ps();
        /* Within 128 bits first, then the middle quarters change places. */
        __m256 c = _mm256_permutevar8x32_ps(_mm256_shuffle_ps(t0, t1, 0x88), order);
        __m256 s = _mm256_permutevar8x32_ps(_mm256_shuffle_ps(t0, t1, 0xdd), order);
        for (u32 h = 0; h < n_heads; h++) {
            f32 *p = x + (size_t)h * head_dim + i;
            __m256 x0 = load(p, n), x1 = load(p + n_pairs, n);
            store(p, n, _mm256_fmadd_ps(x0, c, _mm256_xor_ps(_mm256_mul_ps(x1, s), sign)));
            store(p + n_pairs, n, _mm256_fmadd_ps(x0, s, _mm256_mul_ps(x1, c)));
        }
    }
}

static void rope_neighbours(f32 *x, u32 n_heads, u32 head_dim, u32 n_rot, const f32 *cos_sin) {
    const __m256 sign = _mm256_set1_ps(-0.0f);
    for (u32 i = 0; i < n_rot; i += 8) {
        __m256 t = load(cos_sin + i, n_rot - i), c = _mm256_moveldup_ps(t), s = _mm256_movehdup_ps(t);
        for (u32 h = 0; h < n_heads; h++) {
            f32 *p = x + (size_t)h * head_dim + i;
            __m256 v = load(p, n_rot - i), x0 = _mm256_moveldup_ps(v), x1 = _mm256_movehdup_ps(v);
            __m256 a = _mm256_fmadd_ps(x0, c, _mm256_xor_ps(_mm256_mul_ps(x1, s), sign));
            __m256 b = _mm256_fmadd_ps(x0, s, _mm256_mul_ps(x1, c));
            store(p, n_rot - i, _mm256_blend_ps(a, b, 0xaa));
        }
    }
}

void avx2_rope(f32 *x, u32 n_heads, u32 head_dim, u32 n_rot, bool neox, const f32 *cos_sin) {
    if (neox)
        rope_halves(x, n_heads, head_dim, n_rot / 2, cos_sin);
    else
        rope_neighbours(x, n_heads, head_dim, n_rot, cos_sin);
}
