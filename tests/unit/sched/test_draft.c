/* Speculation: which guesses get a row, and what comes of them. */
#include "sched_fixture.h"

#include "sched/internal.h"

#define N_DRAFT 8u
static const u32 guess[N_DRAFT] = {1, 2, 3, 4, 5, 6, 7, 8};

/* n requests of n_prompt tokens that decode, after steps of several sizes: a step takes 1 ms and 0.1 ms per
 * row. */
static void decode(struct fixture *f, struct sched_config c, u32 n, u32 n_prompt, u32 predict) {
    fixture_init(f, c);
    model_add(f, 1);
    for (u64 id = 1; id <= n; id++)
        arrive(f, id, 1);
    settle(f);
    for (u64 id = 1; id <= n; id++)
        prompt(f, id, n_prompt, predict);
    for (u32 i = 0; i < 6; i++) {
        next(f);
        step(f);
    }
}

/* Of an item's drafts n_agreed came true, then `drawn` was drawn; the request guesses anew. */
static struct sched_result drew(const struct sched_item *item, u32 n_agreed, const u32 *drawn) {
    return (struct sched_result){.request_id = item->request_id,
                                 .n_agreed = n_agreed,
                                 .tokens = drawn,
                                 .n_tokens = item->n_logits > 0,
                                 .draft = guess,
                                 .n_draft = item->n_logits > 0 ? N_DRAFT : 0};
}

/* Reports the planned step: of each item's drafts the first n_right come true (all of them: UINT32_MAX), then
 * token `drawn` is drawn; everybody guesses anew. */
static void step_draws(struct fixture *f, u32 n_right, u32 drawn) {
    struct sched_result results[LIMIT_RUNNING];
    for (u32 i = 0; i < f->plan.n_items; i++)
        results[i] = drew(&f->plan.items[i], MIN(n_right, f->plan.items[i].n_drafts), &drawn);
    step_report(f, (struct sched_step){.results = results});
}

static u32 drafts_planned(struct fixture *f) {
    u32 n = 0;
    next(f);
    for (u32 i = 0; i < f->plan.n_items; i++)
        n += f->plan.items[i].n_drafts;
    return n;
}

/* Goal: guesses lie behind the known token in one item, each with a row of logits; what came true is kept,
 * the next item starts behind it, and the positions of what did not are computed again. */
static void test_rows_of_an_item(void **state_) {
    (void)state_;
    struct fixture f;
    decode(&f, config_default(), 1, 10, 2000);
    next(&f);
    step_draws(&f, 0, 100);
    assert_true(drafts_planned(&f) >= 2);
    const struct sched_item *item = item_of(&f, 1);
    u32 pos = item->pos0, n = item->n_drafts;
    struct sched_state before = state(&f);
    assert_int_equal(item->n_tokens, 1 + n);
    assert_int_equal(item->n_logits, 1 + n);
    assert_int_equal(f.plan.n_rows, 1 + n);
    assert_int_equal(item->tokens[0], 100);
    assert_memory_equal(item->tokens + 1, guess, n * sizeof(u32));
    step_draws(&f, 1, 200); /* "1" came true, then 200 instead of "2" */
    assert_int_equal(state(&f).n_rows_total - before.n_rows_total, 1 + n);
    assert_int_equal(state(&f).steps_ns_total - before.steps_ns_total, MS + (1 + n) * MS / 10);
    assert_int_equal(state(&f).n_drafts_total - before.n_drafts_total, n);
    assert_int_equal(state(&f).n_agreed_total - before.n_agreed_total, 1);
    u64 lost_ns = state(&f).drafts_lost_ns_total - before.drafts_lost_ns_total;
    assert_in_range(lost_ns, (n - 1) * MS / 20, (n - 1) * MS / 5);
    next(&f);
    item = item_of(&f, 1);
    assert_int_equal(item->pos0, pos + 2);
    assert_int_equal(item->tokens[0], 200);
    assert_int_equal(item->tokens[-1], 1);
    assert_int_equal(item->tokens[-2], 100);
    fixture_release(&f);
}

/* Goal: guesses that fail end the guessing, and when they would have come true again it goes on, though
 * nothing was verified meanwhile. */
static void test_follows_the_rate(void **state_) {
    (void)state_;
    struct fixture f;
    decode(&f, config_default(), 1, 10, 2000);
    for (u32 i = 0; i < 60; i++) {
        next(&f);
        step_draws(&f, 0, 100);
    }
    assert_int_equal(drafts_planned(&f), 0);
    step_draws(&f, 0, 100);
    u32 n = 0;
    for (; n < 60 && drafts_planned(&f) == 0; n++)
        step_draws(&f, 0, guess[0]);
    assert_in_range(n, 1, 20);
    for (u32 i = 0; i < 60; i++) {
        step_draws(&f, UINT32_MAX, 100);
        next(&f);
    }
    assert_int_equal(item_of(&f, 1)->n_drafts, N_DRAFT);
    fixture_release(&f);
}

/* Goal: the fuller a step, the surer a guess must be. Sure ones (all came true so far) and fair ones (every
 * second) are offered to 1, 8, 12 and 32 streams at 0.1 ms a row beside 1 ms a step; no step has more than 16
 * rows with them. */
static void test_ends_as_steps_fill(void **state_) {
    (void)state_;
    static const u32 crowds[] = {1, 8, 12, 32};
    u32 last_fair = UINT32_MAX, n_fair[4], n_sure[4];
    for (u32 k = 0; k < ARRAY_LEN(crowds); k++) {
        struct fixture f;
        decode(&f, config_default(), crowds[k], 10, 2000);
        for (u32 i = 0; i < 40; i++) {
            next(&f);
            step_draws(&f, i % 2 ? UINT32_MAX : 0, i % 2 ? guess[0] : 100);
        }
        n_fair[k] = drafts_planned(&f) * 100 / crowds[k];
        step_draws(&f, UINT32_MAX, guess[0]);
        for (u32 i = 0; i < 60; i++) {
            next(&f);
            step_draws(&f, UINT32_MAX, guess[0]);
        }
        n_sure[k] = drafts_planned(&f) * 100 / crowds[k];
        assert_true(n_fair[k] <= last_fair);
        last_fair = n_fair[k];
        fixture_release(&f);
    }
    assert_true(n_fair[0] >= 100 && n_sure[0] == 100 * N_DRAFT && n_sure[1] == 100);
    assert_int_equal(n_fair[1], 0);
    assert_int_equal(n_sure[2], 100 * 4 / 12);
    assert_int_equal(n_sure[3], 0);
}

/* Goal: while a prompt is read every row of a step has a better use. */
static void test_not_beside_prompts(void **state_) {
    (void)state_;
    struct fixture f;
    decode(&f, config_default(), 1, 10, 2000);
    next(&f);
    step_draws(&f, 0, guess[0]);
    assert_true(drafts_planned(&f) > 0);
    step_draws(&f, 0, 100);
    arrive(&f, 2, 1);
    prompt(&f, 2, 1000, 10);
    assert_int_equal(drafts_planned(&f), 0);
    assert_true(item_of(&f, 2)->n_tokens > 1);
    fixture_release(&f);
}

/* Goal: no guess is verified that could not be followed by one more token. */
static void test_not_beyond_the_length(void **state_) {
    (void)state_;
    struct fixture f;
    struct sched_config c = config_default();
    c.draft_force = LIMIT_DRAFT;
    decode(&f, c, 1, 10, 12);
    for (;;) {
        next(&f);
        const struct sched_item *item = item_of(&f, 1);
        u32 n = item->pos0 + item->n_tokens;
        assert_true(n < 22);
        assert_int_equal(item->n_drafts,
                         item->n_drafts < N_DRAFT && item->pos0 > 16 ? 20 - item->pos0 : item->n_drafts);
        if (n == 21)
            break;
        step_draws(&f, 0, 100);
    }
    fixture_release(&f);
}

/* Goal: guesses take no page that is not free: with a pool that is full, others go on and nobody is parked.
 */
static void test_takes_no_pages(void **state_) {
    (void)state_;
    struct fixture f;
    struct sched_config c = config_default();
    c.draft_force = LIMIT_DRAFT;
    decode(&f, c, 2, 100, 100);
    limit(&f, 111 * MIB + 6 * MIB); /* six pages: three each, full with 192 tokens */
    struct sched_state st;
    u32 n_drafts = 0;
    for (u32 pos = 0; pos < 190;) {
        next(&f);
        assert_int_equal(f.plan.n_items, 2);
        pos = item_of(&f, 1)->pos0;
        if (pos + 1 + N_DRAFT > 192)
            assert_int_equal(item_of(&f, 1)->n_drafts + item_of(&f, 2)->n_drafts, 0);
        n_drafts += item_of(&f, 2)->n_drafts;
        step_draws(&f, 0, 100);
    }
    assert_true(n_drafts > 10);
    sched_state(f.s, &st);
    assert_int_equal(st.n_parked_total, 0);
    assert_int_equal(st.n_running, 2);
    fixture_release(&f);
}

/* Reports the planned step; each guess of an item comes true with this chance, as long as those before it
 * did. */
static void step_by_chance(struct fixture *f, u32 percent, u64 *random) {
    static const u32 other = 100;
    struct sched_result results[LIMIT_RUNNING];
    for (u32 i = 0; i < f->plan.n_items; i++) {
        const struct sched_item *item = &f->plan.items[i];
        u32 n_true = 0;
        while (n_true < N_DRAFT && random_percent(random, percent))
            n_true++;
        /* What is drawn behind the last verified one may be the next guess too. */
        results[i] = drew(item, MIN(n_true, item->n_drafts),
                          n_true > item->n_drafts ? &guess[item->n_drafts] : &other);
    }
    step_report(f, (struct sched_step){.results = results});
}

/* Goal: text of which every guess is made, and of which so many come true, now and then another share, costs
 * at most 2 % of the time that it takes without guesses, in answers of 100 tokens; and it gains where most
 * come true. */
static void test_what_guessing_costs(void **state_) {
    (void)state_;
    static const u32 crowds[] = {1, 4, 8, 15, 16},
                     percents[][2] = {{0, 0},   {5, 5},   {10, 10}, {20, 20}, {30, 30},
                                      {40, 40}, {50, 50}, {80, 80}, {0, 50},  {0, 90}};
    u64 random = 4711;
    for (u32 k = 0; k < ARRAY_LEN(crowds); k++)
        for (u32 p = 0; p < ARRAY_LEN(percents); p++) {
            f64 ns = 0, alone_ns = 0;
            for (u32 answer = 0; answer < 20; answer++) {
                struct fixture f;
                decode(&f, config_default(), crowds[k], 10, 2000);
                struct sched_state from = state(&f);
                for (u32 i = 0; i < 100; i++) {
                    next(&f);
                    step_by_chance(&f, percents[p][i / 25 % 2], &random);
                }
                struct sched_state to = state(&f);
                u64 n_tokens = to.n_agreed_total - from.n_agreed_total + 100 * crowds[k];
                ns += (f64)(to.steps_ns_total - from.steps_ns_total);
                alone_ns += (f64)n_tokens / crowds[k] * (f64)(MS + crowds[k] * MS / 10);
                fixture_release(&f);
            }
            if (ns > 1.02 * alone_ns)
                fail_msg("%u streams, %u and %u %%: %.3f", crowds[k], percents[p][0], percents[p][1],
                         ns / alone_ns);
            if (percents[p][1] >= 80 && crowds[k] <= 8)
                assert_true(ns < 0.95 * alone_ns);
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows_of_an_item),       cmocka_unit_test(test_follows_the_rate),
        cmocka_unit_test(test_ends_as_steps_fill),    cmocka_unit_test(test_not_beside_prompts),
        cmocka_unit_test(test_not_beyond_the_length), cmocka_unit_test(test_takes_no_pages),
        cmocka_unit_test(test_what_guessing_costs),
    };
    return cmocka_run_group_tests_name("sched_draft", tests, NULL, NULL);
}
