/* models.c - models as the scheduler sees them: announced, loaded, idle, unloaded; who makes room for whom.
 *
 * A model that others wait for goes when it is idle, or when one of them has waited max_wait and it has had
 * its residency: so requests that alternate between two models that don't fit together are served in
 * groups, and none waits without end. */
#include "sched/internal.h"

#include <stdlib.h>

/* ---------------------------------------------------------------- the table */

struct smodel *smodel_find(const struct sched *s, u32 model_id) {
    for (u32 i = 0; i < s->n_models; i++)
        if (s->models[i]->info.model_id == model_id)
            return s->models[i];
    return NULL;
}

static void model_remove(struct sched *s, struct smodel *m) {
    check(m->state == MODEL_KNOWN && m->waiting.n + m->running.n == 0);
    u32 i = 0;
    while (s->models[i] != m)
        i++;
    s->n_models--;
    memmove(&s->models[i], &s->models[i + 1], (s->n_models - i) * sizeof(struct smodel *));
    if (s->room_for == m)
        s->room_for = NULL;
    if (m->space)
        kv_space_free(m->space);
    free(m);
    sledger_update(s);
}

/* Another content: no page of the old one may be found. */
static void info_set(struct smodel *m, const struct sched_model *info) {
    m->info = *info;
    if (!m->space || kv_space_identity(m->space) == info->identity)
        return;
    kv_space_free(m->space);
    m->space = NULL;
}

void smodel_announce(struct sched *s, const struct sched_model *info) {
    struct smodel *m = smodel_find(s, info->model_id);
    if (!m) {
        if (s->n_models == s->models_cap) {
            s->models_cap = s->models_cap ? s->models_cap * 2 : 8;
            s->models = xrealloc(s->models, s->models_cap * sizeof *s->models);
        }
        m = xcalloc(1, sizeof *m);
        m->info = *info;
        s->models[s->n_models++] = m;
    }
    m->forgotten = false;
    if (m->state == MODEL_KNOWN) {
        info_set(m, info);
    } else {
        m->info_next = *info;
        m->has_next = true;
    }
}

static void reject_waiting(struct sched *s, struct smodel *m, bool parked_too, enum status status,
                           const char *text) {
    u32 n;
    struct sreq **list = slist_copy(s, &m->waiting, &n);
    for (u32 i = 0; i < n; i++)
        if (parked_too || list[i]->state != REQUEST_PARKED)
            sreq_reject(s, list[i], status, "%s", text);
}

static const char removed_text[] = "the model has been removed";

static void forgotten_clean(struct sched *s, struct smodel *m) {
    if (m->state != MODEL_KNOWN || !m->forgotten)
        return;
    reject_waiting(s, m, true, ERR_NOT_FOUND, removed_text);
    model_remove(s, m);
}

void smodel_forget(struct sched *s, u32 model_id) {
    struct smodel *m = smodel_find(s, model_id);
    if (!m)
        return;
    m->forgotten = true;
    /* What has started goes on from the memory that is mapped. */
    reject_waiting(s, m, false, ERR_NOT_FOUND, removed_text);
    forgotten_clean(s, m);
}

/* ---------------------------------------------------------------- loading and unloading */

bool smodel_idle(const struct smodel *m) {
    return m->state == MODEL_LOADED && m->running.n == 0 && m->waiting.n == 0;
}

static i64 own_expires_ns(const struct smodel *m) {
    i64 at;
    if (m->keep_alive_ns < 0 || __builtin_add_overflow((i64)m->idle_ns, m->keep_alive_ns, &at))
        return INT64_MAX;
    return at;
}

i64 smodel_expires_ns(const struct sched *s, const struct smodel *m) {
    i64 at = own_expires_ns(m);
    for (u32 i = 0; m->drafts && i < s->n_models; i++) {
        const struct smodel *t = s->models[i];
        if (t != m && t->state == MODEL_LOADED && t->draft_id == m->info.model_id)
            at = MAX(at, smodel_idle(t) ? own_expires_ns(t) : INT64_MAX);
    }
    return at;
}

void smodel_expire(struct sched *s, u32 model_id, i64 keep_alive_ns) {
    struct smodel *m = smodel_find(s, model_id);
    if (!m)
        return;
    m->keep_alive_ns = keep_alive_ns;
    m->idle_ns = s->now_ns;
}

void smodel_loaded(struct sched *s, const struct sched_event *e) {
    struct smodel *m = smodel_find(s, e->model_id);
    if (!m || m->state != MODEL_LOADING)
        return;
    if (e->status != OK) {
        m->state = MODEL_KNOWN;
        m->drafts = false;
        m->unloaded_ns = s->now_ns;
        sdraft_drop(s, m);
        sledger_update(s);
        reject_waiting(s, m, true, e->status, e->text ? e->text : "the model could not be loaded");
        forgotten_clean(s, m);
        return;
    }
    m->state = MODEL_LOADED;
    m->loaded_ns = m->used_ns = m->idle_ns = s->now_ns;
    m->lead_id = 0;
    u32 n;
    struct sreq **list = slist_copy(s, &m->waiting, &n);
    for (u32 i = 0; i < n; i++)
        sreq_model_ready(s, list[i]);
}

void smodel_unloaded(struct sched *s, u32 model_id) {
    struct smodel *m = smodel_find(s, model_id);
    if (!m || m->state != MODEL_UNLOADING)
        return;
    m->state = MODEL_KNOWN;
    m->gave_way_ns = m->closing ? s->now_ns : m->gave_way_ns;
    m->closing = m->drafts = false;
    m->draft_id = 0;
    m->unloaded_ns = s->now_ns;
    s->tight = false;
    /* Its tokenizer is gone: who has no prompt yet is asked again after the next load. */
    for (struct sreq *r = m->waiting.first; r; r = r->next)
        r->wanted = false;
    if (m->has_next)
        info_set(m, &m->info_next);
    m->has_next = false;
    forgotten_clean(s, m);
    sledger_update(s);
}

void smodel_close(struct sched *s, struct smodel *m) {
    m->closing = true;
    while (m->running.last)
        sreq_park(s, m->running.last);
}

struct smodel *smodel_to_unload(const struct sched *s, const struct smodel *but, bool idle) {
    struct smodel *best = NULL;
    for (u32 i = 0; i < s->n_models; i++) {
        struct smodel *m = s->models[i];
        if (m == but || m->state != MODEL_LOADED || m->closing || m->running.n > 0 ||
            (idle && m->waiting.n > 0))
            continue;
        if (!best || m->used_ns < best->used_ns)
            best = m;
    }
    return best;
}

bool smodel_in_transit(const struct sched *s) {
    for (u32 i = 0; i < s->n_models; i++) {
        const struct smodel *m = s->models[i];
        if (m->closing || m->state == MODEL_LOADING || m->state == MODEL_UNLOADING)
            return true;
    }
    return false;
}

static bool plan_unload(struct sched *s, struct sched_plan *plan) {
    for (u32 i = 0; i < s->n_models; i++) {
        struct smodel *m = s->models[i];
        bool over = smodel_idle(m) && (m->forgotten || smodel_expires_ns(s, m) <= (i64)s->now_ns);
        if (m->state != MODEL_LOADED || !(over || m->closing))
            continue;
        check(m->running.n == 0);
        /* After its time the memory goes back; a model that makes room keeps what it can for its return. */
        if (over)
            kv_space_drop_cached(m->space);
        m->state = MODEL_UNLOADING;
        plan->kind = SCHED_PLAN_UNLOAD;
        plan->model_id = m->info.model_id;
        return true;
    }
    return false;
}

/* ---------------------------------------------------------------- who is loaded next */

/* Since when the model is missed: its head waits and it isn't there. */
static u64 missed_since_ns(const struct smodel *m) {
    u64 since = UINT64_MAX;
    for (const struct sreq *r = m->waiting.first; r; r = r->next)
        since = MIN(since, r->waiting_ns);
    return MAX(since, m->unloaded_ns);
}

static bool missed(const struct smodel *m) { return m->state == MODEL_KNOWN && m->waiting.n > 0; }

/* Missed models, the longest missed first: the one after `after`. */
static struct smodel *missed_next(const struct sched *s, const struct smodel *after) {
    struct smodel *best = NULL;
    u64 best_since = 0, after_since = after ? missed_since_ns(after) : 0;
    bool passed = after == NULL; /* of equals, those behind `after` in the table */
    for (u32 i = 0; i < s->n_models; i++) {
        struct smodel *m = s->models[i];
        if (m == after)
            passed = true;
        if (m == after || !missed(m))
            continue;
        u64 since = missed_since_ns(m);
        bool later = since > after_since || (since == after_since && passed);
        if (later && (!best || since < best_since)) {
            best = m;
            best_since = since;
        }
    }
    return best;
}

u64 smodel_residency_ns(const struct sched *s) { return s->config.max_wait_ns / RESIDENCY_SHARE; }

static bool prompts_are_coming(const struct smodel *m) {
    for (const struct sreq *r = m->waiting.first; r; r = r->next)
        if (r->wanted && !r->prompt_ready)
            return true;
    return false;
}

/* It has had its residency, and who it was loaded for has got somewhere: else two models that push each other
 * out could compute, or tokenize, the same prompts for ever. */
static bool stay_is_over(const struct sched *s, const struct smodel *m) {
    u64 stayed = s->now_ns - m->loaded_ns;
    if (stayed < smodel_residency_ns(s))
        return false;
    if (!m->lead_id)
        return stayed >= s->config.max_wait_ns || !prompts_are_coming(m);
    const struct sreq *lead = sreq_find(s, m->lead_id);
    return !lead || !sreq_runs(lead) || lead->run_tokens >= MIN_RUN_TOKENS;
}

/* Of the busy models whose stay is over the one that has been here longest. */
static struct smodel *busy_to_close(const struct sched *s) {
    struct smodel *best = NULL;
    for (u32 i = 0; i < s->n_models; i++) {
        struct smodel *m = s->models[i];
        if (m->state != MODEL_LOADED || m->closing || !stay_is_over(s, m))
            continue;
        if (!best || m->loaded_ns < best->loaded_ns)
            best = m;
    }
    return best;
}

/* Ends the choosing: closes those without whom c doesn't fit, lets the others be. */
static void victims_settle(struct sched *s, const struct smodel *c) {
    bool fits = sledger_fits(s, c, LEDGER_AFTER_CLOSING);
    for (u32 i = 0; i < s->n_models; i++) {
        struct smodel *m = s->models[i];
        if (!m->chosen)
            continue;
        m->chosen = m->closing = false;
        if (fits && !sledger_fits(s, c, LEDGER_AFTER_CLOSING))
            smodel_close(s, m);
    }
}

/* Closes models until c fits: idle ones, least recently used first; when c is overdue busy ones too. */
static bool make_room(struct sched *s, struct smodel *c) {
    bool overdue = s->now_ns - missed_since_ns(c) >= s->config.max_wait_ns;
    while (!sledger_fits(s, c, LEDGER_AFTER_CLOSING)) {
        struct smodel *m = smodel_to_unload(s, c, true);
        if (!m && overdue)
            m = busy_to_close(s);
        if (!m)
            break;
        m->closing = m->chosen = true;
    }
    victims_settle(s, c);
    if (!sledger_fits(s, c, LEDGER_AFTER_CLOSING))
        return false;
    s->room_for = c;
    sledger_update(s);
    return true;
}

static bool reject_too_large(struct sched *s, struct smodel *m) {
    u64 need = s->config.fixed_bytes + smodel_cost_bytes(m) + kv_plan_extent_bytes(&m->info.layout, 1);
    u64 limit = sledger_refusal_limit_bytes(s);
    if (need <= limit)
        return false;
    u32 n;
    struct sreq **list = slist_copy(s, &m->waiting, &n);
    for (u32 i = 0; i < n; i++)
        sreq_reject(
            s, list[i], ERR_NO_MEMORY,
            "model requires more system memory (%.1f MiB) than is available (%.1f MiB): raise MINKA_MEMORY "
            "or use a smaller model",
            (f64)need / (1 << 20), (f64)limit / (1 << 20));
    return true;
}

static void load(struct sched *s, struct smodel *m, i64 keep_alive_ns, struct sched_plan *plan) {
    m->state = MODEL_LOADING;
    m->keep_alive_ns = keep_alive_ns;
    if (!m->space)
        m->space = kv_space_new(s->pool, &m->info.layout, m->info.identity);
    if (s->room_for == m)
        s->room_for = NULL;
    sledger_evict(s, m);
    plan->kind = SCHED_PLAN_LOAD;
    plan->model_id = m->info.model_id;
}

/* Room is made for somebody who can't use it any more: gone, or the limit fell. */
static void room_review(struct sched *s) {
    struct smodel *m = s->room_for;
    if (!m || (missed(m) && (smodel_in_transit(s) || sledger_fits(s, m, LEDGER_NOW))))
        return;
    s->room_for = NULL;
    sledger_update(s);
}

static bool plan_load(struct sched *s, struct sched_plan *plan) {
    room_review(s);
    for (u32 i = 0; i < s->n_models; i++)
        if (s->models[i]->state == MODEL_LOADING)
            return false; /* one after the other: they share the disk */
    for (struct smodel *m = NULL, *next = missed_next(s, NULL); (m = next);) {
        next = missed_next(s, m);
        if (reject_too_large(s, m))
            continue;
        if (sledger_fits(s, m, LEDGER_NOW)) {
            load(s, m, m->waiting.first->keep_alive_ns, plan);
            return true;
        }
        if (!s->room_for && make_room(s, m))
            return plan_unload(s, plan);
    }
    struct smodel *draft = sdraft_book(s);
    if (draft)
        load(s, draft, 0, plan);
    return draft != NULL;
}

bool smodel_plan(struct sched *s, struct sched_plan *plan) {
    return plan_unload(s, plan) || plan_load(s, plan);
}

/* ---------------------------------------------------------------- time */

static void wake_at(const struct sched *s, u64 at, u64 *wake) {
    if (at > s->now_ns && at < *wake)
        *wake = at;
}

u64 smodel_wake_ns(const struct sched *s) {
    u64 wake = UINT64_MAX;
    bool any_missed = false;
    for (u32 i = 0; i < s->n_models; i++) {
        const struct smodel *m = s->models[i];
        if (smodel_idle(m) && smodel_expires_ns(s, m) != INT64_MAX)
            wake_at(s, (u64)smodel_expires_ns(s, m), &wake);
        if (missed(m))
            wake_at(s, missed_since_ns(m) + s->config.max_wait_ns, &wake);
        any_missed = any_missed || missed(m);
    }
    for (u32 i = 0; any_missed && i < s->n_models; i++)
        if (s->models[i]->state == MODEL_LOADED) {
            wake_at(s, s->models[i]->loaded_ns + smodel_residency_ns(s), &wake);
            wake_at(s, s->models[i]->loaded_ns + s->config.max_wait_ns, &wake);
        }
    if (s->limit_fell_ns && s->n_waiting > 0)
        wake_at(s, s->limit_fell_ns + LIMIT_GRACE_NS, &wake);
    if (kv_pool_refused(s->pool) && s->n_running + s->n_waiting > 0)
        wake_at(s, s->now_ns + REFUSED_RETRY_NS, &wake);
    return wake;
}
