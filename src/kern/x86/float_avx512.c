/* float_avx512.c - f32 activations: 2 x 16 weight rows, decoded to f32 in scratch, times 1..6 activation rows;
 * one fma per column in ascending order. */
#include "kern/x86/matmul_avx512.h"

#define ROWS(X) X(0) X(1) X(2) X(3) X(4) X(5)

#define DECLARE_ROW(c)                                                                                       \
    const f32 *const x##c UNUSED = x + (c)*x_stride;                                                         \
    f32 *const out##c UNUSED = ch->out + (c)*ch->ldo;                                                        \
    __m512 F##c UNUSED = _mm512_setzero_ps(), G##c UNUSED = _mm512_setzero_ps();
#define LOAD_ROW(c)                                                                                          \
    if ((c) < C) {                                                                                           \
        F##c = _mm512_maskz_loadu_ps(ch->mask[0], out##c);                                                   \
        G##c = _mm512_maskz_loadu_ps(ch->mask[1], out##c + 16);                                              \
    }
#define FMA_ROW(c)                                                                                           \
    if ((c) < C) {                                                                                           \
        __m512 v = _mm512_set1_ps(x##c[k]);                                                                  \
        F##c = _mm512_fmadd_ps(w0, v, F##c);                                                                 \
        G##c = _mm512_fmadd_ps(w1, v, G##c);                                                                 \
    }
#define STORE_ROW(c)                                                                                         \
    if ((c) < C) {                                                                                           \
        _mm512_mask_storeu_ps(out##c, ch->mask[0], F##c);                                                    \
        _mm512_mask_storeu_ps(out##c + 16, ch->mask[1], G##c);                                               \
    }

ALWAYS_INLINE void floats(const u32 C, const struct chunk *ch, const f32 *x, size_t x_stride, u32 columns) {
    const struct tile *tile = ch->tile;
    struct prefetch pf = ch->prefetch;
    u32 share = 0;
    ROWS(DECLARE_ROW)
    if (!ch->first) {
        ROWS(LOAD_ROW)
    }
    for (u32 k = 0; k < columns; k++) {
        PREFETCH_SHARE(pf, share, columns)
        __m512 w0 = _mm512_load_ps(tile->F[0][k]), w1 = _mm512_load_ps(tile->F[1][k]);
        ROWS(FMA_ROW)
    }
    ROWS(STORE_ROW)
}

#define INSTANCE(C)                                                                                          \
    static __attribute__((noinline)) void floats_##C(const struct chunk *c, const f32 *x, size_t x_stride, u32 columns) { \
        floats(C, c, x, x_stride, columns);                                                                  \
    }
INSTANCE(1)
INSTANCE(2)
INSTANCE(3)
INSTANCE(4)
INSTANCE(5)
INSTANCE(6)

/* Decodes columns c of 16 rows to F[r]. */
static void float_rows_load(const struct kern_mat *w, u32 n, const struct columns *c, struct tile *tile, u32 r,
                            struct prefetch *pf) {
    u32 columns = c->n;
    size_t stride;
    if (w->type != QUANT_F32 && w->type != QUANT_F16 && w->type != QUANT_BF16) {
        memset(tile->decoded, 0, sizeof tile->decoded);
        for (u32 row = 0; row < 16 && n + row < w->N; row++)
            quant_decode(w->type, w->data + (n + row) * w->row_bytes + c->from, tile->decoded[row], columns);
        avx512_transpose((const u8 *)tile->decoded, sizeof tile->decoded[0], columns * 4, (u32(*)[16])tile->F[r], pf);
        return;
    }
    const u8 *rows = matmul_chunk_rows(w, n, 16, c, tile->pad[0], sizeof tile->pad[0], &stride);
    if (w->type == QUANT_F32) {
        avx512_transpose(rows, stride, columns * 4, (u32(*)[16])tile->F[r], pf);
        return;
    }
    avx512_transpose(rows, stride, columns * 2, tile->T, pf);
    const __m512i high = _mm512_set1_epi32((i32)0xffff0000);
    for (u32 i = 0; i < columns / 2; i++) {
        __m512i pair = _mm512_load_si512(tile->T[i]), odd = _mm512_and_si512(pair, high);
        __m512 first, second;
        if (w->type == QUANT_BF16) {
            first = _mm512_castsi512_ps(_mm512_slli_epi32(pair, 16));
            second = _mm512_castsi512_ps(odd);
        } else {
            first = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(pair));
            second = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(_mm512_srli_epi32(odd, 16)));
        }
        _mm512_store_ps(tile->F[r][2 * i], first);
        _mm512_store_ps(tile->F[r][2 * i + 1], second);
    }
}

void avx512_matmul_f32(const struct walk *k, u32 n0, u32 n1, const struct kern_acts *a, f32 *out, size_t ldo,
                       struct tile *tile) {
    static void (*const kernels[])(const struct chunk *, const f32 *, size_t, u32) = {
        floats_1, floats_2, floats_3, floats_4, floats_5, floats_6};
    const struct kern_mat *w = k->w;
    u32 most = quant_block_values(w->type) == 256 ? 256 : FLOAT_K, n_groups = DIV_CEIL(a->rows, UNPACKED_ROWS_MAX);
    struct chunk c = {.tile = tile, .ldo = ldo};
    struct columns at;
    for (u32 n = n0; n < n1; n += 32)
        for (u32 k0 = 0; k0 < w->K; k0 += at.n) {
            at = columns_at(w, k0, most);
            matmul_prefetch_plan(k, w->data + n * w->row_bytes, 32, &at, tile->prefetch, &c.prefetch);
            c.prefetch.n_early = c.prefetch.n / (a->rows + 1);
            for (u32 r = 0; r < 2; r++) {
                c.mask[r] = rows_mask(n + 16 * r, n1);
                float_rows_load(w, n + 16 * r, &at, tile, r, &c.prefetch);
            }
            c.first = k0 == 0;
            for (u32 i = 0, row = 0; i < n_groups; i++, row += c.rows) {
                c.rows = (a->rows - row) / (n_groups - i);
                c.out = out + row * ldo + n;
                kernels[c.rows - 1](&c, a->x + (size_t)row * a->K + k0, a->K, at.n);
                c.prefetch.n = 0;
            }
        }
}
