/* unpack_x86.h - decodes a transposed chunk into half r of the tile's W, D and M: the sinks of decode_x86.h that store,
 * and the choice of the decoder. The includer has defined PUT(A, b, g, v), which stores a vector of weights, and has
 * included its tile and lanes. */
#include "kern/x86/decode_x86.h"

#define START(A, b, shift)
#define START_16(A, b, h, shift)
#define END(A, b, d) f_store(tile->D[b][r], d);
#define END_MIN(A, b, d, m)                                                                                  \
    f_store(tile->D[b][r], d);                                                                               \
    f_store(tile->M[b][r], m);
#define END_16(A, b, h, d) f_store(tile->D[2 * (b) + (h)][r], d);

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
/* Of n_blocks blocks of 32 columns, transposed to T. */
#define UNPACK_TYPE(type)                                                                                    \
    switch ((int)(type)) {                                                                                   \
    case QUANT_Q4_0: UNPACK_PAIRS(Q4_0)                                                                      \
    case QUANT_Q4_1: UNPACK(Q4_1)                                                                            \
    case QUANT_Q5_0: UNPACK_PAIRS(Q5_0)                                                                      \
    case QUANT_Q5_1: UNPACK(Q5_1)                                                                            \
    case QUANT_Q8_0: UNPACK_PAIRS(Q8_0)                                                                      \
    case QUANT_IQ4_NL: UNPACK_PAIRS(IQ4_NL)                                                                  \
    case QUANT_Q4_K: UNPACK(Q4_K)                                                                            \
    case QUANT_Q5_K: UNPACK(Q5_K)                                                                            \
    case QUANT_Q6_K: UNPACK(Q6_K)                                                                            \
    case QUANT_IQ4_XS: UNPACK(IQ4_XS)                                                                        \
    }
