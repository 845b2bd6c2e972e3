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

/* Lines to fetch while a chunk is worked on, in groups of 4 that lie `step` bytes apart: n_early of the n groups
 * during the transposition, the rest spread over the kernel's blocks. Evenly, because the processor keeps few
 * misses open at a time and stalls on a burst. */
struct prefetch {
    const u8 *const *at;
    u32 n, n_early;
    size_t step;
    bool far; /* to L2 only: the rows lie so that their lines drive each other out of L1 */
};

ALWAYS_INLINE void prefetch_4(const u8 *p, size_t step) {
    _mm_prefetch((const char *)p, _MM_HINT_T0);
    _mm_prefetch((const char *)p + step, _MM_HINT_T0);
    _mm_prefetch((const char *)p + 2 * step, _MM_HINT_T0);
    _mm_prefetch((const char *)p + 3 * step, _MM_HINT_T0);
}

/* Issues the share of one of n_blocks blocks; e (0 at first) carries the remainder from block to block. */
#define PREFETCH_SHARE(pf, e, n_blocks)                                                                      \
    for (e += (pf).n; e >= (n_blocks); e -= (n_blocks))                                                      \
        prefetch_4(*(pf).at++, (pf).step);

/* Fetches the next group. */
ALWAYS_INLINE void prefetch_next(struct prefetch *pf) {
    const u8 *p = *pf->at++;
    if (!pf->far) {
        prefetch_4(p, pf->step);
        return;
    }
    for (u32 i = 0; i < 4; i++)
        _mm_prefetch((const char *)p + i * pf->step, _MM_HINT_T1);
}

/* Fetches up to two groups of the early lines. */
ALWAYS_INLINE void prefetch_early(struct prefetch *pf) {
    for (u32 i = 0; i < 2 && pf->n_early > 0; i++, pf->n_early--, pf->n--)
        prefetch_next(pf);
}

/* A slice of a matrix. */
struct walk {
    const struct kern_mat *w;
    const u8 *end;  /* of the slice */
    const u8 *next; /* what is read after it, or NULL */
};

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

/* Lists the groups of lines to fetch while columns c of `rows` weight rows from tile_rows on are worked on. A
 * list takes rows / 4 * (lines of the chunk + 1) entries. */
void matmul_prefetch_plan(const struct walk *k, const u8 *tile_rows, u32 rows, const struct columns *c, const u8 **list,
                          struct prefetch *pf);
/* Columns c of `rows` rows from row n on, stride bytes apart: in place, or copied to pad ([rows][pad_stride]) and
 * completed by zero rows if the matrix ends before. */
const u8 *matmul_chunk_rows(const struct kern_mat *w, u32 n, u32 rows, const struct columns *c, u8 *pad,
                            size_t pad_stride, size_t *stride);
/* What the formats subtract from their unsigned weights: 2^shift, or 0 for shift -1. */
i32 matmul_bias_shift(enum quant_type type);

#endif
