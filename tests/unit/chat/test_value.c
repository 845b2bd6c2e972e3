/* Values and their JSON: order, lookups, numbers, strictness, limits. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/limit.h"
#include "chat/value.h"

static enum status parse(struct arena *a, const char *text, struct value *out, struct err *err) {
    return value_parse_json(a, str_of(text), out, err);
}

/* Goal: what is read is written as Python's json.dumps(json.loads(x), ensure_ascii=False) writes it. */
static void test_round_trip(void **state) {
    static const struct {
        const char *in, *out;
    } cases[] = {
        {"{\"b\":1,\"a\":[true,false,null,-0.5e3,\"x\\u0041\\n\\u00e9\"]}",
         "{\"b\": 1, \"a\": [true, false, null, -500.0, \"xA\\n\xc3\xa9\"]}"},
        {" [ ] ", "[]"},
        {"{}", "{}"},
        {"-0", "0"},
        {"1e400", "Infinity"},
        {"0.1", "0.1"},
        {"1e16", "1e+16"},
        {"123456.789", "123456.789"},
        {"1E-5", "1e-05"},
        {"0.0001", "0.0001"},
        {"100000000000000000000", "1e+20"},
        {"9223372036854775807", "9223372036854775807"},
        {"-9223372036854775808", "-9223372036854775808"},
        {"{\"a\":1,\"b\":2,\"a\":3}", "{\"a\": 3, \"b\": 2}"},
        {"\"\\ud83d\\ude00\"", "\"\xf0\x9f\x98\x80\""},
        {"\"\\ud83d\"", "\"\xef\xbf\xbd\""},
        {"\"\\ud83dx\\ude00\"", "\"\xef\xbf\xbdx\xef\xbf\xbd\""},
        {"\"\\ud83d\\u0041\"", "\"\xef\xbf\xbd"
                               "A\""},
        {"\"\\u0000\\u001f\\/\\b\\f\\t\\r\\\\\\\"\"", "\"\\u0000\\u001f/\\b\\f\\t\\r\\\\\\\"\""},
        {"\"\x7f<&>\"", "\"\x7f<&>\""},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct arena a;
        struct value v;
        struct err err = {0};
        struct buf b = {0};
        arena_init(&a, 0);
        if (parse(&a, cases[i].in, &v, &err) != OK)
            fail_msg("%s: %s", cases[i].in, err.text);
        value_to_json(&b, &v, -1);
        assert_string_equal(buf_cstr(&b), cases[i].out);
        buf_release(&b);
        arena_release(&a);
    }
}

/* Goal: everything that RFC 8259 forbids is refused with its place. */
static void test_refused(void **state) {
    static const char *const cases[] = {
        "",
        " ",
        "[1,2,]",
        "{\"a\":1,}",
        "{a:1}",
        "{'a':1}",
        "[01]",
        "[+1]",
        "[1.]",
        "[.5]",
        "[1e]",
        "[NaN]",
        "[Infinity]",
        "nul",
        "[1] x",
        "\"a",
        "\"\n\"",
        "\"\\x\"",
        "\"\\u12\"",
        "\"\\u12g4\"",
        "[1 2]",
        "{\"a\" 1}",
        "{\"a\":1 \"b\":2}",
        "\"\xc0\xaf\"",
        "\"\xed\xa0\x80\"",
        "\"\xff\"",
        "[",
        "{",
        "-",
        "--1",
        "\"\\",
        "{\"a\"",
        "{1:2}",
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct arena a;
        struct value v;
        struct err err = {0};
        arena_init(&a, 0);
        if (parse(&a, cases[i], &v, &err) != ERR_INVALID)
            fail_msg("accepted: %s", cases[i]);
        assert_non_null(strstr(err.text, "line "));
        arena_release(&a);
    }
    struct arena a;
    struct value v;
    struct err err;
    arena_init(&a, 0);
    assert_int_equal(parse(&a, "[1,\n  2,\n  x]", &v, &err), ERR_INVALID);
    assert_non_null(strstr(err.text, "line 3 column 3"));
    arena_release(&a);
}

/* Goal: depth and memory are bounded, by a status. */
static void test_limits(void **state) {
    struct arena a;
    struct value v;
    struct err err;
    struct buf deep = {0};
    (void)state;
    for (u32 n = LIMIT_JSON_DEPTH; n <= LIMIT_JSON_DEPTH + 1; n++) {
        buf_clear(&deep);
        for (u32 i = 0; i < n; i++)
            buf_add_char(&deep, '[');
        for (u32 i = 0; i < n; i++)
            buf_add_char(&deep, ']');
        arena_init(&a, 0);
        assert_int_equal(value_parse_json(&a, buf_str(&deep), &v, &err),
                         n > LIMIT_JSON_DEPTH ? ERR_INVALID : OK);
        arena_release(&a);
    }
    buf_clear(&deep);
    buf_add_char(&deep, '[');
    for (u32 i = 0; i < 100000; i++)
        buf_add(&deep, "0,", 2);
    buf_add(&deep, "0]", 2);
    arena_init(&a, 1 << 20);
    assert_int_equal(value_parse_json(&a, buf_str(&deep), &v, &err), ERR_TOO_LARGE);
    assert_true(a.used_bytes <= 1 << 20);
    arena_release(&a);
    buf_release(&deep);
}

/* Goal: objects of any size keep their order and find each key; replacing keeps the place. */
static void test_object(void **state) {
    struct arena a;
    struct value o, v;
    struct str key;
    (void)state;
    arena_init(&a, 0);
    o = value_object(&a);
    for (i64 i = 0; i < 3000; i++)
        value_set(&a, &o, arena_printf(&a, "k%lld", (long long)i), value_int(i));
    for (i64 i = 0; i < 3000; i += 7)
        value_set(&a, &o, arena_printf(&a, "k%lld", (long long)i), value_int(-i));
    assert_int_equal(value_object_len(&o), 3000);
    for (u32 i = 0; i < 3000; i++) {
        value_member_at(&o, i, &key, &v);
        assert_true(str_eq(key, arena_printf(&a, "k%u", i)));
        assert_true(v.i == (i % 7 ? (i64)i : -(i64)i));
        assert_true(value_get(&o, key).i == v.i);
    }
    assert_int_equal(value_get(&o, STR("k3000")).kind, VALUE_UNDEFINED);
    v = value_int(1);
    assert_int_equal(value_get(&v, STR("x")).kind, VALUE_UNDEFINED);
    arena_release(&a);
}

/* Goal: keys compare as Python's do: 1, 1.0 and True are one; None and tuples are keys. */
static void test_keys(void **state) {
    struct arena a;
    struct value o, out, tuple = value_list(), one = value_int(1), real = {.kind = VALUE_FLOAT, .f = 1.0},
                         yes = value_bool(true), none = {.kind = VALUE_NONE};
    (void)state;
    arena_init(&a, 0);
    o = value_object(&a);
    value_append(&a, &tuple, one);
    for (i64 i = 10; i < 30; i++) /* beyond the linear search */
        assert_true(value_try_set_key(&a, &o, value_int(i), value_int(i)));
    assert_true(value_try_set_key(&a, &o, one, value_int(100)));
    assert_true(value_try_set_key(&a, &o, real, value_int(101)));
    assert_true(value_try_set_key(&a, &o, none, value_int(102)));
    assert_true(value_try_set_key(&a, &o, tuple, value_int(103)));
    assert_int_equal(value_object_len(&o), 23);
    assert_true(value_get_key(&o, &yes, &out) && out.i == 101);
    assert_true(value_get_key(&o, &none, &out) && out.i == 102);
    assert_true(value_get_key(&o, &tuple, &out) && out.i == 103);
    arena_release(&a);
}

/* Goal: indentation as json.dumps(indent=n), Go's compact form, sorted keys, ASCII. */
static void test_styles(void **state) {
    struct arena a;
    struct value v;
    struct err err;
    struct buf b = {0};
    (void)state;
    arena_init(&a, 0);
    assert_int_equal(parse(&a, "{\"b\":[1,{}],\"a\":\"<\xc3\xa9\xf0\x9f\x98\x80\xe2\x80\xa8>\"}", &v, &err),
                     OK);
    value_to_json(&b, &v, 2);
    assert_string_equal(
        buf_cstr(&b),
        "{\n  \"b\": [\n    1,\n    {}\n  ],\n  \"a\": \"<\xc3\xa9\xf0\x9f\x98\x80\xe2\x80\xa8>\"\n}");
    buf_clear(&b);
    struct json_style go = {.comma = STR(","), .colon = STR(":"), .go = true, .limit_bytes = 1000};
    assert_int_equal(value_write_json(&b, &v, &go, &err), OK);
    assert_string_equal(buf_cstr(&b),
                        "{\"a\":\"\\u003c\xc3\xa9\xf0\x9f\x98\x80\\u2028\\u003e\",\"b\":[1,{}]}");
    buf_clear(&b);
    struct json_style ascii = {
        .comma = STR(","), .colon = STR(":"), .ascii = true, .sort_keys = true, .limit_bytes = 1000};
    assert_int_equal(value_write_json(&b, &v, &ascii, &err), OK);
    assert_string_equal(buf_cstr(&b), "{\"a\":\"<\\u00e9\\ud83d\\ude00\\u2028>\",\"b\":[1,{}]}");
    buf_clear(&b);
    go.limit_bytes = 10;
    assert_int_equal(value_write_json(&b, &v, &go, &err), ERR_TOO_LARGE);
    assert_true(b.n <= 10);
    buf_clear(&b);
    struct value nothing = {0};
    value_to_json(&b, &nothing, -1);
    assert_string_equal(buf_cstr(&b), "null");
    buf_release(&b);
    arena_release(&a);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_round_trip), cmocka_unit_test(test_refused),
                                       cmocka_unit_test(test_limits),     cmocka_unit_test(test_object),
                                       cmocka_unit_test(test_keys),       cmocka_unit_test(test_styles)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
