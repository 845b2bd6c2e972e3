/* jinja_run.c - runs statements. Output goes to the run's text; variables live in a chain of scopes: a loop
 * body, a macro, a block has its own, an if has not (as in Jinja: what a loop sets is gone after the turn).
 */
#include "base/limit.h"
#include "chat/jinja.h"

enum status jinja_undefined(struct jinja_run *j, const struct value *v) {
    return run_fail(&j->r, "'%.*s' is undefined", STR_FMT(v->s));
}

/* --- variables --- */
enum status jinja_push(struct jinja_run *j, struct scope **saved) {
    struct scope *s;
    TRY(run_alloc(&j->r, sizeof *s, &s));
    *s = (struct scope){j->scope, NULL};
    *saved = j->scope;
    j->scope = s;
    return OK;
}

struct value jinja_lookup(const struct jinja_run *j, u32 name) {
    for (const struct scope *s = j->scope; s; s = s->parent)
        for (const struct binding *b = s->first; b; b = b->next)
            if (b->name == name)
                return b->v;
    return j->globals[name];
}

enum status jinja_bind(struct jinja_run *j, u32 name, struct value v) {
    struct binding *b;
    for (b = j->scope->first; b; b = b->next)
        if (b->name == name) {
            b->v = v;
            return OK;
        }
    TRY(run_alloc(&j->r, sizeof *b, &b));
    *b = (struct binding){name, v, j->scope->first};
    j->scope->first = b;
    return OK;
}

static enum status assign_each(struct jinja_run *j, const struct node *target, const struct value *v) {
    struct value items;
    TRY(py_iterate(&j->r, v, &items));
    if (items.list.n != target->items.n)
        return run_fail(&j->r, "%u values for %u names", items.list.n, target->items.n);
    for (u32 i = 0; i < items.list.n; i++)
        TRY(jinja_assign(j, target->items.p[i], items.list.items[i]));
    return OK;
}

enum status jinja_assign(struct jinja_run *j, const struct node *target, struct value v) {
    if (target->kind == NODE_NAME)
        return jinja_bind(j, target->name, v);
    if (target->kind == NODE_TUPLE)
        return assign_each(j, target, &v);
    struct value ns = jinja_lookup(j, target->name);
    if (ns.kind != VALUE_OBJECT || ns.form != FORM_NAMESPACE)
        return run_fail(&j->r, "only attributes of a namespace can be set");
    return run_set(&j->r, &ns, target->v, v);
}

/* --- statements --- */
static enum status exec_scoped(struct jinja_run *j, const struct nodes *body) {
    struct scope *saved;
    TRY(jinja_push(j, &saved));
    enum status s = jinja_exec(j, body);
    j->scope = saved;
    return s;
}

/* Runs body with its own scope and gives its text. */
static enum status exec_captured(struct jinja_run *j, const struct nodes *body, struct value *out) {
    size_t mark = run_mark(&j->r);
    TRY(exec_scoped(j, body));
    return run_take_value(&j->r, mark, out);
}

/* Turns the chain of elif into a loop, so that its length does not count as depth. */
static enum status exec_if(struct jinja_run *j, const struct node *n) {
    for (;;) {
        struct value v;
        TRY(jinja_eval(j, n->a, &v));
        if (py_truth(&v))
            return jinja_exec(j, &n->items);
        if (!n->other)
            return OK;
        if (n->other->items.n != 1 || n->other->items.p[0]->kind != NODE_IF)
            return jinja_exec(j, &n->other->items);
        n = n->other->items.p[0];
    }
}

/* The items for which the loop's own condition holds. */
static enum status filter_items(struct jinja_run *j, const struct node *n, const struct value *items,
                                struct value *out) {
    *out = value_list();
    for (u32 i = 0; i < items->list.n; i++) {
        struct scope *saved;
        struct value v;
        TRY(jinja_push(j, &saved));
        TRY(jinja_assign(j, n->a, items->list.items[i]));
        TRY(jinja_eval(j, n->c, &v));
        j->scope = saved;
        if (py_truth(&v))
            TRY(run_append(&j->r, out, items->list.items[i]));
    }
    return OK;
}

enum status jinja_for(struct jinja_run *j, const struct node *n, struct value over, u32 depth0) {
    struct loop *loop;
    struct value items = over, handle;
    if (n->c)
        TRY(filter_items(j, n, &over, &items));
    if (!items.list.n && n->other)
        return exec_scoped(j, &n->other->items);
    TRY(run_alloc(&j->r, sizeof *loop, &loop));
    *loop = (struct loop){.items = items, .depth0 = depth0, .node = n, .outer = j->scope};
    TRY(jinja_callable(j, (struct callable){.kind = CALL_LOOP, .loop = loop}, &handle));
    for (; loop->i < items.list.n; loop->i++) {
        struct scope *saved;
        TRY(jinja_push(j, &saved));
        TRY(jinja_bind(j, j->t->name_loop, handle));
        TRY(jinja_assign(j, n->a, items.list.items[loop->i]));
        TRY(jinja_exec(j, &n->items));
        j->scope = saved;
        enum flow flow = j->flow;
        j->flow = FLOW_NEXT;
        if (flow == FLOW_BREAK)
            break;
    }
    return OK;
}

static enum status exec_for(struct jinja_run *j, const struct node *n) {
    struct value over, items;
    TRY(jinja_eval(j, n->b, &over));
    TRY(py_iterate(&j->r, &over, &items));
    return jinja_for(j, n, items, 0);
}

static enum status exec_with(struct jinja_run *j, const struct node *n) {
    struct scope *saved, *inner;
    TRY(jinja_push(j, &saved));
    inner = j->scope;
    for (u32 i = 0; i < n->params.n; i += 2) {
        struct value v;
        j->scope = saved;
        TRY(jinja_eval(j, n->params.p[i + 1], &v));
        j->scope = inner;
        TRY(jinja_bind(j, n->params.p[i]->name, v));
    }
    enum status s = jinja_exec(j, &n->items);
    j->scope = saved;
    return s;
}

static enum status exec_set_block(struct jinja_run *j, const struct node *n) {
    struct value v, outer = j->captured;
    TRY(exec_captured(j, &n->items, &v));
    if (n->b) {
        j->captured = v;
        TRY(jinja_eval(j, n->b, &v));
        j->captured = outer;
    }
    return jinja_assign(j, n->a, v);
}

static enum status exec_filter_block(struct jinja_run *j, const struct node *n) {
    struct value v, outer = j->captured;
    TRY(exec_captured(j, &n->items, &v));
    j->captured = v;
    TRY(jinja_eval(j, n->a, &v));
    j->captured = outer;
    return py_put_str(&j->r, &v);
}

/* {% call %}: the macro gets the block as its argument `caller`. */
static enum status exec_call(struct jinja_run *j, const struct node *n) {
    struct value f, v;
    struct call_args args;
    TRY(jinja_eval(j, n->a->a, &f));
    TRY(jinja_eval_args(j, &n->a->params, &args));
    struct call_kw *kw;
    TRY(run_alloc(&j->r, (args.n_kw + 1) * sizeof *kw, &kw));
    if (args.n_kw)
        memcpy(kw, args.kw, args.n_kw * sizeof *kw);
    kw[args.n_kw].name = STR("caller");
    TRY(jinja_callable(j, (struct callable){.kind = CALL_MACRO, .node = n->b, .scope = j->scope},
                       &kw[args.n_kw].v));
    args.kw = kw;
    args.n_kw++;
    TRY(jinja_call(j, &f, &args, &v));
    return py_put_str(&j->r, &v);
}

static enum status exec_macro(struct jinja_run *j, const struct node *n) {
    struct value macro;
    TRY(jinja_callable(j, (struct callable){.kind = CALL_MACRO, .node = n, .scope = j->scope}, &macro));
    return jinja_bind(j, n->name, macro);
}

static enum status exec_set(struct jinja_run *j, const struct node *n) {
    struct value v;
    TRY(jinja_eval(j, n->b, &v));
    return jinja_assign(j, n->a, v);
}

static enum status exec_print(struct jinja_run *j, const struct node *n) {
    struct value v;
    TRY(jinja_eval(j, n->a, &v));
    return py_put_str(&j->r, &v);
}

static enum status exec_node(struct jinja_run *j, const struct node *n) {
    j->r.line = n->line;
    switch ((int)n->kind) {
    case NODE_TEXT: return run_put(&j->r, n->v.s);
    case NODE_PRINT: return exec_print(j, n);
    case NODE_IF: return exec_if(j, n);
    case NODE_FOR: return exec_for(j, n);
    case NODE_BREAK: j->flow = FLOW_BREAK; return OK;
    case NODE_CONTINUE: j->flow = FLOW_CONTINUE; return OK;
    case NODE_SET: return exec_set(j, n);
    case NODE_SET_BLOCK: return exec_set_block(j, n);
    case NODE_WITH: return exec_with(j, n);
    case NODE_MACRO: return exec_macro(j, n);
    case NODE_CALL: return exec_call(j, n);
    case NODE_FILTER_BLOCK: return exec_filter_block(j, n);
    case NODE_BLOCK: return exec_scoped(j, &n->items);
    default: check(!"a node that is no statement"); return OK;
    }
}

enum status jinja_exec(struct jinja_run *j, const struct nodes *body) {
    TRY(run_enter(&j->r));
    for (u32 i = 0; i < body->n && j->flow == FLOW_NEXT; i++) {
        TRY(run_charge(&j->r, 1));
        TRY(exec_node(j, body->p[i]));
    }
    run_leave(&j->r);
    return OK;
}

static enum status fill_globals(struct jinja_run *j, const struct value *root) {
    TRY(run_alloc(&j->r, j->t->n_names * sizeof *j->globals, &j->globals));
    for (u32 i = 0; i < j->t->n_names; i++) {
        struct str name;
        struct value index;
        value_member_at(&j->t->names, i, &name, &index);
        j->globals[i] = value_get(root, name);
        if (j->globals[i].kind == VALUE_UNDEFINED)
            TRY(jinja_global(j, name, &j->globals[i]));
    }
    return OK;
}

enum status jinja_render(const struct jinja *t, const struct value *root, struct run *r) {
    struct jinja_run j = {.r = *r, .t = t};
    struct scope *none;
    TRY(fill_globals(&j, root));
    TRY(jinja_push(&j, &none));
    return jinja_exec(&j, &t->body->items);
}
