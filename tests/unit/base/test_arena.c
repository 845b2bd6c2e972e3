/* Arenas: blocks that stay put, limits, reset. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/arena.h"

/* Goal: what was handed out never moves nor overlaps, is aligned and zeroed. Method: many allocations of all
 * sizes, each filled with its number, all read back at the end. */
static void allocations_are_apart(void **state) {
    (void)state;
    struct arena a;
    u8 *p[600];
    size_t n[600];
    arena_init(&a, 0);
    for (u32 i = 0; i < 600; i++) {
        n[i] = i % 50 == 49 ? 100000 + i : i * 7 % 300;
        p[i] = arena_alloc(&a, n[i]);
        assert_int_equal((uintptr_t)p[i] % 16, 0);
        for (size_t k = 0; k < n[i]; k++)
            assert_int_equal(p[i][k], 0);
        memset(p[i], (int)i, n[i]);
    }
    for (u32 i = 0; i < 600; i++)
        for (size_t k = 0; k < n[i]; k++)
            assert_int_equal(p[i][k], (u8)i);
    arena_release(&a);
    assert_null(a.head);
    assert_int_equal(a.used_bytes, 0);
}

/* Goal: the limit counts what was handed out, rounded to 16; over it nothing changes. */
static void limit_is_kept(void **state) {
    (void)state;
    struct arena a;
    arena_init(&a, 64);
    assert_non_null(arena_try_alloc(&a, 1));
    assert_non_null(arena_try_alloc(&a, 32));
    assert_int_equal(a.used_bytes, 48);
    assert_null(arena_try_alloc(&a, 17));
    assert_null(arena_try_alloc(&a, SIZE_MAX / 8));
    assert_int_equal(a.used_bytes, 48);
    assert_non_null(arena_try_alloc(&a, 16));
    assert_null(arena_try_alloc(&a, 0)); /* an empty allocation still has an address of its own */
    arena_reset(&a);
    assert_non_null(arena_try_alloc(&a, 64));
    arena_release(&a);
    assert_null(arena_try_alloc(&a, 65));
    arena_release(&a);
}

/* Goal: reset keeps one block for reuse and starts from nothing; it works on an empty arena. */
static void reset_starts_again(void **state) {
    (void)state;
    struct arena a;
    arena_init(&a, 0);
    arena_reset(&a);
    for (u32 round = 0; round < 3; round++) {
        for (u32 i = 0; i < 100; i++) {
            u64 *v = ARENA_ARRAY(&a, u64, 100);
            assert_true(v[0] == 0 && v[99] == 0);
            v[0] = v[99] = 1;
        }
        assert_int_equal(a.used_bytes, 80000);
        arena_reset(&a);
        assert_int_equal(a.used_bytes, 0);
    }
    struct { char c; u64 v; } *s = arena_alloc(&a, sizeof *s);
    assert_true(s->c == 0 && s->v == 0);
    arena_release(&a);
    arena_release(&a);
}

/* Goal: copies of text end in NUL, whatever is in them. */
static void text_is_copied(void **state) {
    (void)state;
    struct arena a;
    arena_init(&a, 0);
    struct str s = arena_str(&a, (struct str){"a\0b", 3});
    assert_int_equal(s.n, 3);
    assert_memory_equal(s.p, "a\0b", 4);
    assert_string_equal(arena_str(&a, STR_NONE).p, "");
    s = arena_printf(&a, "%s-%05d", "x", 42);
    assert_string_equal(s.p, "x-00042");
    assert_int_equal(s.n, 7);
    s = arena_printf(&a, "%5000s", "");
    assert_int_equal(s.n, 5000);
    assert_int_equal(s.p[5000], 0);
    arena_release(&a);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(allocations_are_apart),
        cmocka_unit_test(limit_is_kept),
        cmocka_unit_test(reset_starts_again),
        cmocka_unit_test(text_is_copied),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
