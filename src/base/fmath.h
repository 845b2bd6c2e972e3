/* fmath.h - exp, log, sin, cos, pow, tanh whose bits do not depend on the C library or the processor.
 * Plain C with explicit fma; the vector kernels evaluate the same polynomials in the same order. */
#ifndef MINKA_FMATH_H
#define MINKA_FMATH_H

#include "base/base.h"

/* e^x for f32, relative error below 1e-7; x < FM_EXPF_MIN gives 0, x > FM_EXPF_MAX infinity, NaN stays NaN.
 * The exact sequence of operations is in fmath.c and is part of the numerics version. */
f32 fm_expf(f32 x);
/* Relative error below 2e-7, odd, +-1 at the ends. */
f32 fm_tanhf(f32 x);

/* The numbers in fm_expf and fm_tanhf, shared with the vector forms in src/kern/x86. */
#define FM_EXPF_MIN -87.3f /* from here down the result would be subnormal */
#define FM_EXPF_MAX 88.72f /* above it 2^n * e^r overflows */
#define FM_EXPF_ROUND 0x1.8p23f
#define FM_EXPF_LOG2E 0x1.715476p+0f
#define FM_EXPF_LN2_HIGH 0x1.62e430p-1f
#define FM_EXPF_LN2_LOW -0x1.05c610p-29f
#define FM_EXPF_C2 0x1.fffffcp-2f
#define FM_EXPF_C3 0x1.555490p-3f
#define FM_EXPF_C4 0x1.5558acp-5f
#define FM_EXPF_C5 0x1.123b04p-7f
#define FM_EXPF_C6 0x1.6a5420p-10f
#define FM_TANHF_BORDER 0.625f
#define FM_TANHF_C3 -0x1.555532p-2f
#define FM_TANHF_C5 0x1.11071ep-3f
#define FM_TANHF_C7 -0x1.b83b26p-5f
#define FM_TANHF_C9 0x1.521e62p-6f
#define FM_TANHF_C11 -0x1.75bb8ap-8f

/* f64, error below 1 ulp where the result is normal. */
f64 fm_exp(f64 x);
f64 fm_log(f64 x); /* x > 0; 0 gives -infinity */
/* x >= 0 (else NaN); below 1 ulp while the result is within e^-50 .. e^50, below 10 ulp beyond. */
f64 fm_pow(f64 x, f64 y);
/* |x| < 2^30, beyond it both are NaN. */
void fm_sincos(f64 x, f64 *sin, f64 *cos);

#endif
