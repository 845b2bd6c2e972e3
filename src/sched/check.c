/* check.c - the invariants, by walking everything. */
#include "sched/internal.h"

struct counts {
    u32 n_requests, n_waiting, n_running;
};

static void check_request(const struct sched *s, const struct smodel *m, const struct sreq *r) {
    check(r->model == m);
    check(sreq_find(s, r->id) == r);
    check(r->state != REQUEST_GONE);
    if (sreq_waits(r)) {
        check(r->kv.space == NULL && r->follow == NULL);
        check(!r->dead);
        return;
    }
    check(m->state == MODEL_LOADED && !m->closing);
    check(r->prompt_ready && !r->load_only);
    check(r->n_tokens >= 1 && r->n_tokens <= r->tokens_max);
    check(r->tokens_max <= r->num_ctx);
    check(r->kv.n_tokens < r->n_tokens);
    check(r->n_draft <= LIMIT_DRAFT && r->n_tokens + r->n_draft <= r->tokens_cap);
    check(r->kv.space == NULL || (r->kv.space == m->space && !m->info.encoder));
    if (m->info.encoder) {
        check(r->state == REQUEST_PREFILL && r->n_inputs_done < r->n_ends);
        check(r->kv.n_tokens == (r->n_inputs_done ? r->ends[r->n_inputs_done - 1] : 0));
    }
    if (r->state == REQUEST_DECODE)
        check(r->kv.space != NULL && r->kv.n_tokens + 1 == r->n_tokens);
    if (r->follow) {
        check(r->kv.space == NULL);
        check(sreq_older(r->follow, r) && r->follow->model == m);
        check(r->follow->state == REQUEST_PREFILL || r->follow->kv.n_tokens >= r->follow_tokens);
    }
}

/* Nobody younger was admitted after w had become ready, or was parked; but what had started resumes before
 * what has not. */
static void check_fifo(const struct smodel *m, const struct sreq *w) {
    if (!w->prompt_ready || w->load_only)
        return;
    for (const struct sreq *r = m->running.first; r; r = r->next)
        if (!sreq_older(r, w) && !(r->resumed && w->state == REQUEST_QUEUED))
            check(r->admitted_order < w->ready_order);
}

/* a is older than b and both run: b can have been admitted first only before a was ready. */
static void check_order(const struct sreq *a, const struct sreq *b) {
    bool resumed_first = b->resumed && !a->resumed;
    if (b->admitted_order < a->admitted_order && !resumed_first)
        check(b->admitted_order < a->ready_order);
}

static void check_lists(const struct sched *s, const struct smodel *m, struct counts *c) {
    u32 n = 0;
    for (const struct sreq *r = m->waiting.first; r; r = r->next) {
        check(sreq_waits(r));
        check_request(s, m, r);
        check_fifo(m, r);
        if (r->next && r->next->state == r->state)
            check(sreq_older(r, r->next));
        if (r->next && r->state == REQUEST_QUEUED)
            check(r->next->state == REQUEST_QUEUED);
        n++;
    }
    check(n == m->waiting.n);
    c->n_waiting += n;
    n = 0;
    for (const struct sreq *r = m->running.first; r; r = r->next) {
        check(sreq_runs(r));
        check_request(s, m, r);
        check(!r->next || sreq_older(r, r->next));
        for (const struct sreq *b = r->next; b; b = b->next)
            check_order(r, b);
        n++;
    }
    check(n == m->running.n);
    c->n_running += n;
}

static void check_ledger(const struct sched *s) {
    u64 booked = sledger_booked_bytes(s), mapped = kv_pool_mapped_bytes(s->pool);
    check(s->over || booked + mapped <= s->memory_limit_bytes);
    check(kv_pool_limit_bytes(s->pool) == 0 ||
          booked + kv_pool_limit_bytes(s->pool) <= s->memory_limit_bytes);
}

void sched_check(const struct sched *s) {
    struct counts c = {0};
    for (u32 i = 0; i < s->table_cap; i++)
        for (const struct sreq *r = s->table[i]; r; r = r->hash_next)
            c.n_requests++;
    check(c.n_requests == s->n_requests);
    for (u32 i = 0; i < s->n_models; i++)
        check_lists(s, s->models[i], &c);
    check(c.n_waiting == s->n_waiting && c.n_running == s->n_running);
    check(c.n_waiting + c.n_running == s->n_requests);
    u32 n_readmitted = 0, n_parked = 0;
    for (u32 i = 0; i < s->n_models; i++)
        for (const struct sreq *r = s->models[i]->waiting.first; r; r = r->next) {
            n_readmitted += r->readmitted && r->state == REQUEST_QUEUED;
            n_parked += r->state == REQUEST_PARKED;
        }
    /* Of each model as many may have been taken in for places that were free. */
    u64 n_places = (u64)s->n_models * sadmit_running_max(s);
    check(c.n_waiting - n_readmitted - n_parked <= s->config.queue_max + n_places);
    check_ledger(s);
    kv_check(s->pool);
}
