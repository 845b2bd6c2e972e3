/* float_avx2.c - f32 activations: 2 x 8 weight rows, decoded to f32 in scratch, times 1..6 activation rows;
 * one fma per column in ascending order. */
#include "kern/x86/matmul_avx2.h"

#define ROWS(X) X(0) X(1) X(2) X(3) X(4) X(5)

#define DECLARE_ROW(c)                                                                                       \
    const f32 *const x##c UNUSED = ch->x + (c)*ch->x_stride;                                                 \
    f32 *const out##c UNUSED = ch->out + (c)*ch->ldo;                                                        \
    vf F##c UNUSED = _mm256_setzero_ps(), G##c UNUSED = _mm256_setzero_ps();
#define LOAD_ROW(c)                                                                                          \
    if ((c) < C) {                                                                                           \
        F##c = _mm256_loadu_ps(out##c);                                                                      \
        G##c = _mm256_loadu_ps(out##c + 8);                                                                  \
    }
#define FMA_ROW(c)                                                                                           \
    if ((c) < C) {                                                                                           \
        vf v = _mm256_set1_ps(x##c[i]);                                                                      \
        F##c = _mm256_fmadd_ps(w0, v, F##c);                                                                 \
        G##c = _mm256_fmadd_ps(w1, v, G##c);                                                                 \
    }
#define STORE_ROW(c)                                                                                         \
    if ((c) < C) {                                                                                           \
        _mm256_storeu_ps(out##c, F##c);                                                                      \
        _mm256_storeu_ps(out##c + 8, G##c);                                                                  \
    }

ALWAYS_INLINE void floats(const u32 C, const struct chunk *ch) {
    struct prefetch *const pf = ch->prefetch;
    u32 share = 0;
    ROWS(DECLARE_ROW)
    if (!ch->first) {
        ROWS(LOAD_ROW)
    }
    for (u32 i = 0; i < ch->n_blocks; i++) {
        PREFETCH_SHARE(pf, share, ch->n_blocks)
        vf w0 = f_load(ch->tile->F[0][i]), w1 = f_load(ch->tile->F[1][i]);
        ROWS(FMA_ROW)
    }
    ROWS(STORE_ROW)
}

void avx2_floats(enum quant_type type UNUSED, const struct chunk *c) {
    switch (c->rows) {
    case 1: floats(1, c); break;
    case 2: floats(2, c); break;
    case 3: floats(3, c); break;
    case 4: floats(4, c); break;
    case 5: floats(5, c); break;
    default: floats(6, c); break;
    }
}
