/* transfers.c - threads write lines of progress under a lock and wake the loop, which hands them on. Lines
 * about one blob replace each other, so a slow loop costs no memory. */
#include "registry/transfers.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/limit.h"
#include "base/log.h"

/* The latest line with one status text. */
struct line {
    char status[96];
    char digest[72];
    u64 total, completed;
    bool changed; /* not yet handed on */
};

struct listener {
    struct listener *next;
    u64 id;
    struct transfer_sink sink;
    bool fresh; /* was told nothing yet */
};

struct transfer {
    struct transfer *next;
    struct transfers *owner;
    struct transfer_request request;
    uv_thread_t thread;
    atomic_bool canceled;
    struct listener *listeners;
    /* shared with the thread, under the lock */
    struct line *lines; /* [n_lines] in the order of their first appearance */
    u32 n_lines, cap_lines;
    bool over;
    enum status status;
    struct err err;
};

struct transfers {
    struct store *store;
    struct registry_config config;
    char *key_path;
    uv_async_t wake;
    uv_mutex_t lock;
    struct transfer *list;
    u32 n_running;
    u64 last_id;
};

/* --- on the thread --- */

static void on_progress(void *ctx, const struct transfer_progress *p) {
    struct transfer *t = ctx;
    uv_mutex_lock(&t->owner->lock);
    struct line *l = NULL;
    for (u32 i = t->n_lines; i > 0 && !l; i--)
        if (str_is(p->status, t->lines[i - 1].status) && str_is(p->digest, t->lines[i - 1].digest))
            l = &t->lines[i - 1];
    if (!l) {
        if (t->n_lines == t->cap_lines) {
            t->cap_lines = MAX(2 * t->cap_lines, 16u);
            t->lines = xrealloc(t->lines, sizeof *t->lines * t->cap_lines);
        }
        l = &t->lines[t->n_lines++];
        *l = (struct line){0};
        snprintf(l->status, sizeof l->status, "%.*s", STR_FMT(p->status));
        snprintf(l->digest, sizeof l->digest, "%.*s", STR_FMT(p->digest));
    }
    l->total = p->total;
    l->completed = p->completed;
    l->changed = true;
    uv_mutex_unlock(&t->owner->lock);
    uv_async_send(&t->owner->wake);
}

static void thread_run(void *ctx) {
    struct transfer *t = ctx;
    struct registry_job job = {.store = t->owner->store,
                               .config = t->owner->config,
                               .request = t->request,
                               .canceled = &t->canceled,
                               .on_progress = on_progress,
                               .ctx = t};
    struct err err = {0};
    enum status status =
        t->request.kind == TRANSFER_PULL ? registry_pull(&job, &err) : registry_push(&job, &err);
    uv_mutex_lock(&t->owner->lock);
    t->status = status;
    t->err = err;
    t->over = true;
    uv_mutex_unlock(&t->owner->lock);
    uv_async_send(&t->owner->wake);
}

/* --- on the loop --- */

/* Listeners may leave, and others come, inside a call: each is looked up again by its number. */
static struct listener *listener_after(struct transfer *t, u64 id) {
    struct listener *best = NULL;
    for (struct listener *l = t->listeners; l; l = l->next)
        if (l->id > id && (!best || l->id < best->id))
            best = l;
    return best;
}

/* Hands on what changed, and to newcomers everything. The lock is free while listeners are called. */
static void lines_hand_on(struct transfer *t) {
    uv_mutex_lock(&t->owner->lock);
    u32 n = t->n_lines;
    struct line *lines = xmalloc(sizeof *lines * (n + 1));
    if (n)
        memcpy(lines, t->lines, sizeof *lines * n);
    for (u32 i = 0; i < n; i++)
        t->lines[i].changed = false;
    uv_mutex_unlock(&t->owner->lock);
    u64 id = 0;
    for (struct listener *l; (l = listener_after(t, id));) {
        id = l->id;
        bool all = l->fresh;
        l->fresh = false;
        for (u32 i = 0; i < n; i++) {
            l = listener_after(t, id - 1);
            if (!l || l->id != id)
                break;
            struct transfer_progress p = {str_of(lines[i].status), str_of(lines[i].digest), lines[i].total,
                                          lines[i].completed};
            if (all || lines[i].changed)
                l->sink.on_progress(l->sink.ctx, &p);
        }
    }
    free(lines);
}

static void transfer_end(struct transfer *t) {
    uv_thread_join(&t->thread);
    struct transfers *ts = t->owner;
    struct transfer **at = &ts->list;
    while (*at != t)
        at = &(*at)->next;
    *at = t->next;
    ts->n_running--;
    if (t->status != OK && t->status != ERR_CANCELED)
        log_warn(t->request.kind == TRANSFER_PULL ? "a pull failed" : "a push failed",
                 "model=%s host=%s error=\"%s\"", t->request.name.model, t->request.name.host, t->err.text);
    for (struct listener *l; (l = t->listeners);) {
        t->listeners = l->next;
        l->sink.on_end(l->sink.ctx, t->status, &t->err);
        free(l);
    }
    free(t->lines);
    free(t);
}

static void on_wake(uv_async_t *wake) {
    struct transfers *ts = wake->data;
    for (struct transfer *t = ts->list, *next; t; t = next) {
        uv_mutex_lock(&ts->lock);
        bool over = t->over;
        uv_mutex_unlock(&ts->lock);
        lines_hand_on(t);
        next = t->next;
        if (over)
            transfer_end(t);
    }
}

static bool request_equal(const struct transfer_request *a, const struct transfer_request *b) {
    return a->kind == b->kind && a->http == b->http && a->insecure == b->insecure &&
           memcmp(&a->name, &b->name, sizeof a->name) == 0;
}

static struct transfer *transfer_begin(struct transfers *ts, const struct transfer_request *r,
                                       struct err *err) {
    if (ts->n_running >= LIMIT_TRANSFERS) {
        err_set(err, ERR_BUSY, "%u pulls and pushes are running, try again when one is finished",
                LIMIT_TRANSFERS);
        return NULL;
    }
    struct transfer *t = xcalloc(1, sizeof *t);
    t->owner = ts;
    t->request = *r;
    if (uv_thread_create(&t->thread, thread_run, t) != 0) {
        free(t);
        err_set(err, ERR_BUSY, "no thread for the transfer");
        return NULL;
    }
    t->next = ts->list;
    ts->list = t;
    ts->n_running++;
    return t;
}

static enum status start(void *ctx, const struct transfer_request *r, struct transfer_sink sink, u64 *id,
                         struct err *err) {
    struct transfers *ts = ctx;
    struct transfer *t = ts->list;
    while (t && (!request_equal(&t->request, r) || atomic_load(&t->canceled)))
        t = t->next;
    if (!t && !(t = transfer_begin(ts, r, err)))
        return err->status;
    struct listener *l = xcalloc(1, sizeof *l);
    l->id = *id = ++ts->last_id;
    l->sink = sink;
    l->fresh = true;
    l->next = t->listeners;
    t->listeners = l;
    uv_async_send(&ts->wake);
    return OK;
}

static void leave(void *ctx, u64 id) {
    struct transfers *ts = ctx;
    for (struct transfer *t = ts->list; t; t = t->next)
        for (struct listener **at = &t->listeners; *at; at = &(*at)->next) {
            if ((*at)->id != id)
                continue;
            struct listener *gone = *at;
            *at = gone->next;
            free(gone);
            if (!t->listeners)
                atomic_store(&t->canceled, true);
            return;
        }
}

/* --- life --- */

struct transfers *transfers_new(uv_loop_t *loop, struct store *store, const struct registry_config *config) {
    struct transfers *ts = xcalloc(1, sizeof *ts);
    ts->store = store;
    ts->config = *config;
    ts->config.key_path = ts->key_path = config->key_path ? xstrdup(config->key_path) : NULL;
    check(uv_mutex_init(&ts->lock) == 0 && uv_async_init(loop, &ts->wake, on_wake) == 0);
    ts->wake.data = ts;
    return ts;
}

struct transfer_service transfers_service(struct transfers *ts) {
    return (struct transfer_service){start, leave, ts};
}

static void on_closed(uv_handle_t *handle) {
    struct transfers *ts = handle->data;
    uv_mutex_destroy(&ts->lock);
    free(ts->key_path);
    free(ts);
}

void transfers_close(struct transfers *ts) {
    for (struct transfer *t = ts->list; t; t = t->next)
        atomic_store(&t->canceled, true);
    while (ts->list)
        transfer_end(ts->list);
    uv_close((uv_handle_t *)&ts->wake, on_closed);
}
