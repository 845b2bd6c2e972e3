/* sim_promise.c - what must hold: checked from outside where the interface shows it, from inside else. */
#include "sim.h"

void sim_promise_event(struct sim *w) {
    sched_check(w->sched);
    check(kv_pool_mapped_bytes(w->sched->pool) == w->memory.mapped_bytes);
}

/* Below the bound nobody is refused. Above it only who can start when his prompt is ready is taken: the model
 * is there, has a place free, and nobody of it waits who is ready. */
void sim_promise_arrival(struct sim *w, const struct sim_request *r, u32 n_waiting_before, bool readmitted) {
    const struct sreq *q = sreq_find(w->sched, r->id);
    bool below = n_waiting_before < w->o.config.queue_max || readmitted;
    if (w->models[r->model].forgotten)
        check(!q);
    else if (below)
        check(q);
    if (!q || below)
        return;
    u32 cap = w->o.config.parallel_max ? w->o.config.parallel_max : w->o.config.rows_max / 2;
    u32 n_prepared = 0;
    for (u32 i = 0; i < w->sched->n_models; i++)
        for (const struct sreq *p = w->sched->models[i]->waiting.first; p; p = p->next)
            n_prepared += p != q && w->sched->models[i]->state == MODEL_LOADED && !p->prompt_ready;
    if (n_waiting_before - n_prepared < w->o.config.queue_max)
        return; /* enough of them are only being prepared */
    check(w->models[r->model].loaded && q->model->running.n + q->model->waiting.n <= cap);
    for (const struct sreq *p = q->model->waiting.first; p; p = p->next)
        check(!p->prompt_ready);
}

/* ---------------------------------------------------------------- plans */

static bool under_way(const struct sim *w) {
    for (u32 i = 0; i < w->o.n_models; i++)
        if (w->models[i].mapped && !w->models[i].loaded)
            return true;
    return false;
}

static void promise_ledger(struct sim *w, const struct sched_plan *plan) {
    struct sched_state st;
    u64 weights = 0;
    sched_state(w->sched, &st);
    for (u32 i = 0; i < w->o.n_models; i++)
        if (w->models[i].mapped || (plan->kind == SCHED_PLAN_LOAD && plan->model_id == 100 + i))
            weights += w->models[i].info.weights_bytes;
    check(st.weights_bytes == weights);
    check(st.kv_bytes == w->memory.mapped_bytes);
    if (under_way(w) || plan->kind == SCHED_PLAN_UNLOAD)
        return;                                          /* a limit that fell is on its way */
    u64 held = weights + st.scratch_bytes + st.kv_bytes; /* what it can give back */
    check(held == 0 || w->o.config.fixed_bytes + held <= w->limit_bytes);
}

/* The oldest running request is parked only with its model, or when one that is older has come back. */
static void promise_oldest(struct sim *w, u64 oldest_id) {
    const struct sreq *r = oldest_id ? sreq_find(w->sched, oldest_id) : NULL;
    bool fell = w->limit_changed_ns && w->now_ns - w->limit_changed_ns <= LIMIT_GRACE_NS;
    if (r && r->model->state == MODEL_LOADED && !r->model->closing && !fell)
        check(sreq_runs(r) || (w->sched->n_running > 0 && sreq_older(sreq_oldest_running(w->sched), r)));
}

/* Nothing to do is the truth. */
static void promise_work(struct sim *w, const struct sched_plan *plan) {
    const struct sched *s = w->sched;
    bool waits_for_prompt = false;
    if (plan->kind != SCHED_PLAN_IDLE || under_way(w) || kv_pool_refused(s->pool))
        return;
    if (s->limit_fell_ns && w->now_ns - s->limit_fell_ns < LIMIT_GRACE_NS && s->n_waiting > 0) {
        check(plan->wake_ns <= s->limit_fell_ns + LIMIT_GRACE_NS);
        return;
    }
    check(s->n_running == 0);
    for (u32 i = 0; i < s->n_models; i++) {
        const struct smodel *m = s->models[i];
        if (m->state != MODEL_LOADED)
            continue;
        waits_for_prompt = waits_for_prompt || m->waiting.n > 0;
        for (const struct sreq *r = m->waiting.first; r; r = r->next)
            check(!r->prompt_ready);
        if (m->waiting.n == 0 && smodel_expires_ns(s, m) != INT64_MAX) {
            check(smodel_expires_ns(s, m) > (i64)w->now_ns);
            check(plan->wake_ns <= (u64)smodel_expires_ns(s, m));
        }
    }
    for (u32 i = 0; i < s->n_models; i++)
        if (s->models[i]->state == MODEL_KNOWN && s->models[i]->waiting.n > 0)
            check(waits_for_prompt);
}

/* How long a stay may last beyond its residency: all prompts of the model, in the smallest slices, and the
 * first request's minimum run, its steps shared with the other models. */
static u64 stay_ns(const struct sim *w, u32 model) {
    u32 force = w->o.config.slice_force, slice = force ? MIN(force, SLICE_MIN) : SLICE_MIN;
    u64 n_steps = MIN_RUN_TOKENS;
    for (u32 i = 0; i < w->o.n_requests; i++)
        if (w->requests[i].model == model && w->requests[i].arrived)
            n_steps += w->requests[i].n_tokens / slice + 1;
    return n_steps * w->longest_step_ns * w->o.n_models;
}

/* Its stay may end: it has had its residency, and its first request its minimum run. */
static bool stay_is_over(const struct sim *w, const struct smodel *m) {
    const struct sreq *lead = sreq_find(w->sched, m->lead_id);
    bool served = lead ? !sreq_runs(lead) || lead->run_tokens >= MIN_RUN_TOKENS : m->lead_id > 0;
    for (const struct sreq *r = m->lead_id ? NULL : m->waiting.first; r; r = r->next)
        served = served && r->prompt_ready; /* who can't start yet gets max_wait */
    if (!m->lead_id && (m->waiting.n == 0 || w->now_ns - m->loaded_ns >= w->o.config.max_wait_ns))
        served = true;
    return served && w->now_ns - m->loaded_ns >= w->o.config.max_wait_ns / RESIDENCY_SHARE;
}

/* If a model is overdue and every stay is over, somebody is on the way out; at the next plan, if it was this
 * one that ended a stay by parking. */
static bool is_neglected(const struct sim *w, const struct sched_plan *plan, const struct smodel *missed) {
    if (under_way(w) || plan->kind == SCHED_PLAN_LOAD || plan->kind == SCHED_PLAN_UNLOAD)
        return false;
    for (u32 i = 0; i < w->sched->n_models; i++) {
        const struct smodel *m = w->sched->models[i];
        if (m != missed && m->state == MODEL_LOADED && !stay_is_over(w, m))
            return false;
    }
    return true;
}

/* The longest wait for a model: max_wait, then each of the others may have its stay and its load. */
static void promise_max_wait(struct sim *w, const struct sched_plan *plan) {
    const struct sched *s = w->sched;
    u64 max_wait = w->o.config.max_wait_ns;
    bool neglected = false;
    u64 bound = max_wait;
    for (u32 i = 0; i < w->o.n_models; i++)
        bound += max_wait + stay_ns(w, i) + w->longest_load_ns + 10 * SIM_MS;
    for (u32 i = 0; i < s->n_models; i++) {
        const struct smodel *m = s->models[i];
        if (m->state != MODEL_KNOWN || m->waiting.n == 0)
            continue;
        u64 since = UINT64_MAX;
        for (const struct sreq *r = m->waiting.first; r; r = r->next)
            since = MIN(since, r->waiting_ns);
        since = MAX(since, m->unloaded_ns);
        if (w->limit_changed_ns)
            since = MAX(since, w->limit_changed_ns + LIMIT_GRACE_NS);
        if (since > w->now_ns)
            continue;
        check(w->now_ns - since <= bound);
        if (w->now_ns - since < max_wait)
            continue;
        w->counts->n_overdue++;
        neglected = neglected || is_neglected(w, plan, m);
    }
    check(!(neglected && w->neglected));
    w->neglected = neglected;
}

void sim_promise_plan(struct sim *w, const struct sched_plan *plan, u64 oldest_id) {
    sched_check(w->sched);
    promise_ledger(w, plan);
    promise_oldest(w, oldest_id);
    promise_work(w, plan);
    promise_max_wait(w, plan);
}

/* ---------------------------------------------------------------- ends */

/* What the request or its model needs is above what the limit has been. */
static bool too_large(const struct sim *w, const struct sim_request *r) {
    const struct sched_model *m = &w->models[r->model].info;
    u64 needs = w->o.config.fixed_bytes + m->weights_bytes + m->scratch_bytes;
    u32 longest = MIN(r->num_ctx, r->n_prompt + r->predict_max);
    return needs + kv_plan_extent_bytes(&m->layout, MAX(longest, r->n_tokens)) > r->limit_min_bytes;
}

void sim_promise_rejection(struct sim *w, struct sim_request *r, const struct sched_notice *n) {
    sim_say(w, "rejected %llu: %s", (unsigned long long)r->id, n->text);
    r->end = SIM_REJECTED;
    check(n->text[0] != 0);
    if (n->status == ERR_BUSY) {
        check(n->retry_after_s >= 1 && !r->started && !r->wanted);
        w->counts->n_rejected_busy++;
    } else if (n->status == ERR_NO_MEMORY) {
        check(too_large(w, r) || w->o.map_fail_percent > 0);
        w->counts->n_rejected_memory++;
    } else if (n->status == ERR_IO) {
        check(w->o.load_fail_percent > 0);
        w->counts->n_rejected_load++;
    } else {
        check(n->status == ERR_NOT_FOUND && w->o.n_forgets > 0);
        w->counts->n_rejected_removed++;
    }
}

/* The pool has no room for what the oldest running request holds as tokens. */
static bool oldest_is_short(const struct sim *w) {
    const struct sreq *r = sreq_oldest_running(w->sched);
    u64 limit = kv_pool_limit_bytes(w->sched->pool), mapped = kv_pool_mapped_bytes(w->sched->pool);
    u64 left = limit > mapped ? limit - mapped : 0;
    return r && (w->o.map_fail_percent > 0 || kv_seq_held_bytes(&r->kv) + left <
                                                  kv_plan_extent_bytes(&r->model->info.layout, r->n_tokens));
}

/* Before its time a model goes only if its memory or place is needed. */
void sim_promise_unload(struct sim *w, u32 model) {
    const struct sched *s = w->sched;
    const struct smodel *m = smodel_find(s, 100 + model);
    check(m->state == MODEL_UNLOADING && m->running.n == 0);
    const struct sim_model *mine = &w->models[model];
    bool over = m->waiting.n == 0 && mine->keep_alive_min_ns >= 0 &&
                w->now_ns >= mine->last_use_ns + (u64)mine->keep_alive_min_ns;
    bool missed = false;
    for (u32 i = 0; i < s->n_models; i++)
        missed = missed || (s->models[i]->state == MODEL_KNOWN && s->models[i]->waiting.n > 0);
    /* One that guesses for others goes with them, and before anybody is parked or kept waiting. */
    if (!over && !m->forgotten && !missed && !m->drafts && w->limit_changed_ns == 0)
        check(oldest_is_short(w));
}

void sim_promise_end(struct sim *w) {
    const struct sched *s = w->sched;
    check(s->n_requests == 0 && s->n_waiting == 0 && s->n_running == 0);
    u64 needed = 0;
    for (u32 i = 0; i < w->o.n_requests; i++) {
        const struct sim_request *r = &w->requests[i];
        check(r->end != SIM_OPEN);
        w->counts->n_requests++;
        needed += r->n_prompt + r->n_output;
    }
    w->counts->n_rows_needed += needed;
    struct kv_stats st;
    kv_pool_stats(s->pool, &st);
    check(st.pinned_bytes == 0);
}
