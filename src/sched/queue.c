/* queue.c - requests: table and lists, arrival and the bound, notices, positions. */
#include "sched/internal.h"

#include <stdio.h>
#include <stdlib.h>

/* ---------------------------------------------------------------- lists by age */

static bool list_before(const struct sreq *a, const struct sreq *b) {
    bool a_parked = a->state == REQUEST_PARKED, b_parked = b->state == REQUEST_PARKED;
    return a_parked != b_parked ? a_parked : sreq_older(a, b);
}

void slist_insert(struct slist *l, struct sreq *r) {
    struct sreq *after = l->last;
    while (after && list_before(r, after))
        after = after->prev;
    r->prev = after;
    r->next = after ? after->next : l->first;
    if (r->next)
        r->next->prev = r;
    else
        l->last = r;
    if (after)
        after->next = r;
    else
        l->first = r;
    l->n++;
}

void slist_remove(struct slist *l, struct sreq *r) {
    if (r->next)
        r->next->prev = r->prev;
    else
        l->last = r->prev;
    if (r->prev)
        r->prev->next = r->next;
    else
        l->first = r->next;
    r->prev = r->next = NULL;
    l->n--;
}

struct sreq **slist_copy(struct sched *s, const struct slist *l, u32 *n) {
    if (l->n > s->scratch_cap) {
        s->scratch_cap = MAX(l->n, s->scratch_cap * 2);
        s->scratch = xrealloc(s->scratch, s->scratch_cap * sizeof *s->scratch);
    }
    *n = 0;
    for (struct sreq *r = l->first; r; r = r->next)
        s->scratch[(*n)++] = r;
    return s->scratch;
}

struct sreq *sreq_oldest_running(const struct sched *s) {
    struct sreq *best = NULL;
    for (u32 i = 0; i < s->n_models; i++) {
        struct sreq *r = s->models[i]->running.first;
        if (r && (!best || sreq_older(r, best)))
            best = r;
    }
    return best;
}

struct sreq *sreq_youngest_running(const struct sched *s) {
    struct sreq *best = NULL;
    for (u32 i = 0; i < s->n_models; i++) {
        struct sreq *r = s->models[i]->running.last;
        if (r && (!best || sreq_older(best, r)))
            best = r;
    }
    return best;
}

/* ---------------------------------------------------------------- table by id */

static u32 table_slot(const struct sched *s, u64 id) {
    return (u32)(hash_bytes(&id, sizeof id, 0) & (s->table_cap - 1));
}

static void table_grow(struct sched *s) {
    struct sreq **old = s->table;
    u32 old_cap = s->table_cap;
    s->table_cap = old_cap ? old_cap * 2 : 64;
    s->table = xcalloc(s->table_cap, sizeof *s->table);
    for (u32 i = 0; i < old_cap; i++)
        for (struct sreq *r = old[i], *next; r; r = next) {
            next = r->hash_next;
            struct sreq **slot = &s->table[table_slot(s, r->id)];
            r->hash_next = *slot;
            *slot = r;
        }
    free(old);
}

struct sreq *sreq_find(const struct sched *s, u64 id) {
    struct sreq *r = s->table_cap ? s->table[table_slot(s, id)] : NULL;
    while (r && r->id != id)
        r = r->hash_next;
    return r;
}

static struct sreq *request_new(struct sched *s, u64 id) {
    if (s->n_requests == s->table_cap)
        table_grow(s);
    struct sreq *r = xcalloc(1, sizeof *r);
    r->id = id;
    r->arrival = ++s->arrivals;
    struct sreq **slot = &s->table[table_slot(s, id)];
    r->hash_next = *slot;
    *slot = r;
    s->n_requests++;
    return r;
}

void sreq_forget(struct sched *s, struct sreq *r) {
    struct sreq **slot = &s->table[table_slot(s, r->id)];
    while (*slot != r)
        slot = &(*slot)->hash_next;
    *slot = r->hash_next;
    s->n_requests--;
    free(r->tokens);
    free(r->ends);
    free(r);
}

/* ---------------------------------------------------------------- notices */

struct sched_notice *snotice_add(struct sched *s, enum sched_notice_kind kind, u64 request_id) {
    if (s->n_notices == s->notices_cap) {
        s->notices_cap = s->notices_cap ? s->notices_cap * 2 : 16;
        s->notices = xrealloc(s->notices, s->notices_cap * sizeof *s->notices);
    }
    struct sched_notice *n = &s->notices[s->n_notices++];
    *n = (struct sched_notice){.kind = kind, .request_id = request_id};
    return n;
}

static struct sched_notice *rejection_add(struct sched *s, u64 request_id, enum status status) {
    s->n_rejected_total++;
    struct sched_notice *n = snotice_add(s, SCHED_NOTICE_REJECTED, request_id);
    n->status = status;
    return n;
}

void sreq_reject(struct sched *s, struct sreq *r, enum status status, const char *fmt, ...) {
    struct sched_notice *n = rejection_add(s, r->id, status);
    n->queue_ns = s->now_ns - r->arrived_ns;
    va_list args;
    va_start(args, fmt);
    vsnprintf(n->text, sizeof n->text, fmt, args);
    va_end(args);
    sreq_end(s, r, false);
}

/* ---------------------------------------------------------------- arrival */

/* Each who was refused before this one takes a place when it comes back. */
static u32 retry_after_s(const struct sched *s) {
    f64 rate = srate_per_s(&s->drain, s->now_ns);
    if (rate <= 0)
        return 1;
    f64 seconds = (s->n_refused_waiting + 1) / rate;
    return seconds < 1 ? 1 : seconds > 3600 ? 3600 : (u32)(seconds + 0.999);
}

static void reject_busy(struct sched *s, u64 request_id) {
    struct sched_notice *n = rejection_add(s, request_id, ERR_BUSY);
    /* The reference's text, both blanks. */
    snprintf(n->text, sizeof n->text, "server busy, please try again.  maximum pending requests exceeded");
    n->retry_after_s = retry_after_s(s);
    s->n_refused_waiting++;
}

void sreq_model_ready(struct sched *s, struct sreq *r) {
    if (!r->model_ready_ns)
        r->model_ready_ns = MAX(s->now_ns, 1u);
    if (!r->load_only)
        return;
    struct sched_notice *n = snotice_add(s, SCHED_NOTICE_READY, r->id);
    n->queue_ns = n->load_ns = s->now_ns - r->arrived_ns;
    r->model->keep_alive_ns = r->keep_alive_ns;
    sreq_end(s, r, false);
}

void squeue_want_prompts(struct sched *s) {
    for (u32 i = 0; i < s->n_models; i++) {
        struct smodel *m = s->models[i];
        for (struct sreq *r = m->state == MODEL_LOADED ? m->waiting.first : NULL; r; r = r->next) {
            if (r->wanted || r->prompt_ready)
                continue;
            r->wanted = true;
            snotice_add(s, SCHED_NOTICE_WANTED, r->id);
        }
    }
}

/* Requests of m that are only being tokenized: its model is there, a place is free and nobody is before them.
 */
static u32 being_prepared(const struct sched *s, const struct smodel *m) {
    if (m->state != MODEL_LOADED || m->closing)
        return 0;
    u32 n = 0;
    for (const struct sreq *r = m->waiting.first; r; r = r->next) {
        if (r->prompt_ready)
            return 0;
        n++;
    }
    return MIN(n, sadmit_running_max(s) - MIN(m->running.n, sadmit_running_max(s)));
}

/* What the bound counts. A request that can start as soon as it is tokenized doesn't wait. */
static bool queue_is_full(const struct sched *s, const struct smodel *m) {
    bool starts = m->state == MODEL_LOADED && !m->closing && being_prepared(s, m) == m->waiting.n &&
                  m->running.n + m->waiting.n < sadmit_running_max(s);
    u32 n = s->n_waiting;
    for (u32 i = 0; i < s->n_models; i++)
        n -= being_prepared(s, s->models[i]);
    return !starts && n >= s->config.queue_max;
}

void squeue_arrive(struct sched *s, const struct sched_event *e) {
    if (sreq_find(s, e->request_id))
        return;
    struct smodel *m = smodel_find(s, e->model_id);
    if (!m || m->forgotten) {
        struct sched_notice *n = rejection_add(s, e->request_id, ERR_NOT_FOUND);
        snprintf(n->text, sizeof n->text, "the model has been removed");
        return;
    }
    if (!e->readmitted && queue_is_full(s, m)) {
        reject_busy(s, e->request_id);
        return;
    }
    struct sreq *r = request_new(s, e->request_id);
    r->model = m;
    r->draft_id = e->draft_id;
    r->keep_alive_ns = e->keep_alive_ns;
    r->readmitted = e->readmitted;
    r->arrived_ns = r->waiting_ns = s->now_ns;
    r->state = REQUEST_QUEUED;
    slist_insert(&m->waiting, r);
    s->n_waiting++;
    if (m->state == MODEL_LOADED)
        sreq_model_ready(s, r);
}

void squeue_prompt(struct sched *s, const struct sched_event *e) {
    struct sreq *r = sreq_find(s, e->request_id);
    if (!r || r->prompt_ready)
        return;
    const struct sched_prompt *p = &e->prompt;
    r->prompt_ready = true;
    r->ready_order = ++s->order;
    if (p->load_only) {
        r->load_only = true;
        if (r->model->state == MODEL_LOADED)
            sreq_model_ready(s, r);
        return;
    }
    check(p->n_tokens >= 1 && p->n_tokens <= p->num_ctx);
    check(p->predict_max >= 1);
    r->tokens = xmalloc(p->n_tokens * sizeof(u32));
    memcpy(r->tokens, p->tokens, p->n_tokens * sizeof(u32));
    r->n_tokens = r->tokens_cap = p->n_tokens;
    r->num_ctx = p->num_ctx;
    r->tokens_max = (u32)MIN((u64)p->n_tokens + p->predict_max, p->num_ctx);
    r->every_row = p->every_row;
    if (r->model->info.encoder) {
        check(p->n_ends >= 1 && p->ends[p->n_ends - 1] == p->n_tokens);
        r->ends = xmalloc(p->n_ends * sizeof *r->ends);
        memcpy(r->ends, p->ends, p->n_ends * sizeof *r->ends);
        r->n_ends = p->n_ends;
        for (u32 i = 0; i < p->n_ends; i++)
            r->input_longest = MAX(r->input_longest, p->ends[i] - (i ? p->ends[i - 1] : 0));
    }
    sreq_refuse_too_large(s, r);
}

/* ---------------------------------------------------------------- positions */

bool sched_position(const struct sched *s, u64 request_id, u32 *position, u32 *eta_ms) {
    const struct sreq *r = sreq_find(s, request_id);
    if (!r || !sreq_waits(r))
        return false;
    u32 before = 0;
    for (const struct sreq *q = r->prev; q; q = q->prev)
        before++;
    *position = before;
    f64 rate = srate_per_s(&r->model->drain, s->now_ns);
    f64 ms = rate > 0 ? (before + 1) / rate * 1000 : 0;
    *eta_ms = ms > 86400000 ? 86400000 : (u32)ms;
    return true;
}
