/* fused256_avx512.c - fused kernels of the formats with blocks of 256: activations with a scale per 256. */
#define START_SUM(a) (a)->n[0] + (a)->n[1]
#include "kern/x86/fused_avx512.h"

/* F is the sum over 256 columns; the outputs themselves wait in memory. */
#define FINISH_ROW(c, A, b, dw)                                                                               \
    if ((c) < C)                                                                                             \
        F##c = _mm512_fmadd_ps(_mm512_cvtepi32_ps(A##c), dw, F##c);
#define FINISH_MIN_ROW(c, A, b, dw, m)                                                                        \
    FINISH_ROW(c, A, b, dw)                                                                                   \
    if ((c) < C)                                                                                             \
        F##c = _mm512_fmadd_ps(m, _mm512_set1_ps(ACT(c, b)->s), F##c);
#define ADD_F_ROW(c, b)                                                                                      \
    if ((c) < C) {                                                                                           \
        __m512 acc_ = first ? _mm512_setzero_ps() : _mm512_maskz_loadu_ps(ch->mask[0], out##c);              \
        acc_ = _mm512_fmadd_ps(F##c, _mm512_set1_ps(ACT(c, b)->d), acc_);                                    \
        _mm512_mask_storeu_ps(out##c, ch->mask[0], acc_);                                                    \
        F##c = _mm512_setzero_ps();                                                                          \
    }

/* fused_X_C for C = 1..6 */
#define INSTANCES(X) INSTANCE(X, 1) INSTANCE(X, 2) INSTANCE(X, 3) INSTANCE(X, 4) INSTANCE(X, 5) INSTANCE(X, 6)
#define DISPATCH(X)                                                                                          \
    switch (c->rows) {                                                                                       \
    case 1: fused_##X##_1(c); break;                                                                         \
    case 2: fused_##X##_2(c); break;                                                                         \
    case 3: fused_##X##_3(c); break;                                                                         \
    case 4: fused_##X##_4(c); break;                                                                         \
    case 5: fused_##X##_5(c); break;                                                                         \
    default: fused_##X##_6(c); break;                                                                        \
    }                                                                                                        \
    break;

#define FUSED(X)                                                                                             \
    ALWAYS_INLINE void fused_##X(const u32 C, const struct chunk *ch) {                                      \
        const u32(*T)[16] = (const u32(*)[16])ch->tile->T;                                                   \
        struct prefetch *const pf = ch->prefetch;                                                                   \
        u32 share = 0;                                                                                       \
        bool first = ch->first;                                                                              \
        ROWS(DECLARE_ROW, 0)                                                                                 \
        for (u32 b = 0; b < ch->n_blocks; b += 8, T += DWORDS_##X) {                                         \
            DECODE_##X(T, b)                                                                                 \
            ROWS(ADD_F_ROW, b)                                                                               \
            first = false;                                                                                   \
        }                                                                                                    \
    }                                                                                                        \
    INSTANCES(X)

FUSED(Q4_K)
FUSED(Q5_K)
FUSED(Q6_K)
FUSED(IQ4_XS)

void avx512_fused256(enum quant_type type, const struct chunk *c) {
    switch ((int)type) {
    case QUANT_Q4_K: DISPATCH(Q4_K)
    case QUANT_Q5_K: DISPATCH(Q5_K)
    case QUANT_Q6_K: DISPATCH(Q6_K)
    case QUANT_IQ4_XS: DISPATCH(IQ4_XS)
    }
}
