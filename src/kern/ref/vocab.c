/* vocab.c - reference sums and searches over a row of logits. */
#include "kern/kern_parts.h"

#include <math.h>

#include "base/fmath.h"
#include "kern/ref/ref.h"

static f32 block_sum(const f32 *x, u32 n, f32 max) {
    f32 lane[16] = {0};
    for (u32 i = 0; i < n; i++)
        lane[i % 16] = lane[i % 16] + fm_expf(x[i] - max);
    return lanes_sum(lane);
}

void ref_logsumexp(const f32 *x, u32 n, f32 *max, f64 *lse) {
    f32 m = -INFINITY;
    for (u32 i = 0; i < n; i++)
        m = x[i] > m ? x[i] : m;
    *max = m + 0.0f; /* -0 becomes 0, whichever came first */
    *lse = -INFINITY;
    if (m == -INFINITY)
        return;
    f64 sum = 0;
    for (u32 i = 0; i < n; i += KERN_VOCAB_BLOCK)
        sum = sum + (f64)block_sum(x + i, MIN(n - i, KERN_VOCAB_BLOCK), *max);
    *lse = fm_log(sum);
}

u32 ref_above(const f32 *x, u32 n, f32 threshold, u32 *out, u32 cap) {
    u32 found = 0;
    for (u32 i = 0; i < n; i++) {
        if (!(x[i] >= threshold))
            continue;
        if (found < cap)
            out[found] = i;
        found++;
    }
    return found;
}

void ref_maxima(const f32 *x, u32 n, f32 *out) {
    for (u32 i = 0; i < n; i += KERN_MAXIMA) {
        f32 max = -INFINITY;
        for (u32 k = i; k < MIN(i + KERN_MAXIMA, n); k++)
            max = x[k] > max ? x[k] : max;
        out[i / KERN_MAXIMA] = max;
    }
}
