/* Percent decoding: every byte but NUL survives encoding and decoding; what is no escape is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>

#include "http/httpd_own.h"

static void every_byte(void **state) {
    (void)state;
    for (int upper = 0; upper < 2; upper++)
        for (int c = 1; c < 256; c++) {
            char text[16];
            size_t n = (size_t)snprintf(text, sizeof text, upper ? "a%%%02Xb" : "a%%%02xb", c);
            assert_true(percent_decode(text, &n));
            assert_int_equal(n, 3);
            assert_int_equal((u8)text[1], c);
        }
}

static void refused(void **state) {
    (void)state;
    static const char *const bad[] = {"%",   "%4",   "a%",  "a%4",   "%zz", "%4z",
                                      "%z4", "%%41", "%00", "a%00b", "%+1", "% 1"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        char text[16];
        size_t n = (size_t)snprintf(text, sizeof text, "%s", bad[i]);
        if (percent_decode(text, &n))
            fail_msg("%s was taken", bad[i]);
    }
    char nul[] = "a\0b";
    size_t n = 3;
    assert_false(percent_decode(nul, &n));
}

static void plain(void **state) {
    (void)state;
    char text[] = "/api/chat+x~\xc3\xa4";
    size_t n = strlen(text);
    assert_true(percent_decode(text, &n));
    assert_int_equal(n, sizeof text - 1);
    n = 0;
    assert_true(percent_decode(text, &n));
    assert_int_equal(n, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_byte), cmocka_unit_test(refused),
                                       cmocka_unit_test(plain)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
