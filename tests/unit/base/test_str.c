/* Text operations, numbers and UTF-8. Truth for UTF-8: the table of the Unicode standard (D92, well-formed byte
 * sequences), written down here as ranges and walked through completely. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/str.h"

static void compare_and_cut(void **state) {
    (void)state;
    assert_true(str_eq(STR_NONE, STR("")));
    assert_true(str_eq(STR("a\0b"), (struct str){"a\0b", 3}));
    assert_false(str_eq(STR("a\0b"), (struct str){"a\0c", 3}));
    assert_true(str_is(STR("abc"), "abc"));
    assert_false(str_is(STR("abc"), "ab"));
    assert_true(str_is(STR_NONE, ""));
    assert_true(str_is(str_of(NULL), ""));
    assert_true(str_eq_nocase(STR("Content-TYPE"), STR("content-type")));
    assert_false(str_eq_nocase(STR("a"), STR("ab")));
    assert_false(str_eq_nocase(STR("["), STR("{"))); /* 0x20 apart, but no letters */
    assert_false(str_eq_nocase(STR("\xc3\x84"), STR("\xc3\xa4")));
    assert_true(str_starts(STR("abc"), STR("ab")) && str_starts(STR("abc"), STR_NONE));
    assert_false(str_starts(STR("ab"), STR("abc")));
    assert_true(str_ends(STR("abc"), STR("bc")) && str_ends(STR_NONE, STR_NONE));
    assert_false(str_ends(STR("bc"), STR("abc")));
    assert_true(str_is(str_slice(STR("hello"), 1, 3), "el"));
    assert_true(str_is(str_slice(STR("hello"), 3, 99), "lo"));
    assert_true(str_is(str_slice(STR("hello"), 4, 2), ""));
    assert_int_equal(str_slice(STR_NONE, 0, 5).n, 0);
    assert_true(str_is(str_trim(STR(" \t\r\n\v\f a b \n")), "a b"));
    assert_true(str_is(str_trim(STR("  ")), ""));
    assert_int_equal(str_trim(STR_NONE).n, 0);
}

static void find(void **state) {
    (void)state;
    struct str s = STR("abcabc");
    assert_int_equal(str_find(s, STR("abc"), 0), 0);
    assert_int_equal(str_find(s, STR("abc"), 1), 3);
    assert_int_equal(str_find(s, STR("abc"), 4), SIZE_MAX);
    assert_int_equal(str_find(s, STR("x"), 0), SIZE_MAX);
    assert_int_equal(str_find(s, STR_NONE, 6), 6);
    assert_int_equal(str_find(s, STR_NONE, 7), SIZE_MAX);
    assert_int_equal(str_find(s, STR("abcabca"), 0), SIZE_MAX);
    assert_int_equal(str_find(STR_NONE, STR("a"), 0), SIZE_MAX);
    assert_int_equal(str_find(STR("a\0b"), STR("\0b"), 0), 1);
}

static void integers(void **state) {
    (void)state;
    static const struct { const char *text; bool ok; u64 value; } u[] = {
        {"0", true, 0},   {"007", true, 7},   {"18446744073709551615", true, UINT64_MAX}, {"18446744073709551616", false, 0},
        {"", false, 0},   {"-1", false, 0},   {"+1", false, 0},                           {"1 ", false, 0},
        {" 1", false, 0}, {"1e3", false, 0},  {"0x10", false, 0},                         {"99999999999999999999999", false, 0},
    };
    for (u32 i = 0; i < ARRAY_LEN(u); i++) {
        u64 v = 5;
        assert_int_equal(str_to_u64(str_of(u[i].text), &v), u[i].ok);
        if (u[i].ok)
            assert_int_equal(v, u[i].value);
    }
    static const struct { const char *text; bool ok; i64 value; } s[] = {
        {"0", true, 0},   {"-0", true, 0},  {"+5", true, 5},  {"-9223372036854775808", true, INT64_MIN},
        {"-9223372036854775809", false, 0}, {"9223372036854775807", true, INT64_MAX},
        {"9223372036854775808", false, 0},  {"-", false, 0},  {"--1", false, 0},
        {"", false, 0},   {"1.0", false, 0},
    };
    for (u32 i = 0; i < ARRAY_LEN(s); i++) {
        i64 v = 5;
        assert_int_equal(str_to_i64(str_of(s[i].text), &v), s[i].ok);
        if (s[i].ok)
            assert_int_equal(v, s[i].value);
    }
    u64 v;
    assert_false(str_to_u64((struct str){"1\0" "2", 3}, &v));
    assert_true(str_to_u64((struct str){"12345", 2}, &v) && v == 12);
}

static void fractions(void **state) {
    (void)state;
    static const struct { const char *text; bool ok; f64 value; } f[] = {
        {"0.8", true, 0.8},   {"-1e-3", true, -1e-3}, {"+2", true, 2},     {".5", true, 0.5},   {"5.", true, 5},
        {"1E5", true, 1e5},   {"1e400", false, 0},    {"", false, 0},      {" 1", false, 0},    {"1 ", false, 0},
        {"inf", false, 0},    {"nan", false, 0},      {"0x10", false, 0},  {"1e", false, 0},    {"1,5", false, 0},
        {".", false, 0},      {"e5", false, 0},       {"1-1", false, 0},   {"-", false, 0},
    };
    for (u32 i = 0; i < ARRAY_LEN(f); i++) {
        f64 v = 0;
        assert_int_equal(str_to_f64(str_of(f[i].text), &v), f[i].ok);
        if (f[i].ok)
            assert_true(v == f[i].value);
    }
    f64 v;
    assert_false(str_to_f64((struct str){"1\0", 2}, &v));
    assert_true(str_to_f64((struct str){"1.25xyz", 4}, &v) && v == 1.25);
}

/* Table 3-7 of the Unicode standard: first byte, then the range of the second; the rest are 80..BF. */
static u32 length_by_standard(const u8 *b, size_t n) {
    static const struct { u8 first_low, first_high, second_low, second_high; u32 length; } rows[] = {
        {0xc2, 0xdf, 0x80, 0xbf, 2}, {0xe0, 0xe0, 0xa0, 0xbf, 3}, {0xe1, 0xec, 0x80, 0xbf, 3}, {0xed, 0xed, 0x80, 0x9f, 3},
        {0xee, 0xef, 0x80, 0xbf, 3}, {0xf0, 0xf0, 0x90, 0xbf, 4}, {0xf1, 0xf3, 0x80, 0xbf, 4}, {0xf4, 0xf4, 0x80, 0x8f, 4},
    };
    if (n && b[0] < 0x80)
        return 1;
    for (u32 i = 0; i < ARRAY_LEN(rows); i++) {
        if (n < rows[i].length || b[0] < rows[i].first_low || b[0] > rows[i].first_high)
            continue;
        bool ok = b[1] >= rows[i].second_low && b[1] <= rows[i].second_high;
        for (u32 k = 2; k < rows[i].length; k++)
            ok = ok && (b[k] & 0xc0) == 0x80;
        return ok ? rows[i].length : 0;
    }
    return 0;
}

/* Goal: decode takes exactly the well-formed sequences. Method: all first two bytes, with third and fourth
 * bytes at the borders of their ranges, at all cuts. */
static void decode_follows_the_standard(void **state) {
    (void)state;
    static const u8 rest[] = {0x00, 0x41, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xff};
    for (u32 two = 0; two < 65536; two++) {
        for (u32 r = 0; r < ARRAY_LEN(rest) * ARRAY_LEN(rest); r++) {
            u8 b[4] = {(u8)(two >> 8), (u8)two, rest[r % ARRAY_LEN(rest)], rest[r / ARRAY_LEN(rest)]};
            u32 c = 0;
            for (size_t n = 0; n <= 4; n++) {
                u32 want = length_by_standard(b, n);
                if (utf8_decode((struct str){(const char *)b, n}, 0, &c) != want)
                    fail_msg("%02x %02x %02x %02x of length %zu", b[0], b[1], b[2], b[3], n);
            }
        }
    }
    u32 c;
    assert_int_equal(utf8_decode(STR("a"), 1, &c), 0);
    assert_int_equal(utf8_decode(STR_NONE, 0, &c), 0);
}

/* Goal: encode and decode are inverse for all scalar values. */
static void encode_is_inverse(void **state) {
    (void)state;
    for (u32 c = 0; c <= 0x10ffff; c++) {
        if (c == 0xd800)
            c = 0xe000;
        char b[4];
        u32 n = utf8_encode(c, b), back = 0;
        assert_int_equal(utf8_decode((struct str){b, n}, 0, &back), n);
        assert_int_equal(back, c);
    }
}

static void valid_length(void **state) {
    (void)state;
    assert_int_equal(utf8_valid_len(STR("")), 0);
    assert_int_equal(utf8_valid_len(STR("a\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80")), 10);
    assert_int_equal(utf8_valid_len(STR("ab\xff""c")), 2);
    assert_int_equal(utf8_valid_len(STR("ab\xe2\x82")), 2);
}

/* Goal: complete_len holds back exactly the starts of characters that can still be completed. Method: for all
 * three-byte ends, whether some continuation makes the tail well-formed is found by trying them. */
static bool can_be_completed(const u8 *tail, size_t n) {
    static const u8 next[] = {0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf};
    u8 b[4] = {0};
    memcpy(b, tail, n);
    for (u32 i = 0; i < 6 * 6 * 6; i++) {
        u32 digits = i;
        for (size_t k = n; k < 4; k++, digits /= 6)
            b[k] = next[digits % 6];
        if (length_by_standard(b, 4) > n)
            return true;
    }
    return false;
}

static void complete_length(void **state) {
    (void)state;
    static const u8 first[] = {0x41, 0x80, 0xbf, 0xc1, 0xc2, 0xdf, 0xe0, 0xe1, 0xed, 0xef, 0xf0, 0xf1, 0xf4, 0xf5, 0xff};
    for (u32 f = 0; f < ARRAY_LEN(first); f++) {
        for (u32 two = 0; two < 65536; two += two % 256 == 0 ? 1 : 3) {
            u8 b[5] = {'x', 'y', first[f], (u8)(two >> 8), (u8)two};
            size_t want = 5;
            for (size_t back = 3; back >= 1; back--)
                if (can_be_completed(b + 5 - back, back))
                    want = MIN(want, 5 - back);
            if (utf8_complete_len((struct str){(const char *)b, 5}) != want)
                fail_msg("%02x %02x %02x: not %zu", b[2], b[3], b[4], want);
        }
    }
    assert_int_equal(utf8_complete_len(STR("")), 0);
    assert_int_equal(utf8_complete_len(STR("\xf0\x9f\x98")), 0);
    assert_int_equal(utf8_complete_len(STR("\xf0\x9f\x98\x80")), 4);
    assert_int_equal(utf8_complete_len(STR("a\xe2")), 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(compare_and_cut),
        cmocka_unit_test(find),
        cmocka_unit_test(integers),
        cmocka_unit_test(fractions),
        cmocka_unit_test(decode_follows_the_standard),
        cmocka_unit_test(encode_is_inverse),
        cmocka_unit_test(valid_length),
        cmocka_unit_test(complete_length),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
