/* vec_math.h - fm_expf and fm_tanhf of base/fmath.c on 16 lanes, step by step the same. Included behind one of
 * the vec_*.h. */
#ifndef MINKA_KERN_VEC_MATH_H
#define MINKA_KERN_VEC_MATH_H

#include <math.h>

#include "base/fmath.h"

/* Right for x <= FM_EXPF_MAX and NaN. */
INLINE vec vec_exp_low(vec x) {
    const vec round = vec_set(FM_EXPF_ROUND);
    vec t = vec_fma(x, vec_set(FM_EXPF_LOG2E), round);
    vec n = vec_sub(t, round);
    vec r = vec_fma(n, vec_set(-FM_EXPF_LN2_HIGH), x);
    r = vec_fma(n, vec_set(-FM_EXPF_LN2_LOW), r);
    vec p = vec_set(FM_EXPF_C6);
    p = vec_fma(p, r, vec_set(FM_EXPF_C5));
    p = vec_fma(p, r, vec_set(FM_EXPF_C4));
    p = vec_fma(p, r, vec_set(FM_EXPF_C3));
    p = vec_fma(p, r, vec_set(FM_EXPF_C2));
    p = vec_fma(p, r, vec_set(1.0f));
    p = vec_fma(p, r, vec_set(1.0f));
    return vec_scale_exp(p, t, n, x, vec_set(FM_EXPF_MIN));
}

INLINE vec vec_exp(vec x) { return vec_where_less(vec_set(FM_EXPF_MAX), x, vec_set(INFINITY), vec_exp_low(x)); }

INLINE vec vec_tanh(vec x) {
    const vec one = vec_set(1.0f);
    vec a = vec_abs(x), z = vec_mul(x, x);
    vec p = vec_set(FM_TANHF_C11);
    p = vec_fma(p, z, vec_set(FM_TANHF_C9));
    p = vec_fma(p, z, vec_set(FM_TANHF_C7));
    p = vec_fma(p, z, vec_set(FM_TANHF_C5));
    p = vec_fma(p, z, vec_set(FM_TANHF_C3));
    p = vec_fma(vec_mul(x, z), p, x);
    vec e = vec_add(vec_exp(vec_add(a, a)), one);
    vec t = vec_sub(one, vec_div(vec_set(2.0f), e));
    return vec_where_less(a, vec_set(FM_TANHF_BORDER), p, vec_with_sign(t, x));
}

#endif
