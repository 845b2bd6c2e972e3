/* kv_fixture.h - a pool over fake memory whose pages hold, per position, a hash of all tokens up to it: what
 * real KV is a function of. Reading a wrong, stale or foreign page shows as a wrong hash. */
#ifndef MINKA_KV_FIXTURE_H
#define MINKA_KV_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "fake_memory.h"
#include "kv/kv.h"

/* 1 MiB per page: 8 heads of 128, f16, 4 layers = 4 * 8 * 2 * 64 * 128 * 2. */
static const struct kv_layout layout_full = {.n_groups = 1, .groups = {{4, 8, 128, 2, 0}}};
/* A full group and one that sees 100 positions. */
static const struct kv_layout layout_window = {.n_groups = 2,
                                               .groups = {{4, 8, 128, 2, 0}, {8, 8, 128, 2, 100}}};

struct fixture {
    struct fake_memory memory;
    struct kv_pool *pool;
    struct kv_space *space;
};

static inline void fixture_init(struct fixture *f, const struct kv_layout *l, u64 limit_bytes) {
    *f = (struct fixture){0};
    f->pool = kv_pool_new(fake_memory_hooks(&f->memory));
    kv_pool_limit(f->pool, limit_bytes);
    f->space = kv_space_new(f->pool, l, 1);
}

static inline void fixture_release(struct fixture *f) {
    kv_space_free(f->space);
    kv_pool_free(f->pool);
    fake_memory_release(&f->memory);
}

static inline u64 prefix_hash(u64 before, u32 token) { return (before ^ token) * 0x9e3779b97f4a7c15u + 1; }

/* The group is part of what a page holds. */
static inline u64 word_of(u64 hash, u32 group) { return hash + group; }

/* Computes positions up to n, as a forward pass would: reads what each position sees, writes its own. */
static inline void seq_compute(struct fixture *f, struct kv_seq *q, const u32 *tokens, u32 n) {
    const struct kv_layout *l = kv_space_layout(q->space);
    for (u32 g = 0; g < l->n_groups; g++) {
        u64 hash = 0;
        u32 window = l->groups[g].window;
        for (u32 p = 0; p < n; p++) {
            hash = prefix_hash(hash, tokens[p]);
            bool seen = window == 0 || p + window > q->n_tokens;
            if (p < q->n_tokens && !seen)
                continue;
            u64 *words = fake_memory_words(&f->memory, q->tables[g].pages[p / KV_PAGE_TOKENS]);
            if (p < q->n_tokens)
                assert_true(words[p % KV_PAGE_TOKENS] == word_of(hash, g));
            else
                words[p % KV_PAGE_TOKENS] = word_of(hash, g);
        }
    }
    q->n_tokens = MAX(q->n_tokens, n);
}

/* Opens, computes all of tokens[n] and returns what was covered. */
static inline u32 seq_run(struct fixture *f, struct kv_seq *q, const u32 *tokens, u32 n, u64 now) {
    u32 covered = kv_seq_open(q, f->space, tokens, n, now);
    assert_true(kv_seq_reserve(q, n));
    seq_compute(f, q, tokens, n);
    kv_check(f->pool);
    return covered;
}

/* The same, then into the tree. */
static inline u32 seq_run_keep(struct fixture *f, const u32 *tokens, u32 n, u64 now) {
    struct kv_seq q = {0};
    u32 covered = seq_run(f, &q, tokens, n, now);
    kv_seq_close(&q, tokens, true, now);
    kv_check(f->pool);
    return covered;
}

/* tokens[n] = seed, seed + 1, ... */
static inline void tokens_fill(u32 *tokens, u32 n, u32 seed) {
    for (u32 i = 0; i < n; i++)
        tokens[i] = seed + i;
}

#endif
