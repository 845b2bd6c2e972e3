/* attend_avx2.c - the tiles of attend_avx512.c with 8 lanes: a block of 16 keys is two vectors, and 16
 * registers hold 12 accumulators: tiles of up to six queries. */
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
#define VECTORS_OF(f, c) f(c, 0) f(c, 1) f(c, 2) f(c, 3) f(c, 4) f(c, 5) f(c, 6) f(c, 7)
#define VECTORS(f)                                                                                           \
    VECTORS_OF(f, 0) VECTORS_OF(f, 1) VECTORS_OF(f, 2) VECTORS_OF(f, 3) VECTORS_OF(f, 4) VECTORS_OF(f, 5)

/* One step of N vectors, vector(v), times C weights, w, into acc##c##_##v. What is fewer stays in registers. */
#define STEP_WEIGHT(c, unused) __m256 w##c = C > c ? _mm256_set1_ps(w[c * KERN_CHUNK]) : _mm256_setzero_ps();
#define STEP_FMA(c, v)                                                                                       \
    if (C > c && N > v)                                                                                      \
        acc##c##_##v = _mm256_fmadd_ps(w##c, x##v, acc##c##_##v);
#define STEP_VECTOR(unused, v) __m256 x##v = N > v ? vector(v) : _mm256_setzero_ps();
#define STEP_BY_VECTOR(unused, v)                                                                            \
    if (N > v) {                                                                                             \
        __m256 x##v = vector(v);                                                                             \
        QUERIES(STEP_FMA, v)                                                                                 \
    }
#define STEP_BY_QUERY(c, unused)                                                                             \
    if (C > c) {                                                                                             \
        __m256 w##c = _mm256_set1_ps(w[c * KERN_CHUNK]);                                                     \
        VECTORS_OF(STEP_FMA, c)                                                                              \
    }
#define STEP                                                                                                 \
    if (C <= 3) {                                                                                            \
        QUERIES(STEP_WEIGHT, )                                                                               \
        VECTORS_OF(STEP_BY_VECTOR, )                                                                         \
    } else {                                                                                                 \
        VECTORS_OF(STEP_VECTOR, )                                                                            \
        QUERIES(STEP_BY_QUERY, )                                                                             \
    }

/* Unscaled scores of C queries for N / 2 blocks of 16 keys. k: first block; w: [C][KERN_CHUNK] query rows;
 * s: out [C][KERN_CHUNK]; ahead: as many bytes that are prefetched. */
INLINE void scores(u32 C, u32 N, enum kern_cache cache, u32 head_dim, const u8 *k, const u8 *ahead, const f32 *w,
                   f32 *s) {
    size_t half = 8 * kern_cache_bytes(cache), block = 2 * half * head_dim;
#define ZERO(c, v) __m256 acc##c##_##v = _mm256_setzero_ps();
    VECTORS(ZERO)
#undef ZERO
    for (u32 d = 0; d < head_dim; d++, w++, k += 2 * half, ahead += 16 * N) {
#pragma GCC unroll 2
        for (u32 i = 0; i < 16 * N; i += 64)
            _mm_prefetch((const char *)ahead + i, _MM_HINT_T0);
#define vector(v) cache_load(cache, k + v / 2 * block + v % 2 * half)
        STEP
#undef vector
    }
#define STORE(c, v)                                                                                          \
    if (C > c && N > v)                                                                                      \
        _mm256_store_ps(s + c * KERN_CHUNK + 8 * v, acc##c##_##v);
    VECTORS(STORE)
#undef STORE
}

/* o[c][d..d+8n-1] += sum over keys from..to-1 of p[c][j] * v[j]. p: [C][KERN_CHUNK]; o: [C][head_dim].
 * Adding 0 in the end makes a -0 positive. */
INLINE void values(u32 C, u32 N, enum kern_cache cache, const struct attend_pages *pages, u32 from, u32 to,
                   u32 head_dim, u32 d, const f32 *p, f32 *o) {
    size_t size = kern_cache_bytes(cache), row = size * head_dim;
#define LOAD(c, v) __m256 acc##c##_##v = C > c && N > v ? _mm256_loadu_ps(o + c * head_dim + d + 8 * v) : _mm256_setzero_ps();
    VECTORS(LOAD)
#undef LOAD
    const f32 *w = p + from;
    for (u32 j = from; j < to;) {
        u32 page = j / KV_PAGE, end = MIN(to, (page + 1) * KV_PAGE);
        size_t offset = (j % KV_PAGE) * row + d * size;
        const u8 *x = (const u8 *)pages->v[page] + offset, *ahead = (const u8 *)pages->v_ahead[page] + offset;
        for (; j < end; j++, w++, x += row, ahead += row) {
#pragma GCC unroll 4
            for (u32 i = 0; i < N * 8 * size; i += 64)
                _mm_prefetch((const char *)ahead + i, _MM_HINT_T0);
#define vector(v) cache_load(cache, x + v * 8 * size)
            STEP
#undef vector
        }
    }
#define STORE(c, v)                                                                                          \
    if (C > c && N > v)                                                                                      \
        _mm256_storeu_ps(o + c * head_dim + d + 8 * v, _mm256_add_ps(acc##c##_##v, _mm256_setzero_ps()));
    VECTORS(STORE)
#undef STORE
}

/* Accumulators, and vectors or weights, fit 16 registers. */
#define SCORES_BLOCKS(C) ((C) == 1 ? 4u : (C) <= 3 ? 2u : 1u)
#define SCORES(C, cache, name)                                                                               \
    static void name(u32 head_dim, const u8 *k, const u8 *ahead, const f32 *q, f32 *s) {                     \
        scores(C, 2 * SCORES_BLOCKS(C), cache, head_dim, k, ahead, q, s);                                    \
    }
#define VALUES(C, N, cache, name)                                                                            \
    static void name(const struct attend_pages *pages, u32 from, u32 to, u32 head_dim, u32 d, const f32 *p,  \
                     f32 *o) {                                                                               \
        values(C, N, cache, pages, from, to, head_dim, d, p, o);                                             \
    }
#define FUNCTIONS_2(C, type, cache)                                                                          \
    SCORES(C, cache, scores_##type##_##C)                                                                    \
    VALUES(C, 1, cache, values_##type##_##C##_1)                                                             \
    VALUES(C, 2, cache, values_##type##_##C##_2)
#define FUNCTIONS_3(C, type, cache) FUNCTIONS_2(C, type, cache) VALUES(C, 3, cache, values_##type##_##C##_3)
#define FUNCTIONS_4(C, type, cache) FUNCTIONS_3(C, type, cache) VALUES(C, 4, cache, values_##type##_##C##_4)
#define FUNCTIONS_8(C, type, cache)                                                                          \
    FUNCTIONS_4(C, type, cache)                                                                              \
    VALUES(C, 5, cache, values_##type##_##C##_5)                                                             \
    VALUES(C, 6, cache, values_##type##_##C##_6)                                                             \
    VALUES(C, 7, cache, values_##type##_##C##_7)                                                             \
    VALUES(C, 8, cache, values_##type##_##C##_8)
#define FUNCTIONS(type, cache)                                                                               \
    FUNCTIONS_8(1, type, cache)                                                                              \
    FUNCTIONS_4(2, type, cache)                                                                              \
    FUNCTIONS_4(3, type, cache)                                                                              \
    FUNCTIONS_3(4, type, cache)                                                                              \
    FUNCTIONS_2(5, type, cache)                                                                              \
    FUNCTIONS_2(6, type, cache)
FUNCTIONS(f16, KERN_CACHE_F16)
FUNCTIONS(f32, KERN_CACHE_F32)

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

#define UP_TO_2(C, type) values_##type##_##C##_1, values_##type##_##C##_2
#define UP_TO_3(C, type) UP_TO_2(C, type), values_##type##_##C##_3
#define UP_TO_4(C, type) UP_TO_3(C, type), values_##type##_##C##_4
#define UP_TO_8(C, type)                                                                                     \
    UP_TO_4(C, type), values_##type##_##C##_5, values_##type##_##C##_6, values_##type##_##C##_7,             \
        values_##type##_##C##_8
#define SCORES_ROW(type)                                                                                     \
    {scores_##type##_1, scores_##type##_2, scores_##type##_3, scores_##type##_4, scores_##type##_5, scores_##type##_6}
#define VALUES_ROW(type)                                                                                     \
    {{UP_TO_8(1, type)}, {UP_TO_4(2, type)}, {UP_TO_4(3, type)}, {UP_TO_3(4, type)}, {UP_TO_2(5, type)}, {UP_TO_2(6, type)}}

static const struct attend_ops ops = {
    .lanes = 8,
    .tile_max = 6,
    .tile_many = 6,
    .blocks = {SCORES_BLOCKS(1), SCORES_BLOCKS(2), SCORES_BLOCKS(3), SCORES_BLOCKS(4), SCORES_BLOCKS(5), SCORES_BLOCKS(6)},
    .vectors = {8, 4, 4, 3, 2, 2},
    .scores = {[KERN_CACHE_F16] = SCORES_ROW(f16), [KERN_CACHE_F32] = SCORES_ROW(f32)},
    .values = {[KERN_CACHE_F16] = VALUES_ROW(f16), [KERN_CACHE_F32] = VALUES_ROW(f32)},
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
