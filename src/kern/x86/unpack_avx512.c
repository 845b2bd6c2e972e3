/* unpack_avx512.c - decodes 16 rows of a chunk into weight bytes, scales and minima. */
#include "kern/x86/matmul_avx512.h"

#include "kern/x86/decode_x86.h"

#define START(A, b, shift)
#define START_16(A, b, h, shift)
#define PUT(A, b, g, v) _mm512_store_si512(tile->W[8 * (b) + (g)][r], v);
#define END(A, b, d) _mm512_store_ps(tile->D[b][r], d);
#define END_MIN(A, b, d, m)                                                                                  \
    _mm512_store_ps(tile->D[b][r], d);                                                                       \
    _mm512_store_ps(tile->M[b][r], m);
#define END_16(A, b, h, d) _mm512_store_ps(tile->D[2 * (b) + (h)][r], d);

#define UNPACK(X)                                                                                            \
    for (u32 b = 0; b < n_blocks; b += UNIT_##X, T += DWORDS_##X) {                                          \
        DECODE_##X(T, b)                                                                                     \
    }                                                                                                        \
    break;
#define UNPACK_PAIRS(X)                                                                                      \
    for (u32 b = 0; b < n_blocks; b += UNIT_##X, T += DWORDS_##X) {                                          \
        DECODE_##X(T, b, b + 1 < n_blocks)                                                                   \
    }                                                                                                        \
    break;

void avx512_unpack(enum quant_type type, struct tile *tile, u32 n_blocks, u32 r) {
    const u32(*T)[16] = (const u32(*)[16])tile->T;
    switch ((int)type) {
    case QUANT_Q4_0: UNPACK_PAIRS(Q4_0)
    case QUANT_Q4_1: UNPACK(Q4_1)
    case QUANT_Q5_0: UNPACK_PAIRS(Q5_0)
    case QUANT_Q5_1: UNPACK(Q5_1)
    case QUANT_Q8_0: UNPACK_PAIRS(Q8_0)
    case QUANT_IQ4_NL: UNPACK_PAIRS(IQ4_NL)
    case QUANT_Q4_K: UNPACK(Q4_K)
    case QUANT_Q5_K: UNPACK(Q5_K)
    case QUANT_Q6_K: UNPACK(Q6_K)
    case QUANT_IQ4_XS: UNPACK(IQ4_XS)
    }
}
