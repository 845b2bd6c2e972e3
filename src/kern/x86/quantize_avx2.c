/* quantize_avx2.c - activations to int8, 32 or 256 at a time. */
#include "kern/x86/lanes_avx2.h"

#include <math.h>

/* Largest magnitude of n (a multiple of 32) values; infinite or NaN if one of them is. */
static f32 group_amax(const f32 *x, u32 n) {
    const vi magnitude = v_set_32(0x7fffffff);
    vi m = _mm256_setzero_si256();
    /* As integers, so that a NaN is larger than everything. */
    for (u32 i = 0; i < n; i += 8)
        m = _mm256_max_epu32(m, v_and(_mm256_loadu_si256((const vi *)(const void *)(x + i)), magnitude));
    _Alignas(32) u32 lanes[8];
    _mm256_store_si256((vi *)(void *)lanes, m);
    u32 bits = 0;
    for (u32 i = 0; i < 8; i++)
        bits = MAX(bits, lanes[i]);
    f32 amax;
    memcpy(&amax, &bits, sizeof amax);
    return amax;
}

static i32 sum_8(vi x) {
    __m128i s = _mm_add_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1)));
}

/* 16 values to bytes; returns their sum. */
static i32 quantize_16(const f32 *x, vf inverse, bool zero, i8 *q) {
    vi a = _mm256_cvtps_epi32(f_mul(_mm256_loadu_ps(x), inverse)),
       b = _mm256_cvtps_epi32(f_mul(_mm256_loadu_ps(x + 8), inverse));
    if (zero)
        a = b = _mm256_setzero_si256();
    vi words = _mm256_permute4x64_epi64(_mm256_packs_epi32(a, b), 0xd8);
    __m128i bytes = _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
    _mm_storeu_si128((__m128i *)(void *)q, bytes);
    return sum_8(_mm256_add_epi32(a, b));
}

static void group_quantize(const f32 *x, u32 n, struct kern_act_block *blocks) {
    f32 amax = group_amax(x, n);
    bool finite = amax < INFINITY, zero = !finite || amax < KERN_ACT_AMAX_MIN;
    f32 d = !finite ? NAN : zero ? 0 : amax / 127;
    const vf inverse = _mm256_set1_ps(zero ? 0 : 127 / amax);
    for (u32 b = 0; b < n / 32; b++) {
        i32 s0 = quantize_16(x + 32 * b, inverse, zero, blocks[b].q),
            s1 = quantize_16(x + 32 * b + 16, inverse, zero, blocks[b].q + 16);
        blocks[b].d = d;
        blocks[b].s = n == 32 ? d * (f32)(s0 + s1) : (f32)(s0 + s1);
        blocks[b].n[0] = n == 32 ? -(s0 + s1) : -s0;
        blocks[b].n[1] = n == 32 ? 0 : -s1;
    }
}

void avx2_quantize(const struct kern_acts *a, u32 row0, u32 row1, u32 k0, u32 k1) {
    u32 n = a->kind == KERN_ACT_Q8 ? 32 : 256;
    for (u32 row = row0; row < row1; row++)
        for (size_t at = (size_t)row * a->K + k0; at < (size_t)row * a->K + k1; at += n)
            group_quantize(a->x + at, n, a->blocks + at / 32);
}
