/* Encoders: whole inputs in a step, the shares of those who compete, and what is longer than a step. */
#include "sched_fixture.h"

static void encoder_add(struct fixture *f, u32 id) {
    tell(f, (struct sched_event){.kind = SCHED_MODEL,
                                 .model = {.model_id = id,
                                           .identity = 77 + id,
                                           .weights_bytes = 100 * MIB,
                                           .scratch_bytes = MIB,
                                           .encoder = true}});
}

static struct sched_config config(void) {
    struct sched_config c = config_default();
    c.inputs_max = 16;
    return c;
}

/* A request of n inputs of `length` tokens. */
static void inputs(struct fixture *f, u64 id, u32 n, u32 length) {
    static u32 tokens[65536], ends[4096];
    assert_true(n * length <= ARRAY_LEN(tokens) && n <= ARRAY_LEN(ends));
    for (u32 i = 0; i < n; i++)
        ends[i] = (i + 1) * length;
    tell(f, (struct sched_event){.kind = SCHED_PROMPT,
                                 .request_id = id,
                                 .prompt = {.tokens = tokens,
                                            .n_tokens = n * length,
                                            .predict_max = 1,
                                            .num_ctx = n * length + 1,
                                            .ends = ends,
                                            .n_ends = n}});
}

/* Reports the step; an item that ends at last[id] finishes its request. */
static void report(struct fixture *f, const u32 *last) {
    struct sched_result results[64];
    for (u32 i = 0; i < f->plan.n_items; i++) {
        const struct sched_item *it = &f->plan.items[i];
        assert_null(it->seq);
        assert_int_equal(it->n_logits, 0);
        results[i] = (struct sched_result){.request_id = it->request_id};
        if (it->pos0 + it->n_tokens == last[it->request_id])
            results[i].outcome = SCHED_FINISH;
    }
    step_report(f, (struct sched_step){.results = results});
}

static void start(struct fixture *f, struct sched_config c, u32 n) {
    fixture_init(f, c);
    encoder_add(f, 1);
    for (u64 id = 1; id <= n; id++)
        arrive(f, id, 1);
    settle(f);
}

/* Goal: no input is cut; several share a step, at most inputs_max; one after the other until the last. */
static void test_whole_inputs(void **state_) {
    (void)state_;
    struct fixture f;
    u32 last[2] = {0, 100 * 7}, done = 0;
    start(&f, config(), 1);
    inputs(&f, 1, 100, 7);
    for (u32 i = 0; done < 700; i++) {
        assert_true(i < 100);
        next(&f);
        assert_int_equal(f.plan.items[0].pos0, done);
        assert_int_equal(f.plan.n_rows % 7, 0);
        assert_true(f.plan.n_rows <= 16 * 7);
        done += f.plan.n_rows;
        if (i == 3)
            assert_int_equal(f.plan.n_rows, 16 * 7); /* the cost is known by now */
        report(&f, last);
    }
    next(&f);
    assert_int_equal(f.plan.kind, SCHED_PLAN_IDLE);
    assert_int_equal(state(&f).n_running, 0);
    fixture_release(&f);
}

/* Goal: an input that is longer than any step is computed alone. */
static void test_long_input(void **state_) {
    (void)state_;
    struct fixture f;
    u32 last[3] = {0, 5000, 300};
    start(&f, config(), 2);
    inputs(&f, 1, 1, 5000);
    inputs(&f, 2, 30, 10);
    bool seen = false;
    for (u32 i = 0; i < 200 && state(&f).n_running + state(&f).n_waiting > 0; i++) {
        next(&f);
        if (f.plan.n_rows >= 5000) {
            assert_int_equal(f.plan.n_items, 1);
            assert_int_equal(f.plan.n_rows, 5000);
            seen = true;
        } else {
            assert_true(f.plan.n_rows <= 512);
        }
        report(&f, last);
    }
    assert_true(seen);
    assert_int_equal(state(&f).n_running, 0);
    fixture_release(&f);
}

/* Goal: whatever the length of their inputs, requests that compete get the same share of the rows. Method:
 * many short inputs against few long ones that do not fit a step beside others; at any time the difference is
 * less than what one step and one long input make. */
static void test_equal_shares(void **state_) {
    (void)state_;
    struct fixture f;
    u32 last[4] = {0, 30000, 30000, 30000}, rows[4] = {0};
    struct sched_config c = config();
    c.inputs_max = 64;
    start(&f, c, 3);
    inputs(&f, 1, 3000, 10);
    inputs(&f, 2, 60, 500);
    inputs(&f, 3, 300, 100);
    for (u32 i = 0; state(&f).n_running == 3 || i < 10; i++) {
        next(&f);
        for (u32 k = 0; k < f.plan.n_items; k++)
            rows[f.plan.items[k].request_id] += f.plan.items[k].n_tokens;
        report(&f, last);
        for (u32 a = 1; a <= 3 && i > 20; a++)
            for (u32 b = 1; b <= 3; b++)
                if (rows[a] > rows[b] + 1500)
                    fail_msg("step %u: request %u has had %u rows, request %u %u", i, a, rows[a], b, rows[b]);
    }
    assert_true(rows[1] > 20000 && rows[2] > 20000 && rows[3] > 20000);
    fixture_release(&f);
}

/* Goal: who comes later is not kept waiting by credit that another could not spend, because the number of
 * inputs limits its steps. */
static void test_newcomer(void **state_) {
    (void)state_;
    struct fixture f;
    u32 last[3] = {0, 8000, 200};
    start(&f, config(), 2);
    inputs(&f, 1, 4000, 2);
    for (u32 i = 0; i < 100; i++) {
        next(&f);
        report(&f, last);
    }
    inputs(&f, 2, 100, 2);
    u32 n_steps = 0;
    for (; state(&f).n_running + state(&f).n_waiting == 2; n_steps++) {
        assert_true(n_steps < 20); /* 16 inputs in every other step: 13 */
        next(&f);
        report(&f, last);
    }
    assert_true(n_steps >= 12);
    fixture_release(&f);
}

/* Goal: an encoder takes no pages and gives none up: its request is not parked for a generating one. */
static void test_beside_a_generating_model(void **state_) {
    (void)state_;
    struct fixture f;
    fixture_init(&f, config());
    encoder_add(&f, 1);
    model_add(&f, 2);
    arrive(&f, 1, 1);
    arrive(&f, 2, 2);
    settle(&f);
    inputs(&f, 1, 50, 100);
    prompt(&f, 2, 100, 50);
    bool both = false;
    for (u32 i = 0; i < 20; i++) {
        u32 last[3] = {0};
        next(&f);
        both = both || state(&f).n_running == 2;
        if (f.plan.model_id == 1)
            report(&f, last);
        else
            step(&f);
    }
    assert_true(both);
    assert_int_equal(state(&f).n_parked_total, 0);
    cancel(&f, 1);
    cancel(&f, 2);
    assert_int_equal(state(&f).n_running, 0);
    fixture_release(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whole_inputs),
        cmocka_unit_test(test_long_input),
        cmocka_unit_test(test_equal_shares),
        cmocka_unit_test(test_newcomer),
        cmocka_unit_test(test_beside_a_generating_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
