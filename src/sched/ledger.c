/* ledger.c - memory: the engine's own + weights + scratch + KV extents <= limit. The pool's limit is
 * what the others leave, so that no page can break it. */
#include "sched/internal.h"

static u64 minus(u64 a, u64 b) { return a > b ? a - b : 0; }

u64 sledger_booked_bytes(const struct sched *s) {
    u64 sum = s->config.fixed_bytes;
    for (u32 i = 0; i < s->n_models; i++)
        if (smodel_booked(s->models[i]))
            sum += smodel_cost_bytes(s->models[i]);
    return sum;
}

u64 sledger_alone_bytes(const struct sched *s, const struct smodel *m, u64 limit_bytes) {
    return minus(limit_bytes, s->config.fixed_bytes + smodel_cost_bytes(m));
}

u64 sledger_refusal_limit_bytes(const struct sched *s) {
    bool grace = s->limit_fell_ns && s->now_ns - s->limit_fell_ns < LIMIT_GRACE_NS;
    return grace ? MAX(s->memory_limit_bytes, s->limit_before_bytes) : s->memory_limit_bytes;
}

static bool is_over(const struct sched *s) {
    return sledger_booked_bytes(s) + kv_pool_mapped_bytes(s->pool) > s->memory_limit_bytes;
}

void sledger_limit(struct sched *s, u64 bytes) {
    if (bytes < s->memory_limit_bytes && sledger_refusal_limit_bytes(s) == s->memory_limit_bytes) {
        s->limit_fell_ns = MAX(s->now_ns, 1u);
        s->limit_before_bytes = s->memory_limit_bytes;
    }
    s->tight = s->tight && bytes <= s->memory_limit_bytes;
    s->memory_limit_bytes = bytes;
    sledger_update(s);
    s->over = is_over(s);
}

static bool leaves(const struct smodel *m) { return m->state == MODEL_UNLOADING || m->closing; }

/* Room that is being made must not be taken by pages meanwhile. */
static u64 room_reserved_bytes(const struct sched *s) {
    if (!s->room_for)
        return 0;
    u64 leaving = 0;
    for (u32 i = 0; i < s->n_models; i++)
        if (leaves(s->models[i]))
            leaving += smodel_cost_bytes(s->models[i]);
    return minus(smodel_cost_bytes(s->room_for), leaving);
}

void sledger_update(struct sched *s) {
    kv_pool_limit(s->pool, minus(s->memory_limit_bytes, sledger_booked_bytes(s) + room_reserved_bytes(s)));
}

/* ---------------------------------------------------------------- loading */

/* KV that must stay beside a new model: what is pinned or promised, at least the oldest request's full
 * length, because that one is never parked for want of pages; and the first pages of the new model. */
static u64 kv_floor_bytes(const struct sched *s, const struct smodel *c, enum ledger_when when) {
    u64 held = 0, first = kv_plan_extent_bytes(&c->info.layout, 1);
    const struct sreq *oldest = NULL;
    for (u32 i = 0; i < s->n_models; i++) {
        const struct smodel *m = s->models[i];
        if (!m->space || (when == LEDGER_AFTER_CLOSING && leaves(m)))
            continue;
        held += kv_space_pinned_extent_bytes(m->space);
        const struct sreq *r = m->running.first;
        if (r && (!oldest || sreq_older(r, oldest)))
            oldest = r;
    }
    if (oldest)
        held = MAX(held + sledger_promised_bytes(s),
                   kv_plan_extent_bytes(&oldest->model->info.layout, oldest->tokens_max));
    return held + first;
}

bool sledger_fits(const struct sched *s, const struct smodel *c, enum ledger_when when) {
    u64 sum = s->config.fixed_bytes + smodel_cost_bytes(c);
    u32 n_loaded = 1;
    for (u32 i = 0; i < s->n_models; i++) {
        const struct smodel *m = s->models[i];
        bool goes = when == LEDGER_AFTER_CLOSING && leaves(m);
        if (!smodel_booked(m) || goes)
            continue;
        sum += smodel_cost_bytes(m);
        n_loaded += !(m->drafts && m->running.n + m->waiting.n == 0); /* it belongs to its target */
    }
    if (s->room_for && s->room_for != c) {
        sum += room_reserved_bytes(s);
        n_loaded++;
    }
    if (s->config.loaded_max && n_loaded > s->config.loaded_max)
        return false;
    return sum + kv_floor_bytes(s, c, when) <= s->memory_limit_bytes;
}

void sledger_evict(struct sched *s, const struct smodel *spare) {
    sledger_update(s);
    u64 mapped = kv_pool_mapped_bytes(s->pool), limit = kv_pool_limit_bytes(s->pool);
    while (mapped > limit && kv_evict(s->pool, mapped - limit, spare->space) > 0)
        mapped = kv_pool_mapped_bytes(s->pool);
    check(mapped <= limit);
}

/* ---------------------------------------------------------------- a limit that shrank */

static u64 staying_bytes(const struct sched *s) {
    u64 sum = s->config.fixed_bytes;
    for (u32 i = 0; i < s->n_models; i++)
        if (smodel_booked(s->models[i]) && !leaves(s->models[i]))
            sum += smodel_cost_bytes(s->models[i]);
    return sum;
}

/* Models alone are over the limit: idle ones go first, then any without the oldest request, then that one. */
static void shrink_models(struct sched *s) {
    while (staying_bytes(s) > s->memory_limit_bytes) {
        const struct sreq *oldest = sreq_oldest_running(s);
        struct smodel *m = smodel_to_unload(s, NULL, true);
        if (!m)
            m = smodel_to_unload(s, NULL, false);
        for (u32 i = 0; !m && i < s->n_models; i++) {
            struct smodel *c = s->models[i];
            bool has_oldest = oldest && oldest->model == c;
            if (c->state == MODEL_LOADED && !c->closing && (!has_oldest || s->n_running == c->running.n))
                m = c;
        }
        if (!m)
            return; /* one is being loaded; its turn comes when it is */
        smodel_close(s, m);
    }
}

/* Pages: cached ones, then the youngest requests', then room for the oldest's by unloading or compaction. */
static void shrink_pages(struct sched *s) {
    for (;;) {
        u64 mapped = kv_pool_mapped_bytes(s->pool), limit = kv_pool_limit_bytes(s->pool);
        if (mapped <= limit)
            return;
        if (kv_evict(s->pool, mapped - limit, NULL) > 0)
            continue;
        struct sreq *oldest = sreq_oldest_running(s), *youngest = sreq_youngest_running(s);
        check(oldest != NULL);
        if (youngest != oldest) {
            sreq_park(s, youngest);
            continue;
        }
        oldest->n_restarts_at = 0; /* the limit is new: compaction is worth another try */
        if (!sroom_last_resort(s, oldest, oldest->n_tokens))
            return;
    }
}

void sledger_shrink(struct sched *s) {
    shrink_models(s);
    sledger_update(s);
    shrink_pages(s);
    s->over = s->over && is_over(s);
}
