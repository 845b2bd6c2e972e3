/* vocab_avx2.c - passes over a row of logits: 50k to 262k values, four vectors at a time. */
#include "kern/kern_parts.h"

#include "kern/x86/math_avx2.h"

/* Largest value; NaN is passed over (max_ps returns its second operand then). */
static f32 row_max(const f32 *x, u32 n) {
    __m256 a = _mm256_set1_ps(-INFINITY), b = a, c = a, d = a;
    u32 i = 0;
    for (; n - i >= 32; i += 32) {
        a = _mm256_max_ps(_mm256_loadu_ps(x + i), a);
        b = _mm256_max_ps(_mm256_loadu_ps(x + i + 8), b);
        c = _mm256_max_ps(_mm256_loadu_ps(x + i + 16), c);
        d = _mm256_max_ps(_mm256_loadu_ps(x + i + 24), d);
    }
    f32 m = max_avx2(_mm256_max_ps(_mm256_max_ps(a, b), _mm256_max_ps(c, d)));
    for (; i < n; i++)
        m = x[i] > m ? x[i] : m;
    return m;
}

static f32 block_sum(const f32 *x, u32 n, f32 max) {
    __m256 low = _mm256_setzero_ps(), high = low, m = _mm256_set1_ps(max);
    u32 i = 0;
    for (; n - i >= 32; i += 32) {
        __m256 a = exp_avx2(_mm256_sub_ps(_mm256_loadu_ps(x + i), m));
        __m256 b = exp_avx2(_mm256_sub_ps(_mm256_loadu_ps(x + i + 8), m));
        __m256 c = exp_avx2(_mm256_sub_ps(_mm256_loadu_ps(x + i + 16), m));
        __m256 d = exp_avx2(_mm256_sub_ps(_mm256_loadu_ps(x + i + 24), m));
        low = _mm256_add_ps(_mm256_add_ps(low, a), c);
        high = _mm256_add_ps(_mm256_add_ps(high, b), d);
    }
    for (u32 odd = 0; i < n; i += 8, odd = !odd) {
        __m256i in = lanes_below(n - i);
        __m256 e = exp_avx2(_mm256_sub_ps(_mm256_maskload_ps(x + i, in), m));
        e = _mm256_and_ps(e, _mm256_castsi256_ps(in));
        if (odd)
            high = _mm256_add_ps(high, e);
        else
            low = _mm256_add_ps(low, e);
    }
    return sum_avx2(low, high);
}

void avx2_logsumexp(const f32 *x, u32 n, f32 *max, f64 *lse) {
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

u32 avx2_above(const f32 *x, u32 n, f32 threshold, u32 *out, u32 cap) {
    const __m256 t = _mm256_set1_ps(threshold);
    u32 found = 0;
    for (u32 i = 0; i < n; i += 8) {
        __m256i in = lanes_below(n - i);
        __m256 v = n - i >= 8 ? _mm256_loadu_ps(x + i) : _mm256_maskload_ps(x + i, in);
        __m256 hit = _mm256_and_ps(_mm256_cmp_ps(v, t, _CMP_GE_OQ), _mm256_castsi256_ps(in));
        for (u32 bits = (u32)_mm256_movemask_ps(hit); bits; bits &= bits - 1) {
            if (found < cap)
                out[found] = i + (u32)__builtin_ctz(bits);
            found++;
        }
    }
    return found;
}
