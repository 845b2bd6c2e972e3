/* Sums and searches over a row of logits. Truth: the definition in long double and a plain scan; ref bit by
 * bit for the other tiers. */
#include "kern/kern_test.h"

#include <math.h>

#define N_MAX 50000u

static const u32 lengths[] = {1, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 100, 4095, 4096, 4097, 4111, 8192, 32000, N_MAX - 7, N_MAX};

static void fill_logits(u64 *rng, f32 *x, u32 n, u32 kind) {
    for (u32 i = 0; i < n; i++) {
        x[i] = rng_f32(rng, -12, 12);
        if (kind == 1)
            x[i] = rng_below(rng, 50) ? -INFINITY : x[i]; /* as a grammar leaves them */
        else if (kind == 2)
            x[i] = x[i] * 1e37f;
        else if (kind == 3)
            x[i] = i % 2 ? 0.0f : -0.0f;
        else if (kind == 4)
            x[i] = -INFINITY;
        else if (kind == 5)
            x[i] = rng_below(rng, 999) ? x[i] : nan_with(i & 0x3fffff);
    }
}

/* A row of n logits, and the tiers that must agree on it. */
struct row {
    const struct kern *const *tiers; /* [n_tiers], ref first */
    u32 n_tiers;
    f32 *x;
    u32 n, kind;
    u64 rng;
};

/* Rows of all lengths and kinds, between guard pages. */
static void each_row(void (*test)(struct row *r)) {
    const struct kern *tiers[3] = {&kern_ref};
    u32 n_tiers = 1 + tiers_here(tiers + 1);
    for (u32 i = 0; i < ARRAY_LEN(lengths); i++)
        for (u32 kind = 0; kind < 6; kind++) {
            struct row r = {tiers, n_tiers, guard_alloc(lengths[i] * sizeof(f32), 4 * (i % 16)), lengths[i], kind, 1 + i * 10 + kind};
            fill_logits(&r.rng, r.x, r.n, kind);
            test(&r);
            guard_free(r.x);
        }
}

static void row_logsumexp(struct row *r) {
    f32 max = 5, want_max = -INFINITY;
    f64 lse = 7, ref_lse = 0;
    long double sum = 0;
    bool any_nan = false;
    for (u32 k = 0; k < r->n; k++) {
        want_max = fmaxf(want_max, r->x[k]);
        any_nan |= isnan(r->x[k]) != 0;
    }
    for (u32 k = 0; k < r->n; k++)
        sum += expl((long double)r->x[k] - want_max);
    for (u32 t = 0; t < r->n_tiers; t++) {
        r->tiers[t]->logsumexp(r->x, r->n, &max, &lse);
        assert_true(max == want_max && !(max == 0 && signbit(max)));
        if (want_max == -INFINITY)
            assert_true(lse == -INFINITY);
        else if (any_nan)
            assert_true(isnan(lse));
        else
            assert_true(fabsl((long double)lse - logl(sum)) < 1e-6L);
        if (t == 0)
            ref_lse = lse;
        assert_true(f64_same(lse, ref_lse));
    }
}

/* Goal: max and log-sum are right, and the same bits in all tiers; the row is only read. */
static void logsumexp_is_right(void **state) {
    (void)state;
    each_row(row_logsumexp);
}

static void row_above(struct row *r) {
    static u32 want[N_MAX];
    u32 n_want = 0;
    f32 threshold = r->kind == 3 ? 0 : r->kind == 4 ? -INFINITY : r->x[rng_below(&r->rng, r->n)];
    for (u32 k = 0; k < r->n; k++)
        if (r->x[k] >= threshold)
            want[n_want++] = k;
    u32 caps[] = {0, 1, 5, n_want / 2, n_want ? n_want - 1 : 0, n_want, n_want + 3, r->n};
    for (u32 c = 0; c < ARRAY_LEN(caps); c++)
        for (u32 t = 0; t < r->n_tiers; t++) {
            u32 *out = guard_alloc(caps[c] * sizeof(u32), 4);
            assert_int_equal(r->tiers[t]->above(r->x, r->n, threshold, out, caps[c]), n_want);
            assert_memory_equal(out, want, sizeof(u32) * MIN(caps[c], n_want));
            guard_free(out);
        }
}

/* Goal: the indices are those of a plain scan, cut at cap while the count goes on. */
static void above_finds_all(void **state) {
    (void)state;
    each_row(row_above);
}

static void row_maxima(struct row *r) {
    u32 n_blocks = DIV_CEIL(r->n, KERN_MAXIMA);
    if (r->kind == 5)
        for (u32 k = 0; k < MIN(r->n, 130u); k++)
            r->x[k] = nan_with(k); /* whole blocks of them */
    for (u32 t = 0; t < r->n_tiers; t++) {
        f32 *out = guard_alloc(n_blocks * sizeof(f32), 4);
        r->tiers[t]->maxima(r->x, r->n, out);
        for (u32 b = 0; b < n_blocks; b++) {
            f32 want = -INFINITY;
            for (u32 k = b * KERN_MAXIMA; k < MIN(r->n, (b + 1) * KERN_MAXIMA); k++)
                want = fmaxf(want, r->x[k]);
            assert_true(out[b] == want);
        }
        guard_free(out);
    }
}

/* Goal: the largest of each block is that of a plain scan, NaN aside; nothing is written behind them. */
static void maxima_are_right(void **state) {
    (void)state;
    each_row(row_maxima);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(logsumexp_is_right),
        cmocka_unit_test(above_finds_all),
        cmocka_unit_test(maxima_are_right),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
