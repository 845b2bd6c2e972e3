/* math_avx2.h - fm_expf and fm_tanhf of base/fmath.c on 8 lanes, step by step the same; lane sums and tails. */
#ifndef MINKA_KERN_MATH_AVX2_H
#define MINKA_KERN_MATH_AVX2_H

#include <immintrin.h>
#include <math.h>

#include "base/fmath.h"

/* All ones in lanes 0..n-1; any n. */
static inline __m256i lanes_below(u32 n) {
    const __m256i iota = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((i32)MIN(n, 8u)), iota);
}

static inline __m256 exp_avx2(__m256 x) {
    const __m256 round = _mm256_set1_ps(FM_EXPF_ROUND);
    __m256 t = _mm256_fmadd_ps(x, _mm256_set1_ps(FM_EXPF_LOG2E), round);
    __m256 n = _mm256_sub_ps(t, round);
    __m256 r = _mm256_fmadd_ps(n, _mm256_set1_ps(-FM_EXPF_LN2_HIGH), x);
    r = _mm256_fmadd_ps(n, _mm256_set1_ps(-FM_EXPF_LN2_LOW), r);
    __m256 p = _mm256_set1_ps(FM_EXPF_C6);
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(FM_EXPF_C5));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(FM_EXPF_C4));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(FM_EXPF_C3));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(FM_EXPF_C2));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f));
    __m256i e = _mm256_add_epi32(_mm256_castps_si256(p), _mm256_slli_epi32(_mm256_castps_si256(t), 23));
    __m256 y = _mm256_castsi256_ps(e);
    __m256 low = _mm256_cmp_ps(x, _mm256_set1_ps(FM_EXPF_MIN), _CMP_LT_OQ);
    __m256 high = _mm256_cmp_ps(x, _mm256_set1_ps(FM_EXPF_MAX), _CMP_GT_OQ);
    __m256 nan = _mm256_cmp_ps(x, x, _CMP_UNORD_Q);
    y = _mm256_andnot_ps(low, y);
    y = _mm256_blendv_ps(y, _mm256_set1_ps(INFINITY), high);
    return _mm256_blendv_ps(y, x, nan);
}

static inline __m256 tanh_avx2(__m256 x) {
    const __m256 one = _mm256_set1_ps(1.0f), sign = _mm256_set1_ps(-0.0f);
    __m256 a = _mm256_andnot_ps(sign, x);
    __m256 z = _mm256_mul_ps(x, x);
    __m256 p = _mm256_set1_ps(FM_TANHF_C11);
    p = _mm256_fmadd_ps(p, z, _mm256_set1_ps(FM_TANHF_C9));
    p = _mm256_fmadd_ps(p, z, _mm256_set1_ps(FM_TANHF_C7));
    p = _mm256_fmadd_ps(p, z, _mm256_set1_ps(FM_TANHF_C5));
    p = _mm256_fmadd_ps(p, z, _mm256_set1_ps(FM_TANHF_C3));
    p = _mm256_fmadd_ps(_mm256_mul_ps(x, z), p, x);
    __m256 e = _mm256_add_ps(exp_avx2(_mm256_add_ps(a, a)), one);
    __m256 t = _mm256_sub_ps(one, _mm256_div_ps(_mm256_set1_ps(2.0f), e));
    t = _mm256_or_ps(_mm256_andnot_ps(sign, t), _mm256_and_ps(sign, x));
    return _mm256_blendv_ps(t, p, _mm256_cmp_ps(a, _mm256_set1_ps(FM_TANHF_BORDER), _CMP_LT_OQ));
}

/* Lanes 0..7 and 8..15: lane i of the first half takes lane i of the second: 8, 4, 2, 1. */
static inline f32 sum_avx2(__m256 low, __m256 high) {
    __m256 a = _mm256_add_ps(low, high);
    __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    b = _mm_add_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_add_ss(b, _mm_movehdup_ps(b)));
}

/* Largest lane; no lane is NaN. A zero may have either sign. */
static inline f32 max_avx2(__m256 v) {
    __m128 b = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    b = _mm_max_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_max_ss(b, _mm_movehdup_ps(b)));
}

#endif
