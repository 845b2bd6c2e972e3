/* transfer.c - pull and push. */
#include "cli/bars.h"
#include "cli/commands.h"


#include "base/clock.h"
#include "store/store.h"

struct moving {
    struct bars *bars;
    struct err error; /* that a line told */
    bool success;
};

static bool on_line(void *ctx, struct str line) {
    struct moving *m = ctx;
    json_t *root = json_loadb(line.p, line.n, JSON_ALLOW_NUL, NULL);
    struct str error = member_text(root, "error"), status = member_text(root, "status");
    if (error.n) {
        err_set(&m->error, ERR_INTERNAL, "%.*s", STR_FMT(error));
    } else if (status.n) {
        i64 total = member_number(root, "total"), completed = member_number(root, "completed");
        m->success = str_is(status, "success");
        bars_update(m->bars, status, (u64)MAX(total, 0), (u64)MAX(completed, 0), clock_ns());
        bars_tick(m->bars, clock_ns());
    }
    json_decref(root);
    return !error.n;
}

static void on_tick(void *ctx) {
    struct moving *m = ctx;
    bars_tick(m->bars, clock_ns());
}

enum status progress_stream(struct cli *c, struct bars *bars, const char *path, struct str body,
                            struct err *err) {
    struct moving m = {.bars = bars};
    struct http_sink sink = {on_line, on_tick, &m};
    enum status status = http_client_stream(c->http, "POST", path, body, &sink, err);
    if (m.error.status != OK) {
        *err = m.error;
        return m.error.status;
    }
    if (status == OK && !m.success)
        return err_set(err, ERR_IO, "the server ended the transfer before it was complete");
    return status;
}

static enum status transfer(struct cli *c, const char *path, struct str model, bool insecure,
                            struct err *err) {
    struct bars bars = {0};
    struct buf body = {0};
    json_open(&body, '{');
    json_key(&body, "model"), json_str(&body, model);
    if (insecure)
        json_key(&body, "insecure"), json_bool(&body, true);
    json_close(&body, '}');
    bars_start(&bars, stderr, c->term.err && !c->term.plain);
    enum status status = progress_stream(c, &bars, path, buf_str(&body), err);
    bars_stop(&bars, clock_ns());
    buf_release(&body);
    return status;
}

enum status model_pull(struct cli *c, struct str model, bool insecure, struct err *err) {
    enum status status = transfer(c, "/api/pull", model, insecure, err);
    if (status == ERR_CANCELED)
        fprintf(stderr, "\nStopped. What has come so far is kept: 'minka pull %.*s' goes on from there.",
                STR_FMT(model));
    return status;
}

enum status command_pull(struct cli *c, const struct args *a, struct err *err) {
    return model_pull(c, str_of(a->rest[0]), args_bool(a, "insecure"), err);
}

/* Where the public registry shows a model. */
static void tell_place(struct str model) {
    struct model_name name;
    struct arena arena;
    if (model_name_parse(model, &name, NULL) != OK || strcmp(name.host, "registry.ollama.ai") != 0)
        return;
    arena_init(&arena, 0);
    printf("\nYou can find your model at:\n\n\thttps://ollama.com/%s\n", model_name_short(&name, &arena).p);
    arena_release(&arena);
}

enum status command_push(struct cli *c, const struct args *a, struct err *err) {
    struct str model = str_of(a->rest[0]);
    enum status status = transfer(c, "/api/push", model, args_bool(a, "insecure"), err);
    if (status == OK) {
        tell_place(model);
        return OK;
    }
    struct str text = str_of(err->text);
    if (status != ERR_CANCELED && str_find(text, STR("access denied"), 0) != SIZE_MAX)
        return err_set(err, status,
                       "you are not authorized to push to this namespace, create the model under a "
                       "namespace you own");
    return status;
}
