/* jinja_expr.c - evaluates expressions. */
#include "chat/jinja.h"

static enum status eval_list(struct jinja_run *j, const struct node *n, struct value *out) {
    *out = value_list();
    out->form = n->kind == NODE_TUPLE ? FORM_TUPLE : FORM_PLAIN;
    for (u32 i = 0; i < n->items.n; i++) {
        struct value v;
        TRY(jinja_eval(j, n->items.p[i], &v));
        TRY(run_append(&j->r, out, v));
    }
    return OK;
}

static enum status eval_dict(struct jinja_run *j, const struct node *n, struct value *out) {
    TRY(run_object(&j->r, out));
    for (u32 i = 0; i < n->items.n; i += 2) {
        struct value key, v;
        TRY(jinja_eval(j, n->items.p[i], &key));
        TRY(jinja_eval(j, n->items.p[i + 1], &v));
        TRY(py_hashable(&j->r, &key));
        TRY(run_set(&j->r, out, key, v));
    }
    return OK;
}

static enum status eval_name(struct jinja_run *j, const struct node *n, struct value *out) {
    *out = jinja_lookup(j, n->name);
    if (out->kind == VALUE_UNDEFINED && !out->s.p)
        out->s = n->v.s;
    return OK;
}

static enum status loop_attr(struct jinja_run *j, struct loop *l, struct str name, struct value *out) {
    i64 i = l->i, n = l->items.list.n;
    struct value none = {.kind = VALUE_UNDEFINED, .s = name};
    if (str_is(name, "index"))
        *out = value_int(i + 1);
    else if (str_is(name, "index0"))
        *out = value_int(i);
    else if (str_is(name, "revindex"))
        *out = value_int(n - i);
    else if (str_is(name, "revindex0"))
        *out = value_int(n - i - 1);
    else if (str_is(name, "first"))
        *out = value_bool(i == 0);
    else if (str_is(name, "last"))
        *out = value_bool(i == n - 1);
    else if (str_is(name, "length"))
        *out = value_int(n);
    else if (str_is(name, "depth") || str_is(name, "depth0"))
        *out = value_int((i64)l->depth0 + (name.n == 5));
    else if (str_is(name, "previtem"))
        *out = i > 0 ? l->items.list.items[i - 1] : none;
    else if (str_is(name, "nextitem"))
        *out = i + 1 < n ? l->items.list.items[i + 1] : none;
    else if (str_is(name, "cycle"))
        return jinja_callable(j, (struct callable){.kind = CALL_LOOP_CYCLE, .loop = l}, out);
    else if (str_is(name, "changed"))
        return jinja_callable(j, (struct callable){.kind = CALL_LOOP_CHANGED, .loop = l}, out);
    else
        *out = none;
    return OK;
}

static enum status callable_attr(struct jinja_run *j, const struct callable *c, struct str name,
                                 struct value *out) {
    if (c->kind == CALL_LOOP)
        return loop_attr(j, c->loop, name, out);
    if (c->kind == CALL_MACRO && str_is(name, "name")) {
        *out = c->node->v;
        return OK;
    }
    if (c->kind == CALL_CYCLER_OBJECT) {
        struct callable *owner = (struct callable *)(uintptr_t)c;
        if (str_is(name, "next"))
            return jinja_callable(j, (struct callable){.kind = CALL_CYCLER_NEXT, .owner = owner}, out);
        if (str_is(name, "reset"))
            return jinja_callable(j, (struct callable){.kind = CALL_CYCLER_RESET, .owner = owner}, out);
        if (str_is(name, "current")) {
            *out = c->self.list.items[c->n_used % c->self.list.n];
            return OK;
        }
    }
    *out = (struct value){.kind = VALUE_UNDEFINED, .s = name};
    return OK;
}

/* v.name: a method of its kind, else a member of a dict. Methods that would change v do not exist. */
enum status jinja_attr(struct jinja_run *j, const struct value *v, struct str name, struct value *out) {
    if (v->kind == VALUE_UNDEFINED)
        return jinja_undefined(j, v);
    if (v->kind == VALUE_CALLABLE)
        return callable_attr(j, v->callable, name, out);
    const struct jinja_method *m = jinja_find_method(v, name);
    if (m)
        return jinja_callable(j, (struct callable){.kind = CALL_METHOD, .self = *v, .method = m}, out);
    *out = value_get(v, name);
    if (out->kind == VALUE_UNDEFINED && !out->s.p)
        out->s = name;
    return OK;
}

/* v[key]: an item, else the attribute of that name. */
enum status jinja_getitem(struct jinja_run *j, const struct value *v, const struct value *key,
                          struct value *out) {
    bool found;
    if (v->kind == VALUE_UNDEFINED)
        return jinja_undefined(j, v);
    TRY(py_item(&j->r, v, key, out, &found));
    if (found)
        return OK;
    if (key->kind == VALUE_STR)
        return jinja_attr(j, v, key->s, out);
    *out = (struct value){.kind = VALUE_UNDEFINED};
    return py_text(&j->r, key, &out->s);
}

static enum status eval_item(struct jinja_run *j, const struct node *n, struct value *out) {
    struct value v, key;
    TRY(jinja_eval(j, n->a, &v));
    TRY(jinja_eval(j, n->b, &key));
    return jinja_getitem(j, &v, &key, out);
}

static enum status eval_slice(struct jinja_run *j, const struct node *n, struct value *out) {
    struct value v, part[3] = {{.kind = VALUE_NONE}, {.kind = VALUE_NONE}, {.kind = VALUE_NONE}};
    TRY(jinja_eval(j, n->a, &v));
    for (u32 i = 0; i < 3; i++)
        if (n->items.p[i])
            TRY(jinja_eval(j, n->items.p[i], &part[i]));
    if (v.kind == VALUE_UNDEFINED)
        return jinja_undefined(j, &v);
    return py_slice(&j->r, &v, part, out);
}

static enum status add_spread(struct jinja_run *j, const struct value *v, struct value *pos) {
    struct value items;
    TRY(py_iterate(&j->r, v, &items));
    for (u32 i = 0; i < items.list.n; i++)
        TRY(run_append(&j->r, pos, items.list.items[i]));
    return OK;
}

/* Arguments with a name are collected in an object first: **a may add many. */
enum status jinja_eval_args(struct jinja_run *j, const struct nodes *params, struct call_args *out) {
    struct value pos = value_list(), kw = {0};
    *out = (struct call_args){0};
    for (u32 i = 0; i < params->n; i++) {
        const struct node *arg = params->p[i];
        struct value v;
        TRY(jinja_eval(j, arg->a, &v));
        if (kw.kind == VALUE_UNDEFINED && (arg->op == 2 || arg->v.kind == VALUE_STR))
            TRY(run_object(&j->r, &kw));
        if (arg->op == 1)
            TRY(add_spread(j, &v, &pos));
        else if (arg->op == 2 && v.kind != VALUE_OBJECT)
            return run_fail(&j->r, "** needs a dict");
        else if (arg->v.kind == VALUE_STR)
            TRY(run_set(&j->r, &kw, arg->v, v));
        else if (arg->op == 0)
            TRY(run_append(&j->r, &pos, v));
        for (u32 k = 0; arg->op == 2 && k < value_object_len(&v); k++) {
            struct value key, item;
            value_entry_at(&v, k, &key, &item);
            if (key.kind != VALUE_STR)
                return run_fail(&j->r, "names of arguments must be strings");
            TRY(run_set(&j->r, &kw, key, item));
        }
    }
    out->pos = pos.list.items;
    out->n = pos.list.n;
    out->n_kw = value_object_len(&kw);
    if (out->n_kw)
        TRY(run_alloc(&j->r, out->n_kw * sizeof *out->kw, &out->kw));
    for (u32 i = 0; i < out->n_kw; i++)
        value_member_at(&kw, i, &out->kw[i].name, &out->kw[i].v);
    return OK;
}

static enum status eval_invoke(struct jinja_run *j, const struct node *n, struct value *out) {
    struct value f;
    struct call_args args;
    TRY(jinja_eval(j, n->a, &f));
    if (f.kind == VALUE_UNDEFINED)
        return jinja_undefined(j, &f);
    TRY(jinja_eval_args(j, &n->params, &args));
    return jinja_call(j, &f, &args, out);
}

static enum status eval_filter(struct jinja_run *j, const struct node *n, struct value *out) {
    struct value v;
    struct call_args args;
    TRY(jinja_eval(j, n->a, &v));
    TRY(jinja_eval_args(j, &n->params, &args));
    return jinja_filter(j, n->v.s, &v, &args, out);
}

static enum status eval_test(struct jinja_run *j, const struct node *n, struct value *out) {
    struct value v;
    struct call_args args;
    bool is;
    TRY(jinja_eval(j, n->a, &v));
    TRY(jinja_eval_args(j, &n->params, &args));
    TRY(jinja_test(j, n->v.s, &v, &args, &is));
    *out = value_bool(is);
    return OK;
}

static enum status compare(struct jinja_run *j, u32 op, const struct value *a, const struct value *b,
                           bool *out) {
    if (op <= CMP_NE) {
        TRY(py_equal(&j->r, a, b, out));
        *out = *out == (op == CMP_EQ);
        return OK;
    }
    if (op >= CMP_IN) {
        TRY(py_contains(&j->r, b, a, out));
        *out = *out == (op == CMP_IN);
        return OK;
    }
    if (a->kind == VALUE_UNDEFINED || b->kind == VALUE_UNDEFINED)
        return jinja_undefined(j, a->kind == VALUE_UNDEFINED ? a : b);
    int c;
    TRY(py_compare(&j->r, a, b, &c));
    *out = c != 2 && (op == CMP_LT ? c < 0 : op == CMP_LE ? c <= 0 : op == CMP_GT ? c > 0 : c >= 0);
    return OK;
}

static enum status eval_compare(struct jinja_run *j, const struct node *n, struct value *out) {
    struct value a, b;
    bool is = true;
    TRY(jinja_eval(j, n->a, &a));
    for (u32 i = 0; is && i < n->items.n; i++) {
        TRY(jinja_eval(j, n->items.p[i]->a, &b));
        TRY(compare(j, n->items.p[i]->op, &a, &b, &is));
        a = b;
    }
    *out = value_bool(is);
    return OK;
}

static enum status eval_concat(struct jinja_run *j, const struct node *n, struct value *out) {
    struct value *parts;
    TRY(run_alloc(&j->r, n->items.n * sizeof *parts, &parts));
    for (u32 i = 0; i < n->items.n; i++)
        TRY(jinja_eval(j, n->items.p[i], &parts[i]));
    size_t mark = run_mark(&j->r);
    for (u32 i = 0; i < n->items.n; i++)
        TRY(py_put_str(&j->r, &parts[i]));
    return run_take_value(&j->r, mark, out);
}

static enum status eval_logic(struct jinja_run *j, const struct node *n, struct value *out) {
    TRY(jinja_eval(j, n->a, out));
    return py_truth(out) == (n->kind == NODE_AND) ? jinja_eval(j, n->b, out) : OK;
}

static enum status eval_condition(struct jinja_run *j, const struct node *n, struct value *out) {
    struct value v;
    TRY(jinja_eval(j, n->b, &v));
    if (py_truth(&v))
        return jinja_eval(j, n->a, out);
    if (n->c)
        return jinja_eval(j, n->c, out);
    *out = (struct value){.kind = VALUE_UNDEFINED, .s = STR("if without else")};
    return OK;
}

static enum status eval_unary(struct jinja_run *j, const struct node *n, struct value *out) {
    struct value v;
    TRY(jinja_eval(j, n->a, &v));
    if (n->kind == NODE_NOT) {
        *out = value_bool(!py_truth(&v));
        return OK;
    }
    if (v.kind == VALUE_UNDEFINED)
        return jinja_undefined(j, &v);
    TRY(py_negate(&j->r, &v, out));
    v = *out;
    return n->kind == NODE_PLUS ? py_negate(&j->r, &v, out) : OK;
}

static enum status eval_binary(struct jinja_run *j, const struct node *n, struct value *out) {
    struct value a, b;
    TRY(jinja_eval(j, n->a, &a));
    TRY(jinja_eval(j, n->b, &b));
    return py_binary(&j->r, n->op, &a, &b, out);
}

static enum status eval_attr(struct jinja_run *j, const struct node *n, struct value *out) {
    struct value v;
    TRY(jinja_eval(j, n->a, &v));
    return jinja_attr(j, &v, n->v.s, out);
}

static enum status eval_node(struct jinja_run *j, const struct node *n, struct value *out) {
    switch ((int)n->kind) {
    case NODE_CONST: *out = n->v; return OK;
    case NODE_NAME: return eval_name(j, n, out);
    case NODE_TUPLE:
    case NODE_LIST: return eval_list(j, n, out);
    case NODE_DICT: return eval_dict(j, n, out);
    case NODE_ATTR: return eval_attr(j, n, out);
    case NODE_ITEM: return eval_item(j, n, out);
    case NODE_SLICE: return eval_slice(j, n, out);
    case NODE_INVOKE: return eval_invoke(j, n, out);
    case NODE_FILTER: return eval_filter(j, n, out);
    case NODE_TEST: return eval_test(j, n, out);
    case NODE_CAPTURED: *out = j->captured; return OK;
    case NODE_BINARY: return eval_binary(j, n, out);
    case NODE_NEGATE:
    case NODE_PLUS:
    case NODE_NOT: return eval_unary(j, n, out);
    case NODE_CONCAT: return eval_concat(j, n, out);
    case NODE_COMPARE: return eval_compare(j, n, out);
    case NODE_AND:
    case NODE_OR: return eval_logic(j, n, out);
    case NODE_COND: return eval_condition(j, n, out);
    default: check(!"a node that is no expression"); return OK;
    }
}

enum status jinja_eval(struct jinja_run *j, const struct node *n, struct value *out) {
    TRY(run_enter(&j->r));
    j->r.line = n->line;
    TRY(eval_node(j, n, out));
    run_leave(&j->r);
    return OK;
}
