/* admit.c - who may start: oldest first, as far as memory and the cap allow; and single flight. */
#include "sched/internal.h"

/* ---------------------------------------------------------------- single flight */

static u32 common_pages_tokens(const struct sreq *a, const struct sreq *b) {
    u32 n = MIN(a->n_tokens, b->n_tokens - 1), i = 0;
    while (i < n && a->tokens[i] == b->tokens[i])
        i++;
    return i / KV_PAGE_TOKENS * KV_PAGE_TOKENS;
}

/* Only older ones, so that nobody waits in a circle. What the tree has already needs no waiting. */
void sfollow_find(struct sreq *r) {
    r->follow = NULL;
    r->follow_tokens = 0;
    if (r->model->info.encoder || r->every_row)
        return;
    r->follow_tokens = kv_space_match(r->model->space, r->tokens, r->n_tokens);
    for (struct sreq *o = r->model->running.first; o && sreq_older(o, r); o = o->next) {
        if (o->state != REQUEST_PREFILL)
            continue;
        u32 common = common_pages_tokens(o, r);
        if (common <= r->follow_tokens || common <= o->kv.n_tokens)
            continue;
        r->follow = o;
        r->follow_tokens = common;
    }
}

void sfollow_drop(const struct sreq *owner) {
    for (struct sreq *r = owner->model->running.first; r; r = r->next)
        if (r->follow == owner)
            sfollow_find(r);
}

/* ---------------------------------------------------------------- room */

/* Extents of a sequence as long as it may get: while all running ones have that, nobody is parked. */
static u64 worst_bytes(const struct sreq *r) {
    return kv_plan_extent_bytes(&r->model->info.layout, r->tokens_max);
}

bool sreq_refuse_too_large(struct sched *s, struct sreq *r) {
    u64 limit = sledger_refusal_limit_bytes(s);
    u64 need = worst_bytes(r), have = sledger_alone_bytes(s, r->model, limit);
    if (need <= have)
        return false;
    sreq_reject(
        s, r, ERR_NO_MEMORY,
        "the request needs %.1f MiB of KV cache for up to %u tokens, but %.1f MiB are left of %.1f MiB "
        "beside the model: lower num_ctx or num_predict, or raise MINKA_MEMORY",
        (f64)need / (1 << 20), r->tokens_max, (f64)have / (1 << 20), (f64)limit / (1 << 20));
    return true;
}

/* What one running request will still take for the tokens that it has. */
static u64 promised_to(const struct sreq *r) {
    u64 all = kv_plan_bytes(&r->model->info.layout, r->n_tokens + 1);
    u64 held = r->kv.space ? kv_seq_held_bytes(&r->kv)
               : r->follow ? kv_plan_bytes(&r->model->info.layout, r->follow_tokens)
                           : 0;
    return all > held ? all - held : 0;
}

u64 sledger_promised_bytes(const struct sched *s) {
    u64 sum = 0;
    for (u32 i = 0; i < s->n_models; i++)
        for (const struct sreq *r = s->models[i]->running.first; r; r = r->next)
            sum += promised_to(r);
    return sum;
}

/* After a compaction: only if all could grow to their full length, or the pages would be scattered again. */
static bool fits_for_good(const struct sched *s, const struct sreq *r) {
    u64 sum = worst_bytes(r);
    for (u32 i = 0; i < s->n_models; i++)
        for (const struct sreq *q = s->models[i]->running.first; q; q = q->next)
            sum += worst_bytes(q);
    return sum <= kv_pool_limit_bytes(s->pool);
}

/* A page for each that runs to grow by: else parked ones come back a page too early, and are parked again. */
static u64 growth_bytes(const struct sched *s) {
    u64 sum = 0;
    for (u32 i = 0; i < s->n_models; i++) {
        const struct smodel *m = s->models[i];
        sum += kv_plan_extent_bytes(&m->info.layout, m->running.n * KV_PAGE_TOKENS);
    }
    return sum;
}

static bool fits_beside(struct sched *s, const struct sreq *r) {
    struct kv_space *space = r->model->space;
    if (s->n_running == 0) /* the rest goes for it if need be */
        return kv_plan_extent_bytes(&r->model->info.layout, r->n_tokens) <=
               sledger_alone_bytes(s, r->model, s->memory_limit_bytes);
    if (s->tight)
        return fits_for_good(s, r);
    u64 need = kv_space_need_bytes(space, r->tokens, r->n_tokens,
                                   MIN(r->n_tokens + ADMIT_MARGIN_TOKENS, r->tokens_max));
    if (r->follow)
        need -= MIN(need, kv_plan_bytes(&r->model->info.layout, r->follow_tokens));
    /* Pages of the space's pinned extents that nobody pins can be had without a new extent. */
    u64 spare = kv_space_pinned_extent_bytes(space) - kv_space_pinned_bytes(space);
    u64 used = kv_pool_pinned_extent_bytes(s->pool) + sledger_promised_bytes(s) + growth_bytes(s);
    return used + need <= kv_pool_limit_bytes(s->pool) + spare;
}

/* ---------------------------------------------------------------- admission */

/* Each decodes one row of a step, and slices need room beside them. */
u32 sadmit_running_max(const struct sched *s) {
    u32 cap = MIN(LIMIT_RUNNING, s->config.rows_max / 2);
    return s->config.parallel_max ? MIN(cap, s->config.parallel_max) : cap;
}

/* Parked ones first, then the oldest whose prompt is there. */
static struct sreq *next_of_model(const struct sched *s, const struct smodel *m) {
    if (m->state != MODEL_LOADED || m->closing || m->running.n >= sadmit_running_max(s))
        return NULL;
    struct sreq *r = m->waiting.first;
    while (r && !r->prompt_ready)
        r = r->next;
    return r;
}

/* Memory is shared, so that the oldest of all models goes first, and who finds no room holds up the rest. */
static struct sreq *next_of_all(const struct sched *s) {
    struct sreq *best = NULL;
    for (u32 i = 0; i < s->n_models; i++) {
        struct sreq *r = next_of_model(s, s->models[i]);
        if (r && (!best || sreq_older(r, best)))
            best = r;
    }
    return best;
}

static void admit(struct sched *s, struct sreq *r) {
    struct smodel *m = r->model;
    if (r->state == REQUEST_QUEUED) {
        m->keep_alive_ns = r->keep_alive_ns;
        srate_add(&m->drain, s->now_ns);
        srate_add(&s->drain, s->now_ns);
        s->n_refused_waiting -= s->n_refused_waiting > 0;
    }
    r->resumed = r->state == REQUEST_PARKED;
    r->run_tokens = 0;
    r->credit = 0;
    r->admitted_order = ++s->order;
    if (!m->lead_id)
        m->lead_id = r->id;
    if (r->draft_id)
        m->draft_id = r->draft_id;
    sreq_move(s, r, REQUEST_PREFILL);
}

void sadmit_all(struct sched *s) {
    if (s->refused_ns && s->now_ns - s->refused_ns < REFUSED_RETRY_NS && s->n_running > 0)
        return;
    for (struct sreq *r; (r = next_of_all(s));) {
        s->tight = s->tight && s->n_running > 0;
        if (sreq_refuse_too_large(s, r))
            continue;
        sfollow_find(r);
        if (!fits_beside(s, r)) {
            r->follow = NULL;
            sdraft_close(s);
            return;
        }
        admit(s, r);
    }
}
