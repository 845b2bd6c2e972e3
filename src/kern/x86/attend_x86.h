/* attend_x86.h - how a call of attention is cut into tiles; shared by the vector tiers. */
#ifndef MINKA_KERN_ATTEND_X86_H
#define MINKA_KERN_ATTEND_X86_H

#include "kern/kern_parts.h"

#define KV_PAGE 64u
#define CHUNK_PAGES (KERN_CHUNK / KV_PAGE)

/* The pages of a chunk, each with the page that is prefetched while it is read (itself if there is none). One
 * page is 8 to 32 KB of halves: nearer leaves waits, farther falls out of a 48 KB first-level cache. */
struct attend_pages {
    const void *const *v;
    const void *k_ahead[CHUNK_PAGES];
    const void *v_ahead[CHUNK_PAGES];
};

/* Up to KERN_ATTEND_TILE queries in a row. */
struct attend_tile {
    const struct kern_attend *a;
    struct attend_pages pages;
    u32 first, n;                                      /* queries of this tile */
    u32 from[KERN_ATTEND_TILE], to[KERN_ATTEND_TILE];  /* keys that each of them sees */
    u32 left;                                          /* tiles behind this one */
    f32 *q;                                            /* [n][KERN_CHUNK] their rows, side by side */
    f32 *s;                                            /* [n][KERN_CHUNK] scores, then weights */
};

static inline bool attend_tile_sees(const struct attend_tile *t, u32 from, u32 to) {
    for (u32 c = 0; c < t->n; c++)
        if (t->from[c] < to && from < t->to[c])
            return true;
    return false;
}

/* Bits of the 16 keys at j that lie in from..to-1; j <= to. */
static inline u16 attend_block_mask(u32 from, u32 to, u32 j) {
    u32 below_to = to - j >= 16 ? 0xffffu : (1u << (to - j)) - 1;
    u32 below_from = from > j ? (1u << (from - j)) - 1 : 0;
    return (u16)(below_to & ~below_from);
}

/* Later tiles of a call find the chunk in the cache: only the first one prefetches. */
static inline void attend_ahead(struct attend_tile *t, bool first) {
    const struct kern_attend *a = t->a;
    const void *last = NULL, **ahead = &last; /* where the page before waits for the next one */
    for (u32 i = 0; i < CHUNK_PAGES; i++) {
        t->pages.k_ahead[i] = a->k[i];
        t->pages.v_ahead[i] = a->v[i];
    }
    if (!first)
        return;
    for (u32 i = 0; i < 2 * CHUNK_PAGES; i++) {
        u32 page = i % CHUNK_PAGES;
        if (!attend_tile_sees(t, page * KV_PAGE, (page + 1) * KV_PAGE))
            continue;
        *ahead = i < CHUNK_PAGES ? a->k[page] : a->v[page];
        ahead = i < CHUNK_PAGES ? &t->pages.k_ahead[page] : &t->pages.v_ahead[page];
    }
    if (a->next)
        *ahead = a->next;
}

/* The parts that differ between the tiers. */
typedef void attend_scores_fn(u32 head_dim, const u8 *k, const u8 *ahead, const f32 *q, f32 *s);
typedef void attend_values_fn(const struct attend_pages *pages, u32 from, u32 to, u32 head_dim, u32 d, const f32 *p,
                              f32 *o);
struct attend_ops {
    u32 lanes;                                            /* floats per vector */
    u32 tile_max, tile_many;                              /* queries per tile if one tile is enough, if not */
    u32 blocks[KERN_ATTEND_TILE];                         /* of 16 keys, per call of scores; by number of queries - 1 */
    u32 vectors[KERN_ATTEND_TILE];                        /* of dimensions, at most, per call of values */
    attend_scores_fn *scores[2][KERN_ATTEND_TILE];        /* by cache type */
    attend_values_fn *values[2][KERN_ATTEND_TILE][8];     /* and number of vectors - 1 */
    void (*softmax)(const struct attend_tile *t, u32 c);  /* scores of query c to weights, m and l */
};

static inline void attend_tile_init(struct attend_tile *t, const struct attend_ops *ops, const struct kern_attend *a,
                                    void *scratch) {
    u32 size = a->n_queries <= ops->tile_max ? ops->tile_max : ops->tile_many;
    *t = (struct attend_tile){.a = a, .pages.v = a->v, .q = scratch, .left = DIV_CEIL(a->n_queries, size)};
    t->s = t->q + KERN_ATTEND_TILE * KERN_CHUNK;
}

/* Fills in the next tile; false if there is none left. Sizes are even: ten queries are 5 + 5, not 6 + 4. */
static inline bool attend_tile_next(struct attend_tile *t) {
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
    attend_ahead(t, is_first);
    return true;
}

/* Scores of the tile for all keys that one of its queries sees, a few blocks at a time. */
static inline void attend_tile_scores(const struct attend_ops *ops, const struct attend_tile *t) {
    const struct kern_attend *a = t->a;
    u32 keys = 16 * ops->blocks[t->n - 1];
    size_t block = 16 * kern_cache_bytes(a->cache) * a->head_dim;
    for (u32 j = 0; j < KERN_CHUNK; j += keys) {
        if (!attend_tile_sees(t, j, j + keys))
            continue;
        size_t offset = j % KV_PAGE / 16 * block;
        ops->scores[a->cache][t->n - 1](a->head_dim, (const u8 *)a->k[j / KV_PAGE] + offset,
                                        (const u8 *)t->pages.k_ahead[j / KV_PAGE] + offset, t->q, t->s + j);
    }
}

/* Adds keys from..to-1 to the outputs of n queries of the tile, from query c on. */
static inline void attend_tile_values(const struct attend_ops *ops, const struct attend_tile *t, u32 c, u32 n,
                                      u32 from, u32 to) {
    const struct kern_attend *a = t->a;
    u32 left = a->head_dim / ops->lanes, calls = DIV_CEIL(left, ops->vectors[n - 1]);
    f32 *o = a->o + (size_t)(t->first + c) * a->head_dim;
    if (from >= to)
        return;
    for (; calls; calls--) {
        u32 vectors = DIV_CEIL(left, calls);
        ops->values[a->cache][n - 1][vectors - 1](&t->pages, from, to, a->head_dim, a->head_dim - left * ops->lanes,
                                                  t->s + c * KERN_CHUNK, o);
        left -= vectors;
    }
}

static inline void attend_tiles(const struct attend_ops *ops, const struct kern_attend *a, void *scratch) {
    struct attend_tile t;
    for (attend_tile_init(&t, ops, a, scratch); attend_tile_next(&t);) {
        u32 from = 0, to = KERN_CHUNK; /* seen by all */
        attend_tile_scores(ops, &t);
        for (u32 c = 0; c < t.n; c++) {
            ops->softmax(&t, c);
            from = MAX(from, t.from[c]);
            to = MIN(to, t.to[c]);
        }
        memset(a->o + (size_t)t.first * a->head_dim, 0, sizeof(f32) * t.n * a->head_dim);
        if (from >= to)
            from = to = KERN_CHUNK;
        for (u32 c = 0; c < t.n; c++)
            attend_tile_values(ops, &t, c, 1, t.from[c], MIN(from, t.to[c]));
        attend_tile_values(ops, &t, 0, t.n, from, to);
        for (u32 c = 0; c < t.n; c++)
            attend_tile_values(ops, &t, c, 1, to, t.to[c]);
    }
}

#endif
