/* chat_go.c - a request's messages for a Go template: one run over .Messages, or for older templates one run
 * per turn with .System, .Prompt and .Response.
 *
 * Structs are objects of FORM_STRUCT whose keys are the names that Go's JSON gives the fields. */
#include "base/limit.h"
#include "chat/chat_vars.h"
#include "chat/template_parts.h"

/* Building stops at the arena's limit: `full` says so once, at the end. */
struct go_build {
    struct arena *arena;
    bool full;
};

static void put(struct go_build *b, struct value *object, const char *key, struct value v) {
    if (!b->full && !value_try_set_key(b->arena, object, value_str(str_of(key)), v))
        b->full = true;
}

static void add(struct go_build *b, struct value *list, struct value v) {
    if (!b->full && !value_try_append(b->arena, list, v))
        b->full = true;
}

static struct value object(struct go_build *b, enum value_form form) {
    struct value v = {0};
    if (b->full || !value_try_object(b->arena, &v))
        b->full = true;
    v.form = form;
    return v;
}

/* JSON's numbers are floats in Go. `form` is that of the value itself. */
static struct value go_any(struct go_build *b, const struct value *v, enum value_form form) {
    struct value out = *v, key, item;
    if (v->kind == VALUE_INT)
        return (struct value){.kind = VALUE_FLOAT, .f = (f64)v->i};
    if (v->kind == VALUE_LIST) {
        out = value_list();
        for (u32 i = 0; i < v->list.n && !b->full; i++)
            add(b, &out, go_any(b, &v->list.items[i], FORM_PLAIN));
    } else if (v->kind == VALUE_OBJECT) {
        out = object(b, FORM_PLAIN);
        for (u32 i = 0; i < value_object_len(v) && !b->full; i++) {
            value_entry_at(v, i, &key, &item);
            if (!value_try_set_key(b->arena, &out, key, go_any(b, &item, FORM_PLAIN)))
                b->full = true;
        }
    }
    if (out.kind == VALUE_LIST || out.kind == VALUE_OBJECT)
        out.form = form;
    return out;
}

static struct value text_of(const struct value *object, const char *key) {
    struct value v = value_get(object, str_of(key));
    return v.kind == VALUE_STR ? v : value_str(STR(""));
}

static void put_any(struct go_build *b, struct value *to, const struct value *from, const char *key) {
    struct value v = value_get(from, str_of(key));
    if (v.kind != VALUE_UNDEFINED && v.kind != VALUE_NONE)
        put(b, to, key, go_any(b, &v, FORM_PLAIN));
}

static struct value go_properties(struct go_build *b, const struct value *from);

/* One property of a tool's parameters. Its type is a text, or a list of several. */
static struct value go_property(struct go_build *b, const struct value *from) {
    struct value out = object(b, FORM_STRUCT), type = value_get(from, STR("type")),
                 any_of = value_get(from, STR("anyOf"));
    if (any_of.kind == VALUE_LIST && any_of.list.n) {
        struct value list = value_list();
        for (u32 i = 0; i < any_of.list.n && !b->full; i++)
            add(b, &list, go_property(b, &any_of.list.items[i]));
        put(b, &out, "anyOf", list);
    }
    if (type.kind == VALUE_LIST && type.list.n == 1)
        type = type.list.items[0];
    if (type.kind != VALUE_UNDEFINED)
        put(b, &out, "type", type);
    put_any(b, &out, from, "items");
    if (text_of(from, "description").s.n)
        put(b, &out, "description", text_of(from, "description"));
    put_any(b, &out, from, "enum");
    if (value_get(from, STR("properties")).kind == VALUE_OBJECT)
        put(b, &out, "properties", go_properties(b, from));
    put_any(b, &out, from, "required");
    return out;
}

static struct value go_properties(struct go_build *b, const struct value *from) {
    struct value out = object(b, FORM_JSON), properties = value_get(from, STR("properties"));
    for (u32 i = 0; i < value_object_len(&properties) && !b->full; i++) {
        struct value key, v;
        value_entry_at(&properties, i, &key, &v);
        if (!value_try_set_key(b->arena, &out, key, go_property(b, &v)))
            b->full = true;
    }
    return out;
}

static struct value go_tool(struct go_build *b, const struct value *from) {
    struct value out = object(b, FORM_STRUCT), function = object(b, FORM_STRUCT),
                 parameters = object(b, FORM_STRUCT);
    struct value f = value_get(from, STR("function")), p = value_get(&f, STR("parameters"));
    put(b, &parameters, "type", text_of(&p, "type"));
    put_any(b, &parameters, &p, "$defs");
    put_any(b, &parameters, &p, "items");
    put_any(b, &parameters, &p, "required");
    put(b, &parameters, "properties", go_properties(b, &p));
    put(b, &function, "name", text_of(&f, "name"));
    if (text_of(&f, "description").s.n)
        put(b, &function, "description", text_of(&f, "description"));
    put(b, &function, "parameters", parameters);
    put(b, &out, "type", text_of(from, "type"));
    put_any(b, &out, from, "items");
    put(b, &out, "function", function);
    return out;
}

static struct value go_tools(struct go_build *b, const struct value *tools) {
    struct value out = value_list();
    out.form = FORM_JSON;
    for (u32 i = 0; tools->kind == VALUE_LIST && i < tools->list.n && !b->full; i++)
        add(b, &out, go_tool(b, &tools->list.items[i]));
    return out;
}

/* calls: as the Jinja variables have them, parsed already. */
static struct value go_calls(struct go_build *b, const struct value *calls) {
    struct value out = value_list();
    for (u32 i = 0; calls->kind == VALUE_LIST && i < calls->list.n && !b->full; i++) {
        struct value call = object(b, FORM_STRUCT), function = object(b, FORM_STRUCT);
        struct value f = value_get(&calls->list.items[i], STR("function")),
                     arguments = value_get(&f, STR("arguments"));
        put(b, &function, "index", value_int(i));
        put(b, &function, "name", text_of(&f, "name"));
        put(b, &function, "arguments", go_any(b, &arguments, FORM_JSON));
        put(b, &call, "id", text_of(&calls->list.items[i], "id"));
        put(b, &call, "function", function);
        add(b, &out, call);
    }
    return out;
}

/* The messages that a window shows, by index. */
struct go_list {
    const struct gen_message *messages;
    const u32 *index; /* [n] */
    u32 n;
};

/* The contents of l[from, to) with a blank line between; only those of role `only`, if that is not NULL. A single
 * one is not copied: each attempt to make the prompt fit comes along here. */
static struct str joined(struct go_build *b, const struct go_list *l, u32 from, u32 to,
                         const enum gen_role *only) {
    struct str first = STR("");
    struct buf text = {0};
    u32 n = 0;
    for (u32 i = from; i < to; i++) {
        const struct gen_message *m = &l->messages[l->index[i]];
        if (only && m->role != *only)
            continue;
        if (++n == 1) {
            first = m->content;
            continue;
        }
        buf_add_str(&text, n == 2 ? first : STR(""));
        buf_add_str(&text, STR("\n\n"));
        buf_add_str(&text, m->content);
    }
    if (n > 1) {
        char *p = b->full ? NULL : arena_try_alloc(b->arena, text.n);
        b->full = !p;
        first = p ? (struct str){memcpy(p, text.p, text.n), text.n} : STR("");
    }
    buf_release(&text);
    return first;
}

static struct value go_message(struct go_build *b, const struct chat_vars *v, u32 i, struct str content) {
    const struct gen_message *m = &v->request->messages[i];
    struct value out = object(b, FORM_STRUCT), calls = value_get(&v->messages[i], STR("tool_calls"));
    put(b, &out, "role", value_str(str_of(gen_role_name(m->role))));
    put(b, &out, "content", value_str(content));
    put(b, &out, "thinking", value_str(m->thinking));
    put(b, &out, "images", value_list());
    put(b, &out, "tool_calls", go_calls(b, &calls));
    put(b, &out, "tool_name", value_str(m->tool_name));
    put(b, &out, "tool_call_id", value_str(m->tool_call_id));
    return out;
}

/* End of the run of messages of one role that begins at from; tools' messages stay apart. */
static u32 run_end(const struct go_list *l, u32 from) {
    u32 to = from + 1;
    enum gen_role role = l->messages[l->index[from]].role;
    while (role != ROLE_TOOL && to < l->n && l->messages[l->index[to]].role == role)
        to++;
    return to;
}

static enum status go_full(struct err *err) {
    return err_set(err, ERR_TOO_LARGE, "the messages take more memory than allowed");
}

static void put_settings(struct go_build *b, const struct gen_request *r, struct value *root) {
    put(b, root, "Think", value_bool(chat_thinks(r)));
    put(b, root, "ThinkLevel",
        value_str(str_of(r->think == GEN_THINK_ON ? "medium" : chat_think_level(r->think))));
    put(b, root, "IsThinkSet", value_bool(r->think != GEN_THINK_DEFAULT));
}

static enum status render_messages(const struct chat_vars *v, const struct chat_template *t,
                                   const struct go_list *l, struct buf *out, struct err *err) {
    struct go_build b = {v->arena, false};
    struct value root = object(&b, FORM_PLAIN), messages = value_list();
    enum gen_role system = ROLE_SYSTEM;
    for (u32 i = 0, next; i < l->n && !b.full; i = next) {
        next = run_end(l, i);
        add(&b, &messages, go_message(&b, v, l->index[i], joined(&b, l, i, next, NULL)));
    }
    put(&b, &root, "System", value_str(joined(&b, l, 0, l->n, &system)));
    put(&b, &root, "Messages", messages);
    put(&b, &root, "Tools", go_tools(&b, &v->tools));
    put(&b, &root, "Response", value_str(STR("")));
    put_settings(&b, v->request, &root);
    if (b.full)
        return go_full(err);
    return template_render_part(t, &root, v->request->time_unix, v->request->utc_offset_s, false, out, err);
}

/* One turn of an older template; `last` ends where the answer is to begin. */
struct go_turn {
    struct str system, prompt, response;
};

static enum status render_turn(const struct chat_vars *v, const struct chat_template *t, struct go_turn *turn,
                               bool last, struct buf *out, struct err *err) {
    struct go_build b = {v->arena, false};
    struct value root = object(&b, FORM_PLAIN);
    put(&b, &root, "System", value_str(turn->system));
    put(&b, &root, "Prompt", value_str(turn->prompt));
    put(&b, &root, "Response", value_str(turn->response));
    put_settings(&b, v->request, &root);
    if (b.full)
        return go_full(err);
    *turn = (struct go_turn){0};
    return template_render_part(t, &root, v->request->time_unix, v->request->utc_offset_s, last, out, err);
}

static enum status render_turns(const struct chat_vars *v, const struct chat_template *t,
                                const struct go_list *l, struct buf *out, struct err *err) {
    struct go_turn turn = {0};
    struct go_build b = {v->arena, false};
    for (u32 i = 0, next; i < l->n && !b.full; i = next) {
        next = run_end(l, i);
        struct str content = joined(&b, l, i, next, NULL);
        enum gen_role role = l->messages[l->index[i]].role;
        bool starts =
            role == ROLE_SYSTEM ? turn.prompt.n || turn.response.n : role == ROLE_USER && turn.response.n;
        if (starts)
            TRY(render_turn(v, t, &turn, false, out, err));
        if (role == ROLE_SYSTEM)
            turn.system = content;
        else if (role == ROLE_USER)
            turn.prompt = content;
        else if (role == ROLE_ASSISTANT)
            turn.response = content;
    }
    return b.full ? go_full(err) : render_turn(v, t, &turn, true, out, err);
}

enum status chat_render_go(const struct chat_vars *v, const struct chat_template *t, struct chat_window w,
                           struct buf *out, struct err *err) {
    u32 *index = arena_try_alloc(v->arena, (v->request->n_messages + 1) * sizeof *index);
    struct go_list list = {v->request->messages, index, 0};
    if (!index)
        return go_full(err);
    for (u32 i = 0; i < v->request->n_messages; i++)
        if (chat_window_has(v->request, w, i))
            index[list.n++] = i;
    return template_mentions(t, "messages") ? render_messages(v, t, &list, out, err)
                                            : render_turns(v, t, &list, out, err);
}
