/* unpack_avx512.c - decodes 16 rows of a chunk into weight bytes, scales and minima. */
#include "kern/x86/matmul_avx512.h"

#define PUT(A, b, g, v) _mm512_store_si512(tile->W[8 * (b) + (g)][r], v);
#include "kern/x86/unpack_x86.h"

void avx512_unpack(enum quant_type type, struct tile *tile, u32 n_blocks, u32 r) {
    const u32(*T)[16] = (const u32(*)[16])tile->T;
    UNPACK_TYPE(type)
}
