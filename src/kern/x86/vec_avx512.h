/* vec_avx512.h - 16 floats in one register: the words in which the vector kernels are written. Both tiers have
 * the same words (vec_avx2.h), so attend_x86.h, elem_x86.h and vocab_x86.h are compiled once for each. */
#ifndef MINKA_KERN_VEC_AVX512_H
#define MINKA_KERN_VEC_AVX512_H

#include <immintrin.h>

#include "kern/kern_parts.h"

#define INLINE static inline __attribute__((always_inline))
#define TIER(name) avx512_##name

typedef __m512 vec;

INLINE vec vec_set(f32 x) { return _mm512_set1_ps(x); }
INLINE vec vec_load(const f32 *p) { return _mm512_loadu_ps(p); }
INLINE void vec_store(f32 *p, vec v) { _mm512_storeu_ps(p, v); }
/* Of the first n lanes only, any n; the others are read as 0. */
INLINE __mmask16 lanes_below(u32 n) { return (__mmask16)((1u << MIN(n, 16u)) - 1); }
INLINE vec vec_load_n(const f32 *p, u32 n) { return _mm512_maskz_loadu_ps(lanes_below(n), p); }
INLINE void vec_store_n(f32 *p, u32 n, vec v) { _mm512_mask_storeu_ps(p, lanes_below(n), v); }
/* Halves; storing rounds to nearest even. */
INLINE vec vec_load_half(const void *p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p)); }
INLINE void vec_store_half(void *p, vec v) {
    _mm256_storeu_si256((__m256i *)p, _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
/* bf16, and 16 copies of one. */
INLINE vec vec_load_bf16(const void *p) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p)), 16));
}
INLINE vec vec_set_bf16(const void *p) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_set1_epi16((i16)load_u16(p)), 16));
}
INLINE void vec_store_bf16(void *p, vec v) {
    const __m512i x = _mm512_castps_si512(v), high = _mm512_srli_epi32(x, 16);
    __m512i y = _mm512_add_epi32(_mm512_set1_epi32(0x7fff), _mm512_and_si512(high, _mm512_set1_epi32(1)));
    y = _mm512_srli_epi32(_mm512_add_epi32(x, y), 16);
    y = _mm512_mask_or_epi32(y, _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q), high, _mm512_set1_epi32(64));
    _mm256_storeu_si256((__m256i *)p, _mm512_cvtepi32_epi16(y));
}
/* Bytes; storing rounds to nearest even what lies in -128..127. */
INLINE vec vec_load_i8(const void *p) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p)));
}
INLINE void vec_store_i8(void *p, vec v) { _mm_storeu_si128((__m128i *)p, _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(v))); }

INLINE vec vec_add(vec a, vec b) { return _mm512_add_ps(a, b); }
INLINE vec vec_sub(vec a, vec b) { return _mm512_sub_ps(a, b); }
INLINE vec vec_mul(vec a, vec b) { return _mm512_mul_ps(a, b); }
INLINE vec vec_div(vec a, vec b) { return _mm512_div_ps(a, b); }
INLINE vec vec_fma(vec a, vec b, vec c) { return _mm512_fmadd_ps(a, b, c); }
/* a > b ? a : b, which is b if one is NaN; the same for the smaller. */
INLINE vec vec_max(vec a, vec b) { return _mm512_max_ps(a, b); }
INLINE vec vec_min(vec a, vec b) { return _mm512_min_ps(a, b); }
INLINE vec vec_abs(vec a) { return _mm512_andnot_ps(_mm512_set1_ps(-0.0f), a); }
INLINE vec vec_negate(vec a) { return _mm512_xor_ps(a, _mm512_set1_ps(-0.0f)); }
/* a, which is not negative, with the sign of b. */
INLINE vec vec_with_sign(vec a, vec b) { return _mm512_or_ps(a, _mm512_and_ps(b, _mm512_set1_ps(-0.0f))); }
/* a < b ? yes : no */
INLINE vec vec_where_less(vec a, vec b, vec yes, vec no) {
    return _mm512_mask_mov_ps(no, _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ), yes);
}
INLINE vec vec_where_nan(vec a, vec yes, vec no) {
    return _mm512_mask_mov_ps(no, _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q), yes);
}
/* Lanes from..to-1 of a, other in the rest; any from and to. */
INLINE vec vec_cut(vec a, u32 from, u32 to, vec other) {
    return _mm512_mask_mov_ps(other, lanes_below(to) & ~lanes_below(from), a);
}
/* Bit i: a[i] >= b[i]. */
INLINE u32 vec_at_least(vec a, vec b) { return _mm512_cmp_ps_mask(a, b, _CMP_GE_OQ); }
/* Of an exponential of x: p * 2^n where x >= min, 0 where it is less, x if it is NaN (then p is too). t holds n in its
 * low bits. The product is never subnormal. */
INLINE vec vec_scale_exp(vec p, vec t, vec n, vec x, vec min) {
    (void)t;
    return _mm512_maskz_scalef_ps(_mm512_cmp_ps_mask(x, min, _CMP_NLT_UQ), p, n);
}

/* Pairs of neighbours: the first of each in both places; the second; firsts of a with seconds of b. */
INLINE vec vec_first(vec a) { return _mm512_moveldup_ps(a); }
INLINE vec vec_second(vec a) { return _mm512_movehdup_ps(a); }
INLINE vec vec_join(vec a, vec b) { return _mm512_mask_mov_ps(a, 0xaaaa, b); }
/* The firsts (odd = 0) or seconds (1) of the 16 pairs of a and b. */
INLINE vec vec_pick(vec a, vec b, i32 odd) {
    const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    return _mm512_permutex2var_ps(a, _mm512_add_epi32(even, _mm512_set1_epi32(odd)), b);
}

/* Lane i of the first half takes lane i of the second: 8, 4, 2, 1. */
INLINE f32 vec_sum(vec v) {
    __m256 a = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
    __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    b = _mm_add_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_add_ss(b, _mm_movehdup_ps(b)));
}
/* Largest lane; no lane is NaN. A zero may have either sign. */
INLINE f32 vec_largest(vec v) { return _mm512_reduce_max_ps(v); }

#endif
