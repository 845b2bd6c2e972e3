/* math_avx512.h - fm_expf and fm_tanhf of base/fmath.c on 16 lanes, step by step the same; lane sums. */
#ifndef MINKA_KERN_MATH_AVX512_H
#define MINKA_KERN_MATH_AVX512_H

#include <immintrin.h>
#include <math.h>

#include "base/fmath.h"

/* Lanes 0..n-1; n <= 16. */
static inline __mmask16 lanes_below(u32 n) { return (__mmask16)((1u << n) - 1); }

static inline __m512 exp_avx512(__m512 x) {
    const __m512 round = _mm512_set1_ps(FM_EXPF_ROUND);
    __m512 t = _mm512_fmadd_ps(x, _mm512_set1_ps(FM_EXPF_LOG2E), round);
    __m512 n = _mm512_sub_ps(t, round);
    __m512 r = _mm512_fmadd_ps(n, _mm512_set1_ps(-FM_EXPF_LN2_HIGH), x);
    r = _mm512_fmadd_ps(n, _mm512_set1_ps(-FM_EXPF_LN2_LOW), r);
    __m512 p = _mm512_set1_ps(FM_EXPF_C6);
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(FM_EXPF_C5));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(FM_EXPF_C4));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(FM_EXPF_C3));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(FM_EXPF_C2));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
    __m512i e = _mm512_add_epi32(_mm512_castps_si512(p), _mm512_slli_epi32(_mm512_castps_si512(t), 23));
    __m512 y = _mm512_castsi512_ps(e);
    __mmask16 low = _mm512_cmp_ps_mask(x, _mm512_set1_ps(FM_EXPF_MIN), _CMP_LT_OQ);
    __mmask16 high = _mm512_cmp_ps_mask(x, _mm512_set1_ps(FM_EXPF_MAX), _CMP_GT_OQ);
    __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
    y = _mm512_mask_mov_ps(y, low, _mm512_setzero_ps());
    y = _mm512_mask_mov_ps(y, high, _mm512_set1_ps(INFINITY));
    return _mm512_mask_mov_ps(y, nan, x);
}

static inline __m512 tanh_avx512(__m512 x) {
    const __m512 one = _mm512_set1_ps(1.0f), sign = _mm512_set1_ps(-0.0f);
    __m512 a = _mm512_andnot_ps(sign, x);
    __m512 z = _mm512_mul_ps(x, x);
    __m512 p = _mm512_set1_ps(FM_TANHF_C11);
    p = _mm512_fmadd_ps(p, z, _mm512_set1_ps(FM_TANHF_C9));
    p = _mm512_fmadd_ps(p, z, _mm512_set1_ps(FM_TANHF_C7));
    p = _mm512_fmadd_ps(p, z, _mm512_set1_ps(FM_TANHF_C5));
    p = _mm512_fmadd_ps(p, z, _mm512_set1_ps(FM_TANHF_C3));
    p = _mm512_fmadd_ps(_mm512_mul_ps(x, z), p, x);
    __m512 e = _mm512_add_ps(exp_avx512(_mm512_add_ps(a, a)), one);
    __m512 t = _mm512_sub_ps(one, _mm512_div_ps(_mm512_set1_ps(2.0f), e));
    t = _mm512_or_ps(_mm512_andnot_ps(sign, t), _mm512_and_ps(sign, x));
    return _mm512_mask_mov_ps(t, _mm512_cmp_ps_mask(a, _mm512_set1_ps(FM_TANHF_BORDER), _CMP_LT_OQ), p);
}

/* Lane i of the first half takes lane i of the second: 8, 4, 2, 1. */
static inline f32 sum_avx512(__m512 v) {
    __m256 a = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
    __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    b = _mm_add_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_add_ss(b, _mm_movehdup_ps(b)));
}

/* Largest lane; no lane is NaN. A zero may have either sign. */
static inline f32 max_avx512(__m512 v) { return _mm512_reduce_max_ps(v); }

#endif
