/* attend_x86.h - attention in tiles of query rows that share each K and V vector. Compiled once per tier,
 * behind one of the vec_*.h and the tier's shapes:
 *   TILE_MAX              queries per tile
 *   SCORES_SHAPES(f)      f(C, R): C queries times R blocks of 16 keys fit the registers; all R from 1 on, for each C
 *   VALUES_SHAPES(f)      f(C, N): C queries times N vectors of dimensions fit; all N from 1 on, for each C
 *
 * Scores: 16 keys per vector, one accumulator per (query, block of keys), so nothing is ever reduced. Values:
 * one accumulator per (query, 16 dimensions), keys in ascending order. Both are the order of ref/attend.c,
 * whatever the tile. A tile's queries may see different keys: what all of them see goes through the tile
 * kernel, the few keys in front and behind through the kernel for one query.
 *
 * Reading the cache runs at the speed of memory only if lines are asked for early and evenly: with each byte
 * that is read, the one a page slice later is prefetched, along the keys that are seen in this call (K, then V) and
 * in the next one. A slice is 8 to 32 KB of halves: less leaves waits, more falls out of a 48 KB first-level cache. */
#include "kern/x86/vec_math.h"

#define KV_PAGE 64u
_Static_assert(TILE_MAX <= KERN_ATTEND_TILE, "scratch holds a tile");
#define CHUNK_PAGES (KERN_CHUNK / KV_PAGE)
#define PAGE_BLOCKS (KV_PAGE / 16u)

struct stretch {
    const u8 *begin, *end;
};

/* How far is prefetched of what will be read, one stretch of bytes after the other. */
struct ahead {
    const u8 *at, *end;                /* in the current stretch */
    const struct stretch *next, *last; /* the last one, which is in the cache, is turned to again and again */
};

/* Up to TILE_MAX queries in a row. */
struct tile {
    const struct kern_attend *a;
    u32 first, n;                                      /* queries of this tile */
    u32 left;                                          /* tiles behind it */
    u32 from[KERN_ATTEND_TILE], to[KERN_ATTEND_TILE];  /* keys that each query sees */
    f32 *q;                                            /* [n][KERN_CHUNK] query rows, side by side */
    f32 *s;                                            /* [n][KERN_CHUNK] scores, then weights */
    struct ahead ahead;
    struct stretch stretches[4 * CHUNK_PAGES + 1];
};

/* --- the two products --- */

#define Q8_GROUP 32u /* dimensions that share a scale in the Q8 cache */

INLINE vec cache_load(enum kern_cache cache, const u8 *p, vec scale) {
    switch (cache) {
    case KERN_CACHE_F16: return vec_load_half(p);
    case KERN_CACHE_BF16: return vec_load_bf16(p);
    case KERN_CACHE_Q8: return vec_mul(vec_load_i8(p), scale);
    case KERN_CACHE_F32: break;
    }
    return vec_load((const f32 *)(const void *)p);
}

/* Prefetches n bytes of what comes next. */
INLINE void ahead_fetch(struct ahead *a, size_t n) {
#pragma GCC unroll 16
    for (size_t i = 0; i < n; i += 64)
        _mm_prefetch((const char *)a->at + i, _MM_HINT_T0);
    a->at += n;
    if (__builtin_expect(a->at >= a->end, false)) {
        a->at = a->next->begin;
        a->end = a->next->end;
        a->next += a->next < a->last;
    }
}

/* Named accumulators acc##c##_##v, for query c and vector v of keys or dimensions: arrays of them would be kept
 * in memory by the compiler. */
#define QUERIES(f, v) f(0, v) f(1, v) f(2, v) f(3, v) f(4, v) f(5, v) f(6, v) f(7, v)
#define VECTORS(f, c)                                                                                        \
    f(c, 0) f(c, 1) f(c, 2) f(c, 3) f(c, 4) f(c, 5) f(c, 6) f(c, 7) f(c, 8) f(c, 9) f(c, 10) f(c, 11)        \
    f(c, 12) f(c, 13) f(c, 14) f(c, 15)
#define ALL(f)                                                                                               \
    VECTORS(f, 0) VECTORS(f, 1) VECTORS(f, 2) VECTORS(f, 3) VECTORS(f, 4) VECTORS(f, 5) VECTORS(f, 6) VECTORS(f, 7)

/* One step of N vectors, vector(v), times C weights, w. What is fewer is loaded first and stays in registers. */
#define STEP_WEIGHT(c, unused) vec w##c = vec_set(C > c ? w[c * KERN_CHUNK] : 0);
#define STEP_VECTOR(unused, v) vec x##v = N > v ? vector(v) : vec_set(0);
#define STEP_FMA(c, v)                                                                                       \
    if (C > c && N > v)                                                                                      \
        acc##c##_##v = vec_fma(w##c, x##v, acc##c##_##v);
#define STEP_BY_VECTOR(unused, v)                                                                            \
    if (N > v) {                                                                                             \
        vec x##v = vector(v);                                                                                \
        QUERIES(STEP_FMA, v)                                                                                 \
    }
#define STEP_BY_QUERY(c, unused)                                                                             \
    if (C > c) {                                                                                             \
        vec w##c = vec_set(w[c * KERN_CHUNK]);                                                               \
        VECTORS(STEP_FMA, c)                                                                                 \
    }
#define STEP                                                                                                 \
    if (C <= 2) {                                                                                            \
        QUERIES(STEP_WEIGHT, )                                                                               \
        VECTORS(STEP_BY_VECTOR, )                                                                            \
    } else {                                                                                                 \
        VECTORS(STEP_VECTOR, )                                                                               \
        QUERIES(STEP_BY_QUERY, )                                                                             \
    }

/* Scores of C queries for N blocks of 16 keys. k: first block; w: [C][KERN_CHUNK] query rows;
 * s: out [C][KERN_CHUNK]. */
INLINE void scores(u32 C, u32 N, enum kern_cache cache, u32 head_dim, const u8 *k, struct ahead *ahead, const f32 *w, vec scale,
                   f32 *s) {
    const size_t row = 16 * kern_cache_bytes(cache), block = kern_cache_block_bytes(cache, head_dim);
    const u32 group = cache == KERN_CACHE_Q8 ? Q8_GROUP : head_dim;
    struct ahead f = *ahead;
    const u8 *scales UNUSED = k + row * head_dim;
#define ZERO(c, v) vec acc##c##_##v = vec_set(0);
    ALL(ZERO)
#undef ZERO
#define SCALE(unused, v) vec s##v UNUSED = cache == KERN_CACHE_Q8 && N > v ? vec_load_bf16(scales + v * block) : vec_set(0);
#define vector(v) cache_load(cache, k + v * block, s##v)
    for (u32 from = 0; from < head_dim; from += group, scales += 32) {
        VECTORS(SCALE, )
        for (u32 d = from; d < MIN(from + group, head_dim); d += 2, w++, k += row) {
            ahead_fetch(&f, 2 * N * row);
            STEP
            w++, k += row;
            STEP
        }
    }
    if (cache == KERN_CACHE_Q8)
        ahead_fetch(&f, N * 16 * kern_cache_scale_bytes(cache, head_dim));
    *ahead = f;
#undef vector
#undef SCALE
#define STORE(c, v)                                                                                          \
    if (C > c && N > v)                                                                                      \
        vec_store(s + c * KERN_CHUNK + 16 * v, vec_mul(scale, acc##c##_##v));
    ALL(STORE)
#undef STORE
}

/* o[c][d..d+16N-1] += sum over keys from..to-1 of p[c][j] * v[j]. p: [C][KERN_CHUNK]; o: [C][head_dim]. In the Q8 cache
 * d is a multiple of 32 unless N is 1.
 * Adding 0 in the end makes a -0 positive. */
INLINE void values(u32 C, u32 N, enum kern_cache cache, struct tile *t, u32 from, u32 to, u32 d, const f32 *p, f32 *o) {
    u32 head_dim = t->a->head_dim;
    const size_t size = kern_cache_bytes(cache), row = size * head_dim, scale_row = kern_cache_scale_bytes(cache, head_dim);
    const size_t block = kern_cache_block_bytes(cache, head_dim);
    const u32 run = cache == KERN_CACHE_Q8 ? 16 : KV_PAGE; /* keys whose elements follow each other */
    const f32 *w = p + from;
    struct ahead f = t->ahead;
#define LOAD(c, v) vec acc##c##_##v = C > c && N > v ? vec_load(o + c * head_dim + d + 16 * v) : vec_set(0);
    ALL(LOAD)
#undef LOAD
#define vector(v) cache_load(cache, x + v * 16 * size, cache == KERN_CACHE_Q8 ? vec_set_bf16(scale + v / 2 * 2) : vec_set(0))
    for (u32 j = from; j < to;) {
        u32 page = j / KV_PAGE, end = MIN(to, (j / run + 1) * run);
        size_t at_block = j % KV_PAGE / run * (run / 16 * block), offset = at_block + j % run * row + d * size;
        size_t at_scale = at_block + 16 * row + j % run * scale_row + d / Q8_GROUP * 2;
        const u8 *x = (const u8 *)t->a->v[page] + offset;
        const u8 *scale UNUSED = (const u8 *)t->a->v[page] + at_scale;
        if (cache == KERN_CACHE_Q8 && d == 0)
            ahead_fetch(&f, (end - j) * scale_row);
        for (; j < end; j++, w++, x += row, scale += scale_row) {
            ahead_fetch(&f, N * 16 * size);
            STEP
        }
    }
    t->ahead = f;
#undef vector
#define STORE(c, v)                                                                                          \
    if (C > c && N > v)                                                                                      \
        vec_store(o + c * head_dim + d + 16 * v, vec_add(acc##c##_##v, vec_set(0)));
    ALL(STORE)
#undef STORE
}

/* One function per shape, found by cache type, queries - 1 and vectors - 1. */
typedef void scores_fn(u32 head_dim, const u8 *k, struct ahead *ahead, const f32 *q, f32 scale, f32 *s);
typedef void values_fn(struct tile *t, u32 from, u32 to, u32 d, const f32 *p, f32 *o);
#define SCORES_NEW(name, C, R, cache)                                                                        \
    static void name(u32 head_dim, const u8 *k, struct ahead *ahead, const f32 *q, f32 scale, f32 *s) {      \
        scores(C, R, cache, head_dim, k, ahead, q, vec_set(scale), s);                                       \
    }
#define VALUES_NEW(name, C, N, cache)                                                                        \
    static void name(struct tile *t, u32 from, u32 to, u32 d, const f32 *p, f32 *o) {                        \
        values(C, N, cache, t, from, to, d, p, o);                                                           \
    }
#define SCORES_ALL(C, R)                                                                                     \
    SCORES_NEW(scores_f16_##C##_##R, C, R, KERN_CACHE_F16)                                                   \
    SCORES_NEW(scores_f32_##C##_##R, C, R, KERN_CACHE_F32)                                                   \
    SCORES_NEW(scores_bf16_##C##_##R, C, R, KERN_CACHE_BF16)                                                 \
    SCORES_NEW(scores_q8_##C##_##R, C, R, KERN_CACHE_Q8)
#define VALUES_ALL(C, N)                                                                                     \
    VALUES_NEW(values_f16_##C##_##N, C, N, KERN_CACHE_F16)                                                   \
    VALUES_NEW(values_f32_##C##_##N, C, N, KERN_CACHE_F32)                                                   \
    VALUES_NEW(values_bf16_##C##_##N, C, N, KERN_CACHE_BF16)                                                 \
    VALUES_NEW(values_q8_##C##_##N, C, N, KERN_CACHE_Q8)
SCORES_SHAPES(SCORES_ALL)
VALUES_SHAPES(VALUES_ALL)

#define SCORES_ENTRY(C, R)                                                                                   \
    [KERN_CACHE_F16][C - 1][R - 1] = scores_f16_##C##_##R, [KERN_CACHE_F32][C - 1][R - 1] = scores_f32_##C##_##R, \
    [KERN_CACHE_BF16][C - 1][R - 1] = scores_bf16_##C##_##R, [KERN_CACHE_Q8][C - 1][R - 1] = scores_q8_##C##_##R,
#define VALUES_ENTRY(C, N)                                                                                   \
    [KERN_CACHE_F16][C - 1][N - 1] = values_f16_##C##_##N, [KERN_CACHE_F32][C - 1][N - 1] = values_f32_##C##_##N, \
    [KERN_CACHE_BF16][C - 1][N - 1] = values_bf16_##C##_##N, [KERN_CACHE_Q8][C - 1][N - 1] = values_q8_##C##_##N,
static scores_fn *const scores_of[KERN_CACHE_TYPES][KERN_ATTEND_TILE][PAGE_BLOCKS] = {SCORES_SHAPES(SCORES_ENTRY)};
static values_fn *const values_of[KERN_CACHE_TYPES][KERN_ATTEND_TILE][16] = {VALUES_SHAPES(VALUES_ENTRY)};

/* --- tiles --- */

/* The keys of low..high-1 that one of the queries sees lie in *from..*to-1; *from >= *to if there are none. */
static void tile_sees(const struct tile *t, u32 low, u32 high, u32 *from, u32 *to) {
    *from = high;
    *to = low;
    for (u32 c = 0; c < t->n; c++) {
        u32 f = MAX(t->from[c], low), e = MIN(t->to[c], high);
        if (f < e) {
            *from = MIN(*from, f);
            *to = MAX(*to, e);
        }
    }
}

/* Writes the stretches of K or V of a call, keys from..to-1, to w; returns where they end. */
static struct stretch *stretches_of(struct stretch *w, const struct kern_attend *a, const void *const *slices, u32 from, u32 to) {
    size_t block = kern_cache_block_bytes(a->cache, a->head_dim);
    for (u32 page = from / KV_PAGE; page < DIV_CEIL(to, KV_PAGE); page++) {
        const u8 *slice = slices[page];
        u32 low = MAX(from, page * KV_PAGE) % KV_PAGE, high = MIN(to - page * KV_PAGE, KV_PAGE);
        if (slice)
            *w++ = (struct stretch){slice + low / 16 * block, slice + DIV_CEIL(high, 16) * block};
    }
    return w;
}

/* Later tiles of a call find the chunk in the cache: only the first one prefetches. The first slice has been
 * prefetched by the call before. */
static void tile_ahead(struct tile *t, bool is_first) {
    const struct kern_attend *a = t->a, *next = a->next;
    struct stretch *w = t->stretches;
    size_t done = KV_PAGE / 16 * kern_cache_block_bytes(a->cache, a->head_dim);
    u32 from, to, other;
    if (is_first) {
        tile_sees(t, 0, KERN_CHUNK, &from, &to);
        w = stretches_of(w, a, a->k, from, to);
        w = stretches_of(w, a, a->v, from, to);
    }
    if (is_first && next) {
        kern_visible(next, 0, &from, &other);
        kern_visible(next, next->n_queries - 1, &other, &to);
        w = stretches_of(w, next, next->k, from, to);
        w = stretches_of(w, next, next->v, from, to);
    }
    *w = (struct stretch){(const u8 *)t->q, (const u8 *)(t->q + KERN_ATTEND_TILE * KERN_CHUNK)};
    const struct stretch *s = t->stretches;
    for (; s < w && done >= (size_t)(s->end - s->begin); s++)
        done -= (size_t)(s->end - s->begin);
    t->ahead = (struct ahead){s->begin + (s < w ? done : 0), s->end, MIN(s + 1, w), w};
}

/* Fills in the next tile; false if there is none left. Sizes are even: ten queries are 5 + 5, not 8 + 2. */
static bool tile_next(struct tile *t) {
    const struct kern_attend *a = t->a;
    bool is_first = t->n == 0;
    t->first += t->n;
    if (t->left == 0)
        return false;
    t->n = DIV_CEIL(a->n_queries - t->first, t->left);
    t->left--;
    for (u32 c = 0; c < t->n; c++) {
        kern_visible(a, t->first + c, &t->from[c], &t->to[c]);
        memcpy(t->q + c * KERN_CHUNK, a->q[t->first + c], sizeof(f32) * a->head_dim);
    }
    tile_ahead(t, is_first);
    return true;
}

/* Scores for all keys that one of the queries sees, as many blocks of a page at a time as there is a shape for. */
static void tile_scores(struct tile *t) {
    const struct kern_attend *a = t->a;
    scores_fn *const *of = scores_of[a->cache][t->n - 1];
    size_t block = kern_cache_block_bytes(a->cache, a->head_dim);
    u32 most = PAGE_BLOCKS;
    while (!of[most - 1])
        most--;
    for (u32 page = 0; page < CHUNK_PAGES; page++) {
        u32 from, to;
        tile_sees(t, page * KV_PAGE, (page + 1) * KV_PAGE, &from, &to);
        for (u32 j = from / 16 * 16, n; j < to; j += 16 * n) {
            size_t offset = j % KV_PAGE / 16 * block;
            n = MIN(most, DIV_CEIL(to - j, 16));
            of[n - 1](a->head_dim, (const u8 *)a->k[page] + offset, &t->ahead, t->q, a->scale, t->s + j);
        }
    }
}

static const f32 lane_keys[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

/* The scores of keys j..j+15 of the chunk sink by their distance; exact, positions are below 2^24. */
INLINE vec tile_sink(const struct kern_attend *a, u32 query, u32 j, vec s) {
    f32 first = (f32)(a->chunk * KERN_CHUNK + j) - (f32)a->at[query];
    vec d = vec_add(vec_load(lane_keys), vec_set(first));
    return vec_fma(vec_set(-a->slope[query]), vec_max(d, vec_sub(vec_set(0), d)), s);
}

/* What the scores of query c go through beside their scale. */
static void tile_bend(const struct tile *t, u32 c) {
    const struct kern_attend *a = t->a;
    vec cap = vec_set(a->softcap);
    for (u32 j = t->from[c] / 16 * 16; j < t->to[c]; j += 16) {
        f32 *s = t->s + c * KERN_CHUNK + j;
        vec v = vec_load(s);
        if (a->softcap > 0)
            v = vec_mul(cap, vec_tanh(vec_div(v, cap)));
        if (a->slope)
            v = tile_sink(a, t->first + c, j, v);
        vec_store(s, v);
    }
}

/* The largest score of query c; lanes of a block that it does not see become -inf. */
static f32 tile_max(const struct tile *t, u32 c) {
    u32 from = t->from[c], to = t->to[c], j = from / 16 * 16;
    f32 *s = t->s + c * KERN_CHUNK;
    vec none = vec_set(-INFINITY), max = none, max2 = none;
    if (from == to)
        return -INFINITY;
    if (from % 16)
        vec_store(s + j, vec_cut(vec_load(s + j), from % 16, 16, none));
    if (to % 16)
        vec_store(s + to / 16 * 16, vec_cut(vec_load(s + to / 16 * 16), 0, to % 16, none));
    for (; to - j > 16 && j < to; j += 32) {
        max = vec_max(vec_load(s + j), max);
        max2 = vec_max(vec_load(s + j + 16), max2);
    }
    if (j < to)
        max = vec_max(vec_load(s + j), max);
    return vec_largest(vec_max(max, max2)) + 0.0f;
}

/* Turns the scores of query c into weights. */
static f32 tile_weights(const struct tile *t, u32 c, f32 m) {
    f32 *s = t->s + c * KERN_CHUNK;
    vec sum = vec_set(0), m16 = vec_set(m);
    for (u32 j = t->from[c] / 16 * 16; j < t->to[c]; j += 16) {
        vec p = vec_exp_low(vec_sub(vec_load(s + j), m16));
        vec_store(s + j, p);
        sum = vec_add(sum, p);
    }
    return vec_sum(sum);
}

/* All queries at a time, step by step: the sums over lanes at the end of each step overlap. */
static void tile_softmax(const struct tile *t) {
    const struct kern_attend *a = t->a;
    f32 *m = a->m + t->first, *l = a->l + t->first;
    for (u32 c = 0; (a->softcap > 0 || a->slope) && c < t->n; c++)
        tile_bend(t, c);
    for (u32 c = 0; c < t->n; c++)
        m[c] = tile_max(t, c);
    for (u32 c = 0; c < t->n; c++)
        l[c] = tile_weights(t, c, m[c]);
}

/* Adds keys from..to-1 to the outputs of n queries, from query c of the tile on, as many dimensions at a time as there
 * is a shape for. */
static void values_run(struct tile *t, u32 c, u32 n, u32 from, u32 to, u32 most) {
    const struct kern_attend *a = t->a;
    values_fn *const *of = values_of[a->cache][n - 1];
    u32 left = a->head_dim / 16;
    while (left) {
        u32 vectors = DIV_CEIL(left, DIV_CEIL(left, most));
        if (a->cache == KERN_CACHE_Q8 && vectors < left && vectors > 1)
            vectors &= ~1u; /* the next call begins with a scale of its own */
        of[vectors - 1](t, from, to, a->head_dim - 16 * left, t->s + c * KERN_CHUNK, a->o + (size_t)(t->first + c) * a->head_dim);
        left -= vectors;
    }
}

/* Where values come from memory and take several passes, each page goes through all of them: they find it in the
 * cache, and it is read in the order in which it is prefetched. */
static void tile_values(struct tile *t, u32 c, u32 n, u32 from, u32 to) {
    u32 most = 16;
    while (!values_of[t->a->cache][n - 1][most - 1])
        most--;
    u32 run = t->a->n_queries > TILE_MAX || t->a->head_dim <= 16 * most ? KERN_CHUNK : KV_PAGE;
    for (u32 j = from, end; j < to; j = end) {
        end = MIN(to, (j / run + 1) * run);
        values_run(t, c, n, j, end, most);
    }
}

void TIER(attend)(const struct kern_attend *a, void *scratch) {
    struct tile t = {.a = a, .q = scratch, .s = (f32 *)scratch + KERN_ATTEND_TILE * KERN_CHUNK,
                     .left = DIV_CEIL(a->n_queries, TILE_MAX)};
    while (tile_next(&t)) {
        u32 from = 0, to = KERN_CHUNK; /* seen by all */
        tile_scores(&t);
        tile_softmax(&t);
        for (u32 c = 0; c < t.n; c++) {
            from = MAX(from, t.from[c]);
            to = MIN(to, t.to[c]);
        }
        memset(a->o + (size_t)t.first * a->head_dim, 0, sizeof(f32) * t.n * a->head_dim);
        if (from >= to)
            from = to = KERN_CHUNK;
        for (u32 c = 0; c < t.n; c++)
            tile_values(&t, c, 1, t.from[c], MIN(from, t.to[c]));
        tile_values(&t, 0, t.n, from, to);
        for (u32 c = 0; c < t.n; c++)
            tile_values(&t, c, 1, to, t.to[c]);
    }
}

/* --- around it --- */

void TIER(attend_fold)(f32 *m, f32 *l, f32 *o, f32 m2, f32 l2, const f32 *o2, u32 head_dim) {
    if (m2 == -INFINITY)
        return;
    f32 mm = *m > m2 ? *m : m2;
    /* On vectors of one value: fm_expf is compiled for processors without fma and calls it as a function. */
    vec a = vec_exp(vec_set(*m - mm)), b = vec_exp(vec_set(m2 - mm));
    *m = mm;
    vec_store_n(l, 1, vec_fma(vec_set(*l), a, vec_mul(vec_set(l2), b)));
    for (u32 i = 0; i < head_dim; i += 16)
        vec_store(o + i, vec_fma(vec_load(o + i), a, vec_mul(vec_load(o2 + i), b)));
}

void TIER(attend_finish)(const f32 *o, f32 l, u32 head_dim, f32 *out) {
    for (u32 i = 0; i < head_dim; i += 16)
        vec_store(out + i, vec_div(vec_load(o + i), vec_set(l)));
}

/* min and max return their second operand if one is NaN: it stays NaN. */
INLINE vec cut(vec v, f32 max) { return vec_max(vec_set(-max), vec_min(vec_set(max), v)); }

/* A group of 16 or 32 values as q (not rounded yet) of the Q8 cache; returns its scale. */
INLINE u16 q8_group(const f32 *x, u32 n, vec *a, vec *b) {
    *a = vec_load(x);
    *b = n > 16 ? vec_load(x + 16) : vec_set(0);
    vec nan = vec_add(vec_mul(*a, vec_set(0)), vec_mul(*b, vec_set(0))); /* where there is a NaN or an infinity, else 0 */
    bool finite = vec_at_least(nan, nan) == 0xffff;
    f32 amax = finite ? vec_largest(vec_max(vec_abs(*a), vec_abs(*b))) : 0, inverse = 0;
    u16 scale = finite ? 0 : KERN_BF16_NAN;
    if (amax >= KERN_ACT_AMAX_MIN) {
        scale = kern_q8_scale(amax);
        inverse = 1 / bf16_to_f32(scale);
    }
    *a = finite ? vec_mul(*a, vec_set(inverse)) : vec_set(0);
    *b = finite ? vec_mul(*b, vec_set(inverse)) : vec_set(0);
    return scale;
}

/* One key of a block in the Q8 cache. */
static void q8_store(u32 head_dim, u32 key, const f32 *k, const f32 *v, u8 *kb, u8 *vb) {
    u32 groups = DIV_CEIL(head_dim, Q8_GROUP);
    u16 *ks = (u16 *)(void *)(kb + 16 * head_dim) + key, *vs = (u16 *)(void *)(vb + 16 * head_dim) + key * groups;
    vb += (size_t)key * head_dim;
    for (u32 d = 0; d < head_dim; d += Q8_GROUP, ks += 16, vs++) {
        u32 n = MIN(head_dim - d, Q8_GROUP);
        u8 column[Q8_GROUP];
        vec a, b;
        *vs = q8_group(v + d, n, &a, &b);
        vec_store_i8(vb + d, a);
        if (n > 16)
            vec_store_i8(vb + d + 16, b);
        *ks = q8_group(k + d, n, &a, &b);
        vec_store_i8(column, a);
        vec_store_i8(column + 16, b);
        for (u32 i = 0; i < n; i++)
            kb[(d + i) * 16 + key] = column[i];
    }
}

void TIER(kv_store)(enum kern_cache cache, u32 head_dim, u32 in_page, const f32 *k, const f32 *v, void *k_slice, void *v_slice) {
    if (cache == KERN_CACHE_F32) {
        ref_kv_store(cache, head_dim, in_page, k, v, k_slice, v_slice);
        return;
    }
    size_t block = kern_cache_block_bytes(cache, head_dim), offset = in_page / 16 * block;
    u8 *kb = (u8 *)k_slice + offset, *vb = (u8 *)v_slice + offset;
    u32 key = in_page % 16;
    if (key == 0) {
        memset(kb, 0, block);
        memset(vb, 0, block);
    }
    if (cache == KERN_CACHE_Q8) {
        q8_store(head_dim, key, k, v, kb, vb);
        return;
    }
    u16 *k16 = (u16 *)(void *)kb, *v16 = (u16 *)(void *)vb + (size_t)key * head_dim;
    for (u32 d = 0; d < head_dim; d += 16) {
        u16 column[16];
        if (cache == KERN_CACHE_F16) {
            vec_store_half(column, cut(vec_load(k + d), KERN_F16_MAX));
            vec_store_half(v16 + d, cut(vec_load(v + d), KERN_F16_MAX));
        } else {
            vec_store_bf16(column, cut(vec_load(k + d), KERN_BF16_MAX));
            vec_store_bf16(v16 + d, cut(vec_load(v + d), KERN_BF16_MAX));
        }
        for (u32 i = 0; i < 16; i++)
            k16[(d + i) * 16 + key] = column[i];
    }
}
