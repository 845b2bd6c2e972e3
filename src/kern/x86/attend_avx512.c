/* attend_avx512.c - attention in tiles of up to eight query rows that share each K and V vector.
 *
 * Scores: 16 keys per vector, one accumulator per (query, block of keys), so nothing is ever reduced. Values:
 * one accumulator per (query, 16 dimensions), keys in ascending order. Both are the order of ref/attend.c,
 * whatever the tile. A tile's queries may see different keys: what all of them see goes through the tile
 * kernel, the few keys in front and behind through the kernel for one query.
 *
 * Reading a long cache runs at the speed of memory only if lines are asked for early and evenly: while a page
 * is read, the next one of this call (K pages, V pages, then those of the next call) is prefetched. */
#include "kern/kern_parts.h"

#include "kern/x86/attend_x86.h"
#include "kern/x86/math_avx512.h"

#define INLINE static inline __attribute__((always_inline))

INLINE __m512 cache_load(enum kern_cache cache, const u8 *p) {
    return cache == KERN_CACHE_F16 ? _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)p))
                                   : _mm512_loadu_ps(p);
}

/* Named accumulators: arrays of them would be kept in memory by the compiler. f(c, b) for all queries c and
 * blocks b (or vectors of dimensions v). */
#define QUERIES(f, b) f(0, b) f(1, b) f(2, b) f(3, b) f(4, b) f(5, b) f(6, b) f(7, b)
#define BLOCKS(f) QUERIES(f, 0) QUERIES(f, 1) QUERIES(f, 2) QUERIES(f, 3)

/* Unscaled scores of C queries for R blocks of 16 keys. k: first block; q: [C][KERN_CHUNK] query rows;
 * s: out [C][KERN_CHUNK]; ahead: as many bytes that are prefetched. */
INLINE void scores(u32 C, u32 R, enum kern_cache cache, u32 head_dim, const u8 *k, const u8 *ahead, const f32 *q,
                   f32 *s) {
    size_t row = 16 * kern_cache_bytes(cache), block = row * head_dim;
#define ZERO(c, b) __m512 s##c##_##b = _mm512_setzero_ps();
    BLOCKS(ZERO)
#undef ZERO
    for (u32 d = 0; d < head_dim; d += 2, k += 2 * row, ahead += 64 * R) {
#pragma GCC unroll 4
        for (u32 b = 0; b < R; b++)
            _mm_prefetch((const char *)ahead + b * 64, _MM_HINT_T0);
#define LOAD(b, step) __m512 k##b##_##step = R > b ? cache_load(cache, k + b * block + step * row) : _mm512_setzero_ps();
#define FMA(c, b, step)                                                                                      \
    if (R > b)                                                                                               \
        s##c##_##b = _mm512_fmadd_ps(k##b##_##step, q##c##_##step, s##c##_##b);
#define QUERY(c, step)                                                                                       \
    if (C > c) {                                                                                             \
        __m512 q##c##_##step = _mm512_set1_ps(q[c * KERN_CHUNK + d + step]);                                 \
        FMA(c, 0, step) FMA(c, 1, step) FMA(c, 2, step) FMA(c, 3, step)                                      \
    }
        LOAD(0, 0) LOAD(1, 0) LOAD(2, 0) LOAD(3, 0)
        QUERIES(QUERY, 0)
        LOAD(0, 1) LOAD(1, 1) LOAD(2, 1) LOAD(3, 1)
        QUERIES(QUERY, 1)
#undef QUERY
#undef FMA
#undef LOAD
    }
#define STORE(c, b)                                                                                          \
    if (C > c && R > b)                                                                                      \
        _mm512_store_ps(s + c * KERN_CHUNK + b * 16, s##c##_##b);
    BLOCKS(STORE)
#undef STORE
}

#define VECTORS_OF(f, c) f(c, 0) f(c, 1) f(c, 2) f(c, 3) f(c, 4) f(c, 5) f(c, 6) f(c, 7)
#define VECTORS(f)                                                                                           \
    VECTORS_OF(f, 0) VECTORS_OF(f, 1) VECTORS_OF(f, 2) VECTORS_OF(f, 3) VECTORS_OF(f, 4) VECTORS_OF(f, 5)     \
    VECTORS_OF(f, 6) VECTORS_OF(f, 7)

/* o[c][d..d+16n-1] += sum over keys from..to-1 of p[c][j] * v[j]. p: [C][KERN_CHUNK]; o: [C][head_dim].
 * Adding 0 in the end makes a -0 positive. */
INLINE void values(u32 C, u32 N, enum kern_cache cache, const struct attend_pages *pages, u32 from, u32 to,
                   u32 head_dim, u32 d, const f32 *p, f32 *o) {
    size_t size = kern_cache_bytes(cache), row = size * head_dim;
#define LOAD(c, v) __m512 o##c##_##v = C > c && N > v ? _mm512_loadu_ps(o + c * head_dim + d + 16 * v) : _mm512_setzero_ps();
    VECTORS(LOAD)
#undef LOAD
    for (u32 j = from; j < to;) {
        u32 page = j / KV_PAGE, end = MIN(to, (page + 1) * KV_PAGE);
        size_t offset = (j % KV_PAGE) * row + d * size;
        const u8 *x = (const u8 *)pages->v[page] + offset, *ahead = (const u8 *)pages->v_ahead[page] + offset;
        for (; j < end; j++, x += row, ahead += row) {
#pragma GCC unroll 16
            for (u32 i = 0; i < N * 16 * size; i += 64)
                _mm_prefetch((const char *)ahead + i, _MM_HINT_T0);
#define WEIGHT(c, unused) __m512 p##c = C > c ? _mm512_set1_ps(p[c * KERN_CHUNK + j]) : _mm512_setzero_ps();
            QUERIES(WEIGHT, )
#undef WEIGHT
#define FMA(c, v)                                                                                            \
    if (C > c)                                                                                               \
        o##c##_##v = _mm512_fmadd_ps(p##c, t, o##c##_##v);
#define VECTOR(unused, v)                                                                                    \
    if (N > v) {                                                                                             \
        __m512 t = cache_load(cache, x + v * 16 * size);                                                     \
        QUERIES(FMA, v)                                                                                      \
    }
            VECTORS_OF(VECTOR, )
#undef VECTOR
#undef FMA
        }
    }
#define STORE(c, v)                                                                                          \
    if (C > c && N > v)                                                                                      \
        _mm512_storeu_ps(o + c * head_dim + d + 16 * v, _mm512_add_ps(o##c##_##v, _mm512_setzero_ps()));
    VECTORS(STORE)
#undef STORE
}

/* One function per number of queries; up to three queries a whole page of scores, else half of one, so that
 * the accumulators fit the registers. */
#define SCORES_BLOCKS(C) ((C) <= 3 ? 4u : 2u)
#define SCORES(C, cache, name)                                                                               \
    static void name(u32 head_dim, const u8 *k, const u8 *ahead, const f32 *q, f32 *s) {                     \
        scores(C, SCORES_BLOCKS(C), cache, head_dim, k, ahead, q, s);                                        \
    }
#define VALUES(C, N, cache, name)                                                                            \
    static void name(const struct attend_pages *pages, u32 from, u32 to, u32 head_dim, u32 d, const f32 *p,  \
                     f32 *o) {                                                                               \
        values(C, N, cache, pages, from, to, head_dim, d, p, o);                                             \
    }
/* Up to 24 accumulators or so, one vector and C weights are in registers. */
#define FUNCTIONS_2(C, type, cache)                                                                          \
    SCORES(C, cache, scores_##type##_##C)                                                                    \
    VALUES(C, 1, cache, values_##type##_##C##_1)                                                             \
    VALUES(C, 2, cache, values_##type##_##C##_2)
#define FUNCTIONS_3(C, type, cache) FUNCTIONS_2(C, type, cache) VALUES(C, 3, cache, values_##type##_##C##_3)
#define FUNCTIONS_4(C, type, cache) FUNCTIONS_3(C, type, cache) VALUES(C, 4, cache, values_##type##_##C##_4)
#define FUNCTIONS_5(C, type, cache) FUNCTIONS_4(C, type, cache) VALUES(C, 5, cache, values_##type##_##C##_5)
#define FUNCTIONS_6(C, type, cache) FUNCTIONS_5(C, type, cache) VALUES(C, 6, cache, values_##type##_##C##_6)
#define FUNCTIONS_8(C, type, cache)                                                                          \
    FUNCTIONS_6(C, type, cache)                                                                              \
    VALUES(C, 7, cache, values_##type##_##C##_7)                                                             \
    VALUES(C, 8, cache, values_##type##_##C##_8)
#define FUNCTIONS(type, cache)                                                                               \
    FUNCTIONS_8(1, type, cache)                                                                              \
    FUNCTIONS_8(2, type, cache)                                                                              \
    FUNCTIONS_8(3, type, cache)                                                                              \
    FUNCTIONS_6(4, type, cache)                                                                              \
    FUNCTIONS_5(5, type, cache)                                                                              \
    FUNCTIONS_4(6, type, cache)                                                                              \
    FUNCTIONS_3(7, type, cache)                                                                              \
    FUNCTIONS_2(8, type, cache)
FUNCTIONS(f16, KERN_CACHE_F16)
FUNCTIONS(f32, KERN_CACHE_F32)

/* Turns the scores of one query into weights; lanes of a block that it does not see become 0. */
static void tile_softmax(const struct attend_tile *t, u32 c) {
    const struct kern_attend *a = t->a;
    f32 *s = t->s + c * KERN_CHUNK;
    u32 from = t->from[c], to = t->to[c];
    __m512 max = _mm512_set1_ps(-INFINITY), scale = _mm512_set1_ps(a->scale), cap = _mm512_set1_ps(a->softcap);
    for (u32 j = from / 16 * 16; j < to; j += 16) {
        __mmask16 k = attend_block_mask(from, to, j);
        __m512 v = _mm512_mul_ps(scale, _mm512_load_ps(s + j));
        if (a->softcap > 0)
            v = _mm512_mul_ps(cap, tanh_avx512(_mm512_div_ps(v, cap)));
        _mm512_store_ps(s + j, v);
        max = _mm512_mask_max_ps(max, k, v, max);
    }
    f32 m = max_avx512(max) + 0.0f;
    __m512 sum = _mm512_setzero_ps(), m16 = _mm512_set1_ps(m);
    for (u32 j = from / 16 * 16; j < to; j += 16) {
        __mmask16 k = attend_block_mask(from, to, j);
        __m512 p = _mm512_maskz_mov_ps(k, exp_avx512(_mm512_sub_ps(_mm512_load_ps(s + j), m16)));
        _mm512_store_ps(s + j, p);
        sum = _mm512_add_ps(sum, p);
    }
    a->m[t->first + c] = m;
    a->l[t->first + c] = sum_avx512(sum);
}

#define UP_TO_2(C, type) values_##type##_##C##_1, values_##type##_##C##_2
#define UP_TO_3(C, type) UP_TO_2(C, type), values_##type##_##C##_3
#define UP_TO_4(C, type) UP_TO_3(C, type), values_##type##_##C##_4
#define UP_TO_5(C, type) UP_TO_4(C, type), values_##type##_##C##_5
#define UP_TO_6(C, type) UP_TO_5(C, type), values_##type##_##C##_6
#define UP_TO_8(C, type) UP_TO_6(C, type), values_##type##_##C##_7, values_##type##_##C##_8
#define SCORES_ROW(type)                                                                                     \
    {scores_##type##_1, scores_##type##_2, scores_##type##_3, scores_##type##_4,                             \
     scores_##type##_5, scores_##type##_6, scores_##type##_7, scores_##type##_8}
#define VALUES_ROW(type)                                                                                     \
    {{UP_TO_8(1, type)}, {UP_TO_8(2, type)}, {UP_TO_8(3, type)}, {UP_TO_6(4, type)},                         \
     {UP_TO_5(5, type)}, {UP_TO_4(6, type)}, {UP_TO_3(7, type)}, {UP_TO_2(8, type)}}

static const struct attend_ops ops = {
    .lanes = 16,
    .tile_max = 8,
    .tile_many = 6,
    .blocks = {SCORES_BLOCKS(1), SCORES_BLOCKS(2), SCORES_BLOCKS(3), SCORES_BLOCKS(4), SCORES_BLOCKS(5),
               SCORES_BLOCKS(6), SCORES_BLOCKS(7), SCORES_BLOCKS(8)},
    .vectors = {8, 8, 8, 6, 5, 4, 3, 2},
    .scores = {[KERN_CACHE_F16] = SCORES_ROW(f16), [KERN_CACHE_F32] = SCORES_ROW(f32)},
    .values = {[KERN_CACHE_F16] = VALUES_ROW(f16), [KERN_CACHE_F32] = VALUES_ROW(f32)},
    .softmax = tile_softmax,
};

void avx512_attend(const struct kern_attend *a, void *scratch) { attend_tiles(&ops, a, scratch); }

void avx512_attend_fold(f32 *m, f32 *l, f32 *o, f32 m2, f32 l2, const f32 *o2, u32 head_dim) {
    if (m2 == -INFINITY)
        return;
    f32 mm = *m > m2 ? *m : m2;
    f32 a = fm_expf(*m - mm), b = fm_expf(m2 - mm);
    *m = mm;
    *l = fmaf(*l, a, l2 * b);
    __m512 a16 = _mm512_set1_ps(a), b16 = _mm512_set1_ps(b);
    for (u32 i = 0; i < head_dim; i += 16) {
        __m512 v = _mm512_mul_ps(_mm512_loadu_ps(o2 + i), b16);
        _mm512_storeu_ps(o + i, _mm512_fmadd_ps(_mm512_loadu_ps(o + i), a16, v));
    }
}

void avx512_attend_finish(const f32 *o, f32 l, u32 head_dim, f32 *out) {
    __m512 l16 = _mm512_set1_ps(l);
    for (u32 i = 0; i < head_dim; i += 16)
        _mm512_storeu_ps(out + i, _mm512_div_ps(_mm512_loadu_ps(o + i), l16));
}

void avx512_kv_store(enum kern_cache cache, u32 head_dim, u32 in_page, const f32 *k, const f32 *v, void *k_slice,
                     void *v_slice) {
    const __m512 high = _mm512_set1_ps(KERN_F16_MAX), low = _mm512_set1_ps(-KERN_F16_MAX);
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
    for (u32 d = 0; d < head_dim; d += 16) {
        u16 column[16];
        /* min and max return their second operand if one is NaN: it stays NaN. */
        __m512 x = _mm512_max_ps(low, _mm512_min_ps(high, _mm512_loadu_ps(k + d)));
        __m512 y = _mm512_max_ps(low, _mm512_min_ps(high, _mm512_loadu_ps(v + d)));
        _mm256_storeu_si256((__m256i *)(void *)column, _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
        _mm256_storeu_si256((__m256i *)(void *)(vb + d), _mm512_cvtps_ph(y, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
        for (u32 i = 0; i < 16; i++)
            kb[(d + i) * 16] = column[i];
    }
}
