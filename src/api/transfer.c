/* transfer.c - /api/pull and /api/push: a body, then lines of progress until "success" or an error. */
#include "api/body.h"
#include "api/call.h"

struct transfer_fields {
    struct str model, name;
    enum tri insecure, stream;
};

static const struct field fields[] = {
    FIELD(transfer_fields, model, "model", FIELD_STR),
    FIELD(transfer_fields, name, "name", FIELD_STR),
    FIELD(transfer_fields, insecure, "insecure", FIELD_BOOL),
    FIELD(transfer_fields, stream, "stream", FIELD_BOOL),
};

/* One step of progress in c->out. */
static void progress_write(struct call *c, const struct transfer_progress *p) {
    struct buf *b = &c->out;
    buf_clear(b);
    json_open(b, '{');
    json_key(b, "status"), json_str(b, p->status);
    if (p->digest.n)
        json_key(b, "digest"), json_str(b, p->digest);
    if (p->total)
        json_key(b, "total"), json_u64(b, p->total);
    if (p->completed)
        json_key(b, "completed"), json_u64(b, p->completed);
    json_close(b, '}');
}

void transfer_progress_line(struct call *c, const struct transfer_progress *p) {
    progress_write(c, p);
    buf_add_char(&c->out, '\n');
    call_stream(c, "application/x-ndjson");
}

static void on_progress(void *ctx, const struct transfer_progress *p) {
    struct call *c = ctx;
    if (c->state == CALL_OVER)
        return;
    if (c->stream)
        transfer_progress_line(c, p);
    else
        progress_write(c, p); /* the last one is the answer */
}

static void on_end(void *ctx, enum status status, const struct err *err) {
    struct call *c = ctx;
    c->transfer_id = 0;
    if (c->state == CALL_OVER)
        return;
    if (status != OK) {
        call_refuse(c, status == ERR_CANCELED ? 499 : 500, str_of(err->text));
    } else if (c->stream) {
        c->state = CALL_OVER;
        http_stream_end(c->http);
    } else {
        call_reply(c, "application/json; charset=utf-8");
    }
}

static enum status request_read(struct call *c, struct str body, struct transfer_request *r,
                                struct err *err) {
    json_t *root = NULL;
    struct transfer_fields f = {0};
    TRY(body_parse(body, &root, err));
    const char *type = r->kind == TRANSFER_PULL ? "PullRequest" : "PushRequest";
    enum status status = fields_read(root, type, fields, ARRAY_LEN(fields), &f, err);
    struct str name = str_trim(f.model.n ? f.model : f.name);
    c->stream = f.stream != TRI_FALSE;
    r->insecure = f.insecure == TRI_TRUE;
    r->http = str_starts(name, STR("http://"));
    if (status == OK && name.n == 0 && r->kind == TRANSFER_PUSH)
        status = err_set(err, ERR_INVALID, "model is required");
    if (status == OK)
        status = model_name_parse(name, &r->name, err);
    json_decref(root);
    return status;
}

static void handle(struct call *c, struct str body, enum transfer_kind kind) {
    const struct transfer_service *s = &c->api->transfers;
    struct transfer_request r = {.kind = kind};
    struct err err = {0};
    enum status status = request_read(c, body, &r, &err);
    if (status == OK && !s->start)
        status = err_set(&err, ERR_UNSUPPORTED, "this server neither pulls nor pushes");
    if (status == OK)
        status = s->start(s->ctx, &r, (struct transfer_sink){on_progress, on_end, c}, &c->transfer_id, &err);
    if (status != OK)
        call_fail(c, status, &err);
}

void handle_pull(struct call *c, struct str body) { handle(c, body, TRANSFER_PULL); }
void handle_push(struct call *c, struct str body) { handle(c, body, TRANSFER_PUSH); }
