/* openai.c - POST /v1/chat/completions and /v1/completions: bytes to a gen_request. */
#include "api/openai.h"

#include "api/resolve.h"
#include "base/limit.h"

struct openai_fields {
    struct str model, prompt, suffix, reasoning_effort, user;
    json_t *messages, *tools, *tool_choice, *stream_options, *response_format, *reasoning, *stop;
    enum tri stream, logprobs, render_only, parallel_tool_calls;
    struct maybe_int max_tokens, max_completion_tokens, seed, top_logprobs, n_logprobs;
    struct maybe_real temperature, top_p, frequency_penalty, presence_penalty;
};

#define COMMON_FIELDS                                                                                        \
    FIELD(openai_fields, model, "model", FIELD_STR), FIELD(openai_fields, stream, "stream", FIELD_BOOL),     \
        FIELD(openai_fields, stream_options, "stream_options", FIELD_OBJECT),                                \
        FIELD(openai_fields, max_tokens, "max_tokens", FIELD_INT),                                           \
        FIELD(openai_fields, seed, "seed", FIELD_INT), FIELD(openai_fields, stop, "stop", FIELD_ANY),        \
        FIELD(openai_fields, temperature, "temperature", FIELD_REAL),                                        \
        FIELD(openai_fields, top_p, "top_p", FIELD_REAL),                                                    \
        FIELD(openai_fields, frequency_penalty, "frequency_penalty", FIELD_REAL),                            \
        FIELD(openai_fields, presence_penalty, "presence_penalty", FIELD_REAL),                              \
        FIELD(openai_fields, user, "user", FIELD_STR),                                                       \
        FIELD(openai_fields, render_only, "_debug_render_only", FIELD_BOOL)

static const struct field chat_fields[] = {
    COMMON_FIELDS,
    FIELD(openai_fields, messages, "messages", FIELD_LIST),
    FIELD(openai_fields, max_completion_tokens, "max_completion_tokens", FIELD_INT),
    FIELD(openai_fields, response_format, "response_format", FIELD_OBJECT),
    FIELD(openai_fields, tools, "tools", FIELD_LIST),
    FIELD(openai_fields, tool_choice, "tool_choice", FIELD_ANY),
    FIELD(openai_fields, parallel_tool_calls, "parallel_tool_calls", FIELD_BOOL),
    FIELD(openai_fields, reasoning, "reasoning", FIELD_OBJECT),
    FIELD(openai_fields, reasoning_effort, "reasoning_effort", FIELD_STR),
    FIELD(openai_fields, logprobs, "logprobs", FIELD_BOOL),
    FIELD(openai_fields, top_logprobs, "top_logprobs", FIELD_INT),
};

static const struct field completion_fields[] = {
    COMMON_FIELDS,
    FIELD(openai_fields, prompt, "prompt", FIELD_STR),
    FIELD(openai_fields, suffix, "suffix", FIELD_STR),
    FIELD(openai_fields, n_logprobs, "logprobs", FIELD_INT),
};

struct openai {
    struct call *call;
    struct openai_fields f;
    struct model model;
    struct gen_request request;
    struct message_list messages;
};

/* --- content --- */

/* The name that Go prints for the kind of a decoded value: part of an error text. */
static const char *go_type(const json_t *v) {
    if (!v || json_is_null(v))
        return "<nil>";
    switch (json_typeof(v)) {
    case JSON_OBJECT: return "map[string]interface {}";
    case JSON_ARRAY: return "[]interface {}";
    case JSON_STRING: return "string";
    case JSON_INTEGER:
    case JSON_REAL: return "float64";
    case JSON_TRUE:
    case JSON_FALSE: return "bool";
    case JSON_NULL: break;
    }
    return "<nil>";
}

static bool image_url_valid(struct str url) {
    static const char *const prefixes[] = {"data:;base64,", "data:image/jpeg;base64,",
                                           "data:image/jpg;base64,", "data:image/png;base64,",
                                           "data:image/webp;base64,"};
    for (size_t i = 0; i < ARRAY_LEN(prefixes); i++)
        if (str_starts(url, str_of(prefixes[i])))
            return true;
    return false;
}

static enum status image_part(const json_t *part, struct err *err) {
    const json_t *v = json_object_get(part, "image_url");
    if (json_is_object(v))
        v = json_object_get(v, "url");
    struct str url = json_text(v);
    if (!json_is_string(v))
        return err_set(err, ERR_INVALID, "invalid message format");
    if (str_starts(url, STR("http://")) || str_starts(url, STR("https://")))
        return err_set(err, ERR_INVALID,
                       "image URLs are not currently supported, please use base64 encoded data instead");
    if (!image_url_valid(url))
        return err_set(err, ERR_INVALID, "invalid image input");
    return unsupported("image_url", err);
}

static enum status audio_part(const json_t *part, struct err *err) {
    const json_t *v = json_object_get(part, "input_audio");
    if (!json_is_object(v))
        return err_set(err, ERR_INVALID, "invalid input_audio format");
    if (!json_is_string(json_object_get(v, "data")))
        return err_set(err, ERR_INVALID, "invalid input_audio format: missing data");
    return unsupported("input_audio", err);
}

static enum status part_read(const json_t *part, struct str *text, struct err *err) {
    struct str type = json_text(json_object_get(part, "type"));
    if (str_is(type, "image_url"))
        return image_part(part, err);
    if (str_is(type, "input_audio"))
        return audio_part(part, err);
    const json_t *v = json_object_get(part, "text");
    if (!str_is(type, "text") || !json_is_string(v))
        return err_set(err, ERR_INVALID, "invalid message format");
    *text = json_text(v);
    return OK;
}

/* --- messages --- */

struct message_fields {
    struct str role, reasoning, name, tool_call_id;
    json_t *content, *tool_calls;
};

struct tool_call_fields {
    struct str id;
    json_t *function;
};
struct function_fields {
    struct str name, arguments;
};

static enum status tool_call_fields_read(const json_t *v, struct tool_call_fields *c,
                                         struct function_fields *f, struct err *err) {
    static const struct field call_fields[] = {
        FIELD(tool_call_fields, id, "id", FIELD_STR),
        FIELD(tool_call_fields, function, "function", FIELD_OBJECT),
    };
    static const struct field fields[] = {
        FIELD(function_fields, name, "name", FIELD_STR),
        FIELD(function_fields, arguments, "arguments", FIELD_STR),
    };
    *c = (struct tool_call_fields){0};
    *f = (struct function_fields){0};
    TRY(fields_read(v, "ToolCall", call_fields, ARRAY_LEN(call_fields), c, err));
    return c->function ? fields_read(c->function, "Function", fields, ARRAY_LEN(fields), f, err) : OK;
}

/* Arguments come as text that holds JSON. */
static enum status tool_call_read(const json_t *v, struct gen_tool_call *out, struct arena *a,
                                  struct err *err) {
    struct tool_call_fields c;
    struct function_fields f;
    struct err none;
    json_t *arguments;
    TRY(tool_call_fields_read(v, &c, &f, err));
    if (body_parse(f.arguments, &arguments, &none) != OK || !json_is_object(arguments)) {
        json_decref(arguments);
        return err_set(err, ERR_INVALID, "invalid tool call arguments");
    }
    *out = (struct gen_tool_call){c.id, f.name, arguments_text(arguments, a)};
    json_decref(arguments);
    return OK;
}

static enum status tool_calls_read(const json_t *list, struct gen_message *m, struct arena *a,
                                   struct err *err) {
    size_t n = json_array_size(list);
    struct gen_tool_call *calls = ARENA_ARRAY(a, struct gen_tool_call, n);
    for (size_t i = 0; i < n; i++)
        TRY(tool_call_read(json_array_get(list, i), &calls[i], a, err));
    m->tool_calls = calls;
    m->n_tool_calls = (u32)n;
    return OK;
}

/* The function that a tool's result belongs to: the last call with this id. */
static struct str tool_name_of(const struct message_list *l, struct str id) {
    for (u32 i = l->n; i-- > 0;)
        for (u32 k = 0; k < l->items[i].n_tool_calls; k++)
            if (str_eq(l->items[i].tool_calls[k].id, id))
                return l->items[i].tool_calls[k].name;
    return STR_NONE;
}

/* Each part becomes a message of its own, as in the reference; calls go to the last one. */
static enum status parts_add(struct openai *o, const struct message_fields *f, struct gen_message m,
                             struct err *err) {
    struct gen_message one = {.role = m.role, .tool_name = m.tool_name, .tool_call_id = m.tool_call_id};
    size_t n = json_array_size(f->content), i;
    json_t *part;
    if (n == 0 && m.n_tool_calls)
        return message_add(&o->messages, &o->call->arena, &m, err);
    json_array_foreach(f->content, i, part) {
        TRY(part_read(part, &one.content, err));
        bool last = i + 1 == n && m.n_tool_calls;
        m.content = one.content;
        TRY(message_add(&o->messages, &o->call->arena, last ? &m : &one, err));
    }
    return OK;
}

static enum status message_read(struct openai *o, const json_t *v, struct err *err) {
    static const struct field fields[] = {
        FIELD(message_fields, role, "role", FIELD_STR),
        FIELD(message_fields, content, "content", FIELD_ANY),
        FIELD(message_fields, reasoning, "reasoning", FIELD_STR),
        FIELD(message_fields, tool_calls, "tool_calls", FIELD_LIST),
        FIELD(message_fields, name, "name", FIELD_STR),
        FIELD(message_fields, tool_call_id, "tool_call_id", FIELD_STR),
    };
    struct message_fields f = {0};
    TRY(fields_read(v, "Message", fields, ARRAY_LEN(fields), &f, err));
    struct gen_message m = {.thinking = f.reasoning, .tool_call_id = f.tool_call_id};
    TRY(role_parse(f.role, &m.role, err));
    TRY(tool_calls_read(f.tool_calls, &m, &o->call->arena, err));
    if (m.role == ROLE_TOOL)
        m.tool_name = f.name.n ? f.name : tool_name_of(&o->messages, f.tool_call_id);
    if (json_is_array(f.content))
        return parts_add(o, &f, m, err);
    if (!json_is_string(f.content) && (f.content || !f.tool_calls))
        return err_set(err, ERR_INVALID, "invalid message content type: %s", go_type(f.content));
    m.content = json_text(f.content);
    return message_add(&o->messages, &o->call->arena, &m, err);
}

/* --- everything else --- */

static enum status effort_read(struct openai *o, struct err *err) {
    static const struct {
        const char *text;
        enum gen_think think;
    } levels[] = {{"", GEN_THINK_DEFAULT}, {"none", GEN_THINK_OFF},      {"minimal", GEN_THINK_LOW},
                  {"low", GEN_THINK_LOW},  {"medium", GEN_THINK_MEDIUM}, {"high", GEN_THINK_HIGH},
                  {"max", GEN_THINK_HIGH}, {"xhigh", GEN_THINK_HIGH},    {"ultra", GEN_THINK_HIGH}};
    struct str effort =
        o->f.reasoning ? json_text(json_object_get(o->f.reasoning, "effort")) : o->f.reasoning_effort;
    for (size_t i = 0; i < ARRAY_LEN(levels); i++)
        if (str_is(effort, levels[i].text)) {
            o->request.think = levels[i].think;
            return OK;
        }
    return err_set(err, ERR_INVALID,
                   "invalid reasoning value: \"%.*s\" (must be \"minimal\", \"low\", \"medium\", \"high\", "
                   "\"xhigh\", \"ultra\", \"max\", or \"none\")",
                   STR_FMT(effort));
}

/* "auto", "none", "required", or one function by its name. */
static enum status tool_choice_read(struct openai *o, struct err *err) {
    static const struct {
        const char *text;
        enum gen_tools choice;
    } words[] = {{"auto", GEN_TOOLS_AUTO}, {"none", GEN_TOOLS_NONE}, {"required", GEN_TOOLS_REQUIRED}};
    const json_t *v = o->f.tool_choice, *tool;
    struct gen_request *r = &o->request;
    size_t i;
    r->single_call = o->f.parallel_tool_calls == TRI_FALSE;
    if (!v)
        return OK;
    for (i = 0; i < ARRAY_LEN(words); i++)
        if (json_is_string(v) && str_is(json_text(v), words[i].text)) {
            r->tool_choice = words[i].choice;
            return r->tool_choice == GEN_TOOLS_REQUIRED && json_array_size(o->f.tools) == 0
                       ? err_set(err, ERR_INVALID, "tool_choice is \"required\", but there are no tools")
                       : OK;
        }
    r->tool_choice = GEN_TOOLS_ONE;
    r->tool_choice_name = json_text(json_object_get(json_object_get(v, "function"), "name"));
    if (r->tool_choice_name.n == 0)
        return err_set(err, ERR_INVALID,
                       "invalid tool_choice: it is \"auto\", \"none\", \"required\" or "
                       "{\"type\":\"function\",\"function\":{\"name\":...}}");
    json_array_foreach(o->f.tools, i, tool) {
        if (str_eq(json_text(json_object_get(json_object_get(tool, "function"), "name")),
                   r->tool_choice_name))
            return OK;
    }
    return err_set(err, ERR_INVALID, "tool_choice names \"%.*s\", which is none of the tools",
                   STR_FMT(r->tool_choice_name));
}

/* Types other than these two are plain text, as in the reference. */
static void format_read(struct openai *o) {
    const json_t *v = o->f.response_format;
    struct str type = str_trim(json_text(json_object_get(v, "type")));
    const json_t *schema = json_object_get(json_object_get(v, "json_schema"), "schema");
    if (str_eq_nocase(type, STR("json_object")))
        o->request.format = GEN_FORMAT_JSON;
    else if (str_eq_nocase(type, STR("json_schema")) && schema)
        resolve_schema(o->call, schema, &o->request);
}

/* `stop`: text, or an array whose other members are skipped (chat) or refused (completion). */
static enum status stop_read(struct openai *o, struct options *options, bool strict, struct err *err) {
    const json_t *stop = o->f.stop;
    if (!json_is_string(stop) && !json_is_array(stop))
        return OK;
    json_t *list = json_array(), *v;
    size_t i;
    enum status status = OK;
    if (json_is_string(stop))
        json_array_append(list, (json_t *)stop);
    json_array_foreach(stop, i, v) {
        if (json_is_string(v))
            json_array_append(list, v);
        else if (strict)
            status = err_set(err, ERR_INVALID, "invalid type for 'stop' field: %s", go_type(v));
    }
    if (status == OK)
        status = options_stop(options, list, &o->call->arena, err);
    json_decref(list);
    return status;
}

/* OpenAI's defaults stand above the model's own parameters: temperature and top_p are 1 unless asked for. */
static enum status options_read(struct openai *o, bool completion, struct err *err) {
    struct openai_fields *f = &o->f;
    struct options options;
    TRY(resolve_parameters(o->call, &o->model, &options, err));
    TRY(stop_read(o, &options, completion, err));
    options.temperature = f->temperature.set ? (f32)f->temperature.v : 1.0f;
    options.top_p = f->top_p.set && !(completion && f->top_p.v == 0) ? (f32)f->top_p.v : 1.0f;
    if (f->frequency_penalty.set || completion)
        options.frequency_penalty = (f32)f->frequency_penalty.v;
    if (f->presence_penalty.set || completion)
        options.presence_penalty = (f32)f->presence_penalty.v;
    if (f->max_completion_tokens.set)
        options.num_predict = f->max_completion_tokens.v;
    if (f->max_tokens.set)
        options.num_predict = f->max_tokens.v;
    if (f->seed.set)
        options.seed = f->seed.v;
    options_resolve(&options, o->call->api->config.num_ctx_default, o->model.facts.context_length,
                    &o->request);
    return resolve_draft(o->call, &o->model, &options, err);
}

static void common_read(struct openai *o, const char *id) {
    struct call *c = o->call;
    c->model = arena_str(&c->arena, o->f.model);
    c->stream = o->f.stream == TRI_TRUE;
    c->include_usage = json_is_true(json_object_get(o->f.stream_options, "include_usage"));
    c->id = arena_printf(&c->arena, "%s-%llu", id, (unsigned long long)(c->api->n_ids++ % 999));
    o->request.form = GEN_FORM_CHAT;
    o->request.render_only = o->f.render_only == TRI_TRUE;
    o->request.want_hash = c->api->config.debug;
}

static enum status system_add(struct openai *o, struct err *err) {
    struct gen_message m = {.role = ROLE_SYSTEM, .content = o->model.stored.system};
    return m.content.n ? message_add(&o->messages, &o->call->arena, &m, err) : OK;
}

static void submit(struct openai *o) {
    o->request.messages = o->messages.items;
    o->request.n_messages = o->messages.n;
    call_stamp(o->call, &o->request, o->f.user);
    call_submit(o->call, &o->model, &o->request, o->call->api->config.keep_alive_ns_default);
}

/* --- chat --- */

static enum status logprobs_read(struct openai *o, i64 top, struct err *err) {
    if (top < 0 || top > LIMIT_TOP_LOGPROBS)
        return err_set(err, ERR_INVALID, "top_logprobs must be between 0 and 20");
    o->request.top_logprobs = (u32)top;
    return OK;
}

/* Messages of the request alone: the model's come in front once it is known. */
static enum status chat_messages(struct openai *o, struct err *err) {
    size_t i;
    json_t *v;
    if (json_array_size(o->f.messages) == 0)
        return err_set(err, ERR_INVALID, "[] is too short - 'messages'");
    json_array_foreach(o->f.messages, i, v) TRY(message_read(o, v, err));
    return OK;
}

static enum status chat_build(struct openai *o, struct err *err) {
    struct message_list own = o->messages;
    TRY(think_check(o->call, &o->model, &o->request, err));
    TRY(resolve_tools(o->call, &o->model, o->f.tools, &o->request, err));
    TRY(resolve_completion(o->call, &o->model, "chat", err));
    TRY(options_read(o, false, err));
    resolve_template(&o->model, &o->request);
    thoughts_cut(&o->model, own.items, own.n);
    format_read(o);
    o->messages = (struct message_list){0};
    o->request.load_only = own.n == 0; /* all messages had empty part lists */
    if (own.n && own.items[0].role != ROLE_SYSTEM)
        TRY(system_add(o, err));
    TRY(resolve_messages(o->call, &o->model, &o->messages, err));
    for (u32 i = 0; i < own.n; i++)
        TRY(message_add(&o->messages, &o->call->arena, &own.items[i], err));
    return OK;
}

static enum status chat_run(struct openai *o, const json_t *root, struct err *err) {
    TRY(fields_read(root, "ChatCompletionRequest", chat_fields, ARRAY_LEN(chat_fields), &o->f, err));
    common_read(o, "chatcmpl");
    TRY(chat_messages(o, err));
    TRY(effort_read(o, err));
    TRY(tool_choice_read(o, err));
    TRY(logprobs_read(o, o->f.top_logprobs.v, err));
    o->request.logprobs = o->f.logprobs == TRI_TRUE;
    TRY(resolve_model(o->call, NAME_STYLE_CHAT, &o->model, err));
    TRY(chat_build(o, err));
    submit(o);
    return OK;
}

/* --- completion: through the chat template, as in the reference --- */

static enum status completion_build(struct openai *o, struct err *err) {
    TRY(resolve_completion(o->call, &o->model, "generate", err));
    if (o->f.suffix.n && !api_model_can(&o->model, CAN_INSERT))
        return err_set(err, ERR_INVALID, "%.*s does not support insert", STR_FMT(o->model.name_full));
    TRY(options_read(o, true, err));
    o->request.load_only = o->f.prompt.n == 0;
    if (o->request.load_only)
        return OK;
    resolve_template(&o->model, &o->request);
    if (o->f.suffix.n) {
        o->request.form = GEN_FORM_FILL;
        o->request.prompt = o->f.prompt;
        o->request.suffix = o->f.suffix;
        return OK;
    }
    TRY(system_add(o, err));
    TRY(resolve_messages(o->call, &o->model, &o->messages, err));
    struct gen_message user = {.role = ROLE_USER, .content = o->f.prompt};
    return message_add(&o->messages, &o->call->arena, &user, err);
}

static enum status completion_run(struct openai *o, const json_t *root, struct err *err) {
    TRY(fields_read(root, "CompletionRequest", completion_fields, ARRAY_LEN(completion_fields), &o->f, err));
    common_read(o, "cmpl");
    /* The reference checks the number and then leaves log probabilities out of the reply. */
    TRY(logprobs_read(o, MAX(o->f.n_logprobs.v, 0), err));
    o->request.top_logprobs = 0;
    TRY(resolve_model(o->call, NAME_STYLE_GENERATE, &o->model, err));
    TRY(completion_build(o, err));
    submit(o);
    return OK;
}

/* --- entry --- */

static void handle(struct call *c, struct str body,
                   enum status (*run)(struct openai *, const json_t *, struct err *)) {
    struct openai o = {.call = c};
    struct err err;
    json_t *root;
    gen_request_init(&o.request);
    enum status status = body_parse(body, &root, &err);
    if (status == OK)
        status = run(&o, root, &err);
    json_decref(root);
    if (status != OK)
        call_fail(c, status, &err);
}

void handle_openai_chat(struct call *c, struct str body) {
    c->writer = &openai_chat_writer;
    handle(c, body, chat_run);
}

void handle_openai_completion(struct call *c, struct str body) {
    c->writer = &openai_completion_writer;
    handle(c, body, completion_run);
}
