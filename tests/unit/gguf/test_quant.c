/* Goal: the table of formats, the 16-bit floats and the encoders. Method: exhaustive over all halves with
 * the definition of round-to-nearest-even, and bounds that follow from each format's step. (Decoding is
 * compared with ggml's own numbers in tests/golden.) */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "gguf/quant.h"

static u32 bits_of(f32 f) {
    u32 b;
    memcpy(&b, &f, 4);
    return b;
}

static void test_table(void **state) {
    (void)state;
    assert_string_equal(quant_name(QUANT_Q4_K), "Q4_K");
    assert_string_equal(quant_name(39), "MXFP4");
    assert_string_equal(quant_name(99), "type 99");
    assert_string_equal(quant_name(4), "type 4");
    assert_int_equal(quant_block_values(4), 0);
    assert_int_equal(quant_block_bytes(1u << 31), 0);
    assert_int_equal(quant_row_bytes(QUANT_Q6_K, 512), 420);
    assert_true(quant_supported(QUANT_IQ4_XS));
    assert_false(quant_supported(QUANT_Q2_K));
    assert_false(quant_supported(39));
    assert_false(quant_supported(1000));
}

/* Every half becomes the value that its definition gives, and comes back as itself. */
static void test_f16_all(void **state) {
    (void)state;
    for (u32 h = 0; h < 0x10000; h++) {
        u32 exponent = h >> 10 & 31, mantissa = h & 0x3ff;
        f32 v = f16_to_f32((u16)h);
        if (exponent == 31 && mantissa) {
            assert_true(isnan(v));
            assert_true(isnan(f16_to_f32(f32_to_f16(v))));
            continue;
        }
        f64 want = exponent == 31  ? INFINITY
                   : exponent == 0 ? ldexp(mantissa, -24)
                                   : ldexp(1024 + mantissa, (int)exponent - 25);
        assert_true((f64)v == (h & 0x8000 ? -want : want));
        assert_int_equal(signbit(v) != 0, h >> 15);
        assert_int_equal(f32_to_f16(v), h);
    }
}

/* Between each pair of neighbours: below the middle goes down, above goes up, the middle goes to even. */
static void test_f16_rounding(void **state) {
    (void)state;
    for (u32 h = 0; h < 0x7bff; h++) {
        f32 middle = (f32)(((f64)f16_to_f32((u16)h) + (f64)f16_to_f32((u16)(h + 1))) / 2);
        assert_int_equal(f32_to_f16(nextafterf(middle, 0)), h);
        assert_int_equal(f32_to_f16(nextafterf(middle, INFINITY)), h + 1);
        assert_int_equal(f32_to_f16(middle), h % 2 ? h + 1 : h);
        assert_int_equal(f32_to_f16(-middle), (h % 2 ? h + 1 : h) | 0x8000);
    }
    assert_int_equal(f32_to_f16(65519.99f), 0x7bff);
    assert_int_equal(f32_to_f16(65520.0f), 0x7c00);
    assert_int_equal(f32_to_f16(-1e30f), 0xfc00);
    assert_int_equal(f32_to_f16(1e-30f), 0);
}

static void test_bf16(void **state) {
    (void)state;
    for (u32 h = 0; h < 0x7f7f; h++) {
        assert_int_equal(bits_of(bf16_to_f32((u16)h)), h << 16);
        assert_int_equal(f32_to_bf16(bf16_to_f32((u16)h)), h);
        u32 middle = h << 16 | 0x8000;
        f32 f;
        memcpy(&f, &middle, 4);
        assert_int_equal(f32_to_bf16(f), h % 2 ? h + 1 : h);
        assert_int_equal(f32_to_bf16(nextafterf(f, 0)), h);
        assert_int_equal(f32_to_bf16(nextafterf(f, INFINITY)), h + 1);
    }
    assert_true(isnan(bf16_to_f32(f32_to_bf16(NAN))));
    assert_true(isinf(bf16_to_f32(f32_to_bf16(INFINITY))));
}

/* Values of mixed size; deterministic. */
static void values_fill(f32 *v, u32 n, u32 seed) {
    for (u32 i = 0; i < n; i++) {
        seed = seed * 1664525 + 1013904223;
        v[i] = (f32)((i32)seed >> 8) * 0x1p-20f * (f32)(1 + seed % 3);
    }
}

/* No value may be further from its code than the format's step allows; the scale is a half, so it has an
 * error of 2^-11 of its own, times the largest code. */
static void encoder_check(u32 type, f32 levels, f32 slack_steps) {
    f32 in[256], out[256];
    u8 blocks[256 * 4];
    for (u32 seed = 0; seed < 200; seed++) {
        values_fill(in, 256, seed);
        quant_encode(type, in, blocks, 256);
        quant_decode(type, blocks, out, 256);
        for (u32 b = 0; b < 256; b += 32) {
            f32 min = 0, max = 0;
            for (u32 i = b; i < b + 32; i++)
                min = fminf(min, in[i]), max = fmaxf(max, in[i]);
            f32 step = fmaxf(max - min, 2 * fmaxf(max, -min)) / levels;
            for (u32 i = b; i < b + 32; i++)
                assert_true(fabsf(in[i] - out[i]) <= slack_steps * step);
        }
    }
    memset(in, 0, sizeof in);
    quant_encode(type, in, blocks, 256);
    quant_decode(type, blocks, out, 256);
    for (u32 i = 0; i < 256; i++)
        assert_true(out[i] == 0);
}

static void test_encoders(void **state) {
    (void)state;
    encoder_check(QUANT_Q8_0, 254, 0.57f);
    encoder_check(QUANT_Q4_0, 16, 1.01f); /* +8 has no code: the far end loses a whole step */
    encoder_check(QUANT_Q4_1, 15, 0.55f);
    encoder_check(QUANT_F16, 2048, 0.5f);
    encoder_check(QUANT_BF16, 256, 0.5f);
    encoder_check(QUANT_F32, 1e30f, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table), cmocka_unit_test(test_f16_all),  cmocka_unit_test(test_f16_rounding),
        cmocka_unit_test(test_bf16),  cmocka_unit_test(test_encoders),
    };
    return cmocka_run_group_tests_name("quant", tests, NULL, NULL);
}
