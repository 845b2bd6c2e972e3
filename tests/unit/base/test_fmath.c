/* Own exp, log, sin, cos, pow, tanh. Truth: the C library in long double, whose error is far below what is
 * measured; and hashes of the bits, since these must not depend on the machine, the compiler or its options. */
#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/fmath.h"

static u64 rng = 88172645463325252ull;
static f64 uniform(f64 low, f64 high) {
    rng ^= rng << 13, rng ^= rng >> 7, rng ^= rng << 17;
    return low + (high - low) * (f64)(rng >> 11) * 0x1p-53;
}

static f32 f32_of(u32 bits) { f32 v; memcpy(&v, &bits, sizeof v); return v; }

static void assert_relative(const char *what, f32 x, f32 got, long double want, f64 bound) {
    if (!(fabsl(got - want) <= fabsl(want) * bound))
        fail_msg("%s(%a) = %a, should be %La", what, (f64)x, (f64)got, want);
}

/* Every 1999th float. */
static void expf_and_tanhf(void **state) {
    (void)state;
    for (u32 bits = 0; bits < UINT32_MAX - 1999; bits += 1999) {
        f32 x = f32_of(bits);
        if (x != x)
            continue;
        f32 e = fm_expf(x), t = fm_tanhf(x);
        if (x < FM_EXPF_MIN)
            assert_true(e == 0);
        else if (x > FM_EXPF_MAX)
            assert_true(e == INFINITY);
        else
            assert_relative("expf", x, e, expl(x), 1e-7);
        if (fabsf(x) < 1e-37f)
            assert_true(t == x); /* also where x * x underflows */
        else
            assert_relative("tanhf", x, t, tanhl(x), 2e-7);
    }
    assert_true(isnan(fm_expf(NAN)) && isnan(fm_tanhf(NAN)));
    assert_true(fm_expf(0) == 1 && fm_expf(-0.0f) == 1);
    assert_true(fm_tanhf(INFINITY) == 1 && fm_tanhf(-INFINITY) == -1 && fm_tanhf(-0.0f) == 0);
    assert_true(fm_expf(nextafterf(FM_EXPF_MIN, -100)) == 0 && fm_expf(FM_EXPF_MIN) >= FLT_MIN);
    assert_true(fm_expf(FM_EXPF_MAX) < INFINITY);
}

static void assert_ulp(const char *what, f64 x, f64 got, long double want, f64 bound) {
    int e;
    frexpl(want, &e);
    if (!(fabsl(got - want) <= ldexpl((long double)bound, e - 53)))
        fail_msg("%s(%a) = %a, should be %La", what, x, got, want);
}

static void exp_and_log(void **state) {
    (void)state;
    for (u32 i = 0; i < 300000; i++) {
        f64 wide = uniform(-708, 709), narrow = uniform(-1, 1), scale = exp(uniform(-700, 700)), near = 1 + uniform(-0.01, 0.01);
        assert_ulp("exp", wide, fm_exp(wide), expl(wide), 1);
        assert_ulp("exp", narrow, fm_exp(narrow), expl(narrow), 1);
        assert_ulp("log", scale, fm_log(scale), logl(scale), 1);
        assert_ulp("log", near, fm_log(near), logl(near), 1);
        f64 small = uniform(-745, -709); /* subnormal results: half of the smallest step */
        assert_true(fabsl(fm_exp(small) - expl(small)) <= 0x1.1p-1074L);
    }
    assert_true(fm_exp(0) == 1 && fm_log(1) == 0);
    assert_true(fm_exp(710) == (f64)INFINITY && fm_exp(-746) == 0 && fm_exp(-(f64)INFINITY) == 0);
    assert_true(fm_exp((f64)INFINITY) == (f64)INFINITY && isnan(fm_exp((f64)NAN)));
    assert_true(fm_log(0) == -(f64)INFINITY && isnan(fm_log(-1)) && isnan(fm_log((f64)NAN)));
    assert_true(fm_log((f64)INFINITY) == (f64)INFINITY);
    assert_ulp("log", 0x1p-1074, fm_log(0x1p-1074), logl(0x1p-1074L), 1);
    assert_ulp("log", DBL_MAX, fm_log(DBL_MAX), logl(DBL_MAX), 1);
}

static void pow_(void **state) {
    (void)state;
    for (u32 i = 0; i < 300000; i++) {
        f64 x = exp(uniform(-16, 16)), y = uniform(-3, 3);
        assert_ulp("pow", x, fm_pow(x, y), powl(x, y), 1);
        x = exp(uniform(-2, 2)), y = uniform(-300, 300);
        assert_ulp("pow", x, fm_pow(x, y), powl(x, y), 10);
    }
    /* As rotary positions ask for them. */
    for (u32 base = 0; base < 3; base++)
        for (u32 i = 0; i < 128; i++) {
            f64 theta = (const f64[]){1e4, 5e5, 1e6}[base];
            assert_ulp("pow", i, fm_pow(theta, -(f64)i / 128), powl(theta, -(long double)i / 128), 1);
        }
    f64 inf = (f64)INFINITY;
    assert_true(fm_pow(2, 10) == 1024 && fm_pow(5, 0) == 1 && fm_pow(0, 0) == 1 && fm_pow(1, inf) == 1);
    assert_true(fm_pow(0, 2) == 0 && fm_pow(0, -2) == inf && fm_pow(inf, 2) == inf && fm_pow(inf, -1) == 0);
    assert_true(fm_pow(0.5, inf) == 0 && fm_pow(0.5, -inf) == inf && fm_pow(2, 5000) == inf && fm_pow(2, -5000) == 0);
    assert_true(isnan(fm_pow(-1, 2)) && isnan(fm_pow((f64)NAN, 2)) && isnan(fm_pow(2, (f64)NAN)));
}

static void check_sincos(f64 x) {
    f64 s, c;
    fm_sincos(x, &s, &c);
    assert_ulp("sin", x, s, sinl(x), 1);
    assert_ulp("cos", x, c, cosl(x), 1);
}

static void sin_and_cos(void **state) {
    (void)state;
    for (u32 i = 0; i < 200000; i++) {
        check_sincos(uniform(-4, 4));
        check_sincos(uniform(-0x1p30, 0x1p30));
        check_sincos(floor(uniform(0, 0x1p29)));             /* positions */
        check_sincos(floor(uniform(0, 0x1p28)) * M_PI_2);    /* as near to multiples of pi/2 as doubles come */
    }
    f64 s, c;
    fm_sincos(0, &s, &c);
    assert_true(s == 0 && c == 1);
    fm_sincos(0x1p30, &s, &c);
    assert_true(isnan(s) && isnan(c));
    fm_sincos((f64)NAN, &s, &c);
    assert_true(isnan(s) && isnan(c));
}

/* Goal: the same bits everywhere, today and later: a change here needs a new NUMERICS_VERSION. */
static void bits_are_fixed(void **state) {
    (void)state;
    u64 f = 0, d = 0;
    for (i32 i = -100000; i <= 100000; i++) {
        f32 x = (f32)i * 0x1.1p-10f, r[2] = {fm_expf(x), fm_tanhf(x)};
        f = hash_bytes(r, sizeof r, f);
        f64 y = i * 0x1.3p-8, v[5] = {fm_exp(y * 0.5), fm_log(fabs(y)), fm_pow(fabs(y) + 0.1, y * 0.01)};
        fm_sincos(y * 1e4, &v[3], &v[4]);
        d = hash_bytes(v, sizeof v, d);
    }
    assert_int_equal(f, 0xd2538db9aa78f30ull);
    assert_int_equal(d, 0xe9597510137af02ull);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(expf_and_tanhf), cmocka_unit_test(exp_and_log), cmocka_unit_test(pow_),
        cmocka_unit_test(sin_and_cos),    cmocka_unit_test(bits_are_fixed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
