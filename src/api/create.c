/* create.c - POST /api/create: reads and checks the request, pulls the model it builds on if that is missing,
 * and hands over to create_build. */
#include "api/create.h"

#include <stdlib.h>

#define TEXT_QUANTIZE_TYPES "supported types are F32, F16, Q4_K_S, Q4_K_M, Q8_0"

static const struct field fields[] = {
    FIELD(create_fields, model, "model", FIELD_STR),
    FIELD(create_fields, name, "name", FIELD_STR),
    FIELD(create_fields, from, "from", FIELD_STR),
    FIELD(create_fields, template_, "template", FIELD_STR),
    FIELD(create_fields, system, "system", FIELD_STR),
    FIELD(create_fields, quantize, "quantize", FIELD_STR),
    FIELD(create_fields, quantization, "quantization", FIELD_STR),
    FIELD(create_fields, draft_quantize, "draft_quantize", FIELD_STR),
    FIELD(create_fields, renderer, "renderer", FIELD_STR),
    FIELD(create_fields, parser, "parser", FIELD_STR),
    FIELD(create_fields, requires, "requires", FIELD_STR),
    FIELD(create_fields, remote_host, "remote_host", FIELD_STR),
    FIELD(create_fields, license, "license", FIELD_ANY),
    FIELD(create_fields, files, "files", FIELD_OBJECT),
    FIELD(create_fields, adapters, "adapters", FIELD_OBJECT),
    FIELD(create_fields, draft_files, "draft_files", FIELD_OBJECT),
    FIELD(create_fields, parameters, "parameters", FIELD_OBJECT),
    FIELD(create_fields, messages, "messages", FIELD_LIST),
    FIELD(create_fields, info, "info", FIELD_OBJECT),
    FIELD(create_fields, stream, "stream", FIELD_BOOL),
};

/* --- checks --- */

/* A relative path without empty, "." and ".." parts (Go's fs.ValidPath). */
static bool path_valid(struct str path) {
    if (str_is(path, "."))
        return true;
    for (size_t from = 0;;) {
        size_t end = MIN(str_find(path, STR("/"), from), path.n);
        struct str part = str_slice(path, from, end);
        if (part.n == 0 || str_is(part, ".") || str_is(part, ".."))
            return false;
        if (end == path.n)
            return utf8_valid_len(path) == path.n;
        from = end + 1;
    }
}

static enum status files_check(const json_t *files, bool paths, struct err *err) {
    const char *path;
    json_t *digest;
    json_object_foreach((json_t *)files, path, digest) {
        if (paths && !path_valid(str_of(path)))
            return err_set(err, ERR_INVALID, "file path must be relative");
        if (!json_is_string(digest))
            return err_set(
                err, ERR_INVALID,
                "json: cannot unmarshal %s into Go struct field CreateRequest.files of type string",
                json_kind(digest));
        if (json_string_length(digest) == 0)
            return err_set(err, ERR_INVALID, "invalid digest format");
    }
    return OK;
}

/* What the reference can do and minka cannot, each named. */
static enum status unsupported_check(const struct create_fields *f, struct err *err) {
    static const struct {
        const char *what, *instead;
    } texts[] = {
        {"an adapter", "merge the adapter into the model's file"},
        {"the file of a draft model", "create a model of it and name that in the parameter draft_model"},
        {"a renderer", "give a template"},
        {"a parser", "leave it out, tool calls and thinking are found by the template"},
        {"remote_host", "ask that server itself"},
    };
    bool given[] = {json_object_size(f->adapters) > 0, json_object_size(f->draft_files) > 0,
                    f->renderer.n > 0, f->parser.n > 0, f->remote_host.n > 0};
    for (u32 i = 0; i < ARRAY_LEN(texts); i++)
        if (given[i])
            return err_set(err, ERR_UNSUPPORTED, "%s is not supported by minka: %s", texts[i].what,
                           texts[i].instead);
    return OK;
}

static enum status fields_check(struct create *c, struct err *err) {
    const struct create_fields *f = &c->f;
    TRY(files_check(f->files, true, err));
    TRY(files_check(f->draft_files, true, err));
    if (f->draft_quantize.n && json_object_size(f->draft_files) == 0)
        return err_set(err, ERR_INVALID, "--draft-quantize requires a DRAFT model");
    TRY(files_check(f->adapters, false, err));
    TRY(model_name_parse(f->model.n ? f->model : f->name, &c->name, err));
    struct str quantize = f->quantize.n ? f->quantize : f->quantization;
    if (quantize.n && !create_quantization(quantize))
        return err_set(err, ERR_INVALID, "unsupported quantization type %.*s - " TEXT_QUANTIZE_TYPES,
                       STR_FMT(quantize));
    if (!f->from.n && !f->files)
        return err_set(err, ERR_INVALID, "neither 'from' or 'files' was specified");
    return unsupported_check(f, err);
}

static enum status from_check(struct call *call, struct create *c, struct err *err) {
    if (!c->f.from.n)
        return OK;
    switch (model_ref_parse(c->f.from, &c->from, err)) {
    case NAME_OK: return OK;
    case NAME_CLOUD:
        call->refused_code = 403;
        return err_set(err, ERR_UNSUPPORTED, "ollama cloud is disabled: remote models are unavailable");
    case NAME_EMPTY:
    case NAME_INVALID:
    case NAME_CONFLICT: break;
    }
    return err_set(err, ERR_INVALID, "invalid model name");
}

/* --- the work --- */

static enum status run(struct work *w, void *ctx, struct err *err) { return create_build(w, ctx, err); }

static void release(void *ctx) {
    struct create *c = ctx;
    json_decref(c->root);
    arena_release(&c->arena);
    free(c);
}

static const struct work_kind create_kind = {run, NULL, release};

/* --- pulling what is missing --- */

static void pull_progress(void *ctx, const struct transfer_progress *p) {
    struct call *call = ctx;
    if (call->state == CALL_OVER || !call->stream)
        return;
    transfer_progress_line(call, p);
}

static void pull_end(void *ctx, enum status status, const struct err *err) {
    struct call *call = ctx;
    call->transfer_id = 0;
    if (call->state == CALL_OVER)
        return;
    if (status != OK) {
        call_refuse(call, status == ERR_CANCELED ? 499 : 500, str_of(err->text));
        return;
    }
    struct create *c = call->pending;
    call->pending = NULL;
    work_start(call, &create_kind, c);
}

static bool from_missing(struct create *c) {
    struct str json;
    struct err none;
    return c->f.from.n && store_read_manifest(c->store, &c->from, &c->arena, &json, &none) == ERR_NOT_FOUND;
}

static enum status create_start(struct call *call, struct create *c, struct err *err) {
    const struct transfer_service *s = &call->api->transfers;
    if (!s->start || !from_missing(c)) {
        work_start(call, &create_kind, c);
        return OK;
    }
    struct transfer_request r = {
        .kind = TRANSFER_PULL, .name = c->from, .http = str_starts(c->f.from, STR("http://"))};
    TRY(s->start(s->ctx, &r, (struct transfer_sink){pull_progress, pull_end, call}, &call->transfer_id, err));
    call->pending = c;
    call->pending_release = release;
    return OK;
}

void handle_create(struct call *call, struct str body) {
    struct create *c = xcalloc(1, sizeof *c);
    struct err err;
    arena_init(&c->arena, 0);
    c->store = call->api->store;
    enum status status = body_parse(body, &c->root, &err);
    if (status == OK)
        status = fields_read(c->root, "CreateRequest", fields, ARRAY_LEN(fields), &c->f, &err);
    call->stream = c->f.stream != TRI_FALSE;
    if (status == OK)
        status = fields_check(c, &err);
    if (status == OK)
        status = from_check(call, c, &err);
    if (status == OK)
        status = create_start(call, c, &err);
    if (status == OK)
        return;
    call_fail(call, status, &err);
    release(c);
}
