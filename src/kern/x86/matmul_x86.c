/* matmul_x86.c - see matmul_x86.h. */
#include "kern/x86/matmul_x86.h"

/* How far ahead of the reader weights are fetched, in bytes of all rows of a tile together: some 350 ns at the
 * speed of the memory. Half of it comes too late, twice as much leaves L1 before it is used. */
#define AHEAD_BYTES (14u << 10)

/* (One stream through the next tile's bytes instead of as many as rows was slower, and useless for tiles that are larger
 * than L1.) */
struct prefetch matmul_prefetch(const struct kern_mat *w, u32 n0, u32 n1, u32 rows, u32 most, const u8 *next) {
    size_t stride = w->row_bytes, row_lines = DIV_CEIL(stride, 64);
    /* At least a chunk: its own lines are read before the first of these is fetched. */
    struct columns c = columns_at(w, 0, most);
    size_t ahead = MAX(AHEAD_BYTES / rows, c.to) / 64;
    struct prefetch pf = {.step = stride,
                          .n_groups = rows / 4,
                          .n_lines = (u32)row_lines,
                          .groups = rows / 4,
                          .lines = (u32)(row_lines - ahead % row_lines),
                          .end = w->data + n1 * stride,
                          .next = next};
    pf.line = w->data + (n0 + ahead / row_lines * rows) * stride;
    if (pf.line >= pf.end)
        prefetch_enter(&pf);
    pf.line += ahead % row_lines * 64;
    return pf;
}

const u8 *matmul_chunk_rows(const struct kern_mat *w, u32 n, u32 rows, const struct columns *c, u8 *pad,
                            size_t pad_stride, size_t *stride) {
    if (n + rows <= w->N) {
        *stride = w->row_bytes;
        return w->data + n * w->row_bytes + c->from;
    }
    *stride = pad_stride;
    memset(pad, 0, rows * pad_stride);
    for (u32 row = 0; n + row < w->N; row++)
        memcpy(pad + row * pad_stride, w->data + (n + row) * w->row_bytes + c->from, c->to - c->from);
    return pad;
}

i32 matmul_bias_shift(enum quant_type type) {
    switch ((int)type) {
    case QUANT_Q4_0: return 3;
    case QUANT_Q5_0: return 4;
    case QUANT_Q6_K: return 5;
    case QUANT_Q8_0:
    case QUANT_IQ4_NL:
    case QUANT_IQ4_XS: return 7;
    default: return -1;
    }
}
