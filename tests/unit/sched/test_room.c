/* Memory for pages: eviction, parking and its order, refusal, limits that change, a system without memory. */
#include "sched_fixture.h"

/* The model and kv_mib for pages: 1 MiB per 64 tokens, in extents of 2. */
static struct sched_config config_kv(u32 kv_mib) {
    struct sched_config c = config_default();
    c.memory_limit_bytes = (10 + 101 + kv_mib) * MIB;
    return c;
}

static bool is_running(struct fixture *f, u64 id) {
    u32 position, eta_ms;
    return !sched_position(f->s, id, &position, &eta_ms);
}

/* n requests of n_prompt tokens that may grow to n_max, all decoding. */
static void start(struct fixture *f, u32 n, u32 n_prompt, u32 n_max) {
    model_add(f, 1);
    for (u64 id = 1; id <= n; id++)
        arrive(f, id, 1);
    settle(f);
    for (u64 id = 1; id <= n; id++)
        prompt(f, id, n_prompt, n_max - n_prompt);
}

/* Goal: when pages run out the youngest is parked, then the next youngest, never the oldest; none fails;
 * parked ones resume oldest first and before a new arrival; what was computed is found in the cache if there.
 */
static void test_parking_order(void **state_) {
    (void)state_;
    struct fixture f;
    fixture_init(&f, config_kv(8));
    start(&f, 4, 60, 500);
    for (u32 i = 0; i < 320; i++) {
        assert_int_equal(next(&f)->kind, SCHED_PLAN_STEP);
        assert_non_null(item_of(&f, 1));
        for (u64 id = 2; id <= 4; id++)
            assert_true(is_running(&f, id - 1) || !is_running(&f, id));
        /* 8 pages: a fourth would leave none to grow by; three pages each are too many for 3, five for 2 */
        u32 n_tokens = item_of(&f, 1)->pos0 + 1;
        assert_int_equal(f.plan.n_items, n_tokens <= 128 ? 3 : n_tokens <= 256 ? 2 : 1);
        step(&f);
    }
    assert_int_equal(state(&f).n_parked_total, 2);
    assert_int_equal(state(&f).n_rejected_total, 0);
    arrive(&f, 5, 1);
    prompt(&f, 5, 4, 10);
    u32 position, eta_ms;
    assert_true(sched_position(f.s, 5, &position, &eta_ms));
    assert_int_equal(position, 3); /* behind the parked ones and 4 */
    for (u64 id = 1; id <= 5; id++) {                    /* all come to their end, in order */
        for (u32 i = 0; !(next(&f)->kind == SCHED_PLAN_STEP && item_of(&f, id) && item_of(&f, id)->n_logits);
             i++) {
            step(&f);
            assert_true(i < 100);
        }
        step_ends(&f, id);
    }
    assert_int_equal(next(&f)->kind, SCHED_PLAN_IDLE);
    assert_int_equal(state(&f).n_rejected_total, 0);
    fixture_release(&f);
}

/* Goal: who was parked comes back only with room for the others to grow: 16 requests that each need five
 * pages of twelve are parked less than once each, and little is computed twice. */
static void test_no_thrash(void **state_) {
    (void)state_;
    struct fixture f;
    fixture_init(&f, config_kv(12));
    start(&f, 16, 60, 300);
    u32 n_ended = 0, n_rows = 0;
    for (u32 i = 0; n_ended < 16; i++) {
        settle(&f);
        u64 id = 0;
        for (u32 k = 0; k < f.plan.n_items && !id; k++)
            if (f.plan.items[k].pos0 + 1 >= 290 && f.plan.items[k].n_logits)
                id = f.plan.items[k].request_id;
        n_rows += f.plan.n_rows;
        step_ends(&f, id);
        n_ended += id > 0;
        assert_true(i < 10000);
    }
    assert_true(state(&f).n_parked_total <= 10);
    assert_true(n_rows < 16 * 290 * 13 / 10);
    fixture_release(&f);
}

/* Goal: a request that can never fit, not even alone, is refused when its prompt is known, with the numbers.
 */
static void test_never_fits(void **state_) {
    (void)state_;
    struct fixture f;
    fixture_init(&f, config_kv(8));
    model_add(&f, 1);
    arrive(&f, 1, 1);
    arrive(&f, 2, 1);
    settle(&f);
    prompt(&f, 1, 100, 413); /* 513 tokens: 9 pages, 5 extents */
    prompt(&f, 2, 100, 412); /* 8 pages, 4 extents of 2 MiB */
    next(&f);
    const struct sched_notice *n = notice_of(&f, 1, SCHED_NOTICE_REJECTED);
    assert_non_null(n);
    assert_int_equal(n->status, ERR_NO_MEMORY);
    assert_non_null(strstr(n->text, "10.0 MiB"));
    assert_non_null(strstr(n->text, "513 tokens"));
    assert_non_null(strstr(n->text, "8.0 MiB are left"));
    assert_non_null(item_of(&f, 2));
    step(&f);
    fixture_release(&f);
}

/* Goal: a request that needs all of memory gets it: idle models go for the oldest one. */
static void test_idle_model_goes_for_pages(void **state_) {
    (void)state_;
    struct fixture f;
    fixture_init(&f, config_kv(110));
    model_add(&f, 1);
    model_add(&f, 2);
    arrive(&f, 2, 2);
    settle(&f);
    prompt(&f, 2, 4, 4);
    next(&f);
    step_ends(&f, 2);
    arrive(&f, 1, 1);
    settle(&f);
    prompt(&f, 1, 1000, 3000);
    bool gone = false;
    for (u32 i = 0; i < 2000; i++) {
        next(&f);
        if (f.plan.kind == SCHED_PLAN_UNLOAD) {
            assert_int_equal(f.plan.model_id, 2);
            gone = true;
            unloaded(&f, 2);
            continue;
        }
        step(&f);
    }
    assert_true(gone);
    fixture_release(&f);
}

/* Goal: a limit that falls: cached pages, then the youngest requests; back up they resume. */
static void test_limit_falls(void **state_) {
    (void)state_;
    struct fixture f;
    fixture_init(&f, config_kv(100));
    start(&f, 4, 60, 300);
    for (u32 i = 0; i < 100; i++) {
        next(&f);
        step(&f);
    }
    assert_int_equal(state(&f).n_running, 4);
    next(&f);
    limit(&f, (10 + 101 + 6) * MIB); /* in the middle of a step */
    step(&f);
    next(&f);
    assert_int_equal(f.plan.kind, SCHED_PLAN_STEP);
    assert_true(state(&f).kv_bytes <= 6 * MIB);
    assert_true(is_running(&f, 1) && !is_running(&f, 4));
    step(&f);
    limit(&f, (10 + 101 + 100) * MIB);
    next(&f);
    assert_int_equal(f.plan.n_items, 4);
    assert_int_equal(state(&f).n_rejected_total, 0);
    step(&f);
    fixture_release(&f);
}

/* Goal: even the oldest gives its memory up when the limit falls below its need, and waits; a dip of
 * less than five seconds harms nobody, a longer one refuses with the numbers. */
static void test_limit_dips(void **state_) {
    (void)state_;
    for (u32 lasts_ms = 1000; lasts_ms <= 9000; lasts_ms += 8000) {
        struct fixture f;
        fixture_init(&f, config_kv(100));
        start(&f, 1, 300, 400);
        for (u32 i = 0; i < 20; i++) {
            next(&f);
            step(&f);
        }
        limit(&f, (10 + 101 + 2) * MIB);
        assert_int_equal(next(&f)->kind, SCHED_PLAN_IDLE);
        assert_true(f.plan.wake_ns == f.now + 5000 * MS);
        assert_true(state(&f).kv_bytes <= 2 * MIB && state(&f).n_waiting == 1);
        f.now += lasts_ms * MS;
        next(&f);
        assert_int_equal(notice_of(&f, 1, SCHED_NOTICE_REJECTED) != NULL, lasts_ms > 5000);
        limit(&f, (10 + 101 + 100) * MIB);
        assert_int_equal(next(&f)->kind, lasts_ms > 5000 ? SCHED_PLAN_IDLE : SCHED_PLAN_STEP);
        if (lasts_ms < 5000)
            step(&f);
        fixture_release(&f);
    }
}

/* Goal: a limit below the weights unloads the model, its requests wait and go on when it is back. */
static void test_limit_below_weights(void **state_) {
    (void)state_;
    struct fixture f;
    fixture_init(&f, config_kv(100));
    start(&f, 2, 10, 300);
    for (u32 i = 0; i < 20; i++) {
        next(&f);
        step(&f);
    }
    limit(&f, 50 * MIB);
    assert_int_equal(next(&f)->kind, SCHED_PLAN_UNLOAD);
    assert_true(state(&f).kv_bytes == 0);
    unloaded(&f, 1);
    assert_int_equal(next(&f)->kind, SCHED_PLAN_IDLE);
    limit(&f, 300 * MIB);
    assert_int_equal(settle(&f), 1);
    assert_int_equal(f.plan.n_items, 2);
    assert_int_equal(f.plan.items[0].pos0, 0);
    step(&f);
    fixture_release(&f);
}

/* Goal: the ledger has memory but the system hasn't: wait a moment, then refuse; nothing is lost before. */
static void test_system_has_none(void **state_) {
    (void)state_;
    for (u32 cured = 0; cured < 2; cured++) {
        struct fixture f;
        fixture_init(&f, config_kv(100));
        f.memory.fail_percent = 100;
        start(&f, 1, 100, 300);
        assert_int_equal(next(&f)->kind, SCHED_PLAN_IDLE);
        assert_true(f.plan.wake_ns > f.now && f.plan.wake_ns <= f.now + 100 * MS);
        f.now += 4000 * MS;
        assert_int_equal(next(&f)->kind, SCHED_PLAN_IDLE);
        if (cured) {
            f.memory.fail_percent = 0;
            assert_int_equal(next(&f)->kind, SCHED_PLAN_STEP);
            step(&f);
        } else {
            f.now += 2000 * MS;
            next(&f);
            assert_int_equal(notice_of(&f, 1, SCHED_NOTICE_REJECTED)->status, ERR_NO_MEMORY);
        }
        fixture_release(&f);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parking_order),       cmocka_unit_test(test_no_thrash),
        cmocka_unit_test(test_never_fits),          cmocka_unit_test(test_idle_model_goes_for_pages),
        cmocka_unit_test(test_limit_falls),         cmocka_unit_test(test_limit_dips),
        cmocka_unit_test(test_limit_below_weights), cmocka_unit_test(test_system_has_none),
    };
    return cmocka_run_group_tests_name("sched_room", tests, NULL, NULL);
}
