/* Models: keep-alive, making room, max_wait, grouping, failures. */
#include "sched_fixture.h"

/* Room for one model of 101 MiB and some pages, not for two. */
static struct sched_config config_one_fits(void) {
    struct sched_config c = config_default();
    c.memory_limit_bytes = 10 * MIB + 101 * MIB + 40 * MIB;
    return c;
}

/* Runs one short request to its end. */
static void serve(struct fixture *f, u64 id, u32 model, i64 keep_alive_ns) {
    arrive_keep(f, id, model, keep_alive_ns);
    settle(f);
    prompt(f, id, 4, 10);
    settle(f);
    step_ends(f, id);
}

/* Goal: a model stays for its keep-alive after the last request, wakes the engine then, and gives all its
 * memory back; the last request's value counts; 0 unloads when idle, below 0 never. */
static void test_keep_alive(void **state_) {
    (void)state_;
    struct fixture f;
    fixture_init(&f, config_default());
    model_add(&f, 1);
    serve(&f, 1, 1, 5000 * (i64)MS);
    assert_int_equal(next(&f)->kind, SCHED_PLAN_IDLE);
    assert_true(f.plan.wake_ns == f.now + 5000 * MS);
    assert_true(model_state(&f, 1).expires_ns == (i64)(f.now + 5000 * MS));
    f.now += 4000 * MS;
    serve(&f, 2, 1, 300 * (i64)MS);
    f.now += 299 * MS;
    assert_int_equal(next(&f)->kind, SCHED_PLAN_IDLE);
    assert_true(state(&f).kv_bytes > 0);
    f.now += 1 * MS;
    assert_int_equal(next(&f)->kind, SCHED_PLAN_UNLOAD);
    unloaded(&f, 1);
    assert_true(state(&f).kv_bytes == 0 && state(&f).weights_bytes == 0 && f.memory.mapped_bytes == 0);
    serve(&f, 3, 1, 0);
    assert_int_equal(next(&f)->kind, SCHED_PLAN_UNLOAD);
    unloaded(&f, 1);
    serve(&f, 4, 1, FOR_EVER);
    f.now += 1000000000 * MS;
    assert_int_equal(next(&f)->kind, SCHED_PLAN_IDLE);
    assert_true(f.plan.wake_ns == UINT64_MAX && model_state(&f, 1).expires_ns == INT64_MAX);
    fixture_release(&f);
}

/* Goal: a keep-alive set without a request: at once when idle, else when it becomes idle. */
static void test_expire(void **state_) {
    (void)state_;
    struct fixture f;
    fixture_init(&f, config_default());
    model_add(&f, 1);
    serve(&f, 1, 1, FOR_EVER);
    tell(&f, (struct sched_event){.kind = SCHED_EXPIRE, .model_id = 1, .keep_alive_ns = 100 * (i64)MS});
    assert_true(next(&f)->wake_ns == f.now + 100 * MS);
    arrive(&f, 2, 1);
    prompt(&f, 2, 4, 10);
    next(&f);
    tell(&f, (struct sched_event){.kind = SCHED_EXPIRE, .model_id = 1, .keep_alive_ns = 0});
    step(&f);
    assert_int_equal(next(&f)->kind, SCHED_PLAN_STEP);
    assert_true(model_state(&f, 1).expires_ns == 0);
    step_ends(&f, 2);
    assert_int_equal(next(&f)->kind, SCHED_PLAN_UNLOAD);
    unloaded(&f, 1);
    fixture_release(&f);
}

/* Goal: load_only: READY when the model is loaded, at once if it is. */
static void test_load_only(void **state_) {
    (void)state_;
    struct fixture f;
    fixture_init(&f, config_default());
    model_add(&f, 1);
    for (u64 id = 1; id <= 2; id++) {
        arrive_keep(&f, id, 1, 1000 * (i64)MS * (i64)id);
        tell(&f, (struct sched_event){.kind = SCHED_PROMPT, .request_id = id, .prompt = {.load_only = true}});
        if (id == 1) {
            assert_int_equal(next(&f)->kind, SCHED_PLAN_LOAD);
            assert_null(notice_of(&f, 1, SCHED_NOTICE_READY));
            loaded(&f, 1, OK);
        }
        next(&f);
        assert_non_null(notice_of(&f, id, SCHED_NOTICE_READY));
        assert_null(notice_of(&f, id, SCHED_NOTICE_WANTED));
        assert_true(f.plan.wake_ns == f.now + id * 1000 * MS);
    }
    fixture_release(&f);
}

/* Goal: a load that fails fails all that wait for it with its text, and the next one tries again. */
static void test_load_fails(void **state_) {
    (void)state_;
    struct fixture f;
    fixture_init(&f, config_default());
    model_add(&f, 1);
    arrive(&f, 1, 1);
    arrive(&f, 2, 1);
    next(&f);
    loaded(&f, 1, ERR_IO);
    assert_int_equal(next(&f)->kind, SCHED_PLAN_IDLE);
    for (u64 id = 1; id <= 2; id++) {
        const struct sched_notice *n = notice_of(&f, id, SCHED_NOTICE_REJECTED);
        assert_non_null(n);
        assert_int_equal(n->status, ERR_IO);
        assert_string_equal(n->text, "no such file");
    }
    assert_true(state(&f).weights_bytes == 0);
    serve(&f, 3, 1, FOR_EVER);
    fixture_release(&f);
}

/* Goal: a file that is gone: what waits fails, what runs goes on, then the model goes too. */
static void test_forget(void **state_) {
    (void)state_;
    struct fixture f;
    struct sched_config c = config_default();
    c.parallel_max = 1;
    fixture_init(&f, c);
    model_add(&f, 1);
    arrive(&f, 1, 1);
    arrive(&f, 2, 1);
    settle(&f);
    prompt(&f, 1, 4, 10);
    next(&f);
    tell(&f, (struct sched_event){.kind = SCHED_FORGET, .model_id = 1});
    arrive(&f, 3, 1);
    step(&f);
    next(&f);
    assert_int_equal(notice_of(&f, 2, SCHED_NOTICE_REJECTED)->status, ERR_NOT_FOUND);
    assert_int_equal(notice_of(&f, 3, SCHED_NOTICE_REJECTED)->status, ERR_NOT_FOUND);
    assert_non_null(item_of(&f, 1));
    step_ends(&f, 1);
    assert_int_equal(next(&f)->kind, SCHED_PLAN_UNLOAD);
    unloaded(&f, 1);
    struct sched_model_state st;
    assert_false(sched_model_state(f.s, 1, &st));
    model_add(&f, 1);
    serve(&f, 4, 1, FOR_EVER);
    fixture_release(&f);
}

/* Goal: announced anew with another content while loaded: holds from the next load on, with no old page. */
static void test_announced_anew(void **state_) {
    (void)state_;
    struct fixture f;
    fixture_init(&f, config_default());
    model_add(&f, 1);
    serve(&f, 1, 1, 0);
    struct sched_model other = {1, 4711, 200 * MIB, MIB, {.n_groups = 1, .groups = {{2, 8, 128, 2, 0}}}};
    tell(&f, (struct sched_event){.kind = SCHED_MODEL, .model = other});
    assert_true(state(&f).weights_bytes == 100 * MIB);
    settle(&f);
    serve(&f, 2, 1, FOR_EVER);
    assert_true(state(&f).weights_bytes == 200 * MIB);
    assert_int_equal(kv_space_layout(sched_space(f.s, 1))->groups[0].n_layers, 2);
    fixture_release(&f);
}

/* Goal: 12 requests that alternate between two models that don't fit together cost 2 loads. */
static void test_alternating_are_grouped(void **state_) {
    (void)state_;
    struct fixture f;
    struct sched_config c = config_one_fits();
    c.parallel_max = 1;
    fixture_init(&f, c);
    model_add(&f, 1);
    model_add(&f, 2);
    for (u64 id = 1; id <= 12; id++)
        arrive(&f, id, id % 2 ? 1 : 2);
    u32 n_loads = 0, n_ended = 0;
    while (n_ended < 12) {
        n_loads += settle(&f);
        for (u32 i = 0; i < f.n_notices; i++)
            if (f.notices[i].kind == SCHED_NOTICE_WANTED)
                prompt(&f, f.notices[i].request_id, 10, 10);
        if (f.plan.kind == SCHED_PLAN_IDLE)
            n_loads += settle(&f);
        assert_int_equal(f.plan.kind, SCHED_PLAN_STEP);
        u64 id = f.plan.items[0].n_logits ? f.plan.items[0].request_id : 0;
        step_ends(&f, id);
        n_ended += id > 0;
    }
    assert_int_equal(n_loads, 2);
    fixture_release(&f);
}

/* Goal: a model whose clients never pause is parked when another has waited max_wait, not before; it
 * resumes under the same rule, and both get on. */
static void test_max_wait(void **state_) {
    (void)state_;
    struct fixture f;
    struct sched_config c = config_one_fits();
    c.max_wait_ns = 1000 * MS;
    fixture_init(&f, c);
    model_add(&f, 1);
    model_add(&f, 2);
    arrive(&f, 1, 1);
    settle(&f);
    prompt(&f, 1, 4, 2000);
    next(&f);
    step(&f);
    u64 since = f.now;
    arrive(&f, 2, 2);
    for (u32 n = 0; n < 100000; n++) {
        next(&f);
        if (f.plan.kind != SCHED_PLAN_STEP)
            break;
        assert_int_equal(f.plan.model_id, 1);
        step(&f);
    }
    assert_int_equal(f.plan.kind, SCHED_PLAN_UNLOAD);
    assert_in_range(f.now - since, 1000 * MS, 1010 * MS);
    assert_int_equal(model_state(&f, 1).n_waiting, 1);
    assert_int_equal(model_state(&f, 1).n_running, 0);
    assert_int_equal(state(&f).n_parked_total, 1);
    unloaded(&f, 1);
    assert_int_equal(settle(&f), 1);
    prompt(&f, 2, 4, 2000);
    u64 parked = f.now;
    u32 n_loads = 0;
    while (model_state(&f, 1).n_running == 0) {
        n_loads += settle(&f);
        step(&f);
        assert_true(f.now - parked < 1100 * MS);
    }
    assert_true(f.now - parked >= 1000 * MS); /* 2 had its time too */
    assert_int_equal(n_loads, 1);
    fixture_release(&f);
}

/* Goal: what starved before: two clients of one model that overlap without end, a third for another. */
static void test_overlapping_clients_starve_nobody(void **state_) {
    (void)state_;
    struct fixture f;
    struct sched_config c = config_one_fits();
    c.max_wait_ns = 500 * MS;
    fixture_init(&f, c);
    model_add(&f, 1);
    model_add(&f, 2);
    u64 id = 10;
    arrive_keep(&f, id, 1, 3600000 * (i64)MS);
    settle(&f);
    prompt(&f, id++, 4, 50);
    arrive_keep(&f, 1, 2, 0);
    u64 since = f.now;
    bool served = false;
    while (!served) {
        settle(&f);
        if (f.plan.model_id == 2 || model_state(&f, 2).loaded) {
            served = true;
            break;
        }
        arrive_keep(&f, id, 1, 3600000 * (i64)MS); /* each with a keep-alive of its own */
        prompt(&f, id++, 4, 50);
        step_ends(&f, id - 2);
        assert_true(f.now - since < 600 * MS);
    }
    fixture_release(&f);
}

/* Goal: loads don't block: while one model loads, a loaded one goes on; a model that fits loads past one
 * that waits for room. */
static void test_others_go_on(void **state_) {
    (void)state_;
    struct fixture f;
    struct sched_config c = config_default();
    c.memory_limit_bytes = 10 * MIB + 2 * 101 * MIB + 60 * MIB;
    fixture_init(&f, c);
    model_add(&f, 1);
    model_add(&f, 2);
    struct kv_layout l = {.n_groups = 1, .groups = {{4, 8, 128, 2, 0}}};
    tell(&f, (struct sched_event){.kind = SCHED_MODEL, .model = {3, 3, 200 * MIB, MIB, l}});
    arrive(&f, 1, 1);
    settle(&f);
    prompt(&f, 1, 4, 2000);
    next(&f);
    step(&f);
    arrive(&f, 3, 3); /* has to wait: 1 is busy */
    next(&f);
    assert_int_equal(f.plan.kind, SCHED_PLAN_STEP);
    step(&f);
    arrive(&f, 2, 2);
    assert_int_equal(next(&f)->kind, SCHED_PLAN_LOAD);
    assert_int_equal(f.plan.model_id, 2);
    assert_int_equal(next(&f)->kind, SCHED_PLAN_STEP);
    step(&f);
    loaded(&f, 2, OK);
    next(&f);
    assert_non_null(notice_of(&f, 2, SCHED_NOTICE_WANTED));
    step(&f);
    fixture_release(&f);
}

/* Goal: the idle model used longest ago makes room; the number of loaded models is capped if told. */
static void test_least_recently_used_goes(void **state_) {
    (void)state_;
    struct fixture f;
    struct sched_config c = config_default();
    c.loaded_max = 2;
    fixture_init(&f, c);
    for (u32 m = 1; m <= 3; m++)
        model_add(&f, m);
    serve(&f, 1, 1, FOR_EVER);
    serve(&f, 2, 2, FOR_EVER);
    serve(&f, 3, 1, FOR_EVER);
    assert_true(model_state(&f, 1).loaded && model_state(&f, 2).loaded);
    arrive(&f, 4, 3);
    assert_int_equal(next(&f)->kind, SCHED_PLAN_UNLOAD);
    assert_int_equal(f.plan.model_id, 2);
    unloaded(&f, 2);
    assert_int_equal(next(&f)->kind, SCHED_PLAN_LOAD);
    assert_int_equal(f.plan.model_id, 3);
    loaded(&f, 3, OK);
    fixture_release(&f);
}

/* Goal: a model above the limit is refused at once, with the numbers. */
static void test_too_large(void **state_) {
    (void)state_;
    struct fixture f;
    struct sched_config c = config_default();
    c.memory_limit_bytes = 100 * MIB;
    fixture_init(&f, c);
    model_add(&f, 1);
    arrive(&f, 1, 1);
    assert_int_equal(next(&f)->kind, SCHED_PLAN_IDLE);
    const struct sched_notice *n = notice_of(&f, 1, SCHED_NOTICE_REJECTED);
    assert_int_equal(n->status, ERR_NO_MEMORY);
    assert_non_null(strstr(n->text, "113.0 MiB"));
    assert_non_null(strstr(n->text, "100.0 MiB"));
    fixture_release(&f);
}

/* Goal: a conversation's pages survive the swap of its model, if there is room for them. */
static void test_cache_survives_swap(void **state_) {
    (void)state_;
    struct fixture f;
    struct sched_config c = config_default();
    c.loaded_max = 1;
    fixture_init(&f, c);
    model_add(&f, 1);
    model_add(&f, 2);
    serve(&f, 1, 1, FOR_EVER);
    serve(&f, 2, 2, FOR_EVER);
    arrive(&f, 3, 1);
    settle(&f);
    u32 tokens[6] = {100000, 100001, 100002, 100003, 7, 1}; /* what request 1 was */
    prompt_tokens(&f, 3, tokens, 6, 10, 100);
    next(&f);
    assert_int_equal(notice_of(&f, 3, SCHED_NOTICE_STARTED)->n_cached, 4);
    step(&f);
    fixture_release(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_keep_alive),
        cmocka_unit_test(test_expire),
        cmocka_unit_test(test_load_only),
        cmocka_unit_test(test_load_fails),
        cmocka_unit_test(test_forget),
        cmocka_unit_test(test_announced_anew),
        cmocka_unit_test(test_alternating_are_grouped),
        cmocka_unit_test(test_max_wait),
        cmocka_unit_test(test_overlapping_clients_starve_nobody),
        cmocka_unit_test(test_others_go_on),
        cmocka_unit_test(test_least_recently_used_goes),
        cmocka_unit_test(test_too_large),
        cmocka_unit_test(test_cache_survives_swap),
    };
    return cmocka_run_group_tests_name("sched_models", tests, NULL, NULL);
}
