/* resolve.c - model, parameters, defaults, messages: what every dialect needs before it can ask the backend.
 */
#include "api/resolve.h"

#include "base/limit.h"

#define TEXT_CLOUD "ollama cloud is disabled: remote inference is unavailable"

/* --- the model --- */

static enum status name_refused(struct call *c, enum name_fault fault, enum name_style style,
                                struct err *err) {
    switch (fault) {
    case NAME_CLOUD: c->refused_code = 403; return err_set(err, ERR_UNSUPPORTED, TEXT_CLOUD);
    case NAME_EMPTY:
        return style == NAME_STYLE_CHAT || style == NAME_STYLE_EMBEDDINGS
                   ? err_set(err, ERR_INVALID, "model is required")
                   : err_set(err, ERR_NOT_FOUND, "model '%.*s' not found", STR_FMT(c->model));
    case NAME_INVALID:
    case NAME_CONFLICT: return ERR_INVALID; /* the text is in err */
    case NAME_OK: break;
    }
    return OK;
}

static enum status not_pulled(const struct call *c, struct err *err) {
    struct buf quoted = {0};
    go_quote(&quoted, c->model);
    err_set(err, ERR_NOT_FOUND, "model %.*s not found, try pulling it first", STR_FMT(buf_str(&quoted)));
    buf_release(&quoted);
    return ERR_NOT_FOUND;
}

enum status resolve_model(struct call *c, enum name_style style, struct model *m, struct err *err) {
    struct model_name name;
    enum name_fault fault = model_ref_parse(c->model, &name, err);
    TRY(name_refused(c, fault, style, err));
    enum status status = models_find(c->api->models, &name, &c->arena, m, err);
    if (status == ERR_NOT_FOUND && style >= NAME_STYLE_EMBED)
        return not_pulled(c, err);
    if (status == ERR_NOT_FOUND)
        return err_set(err, status, "model '%.*s' not found", STR_FMT(c->model));
    if (status != OK)
        return status;
    if (m->config.remote_host.n && m->config.remote_model.n)
        return name_refused(c, NAME_CLOUD, style, err);
    return OK;
}

enum status unsupported(const char *field, struct err *err) {
    return err_set(err, ERR_UNSUPPORTED, "%s is not supported by minka yet", field);
}

void resolve_schema(struct call *c, const json_t *schema, struct gen_request *r) {
    struct buf text = {0};
    json_write(&text, schema);
    r->format = GEN_FORMAT_SCHEMA;
    r->schema = arena_str(&c->arena, buf_str(&text));
    buf_release(&text);
}

/* `"<name as asked>" does not support <what>`. */
static enum status model_cannot(const struct call *c, const char *what, struct err *err) {
    struct buf quoted = {0};
    go_quote(&quoted, c->model);
    err_set(err, ERR_INVALID, "%.*s does not support %s", STR_FMT(buf_str(&quoted)), what);
    buf_release(&quoted);
    return ERR_INVALID;
}

enum status think_check(const struct call *c, const struct model *m, const struct gen_request *r,
                        struct err *err) {
    bool wanted = r->think != GEN_THINK_DEFAULT && r->think != GEN_THINK_OFF;
    return wanted && !api_model_can(m, CAN_THINKING) ? model_cannot(c, "thinking", err) : OK;
}

enum status resolve_completion(const struct call *c, const struct model *m, const char *route,
                               struct err *err) {
    if (m->stored.model_digest.n == 0)
        return unsupported("a model without a GGUF layer", err);
    if (m->has_facts && !api_model_can(m, CAN_COMPLETION))
        return model_cannot(c, route, err);
    if (m->adapter)
        return unsupported("a model with an ADAPTER", err);
    if (m->template_error)
        return err_set(err, ERR_CORRUPT, "the TEMPLATE of this model is not understood: %s",
                       m->template_error);
    return OK;
}

enum status resolve_embedding(const struct model *m, struct err *err) {
    if (m->stored.model_digest.n == 0)
        return unsupported("a model without a GGUF layer", err);
    return m->adapter ? unsupported("a model with an ADAPTER", err) : OK;
}

void resolve_template(const struct model *m, struct gen_request *r) {
    if (m->uses_go)
        r->chat_template = m->stored.template_text;
    if (r->think == GEN_THINK_DEFAULT && api_model_can(m, CAN_THINKING))
        r->think = GEN_THINK_ON;
}

static bool is_function(const json_t *tool) {
    const json_t *name = json_object_get(json_object_get(tool, "function"), "name");
    return json_is_string(name) && json_string_length(name) > 0;
}

enum status resolve_tools(struct call *c, const struct model *m, const json_t *tools, struct gen_request *r,
                          struct err *err) {
    size_t i;
    json_t *tool;
    if (json_array_size(tools) == 0)
        return OK;
    if (!api_model_can(m, CAN_TOOLS))
        return err_set(err, ERR_INVALID, "%.*s does not support tools", STR_FMT(m->name_full));
    if (json_array_size(tools) > LIMIT_TOOLS)
        return err_set(err, ERR_INVALID, "more than %u tools", LIMIT_TOOLS);
    json_array_foreach(tools, i, tool) {
        if (!is_function(tool))
            return err_set(err, ERR_INVALID, "tools[%zu] is no function with a name", i);
    }
    struct buf b = {0};
    json_write(&b, tools);
    r->tools = arena_str(&c->arena, buf_str(&b));
    buf_release(&b);
    return OK;
}

void thoughts_cut(const struct model *m, struct gen_message *messages, u32 n) {
    bool family = str_is(m->config.family, "qwen3") || str_is(str_of(m->stored.name.model), "deepseek-r1");
    u32 last_user = n;
    while (last_user > 0 && messages[last_user - 1].role != ROLE_USER)
        last_user--;
    for (u32 i = 0; family && i < last_user; i++) {
        struct str content = str_trim(messages[i].content);
        size_t end = str_find(content, STR("</think>"), 0);
        if (messages[i].role == ROLE_ASSISTANT && str_starts(content, STR("<think>")) && end != SIZE_MAX)
            messages[i].content = str_trim(str_slice(content, end + 8, content.n));
    }
}

/* --- parameters --- */

enum status resolve_parameters(struct call *c, const struct model *m, struct options *o, struct err *err) {
    options_init(o);
    if (m->stored.params.n == 0)
        return OK;
    json_t *root;
    enum status status = body_parse(m->stored.params, &root, err);
    if (status == OK && !json_is_object(root))
        status = err_set(err, ERR_CORRUPT, "the parameters of the model are no JSON object");
    if (status == OK)
        status = options_apply(o, root, &c->arena, err);
    json_decref(root);
    if (status != OK)
        c->refused_code = 500;
    return status;
}

enum status resolve_options(struct call *c, const json_t *object, struct options *o, struct err *err) {
    if (!object)
        return OK;
    enum status status = options_apply(o, object, &c->arena, err);
    if (status != OK)
        c->refused_code = 500;
    api_note_load_time(c->api, o->load_time);
    return status;
}

enum status resolve_draft(struct call *c, const struct model *m, const struct options *o, struct err *err) {
    struct model_name name;
    struct store_model *draft = ARENA_NEW(&c->arena, struct store_model);
    struct str text = o->draft_model;
    struct err why;
    if (text.n == 0 || o->draft_num_predict <= 0)
        return OK;
    if (model_ref_parse(text, &name, &why) != NAME_OK)
        return err_set(err, ERR_INVALID, "option \"draft_model\" is no name of a model: %.*s", STR_FMT(text));
    enum status status = store_find(c->api->store, &name, &c->arena, draft, err);
    if (status == ERR_NOT_FOUND)
        return err_set(err, status, "draft model '%.*s' not found: pull it, or set draft_model to \"\"",
                       STR_FMT(text));
    TRY(status);
    if (str_eq(draft->model_digest, m->stored.model_digest))
        return err_set(err, ERR_INVALID,
                       "draft model '%.*s' is the model itself: name a smaller one of the same family",
                       STR_FMT(text));
    status = models_compare(c->api->models, m->stored.model_digest, draft->model_digest, &why);
    if (status == ERR_INVALID)
        return err_set(
            err, status,
            "draft model '%.*s' has another vocabulary than %.*s (%s): name one of the same family, or "
            "set draft_model to \"\"",
            STR_FMT(text), STR_FMT(m->name_short), why.text);
    c->draft = status == OK ? draft : NULL;
    return OK;
}

enum status resolve_keep_alive(const struct api *api, const json_t *v, i64 *ns, bool *given,
                               struct err *err) {
    *ns = api->config.keep_alive_ns_default;
    *given = v != NULL;
    if (!v)
        return OK;
    if (json_is_string(v))
        return api_keep_alive(json_text(v), false, ns, err);
    if (!json_is_number(v))
        return err_set(err, ERR_INVALID, "Unsupported type: '%s'", json_kind(v));
    struct buf b = {0};
    json_write(&b, v);
    enum status status = api_keep_alive(buf_str(&b), true, ns, err);
    buf_release(&b);
    return status;
}

/* --- messages --- */

enum status message_add(struct message_list *l, struct arena *a, const struct gen_message *m,
                        struct err *err) {
    if (l->n == LIMIT_MESSAGES)
        return err_set(err, ERR_INVALID, "more than %u messages", LIMIT_MESSAGES);
    if (l->n == l->cap) {
        struct gen_message *old = l->items;
        l->cap = MAX(16u, l->cap * 2);
        l->items = ARENA_ARRAY(a, struct gen_message, l->cap);
        if (l->n)
            memcpy(l->items, old, l->n * sizeof *old);
    }
    l->items[l->n++] = *m;
    return OK;
}

enum status role_parse(struct str text, enum gen_role *role, struct err *err) {
    for (enum gen_role r = ROLE_SYSTEM; r <= ROLE_TOOL; r++)
        if (str_eq_nocase(text, str_of(gen_role_name(r)))) {
            *role = r;
            return OK;
        }
    if (str_eq_nocase(text, STR("developer"))) {
        *role = ROLE_SYSTEM;
        return OK;
    }
    return err_set(err, ERR_INVALID, "invalid role \"%.*s\": it is system, user, assistant or tool",
                   STR_FMT(text));
}

struct str arguments_text(const json_t *v, struct arena *a) {
    struct buf b = {0};
    if (v)
        json_write(&b, v);
    struct str text = b.n ? arena_str(a, buf_str(&b)) : STR("{}");
    buf_release(&b);
    return text;
}

struct tool_call_fields {
    struct str id;
    json_t *function;
};
struct function_fields {
    struct maybe_int index;
    struct str name;
    json_t *arguments;
};

static enum status tool_call_read(const json_t *v, struct gen_tool_call *out, struct arena *a,
                                  struct err *err) {
    static const struct field call_fields[] = {
        FIELD(tool_call_fields, id, "id", FIELD_STR),
        FIELD(tool_call_fields, function, "function", FIELD_OBJECT),
    };
    static const struct field fields[] = {
        FIELD(function_fields, index, "index", FIELD_INT),
        FIELD(function_fields, name, "name", FIELD_STR),
        FIELD(function_fields, arguments, "arguments", FIELD_OBJECT),
    };
    struct tool_call_fields c = {0};
    struct function_fields f = {0};
    TRY(fields_read(v, "ToolCall", call_fields, ARRAY_LEN(call_fields), &c, err));
    if (c.function)
        TRY(fields_read(c.function, "ToolCallFunction", fields, ARRAY_LEN(fields), &f, err));
    *out = (struct gen_tool_call){c.id, f.name, arguments_text(f.arguments, a)};
    return OK;
}

struct message_fields {
    struct str role, content, thinking, tool_name, tool_call_id;
    json_t *images, *tool_calls;
};

static enum status message_read(const json_t *v, struct gen_message *m, struct arena *a, struct err *err) {
    static const struct field fields[] = {
        FIELD(message_fields, role, "role", FIELD_STR),
        FIELD(message_fields, content, "content", FIELD_STR),
        FIELD(message_fields, thinking, "thinking", FIELD_STR),
        FIELD(message_fields, images, "images", FIELD_LIST),
        FIELD(message_fields, tool_calls, "tool_calls", FIELD_LIST),
        FIELD(message_fields, tool_name, "tool_name", FIELD_STR),
        FIELD(message_fields, tool_call_id, "tool_call_id", FIELD_STR),
    };
    struct message_fields f = {0};
    TRY(fields_read(v, "Message", fields, ARRAY_LEN(fields), &f, err));
    if (json_array_size(f.images))
        return unsupported("images", err);
    *m = (struct gen_message){.content = f.content,
                              .thinking = f.thinking,
                              .tool_name = f.tool_name,
                              .tool_call_id = f.tool_call_id};
    TRY(role_parse(f.role, &m->role, err));
    size_t n = json_array_size(f.tool_calls);
    struct gen_tool_call *calls = ARENA_ARRAY(a, struct gen_tool_call, n);
    for (size_t i = 0; i < n; i++)
        TRY(tool_call_read(json_array_get(f.tool_calls, i), &calls[i], a, err));
    m->tool_calls = calls;
    m->n_tool_calls = (u32)n;
    return OK;
}

enum status messages_read(struct message_list *l, const json_t *list, struct arena *a, struct err *err) {
    size_t i;
    json_t *v;
    json_array_foreach(list, i, v) {
        struct gen_message m;
        TRY(message_read(v, &m, a, err));
        TRY(message_add(l, a, &m, err));
    }
    return OK;
}

enum status resolve_messages(struct call *c, const struct model *m, struct message_list *l, struct err *err) {
    if (m->stored.messages.n == 0)
        return OK;
    json_t *root;
    u32 first = l->n;
    enum status status = body_parse(m->stored.messages, &root, err);
    if (status == OK)
        status = messages_read(l, root, &c->arena, err);
    /* The tree goes, the list stays. */
    for (u32 i = first; status == OK && i < l->n; i++) {
        l->items[i].content = arena_str(&c->arena, l->items[i].content);
        l->items[i].thinking = arena_str(&c->arena, l->items[i].thinking);
        l->items[i].tool_name = arena_str(&c->arena, l->items[i].tool_name);
        l->items[i].tool_call_id = arena_str(&c->arena, l->items[i].tool_call_id);
        l->items[i].n_tool_calls = 0;
    }
    json_decref(root);
    if (status != OK)
        c->refused_code = 500;
    return status;
}
