/* calls.c - finds name and arguments in what a model wrote. */
#include "chat/calls.h"

#include "base/limit.h"

/* A call lies at most this deep in what a model wraps around it. */
#define WRAPPED_MAX 4u

static enum status tools_full(struct err *err) {
    return err_set(err, ERR_TOO_LARGE, "the tools take more memory than allowed");
}

static bool text_keep(struct arena *a, struct str text, struct str *out) {
    char *p = arena_try_alloc(a, text.n + 1);
    if (!p)
        return false;
    if (text.n)
        memcpy(p, text.p, text.n);
    p[text.n] = 0;
    *out = (struct str){p, text.n};
    return true;
}

/* A value's compact JSON text. */
static bool value_keep(struct arena *a, const struct value *v, struct str *out) {
    const struct json_style style = {
        .comma = STR(","), .colon = STR(":"), .limit_bytes = LIMIT_CALL_BYTES * 2};
    struct buf b = {0};
    struct err err;
    bool ok = value_write_json(&b, v, &style, &err) == OK && text_keep(a, buf_str(&b), out);
    buf_release(&b);
    return ok;
}

enum status chat_tools_read(struct str json, struct arena *a, struct chat_tools *out, struct err *err) {
    struct value list;
    *out = (struct chat_tools){0};
    TRY(value_parse_json(a, json, &list, err));
    if (list.kind != VALUE_LIST)
        return err_set(err, ERR_INVALID, "tools must be a list");
    if (list.list.n > LIMIT_TOOLS)
        return err_set(err, ERR_INVALID, "more than %u tools", LIMIT_TOOLS);
    out->names = arena_try_alloc(a, (list.list.n + 1) * sizeof *out->names);
    out->parameters = arena_try_alloc(a, (list.list.n + 1) * sizeof *out->parameters);
    if (!out->names || !out->parameters)
        return tools_full(err);
    for (u32 i = 0; i < list.list.n; i++) {
        struct value function = value_get(&list.list.items[i], STR("function")),
                     name = value_get(&function, STR("name")),
                     parameters = value_get(&function, STR("parameters"));
        if (name.kind != VALUE_STR || name.s.n == 0)
            return err_set(err, ERR_INVALID, "tools[%u] has no function with a name", i);
        out->names[i] = name.s;
        out->parameters[i] = STR_NONE;
        if (parameters.kind == VALUE_OBJECT && !value_keep(a, &parameters, &out->parameters[i]))
            return tools_full(err);
    }
    out->n = list.list.n;
    return OK;
}

u32 chat_tools_find(const struct chat_tools *t, struct str name) {
    u32 i = 0;
    while (i < t->n && !str_eq(t->names[i], name))
        i++;
    return i;
}

static bool is_word(struct str text, size_t at) {
    char c = at < text.n ? text.p[at] : ' ';
    return (c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'z') || c == '_';
}

/* Where a text names a tool, as a word of its own; SIZE_MAX: nowhere. */
static size_t name_at(struct str text, struct str name) {
    size_t at = str_find(text, name, 0);
    while (at != SIZE_MAX && ((at > 0 && is_word(text, at - 1)) || is_word(text, at + name.n)))
        at = str_find(text, name, at + 1);
    return at;
}

/* The tool that a text names: the first one, of several at one place the longest. */
static u32 tool_in_text(const struct chat_tools *t, struct str text) {
    u32 found = t->n;
    size_t found_at = SIZE_MAX;
    for (u32 i = 0; i < t->n; i++) {
        size_t at = name_at(text, t->names[i]);
        if (at == SIZE_MAX || at > found_at || (at == found_at && t->names[i].n <= t->names[found].n))
            continue;
        found = i;
        found_at = at;
    }
    return found;
}

struct reading {
    const struct chat_tools *tools;
    struct arena *arena;
};

/* Arguments are an object, the JSON text of one, or nothing. */
static bool arguments_read(const struct reading *r, struct value v, struct str *out) {
    struct err err;
    if (v.kind == VALUE_UNDEFINED || v.kind == VALUE_NONE)
        return text_keep(r->arena, STR("{}"), out);
    if (v.kind == VALUE_STR && value_parse_json(r->arena, v.s, &v, &err) != OK)
        return false;
    return v.kind == VALUE_OBJECT && value_keep(r->arena, &v, out);
}

static bool named_read(const struct reading *r, const struct value *object, struct str name,
                       struct gen_tool_call *call) {
    u32 tool = chat_tools_find(r->tools, name);
    struct value arguments = value_get(object, STR("arguments"));
    if (arguments.kind == VALUE_UNDEFINED)
        arguments = value_get(object, STR("parameters"));
    if (tool == r->tools->n)
        return false;
    *call = (struct gen_tool_call){.name = r->tools->names[tool]};
    return arguments_read(r, arguments, &call->arguments);
}

/* Looks for a call in an object and in the objects that it holds. */
static bool object_read(const struct reading *r, const struct value *object, u32 depth,
                        struct gen_tool_call *call) {
    struct value name = value_get(object, STR("name"));
    if (name.kind == VALUE_STR)
        return named_read(r, object, name.s, call);
    for (u32 i = 0; i < value_object_len(object); i++) {
        struct str key;
        struct value v;
        value_member_at(object, i, &key, &v);
        u32 tool = chat_tools_find(r->tools, key);
        if (tool < r->tools->n && value_object_len(object) == 1) {
            *call = (struct gen_tool_call){.name = r->tools->names[tool]};
            return arguments_read(r, v, &call->arguments);
        }
        if (v.kind == VALUE_OBJECT && depth < WRAPPED_MAX && object_read(r, &v, depth + 1, call))
            return true;
    }
    return false;
}

static bool value_read(const struct reading *r, u32 before, const struct value *v,
                       struct gen_tool_call *call) {
    if (v->kind != VALUE_OBJECT)
        return false;
    struct value name = value_get(v, STR("name"));
    bool whole = name.kind == VALUE_STR && (value_get(v, STR("arguments")).kind != VALUE_UNDEFINED ||
                                            value_get(v, STR("parameters")).kind != VALUE_UNDEFINED);
    /* Behind a tool's name comes what it is called with, whatever the members are named. */
    if (before < r->tools->n && !(whole && str_eq(name.s, r->tools->names[before]))) {
        *call = (struct gen_tool_call){.name = r->tools->names[before]};
        return value_keep(r->arena, v, &call->arguments);
    }
    return object_read(r, v, 0, call);
}

bool calls_read(const struct chat_tools *t, struct str before, struct str json, struct arena *a,
                struct gen_tool_call *calls, u32 max, u32 *n) {
    struct reading r = {t, a};
    struct value v;
    struct err err;
    if (value_parse_json(a, json, &v, &err) != OK)
        return false;
    if (v.kind != VALUE_LIST) {
        if (*n >= max || !value_read(&r, tool_in_text(t, before), &v, &calls[*n]))
            return false;
        ++*n;
        return true;
    }
    if (v.list.n == 0 || v.list.n > max - *n)
        return false;
    for (u32 i = 0; i < v.list.n; i++)
        if (!value_read(&r, t->n, &v.list.items[i], &calls[*n + i]))
            return false;
    *n += v.list.n;
    return true;
}
