/* call.c - the life of one request between HTTP and the backend. */
#include "api/call.h"
#include "api/work.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/clock.h"
#include "base/limit.h"
#include "base/log.h"

#define TEXT_BUSY "server busy, please try again.  maximum pending requests exceeded"
#define TEXT_ENGINE_GONE                                                                                     \
    "model runner has unexpectedly stopped, this may be due to resource limitations or an internal error, "  \
    "check ollama server logs for details"

u32 http_code(enum status status) {
    switch (status) {
    case OK: return 200;
    case ERR_INVALID: return 400;
    case ERR_NOT_FOUND: return 404;
    case ERR_TOO_LARGE: return 413;
    case ERR_CANCELED: return 499;
    case ERR_UNSUPPORTED: return 501;
    case ERR_BUSY: return 503;
    case ERR_TIMEOUT: return 504;
    case ERR_CORRUPT:
    case ERR_NO_MEMORY:
    case ERR_IO:
    case ERR_INTERNAL: return 500;
    }
    return 500;
}

/* --- errors --- */

static const char *openai_type(u32 code) {
    return code == 400 ? "invalid_request_error" : code == 404 ? "not_found_error" : "api_error";
}

static void error_json(struct buf *b, enum dialect d, u32 code, struct str text) {
    json_open(b, '{');
    if (d == DIALECT_NATIVE) {
        json_key(b, "error"), json_str(b, text);
    } else if (d == DIALECT_OPENAI) {
        json_key(b, "error"), json_open(b, '{');
        json_key(b, "message"), json_str(b, text);
        json_key(b, "type"), json_str(b, str_of(openai_type(code)));
        json_key(b, "param"), json_none(b);
        json_key(b, "code"), json_none(b);
        json_close(b, '}');
    } else {
        json_key(b, "type"), json_str(b, STR("error"));
        json_key(b, "error"), json_open(b, '{');
        json_key(b, "type"), json_str(b, STR("api_error"));
        json_key(b, "message"), json_str(b, text);
        json_close(b, '}');
    }
    json_close(b, '}');
}

void reply_error(struct http_request *r, enum dialect d, u32 code, struct str text) {
    struct buf b = {0};
    error_json(&b, d, code, text);
    http_reply(r, code, d == DIALECT_NATIVE ? "application/json; charset=utf-8" : "application/json",
               buf_str(&b));
    buf_release(&b);
}

/* The form that an error takes once a stream has begun. */
static void error_in_stream(struct call *c, u32 code, struct str text) {
    bool sse = c->writer->dialect != DIALECT_NATIVE;
    buf_clear(&c->out);
    if (sse)
        buf_add_str(&c->out, STR("data: "));
    error_json(&c->out, c->writer->dialect, code, text);
    buf_add_str(&c->out, sse ? STR("\n\n") : STR("\n"));
    if (http_stream_write(c->http, buf_str(&c->out)))
        http_stream_end(c->http);
    else
        http_stream_abort(c->http);
}

void call_refuse(struct call *c, u32 code, struct str text) {
    check(c->state != CALL_OVER);
    c->state = CALL_OVER;
    if (c->begun)
        error_in_stream(c, code, text);
    else
        reply_error(c->http, c->writer->dialect, code, text);
}

void call_fail(struct call *c, enum status status, const struct err *err) {
    call_refuse(c, c->refused_code ? c->refused_code : http_code(status), str_of(err->text));
}

void call_reply(struct call *c, const char *content_type) {
    check(c->state != CALL_OVER);
    c->state = CALL_OVER;
    http_reply(c->http, 200, content_type, buf_str(&c->out));
}

/* --- events --- */

void call_stream(struct call *c, const char *content_type) {
    if (!c->begun) {
        http_stream_begin(c->http, 200, content_type);
        c->begun = true;
    }
    if (http_stream_write(c->http, buf_str(&c->out)))
        return;
    log_warn("a client reads too slowly, its request is cancelled", "id=%llu client=%s",
             (unsigned long long)c->request_id, http_peer(c->http));
    if (c->state == CALL_RUNNING)
        c->api->backend.cancel(c->api->backend.ctx, c->request_id);
    c->state = CALL_OVER;
    http_stream_abort(c->http);
}

static void stream_send(struct call *c) { call_stream(c, c->writer->stream_type); }

static void gather(struct call *c, const struct gen_event *e) {
    if (e->kind == GEN_TEXT)
        buf_add_str(&c->text, e->text);
    else if (e->kind == GEN_THINK)
        buf_add_str(&c->think, e->text);
    else
        c->writer->tool(c, &e->tool);
    logprobs_items(&c->logprobs, e->logprobs, e->n_logprobs);
}

static void event_piece(struct call *c, const struct gen_event *e) {
    if (c->writer->vector)
        return; /* who asked for vectors gets no text */
    /* An event without text only reports ids that are held back; clients see nothing of it. */
    if (e->text.n == 0 && e->n_logprobs == 0 && e->kind != GEN_TOOL)
        return;
    if (!c->stream || c->plain) {
        gather(c, e);
        return;
    }
    buf_clear(&c->out);
    c->writer->piece(c, e);
    c->n_tools += e->kind == GEN_TOOL;
    stream_send(c);
}

static void event_done(struct call *c, const struct gen_event *e) {
    buf_clear(&c->out);
    if (!c->stream || c->plain) {
        c->writer->whole(c, e);
        call_reply(c, c->writer->whole_type);
        return;
    }
    c->writer->last(c, e);
    stream_send(c);
    if (c->state == CALL_OVER)
        return;
    c->state = CALL_OVER;
    http_stream_end(c->http);
}

/* A new engine begins anew after a crash: what is there already is the same. */
static void event_vector(struct call *c, const struct gen_event *e) {
    if (!c->writer->vector || e->input != c->n_vectors)
        return;
    c->n_vectors++;
    c->writer->vector(c, e);
}

static void event_error(struct call *c, const struct gen_event *e) {
    struct str text = e->text.n                   ? e->text
                      : e->status == ERR_BUSY     ? STR(TEXT_BUSY)
                      : e->status == ERR_CANCELED ? STR("request canceled")
                                                  : STR(TEXT_ENGINE_GONE);
    call_refuse(c, http_code(e->status), text);
}

static void call_event(void *ctx, const struct gen_event *e) {
    struct call *c = ctx;
    if (c->state == CALL_OVER)
        return;
    switch (e->kind) {
    case GEN_QUEUED:
    case GEN_STARTED: return;
    case GEN_TEXT:
    case GEN_THINK:
    case GEN_TOOL: event_piece(c, e); return;
    case GEN_DONE: event_done(c, e); return;
    case GEN_ERROR: event_error(c, e); return;
    case GEN_VECTOR: event_vector(c, e); return;
    }
}

/* --- to the backend --- */

static void submit_failed(struct call *c, enum status status, u32 retry_after_s, const struct err *err) {
    if (status == ERR_BUSY) {
        char seconds[16];
        snprintf(seconds, sizeof seconds, "%u", MAX(retry_after_s, 1u));
        http_add_header(c->http, "Retry-After", str_of(seconds));
        call_refuse(c, 503, STR(TEXT_BUSY));
    } else if (status == ERR_NOT_FOUND) {
        buf_clear(&c->text);
        buf_add_str(&c->text, STR("model "));
        go_quote(&c->text, c->model);
        buf_add_str(&c->text, STR(" not found, try pulling it first"));
        call_refuse(c, 404, buf_str(&c->text));
    } else {
        call_fail(c, status, err);
    }
}

void call_submit(struct call *c, const struct model *m, struct gen_request *r, i64 keep_alive_ns) {
    struct err err = {0};
    u32 retry_after_s = 0;
    c->plain |= r->render_only || (r->load_only && c->writer->dialect == DIALECT_NATIVE);
    c->render_only = r->render_only;
    c->writer->first(c);
    struct api_sink sink = {call_event, c};
    c->state = CALL_RUNNING;
    enum status status = c->api->backend.generate(c->api->backend.ctx, &m->stored, c->draft, r, keep_alive_ns,
                                                  sink, &retry_after_s, &err);
    c->request_id = r->id;
    if (status != OK && c->state == CALL_RUNNING)
        submit_failed(c, status, retry_after_s, &err);
}

void call_gone(struct call *c) {
    if (c->state == CALL_RUNNING)
        c->api->backend.cancel(c->api->backend.ctx, c->request_id);
    if (c->work)
        work_abandon(c->work);
    if (c->upload)
        upload_gone(c);
    if (c->transfer_id)
        c->api->transfers.leave(c->api->transfers.ctx, c->transfer_id);
    if (c->pending)
        c->pending_release(c->pending);
    buf_release(&c->out);
    buf_release(&c->text);
    buf_release(&c->think);
    buf_release(&c->tools);
    buf_release(&c->logprobs);
    arena_release(&c->arena);
    free(c);
}

void call_stamp(struct call *c, struct gen_request *r, struct str user) {
    time_t now = (time_t)(c->wall_ns / 1000000000);
    struct tm local;
    r->time_unix = now;
    r->utc_offset_s = localtime_r(&now, &local) ? (i32)local.tm_gmtoff : 0;
    struct str key = http_header(c->http, "Authorization");
    /* The key itself stays in this process: fairness only needs to tell keys apart. */
    if (key.n)
        r->client = arena_printf(&c->arena, "key:%016llx", (unsigned long long)hash_bytes(key.p, key.n, 0));
    else if (user.n)
        r->client = arena_printf(&c->arena, "user:%.*s", (int)MIN(user.n, (size_t)256), user.p);
    else
        r->client = arena_printf(&c->arena, "address:%s", http_peer(c->http));
}

void api_note_load_time(struct api *a, u32 bits) {
    bits &= ~a->load_time_named;
    a->load_time_named |= bits;
    for (u32 i = 0; options_load_time_name(i); i++)
        if (bits & 1u << i)
            log_info("this option has no effect: the server sets it by itself", "option=%s",
                     options_load_time_name(i));
}
