/* matmul_avx512.c - walks a slice of a matrix: tiles of weight rows, chunks of columns, groups of activation
 * rows; decides what to prefetch. See matmul_avx512.h. */
#include "kern/x86/matmul_avx512.h"

/* Activation rows that pass over a tile before the next tile is decoded are kept below half of L2. */
#define ACTS_BYTES_MAX (512u << 10)

static void matmul_fused(const struct kern_mat *w, u32 n0, u32 n1, const struct kern_acts *a, f32 *out, size_t ldo,
                         struct tile *tile, const u8 *next) {
    u32 most = w->type != QUANT_Q8_0 ? FUSED_K : a->rows == 1 ? FUSED_K_WIDE_ONE : FUSED_K_WIDE;
    struct prefetch pf = matmul_prefetch(w, n0, n1, 16, most, next);
    struct chunk c = {.tile = tile, .a_stride = a->K / 32, .rows = a->rows, .ldo = ldo, .prefetch = &pf};
    struct columns at;
    for (u32 n = n0; n < n1; n += 16)
        for (u32 k0 = 0; k0 < w->K; k0 += at.n) {
            size_t stride;
            at = columns_at(w, k0, most);
            prefetch_chunk(&pf, &at);
            /* The kernel's share of the time grows with the rows. */
            pf.n_early = pf.n / (a->rows + 1);
            const u8 *rows = matmul_chunk_rows(w, n, 16, &at, tile->pad[0], sizeof tile->pad[0], &stride);
            avx512_tile_load(w->type, rows, stride, at.n, tile->T, &pf);
            c.n_blocks = at.n / 32;
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
    u32 n_groups = DIV_CEIL(rows, UNPACKED_ROWS_MAX), n_fetch = c->prefetch->n;
    for (u32 i = 0, row = 0; i < n_groups; i++, row += c->rows) {
        c->rows = (rows - row) / (n_groups - i);
        c->a = a + row * c->a_stride;
        c->out = out + row * c->ldo;
        c->prefetch->n = n_fetch * (i + 1) / n_groups - n_fetch * i / n_groups;
        avx512_unpacked(type, c);
    }
}

static void matmul_unpacked(const struct kern_mat *w, u32 n0, u32 n1, const struct kern_acts *a, u32 row0, u32 row1,
                            f32 *out, size_t ldo, struct tile *tile, const u8 *next) {
    struct columns at = columns_at(w, 0, UNPACKED_K);
    u32 most = row1 - row0 < 32 && at.to > at.n * 21 / 32 ? UNPACKED_K_FEW : UNPACKED_K;
    struct prefetch pf = matmul_prefetch(w, n0, n1, 32, most, next);
    struct chunk c = {.tile = tile, .a_stride = a->K / 32, .ldo = ldo, .prefetch = &pf};
    for (u32 n = n0; n < n1; n += 32)
        for (u32 k0 = 0; k0 < w->K; k0 += at.n) {
            size_t stride;
            at = columns_at(w, k0, most);
            c.n_blocks = at.n / 32;
            c.first = k0 == 0;
            for (u32 r = 0; r < 2; r++) {
                u32 row = n + 16 * r;
                c.mask[r] = rows_mask(row, n1);
                const u8 *rows = matmul_chunk_rows(w, row, 16, &at, tile->pad[0], sizeof tile->pad[0], &stride);
                avx512_tile_load(w->type, rows, stride, at.n, tile->T, &pf);
                avx512_unpack(w->type, tile, c.n_blocks, r);
            }
            prefetch_chunk(&pf, &at);
            groups_run(w->type, &c, a->blocks + row0 * c.a_stride + k0 / 32, row1 - row0, out + row0 * ldo + n);
        }
}

void avx512_matmul(const struct kern_mat *w, u32 n0, u32 n1, const struct kern_acts *a, f32 *out, size_t ldo,
                   void *scratch, const u8 *next) {
    check(a->K == w->K && n1 <= w->N && quant_supported(w->type));
    check(a->kind == KERN_ACT_F32 || a->kind == kern_act_kind(w->type, false));
    struct tile *tile = scratch;
    if (a->kind == KERN_ACT_F32) {
        avx512_matmul_f32(w, n0, n1, a, out, ldo, tile, next);
    } else if (a->rows <= (a->kind == KERN_ACT_Q8 ? FUSED32_ROWS_MAX : FUSED256_ROWS_MAX)) {
        matmul_fused(w, n0, n1, a, out, ldo, tile, next);
    } else {
        u32 rows_max = MAX(ACTS_BYTES_MAX / (a->K / 32 * 48), 32u), n_passes = DIV_CEIL(a->rows, rows_max);
        for (u32 i = 0, row = 0; i < n_passes; i++) {
            u32 rows = (a->rows - row) / (n_passes - i);
            matmul_unpacked(w, n0, n1, a, row, row + rows, out, ldo, tile, next);
            row += rows;
        }
    }
}
