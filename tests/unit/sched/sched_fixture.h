/* sched_fixture.h - a scheduler driven by hand: a clock that the test moves, memory that nobody touches,
 * steps that take 1 ms and 0.1 ms per row unless told. */
#ifndef MINKA_SCHED_FIXTURE_H
#define MINKA_SCHED_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/limit.h"
#include "fake_memory.h"
#include "sched/sched.h"

#define MS ((u64)1000000)
#define MIB ((u64)1 << 20)
#define FOR_EVER (-1)

struct fixture {
    struct fake_memory memory;
    struct sched *s;
    u64 now;
    struct sched_plan plan;
    /* All notices of the last next(). */
    struct sched_notice notices[256];
    u32 n_notices;
};

/* Room for anything unless the test says less; pages of 1 MiB, extents of 2. */
static inline struct sched_config config_default(void) {
    return (struct sched_config){.queue_max = 512,
                                 .memory_limit_bytes = 4096 * MIB,
                                 .fixed_bytes = 10 * MIB,
                                 .step_target_ns = 20 * MS,
                                 .slice_target_ns = 50 * MS,
                                 .max_wait_ns = 30000 * MS,
                                 .rows_max = 512};
}

static inline void fixture_init(struct fixture *f, struct sched_config c) {
    *f = (struct fixture){.now = 1000 * MS};
    c.memory = fake_memory_hooks(&f->memory);
    f->s = sched_new(&c);
}

static inline void fixture_release(struct fixture *f) {
    sched_free(f->s);
    fake_memory_release(&f->memory);
}

static inline void tell(struct fixture *f, struct sched_event e) {
    e.now_ns = f->now;
    sched_event(f->s, &e);
    sched_check(f->s);
}

static inline const struct sched_plan *next(struct fixture *f) {
    sched_next(f->s, f->now, &f->plan);
    sched_check(f->s);
    f->n_notices = f->plan.n_notices;
    assert_true(f->n_notices <= 256);
    if (f->n_notices)
        memcpy(f->notices, f->plan.notices, f->n_notices * sizeof f->notices[0]);
    return &f->plan;
}

static inline const struct sched_notice *notice_of(const struct fixture *f, u64 id,
                                                   enum sched_notice_kind kind) {
    for (u32 i = 0; i < f->n_notices; i++)
        if (f->notices[i].request_id == id && f->notices[i].kind == kind)
            return &f->notices[i];
    return NULL;
}

/* Weights of 100 MiB, scratch of 1. */
static inline void model_add(struct fixture *f, u32 id) {
    struct kv_layout l = {.n_groups = 1, .groups = {{4, 8, 128, 2, 0}}};
    tell(f, (struct sched_event){.kind = SCHED_MODEL, .model = {id, 77 + id, 100 * MIB, 1 * MIB, l}});
}

static inline void arrive_keep(struct fixture *f, u64 id, u32 model, i64 keep_alive_ns) {
    tell(f, (struct sched_event){
                .kind = SCHED_ARRIVE, .request_id = id, .model_id = model, .keep_alive_ns = keep_alive_ns});
}
static inline void arrive(struct fixture *f, u64 id, u32 model) { arrive_keep(f, id, model, FOR_EVER); }

static inline void prompt_tokens(struct fixture *f, u64 id, const u32 *tokens, u32 n, u32 predict,
                                 u32 num_ctx) {
    tell(f, (struct sched_event){
                .kind = SCHED_PROMPT,
                .request_id = id,
                .prompt = {.tokens = tokens, .n_tokens = n, .predict_max = predict, .num_ctx = num_ctx}});
}

/* n tokens that no other request has. */
static inline void prompt(struct fixture *f, u64 id, u32 n, u32 predict) {
    u32 tokens[4096];
    assert_true(n <= 4096);
    for (u32 i = 0; i < n; i++)
        tokens[i] = (u32)id * 100000 + i;
    prompt_tokens(f, id, tokens, n, predict, n + predict);
}

static inline void cancel(struct fixture *f, u64 id) {
    tell(f, (struct sched_event){.kind = SCHED_CANCEL, .request_id = id});
}
static inline void loaded(struct fixture *f, u32 model, enum status status) {
    tell(f, (struct sched_event){
                .kind = SCHED_LOADED, .model_id = model, .status = status, .text = "no such file"});
}
static inline void unloaded(struct fixture *f, u32 model) {
    tell(f, (struct sched_event){.kind = SCHED_UNLOADED, .model_id = model});
}
static inline void limit(struct fixture *f, u64 bytes) {
    tell(f, (struct sched_event){.kind = SCHED_LIMITS, .memory_limit_bytes = bytes});
}

static inline const struct sched_item *item_of(const struct fixture *f, u64 id) {
    for (u32 i = 0; i < f->plan.n_items; i++)
        if (f->plan.items[i].request_id == id)
            return &f->plan.items[i];
    return NULL;
}

/* Reports the planned step with these results of its items; it took 1 ms, 0.1 ms for each row and step.draft_ns. Returns
 * how long that is. */
static inline u64 step_report(struct fixture *f, struct sched_step step) {
    assert_int_equal(f->plan.kind, SCHED_PLAN_STEP);
    step.n_results = f->plan.n_items;
    step.duration_ns = MS + f->plan.n_rows * MS / 10 + step.draft_ns;
    f->now += step.duration_ns;
    tell(f, (struct sched_event){.kind = SCHED_STEP, .step = step});
    return step.duration_ns;
}

/* Reports the planned step: every sequence that ended got token 7; the request `ends` (0 = none) finishes. */
static inline void step_ends(struct fixture *f, u64 ends) {
    static const u32 seven = 7;
    struct sched_result results[LIMIT_RUNNING];
    for (u32 i = 0; i < f->plan.n_items; i++) {
        const struct sched_item *item = &f->plan.items[i];
        results[i] = (struct sched_result){
            .request_id = item->request_id, .tokens = &seven, .n_tokens = item->n_logits};
        if (item->n_logits && item->request_id == ends)
            results[i].outcome = SCHED_FINISH;
    }
    step_report(f, (struct sched_step){.results = results});
}
static inline void step(struct fixture *f) { step_ends(f, 0); }

/* Until the next plan is no load or unload; each is done at once. Returns how many loads there were. */
static inline u32 settle(struct fixture *f) {
    for (u32 n_loads = 0;;) {
        next(f);
        if (f->plan.kind == SCHED_PLAN_LOAD) {
            n_loads++;
            loaded(f, f->plan.model_id, OK);
        } else if (f->plan.kind == SCHED_PLAN_UNLOAD) {
            unloaded(f, f->plan.model_id);
        } else {
            return n_loads;
        }
    }
}

static inline struct sched_state state(const struct fixture *f) {
    struct sched_state st;
    sched_state(f->s, &st);
    return st;
}

static inline struct sched_model_state model_state(const struct fixture *f, u32 model) {
    struct sched_model_state st;
    assert_true(sched_model_state(f->s, model, &st));
    return st;
}

#endif
