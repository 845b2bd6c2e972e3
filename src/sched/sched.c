/* sched.c - the scheduler's front: events in, one decision out, and the one place that changes a
 * request's state. */
#include "sched/internal.h"

#include <stdlib.h>

/* ---------------------------------------------------------------- life */

struct sched *sched_new(const struct sched_config *c) {
    check(c->rows_max >= 2 * SLICE_MIN && c->rows_max <= LIMIT_STEP_ROWS);
    struct sched *s = xcalloc(1, sizeof *s);
    s->config = *c;
    s->pool = kv_pool_new(c->memory);
    sledger_limit(s, c->memory_limit_bytes);
    return s;
}

static void list_free(struct sched *s, struct slist *l) {
    while (l->first) {
        struct sreq *r = l->first;
        slist_remove(l, r);
        kv_seq_close(&r->kv, r->tokens, false, s->now_ns);
        sreq_forget(s, r);
    }
}

void sched_free(struct sched *s) {
    for (u32 i = 0; i < s->n_models; i++) {
        struct smodel *m = s->models[i];
        list_free(s, &m->waiting);
        list_free(s, &m->running);
        if (m->space)
            kv_space_free(m->space);
        free(m);
    }
    check(s->n_requests == 0);
    kv_pool_free(s->pool);
    free(s->models);
    free(s->table);
    free(s->planned);
    free(s->items);
    free(s->scratch);
    free(s->notices);
    free(s->notices_out);
    free(s);
}

/* ---------------------------------------------------------------- the state of a request */

/* from -> to; see the drawing in sched.h. DECODE -> PREFILL: a shift, or pages computed anew. */
static const bool moves[5][5] = {
    [REQUEST_QUEUED] = {[REQUEST_PREFILL] = true, [REQUEST_GONE] = true},
    [REQUEST_PARKED] = {[REQUEST_PREFILL] = true, [REQUEST_GONE] = true},
    [REQUEST_PREFILL] = {[REQUEST_DECODE] = true, [REQUEST_PARKED] = true, [REQUEST_GONE] = true},
    [REQUEST_DECODE] = {[REQUEST_PREFILL] = true, [REQUEST_PARKED] = true, [REQUEST_GONE] = true},
};

void sreq_move(struct sched *s, struct sreq *r, enum request_state to) {
    struct smodel *m = r->model;
    bool ran = sreq_runs(r);
    check(moves[r->state][to]);
    if (ran) {
        slist_remove(&m->running, r);
        s->n_running--;
    } else {
        slist_remove(&m->waiting, r);
        s->n_waiting--;
    }
    r->state = to;
    s->n_changes++;
    if (sreq_runs(r)) {
        if (m->running.n == 0)
            m->charged_ns = MAX(m->charged_ns, s->charged_floor_ns);
        slist_insert(&m->running, r);
        s->n_running++;
    } else if (sreq_waits(r)) {
        slist_insert(&m->waiting, r);
        s->n_waiting++;
    } else if (m->running.n + m->waiting.n == 0) {
        m->idle_ns = s->now_ns;
    }
    if (ran && !sreq_runs(r)) {
        r->follow = NULL;
        sfollow_drop(r);
    }
}

void sreq_end(struct sched *s, struct sreq *r, bool keep_pages) {
    if (sreq_runs(r)) {
        s->tight = false;
    } else {
        srate_add(&s->drain, s->now_ns);
        s->n_refused_waiting -= s->n_refused_waiting > 0;
    }
    kv_seq_close(&r->kv, r->tokens, keep_pages, s->now_ns);
    sreq_move(s, r, REQUEST_GONE);
    sreq_forget(s, r);
}

/* ---------------------------------------------------------------- events */

static bool in_running_step(const struct sched *s, const struct sreq *r) {
    for (u32 i = 0; s->in_step && i < s->n_planned; i++)
        if (s->planned[i].request == r)
            return true;
    return false;
}

static void cancel(struct sched *s, const struct sched_event *e) {
    struct sreq *r = sreq_find(s, e->request_id);
    if (!r || r->dead)
        return;
    if (in_running_step(s, r)) {
        /* The forward pass writes to its pages now; it ends with the step. */
        r->dead = true;
        r->dead_keep = e->status == OK;
    } else {
        sreq_end(s, r, e->status == OK);
    }
}

void sched_event(struct sched *s, const struct sched_event *e) {
    s->now_ns = MAX(s->now_ns, e->now_ns);
    switch (e->kind) {
    case SCHED_MODEL: smodel_announce(s, &e->model); break;
    case SCHED_FORGET: smodel_forget(s, e->model_id); break;
    case SCHED_ARRIVE: squeue_arrive(s, e); break;
    case SCHED_PROMPT: squeue_prompt(s, e); break;
    case SCHED_CANCEL: cancel(s, e); break;
    case SCHED_LOADED: smodel_loaded(s, e); break;
    case SCHED_UNLOADED: smodel_unloaded(s, e->model_id); break;
    case SCHED_STEP: splan_done(s, &e->step); break;
    case SCHED_LIMITS: sledger_limit(s, e->memory_limit_bytes); break;
    case SCHED_EXPIRE: smodel_expire(s, e->model_id, e->keep_alive_ns); break;
    case SCHED_TICK: break;
    }
}

/* ---------------------------------------------------------------- decisions */

static void notices_drain(struct sched *s, struct sched_plan *plan) {
    struct sched_notice *full = s->notices;
    u32 cap = s->notices_cap;
    plan->notices = full;
    plan->n_notices = s->n_notices;
    s->notices = s->notices_out;
    s->notices_cap = s->notices_out_cap;
    s->notices_out = full;
    s->notices_out_cap = cap;
    s->n_notices = 0;
}

/* Looking for a plan can park or refuse somebody, which makes another look worth while; this many are enough
 * for anything but memory that comes and goes under us. */
#define DECIDE_TRIES 32u

static bool decide(struct sched *s, struct sched_plan *plan) {
    if (smodel_plan(s, plan))
        return true;
    sadmit_all(s);
    /* Making room for pages may have closed a model. */
    return splan_step(s, plan) || smodel_plan(s, plan);
}

void sched_next(struct sched *s, u64 now_ns, struct sched_plan *plan) {
    check(!s->in_step);
    s->now_ns = MAX(s->now_ns, now_ns);
    *plan = (struct sched_plan){.kind = SCHED_PLAN_IDLE, .wake_ns = UINT64_MAX};
    sledger_shrink(s);
    bool found = false;
    for (u32 tries = 0; !found && tries < DECIDE_TRIES; tries++) {
        u64 changes = s->n_changes;
        found = decide(s, plan);
        if (changes == s->n_changes)
            break;
    }
    if (!found)
        plan->wake_ns = smodel_wake_ns(s);
    squeue_want_prompts(s);
    notices_drain(s, plan);
}

/* ---------------------------------------------------------------- figures */

void sched_state(const struct sched *s, struct sched_state *out) {
    struct kv_stats kv;
    kv_pool_stats(s->pool, &kv);
    *out = (struct sched_state){
        .n_running = s->n_running,
        .n_waiting = s->n_waiting,
        .limit_bytes = s->memory_limit_bytes,
        .kv_bytes = kv_pool_mapped_bytes(s->pool),
        .kv_cached_bytes = kv.cached_bytes,
        .n_parked_total = s->n_parked_total,
        .n_rejected_total = s->n_rejected_total,
        .n_steps_total = s->n_steps_total,
        .n_rows_total = s->n_rows_total,
        .steps_ns_total = s->steps_ns_total,
        .n_drafts_total = s->n_drafts_total,
        .n_agreed_total = s->n_agreed_total,
        .drafts_lost_ns_total = (u64)s->drafts_lost_ns_total,
        .n_draft_passes_total = s->n_draft_passes_total,
        .draft_ns_total = s->draft_ns_total,
        .tokens_per_s = s->ns_recent > 0 ? s->tokens_recent / s->ns_recent * NS_PER_S : 0,
    };
    for (u32 i = 0; i < s->n_models; i++) {
        if (!smodel_booked(s->models[i]))
            continue;
        const struct smodel *m = s->models[i];
        out->weights_bytes += m->info.weights_bytes;
        out->scratch_bytes += smodel_cost_bytes(m) - m->info.weights_bytes;
    }
}

bool sched_model_state(const struct sched *s, u32 model_id, struct sched_model_state *out) {
    const struct smodel *m = smodel_find(s, model_id);
    if (!m)
        return false;
    *out = (struct sched_model_state){
        .model_id = model_id,
        .loaded = m->state == MODEL_LOADED,
        .loading = m->state == MODEL_LOADING,
        .n_running = m->running.n,
        .n_waiting = m->waiting.n,
        .expires_ns = smodel_idle(m) ? smodel_expires_ns(s, m) : 0,
    };
    return true;
}

const struct kv_space *sched_space(const struct sched *s, u32 model_id) {
    const struct smodel *m = smodel_find(s, model_id);
    return m && m->state == MODEL_LOADED ? m->space : NULL;
}
