/* Byte buffer and JSON writer. Truth for JSON: jansson reads back what was written, and the escapes that Go's
 * encoder makes are written down. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>
#include <jansson.h>

#include "base/buf.h"

static void grows_and_shrinks(void **state) {
    (void)state;
    struct buf b = {0};
    buf_add(&b, NULL, 0);
    assert_null(b.p);
    assert_string_equal(buf_cstr(&b), "");
    buf_consume(&b, 0);
    for (u32 i = 0; i < 1000; i++)
        buf_printf(&b, "%u,", i);
    assert_int_equal(b.n, 10 * 2 + 90 * 3 + 900 * 4);
    assert_memory_equal(b.p + b.n - 4, "999,", 4);
    buf_consume(&b, 2);
    assert_memory_equal(b.p, "1,2,", 4);
    buf_consume(&b, b.n);
    assert_int_equal(b.n, 0);
    buf_add_str(&b, STR("a\0b"));
    buf_add_char(&b, 'c');
    assert_memory_equal(buf_cstr(&b), "a\0bc", 5);
    assert_int_equal(buf_str(&b).n, 4);
    buf_clear(&b);
    assert_int_equal(b.n, 0);
    buf_printf(&b, "%s", "");
    assert_string_equal(buf_cstr(&b), "");
    buf_release(&b);
    assert_true(b.p == NULL && b.n == 0 && b.cap == 0);
    struct buf fresh = {0};
    buf_printf(&fresh, "%300d", 7); /* longer than the first allocation */
    assert_int_equal(fresh.n, 300);
    buf_release(&fresh);
}

/* Goal: commas come by themselves, wherever a value ends. */
static void commas(void **state) {
    (void)state;
    struct buf b = {0};
    json_open(&b, '{');
    json_key(&b, "a"), json_open(&b, '['), json_close(&b, ']');
    json_key(&b, "b"), json_open(&b, '{'), json_close(&b, '}');
    json_key(&b, "c"), json_open(&b, '[');
    json_u64(&b, 1), json_str(&b, STR(":")), json_none(&b), json_open(&b, '['), json_close(&b, ']'), json_bool(&b, true);
    json_open(&b, '{'), json_key(&b, "x"), json_i64(&b, -1), json_key(&b, "y"), json_f64(&b, 0.5), json_close(&b, '}');
    json_close(&b, ']');
    json_key(&b, "d"), json_raw(&b, STR(" {\"r\": [1]}\n"));
    json_key(&b, "e"), json_str(&b, STR_NONE);
    json_key(&b, "f"), json_str(&b, STR("[,{: "));
    json_key(&b, "g"), json_bool(&b, false);
    json_close(&b, '}');
    buf_add_char(&b, '\n');
    json_open(&b, '{'), json_close(&b, '}');
    assert_string_equal(buf_cstr(&b), "{\"a\":[],\"b\":{},\"c\":[1,\":\",null,[],true,{\"x\":-1,\"y\":0.5}],"
                                      "\"d\":{\"r\": [1]},\"e\":\"\",\"f\":\"[,{: \",\"g\":false}\n{}");
    buf_release(&b);
}

static void strings_as_go_escapes_them(void **state) {
    (void)state;
    static const struct { struct str in; const char *out; } cases[] = {
        {STR("plain \x7f"), "\"plain \x7f\""},
        {STR("\"\\/"), "\"\\\"\\\\/\""},
        {STR("\n\r\t\b\f"), "\"\\n\\r\\t\\b\\f\""},
        {STR("\0\x1f"), "\"\\u0000\\u001f\""},
        {STR("<b>&"), "\"\\u003cb\\u003e\\u0026\""},
        {STR("\xe2\x80\xa8\xe2\x80\xa9\xe2\x80\xaa"), "\"\\u2028\\u2029\xe2\x80\xaa\""},
        {STR("\xc3\xa4\xf0\x9f\x98\x80"), "\"\xc3\xa4\xf0\x9f\x98\x80\""},
        {STR("a\xff" "b\xc3"), "\"a\\ufffdb\\ufffd\""},
        {STR("\xed\xa0\x80"), "\"\\ufffd\\ufffd\\ufffd\""},
    };
    for (u32 i = 0; i < ARRAY_LEN(cases); i++) {
        struct buf b = {0};
        json_str(&b, cases[i].in);
        assert_string_equal(buf_cstr(&b), cases[i].out);
        buf_release(&b);
    }
}

/* Goal: any valid text comes back unchanged. Method: random code points, read by jansson. */
static void strings_come_back(void **state) {
    (void)state;
    u64 r = 88172645463325252ull;
    for (u32 round = 0; round < 2000; round++) {
        struct buf in = {0}, out = {0};
        for (u32 i = 0; i < round % 40; i++) {
            r ^= r << 13, r ^= r >> 7, r ^= r << 17;
            u32 c = (u32)(r >> 40) % (r & 1 ? 128u : 0x110000u);
            char t[4];
            if (c >= 0xd800 && c < 0xe000)
                c = '?';
            buf_add(&in, t, utf8_encode(c, t));
        }
        json_str(&out, buf_str(&in));
        json_t *v = json_loadb(out.p, out.n, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
        assert_non_null(v);
        assert_int_equal(json_string_length(v), in.n);
        if (in.n)
            assert_memory_equal(json_string_value(v), in.p, in.n);
        json_decref(v);
        buf_release(&in);
        buf_release(&out);
    }
}

static void assert_number(void (*write)(struct buf *b, f64 v), f64 v, const char *text) {
    struct buf b = {0};
    write(&b, v);
    assert_string_equal(buf_cstr(&b), text);
    buf_release(&b);
}
static void write_f32(struct buf *b, f64 v) { json_f32(b, (f32)v); }

static void numbers(void **state) {
    (void)state;
    assert_number(json_f64, 0.1, "0.1");
    assert_number(json_f64, 1.0 / 3, "0.3333333333333333");
    assert_number(json_f64, -2, "-2");
    assert_number(json_f64, 1e300, "1e+300");
    assert_number(json_f64, (f64)NAN, "null");
    assert_number(json_f64, -(f64)INFINITY, "null");
    assert_number(write_f32, 0.1, "0.1");
    assert_number(write_f32, 16777217, "16777216");
    assert_number(write_f32, 1.0 / 3, "0.33333334");
    assert_number(write_f32, (f64)INFINITY, "null");
    struct buf b = {0};
    json_open(&b, '[');
    json_u64(&b, UINT64_MAX), json_u64(&b, 0), json_i64(&b, INT64_MIN), json_i64(&b, INT64_MAX);
    json_close(&b, ']');
    assert_string_equal(buf_cstr(&b), "[18446744073709551615,0,-9223372036854775808,9223372036854775807]");
    buf_release(&b);
    u64 r = 88172645463325252ull;
    for (u32 i = 0; i < 20000; i++) {
        r ^= r << 13, r ^= r >> 7, r ^= r << 17;
        f32 f;
        f64 d;
        memcpy(&f, &r, sizeof f);
        memcpy(&d, &r, sizeof d);
        if (isfinite(f)) {
            json_f32(&b, f);
            assert_true(strtof(buf_cstr(&b), NULL) == f);
            buf_clear(&b);
        }
        if (isfinite(d)) {
            json_f64(&b, d);
            assert_true(strtod(buf_cstr(&b), NULL) == d);
            buf_clear(&b);
        }
    }
    buf_release(&b);
}

/* The short way for fractions writes what printf does with the fewest digits that read back. */
static void fractions_as_printf(void **state) {
    (void)state;
    struct buf b = {0};
    u32 seed = 7;
    for (u32 i = 0; i < 200000; i++) {
        seed = seed * 1664525 + 1013904223;
        f32 v = (f32)(seed >> 8) / 16777216.0f;
        v = i % 2 ? v : v * v * v;
        v = i % 3 ? v : roundf(v * 1000) / 1000; /* few digits too */
        v = i % 5 ? v : nextafterf(v, 1);
        v = i % 7 ? v : -v;
        char want[32];
        for (int digits = 6; digits <= 9; digits++) {
            snprintf(want, sizeof want, "%.*g", digits, (double)v);
            if (strtof(want, NULL) == v)
                break;
        }
        buf_clear(&b);
        json_f32(&b, v);
        assert_string_equal(buf_cstr(&b), want);
    }
    buf_release(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(grows_and_shrinks), cmocka_unit_test(commas), cmocka_unit_test(strings_as_go_escapes_them),
        cmocka_unit_test(strings_come_back), cmocka_unit_test(numbers), cmocka_unit_test(fractions_as_printf),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
