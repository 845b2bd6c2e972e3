/* Sizes, counts, times, durations and tables against values written down from Ollama's command line. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>

#include "cli/human.h"

#define SECOND 1000000000ll
#define HOUR (3600 * SECOND)
#define DAY (24 * HOUR)

static void sizes(void **state) {
    (void)state;
    static const struct {
        u64 v;
        const char *text;
    } cases[] = {
        {0, "0 B"},           {999, "999 B"},         {1000, "1 KB"},         {1500, "1.5 KB"},
        {9999, "10.0 KB"},    {10000, "10 KB"},       {10999, "10 KB"},       {91000000, "91 MB"},
        {1000000000, "1 GB"}, {4700000000, "4.7 GB"}, {42999999999, "42 GB"}, {1200000000000, "1.2 TB"}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char out[HUMAN_BYTES];
        human_bytes(cases[i].v, out);
        assert_string_equal(out, cases[i].text);
    }
}

static void counts(void **state) {
    (void)state;
    static const struct {
        u64 v;
        const char *text;
    } cases[] = {{0, "0"},
                 {999, "999"},
                 {1000, "1K"},
                 {22400, "22K"},
                 {137022720, "137.02M"},
                 {270000000, "270M"},
                 {1235814432, "1.2B"},
                 {8000000000, "8B"},
                 {8030261248, "8.0B"}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char out[HUMAN_BYTES];
        human_count(cases[i].v, out);
        assert_string_equal(out, cases[i].text);
    }
}

static void times(void **state) {
    (void)state;
    static const struct {
        i64 distance;
        const char *text;
    } cases[] = {{0, "Less than a second ago"},
                 {SECOND, "1 second ago"},
                 {59 * SECOND, "59 seconds ago"},
                 {60 * SECOND, "About a minute ago"},
                 {119 * SECOND, "About a minute ago"},
                 {120 * SECOND, "2 minutes ago"},
                 {HOUR - SECOND, "59 minutes ago"},
                 {HOUR, "About an hour ago"},
                 {89 * 60 * SECOND, "About an hour ago"},
                 {90 * 60 * SECOND, "2 hours ago"},
                 {47 * HOUR, "47 hours ago"},
                 {2 * DAY, "2 days ago"},
                 {13 * DAY, "13 days ago"},
                 {14 * DAY, "2 weeks ago"},
                 {59 * DAY, "8 weeks ago"},
                 {60 * DAY, "2 months ago"},
                 {729 * DAY, "24 months ago"},
                 {730 * DAY, "2 years ago"},
                 {-290 * SECOND, "4 minutes from now"},
                 {-20 * 365 * DAY, "20 years from now"},
                 {-21 * 365 * DAY, "Forever"}};
    const i64 now = 1800000000 * SECOND;
    char out[HUMAN_BYTES];
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        human_time(now - cases[i].distance, now, out);
        assert_string_equal(out, cases[i].text);
    }
    human_time(0, now, out);
    assert_string_equal(out, "Never");
    human_time(INT64_MAX, now, out);
    assert_string_equal(out, "Forever");
    human_time(INT64_MIN, now, out);
    assert_non_null(strstr(out, " ago"));
}

static void durations(void **state) {
    (void)state;
    static const struct {
        i64 v;
        const char *text;
    } cases[] = {{0, "0s"},
                 {1, "1ns"},
                 {999, "999ns"},
                 {1000, "1\u00b5s"},
                 {1200, "1.2\u00b5s"},
                 {2500000, "2.5ms"},
                 {345600000, "345.6ms"},
                 {SECOND, "1s"},
                 {1234567890, "1.23456789s"},
                 {62500000000, "1m2.5s"},
                 {60 * SECOND, "1m0s"},
                 {HOUR, "1h0m0s"},
                 {HOUR + 62 * SECOND, "1h1m2s"},
                 {-1500000000, "-1.5s"},
                 {999999999, "999.999999ms"}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char out[HUMAN_BYTES];
        human_duration(cases[i].v, out);
        assert_string_equal(out, cases[i].text);
    }
}

static void stamps(void **state) {
    (void)state;
    static const struct {
        const char *text;
        i64 ns;
    } cases[] = {{"1970-01-01T00:00:00Z", 0},
                 {"1970-01-01T00:00:01.5Z", 1500000000},
                 {"1970-01-01T01:00:00+01:00", 0},
                 {"1969-12-31T19:00:00-05:00", 0},
                 {"2026-01-02T03:04:05.678901234Z", 1767323045678901234}};
    i64 ns;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        assert_true(rfc3339_parse(str_of(cases[i].text), &ns));
        assert_int_equal(ns, cases[i].ns);
    }
    assert_true(rfc3339_parse(STR("2345-01-01T00:00:00Z"), &ns));
    assert_true(ns == INT64_MAX);
    static const char *const bad[] = {"",
                                      "2026",
                                      "2026-01-02 03:04:05",
                                      "2026-01-02T03:04:05",
                                      "2026-01-02T03:04:05+1",
                                      "x026-01-02T03:04:05Z",
                                      "2026-01-02T03:04:05.5",
                                      "2026-01-02T03:04:05+01:0x"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        if (rfc3339_parse(str_of(bad[i]), &ns))
            fail_msg("%s was taken", bad[i]);
}

static void columns(void **state) {
    (void)state;
    assert_int_equal(str_columns(STR("abc")), 3);
    assert_int_equal(str_columns(STR("\u00e4\u4f60\U0001f600")), 5);
    assert_int_equal(str_columns(STR("e\u0301")), 1);
    assert_int_equal(str_columns(STR("\xff\xfe")), 2);
}

static char *printed(const struct table *t) {
    char *text = NULL;
    size_t n;
    FILE *f = open_memstream(&text, &n);
    table_print(t, f);
    fclose(f);
    return text;
}

static void tables(void **state) {
    (void)state;
    struct table t = {0};
    table_row(&t);
    table_cell(&t, STR("NAME"));
    table_cell(&t, STR("ID"));
    table_row(&t);
    table_cell(&t, STR("\u4f60\u597d\u4f60"));
    table_cell(&t, STR("x"));
    table_row(&t);
    table_cell(&t, STR("only"));
    char *text = printed(&t);
    assert_string_equal(text, "NAME      ID    \n\u4f60\u597d\u4f60    x     \nonly      \n");
    free(text);
    table_release(&t);
    table_wrapped_row(&t, STR("k"), STR("one two three four"), 9);
    table_wrapped_row(&t, STR("k"), STR("unbreakable"), 4);
    table_wrapped_row(&t, STR("k"), STR(""), 4);
    text = printed(&t);
    assert_string_equal(text, "k    one two    \n     three      \n     four       \n"
                              "k    unbr       \n     eaka       \n     ble        \nk               \n");
    free(text);
    table_release(&t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes),     cmocka_unit_test(counts), cmocka_unit_test(times),
        cmocka_unit_test(durations), cmocka_unit_test(stamps), cmocka_unit_test(columns),
        cmocka_unit_test(tables),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
