/* quantize_avx512.c - activations to int8, 32 or 256 at a time. */
#include "kern/x86/matmul_avx512.h"

#include <math.h>

/* Largest magnitude of n (a multiple of 32) values; infinite or NaN if one of them is. */
ALWAYS_INLINE f32 group_amax(const f32 *x, u32 n) {
    const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
    __m512i m0 = _mm512_setzero_si512(), m1 = m0;
    /* As integers, so that a NaN is larger than everything. */
    for (u32 i = 0; i < n; i += 32) {
        m0 = _mm512_max_epu32(m0, _mm512_and_si512(_mm512_loadu_si512(x + i), magnitude));
        m1 = _mm512_max_epu32(m1, _mm512_and_si512(_mm512_loadu_si512(x + i + 16), magnitude));
    }
    u32 bits = _mm512_reduce_max_epu32(_mm512_max_epu32(m0, m1));
    f32 amax;
    memcpy(&amax, &bits, sizeof amax);
    return amax;
}

static void group_quantize(const f32 *x, u32 n, struct kern_act_block *blocks) {
    f32 amax = group_amax(x, n);
    bool finite = amax < INFINITY, zero = !finite || amax < KERN_ACT_AMAX_MIN;
    f32 d = !finite ? NAN : zero ? 0 : amax / 127;
    const __m512 inverse = _mm512_set1_ps(zero ? 0 : 127 / amax);
    const __mmask16 keep = zero ? 0 : 0xffff;
    for (u32 b = 0; b < n / 32; b++) {
        __m512i q0 = _mm512_maskz_cvtps_epi32(keep, _mm512_mul_ps(_mm512_loadu_ps(x + 32 * b), inverse));
        __m512i q1 = _mm512_maskz_cvtps_epi32(keep, _mm512_mul_ps(_mm512_loadu_ps(x + 32 * b + 16), inverse));
        _mm_storeu_si128((__m128i *)(void *)blocks[b].q, _mm512_cvtepi32_epi8(q0));
        _mm_storeu_si128((__m128i *)(void *)(blocks[b].q + 16), _mm512_cvtepi32_epi8(q1));
        i32 s0 = _mm512_reduce_add_epi32(q0), s1 = _mm512_reduce_add_epi32(q1);
        blocks[b].d = d;
        blocks[b].s = n == 32 ? d * (f32)(s0 + s1) : (f32)(s0 + s1);
        blocks[b].n[0] = n == 32 ? -(s0 + s1) : -s0;
        blocks[b].n[1] = n == 32 ? 0 : -s1;
    }
}

void avx512_quantize(const struct kern_acts *a, const f32 *x, size_t ldx, u32 row0, u32 row1) {
    u32 n = a->kind == KERN_ACT_Q8 ? 32 : 256;
    for (u32 row = row0; row < row1; row++)
        for (u32 k = 0; k < a->K; k += n)
            group_quantize(x + row * ldx + k, n, a->blocks + ((size_t)row * a->K + k) / 32);
}
