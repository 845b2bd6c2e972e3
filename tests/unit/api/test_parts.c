/* The parts that need no server: bodies, durations, options, origins and hosts, times, quotes, names. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <cmocka.h>

#include "api/call.h"
#include "base/limit.h"

/* --- bodies --- */

/* Goal: what Go's decoder accepts and jansson does not. Method: text in, the member "a" as text out. */
static void body_accepted(void **state) {
    (void)state;
    static const struct {
        const char *in, *a;
    } cases[] = {
        {"{\"a\":\"x\"}", "x"},
        {" \n\t{\"a\":\"x\"} rest", "x"},
        {"{\"a\":\"x\"}{\"a\":\"y\"}", "x"},
        {"{\"a\":\"x\",\"a\":\"y\"}", "y"},
        {"{\"a\":\"\\ud800\"}", "\xef\xbf\xbd"},
        {"{\"a\":\"\\udfff\\ud800\"}", "\xef\xbf\xbd\xef\xbf\xbd"},
        {"{\"a\":\"\\uD83D\\uDE00\"}", "\xf0\x9f\x98\x80"},
        {"{\"a\":\"\\ud83d\\u0041\"}", "\xef\xbf\xbd"
                                       "A"},
        {"{\"a\":\"\\\\ud800\"}", "\\ud800"},
        {"{\"a\":\"x\xff\xc0\xaf\"}", "x\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},
        {"{\"a\":\"\xed\xa0\x80\"}", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},
        {"{\"a\":\"\\\"}\"}", "\"}"},
        {"{\"b\":[[[]]],\"a\":\"]}\"}", "]}"},
        {"{\"a\":\"\xe2\x82\xac\"}", "\xe2\x82\xac"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        json_t *root;
        struct err err;
        if (body_parse(str_of(cases[i].in), &root, &err) != OK)
            fail_msg("%s: %s", cases[i].in, err.text);
        assert_string_equal(json_string_value(json_object_get(root, "a")), cases[i].a);
        json_decref(root);
    }
}

static void body_refused(void **state) {
    (void)state;
    static const struct {
        const char *in, *text;
    } cases[] = {
        {"", "missing request body"},
        {" \r\n\t", "missing request body"},
        {"{", "unexpected EOF"},
        {"{\"a\":", "unexpected EOF"},
        {"{\"a\":\"x", "unexpected EOF"},
        {"{'a':1}", "invalid JSON"},
        {"{\"a\":01}", "invalid JSON"},
        {"{\"a\":+1}", "invalid JSON"},
        {"{\"a\":NaN}", "invalid JSON"},
        {"[1,2,]", "invalid JSON"},
        {"{\"a\":1,}", "invalid JSON"},
        {"{\"a\":\"\n\"}", "invalid JSON"},
        {"{\"a\":\"\\x\"}", "invalid JSON"},
        {"{\"a\":\"\\u12\"}", "invalid JSON"},
        {"{\"a\":1e999}", "invalid JSON"},
        {"{a:1}", "invalid JSON"},
        {"tru", "invalid JSON"},
        {"\xef\xbb\xbf{}", "invalid JSON"},
        {"{\"a\\u0000b\":1}", "invalid JSON"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        json_t *root;
        struct err err;
        if (body_parse(str_of(cases[i].in), &root, &err) != ERR_INVALID || !strstr(err.text, cases[i].text))
            fail_msg("%s: %s", cases[i].in, err.text);
    }
}

/* Goal: depth and number of values are bounded, at the limit and one above. */
static void body_limits(void **state) {
    (void)state;
    struct buf b = {0};
    json_t *root;
    struct err err;
    for (u32 over = 0; over < 2; over++) {
        buf_clear(&b);
        for (u32 i = 0; i < LIMIT_JSON_DEPTH + over; i++)
            buf_add_char(&b, '[');
        for (u32 i = 0; i < LIMIT_JSON_DEPTH + over; i++)
            buf_add_char(&b, ']');
        assert_int_equal(body_parse(buf_str(&b), &root, &err), over ? ERR_INVALID : OK);
        json_decref(root);
        buf_clear(&b);
        buf_add_str(&b, STR("[1"));
        for (u32 i = 2; i < LIMIT_JSON_VALUES + 1 + over; i++)
            buf_add(&b, ",1", 2);
        buf_add(&b, "]", 1);
        assert_int_equal(body_parse(buf_str(&b), &root, &err), over ? ERR_INVALID : OK);
        json_decref(root);
    }
    buf_release(&b);
}

/* Goal: numbers keep their values. Method: parse and write again. */
static void body_numbers(void **state) {
    (void)state;
    static const char *const same[] = {
        "[9223372036854775807,-9223372036854775808,0,-0.5]", "[0.1,1e+30,1.7976931348623157e+308]",
        "{\"b\":{},\"a\":[],\"c\":[null,true,false,\"\\u003c\"]}", "\"x\"", "3"};
    for (size_t i = 0; i < ARRAY_LEN(same); i++) {
        json_t *root;
        struct err err;
        struct buf b = {0};
        assert_int_equal(body_parse(str_of(same[i]), &root, &err), OK);
        json_write(&b, root);
        assert_string_equal(buf_cstr(&b), same[i]);
        buf_release(&b);
        json_decref(root);
    }
}

/* --- keep_alive --- */

static void durations(void **state) {
    (void)state;
    static const struct {
        const char *text;
        bool number;
        i64 ns;
    } good[] = {
        {"0", true, 0},
        {"-1", true, -1},
        {"1.5", true, 1500000000},
        {"-0.001", true, -1},
        {"1e300", true, INT64_MAX},
        {"0", false, 0},
        {"+0", false, 0},
        {"-0", false, 0},
        {"5m", false, 300000000000},
        {"1h30m", false, 5400000000000},
        {"1.5h", false, 5400000000000},
        {".5s", false, 500000000},
        {"1.s", false, 1000000000},
        {"-1s", false, -1},
        {"+2ms", false, 2000000},
        {"3us", false, 3000},
        {"3\xc2\xb5s", false, 3000},
        {"3\xce\xbcs", false, 3000},
        {"7ns", false, 7},
        {"0s", false, 0},
        {"-0s", false, 0},
        {"9999999999999h", false, INT64_MAX},
        {"1h1m1s1ms1us1ns", false, 3661001001001},
    };
    static const struct {
        const char *text;
        bool number;
        const char *error;
    } bad[] = {
        {"", false, "invalid duration"},
        {"24", false, "missing unit"},
        {"1x", false, "unknown unit"},
        {"s", false, "invalid duration"},
        {".s", false, "invalid duration"},
        {"-", false, "invalid duration"},
        {"+", false, "invalid duration"},
        {"1h 2m", false, "unknown unit"},
        {"1s2", false, "missing unit"},
        {"abc", false, "invalid duration"},
        {"5 m", false, "unknown unit"},
        {"x", true, "no number"},
        {"", true, "no number"},
        {"1M", false, "unknown unit"},
        {"--1s", false, "invalid duration"},
    };
    i64 ns;
    struct err err;
    for (size_t i = 0; i < ARRAY_LEN(good); i++) {
        if (api_keep_alive(str_of(good[i].text), good[i].number, &ns, &err) != OK || ns != good[i].ns)
            fail_msg("%s gave %lld", good[i].text, (long long)ns);
    }
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        if (api_keep_alive(str_of(bad[i].text), bad[i].number, &ns, &err) != ERR_INVALID ||
            !strstr(err.text, bad[i].error))
            fail_msg("%s: %s", bad[i].text, err.text);
}

/* --- options --- */

static void apply(struct options *o, const char *json, struct arena *a) {
    struct err err;
    json_t *root = json_loads(json, 0, NULL);
    assert_non_null(root);
    assert_int_equal(options_apply(o, root, a, &err), OK);
    json_decref(root);
}

/* Goal: the defaults are the reference's, later values win, resolved values keep the bounds. */
static void options_values(void **state) {
    (void)state;
    struct arena a;
    struct options o;
    struct gen_request r, fresh;
    arena_init(&a, 0);
    gen_request_init(&r);
    gen_request_init(&fresh);
    options_init(&o);
    options_resolve(&o, 4096, 0, &r);
    /* The neutral request's own defaults are the same ones, but for the seed. */
    assert_int_equal(r.num_ctx, fresh.num_ctx);
    assert_int_equal(r.num_predict, fresh.num_predict);
    assert_int_equal(r.num_keep, fresh.num_keep);
    r.sampling.seed = fresh.sampling.seed;
    assert_memory_equal(&r.sampling, &fresh.sampling, sizeof r.sampling);
    apply(&o, "{\"seed\":1,\"top_k\":7.9,\"stop\":[\"a\"],\"top_p\":1}", &a);
    apply(&o, "{\"seed\":null,\"stop\":[],\"Top_K\":3,\"num_ctx\":-5,\"repeat_last_n\":-9}", &a);
    options_resolve(&o, 4096, 8192, &r);
    assert_int_equal(r.sampling.seed, 1);
    assert_int_equal(r.sampling.top_k, 7); /* option names are exact */
    assert_int_equal(r.n_stop, 0);
    assert_int_equal(r.num_ctx, 4);
    assert_int_equal(r.sampling.repeat_last_n, 4);
    apply(&o, "{\"num_ctx\":100000,\"num_predict\":-2}", &a);
    options_resolve(&o, 4096, 8192, &r);
    assert_int_equal(r.num_ctx, 8192);
    assert_int_equal(r.num_predict, 81920);
    options_resolve(&o, 4096, 0, &r);
    assert_int_equal(r.num_ctx, 100000);
    apply(&o, "{\"num_ctx\":100000000}", &a);
    options_resolve(&o, 4096, 0, &r);
    assert_int_equal(r.num_ctx, LIMIT_NUM_CTX);
    /* Seeds that are not given differ from request to request. */
    apply(&o, "{\"seed\":-1}", &a);
    u64 first, second;
    options_resolve(&o, 4096, 0, &r), first = r.sampling.seed;
    options_resolve(&o, 4096, 0, &r), second = r.sampling.seed;
    assert_true(first != second);
    arena_release(&a);
}

static void options_stops(void **state) {
    (void)state;
    struct arena a;
    struct options o;
    struct err err;
    arena_init(&a, 0);
    options_init(&o);
    json_t *list = json_array();
    for (u32 i = 0; i < LIMIT_STOPS; i++)
        json_array_append_new(list, json_string("x"));
    assert_int_equal(options_stop(&o, list, &a, &err), OK);
    json_array_append_new(list, json_string("x"));
    assert_int_equal(options_stop(&o, list, &a, &err), ERR_INVALID);
    json_array_clear(list);
    char *text = xcalloc(1, LIMIT_STOP_BYTES + 2);
    memset(text, 'x', LIMIT_STOP_BYTES);
    json_array_append_new(list, json_string(text));
    assert_int_equal(options_stop(&o, list, &a, &err), OK);
    text[LIMIT_STOP_BYTES] = 'x';
    json_array_append_new(list, json_string(text));
    assert_int_equal(options_stop(&o, list, &a, &err), ERR_INVALID);
    free(text);
    json_decref(list);
    arena_release(&a);
}

/* --- origins and hosts --- */

static void origins(void **state) {
    (void)state;
    struct arena a;
    struct origins o;
    arena_init(&a, 0);
    origins_init(&o, STR(" https://Site.example ,,http://*.wild.example:8080,bad*with*two,"), &a);
    static const char *const allowed[] = {"http://localhost",
                                          "https://localhost:1",
                                          "http://127.0.0.1:65535",
                                          "https://0.0.0.0",
                                          "app://x",
                                          "file://",
                                          "tauri://localhost",
                                          "vscode-file://a",
                                          "https://site.example",
                                          "http://a.b.wild.example:8080"};
    static const char *const refused[] = {"http://site.example",
                                          "https://site.example:1",
                                          "http://localhost.evil",
                                          "null",
                                          "x",
                                          "http://wild.example:8080",
                                          "http://a.wild.example",
                                          "http://127.0.0.2",
                                          "badxwithxtwo",
                                          "https://localhos",
                                          "http://.wild.example"};
    for (size_t i = 0; i < ARRAY_LEN(allowed); i++)
        if (!origin_allowed(&o, str_of(allowed[i])))
            fail_msg("refused %s", allowed[i]);
    for (size_t i = 0; i < ARRAY_LEN(refused); i++)
        if (origin_allowed(&o, str_of(refused[i])))
            fail_msg("allowed %s", refused[i]);
    assert_false(o.all);
    origins_init(&o, STR("*"), &a);
    assert_true(o.all && origin_allowed(&o, STR("http://anything")));
    assert_true(origin_is_own(STR("http://h:1"), STR("h:1")) && origin_is_own(STR("https://h"), STR("h")));
    assert_false(origin_is_own(STR("http://h:1"), STR("h")) || origin_is_own(STR("ftp://h"), STR("h")));
    assert_false(origin_is_own(STR("http://"), STR_NONE));
    arena_release(&a);
}

static void hosts(void **state) {
    (void)state;
    static const struct {
        const char *host;
        enum host_kind kind;
    } cases[] = {
        {"", HOST_NAME},
        {"localhost", HOST_NAME},
        {"LOCALHOST:11434", HOST_NAME},
        {"a.localhost", HOST_NAME},
        {"printer.local:80", HOST_NAME},
        {"db.internal", HOST_NAME},
        {"127.0.0.1", HOST_ADDRESS},
        {"127.9.9.9:1", HOST_ADDRESS},
        {"10.1.2.3", HOST_ADDRESS},
        {"172.16.0.1", HOST_ADDRESS},
        {"172.31.255.1", HOST_ADDRESS},
        {"192.168.0.1", HOST_ADDRESS},
        {"0.0.0.0:80", HOST_ADDRESS},
        {"[::1]:80", HOST_ADDRESS},
        {"::1", HOST_ADDRESS},
        {"[fd00::1]", HOST_ADDRESS},
        {"[::]", HOST_ADDRESS},
        {"[::ffff:127.0.0.1]", HOST_ADDRESS},
        {"172.32.0.1", HOST_REFUSED},
        {"192.169.0.1", HOST_REFUSED},
        {"8.8.8.8:11434", HOST_REFUSED},
        {"[2001:db8::1]", HOST_REFUSED},
        {"evil.example", HOST_REFUSED},
        {"local", HOST_REFUSED},
        {"xlocal", HOST_REFUSED},
        {"127.0.0.1.evil", HOST_REFUSED},
        {"localhost.evil", HOST_REFUSED},
        {"[", HOST_REFUSED},
        {"a:b:c", HOST_REFUSED},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        if (host_check(str_of(cases[i].host)) != cases[i].kind)
            fail_msg("%s", cases[i].host);
    char long_name[400] = {0};
    memset(long_name, 'a', sizeof long_name - 1);
    assert_int_equal(host_check(str_of(long_name)), HOST_REFUSED);
}

/* --- text --- */

static void times(void **state) {
    (void)state;
    static const struct {
        i64 ns;
        const char *zone, *text;
        bool local;
    } cases[] = {
        {1700000000000000000, "UTC", "2023-11-14T22:13:20Z", false},
        {1700000000120000000, "UTC", "2023-11-14T22:13:20.12Z", false},
        {1700000000000000001, "UTC", "2023-11-14T22:13:20.000000001Z", false},
        {1700000000999999999, "XXX-05:30", "2023-11-15T03:43:20.999999999+05:30", true},
        {1700000000500000000, "XXX08", "2023-11-14T14:13:20.5-08:00", true},
        {1700000000500000000, "UTC", "2023-11-14T22:13:20.5Z", true},
        {1700000000500000000, "XXX08", "2023-11-14T22:13:20.5Z", false},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char out[TIME_TEXT_BYTES];
        setenv("TZ", cases[i].zone, 1);
        tzset();
        size_t n = time_text(out, cases[i].ns, cases[i].local);
        assert_int_equal(n, strlen(cases[i].text));
        assert_memory_equal(out, cases[i].text, n);
    }
}

static void quotes(void **state) {
    (void)state;
    struct buf b = {0};
    go_quote(&b, (struct str){"a\"\\\n\t\r\x01\0\x7f\xff\xc3\xa9", 12});
    assert_string_equal(buf_cstr(&b), "\"a\\\"\\\\\\n\\t\\r\\x01\\x00\\x7f\\xff\xc3\xa9\"");
    buf_clear(&b);
    json_escaped(&b, STR("{\"a\":\"<&>\"}"));
    assert_string_equal(buf_cstr(&b), "{\"a\":\"\\u003c\\u0026\\u003e\"}");
    buf_release(&b);
}

static void references(void **state) {
    (void)state;
    static const struct {
        const char *text;
        enum name_fault fault;
        const char *model, *tag;
    } cases[] = {
        {" m:t ", NAME_OK, "m", "t"},
        {"m:local", NAME_OK, "m", "latest"},
        {"m:t:LOCAL", NAME_OK, "m", "t"},
        {"m", NAME_OK, "m", "latest"},
        {"m:cloud", NAME_CLOUD, "m", "latest"},
        {"m:t-cloud", NAME_CLOUD, "m", "t"},
        {"m:t:cloud", NAME_CLOUD, "m", "t"},
        {"m-cloud", NAME_OK, "m-cloud", "latest"},
        {"", NAME_EMPTY, "", ""},
        {"\t ", NAME_EMPTY, "", ""},
        {"m:local:cloud", NAME_CONFLICT, "", ""},
        {"m:x-cloud:local", NAME_CONFLICT, "", ""},
        {":local", NAME_INVALID, "", ""},
        {"m::local", NAME_INVALID, "", ""},
        {"m:", NAME_INVALID, "", ""},
        {"m:-cloud", NAME_INVALID, "", ""},
        {"h:80/a/m-cloud", NAME_OK, "m-cloud", "latest"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct model_name n;
        struct err err;
        enum name_fault fault = model_ref_parse(str_of(cases[i].text), &n, &err);
        if (fault != cases[i].fault)
            fail_msg("\"%s\" gave %d", cases[i].text, fault);
        if (fault == NAME_OK || fault == NAME_CLOUD) {
            assert_string_equal(n.model, cases[i].model);
            assert_string_equal(n.tag, cases[i].tag);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(body_accepted), cmocka_unit_test(body_refused), cmocka_unit_test(body_limits),
        cmocka_unit_test(body_numbers),  cmocka_unit_test(durations),    cmocka_unit_test(options_values),
        cmocka_unit_test(options_stops), cmocka_unit_test(origins),      cmocka_unit_test(hosts),
        cmocka_unit_test(times),         cmocka_unit_test(quotes),       cmocka_unit_test(references),
    };
    return cmocka_run_group_tests_name("api_parts", tests, NULL, NULL);
}
