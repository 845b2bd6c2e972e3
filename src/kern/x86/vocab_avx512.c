/* vocab_avx512.c - passes over a row of logits: 50k to 262k values, so four vectors at a time hide the
 * latencies and each pass runs at the speed of memory or of exp. */
#include "kern/kern_parts.h"

#include "kern/x86/math_avx512.h"

/* Largest value; NaN is passed over (max_ps returns its second operand then). */
static f32 row_max(const f32 *x, u32 n) {
    __m512 a = _mm512_set1_ps(-INFINITY), b = a, c = a, d = a;
    u32 i = 0;
    for (; n - i >= 64; i += 64) {
        a = _mm512_max_ps(_mm512_loadu_ps(x + i), a);
        b = _mm512_max_ps(_mm512_loadu_ps(x + i + 16), b);
        c = _mm512_max_ps(_mm512_loadu_ps(x + i + 32), c);
        d = _mm512_max_ps(_mm512_loadu_ps(x + i + 48), d);
    }
    for (; i < n; i += 16) {
        __mmask16 k = n - i >= 16 ? 0xffff : lanes_below(n - i);
        a = _mm512_mask_max_ps(a, k, _mm512_maskz_loadu_ps(k, x + i), a);
    }
    return max_avx512(_mm512_max_ps(_mm512_max_ps(a, b), _mm512_max_ps(c, d)));
}

static f32 block_sum(const f32 *x, u32 n, f32 max) {
    __m512 sum = _mm512_setzero_ps(), m = _mm512_set1_ps(max);
    u32 i = 0;
    for (; n - i >= 64; i += 64) {
        __m512 a = exp_avx512(_mm512_sub_ps(_mm512_loadu_ps(x + i), m));
        __m512 b = exp_avx512(_mm512_sub_ps(_mm512_loadu_ps(x + i + 16), m));
        __m512 c = exp_avx512(_mm512_sub_ps(_mm512_loadu_ps(x + i + 32), m));
        __m512 d = exp_avx512(_mm512_sub_ps(_mm512_loadu_ps(x + i + 48), m));
        sum = _mm512_add_ps(_mm512_add_ps(_mm512_add_ps(_mm512_add_ps(sum, a), b), c), d);
    }
    for (; i < n; i += 16) {
        __mmask16 k = n - i >= 16 ? 0xffff : lanes_below(n - i);
        __m512 e = exp_avx512(_mm512_sub_ps(_mm512_maskz_loadu_ps(k, x + i), m));
        sum = _mm512_mask_add_ps(sum, k, sum, e);
    }
    return sum_avx512(sum);
}

void avx512_logsumexp(const f32 *x, u32 n, f32 *max, f64 *lse) {
    f32 m = row_max(x, n);
    *max = m + 0.0f;
    *lse = -INFINITY;
    if (m == -INFINITY)
        return;
    f64 sum = 0;
    for (u32 i = 0; i < n; i += KERN_VOCAB_BLOCK)
        sum = sum + (f64)block_sum(x + i, MIN(n - i, KERN_VOCAB_BLOCK), *max);
    *lse = fm_log(sum);
}

u32 avx512_above(const f32 *x, u32 n, f32 threshold, u32 *out, u32 cap) {
    const __m512i iota = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m512 t = _mm512_set1_ps(threshold);
    u32 found = 0;
    for (u32 i = 0; i < n; i += 16) {
        __mmask16 in = n - i >= 16 ? 0xffff : lanes_below(n - i);
        __mmask16 k = _mm512_mask_cmp_ps_mask(in, _mm512_maskz_loadu_ps(in, x + i), t, _CMP_GE_OQ);
        if (!k)
            continue;
        u32 hits = (u32)__builtin_popcount(k);
        u32 room = found < cap ? cap - found : 0;
        __m512i index = _mm512_maskz_compress_epi32(k, _mm512_add_epi32(iota, _mm512_set1_epi32((i32)i)));
        if (room)
            _mm512_mask_storeu_epi32(out + found, lanes_below(MIN(MIN(hits, room), 16u)), index);
        found += hits;
    }
    return found;
}
