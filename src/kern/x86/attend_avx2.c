/* attend_avx2.c - the tiles of attend_avx512.c with 8 lanes: a block of 16 keys is two vectors, and 16
 * registers hold 12 accumulators. */
#include "kern/kern_parts.h"

#include "kern/x86/attend_x86.h"
#include "kern/x86/math_avx2.h"

#define INLINE static inline __attribute__((always_inline))

INLINE __m256 cache_load(enum kern_cache cache, const u8 *p) {
    return cache == KERN_CACHE_F16 ? _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)p))
                                   : _mm256_loadu_ps((const f32 *)(const void *)p);
}

/* Named accumulators: arrays of them would be kept in memory by the compiler. f(c, v) for all queries c and
 * vectors v (of keys or of dimensions). */
#define QUERIES(f, v) f(0, v) f(1, v) f(2, v) f(3, v) f(4, v) f(5, v)
#define VECTORS(f)                                                                                           \
    QUERIES(f, 0) QUERIES(f, 1) QUERIES(f, 2) QUERIES(f, 3) QUERIES(f, 4) QUERIES(f, 5) QUERIES(f, 6) QUERIES(f, 7)

/* Unscaled scores of C queries for R blocks of 16 keys. k: first block; q: [C][KERN_CHUNK] query rows;
 * s: out [C][KERN_CHUNK]; ahead: where the same offsets are prefetched. */
INLINE void scores(u32 C, u32 R, enum kern_cache cache, u32 head_dim, const u8 *k, const u8 *ahead, const f32 *q,
                   f32 *s) {
    size_t half = 8 * kern_cache_bytes(cache), row = 2 * half, block = row * head_dim;
#define ZERO(c, v) __m256 s##c##_##v = _mm256_setzero_ps();
    VECTORS(ZERO)
#undef ZERO
    for (u32 d = 0; d < head_dim; d++, k += row, ahead += row) {
        if (d % 2 == 0) {
#pragma GCC unroll 4
            for (u32 b = 0; b < R; b++)
                _mm_prefetch((const char *)ahead + b * block, _MM_HINT_T0);
        }
#define WEIGHT(c, unused) __m256 q##c = C > c ? _mm256_set1_ps(q[c * KERN_CHUNK + d]) : _mm256_setzero_ps();
        QUERIES(WEIGHT, )
#undef WEIGHT
#define FMA(c, v)                                                                                            \
    if (C > c)                                                                                               \
        s##c##_##v = _mm256_fmadd_ps(q##c, t, s##c##_##v);
#define VECTOR(v)                                                                                            \
    if (2 * R > v) {                                                                                         \
        __m256 t = cache_load(cache, k + v / 2 * block + v % 2 * half);                                      \
        QUERIES(FMA, v)                                                                                      \
    }
        VECTOR(0) VECTOR(1) VECTOR(2) VECTOR(3) VECTOR(4) VECTOR(5) VECTOR(6) VECTOR(7)
#undef VECTOR
#undef FMA
    }
#define STORE(c, v)                                                                                          \
    if (C > c && 2 * R > v)                                                                                  \
        _mm256_store_ps(s + c * KERN_CHUNK + 8 * v, s##c##_##v);
    VECTORS(STORE)
#undef STORE
}

/* o[c][d..d+8n-1] += sum over keys from..to-1 of p[c][j] * v[j]. p: [C][KERN_CHUNK]; o: [C][head_dim]. */
INLINE void values(u32 C, u32 N, enum kern_cache cache, const struct attend_pages *pages, u32 from, u32 to,
                   u32 head_dim, u32 d, const f32 *p, f32 *o) {
    size_t size = kern_cache_bytes(cache), row = size * head_dim;
#define LOAD(c, v) __m256 o##c##_##v = C > c && N > v ? _mm256_loadu_ps(o + c * head_dim + d + 8 * v) : _mm256_setzero_ps();
    VECTORS(LOAD)
#undef LOAD
    for (u32 j = from; j < to;) {
        u32 page = j / KV_PAGE, end = MIN(to, (page + 1) * KV_PAGE);
        size_t offset = (j % KV_PAGE) * row + d * size;
        const u8 *x = (const u8 *)pages->v[page] + offset, *ahead = (const u8 *)pages->v_ahead[page] + offset;
        for (; j < end; j++, x += row, ahead += row) {
#pragma GCC unroll 8
            for (u32 i = 0; i < N * 8 * size; i += 64)
                _mm_prefetch((const char *)ahead + i, _MM_HINT_T0);
#define WEIGHT(c, unused) __m256 p##c = C > c ? _mm256_set1_ps(p[c * KERN_CHUNK + j]) : _mm256_setzero_ps();
            QUERIES(WEIGHT, )
#undef WEIGHT
#define FMA(c, v)                                                                                            \
    if (C > c)                                                                                               \
        o##c##_##v = _mm256_fmadd_ps(p##c, t, o##c##_##v);
#define VECTOR(v)                                                                                            \
    if (N > v) {                                                                                             \
        __m256 t = cache_load(cache, x + v * 8 * size);                                                      \
        QUERIES(FMA, v)                                                                                      \
    }
            VECTOR(0) VECTOR(1) VECTOR(2) VECTOR(3) VECTOR(4) VECTOR(5) VECTOR(6) VECTOR(7)
#undef VECTOR
#undef FMA
        }
    }
#define STORE(c, v)                                                                                          \
    if (C > c && N > v)                                                                                      \
        _mm256_storeu_ps(o + c * head_dim + d + 8 * v, o##c##_##v);
    VECTORS(STORE)
#undef STORE
}

/* Blocks per call, so that twice as many vectors times C accumulators fit the registers. */
#define SCORES_BLOCKS(C) ((C) == 1 ? 4u : (C) <= 3 ? 2u : 1u)
#define SCORES(C, cache, name)                                                                               \
    static void name(u32 head_dim, const u8 *k, const u8 *ahead, const f32 *q, f32 *s) {                     \
        scores(C, SCORES_BLOCKS(C), cache, head_dim, k, ahead, q, s);                                        \
    }
#define VALUES(C, N, cache, name)                                                                            \
    static void name(const struct attend_pages *pages, u32 from, u32 to, u32 head_dim, u32 d, const f32 *p,  \
                     f32 *o) {                                                                               \
        values(C, N, cache, pages, from, to, head_dim, d, p, o);                                             \
    }
#define FUNCTIONS(C, f16_or_f32, cache)                                                                      \
    SCORES(C, cache, scores_##f16_or_f32##_##C)                                                              \
    VALUES(C, 2, cache, values_##f16_or_f32##_##C##_2)
#define FUNCTIONS_OF(f16_or_f32, cache)                                                                      \
    FUNCTIONS(1, f16_or_f32, cache)                                                                          \
    FUNCTIONS(2, f16_or_f32, cache)                                                                          \
    FUNCTIONS(3, f16_or_f32, cache)                                                                          \
    FUNCTIONS(4, f16_or_f32, cache)                                                                          \
    FUNCTIONS(5, f16_or_f32, cache)                                                                          \
    FUNCTIONS(6, f16_or_f32, cache)                                                                          \
    VALUES(1, 4, cache, values_##f16_or_f32##_1_4)                                                           \
    VALUES(1, 8, cache, values_##f16_or_f32##_1_8)                                                           \
    VALUES(2, 4, cache, values_##f16_or_f32##_2_4)                                                           \
    VALUES(3, 4, cache, values_##f16_or_f32##_3_4)
FUNCTIONS_OF(f16, KERN_CACHE_F16)
FUNCTIONS_OF(f32, KERN_CACHE_F32)

/* The scores of one vector of keys, soft-capped. */
static inline __m256 scaled(const struct kern_attend *a, const f32 *s) {
    __m256 v = _mm256_mul_ps(_mm256_set1_ps(a->scale), _mm256_load_ps(s)), cap = _mm256_set1_ps(a->softcap);
    return a->softcap > 0 ? _mm256_mul_ps(cap, tanh_avx2(_mm256_div_ps(v, cap))) : v;
}

/* All ones in the lanes of the keys j..j+7 that lie in from..to-1. */
static inline __m256 seen(u32 from, u32 to, u32 j) {
    const __m256i iota = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    __m256i key = _mm256_add_epi32(_mm256_set1_epi32((i32)j), iota);
    __m256i in = _mm256_and_si256(_mm256_cmpgt_epi32(key, _mm256_set1_epi32((i32)from - 1)),
                                  _mm256_cmpgt_epi32(_mm256_set1_epi32((i32)to), key));
    return _mm256_castsi256_ps(in);
}

/* Turns the scores of one query into weights; lanes of a block that it does not see become 0. */
static void tile_softmax(const struct attend_tile *t, u32 c) {
    const struct kern_attend *a = t->a;
    const __m256 none = _mm256_set1_ps(-INFINITY);
    f32 *s = t->s + c * KERN_CHUNK;
    u32 from = t->from[c], to = t->to[c];
    __m256 max = none;
    for (u32 j = from / 16 * 16; j < to; j += 8) {
        __m256 v = scaled(a, s + j);
        _mm256_store_ps(s + j, v);
        max = _mm256_max_ps(_mm256_blendv_ps(none, v, seen(from, to, j)), max);
    }
    f32 m = max_avx2(max) + 0.0f;
    __m256 low = _mm256_setzero_ps(), high = low, m8 = _mm256_set1_ps(m);
    for (u32 j = from / 16 * 16; j < to; j += 16) {
        __m256 p0 = exp_avx2(_mm256_sub_ps(_mm256_load_ps(s + j), m8));
        __m256 p1 = exp_avx2(_mm256_sub_ps(_mm256_load_ps(s + j + 8), m8));
        p0 = _mm256_and_ps(p0, seen(from, to, j));
        p1 = _mm256_and_ps(p1, seen(from, to, j + 8));
        _mm256_store_ps(s + j, p0);
        _mm256_store_ps(s + j + 8, p1);
        low = _mm256_add_ps(low, p0);
        high = _mm256_add_ps(high, p1);
    }
    a->m[t->first + c] = m;
    a->l[t->first + c] = sum_avx2(low, high);
}

static const struct attend_ops ops = {
    .lanes = 8,
    .blocks = {SCORES_BLOCKS(1), SCORES_BLOCKS(2), SCORES_BLOCKS(3), SCORES_BLOCKS(4), SCORES_BLOCKS(5), SCORES_BLOCKS(6)},
    .scores = {[KERN_CACHE_F16] = {scores_f16_1, scores_f16_2, scores_f16_3, scores_f16_4, scores_f16_5, scores_f16_6},
               [KERN_CACHE_F32] = {scores_f32_1, scores_f32_2, scores_f32_3, scores_f32_4, scores_f32_5, scores_f32_6}},
    .values = {[KERN_CACHE_F16] = {{NULL, values_f16_1_2, values_f16_1_4, values_f16_1_8},
                                   {NULL, values_f16_2_2, values_f16_2_4},
                                   {NULL, values_f16_3_2, values_f16_3_4},
                                   {NULL, values_f16_4_2},
                                   {NULL, values_f16_5_2},
                                   {NULL, values_f16_6_2}},
               [KERN_CACHE_F32] = {{NULL, values_f32_1_2, values_f32_1_4, values_f32_1_8},
                                   {NULL, values_f32_2_2, values_f32_2_4},
                                   {NULL, values_f32_3_2, values_f32_3_4},
                                   {NULL, values_f32_4_2},
                                   {NULL, values_f32_5_2},
                                   {NULL, values_f32_6_2}}},
    .softmax = tile_softmax,
};

void avx2_attend(const struct kern_attend *a, void *scratch) { attend_tiles(&ops, a, scratch); }

void avx2_attend_fold(f32 *m, f32 *l, f32 *o, f32 m2, f32 l2, const f32 *o2, u32 head_dim) {
    if (m2 == -INFINITY)
        return;
    f32 mm = *m > m2 ? *m : m2;
    f32 a = fm_expf(*m - mm), b = fm_expf(m2 - mm);
    *m = mm;
    *l = fmaf(*l, a, l2 * b);
    __m256 a8 = _mm256_set1_ps(a), b8 = _mm256_set1_ps(b);
    for (u32 i = 0; i < head_dim; i += 8) {
        __m256 v = _mm256_mul_ps(_mm256_loadu_ps(o2 + i), b8);
        _mm256_storeu_ps(o + i, _mm256_fmadd_ps(_mm256_loadu_ps(o + i), a8, v));
    }
}

void avx2_attend_finish(const f32 *o, f32 l, u32 head_dim, f32 *out) {
    __m256 l8 = _mm256_set1_ps(l);
    for (u32 i = 0; i < head_dim; i += 8)
        _mm256_storeu_ps(out + i, _mm256_div_ps(_mm256_loadu_ps(o + i), l8));
}

/* Eight values as halves, cut to the largest; min and max return their second operand if one is NaN. */
static inline __m128i to_halves(const f32 *x) {
    const __m256 high = _mm256_set1_ps(KERN_F16_MAX), low = _mm256_set1_ps(-KERN_F16_MAX);
    __m256 v = _mm256_max_ps(low, _mm256_min_ps(high, _mm256_loadu_ps(x)));
    return _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

void avx2_kv_store(enum kern_cache cache, u32 head_dim, u32 in_page, const f32 *k, const f32 *v, void *k_slice,
                   void *v_slice) {
    if (cache != KERN_CACHE_F16) {
        ref_kv_store(cache, head_dim, in_page, k, v, k_slice, v_slice);
        return;
    }
    u16 *kb = (u16 *)k_slice + (size_t)(in_page / 16) * 16 * head_dim;
    u16 *vb = (u16 *)v_slice + (size_t)(in_page / 16) * 16 * head_dim;
    if (in_page % 16 == 0) {
        memset(kb, 0, sizeof(u16) * 16 * head_dim);
        memset(vb, 0, sizeof(u16) * 16 * head_dim);
    }
    kb += in_page % 16;
    vb += (size_t)(in_page % 16) * head_dim;
    for (u32 d = 0; d < head_dim; d += 8) {
        u16 column[8];
        _mm_storeu_si128((__m128i *)(void *)column, to_halves(k + d));
        _mm_storeu_si128((__m128i *)(void *)(vb + d), to_halves(v + d));
        for (u32 i = 0; i < 8; i++)
            kb[(d + i) * 16] = column[i];
    }
}
