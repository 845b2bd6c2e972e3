/* work.c - long work of a call on libuv's thread pool. */
#include "api/work.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

struct work {
    struct call *call; /* NULL once the client is gone; loop thread only */
    const struct work_kind *kind;
    void *ctx;
    uv_work_t request;
    uv_async_t wake; /* lines are there */
    atomic_bool cancelled;
    uv_mutex_t lock;
    struct buf lines; /* under lock: objects, each with a line end */
    enum status status;
    struct err err;
};

static void run(uv_work_t *request) {
    struct work *w = request->data;
    w->status = w->kind->run(w, w->ctx, &w->err);
}

/* Streams what came, or keeps the last line in c->text. */
static void lines_take(struct work *w) {
    struct call *c = w->call;
    uv_mutex_lock(&w->lock);
    struct buf lines = w->lines;
    w->lines = (struct buf){0};
    uv_mutex_unlock(&w->lock);
    if (lines.n && c && c->state == CALL_WORKING) {
        if (c->stream) {
            buf_clear(&c->out);
            buf_add_str(&c->out, buf_str(&lines));
            call_stream(c, "application/x-ndjson");
        } else {
            size_t from = lines.n - 1;
            while (from && lines.p[from - 1] != '\n')
                from--;
            buf_clear(&c->text);
            buf_add(&c->text, lines.p + from, lines.n - 1 - from);
        }
    }
    buf_release(&lines);
}

static void on_wake(uv_async_t *wake) { lines_take(wake->data); }

static void on_closed(uv_handle_t *wake) {
    struct work *w = wake->data;
    uv_mutex_destroy(&w->lock);
    buf_release(&w->lines);
    free(w);
}

static void after(uv_work_t *request, int canceled) {
    struct work *w = request->data;
    struct call *c = w->call;
    (void)canceled; /* nobody cancels queued work */
    lines_take(w);
    if (c) {
        c->work = NULL;
        if (c->state == CALL_WORKING)
            (w->kind->done ? w->kind->done : work_done)(c, w->ctx, w->status, &w->err);
    }
    w->kind->release(w->ctx);
    uv_close((uv_handle_t *)&w->wake, on_closed);
}

void work_start(struct call *c, const struct work_kind *kind, void *ctx) {
    struct work *w = xcalloc(1, sizeof *w);
    uv_loop_t *loop = http_loop(c->http);
    w->call = c;
    w->kind = kind;
    w->ctx = ctx;
    w->request.data = w->wake.data = w;
    check(uv_mutex_init(&w->lock) == 0);
    check(uv_async_init(loop, &w->wake, on_wake) == 0);
    c->work = w;
    c->state = CALL_WORKING;
    check(uv_queue_work(loop, &w->request, run, after) == 0);
}

bool work_cancelled(const struct work *w) { return atomic_load(&w->cancelled); }

void work_line(struct work *w, struct str json) {
    uv_mutex_lock(&w->lock);
    buf_add_str(&w->lines, json);
    buf_add_char(&w->lines, '\n');
    uv_mutex_unlock(&w->lock);
    uv_async_send(&w->wake);
}

void work_status(struct work *w, const char *fmt, ...) {
    struct buf line = {0};
    char stack[512];
    va_list args;
    va_start(args, fmt);
    vsnprintf(stack, sizeof stack, fmt, args);
    va_end(args);
    json_open(&line, '{');
    json_key(&line, "status"), json_str(&line, str_of(stack));
    json_close(&line, '}');
    work_line(w, buf_str(&line));
    buf_release(&line);
}

void work_done(struct call *c, void *ctx, enum status status, const struct err *err) {
    (void)ctx;
    if (status != OK) {
        call_fail(c, status, err);
    } else if (c->begun) {
        c->state = CALL_OVER;
        http_stream_end(c->http);
    } else {
        buf_clear(&c->out);
        buf_add_str(&c->out, buf_str(&c->text));
        call_reply(c, c->text.n ? "application/json" : NULL);
    }
}

void work_abandon(struct work *w) {
    w->call = NULL;
    atomic_store(&w->cancelled, true);
}
