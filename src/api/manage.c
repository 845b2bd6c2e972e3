/* manage.c - POST /api/copy and DELETE /api/delete. */
#include <stdlib.h>

#include "api/body.h"
#include "api/work.h"

struct manage_fields {
    struct str source, destination, model, name;
};

/* Names are checked on the loop, files are touched on the pool. */
struct manage {
    struct store *store;
    struct model_name from, to;
    struct str shown; /* the name in an error */
    struct arena arena;
    bool copy;
    struct store_model deleted;
    bool gone; /* the deleted model's file has no other name: nobody can ask for it any more */
};

static enum status forget(struct manage *m, struct err *err) {
    struct err ignored;
    bool found = store_find(m->store, &m->from, &m->arena, &m->deleted, &ignored) == OK;
    TRY(store_delete(m->store, &m->from, err));
    m->gone = found && m->deleted.model_digest.n && !store_has_blob(m->store, m->deleted.model_digest, NULL);
    return OK;
}

static enum status run(struct work *w, void *ctx, struct err *err) {
    struct manage *m = ctx;
    (void)w;
    enum status status = m->copy ? store_copy(m->store, &m->from, &m->to, err) : forget(m, err);
    if (status == ERR_NOT_FOUND && m->copy)
        return err_set(err, status, "model \"%.*s\" not found", STR_FMT(m->shown));
    if (status == ERR_NOT_FOUND)
        return err_set(err, status, "model '%.*s' not found", STR_FMT(m->shown));
    return status;
}

static void release(void *ctx) {
    struct manage *m = ctx;
    arena_release(&m->arena);
    free(m);
}

/* Its memory goes with the file, as soon as the answers that run have ended. */
static void done(struct call *c, void *ctx, enum status status, const struct err *err) {
    struct manage *m = ctx;
    if (m->gone)
        c->api->backend.expire(c->api->backend.ctx, &m->deleted, 0);
    work_done(c, ctx, status, err);
}

static const struct work_kind manage_kind = {run, done, release};

static enum status name_refused(struct call *c, const char *what, struct str text, struct err *err) {
    buf_clear(&c->text);
    go_quote(&c->text, text);
    err_set(err, ERR_INVALID, "%s %.*s is invalid", what, STR_FMT(buf_str(&c->text)));
    buf_clear(&c->text);
    return ERR_INVALID;
}

static enum status copy_names(struct call *c, const struct manage_fields *f, struct manage *m,
                              struct err *err) {
    if (model_name_parse(f->source, &m->from, err) != OK)
        return name_refused(c, "source", f->source, err);
    if (model_name_parse(f->destination, &m->to, err) != OK)
        return name_refused(c, "destination", f->destination, err);
    m->shown = arena_str(&m->arena, f->source);
    return OK;
}

static enum status delete_name(struct call *c, const struct manage_fields *f, struct manage *m,
                               struct err *err) {
    struct str text = f->model.n ? f->model : f->name;
    m->shown = arena_str(&m->arena, text);
    switch (model_ref_parse(text, &m->from, err)) {
    case NAME_OK:
    case NAME_CLOUD: return OK; /* no such model is here: 404 */
    case NAME_CONFLICT: return ERR_INVALID;
    case NAME_EMPTY:
    case NAME_INVALID: break;
    }
    return name_refused(c, "name", text, err);
}

static void manage(struct call *c, struct str body, bool copy) {
    static const struct field fields[] = {
        FIELD(manage_fields, source, "source", FIELD_STR),
        FIELD(manage_fields, destination, "destination", FIELD_STR),
        FIELD(manage_fields, model, "model", FIELD_STR),
        FIELD(manage_fields, name, "name", FIELD_STR),
    };
    struct manage_fields f = {0};
    struct err err;
    json_t *root;
    struct manage *m = xcalloc(1, sizeof *m);
    arena_init(&m->arena, 0);
    m->store = c->api->store;
    m->copy = copy;
    /* A copy has no name or model field, a deletion no source: what is not one's own is unknown. */
    const struct field *own = copy ? fields : fields + 2;
    enum status status = body_parse(body, &root, &err);
    if (status == OK)
        status = fields_read(root, copy ? "CopyRequest" : "DeleteRequest", own, 2, &f, &err);
    if (status == OK)
        status = copy ? copy_names(c, &f, m, &err) : delete_name(c, &f, m, &err);
    json_decref(root);
    if (status == OK) {
        work_start(c, &manage_kind, m);
        return;
    }
    call_fail(c, status, &err);
    release(m);
}

void handle_copy(struct call *c, struct str body) { manage(c, body, true); }
void handle_delete(struct call *c, struct str body) { manage(c, body, false); }
