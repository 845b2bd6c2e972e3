/* matmul_x86.h - what the vector tiers' matmuls share: how a slice is cut into chunks, and what is fetched ahead.
 *
 * Lanes are weight rows. 8 or 16 rows of raw file bytes are transposed as dwords; then every field of a block
 * lies "one row per lane", all decoding is vertical, and one output is one lane of one f32 accumulator that
 * walks K in block order, for every number of activation rows. So neither horizontal sums nor a dependence
 * on the batch exist anywhere. */
#ifndef MINKA_MATMUL_X86_H
#define MINKA_MATMUL_X86_H

#include <immintrin.h>

#include "kern/kern_parts.h"

#define ALWAYS_INLINE static inline __attribute__((always_inline))
#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

/* A walk over the lines of a slice of weights ahead of the reader, a group of 4 rows at a time: one column of lines
 * after the other, as the rows will be read, tile after tile, then through what is read behind the slice. */
struct prefetch {
    const u8 *line;        /* of the next group's first row */
    size_t step;           /* bytes between rows */
    u32 n_groups, n_lines; /* of a tile */
    u32 groups, lines;     /* left in this column, in this tile */
    const u8 *end, *next;  /* of the slice; read behind it */
    bool far;              /* to L2 only: the rows lie so that their lines drive each other out of L1 */
    /* To fetch while the present chunk is worked on: n_early of n groups during the transposition, the rest spread over
     * the kernel's blocks. Evenly, because the processor keeps few misses open at a time and stalls on a burst. */
    u32 n, n_early;
};

/* Behind the slice's end the walk goes on in `next` as if that had the same rows; without it, in place. */
ALWAYS_INLINE void prefetch_enter(struct prefetch *pf) {
    if (pf->next) {
        pf->line = pf->next + (pf->line - pf->end);
        pf->end = (const u8 *)UINTPTR_MAX;
    } else {
        pf->line = pf->end - 4 * pf->n_groups * pf->step;
    }
}

/* Goes on with the next column of lines. */
ALWAYS_INLINE void prefetch_column(struct prefetch *pf) {
    size_t tile_bytes = 4 * pf->n_groups * pf->step;
    pf->groups = pf->n_groups;
    pf->line += 64 - tile_bytes;
    if (--pf->lines > 0)
        return;
    pf->lines = pf->n_lines;
    pf->line += tile_bytes - 64 * (size_t)pf->n_lines;
    if (pf->line >= pf->end)
        prefetch_enter(pf);
}

/* Fetches the next group. (All inline: a call would make the kernels save their accumulators.) */
ALWAYS_INLINE void prefetch_next(struct prefetch *pf) {
    const u8 *p = pf->line;
    size_t step = pf->step;
    if (pf->far) {
        for (u32 i = 0; i < 4; i++)
            _mm_prefetch((const char *)p + i * step, _MM_HINT_T1);
    } else {
        _mm_prefetch((const char *)p, _MM_HINT_T0);
        _mm_prefetch((const char *)p + step, _MM_HINT_T0);
        _mm_prefetch((const char *)p + 2 * step, _MM_HINT_T0);
        _mm_prefetch((const char *)p + 3 * step, _MM_HINT_T0);
    }
    pf->line = p + 4 * step;
    if (--pf->groups == 0)
        prefetch_column(pf);
}

/* Issues the share of one of n_blocks blocks; e (0 at first) carries the remainder from block to block. */
#define PREFETCH_SHARE(pf, e, n_blocks)                                                                      \
    for (e += (pf)->n; e >= (n_blocks); e -= (n_blocks))                                                     \
        prefetch_next(pf);

/* Fetches up to two groups of the early lines. */
ALWAYS_INLINE void prefetch_early(struct prefetch *pf) {
    for (u32 i = 0; i < 2 && pf->n_early > 0; i++, pf->n_early--, pf->n--)
        prefetch_next(pf);
}

/* A chunk of columns and where it lies in each row. */
struct columns {
    u32 first, n;
    size_t from, to; /* bytes */
};
/* The chunk at column `first`: `most` columns, or the rest if that is not more than a quarter longer. */
static inline struct columns columns_at(const struct kern_mat *w, u32 first, u32 most) {
    u32 n = w->K - first <= most + most / 4 ? w->K - first : most;
    u32 values = quant_block_values(w->type), bytes = quant_block_bytes(w->type);
    size_t from = (size_t)(first / values) * bytes;
    return (struct columns){first, n, from, from + (size_t)(n / values) * bytes};
}

/* The walk for rows n0..n1-1 of w in tiles of `rows` rows and chunks of `most` columns; next (or NULL) is read behind them. */
struct prefetch matmul_prefetch(const struct kern_mat *w, u32 n0, u32 n1, u32 rows, u32 most, const u8 *next);
/* What to fetch during chunk c: as much as it reads. */
static inline void prefetch_chunk(struct prefetch *pf, const struct columns *c) {
    pf->n = (u32)(DIV_CEIL(c->to, 64) - DIV_CEIL(c->from, 64)) * pf->n_groups;
    pf->n_early = 0;
}
/* Columns c of `rows` rows from row n on, stride bytes apart: in place, or copied to pad ([rows][pad_stride]) and
 * completed by zero rows if the matrix ends before. */
const u8 *matmul_chunk_rows(const struct kern_mat *w, u32 n, u32 rows, const struct columns *c, u8 *pad,
                            size_t pad_stride, size_t *stride);
/* What the formats subtract from their unsigned weights: 2^shift, or 0 for shift -1. */
i32 matmul_bias_shift(enum quant_type type);

#endif
