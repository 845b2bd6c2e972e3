/* chat_vars.c - messages, tools and settings of a request as Jinja variables, in the form that
 * transformers gives them to templates. */
#include "chat/chat_vars.h"

#include "base/limit.h"

const char *chat_think_level(enum gen_think think) {
    switch (think) {
    case GEN_THINK_LOW: return "low";
    case GEN_THINK_MEDIUM: return "medium";
    case GEN_THINK_HIGH: return "high";
    case GEN_THINK_DEFAULT:
    case GEN_THINK_OFF:
    case GEN_THINK_ON: return "";
    }
    return "";
}

static enum status full(struct err *err) {
    return err_set(err, ERR_TOO_LARGE, "the messages take more memory than allowed");
}

static bool put(struct arena *a, struct value *object, const char *key, struct value v) {
    return value_try_set_key(a, object, value_str(str_of(key)), v);
}

static bool put_text(struct arena *a, struct value *object, const char *key, struct str s) {
    return s.n == 0 || put(a, object, key, value_str(s));
}

/* {type, function: {name, arguments}, id}. Arguments that are empty count as no arguments. */
static enum status call_value(struct arena *a, const struct gen_tool_call *c, struct value *out,
                              struct err *err) {
    struct value function, arguments;
    struct str text = str_trim(c->arguments).n ? c->arguments : STR("{}");
    TRY(value_parse_json(a, text, &arguments, err));
    bool ok = value_try_object(a, out) && value_try_object(a, &function) &&
              put(a, &function, "name", value_str(c->name)) && put(a, &function, "arguments", arguments) &&
              put(a, out, "type", value_str(STR("function"))) && put(a, out, "function", function) &&
              put_text(a, out, "id", c->id);
    return ok ? OK : full(err);
}

static enum status message_value(struct arena *a, const struct gen_message *m, struct value *out,
                                 struct err *err) {
    bool ok = value_try_object(a, out) && put(a, out, "role", value_str(str_of(gen_role_name(m->role)))) &&
              put(a, out, "content", value_str(m->content)) && put_text(a, out, "thinking", m->thinking) &&
              put_text(a, out, "reasoning_content", m->thinking) && put_text(a, out, "name", m->tool_name) &&
              put_text(a, out, "tool_call_id", m->tool_call_id);
    if (!ok)
        return full(err);
    if (!m->n_tool_calls)
        return OK;
    struct value calls = value_list(), call;
    for (u32 i = 0; i < m->n_tool_calls; i++) {
        TRY(call_value(a, &m->tool_calls[i], &call, err));
        if (!value_try_append(a, &calls, call))
            return full(err);
    }
    return put(a, out, "tool_calls", calls) ? OK : full(err);
}

enum status chat_vars_init(struct chat_vars *v, const struct chat_model *m, const struct gen_request *r,
                           struct arena *arena, struct err *err) {
    *v = (struct chat_vars){.model = m, .request = r, .arena = arena};
    if (r->n_messages > LIMIT_MESSAGES)
        return err_set(err, ERR_TOO_LARGE, "%u messages; at most %u are allowed", r->n_messages,
                       LIMIT_MESSAGES);
    if (!(v->messages = arena_try_alloc(arena, r->n_messages * sizeof *v->messages)))
        return full(err);
    for (u32 i = 0; i < r->n_messages; i++)
        TRY(message_value(arena, &r->messages[i], &v->messages[i], err));
    if (r->tools.n && r->tool_choice != GEN_TOOLS_NONE) {
        TRY(value_parse_json(arena, r->tools, &v->tools, err));
        if (v->tools.kind != VALUE_LIST)
            return err_set(err, ERR_INVALID, "tools must be a list");
        if (!v->tools.list.n)
            v->tools = (struct value){0};
    }
    if (r->template_kwargs.n) {
        TRY(value_parse_json(arena, r->template_kwargs, &v->kwargs, err));
        if (v->kwargs.kind != VALUE_OBJECT)
            return err_set(err, ERR_INVALID, "template variables must be an object");
    }
    return OK;
}

static struct str token_text(const struct tokenizer *t, u32 id) {
    return id == TOKEN_NONE ? STR("") : tokenizer_text_of(t, id);
}

static bool put_think(struct arena *a, struct value *root, const struct gen_request *r) {
    const char *level = chat_think_level(r->think);
    if (r->think == GEN_THINK_DEFAULT)
        return true;
    return put(a, root, "enable_thinking", value_bool(chat_thinks(r))) &&
           put(a, root, "thinking", value_bool(chat_thinks(r))) &&
           put_text(a, root, "reasoning_effort", str_of(level));
}

static bool put_kwargs(const struct chat_vars *v, struct value *root) {
    for (u32 i = 0; i < value_object_len(&v->kwargs); i++) {
        struct str key;
        struct value item;
        value_member_at(&v->kwargs, i, &key, &item);
        if (!str_is(key, "messages") && !value_try_set_key(v->arena, root, value_str(key), item))
            return false;
    }
    return true;
}

enum status chat_vars_jinja(const struct chat_vars *v, struct chat_window w, struct value *root,
                            struct err *err) {
    struct value messages = value_list();
    struct arena *a = v->arena;
    const struct tokenizer *t = v->model->tokenizer;
    bool ok = value_try_object(a, root);
    for (u32 i = 0; ok && i < v->request->n_messages; i++)
        if (chat_window_has(v->request, w, i))
            ok = value_try_append(a, &messages, v->messages[i]);
    ok = ok && put(a, root, "messages", messages) &&
         (v->tools.kind == VALUE_UNDEFINED || put(a, root, "tools", v->tools)) &&
         put(a, root, "add_generation_prompt", value_bool(true)) &&
         put(a, root, "bos_token", value_str(token_text(t, tokenizer_bos(t)))) &&
         put(a, root, "eos_token", value_str(token_text(t, tokenizer_eos(t)))) &&
         put_think(a, root, v->request) && put_kwargs(v, root);
    return ok ? OK : full(err);
}
