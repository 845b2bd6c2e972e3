/* fmath.c - polynomials by Horner's rule with one fma per step; every rounding is written down, so the bits
 * are the same on all processors. The vector kernels in src/kern/x86 repeat fm_expf and fm_tanhf step by step:
 * whoever changes one of them changes all, and the numerics version. */
#include "base/fmath.h"

#include <float.h>
#include <math.h>

static f32 f32_of_bits(u32 bits) { f32 v; memcpy(&v, &bits, sizeof v); return v; }
static u32 bits_of_f32(f32 v) { u32 bits; memcpy(&bits, &v, sizeof bits); return bits; }
static f64 f64_of_bits(u64 bits) { f64 v; memcpy(&v, &bits, sizeof v); return v; }
static u64 bits_of_f64(f64 v) { u64 bits; memcpy(&bits, &v, sizeof bits); return bits; }

/* e^x = 2^n * e^r, n = round(x / ln 2). Adding 1.5 * 2^23 rounds to an integer that lies in the low bits of
 * the sum, from where it is shifted into the exponent. The polynomial is a minimax fit over |r| <= 0.3475
 * with the coefficients of 1 and r kept at 1 and the others rounded to f32 one after another; error 3.2e-9. */
f32 fm_expf(f32 x) {
    if (x != x)
        return x;
    if (x < FM_EXPF_MIN)
        return 0;
    if (x > FM_EXPF_MAX)
        return INFINITY;
    f32 t = fmaf(x, FM_EXPF_LOG2E, FM_EXPF_ROUND);
    f32 n = t - FM_EXPF_ROUND;
    f32 r = fmaf(n, -FM_EXPF_LN2_HIGH, x);
    r = fmaf(n, -FM_EXPF_LN2_LOW, r);
    f32 p = FM_EXPF_C6;
    p = fmaf(p, r, FM_EXPF_C5);
    p = fmaf(p, r, FM_EXPF_C4);
    p = fmaf(p, r, FM_EXPF_C3);
    p = fmaf(p, r, FM_EXPF_C2);
    p = fmaf(p, r, 1.0f);
    p = fmaf(p, r, 1.0f);
    return f32_of_bits(bits_of_f32(p) + (bits_of_f32(t) << 23));
}

/* Odd minimax polynomial where 1 - 2/(e^2x + 1) would cancel; the border is where both are good. */
f32 fm_tanhf(f32 x) {
    f32 a = fabsf(x);
    if (a < FM_TANHF_BORDER) {
        f32 z = x * x;
        f32 p = FM_TANHF_C11;
        p = fmaf(p, z, FM_TANHF_C9);
        p = fmaf(p, z, FM_TANHF_C7);
        p = fmaf(p, z, FM_TANHF_C5);
        p = fmaf(p, z, FM_TANHF_C3);
        return fmaf(x * z, p, x);
    }
    f32 t = 1.0f - 2.0f / (fm_expf(a + a) + 1.0f);
    return copysignf(t, x);
}

/* ln 2 and pi / 2 as sums of doubles, each the rest of those before it. */
#define LN2_A 0x1.62e42fefa39efp-1
#define LN2_B 0x1.abc9e3b39803fp-56
#define LOG2_E 0x1.71547652b82fep+0
#define HALF_PI_A 0x1.921fb54442d18p+0
#define HALF_PI_B 0x1.1a62633145c07p-54
#define HALF_PI_C -0x1.f1976b7ed8fbcp-110
#define TWO_BY_PI 0x1.45f306dc9c883p-1
#define ROUND_F64 0x1.8p52

/* sum of c[i] * z^i */
static f64 poly(const f64 *c, u32 n, f64 z) {
    f64 p = c[n - 1];
    for (u32 i = n - 1; i-- > 0;)
        p = fma(p, z, c[i]);
    return p;
}

static f64 pow2(i32 n) { return f64_of_bits((u64)(1023 + n) << 52); } /* -1022 <= n <= 1023 */

/* e^(x + low), |low| tiny beside x. Taylor: (ln 2 / 2)^14 / 14! = 4e-18. */
static f64 exp_sum(f64 x, f64 low) {
    static const f64 c[] = {1.0 / 2,      1.0 / 6,       1.0 / 24,       1.0 / 120,       1.0 / 720,        1.0 / 5040,
                            1.0 / 40320, 1.0 / 362880, 1.0 / 3628800, 1.0 / 39916800, 1.0 / 479001600, 1.0 / 6227020800.0};
    if (x > 710)
        return INFINITY;
    if (x < -746)
        return 0;
    f64 n = fma(x, LOG2_E, ROUND_F64) - ROUND_F64;
    f64 r = fma(n, -LN2_A, x);
    f64 tail = fma(n, -LN2_B, low);
    f64 s = r + tail;
    tail = (r - s) + tail; /* what s lost */
    f64 p = fma(s * s, poly(c, ARRAY_LEN(c), s), tail);
    f64 e = 1.0 + (s + p);
    /* Two factors, since the result may be subnormal or need 2^1024. */
    i32 k = (i32)n, half = k / 2;
    return e * pow2(half) * pow2(k - half);
}

f64 fm_exp(f64 x) { return x != x ? x : exp_sum(x, 0); }

/* x = m * 2^e with m in [0.707, 1.414]; returns m - 1, which is exact. x > 0 and finite. */
static f64 split(f64 x, f64 *e) {
    i32 add = 0;
    if (x < DBL_MIN) {
        x *= 0x1p54;
        add = -54;
    }
    u64 bits = bits_of_f64(x);
    i32 k = (i32)(bits >> 52) - 1023;
    f64 m = f64_of_bits((bits & 0xfffffffffffffull) | 0x3ff0000000000000ull);
    if (m > 0x1.6a09e667f3bcdp+0) { /* sqrt 2 */
        m *= 0.5;
        k++;
    }
    *e = k + add;
    return m - 1;
}

/* log(1 + f) = 2 atanh(s), s = f / (2 + f): the series 2s + 2s^3/3 + ... ; this is the part behind 2s,
 * divided by s. |s| <= 0.1716, so the first term left out is below 2e-18 of the sum. */
static f64 log_rest(f64 z) {
    static const f64 c[] = {2.0 / 3,  2.0 / 5,  2.0 / 7,  2.0 / 9,  2.0 / 11, 2.0 / 13,
                            2.0 / 15, 2.0 / 17, 2.0 / 19, 2.0 / 21, 2.0 / 23};
    return z * poly(c, ARRAY_LEN(c), z);
}

f64 fm_log(f64 x) {
    if (!(x > 0))
        return x == 0 ? -INFINITY : NAN;
    if (x > DBL_MAX)
        return x;
    f64 e, f = split(x, &e);
    f64 s = f / (2 + f);
    /* 2s = f - s*f and s*f = h - s*h with h = f^2/2, so the rounding of s weighs little beside f. */
    f64 h = 0.5 * f * f;
    f64 rest = fma(s, h + log_rest(s * s), e * LN2_B);
    return fma(e, LN2_A, f - (h - rest));
}

/* log x = high + low with about 20 bits more than f64, so that y * log x can be exponentiated. */
static f64 log_sum(f64 x, f64 *low) {
    f64 e, f = split(x, &e);
    f64 d = 2 + f, d_low = f - (d - 2);
    f64 s = f / d;
    f64 s_low = (fma(-s, d, f) - s * d_low) / d;
    f64 rest = s * log_rest(s * s);
    f64 a = e * LN2_A, a_low = fma(e, LN2_A, -a);
    f64 b = 2 * s;
    f64 high = a + b; /* |a| >= ln 2 > |b|, or a is 0 */
    f64 left = (a - high) + b;
    left += rest + (2 * s_low + (a_low + e * LN2_B));
    f64 sum = high + left;
    *low = (high - sum) + left;
    return sum;
}

f64 fm_pow(f64 x, f64 y) {
    if (y == 0)
        return 1;
    if (x != x || y != y || x < 0)
        return NAN;
    if (x == 0 || x > DBL_MAX || fabs(y) > DBL_MAX)
        return exp_sum(x == 1 ? 0 : y * fm_log(x), 0);
    f64 low, high = log_sum(x, &low);
    f64 p = y * high;
    return fabs(p) > 800 ? exp_sum(p, 0) : exp_sum(p, fma(y, high, -p) + y * low);
}

/* x - n * pi/2 as r + low. The first fma is exact: both sides are multiples of 2^-52 and the difference is
 * below 1. */
static f64 reduce(f64 x, f64 *low, u32 *quadrant) {
    f64 n = fma(x, TWO_BY_PI, ROUND_F64) - ROUND_F64;
    f64 a = fma(n, -HALF_PI_A, x);
    f64 b = n * HALF_PI_B, b_low = fma(n, HALF_PI_B, -b);
    f64 r = a - b;
    f64 back = a - r; /* two-sum: what r lost */
    f64 lost = (a - (r + back)) + (back - b);
    f64 rest = lost - fma(n, HALF_PI_C, b_low);
    f64 sum = r + rest;
    *low = (r - sum) + rest;
    *quadrant = (u32)(i64)n & 3;
    return sum;
}

void fm_sincos(f64 x, f64 *sin, f64 *cos) {
    static const f64 cs[] = {-1.0 / 6,          1.0 / 120,           -1.0 / 5040,           1.0 / 362880,
                             -1.0 / 39916800, 1.0 / 6227020800.0, -1.0 / 1307674368000.0, 1.0 / 355687428096000.0};
    static const f64 cc[] = {1.0 / 24,         -1.0 / 720,           1.0 / 40320,           -1.0 / 3628800,
                             1.0 / 479001600, -1.0 / 87178291200.0, 1.0 / 20922789888000.0, -1.0 / 6402373705728000.0};
    if (!(fabs(x) < 0x1p30)) {
        *sin = *cos = NAN;
        return;
    }
    f64 low;
    u32 quadrant;
    f64 r = reduce(x, &low, &quadrant);
    f64 z = r * r, h = 0.5 * z, w = 1 - h;
    f64 s = r + fma(r * z, poly(cs, ARRAY_LEN(cs), z), fma(-h, low, low));
    f64 c = w + (((1 - w) - h) + fma(z * z, poly(cc, ARRAY_LEN(cc), z), -r * low));
    f64 by_quadrant[4][2] = {{s, c}, {c, -s}, {-s, -c}, {-c, s}};
    *sin = by_quadrant[quadrant][0];
    *cos = by_quadrant[quadrant][1];
}
