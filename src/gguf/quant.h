/* quant.h - the weight formats: block layouts as they lie in GGUF files, and exact decoding.
 * Numbers and layouts are those of ggml's type table. Decoding is bit-exact against the golden data. */
#ifndef MINKA_QUANT_H
#define MINKA_QUANT_H

#include "base/base.h"

/* ggml's type numbers. */
enum quant_type {
    QUANT_F32 = 0,
    QUANT_F16 = 1,
    QUANT_Q4_0 = 2,
    QUANT_Q4_1 = 3,
    QUANT_Q5_0 = 6,
    QUANT_Q5_1 = 7,
    QUANT_Q8_0 = 8,
    QUANT_Q2_K = 10,
    QUANT_Q3_K = 11,
    QUANT_Q4_K = 12,
    QUANT_Q5_K = 13,
    QUANT_Q6_K = 14,
    QUANT_IQ4_NL = 20,
    QUANT_IQ4_XS = 23,
    QUANT_BF16 = 30,
    QUANT_TYPES = 64, /* bound of the numbers */
};

/* Values and bytes of one block; 0 for a number that is no type of ours. name: "Q4_K", or "type 99". */
u32 quant_block_values(u32 type);
u32 quant_block_bytes(u32 type);
const char *quant_name(u32 type);
/* True if dequantization (and so the engine) exists for it. */
bool quant_supported(u32 type);
/* Bytes of a row of K values; K must be a multiple of the block. */
size_t quant_row_bytes(u32 type, u32 K);

/* Block layouts. Multi-byte fields are little-endian; blocks have no alignment in the file. q indexes
 * values of the block in order.
 *  Q4_0   f16 d; u8 qs[16]              v = d * ((qs[j] & 15) - 8) for j, (qs[j] >> 4) - 8 for j + 16
 *  Q4_1   f16 d, m; u8 qs[16]           v = d * nibble + m
 *  Q5_0   f16 d; u32 qh; u8 qs[16]      bit j of qh is bit 4 of value j;  v = d * (q5 - 16)
 *  Q5_1   f16 d, m; u32 qh; u8 qs[16]   v = d * q5 + m
 *  Q8_0   f16 d; i8 qs[32]              v = d * qs
 *  Q4_K   f16 d, dmin; u8 scales[12]; u8 qs[128]          8 sub-blocks of 32, 6-bit scale and min each
 *  Q5_K   f16 d, dmin; u8 scales[12]; u8 qh[32]; u8 qs[128]
 *  Q6_K   u8 ql[128]; u8 qh[64]; i8 scales[16]; f16 d     16 sub-blocks of 16
 *  IQ4_NL f16 d; u8 qs[16]              v = d * table[nibble]
 *  IQ4_XS f16 d; u16 scales_h; u8 scales_l[4]; u8 qs[128]
 */
extern const i8 quant_iq4_values[16];

/* Decodes n values (a multiple of the block) of a supported type, exactly as ggml does. */
void quant_decode(u32 type, const void *blocks, f32 *out, size_t n);
/* Encodes n values into F32, F16, BF16, Q8_0, Q4_0 or Q4_1 (round to nearest; the simple quantizers of
 * the format's definition). Other types: check fails. For tools and tests. */
void quant_encode(u32 type, const f32 *values, void *blocks, size_t n);

/* IEEE half and bfloat16, exact; to half with round to nearest even. */
f32 f16_to_f32(u16 h);
u16 f32_to_f16(f32 f);
f32 bf16_to_f32(u16 h);
u16 f32_to_bf16(f32 f);

#endif
