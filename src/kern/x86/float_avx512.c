/* float_avx512.c - f32 activations: 2 x 16 weight rows times 1..6 activation rows; one fma per column in ascending
 * order. The weights are decoded to f32 in scratch; few activation rows take those of 16 bits as they are transposed. */
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
#define FMA_ROW(c, k, w0, w1)                                                                                \
    if ((c) < C) {                                                                                           \
        __m512 v = _mm512_set1_ps(x##c[k]);                                                                  \
        F##c = _mm512_fmadd_ps(w0, v, F##c);                                                                 \
        G##c = _mm512_fmadd_ps(w1, v, G##c);                                                                 \
    }
#define FMA_ROWS(k, w0, w1)                                                                                  \
    FMA_ROW(0, k, w0, w1)                                                                                    \
    FMA_ROW(1, k, w0, w1)                                                                                    \
    FMA_ROW(2, k, w0, w1) FMA_ROW(3, k, w0, w1) FMA_ROW(4, k, w0, w1) FMA_ROW(5, k, w0, w1)
#define STORE_ROW(c)                                                                                         \
    if ((c) < C) {                                                                                           \
        _mm512_mask_storeu_ps(out##c, ch->mask[0], F##c);                                                    \
        _mm512_mask_storeu_ps(out##c + 16, ch->mask[1], G##c);                                               \
    }

enum form { FORM_F32, FORM_F16, FORM_BF16 };

/* Two columns of 16 rows, a pair of 16-bit floats per dword. */
struct pair {
    __m512 first, second;
};
ALWAYS_INLINE struct pair pair_decode(const enum form form, const void *p) {
    const __m512i pair = _mm512_load_si512(p);
    if (form == FORM_BF16)
        return (struct pair){_mm512_castsi512_ps(_mm512_slli_epi32(pair, 16)),
                             _mm512_castsi512_ps(_mm512_and_si512(pair, _mm512_set1_epi32((i32)0xffff0000)))};
    const __m512i firsts_then_seconds = _mm512_set_epi16(31, 29, 27, 25, 23, 21, 19, 17, 15, 13, 11, 9, 7, 5, 3, 1, 30, 28,
                                                         26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
    const __m512i parted = _mm512_permutexvar_epi16(firsts_then_seconds, pair);
    return (struct pair){_mm512_cvtph_ps(_mm512_castsi512_si256(parted)),
                         _mm512_cvtph_ps(_mm512_extracti64x4_epi64(parted, 1))};
}

ALWAYS_INLINE void floats(const u32 C, const enum form form, const struct chunk *ch, const f32 *x, size_t x_stride,
                          u32 columns) {
    const struct tile *tile = ch->tile;
    struct prefetch *const pf = ch->prefetch;
    u32 share = 0;
    ROWS(DECLARE_ROW)
    if (!ch->first) {
        ROWS(LOAD_ROW)
    }
    for (u32 k = 0; k < columns; k += 2) {
        for (share += 2 * pf->n; share >= columns; share -= columns)
            prefetch_next(pf);
        struct pair a, b;
        if (form == FORM_F32) {
            a = (struct pair){_mm512_load_ps(tile->F[0][k]), _mm512_load_ps(tile->F[0][k + 1])};
            b = (struct pair){_mm512_load_ps(tile->F[1][k]), _mm512_load_ps(tile->F[1][k + 1])};
        } else {
            a = pair_decode(form, tile->F[0][k / 2]);
            b = pair_decode(form, tile->F[1][k / 2]);
        }
        FMA_ROWS(k, a.first, b.first)
        FMA_ROWS(k + 1, a.second, b.second)
    }
    ROWS(STORE_ROW)
}

typedef void floats_fn(const struct chunk *c, const f32 *x, size_t x_stride, u32 columns);
#define INSTANCE(C, form)                                                                                    \
    static __attribute__((noinline)) void floats_##C##_##form(const struct chunk *c, const f32 *x,            \
                                                              size_t x_stride, u32 columns) {                \
        floats(C, form, c, x, x_stride, columns);                                                            \
    }
#define INSTANCES(form) INSTANCE(1, form) INSTANCE(2, form) INSTANCE(3, form) INSTANCE(4, form)
INSTANCES(FORM_F32)
INSTANCE(5, FORM_F32)
INSTANCE(6, FORM_F32)
INSTANCES(FORM_F16)
INSTANCES(FORM_BF16)
#define DIRECT_ROWS_MAX 4u /* more activation rows read a weight often enough to decode it once */

static enum form form_of(enum quant_type type) {
    return type == QUANT_F16 ? FORM_F16 : type == QUANT_BF16 ? FORM_BF16 : FORM_F32;
}

/* Brings columns c of 16 rows to F[r]: as f32, or transposed only if they are of 16 bits and `direct`. */
static void float_rows_load(const struct kern_mat *w, u32 n, const struct columns *c, struct tile *tile, u32 r, bool direct,
                            struct prefetch *pf) {
    u32 columns = c->n;
    size_t stride;
    u32(*F)[16] = (u32(*)[16])tile->F[r];
    if (w->type != QUANT_F32 && w->type != QUANT_F16 && w->type != QUANT_BF16) {
        memset(tile->decoded, 0, sizeof tile->decoded);
        for (u32 row = 0; row < 16 && n + row < w->N; row++)
            quant_decode(w->type, w->data + (n + row) * w->row_bytes + c->from, tile->decoded[row], columns);
        avx512_transpose((const u8 *)tile->decoded, sizeof tile->decoded[0], columns * 4, F, pf);
        return;
    }
    const u8 *rows = matmul_chunk_rows(w, n, 16, c, tile->pad[0], sizeof tile->pad[0], &stride);
    if (direct || w->type == QUANT_F32) {
        avx512_transpose(rows, stride, columns * (w->type == QUANT_F32 ? 4 : 2), F, pf);
        return;
    }
    avx512_transpose(rows, stride, columns * 2, tile->T, pf);
    for (u32 i = 0; i < columns / 2; i++) {
        struct pair p = w->type == QUANT_BF16 ? pair_decode(FORM_BF16, tile->T[i]) : pair_decode(FORM_F16, tile->T[i]);
        _mm512_store_ps(tile->F[r][2 * i], p.first);
        _mm512_store_ps(tile->F[r][2 * i + 1], p.second);
    }
}

/* L1 has 64 sets of 12 lines: rows that lie a multiple of this apart share 2 sets at most. */
#define FAR_STRIDE_BYTES 2048u

void avx512_matmul_f32(const struct kern_mat *w, u32 n0, u32 n1, const struct kern_acts *a, f32 *out, size_t ldo,
                       struct tile *tile, const u8 *next) {
    static floats_fn *const kernels[3][UNPACKED_ROWS_MAX] = {
        [FORM_F32] = {floats_1_FORM_F32, floats_2_FORM_F32, floats_3_FORM_F32, floats_4_FORM_F32, floats_5_FORM_F32,
                      floats_6_FORM_F32},
        [FORM_F16] = {floats_1_FORM_F16, floats_2_FORM_F16, floats_3_FORM_F16, floats_4_FORM_F16},
        [FORM_BF16] = {floats_1_FORM_BF16, floats_2_FORM_BF16, floats_3_FORM_BF16, floats_4_FORM_BF16},
    };
    bool direct = a->rows <= DIRECT_ROWS_MAX;
    enum form form = direct ? form_of(w->type) : FORM_F32;
    u32 most = quant_block_values(w->type) == 256 ? 256 : FLOAT_K, n_groups = DIV_CEIL(a->rows, UNPACKED_ROWS_MAX);
    struct prefetch pf = matmul_prefetch(w, n0, n1, 32, most, next);
    struct chunk c = {.tile = tile, .ldo = ldo, .prefetch = &pf};
    struct columns at;
    pf.far = w->row_bytes % FAR_STRIDE_BYTES == 0;
    for (u32 n = n0; n < n1; n += 32)
        for (u32 k0 = 0; k0 < w->K; k0 += at.n) {
            at = columns_at(w, k0, most);
            prefetch_chunk(&pf, &at);
            pf.n_early = pf.n / (a->rows + 1);
            for (u32 r = 0; r < 2; r++) {
                c.mask[r] = rows_mask(n + 16 * r, n1);
                float_rows_load(w, n + 16 * r, &at, tile, r, direct, &pf);
            }
            c.first = k0 == 0;
            for (u32 i = 0, row = 0; i < n_groups; i++, row += c.rows) {
                c.rows = (a->rows - row) / (n_groups - i);
                c.out = out + row * ldo + n;
                kernels[form][c.rows - 1](&c, a->x + (size_t)row * a->K + k0, a->K, at.n);
                pf.n = 0;
            }
        }
}
