/* fused32_avx512.c - fused kernels of the formats with blocks of 32: activations with a scale per block. */
#define START_SUM(a) (a)->n[0]
#include "kern/x86/fused_avx512.h"

#define FINISH_ROW(c, A, b, dw)                                                                               \
    if ((c) < C)                                                                                             \
        F##c = _mm512_fmadd_ps(_mm512_cvtepi32_ps(A##c), _mm512_mul_ps(dw, _mm512_set1_ps(ACT(c, b)->d)), F##c);
#define FINISH_MIN_ROW(c, A, b, dw, m)                                                                        \
    FINISH_ROW(c, A, b, dw)                                                                                   \
    if ((c) < C)                                                                                             \
        F##c = _mm512_fmadd_ps(m, _mm512_set1_ps(ACT(c, b)->s), F##c);

/* fused_X_C for C = 1..8 */
#define INSTANCES(X)                                                                                         \
    INSTANCE(X, 1)                                                                                           \
    INSTANCE(X, 2) INSTANCE(X, 3) INSTANCE(X, 4) INSTANCE(X, 5) INSTANCE(X, 6) INSTANCE(X, 7) INSTANCE(X, 8)
#define DISPATCH(X)                                                                                          \
    switch (c->rows) {                                                                                       \
    case 1: fused_##X##_1(c); break;                                                                         \
    case 2: fused_##X##_2(c); break;                                                                         \
    case 3: fused_##X##_3(c); break;                                                                         \
    case 4: fused_##X##_4(c); break;                                                                         \
    case 5: fused_##X##_5(c); break;                                                                         \
    case 6: fused_##X##_6(c); break;                                                                         \
    case 7: fused_##X##_7(c); break;                                                                         \
    default: fused_##X##_8(c); break;                                                                        \
    }                                                                                                        \
    break;

#define FUSED(X)                                                                                             \
    ALWAYS_INLINE void fused_##X(const u32 C, const struct chunk *ch) {                                      \
        const u32(*T)[16] = (const u32(*)[16])ch->tile->T;                                                   \
        struct prefetch *const pf = ch->prefetch;                                                                   \
        u32 share = 0;                                                                                       \
        ROWS(DECLARE_ROW, 0)                                                                                 \
        ROWS(LOAD_F_ROW, 0)                                                                                  \
        for (u32 b = 0; b < ch->n_blocks; b++, T += DWORDS_##X)                                              \
            DECODE_##X(T, b)                                                                                 \
        ROWS(STORE_F_ROW, 0)                                                                                 \
    }                                                                                                        \
    INSTANCES(X)

/* The last pair of a row may be half a one. */
#define FUSED_PAIRS(X)                                                                                       \
    ALWAYS_INLINE void fused_##X(const u32 C, const struct chunk *ch) {                                      \
        const u32(*T)[16] = (const u32(*)[16])ch->tile->T;                                                   \
        struct prefetch *const pf = ch->prefetch;                                                                   \
        u32 share = 0;                                                                                       \
        ROWS(DECLARE_ROW, 0)                                                                                 \
        ROWS(LOAD_F_ROW, 0)                                                                                  \
        for (u32 b = 0; b < ch->n_blocks; b += 2, T += DWORDS_##X)                                           \
            DECODE_##X(T, b, b + 1 < ch->n_blocks)                                                           \
        ROWS(STORE_F_ROW, 0)                                                                                 \
    }                                                                                                        \
    INSTANCES(X)

FUSED(Q4_1)
FUSED(Q5_1)
FUSED_PAIRS(Q4_0)
FUSED_PAIRS(Q5_0)
FUSED_PAIRS(Q8_0)
FUSED_PAIRS(IQ4_NL)

void avx512_fused32(enum quant_type type, const struct chunk *c) {
    switch ((int)type) {
    case QUANT_Q4_0: DISPATCH(Q4_0)
    case QUANT_Q4_1: DISPATCH(Q4_1)
    case QUANT_Q5_0: DISPATCH(Q5_0)
    case QUANT_Q5_1: DISPATCH(Q5_1)
    case QUANT_Q8_0: DISPATCH(Q8_0)
    case QUANT_IQ4_NL: DISPATCH(IQ4_NL)
    }
}
