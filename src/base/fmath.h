/* fmath.h - exp, log, sin, cos, pow, tanh whose bits do not depend on the C library or the processor.
 * Plain C with explicit fma; the vector kernels evaluate the same polynomials in the same order. */
#ifndef MINKA_FMATH_H
#define MINKA_FMATH_H

#include "base/base.h"

/* e^x for f32, relative error below 2e-7; x < -87.3 gives 0, x > 88.7 infinity, NaN stays NaN. The exact
 * sequence of operations is in fmath.c and is part of the numerics version. */
f32 fm_expf(f32 x);
f32 fm_tanhf(f32 x); /* from fm_expf */
/* f64, error below 2 ulp or so; arguments as the engine uses them (|x| < 2^30 for sin and cos). */
f64 fm_exp(f64 x);
f64 fm_log(f64 x); /* x > 0; 0 gives -infinity */
f64 fm_pow(f64 x, f64 y); /* x > 0 */
void fm_sincos(f64 x, f64 *sin, f64 *cos);

#endif
