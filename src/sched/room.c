/* room.c - pages for a step: free ones, cached ones, those of younger requests; and when the oldest is
 * alone and still short, the last resorts. */
#include "sched/internal.h"

/* ---------------------------------------------------------------- giving up pages */

void sreq_park(struct sched *s, struct sreq *r) {
    kv_seq_close(&r->kv, r->tokens, true, s->now_ns);
    r->waiting_ns = s->now_ns;
    r->ready_order = ++s->order;
    sreq_move(s, r, REQUEST_PARKED);
    s->n_parked_total++;
}

static void restart(struct sched *s, struct sreq *r) {
    kv_seq_close(&r->kv, r->tokens, false, s->now_ns);
    kv_evict(s->pool, UINT64_MAX, NULL);
    r->n_restarts_at = r->n_tokens;
    s->n_changes++;
    if (r->state == REQUEST_DECODE)
        sreq_move(s, r, REQUEST_PREFILL);
    s->tight = true;
}

/* Youngest running request younger than r; one that has just resumed only if there is no other. */
static struct sreq *victim_for(const struct sched *s, const struct sreq *r) {
    struct sreq *any = NULL, *best = NULL;
    for (u32 i = 0; i < s->n_models; i++)
        for (struct sreq *q = s->models[i]->running.last; q && sreq_older(r, q); q = q->prev) {
            if (q->model->info.encoder)
                continue; /* has no pages to give */
            bool fresh = q->resumed && q->run_tokens < MIN_RUN_TOKENS;
            if (!any || sreq_older(any, q))
                any = q;
            if (!fresh && (!best || sreq_older(best, q)))
                best = q;
        }
    return best ? best : any;
}

/* ---------------------------------------------------------------- last resorts */

/* The system refuses what the ledger has: wait, it may be pressed for a moment only. true = refused for good.
 */
static bool system_has_none(struct sched *s, struct sreq *r) {
    if (!r->refused_ns)
        r->refused_ns = MAX(s->now_ns, 1u);
    if (s->now_ns - r->refused_ns < REFUSED_MAX_NS)
        return false;
    sreq_reject(s, r, ERR_NO_MEMORY,
                "the system has no memory for the KV cache: lower MINKA_MEMORY or free memory");
    return true;
}

/* A model that runs beside the oldest request when nobody is left to park: an encoder, whose requests have no
 * pages, but whose weights take memory. */
static struct smodel *running_beside(const struct sched *s, const struct sreq *r) {
    for (u32 i = 0; i < s->n_models; i++)
        if (s->models[i] != r->model && s->models[i]->running.n > 0)
            return s->models[i];
    return NULL;
}

bool sroom_last_resort(struct sched *s, struct sreq *r, u32 n_tokens) {
    if (smodel_in_transit(s))
        return false;
    u64 need = kv_plan_extent_bytes(&r->model->info.layout, n_tokens), have = kv_pool_limit_bytes(s->pool);
    struct smodel *other = smodel_to_unload(s, r->model, false);
    if (!other && need > have)
        other = running_beside(s, r);
    if (other) {
        smodel_close(s, other);
        return false;
    }
    if (need > have && need <= sledger_alone_bytes(s, r->model, sledger_refusal_limit_bytes(s))) {
        sreq_park(s, r); /* the limit fell a moment ago */
        return true;
    }
    if (need > have) {
        sreq_reject(
            s, r, ERR_NO_MEMORY,
            "%u tokens need %.1f MiB of KV cache, but only %.1f MiB are left of the memory limit: lower "
            "num_ctx or raise MINKA_MEMORY",
            n_tokens, (f64)need / (1 << 20), (f64)have / (1 << 20));
        return true;
    }
    if (r->n_restarts_at != r->n_tokens) {
        restart(s, r);
        return true;
    }
    return system_has_none(s, r);
}

/* ---------------------------------------------------------------- reserving */

bool sroom_reserve(struct sched *s, struct sreq *r, u32 n_tokens) {
    while (!kv_seq_reserve(&r->kv, n_tokens)) {
        if (kv_evict(s->pool, kv_seq_need_bytes(&r->kv, n_tokens), NULL) > 0)
            continue;
        if (kv_pool_refused(s->pool))
            s->refused_ns = MAX(s->now_ns, 1u);
        if (sdraft_close(s))
            return false; /* its memory is on the way */
        struct sreq *victim = victim_for(s, r);
        if (victim) {
            sreq_park(s, victim);
        } else if (r != sreq_oldest_running(s)) {
            sreq_park(s, r);
            return false;
        } else {
            sroom_last_resort(s, r, n_tokens);
            return false;
        }
    }
    r->refused_ns = 0;
    return true;
}
