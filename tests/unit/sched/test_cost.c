/* The learned cost of a step, and rates. */
#include "sched_fixture.h"

#include "sched/internal.h"

/* Goal: from noisy steps of different sizes the line is found, and the sizes that follow from it. */
static void test_learns_line(void **state) {
    (void)state;
    struct scost c = {0};
    u64 random = 1;
    for (u32 i = 0; i < 500; i++) {
        u32 n = 1 + random_below(&random, 100);
        f64 noise = 0.9 + random_below(&random, 200) / 1000.0;
        scost_add(&c, n, (u64)((5e6 + n * 2e5) * noise));
    }
    assert_true(c.base_ns > 4e6 && c.base_ns < 6e6);
    assert_true(c.per_row_ns > 1.8e5 && c.per_row_ns < 2.2e5);
    assert_in_range(scost_rows_within(&c, 25e6), 90, 110);
    assert_in_range(scost_rows_efficient(&c), 200, 310);
}

/* Goal: before sizes differ the estimate still gives usable sizes, and it follows a change. */
static void test_one_size_and_change(void **state) {
    (void)state;
    struct scost c = {0};
    assert_int_equal(scost_rows_within(&c, 1e9), SLICE_MIN);
    assert_int_equal(scost_rows_efficient(&c), SLICE_MIN);
    for (u32 i = 0; i < 20; i++)
        scost_add(&c, 1, 10000000);
    assert_true(scost_step_ns(&c, 1) > 9.5e6 && scost_step_ns(&c, 1) < 10.5e6);
    assert_in_range(scost_rows_within(&c, 20e6), 5, 20);
    for (u32 i = 0; i < 300; i++)
        scost_add(&c, 1 + i % 32, 20000000 + (i % 32) * 1000000);
    assert_true(scost_step_ns(&c, 1) > 17e6 && scost_step_ns(&c, 1) < 23e6);
}

/* Goal: one step that the machine held up doesn't shrink the slices of those after. */
static void test_outlier(void **state) {
    (void)state;
    struct scost c = {0};
    for (u32 i = 0; i < 200; i++)
        scost_add(&c, 1 + i % 64, 2000000 + (i % 64) * 100000);
    u32 before = scost_rows_within(&c, 20e6);
    scost_add(&c, 30, 5000000000u);
    assert_in_range(scost_rows_within(&c, 20e6), before * 6 / 10, before * 14 / 10);
}

/* Goal: nonsense times never give negative or endless sizes. */
static void test_any_times(void **state) {
    (void)state;
    u64 random = 3;
    struct scost c = {0};
    for (u32 i = 0; i < 20000; i++) {
        scost_add(&c, 1 + random_below(&random, 512),
                  random_next(&random) % (u64[]){1, 100, 10000000, 9000000000}[i % 4]);
        assert_true(c.base_ns >= 0 && c.per_row_ns >= 0);
        assert_true(scost_rows_within(&c, 20e6) <= LIMIT_STEP_ROWS);
        assert_true(scost_rows_efficient(&c) <= LIMIT_STEP_ROWS);
    }
}

static void test_rate(void **state) {
    (void)state;
    struct srate r = {0};
    assert_true(srate_per_s(&r, 5) == 0);
    for (u64 i = 0; i <= 100; i++)
        srate_add(&r, i * 250 * MS);
    f64 now = srate_per_s(&r, 100 * 250 * MS), later = srate_per_s(&r, 100 * 250 * MS + 10000 * MS);
    assert_true(now > 3.9 && now < 4.1);
    assert_true(later < 2); /* a queue that stands still slows down */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_learns_line), cmocka_unit_test(test_one_size_and_change),
        cmocka_unit_test(test_outlier),     cmocka_unit_test(test_any_times),
        cmocka_unit_test(test_rate),
    };
    return cmocka_run_group_tests_name("sched_cost", tests, NULL, NULL);
}
