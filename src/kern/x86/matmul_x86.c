/* matmul_x86.c - see matmul_x86.h. */
#include "kern/x86/matmul_x86.h"

/* How far ahead of the reader weights are fetched, in bytes of all rows of a tile together: some 350 ns at the
 * speed of the memory. Half of it comes too late, twice as much leaves L1 before it is used. */
#define AHEAD_BYTES (14u << 10)

/* Walks the lines of each row in the order in which they will be read, which is `rows` streams at once: a column of
 * lines at a time, the last column of a tile followed by the first of the next tile. (One stream through the next
 * tile's bytes was slower, and useless for tiles that are larger than L1.) Behind the slice's end the walk goes on
 * in `next` as if that had the same rows. */
void matmul_prefetch_plan(const struct walk *k, const u8 *tile_rows, u32 rows, const struct columns *c, const u8 **list,
                          struct prefetch *pf) {
    size_t stride = k->w->row_bytes, row_lines = DIV_CEIL(stride, 64);
    /* At least a chunk: its own lines are read before the first of these is fetched. */
    size_t ahead = MAX(AHEAD_BYTES / rows, c->to - c->from) / 64;
    size_t first = DIV_CEIL(c->from, 64), at = (first + ahead) % row_lines;
    const u8 *tile = tile_rows + (first + ahead) / row_lines * rows * stride;
    u32 n = 0;
    for (size_t line = first; line < DIV_CEIL(c->to, 64); line++) {
        const u8 *p = tile + at * 64;
        bool inside = p + (rows - 4) * stride < k->end; /* nearly always: one comparison instead of many */
        if (!inside && !k->next && p >= k->end)
            break;
        for (u32 row = 0; row < rows; row += 4, p += 4 * stride) {
            if (inside || p < k->end)
                list[n++] = p;
            else if (k->next)
                list[n++] = k->next + (p - k->end);
        }
        if (++at == row_lines) {
            at = 0;
            tile += rows * stride;
        }
    }
    *pf = (struct prefetch){.at = list, .n = n, .step = stride};
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
