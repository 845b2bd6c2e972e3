/* The queue: life of a request, order, the bound and its 503, positions, cancel in every state. */
#include "sched_fixture.h"

/* Goal: one request from arrival to the end, with every notice, plan and figure on the way. */
static void test_life(void **state_) {
    (void)state_;
    struct fixture f;
    fixture_init(&f, config_default());
    model_add(&f, 1);
    arrive(&f, 10, 1);
    assert_int_equal(next(&f)->kind, SCHED_PLAN_LOAD);
    assert_int_equal(f.n_notices, 0); /* not asked for its prompt before the model is there */
    assert_true(model_state(&f, 1).loading);
    assert_true(state(&f).weights_bytes == 100 * MIB && state(&f).n_waiting == 1);
    assert_int_equal(next(&f)->kind, SCHED_PLAN_IDLE);
    f.now += 50 * MS;
    loaded(&f, 1, OK);
    assert_int_equal(next(&f)->kind, SCHED_PLAN_IDLE);
    assert_non_null(notice_of(&f, 10, SCHED_NOTICE_WANTED));
    assert_int_equal(next(&f)->n_notices, 0); /* once */
    f.now += 5 * MS;
    prompt(&f, 10, 20, 50);
    assert_int_equal(next(&f)->kind, SCHED_PLAN_STEP);
    const struct sched_notice *n = notice_of(&f, 10, SCHED_NOTICE_STARTED);
    assert_non_null(n);
    assert_true(n->queue_ns == 55 * MS && n->load_ns == 50 * MS && n->n_cached == 0);
    assert_int_equal(f.plan.n_items, 1);
    assert_int_equal(f.plan.items[0].n_tokens, 16); /* the first slice, nothing is known of the cost */
    assert_int_equal(f.plan.items[0].n_logits, 0);
    step(&f);
    next(&f);
    assert_int_equal(f.plan.items[0].pos0, 16);
    assert_int_equal(f.plan.items[0].n_tokens, 4);
    assert_int_equal(f.plan.items[0].n_logits, 1);
    step(&f);
    for (u32 i = 0; i < 3; i++) {
        next(&f);
        assert_int_equal(f.n_notices, 0);
        assert_int_equal(f.plan.items[0].pos0, 20 + i);
        assert_int_equal(f.plan.items[0].n_tokens, 1);
        assert_int_equal(f.plan.items[0].tokens[0], 7);
        step_ends(&f, i == 2 ? 10 : 0);
    }
    assert_int_equal(next(&f)->kind, SCHED_PLAN_IDLE);
    assert_true(f.plan.wake_ns == UINT64_MAX); /* kept for ever */
    assert_int_equal(state(&f).n_running + state(&f).n_waiting, 0);
    assert_int_equal(state(&f).n_steps_total, 5);
    assert_true(state(&f).kv_cached_bytes == 1 * MIB);
    assert_true(state(&f).tokens_per_s > 0);
    fixture_release(&f);
}

/* Goal: the next turn of a conversation finds the pages of the one before. */
static void test_cached_turn(void **state_) {
    (void)state_;
    struct fixture f;
    u32 tokens[200];
    for (u32 i = 0; i < 200; i++)
        tokens[i] = i < 100 ? i : 7;
    fixture_init(&f, config_default());
    model_add(&f, 1);
    arrive(&f, 10, 1);
    settle(&f);
    prompt_tokens(&f, 10, tokens, 100, 50, 1000);
    for (u32 i = 0; i < 40; i++) {
        next(&f);
        step_ends(&f, i == 39 ? 10 : 0);
    }
    u32 computed = 0;
    arrive(&f, 11, 1);
    prompt_tokens(&f, 11, tokens, 110, 50, 1000);
    next(&f);
    computed = notice_of(&f, 11, SCHED_NOTICE_STARTED)->n_cached;
    assert_int_equal(computed, 109);
    assert_int_equal(f.plan.items[0].pos0, 109);
    step_ends(&f, 11);
    fixture_release(&f);
}

/* Goal: the bound counts every waiting request; over it the reference's text and a Retry-After that says how
 * long a place takes at the measured rate. Method: cap 1; one request ends every 2 s. */
static void test_bound(void **state_) {
    (void)state_;
    struct fixture f;
    struct sched_config c = config_default();
    c.queue_max = 3;
    c.parallel_max = 1;
    fixture_init(&f, c);
    model_add(&f, 1);
    arrive(&f, 1, 1);
    settle(&f);
    prompt(&f, 1, 4, 100);
    next(&f);
    step(&f);
    u64 id = 2;
    for (; id <= 4; id++) {
        arrive(&f, id, 1);
        prompt(&f, id, 4, 100);
    }
    next(&f);
    assert_int_equal(state(&f).n_waiting, 3);
    step(&f);
    arrive(&f, 99, 1);
    next(&f);
    const struct sched_notice *n = notice_of(&f, 99, SCHED_NOTICE_REJECTED);
    assert_non_null(n);
    assert_int_equal(n->status, ERR_BUSY);
    assert_string_equal(n->text, "server busy, please try again.  maximum pending requests exceeded");
    assert_true(n->retry_after_s >= 1);
    step(&f);
    for (u64 running = 1; running < 20; running++) { /* one ends, the next starts, one more arrives */
        next(&f);
        step_ends(&f, running);
        next(&f);
        assert_non_null(item_of(&f, running + 1));
        step(&f);
        arrive(&f, id, 1);
        prompt(&f, id++, 4, 100);
        f.now += 2000 * MS;
    }
    arrive(&f, 100, 1);
    arrive(&f, 101, 1);
    next(&f);
    u32 first = notice_of(&f, 100, SCHED_NOTICE_REJECTED)->retry_after_s;
    u32 second = notice_of(&f, 101, SCHED_NOTICE_REJECTED)->retry_after_s;
    assert_in_range(first, 2, 4);
    assert_in_range(second, first + 1, 6);
    assert_int_equal(state(&f).n_rejected_total, 3);
    step(&f);
    cancel(&f, id - 1); /* a dead one never counts */
    arrive(&f, 102, 1);
    next(&f);
    assert_null(notice_of(&f, 102, SCHED_NOTICE_REJECTED));
    step(&f);
    tell(&f,
         (struct sched_event){.kind = SCHED_ARRIVE, .request_id = 103, .model_id = 1, .readmitted = true});
    next(&f);
    assert_null(notice_of(&f, 103, SCHED_NOTICE_REJECTED)); /* was taken before a crash */
    step(&f);
    fixture_release(&f);
}

/* Goal: with places free a burst that is only being tokenized is not refused. */
static void test_bound_and_free_places(void **state_) {
    (void)state_;
    struct fixture f;
    struct sched_config c = config_default();
    c.queue_max = 2;
    c.parallel_max = 4;
    fixture_init(&f, c);
    model_add(&f, 1);
    arrive(&f, 1, 1);
    settle(&f);
    for (u64 id = 2; id <= 8; id++)
        arrive(&f, id, 1);
    next(&f);
    for (u64 id = 1; id <= 8; id++) /* 4 places, 2 wait */
        assert_int_equal(notice_of(&f, id, SCHED_NOTICE_REJECTED) != NULL, id > 6);
    fixture_release(&f);
}

/* Goal: admission in order of arrival, whatever the order of the prompts; a head without a prompt lets
 * ready ones pass. */
static void test_fifo(void **state_) {
    (void)state_;
    struct fixture f;
    struct sched_config c = config_default();
    c.parallel_max = 2;
    fixture_init(&f, c);
    model_add(&f, 1);
    for (u64 id = 1; id <= 5; id++)
        arrive(&f, id, 1);
    settle(&f);
    for (u64 id = 5; id >= 2; id--)
        prompt(&f, id, 10, 100);
    next(&f);
    assert_non_null(item_of(&f, 2));
    assert_non_null(item_of(&f, 3));
    assert_int_equal(f.plan.n_items, 2);
    step(&f);
    prompt(&f, 1, 10, 100);
    next(&f);
    assert_null(item_of(&f, 1));
    step_ends(&f, 3);
    next(&f);
    assert_non_null(item_of(&f, 1)); /* before 4 and 5, who were ready earlier */
    assert_null(item_of(&f, 4));
    u32 position, eta_ms;
    assert_true(sched_position(f.s, 5, &position, &eta_ms));
    assert_int_equal(position, 1);
    assert_true(eta_ms > 0);
    assert_false(sched_position(f.s, 1, &position, &eta_ms));
    step(&f);
    fixture_release(&f);
}

/* Goal: cancel frees a request at once in every state, in a running step when the step ends; unknown and
 * repeated ones are ignored; nobody else notices. */
static void test_cancel(void **state_) {
    (void)state_;
    struct fixture f;
    struct sched_config c = config_default();
    c.parallel_max = 2;
    fixture_init(&f, c);
    model_add(&f, 1);
    arrive(&f, 1, 1);
    next(&f); /* LOAD */
    cancel(&f, 1);
    assert_int_equal(state(&f).n_waiting, 0);
    loaded(&f, 1, OK); /* the load is not in vain */
    next(&f);
    for (u64 id = 2; id <= 5; id++)
        arrive(&f, id, 1);
    next(&f);
    cancel(&f, 2); /* asked for its prompt, which comes too late */
    prompt(&f, 2, 10, 10);
    prompt(&f, 3, 100, 10);
    prompt(&f, 4, 4, 10);
    prompt(&f, 5, 4, 10);
    next(&f);
    assert_non_null(item_of(&f, 3));
    assert_non_null(item_of(&f, 4));
    cancel(&f, 3); /* in a step, in its prompt */
    cancel(&f, 3);
    cancel(&f, 12345);
    assert_int_equal(state(&f).n_running, 2);
    step(&f);
    assert_int_equal(state(&f).n_running, 1);
    next(&f);
    assert_null(item_of(&f, 3));
    assert_non_null(item_of(&f, 5)); /* has its place within a step */
    step(&f);
    cancel(&f, 4); /* decoding, between steps */
    assert_int_equal(state(&f).n_running, 1);
    next(&f);
    assert_int_equal(f.plan.n_items, 1);
    tell(&f, (struct sched_event){.kind = SCHED_CANCEL, .request_id = 5, .status = ERR_INTERNAL});
    u64 cached = state(&f).kv_cached_bytes;
    step(&f);
    assert_true(state(&f).kv_cached_bytes == cached); /* after an error its pages are not kept */
    assert_int_equal(next(&f)->kind, SCHED_PLAN_IDLE);
    fixture_release(&f);
}

/* Goal: an engine crash: the tokens so far come back as one sequence, its length still bounded as before. */
static void test_readmitted(void **state_) {
    (void)state_;
    struct fixture f;
    u32 tokens[30] = {0};
    fixture_init(&f, config_default());
    model_add(&f, 1);
    tell(&f, (struct sched_event){.kind = SCHED_ARRIVE, .request_id = 1, .model_id = 1, .readmitted = true});
    settle(&f);
    tell(&f, (struct sched_event){
                 .kind = SCHED_PROMPT,
                 .request_id = 1,
                 .prompt = {.tokens = tokens, .n_tokens = 30, .predict_max = 60, .num_ctx = 64}});
    u32 rows = 0;
    for (u32 i = 0; i < 2; i++) {
        next(&f);
        rows += f.plan.n_rows;
        step(&f);
    }
    assert_int_equal(rows, 30);
    next(&f);
    assert_int_equal(f.plan.items[0].pos0, 30);
    step_ends(&f, 1);
    fixture_release(&f);
}

/* Goal: a shift gives the request a new sequence, prefilled anew; the client hears no second start. */
static void test_shift(void **state_) {
    (void)state_;
    struct fixture f;
    fixture_init(&f, config_default());
    model_add(&f, 1);
    arrive(&f, 1, 1);
    settle(&f);
    prompt(&f, 1, 10, 100);
    next(&f);
    u32 fresh[6] = {1, 2, 3, 4, 5, 6};
    struct sched_result r = {.request_id = 1, .outcome = SCHED_SHIFT, .tokens = fresh, .n_tokens = 6};
    tell(&f, (struct sched_event){.kind = SCHED_STEP,
                                  .step = {.duration_ns = MS, .results = &r, .n_results = 1}});
    next(&f);
    assert_int_equal(f.n_notices, 0);
    assert_int_equal(f.plan.items[0].pos0, 0);
    assert_int_equal(f.plan.items[0].n_tokens, 6);
    assert_memory_equal(f.plan.items[0].tokens, fresh, sizeof fresh);
    step_ends(&f, 1);
    fixture_release(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_life),       cmocka_unit_test(test_cached_turn),
        cmocka_unit_test(test_bound),      cmocka_unit_test(test_bound_and_free_places),
        cmocka_unit_test(test_fifo),       cmocka_unit_test(test_cancel),
        cmocka_unit_test(test_readmitted), cmocka_unit_test(test_shift),
    };
    return cmocka_run_group_tests_name("sched_queue", tests, NULL, NULL);
}
