/* native.c - POST /api/generate and /api/chat: bytes to a gen_request. */
#include "api/native.h"

#include "api/resolve.h"
#include "base/limit.h"
#include "chat/template.h"

/* The fields of both routes; a route's table says which of them it has. */
struct native_fields {
    struct str model, prompt, suffix, system, template_;
    json_t *context, *messages, *tools, *images, *options;
    json_t *format, *keep_alive, *think;
    enum tri stream, raw, truncate, shift, render_only, logprobs;
    struct maybe_int top_logprobs;
};

#define COMMON_FIELDS                                                                                        \
    FIELD(native_fields, model, "model", FIELD_STR), FIELD(native_fields, stream, "stream", FIELD_BOOL),     \
        FIELD(native_fields, format, "format", FIELD_ANY),                                                   \
        FIELD(native_fields, keep_alive, "keep_alive", FIELD_ANY),                                           \
        FIELD(native_fields, options, "options", FIELD_OBJECT),                                              \
        FIELD(native_fields, think, "think", FIELD_ANY),                                                     \
        FIELD(native_fields, truncate, "truncate", FIELD_BOOL),                                              \
        FIELD(native_fields, shift, "shift", FIELD_BOOL),                                                    \
        FIELD(native_fields, render_only, "_debug_render_only", FIELD_BOOL),                                 \
        FIELD(native_fields, logprobs, "logprobs", FIELD_BOOL),                                              \
        FIELD(native_fields, top_logprobs, "top_logprobs", FIELD_INT)

static const struct field generate_fields[] = {
    COMMON_FIELDS,
    FIELD(native_fields, prompt, "prompt", FIELD_STR),
    FIELD(native_fields, suffix, "suffix", FIELD_STR),
    FIELD(native_fields, system, "system", FIELD_STR),
    FIELD(native_fields, template_, "template", FIELD_STR),
    FIELD(native_fields, context, "context", FIELD_LIST),
    FIELD(native_fields, raw, "raw", FIELD_BOOL),
    FIELD(native_fields, images, "images", FIELD_LIST),
};

static const struct field chat_fields[] = {
    COMMON_FIELDS,
    FIELD(native_fields, messages, "messages", FIELD_LIST),
    FIELD(native_fields, tools, "tools", FIELD_LIST),
};

/* What a handler works on. */
struct native {
    struct call *call;
    struct native_fields f;
    struct model model;
    struct gen_request request;
    struct message_list messages;
    i64 keep_alive_ns;
    bool keep_alive_given;
};

/* --- values that are checked before the model is looked up, as decoding does in the reference --- */

static enum status think_read(struct native *n, struct err *err) {
    static const char *const levels[] = {"low", "medium", "high", "max"};
    const json_t *v = n->f.think;
    if (!v)
        return OK;
    if (json_is_boolean(v)) {
        n->request.think = json_is_true(v) ? GEN_THINK_ON : GEN_THINK_OFF;
        return OK;
    }
    if (!json_is_string(v))
        return err_set(
            err, ERR_INVALID,
            "think must be a boolean or string (\"high\", \"medium\", \"low\", \"max\", true, or false)");
    for (u32 i = 0; i < ARRAY_LEN(levels); i++)
        if (str_is(json_text(v), levels[i])) {
            n->request.think = (enum gen_think)(GEN_THINK_LOW + MIN(i, 2u));
            return OK;
        }
    return err_set(
        err, ERR_INVALID,
        "invalid think value: \"%.*s\" (must be \"high\", \"medium\", \"low\", \"max\", true, or false)",
        STR_FMT(json_text(v)));
}

static enum status common_read(struct native *n, struct err *err) {
    struct native_fields *f = &n->f;
    struct call *c = n->call;
    c->model = arena_str(&c->arena, f->model);
    c->stream = f->stream != TRI_FALSE;
    TRY(resolve_keep_alive(c->api, f->keep_alive, &n->keep_alive_ns, &n->keep_alive_given, err));
    TRY(think_read(n, err));
    if (f->top_logprobs.v < 0 || f->top_logprobs.v > LIMIT_TOP_LOGPROBS)
        return err_set(err, ERR_INVALID, "top_logprobs must be between 0 and 20");
    n->request.logprobs = f->logprobs == TRI_TRUE;
    n->request.top_logprobs = (u32)f->top_logprobs.v;
    n->request.truncate = f->truncate != TRI_FALSE;
    n->request.shift = f->shift != TRI_FALSE;
    n->request.render_only = f->render_only == TRI_TRUE;
    n->request.want_hash = c->api->config.debug;
    return OK;
}

/* --- what the model must be able to do, and what minka cannot yet --- */

static enum status format_read(struct native *n, struct err *err) {
    const json_t *v = n->f.format;
    if (!v || (json_is_string(v) && json_string_length(v) == 0))
        return OK;
    if (json_is_string(v) && str_is(json_text(v), "json")) {
        n->request.format = GEN_FORMAT_JSON;
        return OK;
    }
    if (json_is_object(v)) {
        resolve_schema(n->call, v, &n->request);
        return OK;
    }
    struct buf b = {0};
    json_write(&b, v);
    err_set(err, ERR_INVALID, "invalid format: %.*s; expected \"json\" or a valid JSON Schema object",
            (int)MIN(b.n, (size_t)200), b.p);
    buf_release(&b);
    return ERR_INVALID;
}

static enum status suffix_check(const struct native *n, struct err *err) {
    if (n->f.suffix.n && !api_model_can(&n->model, CAN_INSERT))
        return err_set(err, ERR_INVALID, "%.*s does not support insert", STR_FMT(n->model.name_full));
    return OK;
}

/* The request's own template, always a Go one. What it gets wrong is answered as the reference does. */
static enum status template_read(struct native *n, struct err *err) {
    struct chat_template *t;
    if (n->f.template_.n == 0)
        return OK;
    enum status status = template_open(n->f.template_, TEMPLATE_GO, &t, err);
    if (status != OK) {
        n->call->refused_code = 500;
        return status;
    }
    template_close(t);
    n->request.chat_template = n->f.template_;
    return OK;
}

/* --- both routes, after the model is known --- */

static enum status options_read(struct native *n, struct err *err) {
    struct options o;
    TRY(resolve_parameters(n->call, &n->model, &o, err));
    TRY(resolve_options(n->call, n->f.options, &o, err));
    options_resolve(&o, n->call->api->config.num_ctx_default, n->model.facts.context_length, &n->request);
    return resolve_draft(n->call, &n->model, &o, err);
}

/* An empty request with keep_alive 0 unloads at once and needs no queue. */
static void unload(struct native *n) {
    struct call *c = n->call;
    c->api->backend.expire(c->api->backend.ctx, &n->model.stored, 0);
    struct gen_event done = {.kind = GEN_DONE, .reason = GEN_UNLOAD};
    c->plain = true;
    c->writer->whole(c, &done);
    call_reply(c, c->writer->whole_type);
}

static void submit(struct native *n) {
    n->request.messages = n->messages.items;
    n->request.n_messages = n->messages.n;
    call_stamp(n->call, &n->request, STR_NONE);
    call_submit(n->call, &n->model, &n->request, n->keep_alive_ns);
}

static enum status system_add(struct native *n, struct str system, struct err *err) {
    struct gen_message m = {.role = ROLE_SYSTEM, .content = system};
    return system.n ? message_add(&n->messages, &n->call->arena, &m, err) : OK;
}

/* --- generate --- */

static enum status context_read(struct native *n, struct err *err) {
    size_t count = json_array_size(n->f.context), i;
    if (count > LIMIT_NUM_CTX)
        return err_set(err, ERR_INVALID, "context has %zu tokens, at most %u are allowed", count,
                       LIMIT_NUM_CTX);
    u32 *ids = ARENA_ARRAY(&n->call->arena, u32, count);
    json_t *v;
    json_array_foreach(n->f.context, i, v) {
        if (!json_is_integer(v) || json_integer_value(v) < 0 || json_integer_value(v) > UINT32_MAX)
            return err_set(err, ERR_INVALID, "context is an array of token ids");
        ids[i] = (u32)json_integer_value(v);
    }
    n->request.context = ids;
    n->request.n_context = (u32)count;
    return OK;
}

static enum status generate_prompt(struct native *n, struct err *err) {
    struct gen_request *r = &n->request;
    if (n->f.raw == TRI_TRUE) {
        r->form = GEN_FORM_RAW;
        r->prompt = n->f.prompt;
        return OK;
    }
    r->want_context = !r->render_only;
    resolve_template(&n->model, r);
    TRY(template_read(n, err));
    TRY(context_read(n, err));
    if (n->f.suffix.n) {
        r->form = GEN_FORM_FILL;
        r->prompt = n->f.prompt;
        r->suffix = n->f.suffix;
        return OK;
    }
    r->form = GEN_FORM_CHAT;
    TRY(system_add(n, n->f.system.n ? n->f.system : n->model.stored.system, err));
    if (!n->f.context)
        TRY(resolve_messages(n->call, &n->model, &n->messages, err));
    struct gen_message user = {.role = ROLE_USER, .content = n->f.prompt};
    return message_add(&n->messages, &n->call->arena, &user, err);
}

static enum status generate_unsupported(struct native *n, struct err *err) {
    if (json_array_size(n->f.images))
        return unsupported("images", err);
    return format_read(n, err);
}

static enum status generate_build(struct native *n, struct err *err) {
    struct native_fields *f = &n->f;
    if (f->raw == TRI_TRUE && (f->template_.n || f->system.n || json_array_size(f->context)))
        return err_set(err, ERR_INVALID, "raw mode does not support template, system, or context");
    TRY(think_check(n->call, &n->model, &n->request, err));
    TRY(resolve_completion(n->call, &n->model, "generate", err));
    TRY(suffix_check(n, err));
    TRY(options_read(n, err));
    n->request.load_only = f->prompt.n == 0;
    if (n->request.load_only)
        return OK;
    TRY(generate_unsupported(n, err));
    return generate_prompt(n, err);
}

static enum status generate_run(struct native *n, const json_t *root, struct err *err) {
    TRY(fields_read(root, "GenerateRequest", generate_fields, ARRAY_LEN(generate_fields), &n->f, err));
    TRY(common_read(n, err));
    TRY(resolve_model(n->call, NAME_STYLE_GENERATE, &n->model, err));
    if (n->f.prompt.n == 0 && n->keep_alive_given && n->keep_alive_ns == 0) {
        unload(n);
        return OK;
    }
    TRY(generate_build(n, err));
    submit(n);
    return OK;
}

/* --- chat --- */

static enum status chat_build(struct native *n, struct err *err) {
    TRY(think_check(n->call, &n->model, &n->request, err));
    TRY(resolve_tools(n->call, &n->model, n->f.tools, &n->request, err));
    TRY(resolve_completion(n->call, &n->model, "chat", err));
    TRY(options_read(n, err));
    n->request.form = GEN_FORM_CHAT;
    n->request.load_only = json_array_size(n->f.messages) == 0;
    if (n->request.load_only)
        return OK;
    resolve_template(&n->model, &n->request);
    TRY(format_read(n, err));
    struct message_list own = {0};
    TRY(messages_read(&own, n->f.messages, &n->call->arena, err));
    thoughts_cut(&n->model, own.items, own.n);
    if (own.items[0].role != ROLE_SYSTEM)
        TRY(system_add(n, n->model.stored.system, err));
    TRY(resolve_messages(n->call, &n->model, &n->messages, err));
    for (u32 i = 0; i < own.n; i++)
        TRY(message_add(&n->messages, &n->call->arena, &own.items[i], err));
    return OK;
}

static enum status chat_run(struct native *n, const json_t *root, struct err *err) {
    TRY(fields_read(root, "ChatRequest", chat_fields, ARRAY_LEN(chat_fields), &n->f, err));
    TRY(common_read(n, err));
    TRY(resolve_model(n->call, NAME_STYLE_CHAT, &n->model, err));
    if (json_array_size(n->f.messages) == 0 && n->keep_alive_given && n->keep_alive_ns == 0) {
        unload(n);
        return OK;
    }
    TRY(chat_build(n, err));
    submit(n);
    return OK;
}

/* --- entry --- */

static void handle(struct call *c, struct str body,
                   enum status (*run)(struct native *, const json_t *, struct err *)) {
    struct native n = {.call = c};
    struct err err;
    json_t *root;
    gen_request_init(&n.request);
    enum status status = body_parse(body, &root, &err);
    if (status == OK)
        status = run(&n, root, &err);
    json_decref(root);
    if (status != OK)
        call_fail(c, status, &err);
}

void handle_generate(struct call *c, struct str body) {
    c->writer = &native_generate_writer;
    handle(c, body, generate_run);
}

void handle_chat(struct call *c, struct str body) {
    c->writer = &native_chat_writer;
    handle(c, body, chat_run);
}
