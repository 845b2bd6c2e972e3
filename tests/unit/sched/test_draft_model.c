/* A draft model: when it is loaded and when it goes, how many guesses are asked of it. */
#include "sched_fixture.h"

#include "sched/internal.h"

enum { TARGET = 1, DRAFT = 2 };
static const struct kv_layout layout = {.n_groups = 1, .groups = {{4, 8, 128, 2, 0}}}; /* pages of 1 MiB */

static void models_add(struct fixture *f, struct sched_config c) {
    fixture_init(f, c);
    model_add(f, TARGET); /* 101 MiB */
    tell(f, (struct sched_event){.kind = SCHED_MODEL,
                                 .model = {.model_id = DRAFT,
                                           .identity = 5,
                                           .weights_bytes = 20 * MIB,
                                           .scratch_bytes = 1 * MIB,
                                           .layout = layout,
                                           .draft_bytes = 8 * MIB}});
}

static void arrive_with(struct fixture *f, u64 id, i64 keep_alive_ns) {
    tell(f, (struct sched_event){.kind = SCHED_ARRIVE,
                                 .request_id = id,
                                 .model_id = TARGET,
                                 .draft_id = DRAFT,
                                 .keep_alive_ns = keep_alive_ns});
}

/* n requests of 10 tokens that decode. */
static void decode(struct fixture *f, u32 n, u32 predict, i64 keep_alive_ns) {
    for (u64 id = 1; id <= n; id++)
        arrive_with(f, id, keep_alive_ns);
    settle(f);
    for (u64 id = 1; id <= n; id++)
        prompt(f, id, 10, predict);
    for (u32 i = 0; i < 6; i++) {
        settle(f);
        step(f);
    }
}

/* Goal: it is loaded when its target runs and nobody waits, its cache is booked, it stays as long as its
 * target and goes with it. */
static void test_with_its_target(void **state_) {
    (void)state_;
    struct fixture f;
    models_add(&f, config_default());
    arrive_with(&f, 1, 500 * (i64)MS);
    assert_int_equal(settle(&f), 1); /* the target alone */
    assert_false(model_state(&f, DRAFT).loaded);
    prompt(&f, 1, 10, 100);
    assert_int_equal(next(&f)->kind, SCHED_PLAN_STEP);
    step(&f);
    assert_int_equal(next(&f)->kind, SCHED_PLAN_LOAD);
    assert_int_equal(f.plan.model_id, DRAFT);
    assert_int_equal(state(&f).weights_bytes, 120 * MIB);
    assert_int_equal(state(&f).scratch_bytes, (1 + 1 + 8) * MIB);
    assert_int_equal(next(&f)->kind, SCHED_PLAN_STEP); /* steps go on meanwhile */
    assert_int_equal(f.plan.draft_id, 0);
    step(&f);
    loaded(&f, DRAFT, OK);
    next(&f);
    assert_int_equal(f.plan.draft_id, DRAFT);
    assert_true(model_state(&f, DRAFT).expires_ns == INT64_MAX);
    step_ends(&f, 1);
    assert_true(model_state(&f, DRAFT).expires_ns == model_state(&f, TARGET).expires_ns);
    f.now += 499 * MS;
    assert_int_equal(next(&f)->kind, SCHED_PLAN_IDLE);
    f.now += 2 * MS;
    for (u32 i = 0; i < 2; i++) {
        assert_int_equal(next(&f)->kind, SCHED_PLAN_UNLOAD);
        unloaded(&f, f.plan.model_id);
    }
    assert_int_equal(state(&f).weights_bytes + state(&f).scratch_bytes, 0);
    f.now += MS; /* the next request finds both again */
    arrive_with(&f, 2, FOR_EVER);
    settle(&f);
    prompt(&f, 2, 10, 100);
    next(&f);
    step(&f);
    assert_int_equal(settle(&f), 1);
    assert_true(model_state(&f, DRAFT).loaded);
    fixture_release(&f);
}

/* Goal: one that its own requests have loaded guesses too, as soon as its cache can be booked; and it stays
 * as long as either needs it. */
static void test_loaded_before(void **state_) {
    (void)state_;
    struct fixture f;
    models_add(&f, config_default());
    arrive_keep(&f, 100, DRAFT, 50 * (i64)MS);
    tell(&f, (struct sched_event){.kind = SCHED_PROMPT, .request_id = 100, .prompt = {.load_only = true}});
    settle(&f);
    assert_int_equal(state(&f).scratch_bytes, MIB);
    decode(&f, 1, 2000, 0);
    assert_int_equal(next(&f)->draft_id, DRAFT);
    assert_int_equal(state(&f).scratch_bytes, (1 + 1 + 8) * MIB);
    step(&f);
    f.now += 60 * MS;
    assert_int_equal(settle(&f), 0);
    assert_true(model_state(&f, DRAFT).loaded);
    step_ends(&f, 1);
    settle(&f);
    assert_false(model_state(&f, DRAFT).loaded || model_state(&f, TARGET).loaded);
    fixture_release(&f);
}

/* Goal: without room for it beside what runs in its full length the target runs alone, at the very same limit
 * as without a draft; and one that could not be loaded is not tried again and again. */
static void test_no_room(void **state_) {
    (void)state_;
    struct fixture f;
    struct sched_config c = config_default();
    /* 10 fixed, 101 the target, 4 for 138 tokens; 29 the draft. */
    for (u32 missing = 0; missing < 2; missing++) {
        c.memory_limit_bytes = (10 + 101 + 4 + 29) * MIB - missing;
        models_add(&f, c);
        decode(&f, 1, 128, FOR_EVER);
        assert_true(model_state(&f, DRAFT).loaded == !missing);
        assert_int_equal(model_state(&f, TARGET).n_running, 1);
        fixture_release(&f);
    }
    models_add(&f, config_default());
    arrive_with(&f, 1, FOR_EVER);
    settle(&f);
    prompt(&f, 1, 10, 2000);
    next(&f);
    step(&f);
    assert_int_equal(next(&f)->kind, SCHED_PLAN_LOAD);
    loaded(&f, DRAFT, ERR_CORRUPT);
    for (u32 i = 0; i < 100; i++) {
        assert_int_equal(next(&f)->kind, SCHED_PLAN_STEP);
        assert_int_equal(f.n_notices, 0);
        step(&f);
    }
    fixture_release(&f);
}

/* Goal: it goes before anybody is parked or kept waiting for pages. */
static void test_gives_way(void **state_) {
    (void)state_;
    struct fixture f;
    for (u32 by_growing = 0; by_growing < 2; by_growing++) {
        models_add(&f, config_default());
        decode(&f, 2, by_growing ? 700 : 100, FOR_EVER);
        assert_true(model_state(&f, DRAFT).loaded);
        if (!by_growing) {
            arrive_with(&f, 3, FOR_EVER);
            prompt(&f, 3, 1300, 10);
        }
        limit(&f, (10 + 101 + 29 + 6) * MIB); /* 6 pages, with those of the draft 35 */
        for (u32 i = 0; i < 600 && model_state(&f, DRAFT).loaded; i++) {
            settle(&f);
            if (f.plan.kind == SCHED_PLAN_STEP)
                step(&f);
        }
        assert_false(model_state(&f, DRAFT).loaded);
        assert_int_equal(state(&f).n_parked_total, 0);
        for (u32 i = 0; i < 20; i++) {
            settle(&f);
            step(&f);
        }
        assert_int_equal(state(&f).n_running, by_growing ? 2 : 3);
        assert_int_equal(state(&f).n_parked_total, 0);
        assert_false(model_state(&f, DRAFT).loaded);
        fixture_release(&f);
    }
}

/* ---------------------------------------------------------------- how many guesses */

/* A pass of the draft model takes this long for each row, and ten times as long besides. */
static u64 pass_row_ns;

static struct {
    f64 ns;
    u32 n_tokens, n_wanted;
} run;

/* Reports the planned step: the draft model makes the guesses that are wanted, each comes true with this
 * chance. */
static void step_with(struct fixture *f, u32 percent, u64 *random) {
    static const u32 guess[LIMIT_DRAFT + 1] = {0}, other = 100;
    struct sched_result results[LIMIT_RUNNING];
    u32 n_passes = 0, n_rows = 0;
    run.n_tokens = 0;
    for (u32 i = 0; i < f->plan.n_items; i++) {
        const struct sched_item *item = &f->plan.items[i];
        u32 n_true = 0;
        while (n_true < item->n_drafts && random_percent(random, percent))
            n_true++;
        results[i] = (struct sched_result){.request_id = item->request_id,
                                           .n_agreed = n_true,
                                           .tokens = &other,
                                           .n_tokens = item->n_logits > 0,
                                           .draft = guess,
                                           .n_draft = item->n_wanted,
                                           .drafted = item->n_wanted > 0};
        run.n_tokens += n_true + 1;
        run.n_wanted = item->n_wanted;
        n_passes = MAX(n_passes, item->n_wanted);
        n_rows += item->n_wanted;
    }
    run.ns = (f64)step_report(f, (struct sched_step){.results = results,
                                                     .draft_ns = n_passes * 10 * pass_row_ns + n_rows * pass_row_ns,
                                                     .n_draft_passes = n_passes,
                                                     .n_draft_rows = n_rows});
}

/* Time of 20 answers of 100 steps in a crowd of n, over the time for the same tokens without guesses. */
static f64 cost_of(u32 n, u32 percent, u64 *random) {
    f64 ns = 0, alone_ns = 0;
    for (u32 answer = 0; answer < 20; answer++) {
        struct fixture f;
        models_add(&f, config_default());
        decode(&f, n, 2000, FOR_EVER);
        for (u32 i = 0; i < 100; i++) {
            next(&f);
            step_with(&f, percent, random);
            ns += run.ns;
            alone_ns += (f64)run.n_tokens / n * (f64)(MS + n * MS / 10);
        }
        fixture_release(&f);
    }
    return ns / alone_ns;
}

/* Goal: guesses that come true gain, the more the cheaper a pass is; those that don't, or cost as much as the
 * target's own steps, are soon not asked for: at most 4 % of an answer of 100 tokens; and nothing is asked
 * for in a full step. */
static void test_what_it_costs(void **state_) {
    (void)state_;
    static const u32 crowds[] = {1, 4, 8, 9, 16}, percents[] = {0, 10, 30, 50, 80, 95};
    static const u64 rows_ns[] = {MS / 100, MS / 30, MS / 10};
    u64 random = 99;
    for (u32 d = 0; d < ARRAY_LEN(rows_ns); d++)
        for (u32 k = 0; k < ARRAY_LEN(crowds); k++)
            for (u32 p = 0; p < ARRAY_LEN(percents); p++) {
                pass_row_ns = rows_ns[d];
                f64 cost = cost_of(crowds[k], percents[p], &random);
                if (cost > 1.04)
                    fail_msg("%u streams, %u %%, passes of %.2f: %.3f", crowds[k], percents[p],
                             (f64)pass_row_ns / (MS / 10), cost);
                if (crowds[k] > 8)
                    assert_int_equal(run.n_wanted, 0);
                if (percents[p] == 95 && crowds[k] == 1)
                    assert_true(cost < (d == 0 ? 0.4 : d == 1 ? 0.65 : 1.01));
            }
}

/* Goal: the text's own guesses come first while they come true as often; each request has its own chances,
 * and nobody without a draft model is asked for. */
static void test_who_is_asked(void **state_) {
    (void)state_;
    struct fixture f;
    u64 random = 5;
    models_add(&f, config_default());
    pass_row_ns = MS / 100;
    decode(&f, 1, 2000, FOR_EVER);
    next(&f);
    assert_true(item_of(&f, 1)->n_wanted > 0 && item_of(&f, 1)->text_first);
    for (u32 i = 0; i < 10; i++) {
        step_with(&f, 100, &random);
        next(&f);
    }
    assert_true(!item_of(&f, 1)->text_first);
    arrive(&f, 9, TARGET);
    prompt(&f, 9, 10, 2000);
    for (u32 i = 0; i < 3; i++) {
        step_with(&f, 100, &random);
        next(&f);
    }
    assert_true(item_of(&f, 1)->n_wanted > 2);
    assert_int_equal(item_of(&f, 9)->n_wanted, 0);
    for (u32 i = 0; i < 30; i++) {
        step_with(&f, 0, &random);
        next(&f);
    }
    assert_int_equal(item_of(&f, 1)->n_wanted, 0);
    assert_true(item_of(&f, 1)->text_first);
    u32 n = 0;
    for (; n < 400 && item_of(&f, 1)->n_wanted == 0; n++) { /* what was learned fades */
        step_with(&f, 0, &random);
        next(&f);
    }
    assert_in_range(n, 20, 399);
    fixture_release(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_with_its_target), cmocka_unit_test(test_loaded_before),
        cmocka_unit_test(test_no_room),         cmocka_unit_test(test_gives_way),
        cmocka_unit_test(test_what_it_costs),   cmocka_unit_test(test_who_is_asked),
    };
    return cmocka_run_group_tests_name("sched_draft_model", tests, NULL, NULL);
}
