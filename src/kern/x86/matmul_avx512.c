/* matmul_avx512.c - walks a slice of a matrix: tiles of weight rows, chunks of columns, groups of activation
 * rows; decides what to prefetch. See matmul_avx512.h. */
#include "kern/x86/matmul_avx512.h"

/* How far ahead of the reader weights are fetched, in bytes of all rows of a tile together: some 350 ns at the
 * speed of the memory. Half of it comes too late, twice as much leaves L1 before it is used. */
#define AHEAD_BYTES (14u << 10)

/* Activation rows that pass over a tile before the next tile is decoded are kept below half of L2. */
#define ACTS_BYTES_MAX (512u << 10)

/* Walks the lines of each row in the order in which they will be read, which is `rows` streams at once: a column of
 * lines at a time, the last column of a tile followed by the first of the next tile. (One stream through the next
 * tile's bytes was slower, and useless for tiles that are larger than L1.) Behind the slice's end the walk goes on
 * in `next` as if that had the same rows. */
void avx512_prefetch_plan(struct walk *k, const u8 *tile_rows, u32 rows, size_t from, size_t to, struct tile *tile,
                          struct prefetch *pf) {
    size_t stride = k->w->row_bytes, row_lines = DIV_CEIL(stride, 64);
    /* At least a chunk: its own lines are read before the first of these is fetched. */
    size_t ahead = MAX(AHEAD_BYTES / rows, to - from) / 64;
    u32 n = 0;
    for (size_t line = DIV_CEIL(from, 64); line < DIV_CEIL(to, 64); line++) {
        size_t at = line + ahead;
        const u8 *p = tile_rows + at / row_lines * rows * stride + at % row_lines * 64;
        for (u32 row = 0; row < rows; row += 4, p += 4 * stride) {
            if (p < k->end)
                tile->prefetch[n++] = p;
            else if (k->next)
                tile->prefetch[n++] = k->next + (p - k->end);
        }
    }
    *pf = (struct prefetch){.at = tile->prefetch, .n = n, .step = stride};
}

const u8 *avx512_chunk_rows(const struct kern_mat *w, u32 n, size_t from, size_t to, struct tile *tile, size_t *stride) {
    if (n + 16 <= w->N) {
        *stride = w->row_bytes;
        return w->data + (size_t)n * w->row_bytes + from;
    }
    *stride = sizeof tile->rows[0];
    memset(tile->rows, 0, sizeof tile->rows);
    for (u32 row = 0; n + row < w->N; row++)
        memcpy(tile->rows[row], w->data + (size_t)(n + row) * w->row_bytes + from, to - from);
    return tile->rows[0];
}

static void matmul_fused(struct walk *k, u32 n0, u32 n1, const struct kern_acts *a, f32 *out, size_t ldo,
                         struct tile *tile) {
    const struct kern_mat *w = k->w;
    u32 values = quant_block_values(w->type), bytes = quant_block_bytes(w->type);
    struct chunk c = {.tile = tile, .a_stride = a->K / 32, .rows = a->rows, .ldo = ldo};
    for (u32 n = n0; n < n1; n += 16)
        for (u32 k0 = 0, columns; k0 < w->K; k0 += columns) {
            columns = chunk_columns(k0, w->K, FUSED_K);
            size_t from = (size_t)(k0 / values) * bytes, to = from + (size_t)(columns / values) * bytes, stride;
            avx512_prefetch_plan(k, w->data + (size_t)n * w->row_bytes, 16, from, to, tile, &c.prefetch);
            /* The kernel's share of the time grows with the rows. */
            c.prefetch.n_early = c.prefetch.n / (a->rows + 1);
            const u8 *rows = avx512_chunk_rows(w, n, from, to, tile, &stride);
            avx512_tile_load(w->type, rows, stride, columns, tile->T, &c.prefetch);
            c.n_blocks = columns / 32;
            c.a = a->blocks + k0 / 32;
            c.out = out + n;
            c.mask[0] = rows_mask(n, n1);
            c.first = k0 == 0;
            if (a->kind == KERN_ACT_Q8)
                avx512_fused32(w->type, &c);
            else
                avx512_fused256(w->type, &c);
        }
}

/* All activation rows of a over one unpacked chunk, in groups as equal as possible; each fetches its share. */
static void groups_run(enum quant_type type, struct chunk *c, const struct kern_act_block *a, u32 rows, f32 *out) {
    u32 n_groups = DIV_CEIL(rows, UNPACKED_ROWS_MAX), n_fetch = c->prefetch.n;
    const u8 *const *list = c->prefetch.at;
    for (u32 i = 0, row = 0; i < n_groups; i++, row += c->rows) {
        c->rows = (rows - row) / (n_groups - i);
        c->a = a + row * c->a_stride;
        c->out = out + row * c->ldo;
        c->prefetch.at = list + n_fetch * i / n_groups;
        c->prefetch.n = n_fetch * (i + 1) / n_groups - n_fetch * i / n_groups;
        avx512_unpacked(type, c);
    }
}

static void matmul_unpacked(struct walk *k, u32 n0, u32 n1, const struct kern_acts *a, u32 row0, u32 row1, f32 *out,
                            size_t ldo, struct tile *tile) {
    const struct kern_mat *w = k->w;
    u32 values = quant_block_values(w->type), bytes = quant_block_bytes(w->type);
    struct chunk c = {.tile = tile, .a_stride = a->K / 32, .ldo = ldo};
    u32 columns_max = row1 - row0 < 24 && bytes * 32 > values * 21 ? UNPACKED_K_FEW : UNPACKED_K;
    for (u32 n = n0; n < n1; n += 32)
        for (u32 k0 = 0, columns; k0 < w->K; k0 += columns) {
            columns = chunk_columns(k0, w->K, columns_max);
            size_t from = (size_t)(k0 / values) * bytes, to = from + (size_t)(columns / values) * bytes, stride;
            c.n_blocks = columns / 32;
            c.first = k0 == 0;
            c.prefetch.n = c.prefetch.n_early = 0;
            for (u32 r = 0; r < 2; r++) {
                u32 row = n + 16 * r;
                c.mask[r] = rows_mask(row, n1);
                const u8 *rows = avx512_chunk_rows(w, row, from, to, tile, &stride);
                avx512_tile_load(w->type, rows, stride, columns, tile->T, &c.prefetch);
                avx512_unpack(w->type, tile, c.n_blocks, r);
            }
            avx512_prefetch_plan(k, w->data + (size_t)n * w->row_bytes, 32, from, to, tile, &c.prefetch);
            groups_run(w->type, &c, a->blocks + row0 * c.a_stride + k0 / 32, row1 - row0, out + row0 * ldo + n);
        }
}

void avx512_matmul(const struct kern_mat *w, u32 n0, u32 n1, const struct kern_acts *a, f32 *out, size_t ldo,
                   void *scratch, const u8 *next) {
    check(a->K == w->K && n1 <= w->N && quant_supported(w->type));
    check(a->kind == KERN_ACT_F32 || a->kind == kern_act_kind(w->type, false));
    struct tile *tile = scratch;
    struct walk k = {.w = w, .end = w->data + n1 * w->row_bytes, .next = next};
    if (a->kind == KERN_ACT_F32) {
        avx512_matmul_f32(&k, n0, n1, a, out, ldo, tile);
    } else if (a->rows <= (a->kind == KERN_ACT_Q8 ? FUSED32_ROWS_MAX : FUSED256_ROWS_MAX)) {
        matmul_fused(&k, n0, n1, a, out, ldo, tile);
    } else {
        u32 rows_max = MAX(ACTS_BYTES_MAX / (a->K / 32 * 48), 32u), n_passes = DIV_CEIL(a->rows, rows_max);
        for (u32 i = 0, row = 0; i < n_passes; i++) {
            u32 rows = (a->rows - row) / (n_passes - i);
            matmul_unpacked(&k, n0, n1, a, row, row + rows, out, ldo, tile);
            row += rows;
        }
    }
}
