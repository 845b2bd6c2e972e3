/* Vectors of embeddings: their length becomes 1, in a fixed order; what cannot be divided stays. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>

#include "gen/gen.h"

static void test_length(void **state) {
    (void)state;
    f32 v[] = {3, 0, -4};
    assert_true(gen_vector_normalize(v, 3));
    assert_true(v[0] == 0.6f && v[1] == 0 && v[2] == -0.8f);
    /* Squares that overflow or vanish in f32. */
    f32 big[] = {3e30f, 4e30f}, small[] = {3e-30f, 4e-30f};
    assert_true(gen_vector_normalize(big, 2) && gen_vector_normalize(small, 2));
    assert_true(fabsf(big[0] - 0.6f) < 1e-7f && fabsf(big[1] - 0.8f) < 1e-7f &&
                fabsf(small[0] - 0.6f) < 1e-7f && fabsf(small[1] - 0.8f) < 1e-7f);
    /* Any vector, twice: the second time changes no more than the last digit. */
    u32 seed = 1;
    f32 w[384];
    f64 sum = 0;
    for (u32 i = 0; i < 384; i++)
        w[i] = (f32)((seed = seed * 1664525 + 1013904223) >> 8) / 8388608 - 1;
    assert_true(gen_vector_normalize(w, 384));
    for (u32 i = 0; i < 384; i++)
        sum += (f64)w[i] * (f64)w[i];
    assert_true(fabs(sum - 1) < 1e-6);
}

static void test_undivided(void **state) {
    (void)state;
    f32 zeros[] = {0, -0.0f}, nan[] = {1, NAN}, inf[] = {INFINITY, 2};
    assert_true(gen_vector_normalize(zeros, 2) && zeros[0] == 0 && zeros[1] == 0);
    assert_false(gen_vector_normalize(nan, 2));
    assert_false(gen_vector_normalize(inf, 2));
    assert_true(nan[0] == 1 && inf[1] == 2);
    assert_true(gen_vector_normalize(nan, 0));
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_length), cmocka_unit_test(test_undivided)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
