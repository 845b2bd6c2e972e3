/* The line of a bar: its look, its width in every terminal, its rate. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "cli/bars.h"
#include "cli/human.h"

static const char *line(const struct bar *b, u64 now_ns, u32 columns) {
    static char text[2048];
    bar_text(b, now_ns, columns, text, sizeof text);
    return text;
}

static void looks(void **state) {
    (void)state;
    struct bar b = {.status = "pulling 8eeb52dfb3bb", .total = 1100000000, .completed = 500000000};
    b.marks[0].completed = 380000000;
    b.n_marks = 1;
    const u64 second_ns = 1000000000;
    assert_string_equal(line(&b, 10 * second_ns, 80),
                        "pulling 8eeb52dfb3bb:  45% ▕████████          ▏ 500 MB/1.1 GB   12 MB/s     50s");
    b.completed = 380000000; /* nothing came: no rate, no guess */
    assert_string_equal(line(&b, 10 * second_ns, 80),
                        "pulling 8eeb52dfb3bb:  34% ▕██████            ▏ 380 MB/1.1 GB                  ");
    b.completed = b.total;
    b.stop_ns = 1;
    assert_string_equal(line(&b, 10 * second_ns, 80),
                        "pulling 8eeb52dfb3bb: 100% ▕██████████████████▏ 1.1 GB                         ");
    struct bar step = {.status = "pulling manifest"};
    assert_string_equal(line(&step, 0, 80), "pulling manifest");
    assert_string_equal(line(&step, 0, 7), "pulling");
}

/* Goal: no line is wider than the terminal, whatever the numbers; a wider one would break the redrawing. */
static void fits(void **state) {
    (void)state;
    static const u64 sizes[] = {0,       1,         999,       1000,       999999,
                                1000000, 123456789, 999999999, 1000000000, 15ull << 40};
    for (u32 columns = 1; columns <= 300; columns++)
        for (size_t i = 0; i < ARRAY_LEN(sizes); i++)
            for (size_t k = 0; k <= i; k++)
                for (u64 seconds = 0; seconds < 3; seconds++) {
                    struct bar b = {
                        .status = "pulling 8eeb52dfb3bb", .total = sizes[i], .completed = sizes[k]};
                    b.n_marks = 1;
                    const char *text = line(&b, seconds * 100 * 1000000000ull, columns);
                    assert_true(str_columns(str_of(text)) <= MAX(columns, 27));
                }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(looks), cmocka_unit_test(fits)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
