/* lanes_avx2.h - what decode_x86.h needs of a vector: 8 lanes of 256 bits. */
#ifndef MINKA_LANES_AVX2_H
#define MINKA_LANES_AVX2_H

#include "kern/x86/matmul_x86.h"

#define LANES 8u
typedef __m256i vi;
typedef __m256 vf;

ALWAYS_INLINE vi v_load(const void *p) { return _mm256_load_si256(p); }
ALWAYS_INLINE vi v_set_8(i8 x) { return _mm256_set1_epi8(x); }
ALWAYS_INLINE vi v_set_32(i32 x) { return _mm256_set1_epi32(x); }
ALWAYS_INLINE vi v_and(vi a, vi b) { return _mm256_and_si256(a, b); }
ALWAYS_INLINE vi v_or(vi a, vi b) { return _mm256_or_si256(a, b); }
ALWAYS_INLINE vi v_xor(vi a, vi b) { return _mm256_xor_si256(a, b); }
ALWAYS_INLINE vi v_sub(vi a, vi b) { return _mm256_sub_epi32(a, b); }
ALWAYS_INLINE vi v_shl(vi a, u32 n) { return _mm256_slli_epi32(a, (i32)n); }
ALWAYS_INLINE vi v_shr(vi a, u32 n) { return _mm256_srli_epi32(a, (i32)n); }
ALWAYS_INLINE vi v_sar(vi a, u32 n) { return _mm256_srai_epi32(a, (i32)n); }
ALWAYS_INLINE vf f_load(const f32 *p) { return _mm256_load_ps(p); }
ALWAYS_INLINE void f_store(f32 *p, vf a) { _mm256_store_ps(p, a); }
ALWAYS_INLINE vf f_mul(vf a, vf b) { return _mm256_mul_ps(a, b); }
ALWAYS_INLINE vf f_negate(vf a) { return _mm256_xor_ps(a, _mm256_set1_ps(-0.0f)); }
ALWAYS_INLINE vf f_of(vi a) { return _mm256_cvtepi32_ps(a); }

/* (a & mask) | x */
ALWAYS_INLINE vi and_or(vi a, vi mask, vi x) { return v_or(v_and(a, mask), x); }
/* The f16 in the high / low half of each dword. */
ALWAYS_INLINE vf f16_high(vi x) {
    vi words = _mm256_packus_epi32(v_shr(x, 16), v_shr(x, 16));
    return _mm256_cvtph_ps(_mm256_castsi256_si128(_mm256_permute4x64_epi64(words, 0x08)));
}
ALWAYS_INLINE vf f16_low(vi x) { return f16_high(v_shl(x, 16)); }
/* The dword that begins 2 bytes behind a's start and ends in b. */
ALWAYS_INLINE vi dword_between(vi a, vi b) { return v_or(v_shr(a, 16), v_shl(b, 16)); }

/* Bits 4g..4g+3 of each dword, as bit 4 of its bytes 0..3: the fifth bits of columns 4g.. of a Q5 block. */
ALWAYS_INLINE vi fifth_bits(vi high, u32 g) {
    const vi spread = _mm256_add_epi8(
        _mm256_setr_epi8(0, 0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8, 12, 12, 12, 12, 0, 0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8, 12, 12, 12, 12),
        v_set_8((i8)(g / 2)));
    const vi bits = v_set_32(g % 2 ? (i32)0x80402010 : 0x08040201);
    vi byte = _mm256_shuffle_epi8(high, spread);
    return v_and(_mm256_cmpeq_epi8(v_and(byte, bits), bits), v_set_8(16));
}

/* IQ4's table + 128, by nibble. */
ALWAYS_INLINE vi iq4_value(vi nibbles) {
    const __m128i table = _mm_loadu_si128((const __m128i *)(const void *)quant_iq4_values);
    return _mm256_shuffle_epi8(v_xor(_mm256_broadcastsi128_si256(table), v_set_8((char)0x80)), nibbles);
}

#endif
