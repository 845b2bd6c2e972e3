/* norm.c - reference normalisation and residual addition. */
#include "kern/kern_parts.h"

#include <math.h>

#include "kern/ref/ref.h"

void ref_rmsnorm(const f32 *x, const f32 *w, f32 eps, u32 n, f32 *y) {
    f32 lane[16] = {0};
    for (u32 i = 0; i < n; i++)
        lane[i % 16] = fmaf(x[i], x[i], lane[i % 16]);
    f32 mean = lanes_sum(lane) / (f32)n;
    f32 r = 1.0f / sqrtf(mean + eps);
    for (u32 i = 0; i < n; i++)
        y[i] = w ? x[i] * r * w[i] : x[i] * r;
}

void ref_layernorm(const f32 *x, const f32 *w, const f32 *b, f32 eps, u32 n, f32 *y) {
    f32 lane[16] = {0}, square[16] = {0};
    for (u32 i = 0; i < n; i++)
        lane[i % 16] = lane[i % 16] + x[i];
    f32 mean = lanes_sum(lane) / (f32)n;
    for (u32 i = 0; i < n; i++) {
        f32 d = x[i] - mean;
        square[i % 16] = fmaf(d, d, square[i % 16]);
    }
    f32 r = 1.0f / sqrtf(lanes_sum(square) / (f32)n + eps);
    for (u32 i = 0; i < n; i++) {
        f32 v = (x[i] - mean) * r;
        v = w ? v * w[i] : v;
        y[i] = b ? v + b[i] : v;
    }
}

void ref_add_scaled(f32 *y, const f32 *x, f32 scale, u32 n) {
    for (u32 i = 0; i < n; i++)
        y[i] = fmaf(x[i], scale, y[i]);
}
