/* Random work on sequences against a model: contents by hashes, matches by brute force over what was kept. */
#include "kv_fixture.h"

#include <stdlib.h>

#define MIB ((u64)1 << 20)
#define N_SEQS 6u
#define N_MAX 400u
#define N_KEPT 400u

struct work {
    struct fixture f;
    u64 random;
    u64 now;
    struct kv_seq seqs[N_SEQS];
    u32 tokens[N_SEQS][N_MAX];
    /* What was put into the tree, while nothing is ever evicted. */
    u32 kept[N_KEPT][N_MAX], n_kept_tokens[N_KEPT], n_kept;
    bool exact; /* memory without bound and one full group: matches must be the longest there is */
};

/* Two letters and long runs of a common beginning: many splits at all depths. */
static void tokens_random(struct work *w, u32 *tokens) {
    u32 same = random_below(&w->random, N_MAX + 1);
    for (u32 i = 0; i < N_MAX; i++)
        tokens[i] = i < same ? i % 7 : random_below(&w->random, 2);
    if (w->n_kept && random_percent(&w->random, 50)) {
        u32 k = random_below(&w->random, w->n_kept);
        memcpy(tokens, w->kept[k], random_below(&w->random, w->n_kept_tokens[k] + 1) * sizeof(u32));
    }
}

static void kept_add(struct work *w, const u32 *tokens, u32 n) {
    if (w->n_kept == N_KEPT)
        return;
    memcpy(w->kept[w->n_kept], tokens, n * sizeof(u32));
    w->n_kept_tokens[w->n_kept++] = n;
}

static u32 longest_kept(const struct work *w, const u32 *tokens, u32 n) {
    u32 best = 0;
    for (u32 k = 0; k < w->n_kept; k++) {
        u32 i = 0;
        while (i < n && i < w->n_kept_tokens[k] && w->kept[k][i] == tokens[i])
            i++;
        best = MAX(best, i);
    }
    return best;
}

static void op_open(struct work *w, u32 i) {
    u32 n = 1 + random_below(&w->random, N_MAX);
    tokens_random(w, w->tokens[i]);
    struct kv_stats before, after;
    kv_pool_stats(w->f.pool, &before);
    u64 need = kv_space_need_bytes(w->f.space, w->tokens[i], n, n);
    u32 covered = kv_seq_open(&w->seqs[i], w->f.space, w->tokens[i], n, w->now);
    if (w->exact) {
        assert_true(kv_seq_reserve(&w->seqs[i], n));
        kv_pool_stats(w->f.pool, &after);
        assert_true(after.pinned_bytes == before.pinned_bytes + need);
    }
    assert_true(covered < n);
    if (w->exact && w->n_kept < N_KEPT)
        assert_int_equal(covered, longest_kept(w, w->tokens[i], n - 1));
}

static void op_advance(struct work *w, u32 i) {
    struct kv_seq *q = &w->seqs[i];
    u32 n = MIN(N_MAX, q->n_tokens + 1 + random_below(&w->random, 100));
    u64 need = kv_seq_need_bytes(q, n), held = kv_seq_held_bytes(q);
    bool ok = kv_seq_reserve(q, n);
    assert_true(kv_seq_held_bytes(q) == held + (ok ? need : 0));
    if (!ok && random_percent(&w->random, 50) && kv_evict(w->f.pool, kv_seq_need_bytes(q, n), NULL))
        ok = kv_seq_reserve(q, n);
    assert_true(ok || !w->exact);
    if (ok)
        seq_compute(&w->f, q, w->tokens[i], n);
}

static void op_close(struct work *w, u32 i) {
    bool keep = random_percent(&w->random, 60);
    if (keep)
        kept_add(w, w->tokens[i], w->seqs[i].n_tokens);
    kv_seq_close(&w->seqs[i], w->tokens[i], keep, w->now);
    assert_null(w->seqs[i].space);
    kv_seq_close(&w->seqs[i], w->tokens[i], keep, w->now);
}

static void op(struct work *w) {
    u32 i = random_below(&w->random, N_SEQS);
    struct kv_seq *q = &w->seqs[i];
    w->now++;
    if (!q->space) {
        op_open(w, i);
        return;
    }
    u32 what = random_below(&w->random, 100);
    if (what < 50) {
        op_advance(w, i);
    } else if (what < 70) {
        u32 n = random_percent(&w->random, 70) ? q->n_tokens : random_below(&w->random, q->n_tokens + 1);
        kv_seq_publish(q, w->tokens[i], n, w->now);
        kept_add(w, w->tokens[i], n / 64 * 64);
    } else if (what < 80) {
        kv_seq_trim(q);
    } else if (what < 95) {
        op_close(w, i);
    } else if (!w->exact) {
        kv_evict(w->f.pool, (u64)random_below(&w->random, 8) * MIB, NULL);
        if (random_percent(&w->random, 10)) {
            kv_evict(w->f.pool, UINT64_MAX, NULL);
            assert_true(kv_pool_mapped_bytes(w->f.pool) == kv_pool_pinned_extent_bytes(w->f.pool));
        }
    }
}

static void run(const struct kv_layout *layout, u64 limit_bytes, u32 fail_percent, bool exact) {
    for (u64 seed = 1; seed <= 60; seed++) {
        struct work *w = xcalloc(1, sizeof *w);
        fixture_init(&w->f, layout, limit_bytes);
        w->f.memory.fail_percent = fail_percent;
        w->random = seed;
        w->exact = exact;
        for (u32 i = 0; i < 400; i++) {
            op(w);
            kv_check(w->f.pool);
        }
        for (u32 i = 0; i < N_SEQS; i++)
            kv_seq_close(&w->seqs[i], w->tokens[i], false, w->now);
        kv_check(w->f.pool);
        struct kv_stats st;
        kv_pool_stats(w->f.pool, &st);
        assert_true(st.pinned_bytes == 0 && st.pinned_tokens == 0);
        fixture_release(&w->f);
        free(w);
    }
}

static void test_exact(void **state) {
    (void)state;
    run(&layout_full, 4000 * MIB, 0, true);
}
static void test_short_of_memory(void **state) {
    (void)state;
    run(&layout_full, 24 * MIB, 0, false);
}
static void test_windows(void **state) {
    (void)state;
    run(&layout_window, 4000 * MIB, 0, false);
}
static void test_windows_short_of_memory(void **state) {
    (void)state;
    run(&layout_window, 60 * MIB, 20, false);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_exact),
        cmocka_unit_test(test_short_of_memory),
        cmocka_unit_test(test_windows),
        cmocka_unit_test(test_windows_short_of_memory),
    };
    return cmocka_run_group_tests_name("kv_seq", tests, NULL, NULL);
}
