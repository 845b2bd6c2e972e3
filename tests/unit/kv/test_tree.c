/* The prefix tree: splits, copies at a divergence, the order of eviction, window groups. */
#include "kv_fixture.h"

#define MIB ((u64)1 << 20)

/* Goal: matches are exact to the token, at most n - 1, and a divergence inside a page copies that page only.
 * Method: one kept sequence of 200 tokens; prompts that leave it at every position. */
static void test_match_lengths(void **state) {
    (void)state;
    struct fixture f;
    u32 tokens[201];
    tokens_fill(tokens, 201, 100);
    fixture_init(&f, &layout_full, 1000 * MIB);
    assert_int_equal(seq_run_keep(&f, tokens, 200, 1), 0);
    assert_int_equal(kv_space_match(f.space, tokens, 201), 200);
    for (u32 cut = 1; cut <= 200; cut++) {
        u32 other[201];
        memcpy(other, tokens, sizeof other);
        other[cut] = 7;
        u64 copies = f.memory.n_copies;
        struct kv_seq q = {0};
        assert_int_equal(kv_seq_open(&q, f.space, other, 201, cut + 1), cut);
        assert_int_equal(f.memory.n_copies - copies, cut % 64 ? 1 : 0);
        assert_int_equal(q.tables[0].n_pages, DIV_CEIL(cut, 64u));
        assert_true(kv_seq_reserve(&q, 201));
        seq_compute(&f, &q, other, 201);
        kv_check(f.pool);
        kv_seq_close(&q, other, false, cut + 1);
        assert_int_equal(kv_space_match(f.space, tokens, cut), cut - 1);
    }
    struct kv_stats st;
    kv_space_stats(f.space, &st);
    assert_true(st.pinned_bytes == 0 && st.cached_bytes == 4 * MIB);
    fixture_release(&f);
}

/* Goal: publishing makes a running sequence's full pages findable, and a second that computes the same
 * gives its copies up for the first one's. */
static void test_publish_shares(void **state) {
    (void)state;
    struct fixture f;
    u32 tokens[200];
    tokens_fill(tokens, 200, 0);
    fixture_init(&f, &layout_full, 1000 * MIB);
    struct kv_seq a = {0}, b = {0}, c = {0};
    seq_run(&f, &a, tokens, 150, 1);
    seq_run(&f, &b, tokens, 140, 1); /* nothing published yet: its own pages */
    assert_true(a.tables[0].pages[0] != b.tables[0].pages[0]);
    kv_seq_publish(&a, tokens, 150, 2);
    assert_int_equal(kv_space_match(f.space, tokens, 200), 128);
    kv_seq_publish(&b, tokens, 140, 3);
    kv_check(f.pool);
    assert_ptr_equal(a.tables[0].pages[0], b.tables[0].pages[0]);
    assert_ptr_equal(a.tables[0].pages[1], b.tables[0].pages[1]);
    assert_ptr_not_equal(a.tables[0].pages[2], b.tables[0].pages[2]);
    seq_compute(&f, &b, tokens, 140);
    struct kv_stats st;
    kv_space_stats(f.space, &st);
    assert_true(st.pinned_bytes == 4 * MIB && st.cached_bytes == 0);
    assert_true(st.pinned_tokens == 128 + 22 + 12);
    assert_int_equal(kv_seq_open(&c, f.space, tokens, 200, 4), 128);
    kv_check(f.pool);
    kv_seq_close(&a, tokens, true, 5);
    kv_check(f.pool);
    kv_seq_close(&b, tokens, true, 6);
    kv_seq_close(&c, tokens, true, 7);
    kv_check(f.pool);
    assert_int_equal(kv_space_match(f.space, tokens, 200), 150);
    fixture_release(&f);
}

/* Goal: eviction takes the least recently used first, from the end of a leaf, never what is pinned, and the
 * spared space last. */
static void test_evict_order(void **state) {
    (void)state;
    struct fixture f;
    u32 tokens[3][256];
    fixture_init(&f, &layout_full, 1000 * MIB);
    struct kv_space *other = kv_space_new(f.pool, &layout_full, 2);
    for (u32 i = 0; i < 3; i++) {
        tokens_fill(tokens[i], 256, 1000 * i);
        seq_run_keep(&f, tokens[i], 256, 10 + i);
    }
    struct kv_space *first = f.space;
    f.space = other;
    seq_run_keep(&f, tokens[0], 256, 1); /* the oldest of all */
    f.space = first;
    struct kv_seq q = {0};
    assert_int_equal(kv_seq_open(&q, f.space, tokens[0], 256, 20), 255); /* a hit makes it the newest */
    kv_seq_close(&q, tokens[0], false, 20);
    assert_true(kv_evict(f.pool, 1, NULL) >= 1);
    assert_int_equal(kv_space_match(other, tokens[0], 256), 192);
    assert_true(kv_evict(f.pool, 1, other) >= 1);
    assert_int_equal(kv_space_match(f.space, tokens[1], 256), 192);
    assert_int_equal(kv_space_match(other, tokens[0], 256), 192);
    assert_true(kv_evict(f.pool, 4 * MIB, other) == 4 * MIB);
    assert_int_equal(kv_space_match(f.space, tokens[1], 256), 0);
    assert_int_equal(kv_space_match(f.space, tokens[2], 256), 192);
    assert_int_equal(kv_space_match(f.space, tokens[0], 256), 255);
    assert_int_equal(kv_seq_open(&q, f.space, tokens[2], 190, 30), 189);
    kv_evict(f.pool, 1000 * MIB, NULL);
    kv_check(f.pool);
    /* Of the page that it goes on in the sequence has its own copy; the tree's is free to go. */
    assert_int_equal(kv_space_match(f.space, tokens[2], 256), 128);
    assert_true(kv_pool_mapped_bytes(f.pool) == kv_pool_pinned_extent_bytes(f.pool));
    assert_int_equal(kv_space_match(f.space, tokens[0], 256), 0);
    assert_int_equal(kv_space_match(other, tokens[0], 256), 0);
    assert_true(kv_evict(f.pool, 1, NULL) == 0);
    seq_compute(&f, &q, tokens[2], 189);
    kv_seq_close(&q, tokens[2], false, 31);
    kv_space_free(other);
    fixture_release(&f);
}

/* Goal: no room for the copy: the match ends at the page border. */
static void test_no_room_for_copy(void **state) {
    (void)state;
    struct fixture f;
    u32 tokens[128];
    tokens_fill(tokens, 128, 0);
    fixture_init(&f, &layout_full, 2 * MIB);
    seq_run_keep(&f, tokens, 128, 1);
    struct kv_seq q = {0};
    assert_int_equal(kv_seq_open(&q, f.space, tokens, 101, 2), 64);
    kv_check(f.pool);
    kv_seq_close(&q, tokens, true, 2);
    fixture_release(&f);
}

/* Runs tokens[n] in slices with publish and trim, as the scheduler does. */
static void run_slices(struct fixture *f, struct kv_seq *q, const u32 *tokens, u32 n, u32 slice) {
    for (u32 at = q->n_tokens; at < n;) {
        at = MIN(at + slice, n);
        assert_true(kv_seq_reserve(q, at));
        seq_compute(f, q, tokens, at);
        kv_seq_publish(q, tokens, at, at);
        kv_seq_trim(q);
        kv_check(f->pool);
    }
}

/* Goal: a window group's pages are released when the window leaves them; a match ends only where
 * the window's pages are present: at the turn's end, at checkpoints, or at a branch that was computed. */
static void test_window(void **state) {
    (void)state;
    struct fixture f;
    u32 tokens[2048];
    tokens_fill(tokens, 2048, 0);
    fixture_init(&f, &layout_window, 1000 * MIB);
    struct kv_seq a = {0}, b = {0};
    kv_seq_open(&a, f.space, tokens, 2048, 1);
    run_slices(&f, &a, tokens, 1000, 50);
    assert_int_equal(a.tables[1].n_released, (1000 - 99) / 64);
    assert_null(a.tables[1].pages[0]);
    assert_non_null(a.tables[0].pages[0]);
    kv_seq_close(&a, tokens, true, 1000);
    assert_int_equal(kv_space_match(f.space, tokens, 2048), 1000);
    assert_int_equal(kv_space_match(f.space, tokens, 901), 832); /* the end of the checkpoint at 800 */
    assert_int_equal(kv_space_match(f.space, tokens, 701), 448); /* that at 400 */
    u32 other[1000];
    memcpy(other, tokens, sizeof other);
    other[700] = 5;
    assert_int_equal(kv_seq_open(&b, f.space, other, 1000, 2000), 448);
    run_slices(&f, &b, other, 900, 50);
    kv_seq_close(&b, other, true, 2001);
    other[700] = 6; /* the branch at 700 has its window now */
    assert_int_equal(kv_space_match(f.space, other, 1000), 700);
    assert_int_equal(kv_seq_open(&b, f.space, other, 1000, 2002), 700);
    run_slices(&f, &b, other, 900, 64);
    kv_seq_close(&b, other, false, 2003);
    kv_check(f.pool);
    fixture_release(&f);
}

/* Goal: window pages behind the window of a running sequence can be evicted although its node is pinned. */
static void test_evict_behind_window(void **state) {
    (void)state;
    struct fixture f;
    u32 tokens[2048];
    tokens_fill(tokens, 2048, 0);
    fixture_init(&f, &layout_window, 1000 * MIB);
    struct kv_seq a = {0};
    kv_seq_open(&a, f.space, tokens, 2048, 1);
    run_slices(&f, &a, tokens, 2000, 100);
    struct kv_stats st;
    kv_space_stats(f.space, &st);
    assert_true(st.cached_bytes > 0);
    assert_true(kv_evict(f.pool, UINT64_MAX, NULL) == st.cached_bytes);
    kv_check(f.pool);
    kv_space_stats(f.space, &st);
    assert_true(st.cached_bytes == 0);
    assert_true(st.pinned_bytes <= kv_plan_bytes(&layout_window, 2000));
    seq_compute(&f, &a, tokens, 2000);
    kv_seq_close(&a, tokens, true, 3000);
    fixture_release(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_match_lengths), cmocka_unit_test(test_publish_shares),
        cmocka_unit_test(test_evict_order),   cmocka_unit_test(test_no_room_for_copy),
        cmocka_unit_test(test_window),        cmocka_unit_test(test_evict_behind_window),
    };
    return cmocka_run_group_tests_name("kv_tree", tests, NULL, NULL);
}
