/* go_run.c - runs a Go template: statements, pipelines, variables, fields. */
#include "base/limit.h"
#include "chat/go.h"

#include <stdlib.h>

struct go_variable {
    struct str name;
    struct value v;
};

static enum status run_body(struct go_run *g, const struct value *dot, const struct go_nodes *body);
static enum status eval_pipe(struct go_run *g, const struct value *dot, const struct go_node *pipe,
                             struct value *out);
static enum status eval_operand(struct go_run *g, const struct value *dot, const struct go_node *n,
                                struct value *out);

static bool is_nil(const struct value *v) { return v->kind == VALUE_NONE || v->kind == VALUE_UNDEFINED; }

const char *go_type(const struct value *v) {
    switch (v->kind) {
    case VALUE_UNDEFINED:
    case VALUE_NONE: return "nil";
    case VALUE_BOOL: return "bool";
    case VALUE_INT: return "int";
    case VALUE_FLOAT: return "float64";
    case VALUE_STR: return "string";
    case VALUE_LIST: return "slice";
    case VALUE_OBJECT: return v->form == FORM_STRUCT ? "struct" : "map";
    case VALUE_CALLABLE: return "func";
    }
    return "any";
}

bool go_truth(const struct value *v) {
    switch (v->kind) {
    case VALUE_UNDEFINED:
    case VALUE_NONE: return false;
    case VALUE_BOOL: return v->b;
    case VALUE_INT: return v->i != 0;
    case VALUE_FLOAT: return v->f != 0;
    case VALUE_STR: return v->s.n > 0;
    case VALUE_LIST: return v->list.n > 0;
    case VALUE_OBJECT: return v->form == FORM_STRUCT || value_object_len(v) > 0;
    case VALUE_CALLABLE: return true;
    }
    return true;
}

/* --- variables --- */
static enum status push_variable(struct go_run *g, struct str name, struct value v) {
    if (g->n_variables == g->cap_variables) {
        u32 cap = g->cap_variables ? g->cap_variables * 2 : 16;
        struct go_variable *grown = NULL;
        TRY(run_alloc(&g->r, cap * sizeof *grown, &grown));
        if (g->n_variables)
            memcpy(grown, g->variables, g->n_variables * sizeof *grown);
        g->variables = grown;
        g->cap_variables = cap;
    }
    g->variables[g->n_variables++] = (struct go_variable){name, v};
    return OK;
}

static struct go_variable *find_variable(struct go_run *g, struct str name) {
    for (u32 i = g->n_variables; i-- > g->first_variable;)
        if (str_eq(g->variables[i].name, name))
            return &g->variables[i];
    return NULL;
}

static enum status set_variable(struct go_run *g, struct str name, bool assign, const struct value *v) {
    if (!assign)
        return push_variable(g, name, *v);
    struct go_variable *variable = find_variable(g, name);
    if (!variable)
        return run_fail(&g->r, "undefined variable '%.*s'", STR_FMT(name));
    variable->v = *v;
    return OK;
}

/* --- fields --- */
/* Go's names of the fields of messages, calls and tools, with JSON's, and what a field left out is. */
static const struct {
    const char *go, *json;
    enum value_kind zero;
} fields[] = {
    {"Role", "role", VALUE_STR},
    {"Content", "content", VALUE_STR},
    {"Thinking", "thinking", VALUE_STR},
    {"Images", "images", VALUE_LIST},
    {"ToolCalls", "tool_calls", VALUE_LIST},
    {"ToolName", "tool_name", VALUE_STR},
    {"ToolCallID", "tool_call_id", VALUE_STR},
    {"ID", "id", VALUE_STR},
    {"Function", "function", VALUE_NONE},
    {"Index", "index", VALUE_INT},
    {"Name", "name", VALUE_STR},
    {"Arguments", "arguments", VALUE_NONE},
    {"Type", "type", VALUE_STR},
    {"Items", "items", VALUE_NONE},
    {"Description", "description", VALUE_STR},
    {"Parameters", "parameters", VALUE_NONE},
    {"Required", "required", VALUE_LIST},
    {"Properties", "properties", VALUE_NONE},
    {"Defs", "$defs", VALUE_NONE},
    {"AnyOf", "anyOf", VALUE_LIST},
    {"Enum", "enum", VALUE_LIST},
};

static enum status struct_field(struct go_run *g, const struct value *v, struct str name, struct value *out) {
    u32 index;
    if (str_is(name, "ToTypeScriptType")) {
        check(go_func_find(STR("toTypeScriptType"), &index));
        return go_func_call(g, index, v, 1, out);
    }
    for (size_t i = 0; i < ARRAY_LEN(fields); i++) {
        if (!str_is(name, fields[i].go))
            continue;
        *out = value_get(v, str_of(fields[i].json));
        if (out->kind == VALUE_UNDEFINED)
            *out = (struct value){.kind = fields[i].zero};
        return OK;
    }
    return run_fail(&g->r, "there is no field '%.*s' here", STR_FMT(name));
}

enum status go_field(struct go_run *g, const struct value *v, struct str name, struct value *out) {
    if (is_nil(v))
        return run_fail(&g->r, "nil has no field '%.*s'", STR_FMT(name));
    if (v->kind != VALUE_OBJECT)
        return run_fail(&g->r, "a value of the type %s has no field '%.*s'", go_type(v), STR_FMT(name));
    TRY(run_charge(&g->r, name.n / 16 + 1));
    if (v->form == FORM_STRUCT)
        return struct_field(g, v, name, out);
    *out = value_get(v, name);
    return OK;
}

static enum status eval_path(struct go_run *g, const struct value *dot, const struct go_node *n,
                             struct value *out) {
    *out = *dot;
    if (n->of)
        TRY(eval_operand(g, dot, n->of, out));
    for (u32 i = 0; i < n->names.n; i++) {
        struct value from = *out;
        if (i == 0 && is_nil(&from))
            return OK; /* a field of nothing is nothing; of a nil inside something it is an error */
        TRY(go_field(g, &from, n->names.p[i], out));
    }
    return OK;
}

/* --- commands --- */
static enum status eval_operand(struct go_run *g, const struct value *dot, const struct go_node *n,
                                struct value *out) {
    struct go_variable *variable;
    g->r.line = n->line;
    switch ((int)n->kind) {
    case GON_PATH: return eval_path(g, dot, n, out);
    case GON_VAR:
        variable = find_variable(g, n->v.s);
        if (!variable)
            return run_fail(&g->r, "undefined variable '%.*s'", STR_FMT(n->v.s));
        *out = variable->v;
        return OK;
    case GON_FUNC: return go_func_call(g, n->op, NULL, 0, out);
    case GON_PIPE: return eval_pipe(g, dot, n, out);
    case GON_DOT: *out = *dot; return OK;
    case GON_CONST: *out = n->v; return OK;
    case GON_NIL: *out = (struct value){.kind = VALUE_NONE}; return OK;
    default: check(!"a node that is no operand"); return OK;
    }
}

/* and, or: the first operand that decides, the rest is not evaluated. final: the value before the |. */
static enum status eval_logic(struct go_run *g, const struct value *dot, const struct go_node *command,
                              const struct value *final, struct value *out) {
    bool stop_on = command->body.p[0]->op == GO_FUNC_OR;
    if (command->body.n < 2 && !final)
        return run_fail(&g->r, "'and' and 'or' need an argument");
    for (u32 i = 1; i < command->body.n; i++) {
        if (g->cut && command->body.p[i]->cut)
            continue;
        TRY(eval_operand(g, dot, command->body.p[i], out));
        if (go_truth(out) == stop_on)
            return OK;
    }
    if (final)
        *out = *final;
    return OK;
}

static enum status eval_function(struct go_run *g, const struct value *dot, const struct go_node *command,
                                 const struct value *final, struct value *out) {
    struct value *args = NULL;
    u32 n = 0, op = command->body.p[0]->op;
    if (op == GO_FUNC_AND || op == GO_FUNC_OR)
        return eval_logic(g, dot, command, final, out);
    TRY(run_alloc(&g->r, (command->body.n + 1) * sizeof *args, &args));
    for (u32 i = 1; i < command->body.n; i++)
        if (!g->cut || !command->body.p[i]->cut)
            TRY(eval_operand(g, dot, command->body.p[i], &args[n++]));
    if (final)
        args[n++] = *final;
    g->r.line = command->line;
    return go_func_call(g, op, args, n, out);
}

static enum status eval_command(struct go_run *g, const struct value *dot, const struct go_node *command,
                                const struct value *final, struct value *out) {
    const struct go_node *first = command->body.p[0];
    if (first->kind == GON_FUNC)
        return eval_function(g, dot, command, final, out);
    u32 n = 0;
    for (u32 i = 0; i < command->body.n; i++)
        n += !g->cut || !command->body.p[i]->cut;
    if (n > 1 || final)
        return run_fail(&g->r, "a value that is no function cannot have arguments");
    if (first->kind == GON_NIL)
        return run_fail(&g->r, "nil is not a command");
    return eval_operand(g, dot, first, out);
}

static enum status eval_pipe(struct go_run *g, const struct value *dot, const struct go_node *pipe,
                             struct value *out) {
    struct value v = {0};
    bool any = false;
    TRY(run_enter(&g->r));
    for (u32 i = 0; i < pipe->body.n; i++) {
        struct value final = v;
        if (g->cut && pipe->body.p[i]->cut)
            continue;
        TRY(eval_command(g, dot, pipe->body.p[i], any ? &final : NULL, &v));
        any = true;
    }
    for (u32 i = 0; i < pipe->names.n; i++)
        TRY(set_variable(g, pipe->names.p[i], pipe->assign, &v));
    run_leave(&g->r);
    *out = v;
    return OK;
}

/* --- statements --- */
static enum status run_scoped(struct go_run *g, const struct value *dot, const struct go_nodes *body) {
    u32 mark = g->n_variables;
    TRY(run_body(g, dot, body));
    g->n_variables = mark;
    return OK;
}

static enum status run_choice(struct go_run *g, const struct value *dot, const struct go_node *n) {
    struct value v;
    u32 mark = g->n_variables;
    TRY(eval_pipe(g, dot, n->pipe, &v));
    if (go_truth(&v))
        TRY(run_scoped(g, n->kind == GON_WITH ? &v : dot, &n->body));
    else if (n->has_other)
        TRY(run_scoped(g, dot, &n->other));
    g->n_variables = mark;
    return OK;
}

static int compare_names(const void *a, const void *b) {
    const struct value *x = a, *y = b;
    int c = memcmp(x->s.p ? x->s.p : "", y->s.p ? y->s.p : "", MIN(x->s.n, y->s.n));
    return c ? c : (x->s.n > y->s.n) - (x->s.n < y->s.n);
}

enum status go_sorted_keys(struct run *r, const struct value *map, struct value *out) {
    *out = value_list();
    TRY(run_charge(r, value_object_len(map)));
    for (u32 i = 0; i < value_object_len(map); i++) {
        struct value key, v;
        value_entry_at(map, i, &key, &v);
        TRY(run_append(r, out, key));
    }
    if (out->list.n)
        qsort(out->list.items, out->list.n, sizeof *out->list.items, compare_names);
    return OK;
}

/* One turn: variables that := made are the topmost ones. */
static enum status run_turn(struct go_run *g, const struct go_node *n, struct value index,
                            struct value item) {
    const struct go_names *names = &n->pipe->names;
    u32 mark = g->n_variables;
    TRY(run_charge(&g->r, 1));
    if (names->n && n->pipe->assign) {
        TRY(set_variable(g, names->p[0], true, names->n > 1 ? &index : &item));
        if (names->n > 1)
            TRY(set_variable(g, names->p[1], true, &item));
    } else if (names->n) {
        g->variables[mark - 1].v = item;
        if (names->n > 1)
            g->variables[mark - 2].v = index;
    }
    TRY(run_body(g, &item, &n->body));
    g->n_variables = mark;
    return OK;
}

/* How often range turns, and over which keys; false if v cannot be ranged over. */
static bool range_size(const struct value *v, u64 *n) {
    *n = 0;
    if (v->kind == VALUE_INT)
        *n = v->i > 0 ? (u64)v->i : 0;
    else if (v->kind == VALUE_LIST)
        *n = v->list.n;
    else if (v->kind == VALUE_OBJECT && v->form != FORM_STRUCT)
        *n = value_object_len(v);
    else
        return is_nil(v);
    return true;
}

static enum status run_turns(struct go_run *g, const struct go_node *n, const struct value *v, u64 count) {
    struct value keys = {0};
    if (v->kind == VALUE_OBJECT)
        TRY(go_sorted_keys(&g->r, v, &keys));
    for (u64 i = 0; i < count; i++) {
        struct value index = value_int((i64)i), item = index;
        if (v->kind == VALUE_LIST)
            item = v->list.items[i];
        if (v->kind == VALUE_OBJECT) {
            index = keys.list.items[i];
            check(value_get_key(v, &index, &item));
        }
        TRY(run_turn(g, n, index, item));
        bool leave = g->flow == GO_FLOW_BREAK;
        g->flow = GO_FLOW_NEXT;
        if (leave)
            break;
    }
    return OK;
}

static enum status run_range(struct go_run *g, const struct value *dot, const struct go_node *n) {
    struct value v;
    u64 count;
    u32 mark = g->n_variables;
    TRY(eval_pipe(g, dot, n->pipe, &v));
    if (!range_size(&v, &count))
        return run_fail(&g->r, "range cannot go over a value of the type %s", go_type(&v));
    if (v.kind == VALUE_INT && n->pipe->names.n > 1)
        return run_fail(&g->r, "range over a number has one variable");
    if (count)
        TRY(run_turns(g, n, &v, count));
    else if (n->has_other)
        TRY(run_scoped(g, dot, &n->other));
    g->n_variables = mark;
    return OK;
}

static enum status run_template(struct go_run *g, const struct value *dot, const struct go_node *n) {
    struct value v = {.kind = VALUE_NONE};
    const struct go_define *define = NULL;
    if (n->pipe)
        TRY(eval_pipe(g, dot, n->pipe, &v));
    for (u32 i = 0; i < g->t->n_defines; i++)
        if (str_eq(g->t->defines[i].name, n->v.s))
            define = &g->t->defines[i];
    if (!define)
        return run_fail(&g->r, "the template '%.*s' is not defined", STR_FMT(n->v.s));
    u32 first = g->first_variable, mark = g->n_variables;
    enum go_flow flow = g->flow;
    g->first_variable = mark;
    TRY(push_variable(g, STR("$"), v));
    TRY(run_body(g, &v, &define->body));
    g->first_variable = first;
    g->n_variables = mark;
    g->flow = flow;
    return OK;
}

static enum status run_action(struct go_run *g, const struct value *dot, const struct go_node *n) {
    struct value v;
    bool any = false;
    for (u32 i = 0; i < n->pipe->body.n; i++)
        any = any || !g->cut || !n->pipe->body.p[i]->cut;
    if (!any)
        return OK;
    TRY(eval_pipe(g, dot, n->pipe, &v));
    return n->pipe->names.n ? OK : go_put(&g->r, &v);
}

static enum status run_node(struct go_run *g, const struct value *dot, const struct go_node *n) {
    switch ((int)n->kind) {
    case GON_TEXT: return run_put(&g->r, n->v.s);
    case GON_ACTION: return run_action(g, dot, n);
    case GON_IF:
    case GON_WITH: return run_choice(g, dot, n);
    case GON_RANGE: return run_range(g, dot, n);
    case GON_TEMPLATE: return run_template(g, dot, n);
    case GON_BREAK: g->flow = GO_FLOW_BREAK; return OK;
    case GON_CONTINUE: g->flow = GO_FLOW_CONTINUE; return OK;
    default: check(!"a node that is no statement"); return OK;
    }
}

static enum status run_body(struct go_run *g, const struct value *dot, const struct go_nodes *body) {
    TRY(run_enter(&g->r));
    for (u32 i = 0; i < body->n && g->flow == GO_FLOW_NEXT; i++) {
        TRY(run_charge(&g->r, 1));
        g->r.line = body->p[i]->line;
        if (!g->cut || !body->p[i]->cut)
            TRY(run_node(g, dot, body->p[i]));
    }
    run_leave(&g->r);
    return OK;
}

enum status go_render(const struct go_template *t, const struct value *root, bool cut, struct run *r) {
    struct go_run g = {.r = *r, .t = t, .cut = cut};
    TRY(push_variable(&g, STR("$"), *root));
    return run_body(&g, root, &t->body);
}
