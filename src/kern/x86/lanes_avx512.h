/* lanes_avx512.h - what decode_x86.h needs of a vector: 16 lanes of 512 bits. */
#ifndef MINKA_LANES_AVX512_H
#define MINKA_LANES_AVX512_H

#include "kern/x86/matmul_x86.h"

#define LANES 16u
typedef __m512i vi;
typedef __m512 vf;

ALWAYS_INLINE vi v_load(const void *p) { return _mm512_load_si512(p); }
ALWAYS_INLINE vi v_set_8(i8 x) { return _mm512_set1_epi8(x); }
ALWAYS_INLINE vi v_set_32(i32 x) { return _mm512_set1_epi32(x); }
ALWAYS_INLINE vi v_and(vi a, vi b) { return _mm512_and_si512(a, b); }
ALWAYS_INLINE vi v_or(vi a, vi b) { return _mm512_or_si512(a, b); }
ALWAYS_INLINE vi v_xor(vi a, vi b) { return _mm512_xor_si512(a, b); }
ALWAYS_INLINE vi v_sub(vi a, vi b) { return _mm512_sub_epi32(a, b); }
ALWAYS_INLINE vi v_shl(vi a, u32 n) { return _mm512_slli_epi32(a, n); }
ALWAYS_INLINE vi v_shr(vi a, u32 n) { return _mm512_srli_epi32(a, n); }
ALWAYS_INLINE vi v_sar(vi a, u32 n) { return _mm512_srai_epi32(a, n); }
ALWAYS_INLINE vf f_load(const f32 *p) { return _mm512_load_ps(p); }
ALWAYS_INLINE void f_store(f32 *p, vf a) { _mm512_store_ps(p, a); }
ALWAYS_INLINE vf f_mul(vf a, vf b) { return _mm512_mul_ps(a, b); }
ALWAYS_INLINE vf f_negate(vf a) { return _mm512_xor_ps(a, _mm512_set1_ps(-0.0f)); }
ALWAYS_INLINE vf f_of(vi a) { return _mm512_cvtepi32_ps(a); }

/* (a & mask) | x */
ALWAYS_INLINE vi and_or(vi a, vi mask, vi x) { return _mm512_ternarylogic_epi32(a, mask, x, 0xea); }
/* The f16 in the low / high half of each dword. */
ALWAYS_INLINE vf f16_low(vi x) { return _mm512_cvtph_ps(_mm512_cvtepi32_epi16(x)); }
ALWAYS_INLINE vf f16_high(vi x) { return _mm512_cvtph_ps(_mm512_cvtepi32_epi16(_mm512_srli_epi32(x, 16))); }
/* The dword that begins 2 bytes behind a's start and ends in b. */
ALWAYS_INLINE vi dword_between(vi a, vi b) { return _mm512_shrdi_epi32(a, b, 16); }

/* Bits 4g..4g+3 of each dword, as bit 4 of its bytes 0..3: the fifth bits of columns 4g.. of a Q5 block. */
ALWAYS_INLINE vi fifth_bits(vi high, u32 g) {
    /* A qword holds two rows' dwords; each byte's shift is its column's bit - 4, modulo 64. */
    u64 shifts = (0x2322212003020100ull + 0x0101010101010101ull * (4 * g + 60)) & 0x3f3f3f3f3f3f3f3full;
    return v_and(_mm512_multishift_epi64_epi8(_mm512_set1_epi64((i64)shifts), high), v_set_8(16));
}

/* IQ4's table + 128, by nibble. */
ALWAYS_INLINE vi iq4_value(vi nibbles) {
    const __m128i table = _mm_loadu_si128((const __m128i *)(const void *)quant_iq4_values);
    return _mm512_shuffle_epi8(v_xor(_mm512_broadcast_i32x4(table), v_set_8((char)0x80)), nibbles);
}

#endif
