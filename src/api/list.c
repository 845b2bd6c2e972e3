/* list.c - version, tags, ps, and OpenAI's list of models. */
#include "api/call.h"
#include "base/clock.h"

#define NATIVE_TYPE "application/json; charset=utf-8"

static void time_write(struct buf *b, i64 wall_ns) {
    char text[TIME_TEXT_BYTES];
    size_t n = time_text(text, wall_ns, true);
    json_str(b, (struct str){text, n});
}

void handle_version(struct call *c) {
    json_open(&c->out, '{');
    json_key(&c->out, "version"), json_str(&c->out, c->api->config.version);
    json_close(&c->out, '}');
    call_reply(c, NATIVE_TYPE);
}

/* --- tags --- */

static void tag_write(struct buf *b, const struct model *m) {
    json_open(b, '{');
    json_key(b, "name"), json_str(b, m->name_short);
    json_key(b, "model"), json_str(b, m->name_short);
    if (m->config.remote_model.n)
        json_key(b, "remote_model"), json_str(b, m->config.remote_model);
    if (m->config.remote_host.n)
        json_key(b, "remote_host"), json_str(b, m->config.remote_host);
    json_key(b, "modified_at"), time_write(b, m->stored.modified_ns);
    json_key(b, "size"), json_u64(b, m->stored.size);
    json_key(b, "digest"), json_str(b, str_of(m->stored.digest));
    json_key(b, "details"), details_json(b, m, true);
    capabilities_json(b, m, "capabilities");
    json_close(b, '}');
}

static enum status list_read(struct call *c, struct store_model **list, u32 *n) {
    struct err err;
    enum status status = store_list(c->api->store, &c->arena, list, n, &err);
    if (status != OK)
        call_fail(c, status, &err);
    return status;
}

void handle_tags(struct call *c) {
    struct store_model *list;
    u32 n;
    if (list_read(c, &list, &n) != OK)
        return;
    json_open(&c->out, '{');
    json_key(&c->out, "models"), json_open(&c->out, '[');
    for (u32 i = 0; i < n; i++) {
        struct model m;
        models_describe(c->api->models, &list[i], &c->arena, &m);
        tag_write(&c->out, &m);
    }
    json_close(&c->out, ']');
    json_close(&c->out, '}');
    call_reply(c, NATIVE_TYPE);
}

/* --- ps --- */

/* "For ever" as the reference shows it: now plus the longest duration, about 292 years. */
static i64 expiry_ns(const struct call *c, i64 in_ns) {
    if (in_ns == 0) /* in use: the timer starts when the last request ends */
        in_ns = c->api->config.keep_alive_ns_default;
    i64 at;
    if (in_ns < 0)
        in_ns = INT64_MAX;
    return __builtin_add_overflow(c->wall_ns, in_ns, &at) ? INT64_MAX : at;
}

static void ps_write(struct call *c, const struct wire_model_state *s, struct str name_text) {
    struct buf *b = &c->out;
    struct model_name name;
    struct model m = {.name_short = name_text};
    struct err err;
    /* A model that was removed while loaded is shown by its name alone. */
    if (model_name_parse(name_text, &name, &err) != OK ||
        models_find(c->api->models, &name, &c->arena, &m, &err) != OK)
        m = (struct model){.name_short = name_text};
    u32 context = c->api->config.num_ctx_default;
    if (s->num_ctx)
        context = s->num_ctx;
    else if (m.facts.context_length)
        context = MIN(context, m.facts.context_length);
    json_open(b, '{');
    json_key(b, "name"), json_str(b, m.name_short);
    json_key(b, "model"), json_str(b, m.name_short);
    json_key(b, "size"), json_u64(b, s->weights_bytes + s->kv_bytes);
    json_key(b, "digest"), json_str(b, str_of(m.stored.digest));
    json_key(b, "details"), details_json(b, &m, false);
    json_key(b, "expires_at"), time_write(b, expiry_ns(c, s->expires_in_ns));
    json_key(b, "size_vram"), json_u64(b, 0);
    json_key(b, "context_length"), json_u64(b, context);
    json_close(b, '}');
}

static i64 expiry_key(const struct wire_model_state *s) {
    return s->expires_in_ns ? s->expires_in_ns : INT64_MAX;
}

/* Latest expiry first; a handful of models, so the simplest sort. */
static void ps_order(const struct wire_state *s, u32 order[WIRE_MODELS_MAX], u32 n) {
    for (u32 i = 0; i < n; i++) {
        u32 at = i;
        for (; at > 0 && expiry_key(&s->models[order[at - 1]]) < expiry_key(&s->models[i]); at--)
            order[at] = order[at - 1];
        order[at] = i;
    }
}

void handle_ps(struct call *c) {
    struct buf *b = &c->out;
    const struct wire_state *s = c->api->backend.state(c->api->backend.ctx);
    u32 order[WIRE_MODELS_MAX], n = MIN(s->n_models, WIRE_MODELS_MAX);
    ps_order(s, order, n);
    json_open(b, '{');
    json_key(b, "models"), json_open(b, '[');
    for (u32 i = 0; i < n; i++) {
        struct str digest, name;
        if (c->api->backend.model_of(c->api->backend.ctx, s->models[order[i]].model_id, &digest, &name))
            ps_write(c, &s->models[order[i]], name);
    }
    json_close(b, ']');
    json_key(b, "queue"), json_open(b, '{');
    json_key(b, "running"), json_u64(b, s->n_running);
    json_key(b, "waiting"), json_u64(b, s->n_waiting);
    json_close(b, '}');
    json_key(b, "memory"), json_open(b, '{');
    json_key(b, "limit"), json_u64(b, s->limit_bytes);
    json_key(b, "weights"), json_u64(b, s->weights_bytes);
    json_key(b, "kv"), json_u64(b, s->kv_bytes);
    json_key(b, "scratch"), json_u64(b, s->scratch_bytes);
    json_close(b, '}');
    json_key(b, "steps"), json_u64(b, s->n_steps_total);
    json_key(b, "steps_duration"), json_u64(b, s->steps_ns_total);
    json_key(b, "rows"), json_u64(b, s->n_rows_total);
    json_key(b, "guesses"), json_open(b, '{');
    json_key(b, "verified"), json_u64(b, s->n_drafts_total);
    json_key(b, "drawn"), json_u64(b, s->n_agreed_total);
    json_key(b, "lost_duration"), json_u64(b, s->drafts_lost_ns_total);
    json_key(b, "draft_passes"), json_u64(b, s->n_draft_passes_total);
    json_key(b, "draft_duration"), json_u64(b, s->draft_ns_total);
    json_close(b, '}');
    json_close(b, '}');
    call_reply(c, NATIVE_TYPE);
}

/* --- OpenAI --- */

static void openai_model_write(struct buf *b, struct str id, const struct store_model *m) {
    json_open(b, '{');
    json_key(b, "id"), json_str(b, id);
    json_key(b, "object"), json_str(b, STR("model"));
    json_key(b, "created"), json_i64(b, m->modified_ns / 1000000000);
    json_key(b, "owned_by"), json_str(b, str_of(m->name.namespace_));
    json_close(b, '}');
}

void handle_openai_models(struct call *c) {
    struct store_model *list;
    u32 n;
    if (list_read(c, &list, &n) != OK)
        return;
    json_open(&c->out, '{');
    json_key(&c->out, "object"), json_str(&c->out, STR("list"));
    json_key(&c->out, "data"), json_open(&c->out, '[');
    for (u32 i = 0; i < n; i++)
        openai_model_write(&c->out, model_name_short(&list[i].name, &c->arena), &list[i]);
    json_close(&c->out, ']');
    json_close(&c->out, '}');
    buf_add_char(&c->out, '\n');
    call_reply(c, "application/json");
}

void handle_openai_model(struct call *c, struct str text) {
    struct model_name name;
    struct store_model m;
    struct err err;
    enum name_fault fault = model_ref_parse(text, &name, &err);
    if (fault == NAME_CLOUD) {
        call_refuse(c, 403, STR("ollama cloud is disabled: remote model details are unavailable"));
        return;
    }
    if (fault != NAME_OK) {
        call_fail(c, ERR_INVALID, &err);
        return;
    }
    enum status status = store_find(c->api->store, &name, &c->arena, &m, &err);
    if (status == ERR_NOT_FOUND)
        err_set(&err, status, "model '%.*s' not found", STR_FMT(model_name_short(&name, &c->arena)));
    if (status != OK) {
        call_fail(c, status, &err);
        return;
    }
    openai_model_write(&c->out, text, &m);
    buf_add_char(&c->out, '\n');
    call_reply(c, "application/json");
}
