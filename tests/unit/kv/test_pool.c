/* Extents: their size, how many are mapped, when they go back, and a system that has no memory. */
#include "kv_fixture.h"

#include <stdlib.h>

#define MIB ((u64)1 << 20)

/* Goal: an extent is a multiple of 2 MiB, holds at least one page and loses at most 1/16, and no smaller
 * multiple does. Method: page sizes from 8 KiB to 160 MiB. */
static void test_extent_size(void **state) {
    (void)state;
    for (u32 layers = 1; layers <= 160; layers++) {
        for (u32 heads = 1; heads <= 32; heads *= 2) {
            struct kv_group g = {layers, heads, 64, 2, 0};
            u64 page = kv_page_bytes(&g), extent = kv_extent_bytes(&g);
            assert_true(page == (u64)layers * heads * 2 * 64 * 64 * 2);
            assert_true(extent % (2 * MIB) == 0 && extent >= page);
            assert_true((extent % page) * 16 <= extent);
            for (u64 less = ALIGN_UP(page, 2 * MIB); less < extent; less += 2 * MIB)
                assert_true((less % page) * 16 > less);
        }
    }
}

/* Goal: slices tile the page in the documented order. */
static void test_slice_offset(void **state) {
    (void)state;
    struct kv_group g = {3, 2, 64, 2, 0};
    u64 at = 0;
    for (u32 layer = 0; layer < 3; layer++)
        for (u32 head = 0; head < 2; head++)
            for (u32 v = 0; v < 2; v++) {
                assert_true(kv_slice_offset(&g, layer, head, v) == at);
                at += kv_slice_bytes(&g);
            }
    assert_true(at == kv_page_bytes(&g));
}

/* Goal: what the ledger books for a sequence is what its pages take; window groups are capped. */
static void test_plan_bytes(void **state) {
    (void)state;
    assert_true(kv_plan_bytes(&layout_full, 1) == MIB);
    assert_true(kv_plan_bytes(&layout_full, 64) == MIB);
    assert_true(kv_plan_bytes(&layout_full, 65) == 2 * MIB);
    assert_true(kv_plan_extent_bytes(&layout_full, 65) == 2 * MIB);
    assert_true(kv_plan_extent_bytes(&layout_full, 129) == 4 * MIB);
    u64 far = kv_plan_bytes(&layout_window, 64 * 1000);
    assert_true(far < 1000 * MIB + 32 * MIB && far >= 1000 * MIB + 4 * MIB);
}

/* Goal: pages come from extents that have free ones, extents go back when empty, the limit holds.
 * Method: 2-page extents; a sequence of 5 pages takes 3 of them. */
static void test_extents_come_and_go(void **state) {
    (void)state;
    struct fixture f;
    u32 tokens[64 * 8];
    tokens_fill(tokens, 64 * 8, 0);
    fixture_init(&f, &layout_full, 6 * MIB);
    struct kv_seq a = {0}, b = {0};
    kv_seq_open(&a, f.space, tokens, 64 * 8, 1);
    assert_true(kv_seq_need_bytes(&a, 64 * 5) == 5 * MIB);
    assert_true(kv_seq_reserve(&a, 64 * 5));
    assert_true(kv_seq_need_bytes(&a, 64 * 5) == 0);
    assert_true(kv_pool_mapped_bytes(f.pool) == 6 * MIB && f.memory.mapped_bytes == 6 * MIB);
    assert_false(kv_seq_reserve(&a, 64 * 7)); /* all or nothing: one page is free, two are needed */
    assert_int_equal(a.tables[0].n_pages, 5);
    kv_check(f.pool);
    kv_seq_open(&b, f.space, tokens, 10, 2);
    assert_true(kv_seq_reserve(&b, 10));
    assert_false(kv_seq_reserve(&b, 65));
    kv_seq_close(&a, NULL, false, 3);
    kv_check(f.pool);
    assert_true(kv_pool_mapped_bytes(f.pool) == 2 * MIB && f.memory.mapped_bytes == 2 * MIB);
    kv_pool_limit(f.pool, MIB); /* below what is mapped: nothing new */
    assert_true(kv_seq_reserve(&b, 64));
    assert_true(kv_pool_limit_bytes(f.pool) == MIB);
    kv_seq_close(&b, NULL, false, 4);
    assert_true(f.memory.mapped_bytes == 0);
    fixture_release(&f);
}

/* Goal: the n-th map that fails is survived for every n: the call says no and nothing has changed. */
static void test_nth_map_fails(void **state) {
    (void)state;
    u32 tokens[64 * 6];
    tokens_fill(tokens, 64 * 6, 0);
    u32 n_failed = 0;
    for (u32 n = 1;; n++) {
        struct fixture f;
        fixture_init(&f, &layout_window, 1000 * MIB);
        f.memory.fail_at = n;
        struct kv_seq q = {0};
        kv_seq_open(&q, f.space, tokens, 64 * 6, 1);
        bool failed = false;
        for (u32 t = 40; t <= 64 * 6; t += 40) {
            u32 pages[2] = {q.tables[0].n_pages, q.tables[1].n_pages};
            while (!kv_seq_reserve(&q, t)) {
                failed = true;
                assert_int_equal(q.tables[0].n_pages, pages[0]);
                assert_int_equal(q.tables[1].n_pages, pages[1]);
                kv_check(f.pool);
            }
            seq_compute(&f, &q, tokens, t);
            kv_check(f.pool);
        }
        kv_seq_close(&q, tokens, true, 2);
        kv_check(f.pool);
        fixture_release(&f);
        if (!failed)
            break;
        n_failed++;
    }
    assert_true(n_failed >= 5);
}

/* Goal: without a copy hook the used part of a page is copied for real. Method: real memory; a second
 * sequence that diverges inside the page keeps what the first wrote. */
static void *real_map(void *ctx, u64 bytes) {
    (void)ctx;
    void *p = NULL;
    check(posix_memalign(&p, 2 * MIB, bytes) == 0);
    return p;
}
static void real_unmap(void *ctx, void *p, u64 bytes) {
    (void)ctx;
    (void)bytes;
    free(p);
}
static void test_real_copy(void **state) {
    (void)state;
    struct kv_layout small = {.n_groups = 1, .groups = {{1, 1, 16, 4, 0}}};
    struct kv_pool *pool = kv_pool_new((struct kv_memory){real_map, real_unmap, NULL, NULL});
    kv_pool_limit(pool, 8 * MIB);
    struct kv_space *s = kv_space_new(pool, &small, 7);
    u32 tokens[30];
    tokens_fill(tokens, 30, 5);
    struct kv_seq a = {0}, b = {0};
    kv_seq_open(&a, s, tokens, 30, 1);
    assert_true(kv_seq_reserve(&a, 30));
    memset(a.tables[0].pages[0], 0x5a, kv_page_bytes(&small.groups[0]));
    a.n_tokens = 30;
    kv_seq_close(&a, tokens, true, 2);
    assert_int_equal(kv_seq_open(&b, s, tokens, 21, 3), 20);
    const u8 *page = b.tables[0].pages[0];
    assert_int_equal(page[0], 0x5a);
    assert_int_equal(page[kv_page_bytes(&small.groups[0]) - 1], 0x5a);
    kv_check(pool);
    kv_seq_close(&b, tokens, false, 4);
    kv_space_free(s);
    kv_pool_free(pool);
}

/* Goal: what computes gets zeroed, writable extents on 2 MiB borders. */
static void test_anonymous(void **state) {
    (void)state;
    const struct kv_memory *m = &kv_memory_anonymous;
    void *p[3];
    for (u32 i = 0; i < 3; i++) {
        u8 *at = p[i] = m->map(m->ctx, (i + 1) * 2 * MIB);
        assert_non_null(at);
        assert_true((uintptr_t)at % (2 * MIB) == 0);
        assert_true(at[0] == 0 && at[(i + 1) * 2 * MIB - 1] == 0);
        memset(at, 1, (i + 1) * 2 * MIB);
    }
    for (u32 i = 0; i < 3; i++)
        m->unmap(m->ctx, p[i], (i + 1) * 2 * MIB);
    assert_null(m->map(m->ctx, 1ull << 60));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_extent_size),   cmocka_unit_test(test_slice_offset),
        cmocka_unit_test(test_plan_bytes),    cmocka_unit_test(test_extents_come_and_go),
        cmocka_unit_test(test_nth_map_fails), cmocka_unit_test(test_real_copy),
        cmocka_unit_test(test_anonymous),
    };
    return cmocka_run_group_tests_name("kv_pool", tests, NULL, NULL);
}
