/* matmul_avx2.c - walks a slice of a matrix: tiles of 16 weight rows, chunks of columns, groups of activation
 * rows. See matmul_avx2.h. */
#include "kern/x86/matmul_avx2.h"

/* Activation rows that pass over a tile before the next tile is decoded are kept in L2. */
#define ACTS_BYTES_MAX (256u << 10)

typedef void kernel_fn(enum quant_type, const struct chunk *);

/* Runs one group of rows; a tile whose last rows lie behind the matrix goes through the scratch's own output.
 */
static void group_run(kernel_fn *kernel, enum quant_type type, struct chunk *c, struct tile *tile, f32 *out,
                      size_t ldo, u32 n_valid) {
    if (n_valid >= 16) {
        c->out = out;
        c->ldo = ldo;
        kernel(type, c);
        return;
    }
    c->out = tile->out[0][0];
    c->ldo = 16;
    for (u32 i = 0; !c->first && i < c->rows; i++)
        memcpy(tile->out[i], out + i * ldo, n_valid * sizeof(f32));
    kernel(type, c);
    for (u32 i = 0; i < c->rows; i++)
        memcpy(out + i * ldo, tile->out[i], n_valid * sizeof(f32));
}

/* Activation rows row0..row1-1; rows_max of them make a group. */
static void matmul_rows(const struct kern_mat *w, u32 n0, u32 n1, const struct kern_acts *a, u32 row0, u32 row1,
                        f32 *out, size_t ldo, struct tile *tile, const u8 *next, kernel_fn *kernel,
                        u32 rows_max) {
    bool floats = a->kind == KERN_ACT_F32;
    u32 most = !floats ? AVX2_CHUNK_K : quant_block_values(w->type) == 256 ? 256 : AVX2_FLOAT_K;
    u32 n_groups = DIV_CEIL(row1 - row0, rows_max);
    struct prefetch pf = matmul_prefetch(w, n0, n1, 16, most, next);
    struct chunk c = {.tile = tile, .a_stride = a->K / 32, .x_stride = a->K, .prefetch = &pf};
    struct columns at;
    for (u32 n = n0; n < n1; n += 16)
        for (u32 k0 = 0; k0 < w->K; k0 += at.n) {
            at = columns_at(w, k0, most);
            c.n_blocks = floats ? at.n : at.n / 32;
            c.first = k0 == 0;
            prefetch_chunk(&pf, &at);
            pf.n_early = pf.n / (row1 - row0 + 1);
            for (u32 r = 0; r < 2; r++) {
                if (floats)
                    avx2_float_load(w, n + 8 * r, &at, tile, r, &pf);
                else
                    avx2_tile_load(w, n + 8 * r, &at, tile, r, kernel == avx2_unpacked, &pf);
            }
            for (u32 i = 0, row = row0; i < n_groups; i++, row += c.rows) {
                c.rows = (row1 - row) / (n_groups - i);
                if (floats)
                    c.x = a->x + (size_t)row * a->K + k0;
                else
                    c.a = a->blocks + row * c.a_stride + k0 / 32;
                group_run(kernel, w->type, &c, tile, out + row * ldo + n, ldo, n1 - n);
                pf.n = 0;
            }
        }
}

static void matmul(const struct kern_mat *w, u32 n0, u32 n1, const struct kern_acts *a, f32 *out, size_t ldo,
                   struct tile *tile, const u8 *next, kernel_fn *kernel, u32 group_max) {
    check(a->K == w->K && n1 <= w->N && quant_supported(w->type));
    check(a->kind == KERN_ACT_F32 || a->kind == kern_act_kind(w->type, false));
    size_t row_bytes =
        a->kind == KERN_ACT_F32 ? a->K * sizeof(f32) : a->K / 32 * sizeof(struct kern_act_block);
    u32 rows_max = MAX(ACTS_BYTES_MAX / (u32)row_bytes, 12u), n_passes = DIV_CEIL(a->rows, rows_max);
    for (u32 i = 0, row = 0; i < n_passes; i++) {
        u32 rows = (a->rows - row) / (n_passes - i);
        matmul_rows(w, n0, n1, a, row, row + rows, out, ldo, tile, next, kernel, group_max);
        row += rows;
    }
}

void avx2_matmul(const struct kern_mat *w, u32 n0, u32 n1, const struct kern_acts *a, f32 *out, size_t ldo,
                 void *scratch, const u8 *next) {
    bool floats = a->kind == KERN_ACT_F32;
    matmul(w, n0, n1, a, out, ldo, scratch, next, floats ? avx2_floats : avx2_unpacked,
           floats ? AVX2_FLOAT_ROWS_MAX : AVX2_ROWS_MAX);
}

void avxvnni_matmul(const struct kern_mat *w, u32 n0, u32 n1, const struct kern_acts *a, f32 *out, size_t ldo,
                    void *scratch, const u8 *next) {
    bool floats = a->kind == KERN_ACT_F32;
    matmul(w, n0, n1, a, out, ldo, scratch, next, floats ? avx2_floats : avxvnni_unpacked,
           floats ? AVX2_FLOAT_ROWS_MAX : AVXVNNI_ROWS_MAX);
}
