/* quantize_avx512.c - activations to int8, 32 or 256 at a time. */
#include "kern/x86/matmul_avx512.h"

#include <math.h>

/* Largest magnitude of n (a multiple of 32) values in any lane; of infinite values and NaN in one of them. */
ALWAYS_INLINE __m512i lanes_amax(const f32 *x, u32 n) {
    const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
    __m512i m0 = _mm512_setzero_si512(), m1 = m0;
    /* As integers, so that a NaN is larger than everything. */
    for (u32 i = 0; i < n; i += 32) {
        m0 = _mm512_max_epu32(m0, _mm512_and_si512(_mm512_loadu_si512(x + i), magnitude));
        m1 = _mm512_max_epu32(m1, _mm512_and_si512(_mm512_loadu_si512(x + i + 16), magnitude));
    }
    return _mm512_max_epu32(m0, m1);
}

/* Sums over the lanes of four vectors; the same with the largest instead. Four together take half of the steps. */
#define FOLD_4(v, op, op4)                                                                                   \
    __m512i ab = op(_mm512_unpacklo_epi32(v[0], v[1]), _mm512_unpackhi_epi32(v[0], v[1]));                   \
    __m512i cd = op(_mm512_unpacklo_epi32(v[2], v[3]), _mm512_unpackhi_epi32(v[2], v[3]));                   \
    __m512i all = op(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));                          \
    return op4(op4(_mm512_castsi512_si128(all), _mm512_extracti32x4_epi32(all, 1)),                          \
               op4(_mm512_extracti32x4_epi32(all, 2), _mm512_extracti32x4_epi32(all, 3)))
ALWAYS_INLINE __m128i sums_4(const __m512i v[4]) { FOLD_4(v, _mm512_add_epi32, _mm_add_epi32); }
ALWAYS_INLINE __m128i amax_4(const __m512i v[4]) { FOLD_4(v, _mm512_max_epu32, _mm_max_epu32); }

/* 16 values, all 0 where keep is 0. */
ALWAYS_INLINE __m512i quantize_16(const f32 *x, __mmask16 keep, __m512 inverse, i8 *q) {
    __m512i v = _mm512_maskz_cvtps_epi32(keep, _mm512_mul_ps(_mm512_loadu_ps(x), inverse));
    _mm_storeu_si128((__m128i *)(void *)q, _mm512_cvtepi32_epi8(v));
    return v;
}

/* n = 1..4 groups of 32. */
ALWAYS_INLINE void quantize_32s(const f32 *x, u32 n, struct kern_act_block *blocks) {
    __m512i v[4] = {_mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_setzero_si512()};
    UNROLL
    for (u32 i = 0; i < n; i++)
        v[i] = lanes_amax(x + 32 * i, 32);
    const __m128 most = _mm_set1_ps(127), amax = _mm_castsi128_ps(amax_4(v));
    __mmask8 finite = _mm_cmp_ps_mask(amax, _mm_set1_ps(INFINITY), _CMP_LT_OQ);
    __mmask8 keep = finite & _mm_cmp_ps_mask(amax, _mm_set1_ps(KERN_ACT_AMAX_MIN), _CMP_GE_OQ);
    __m128 d = _mm_mask_blend_ps(finite, _mm_set1_ps(NAN), _mm_maskz_div_ps(keep, amax, most));
    __m128 inverse = _mm_maskz_div_ps(keep, most, amax);
    UNROLL
    for (u32 i = 0; i < n; i++) {
        __m512 all = _mm512_permutexvar_ps(_mm512_set1_epi32((i32)i), _mm512_castps128_ps512(inverse));
        __mmask16 own = (__mmask16)(keep >> i & 1 ? 0xffff : 0);
        v[i] = _mm512_add_epi32(quantize_16(x + 32 * i, own, all, blocks[i].q),
                                quantize_16(x + 32 * i + 16, own, all, blocks[i].q + 16));
    }
    __m128i sum = sums_4(v);
    __m128 head[4] = {d, _mm_mul_ps(d, _mm_cvtepi32_ps(sum)),
                      _mm_castsi128_ps(_mm_sub_epi32(_mm_setzero_si128(), sum)), _mm_setzero_ps()};
    _MM_TRANSPOSE4_PS(head[0], head[1], head[2], head[3]);
    UNROLL
    for (u32 i = 0; i < n; i++)
        _mm_storeu_ps(&blocks[i].d, head[i]); /* d, s and both n */
}

static void quantize_256(const f32 *x, struct kern_act_block *blocks) {
    u32 bits = _mm512_reduce_max_epu32(lanes_amax(x, 256));
    f32 amax;
    memcpy(&amax, &bits, sizeof amax);
    bool finite = amax < INFINITY, zero = !finite || amax < KERN_ACT_AMAX_MIN;
    f32 d = !finite ? NAN : zero ? 0 : amax / 127;
    const __m512 inverse = _mm512_set1_ps(zero ? 0 : 127 / amax);
    const __mmask16 keep = zero ? 0 : 0xffff;
    for (u32 b = 0; b < 8; b += 2) {
        __m512i v[4];
        i32 sum[4];
        for (u32 i = 0; i < 4; i++)
            v[i] = quantize_16(x + 32 * b + 16 * i, keep, inverse, blocks[b + i / 2].q + 16 * (i % 2));
        _mm_storeu_si128((__m128i *)(void *)sum, sums_4(v));
        for (u32 i = 0; i < 2; i++) {
            struct kern_act_block *block = &blocks[b + i];
            block->d = d;
            block->s = (f32)(sum[2 * i] + sum[2 * i + 1]);
            block->n[0] = -sum[2 * i];
            block->n[1] = -sum[2 * i + 1];
        }
    }
}

void avx512_quantize(const struct kern_acts *a, u32 row0, u32 row1, u32 k0, u32 k1) {
    for (u32 row = row0; row < row1; row++) {
        const f32 *x = a->x + (size_t)row * a->K;
        struct kern_act_block *blocks = a->blocks + (size_t)row * (a->K / 32);
        u32 k = k0;
        if (a->kind == KERN_ACT_Q8_256)
            for (; k < k1; k += 256)
                quantize_256(x + k, blocks + k / 32);
        for (; k + 128 <= k1; k += 128)
            quantize_32s(x + k, 4, blocks + k / 32);
        switch ((k1 - k) / 32) { /* loops over a constant number are unrolled */
        case 3: quantize_32s(x + k, 3, blocks + k / 32); break;
        case 2: quantize_32s(x + k, 2, blocks + k / 32); break;
        case 1: quantize_32s(x + k, 1, blocks + k / 32); break;
        }
    }
}
