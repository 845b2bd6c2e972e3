/* Steps: rows and slices, shares, single flight, turns between models. */
#include "sched_fixture.h"

/* Runs steps until all requests decode. */
static void run_to_decode(struct fixture *f, u32 n) {
    for (u32 i = 0; i < 1000; i++) {
        next(f);
        u32 n_single = 0;
        for (u32 k = 0; k < f->plan.n_items; k++)
            n_single += f->plan.items[k].n_tokens == 1 && f->plan.items[k].n_logits;
        step(f);
        if (n_single == n)
            return;
    }
    fail();
}

/* Goal: every decoding request has a row in every step, a joining prompt its slice in the very next, shared
 * equally with other prompts, at least 16 tokens in total, and the step stays near its target. */
static void test_decode_and_slices(void **state_) {
    (void)state_;
    struct fixture f;
    fixture_init(&f, config_default());
    model_add(&f, 1);
    for (u64 id = 1; id <= 4; id++)
        arrive(&f, id, 1);
    settle(&f);
    for (u64 id = 1; id <= 4; id++)
        prompt(&f, id, 10, 2000);
    run_to_decode(&f, 4);
    for (u64 id = 5; id <= 6; id++) {
        arrive(&f, id, 1);
        prompt(&f, id, 1000, 100);
    }
    u32 slices = 0;
    for (u32 done[2] = {0}; done[0] < 1000; slices++) {
        next(&f);
        for (u64 id = 1; id <= 4; id++)
            assert_int_equal(item_of(&f, id)->n_tokens, 1);
        u32 a = item_of(&f, 5)->n_tokens, b = item_of(&f, 6)->n_tokens;
        if (done[0] + a < 1000) {
            assert_in_range(a, b, b + 1);
            assert_true(a + b >= 16);
        }
        assert_true(f.plan.n_rows * MS / 10 + MS <= 22 * MS); /* 20 ms and what learning is off */
        done[0] += a;
        done[1] += b;
        step(&f);
    }
    /* base / per row = 10, so 100 rows are within 10 % of the best: about 2000 / 100 steps */
    assert_in_range(slices, 15, 40);
    fixture_release(&f);
}

/* Goal: without decoding rows a slice takes up to 50 ms. */
static void test_long_slices_alone(void **state_) {
    (void)state_;
    struct fixture f;
    fixture_init(&f, config_default());
    model_add(&f, 1);
    arrive(&f, 1, 1);
    settle(&f);
    prompt(&f, 1, 4000, 10);
    u32 longest = 0;
    for (u32 done = 0; done < 4000;) {
        next(&f);
        done += f.plan.n_rows;
        longest = MAX(longest, f.plan.n_rows);
        step(&f);
    }
    assert_in_range(longest, 400, 512);
    fixture_release(&f);
}

/* Goal: slice_force cuts prompts as told. */
static void test_slice_force(void **state_) {
    (void)state_;
    for (u32 force = 1; force <= 64; force = force == 1 ? 7 : force == 7 ? 64 : 65) {
        struct fixture f;
        struct sched_config c = config_default();
        c.slice_force = force;
        fixture_init(&f, c);
        model_add(&f, 1);
        arrive(&f, 1, 1);
        settle(&f);
        prompt(&f, 1, 100, 10);
        for (u32 at = 0; at < 100; at += force) {
            next(&f);
            assert_int_equal(f.plan.items[0].n_tokens, MIN(force, 100 - at));
            step(&f);
        }
        fixture_release(&f);
    }
}

/* Goal: eight simultaneous requests with 1,000 tokens in common compute them once, and each of the rest its
 * own (and what follows the last whole page); a follower whose owner is cancelled goes on itself. */
static void single_flight(bool cancel_owner) {
    struct fixture f;
    u32 tokens[1040], rows = 0, n_ended = 0;
    fixture_init(&f, config_default());
    model_add(&f, 1);
    for (u64 id = 1; id <= 8; id++)
        arrive(&f, id, 1);
    settle(&f);
    for (u64 id = 1; id <= 8; id++) {
        for (u32 i = 0; i < 1040; i++)
            tokens[i] = i < 1000 ? i : (u32)id * 10000 + i;
        prompt_tokens(&f, id, tokens, 1040, 4, 2000);
    }
    for (u32 i = 0; n_ended < 8u - cancel_owner; i++) {
        next(&f);
        assert_int_equal(f.plan.kind, SCHED_PLAN_STEP);
        rows += f.plan.n_rows;
        if (i == 5 && cancel_owner)
            cancel(&f, 1);
        u64 ended = 0;
        for (u32 k = 0; k < f.plan.n_items && !ended; k++)
            if (f.plan.items[k].n_logits)
                ended = f.plan.items[k].request_id;
        step_ends(&f, ended);
        n_ended += ended > 0;
        assert_true(i < 200);
    }
    assert_true(rows < 1040 + 7 * (40 + 64) + 64);
    fixture_release(&f);
}
static void test_single_flight(void **state_) {
    (void)state_;
    single_flight(false);
}
static void test_single_flight_cancelled(void **state_) {
    (void)state_;
    single_flight(true);
}

/* Goal: two models that both fit take turns by measured time: the one whose steps cost three times as much
 * gets a third of the steps. */
static void test_turns(void **state_) {
    (void)state_;
    struct fixture f;
    fixture_init(&f, config_default());
    model_add(&f, 1);
    model_add(&f, 2);
    arrive(&f, 1, 1);
    arrive(&f, 2, 2);
    settle(&f);
    prompt(&f, 1, 4, 4000);
    prompt(&f, 2, 4, 4000);
    u32 steps[3] = {0};
    u64 time[3] = {0};
    for (u32 i = 0; i < 400; i++) {
        static const u32 seven = 7;
        next(&f);
        u32 m = f.plan.model_id;
        assert_int_equal(f.plan.n_items, 1);
        struct sched_result r = {.request_id = m, .tokens = &seven, .n_tokens = 1};
        u64 duration = m == 1 ? 3 * MS : MS;
        steps[m]++;
        time[m] += duration;
        f.now += duration;
        tell(&f, (struct sched_event){.kind = SCHED_STEP,
                                      .step = {.duration_ns = duration, .results = &r, .n_results = 1}});
    }
    assert_in_range(steps[1], 97, 103);
    assert_true(time[1] > time[2] * 95 / 100 && time[2] > time[1] * 95 / 100);
    fixture_release(&f);
}

/* Goal: a model that was idle has no claim on the past: it doesn't get all steps until it has caught up. */
static void test_turns_after_idle(void **state_) {
    (void)state_;
    struct fixture f;
    fixture_init(&f, config_default());
    model_add(&f, 1);
    model_add(&f, 2);
    arrive(&f, 1, 1);
    settle(&f);
    prompt(&f, 1, 4, 4000);
    for (u32 i = 0; i < 500; i++) {
        next(&f);
        step(&f);
    }
    arrive(&f, 2, 2);
    settle(&f);
    step(&f);
    prompt(&f, 2, 4, 4000);
    u32 n = 0;
    for (u32 i = 0; i < 20; i++) {
        next(&f);
        n += f.plan.model_id == 1;
        step(&f);
    }
    assert_in_range(n, 8, 12);
    fixture_release(&f);
}

/* Goal: the cap on running requests is kept, and never above half the rows of a step. */
static void test_parallel_cap(void **state_) {
    (void)state_;
    for (u32 cap = 0; cap <= 3; cap++) {
        struct fixture f;
        struct sched_config c = config_default();
        c.parallel_max = cap;
        c.rows_max = 32;
        fixture_init(&f, c);
        model_add(&f, 1);
        for (u64 id = 1; id <= 40; id++)
            arrive(&f, id, 1);
        settle(&f);
        for (u64 id = 1; id <= 40; id++)
            prompt(&f, id, 4, 100);
        for (u32 i = 0; i < 10; i++) {
            next(&f);
            assert_true(f.plan.n_rows <= 32);
            assert_int_equal(state(&f).n_running, cap ? cap : 16);
            step(&f);
        }
        fixture_release(&f);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_decode_and_slices),
        cmocka_unit_test(test_long_slices_alone),
        cmocka_unit_test(test_slice_force),
        cmocka_unit_test(test_single_flight),
        cmocka_unit_test(test_single_flight_cancelled),
        cmocka_unit_test(test_turns),
        cmocka_unit_test(test_turns_after_idle),
        cmocka_unit_test(test_parallel_cap),
    };
    return cmocka_run_group_tests_name("sched_plan", tests, NULL, NULL);
}
