/* jinja_call.c - what can be called: macros, methods, loop's functions, Jinja's and transformers' globals. */
#include <time.h>

#include "base/limit.h"
#include "chat/jinja.h"

enum status jinja_callable(struct jinja_run *j, struct callable c, struct value *out) {
    struct callable *p;
    TRY(run_alloc(&j->r, sizeof *p, &p));
    *p = c;
    *out = (struct value){.kind = VALUE_CALLABLE, .callable = p};
    return OK;
}

/* --- macros --- */
static struct call_kw *find_kw(const struct call_args *args, struct str name) {
    for (u32 i = 0; i < args->n_kw; i++)
        if (str_eq(args->kw[i].name, name))
            return &args->kw[i];
    return NULL;
}

static bool is_param(const struct node *macro, struct str name, u32 from) {
    for (u32 i = from; i < macro->params.n; i++)
        if (str_eq(macro->params.p[i]->v.s, name))
            return true;
    return false;
}

static enum status bind_params(struct jinja_run *j, const struct node *n, const struct call_args *args) {
    for (u32 i = 0; i < n->params.n; i++) {
        const struct node *param = n->params.p[i];
        struct call_kw *kw = i < args->n ? NULL : find_kw(args, param->v.s);
        struct value v = {.kind = VALUE_UNDEFINED, .s = param->v.s};
        if (i < args->n)
            v = args->pos[i];
        else if (kw)
            v = kw->v;
        else if (param->a)
            TRY(jinja_eval(j, param->a, &v));
        TRY(jinja_bind(j, param->name, v));
    }
    return OK;
}

/* The special variables caller, varargs and kwargs: only a macro that mentions them takes such arguments. */
static enum status bind_special(struct jinja_run *j, const struct node *n, const struct call_args *args) {
    struct value rest = value_list(), kwargs;
    rest.form = FORM_TUPLE;
    TRY(run_object(&j->r, &kwargs));
    if (args->n > n->params.n && !(n->op & MACRO_USES_VARARGS))
        return run_fail(&j->r, "the macro '%.*s' takes at most %u arguments", STR_FMT(n->v.s), n->params.n);
    for (u32 i = n->params.n; i < args->n; i++)
        TRY(run_append(&j->r, &rest, args->pos[i]));
    for (u32 i = 0; i < args->n_kw; i++) {
        struct str name = args->kw[i].name;
        if (is_param(n, name, args->n))
            continue;
        if (str_is(name, "caller") && (n->op & MACRO_USES_CALLER))
            TRY(jinja_bind(j, j->t->name_caller, args->kw[i].v));
        else if (n->op & MACRO_USES_KWARGS)
            TRY(run_set(&j->r, &kwargs, value_str(name), args->kw[i].v));
        else
            return run_fail(&j->r, "the macro '%.*s' takes no argument '%.*s'", STR_FMT(n->v.s),
                            STR_FMT(name));
    }
    if (n->op & MACRO_USES_VARARGS)
        TRY(jinja_bind(j, j->t->name_varargs, rest));
    return n->op & MACRO_USES_KWARGS ? jinja_bind(j, j->t->name_kwargs, kwargs) : OK;
}

enum status jinja_call_macro(struct jinja_run *j, const struct callable *m, const struct call_args *args,
                             struct value *out) {
    struct scope *caller = j->scope, *defined;
    size_t mark = run_mark(&j->r);
    u32 line = j->r.line;
    j->scope = m->scope;
    TRY(jinja_push(j, &defined));
    TRY(bind_special(j, m->node, args));
    TRY(bind_params(j, m->node, args));
    TRY(jinja_exec(j, &m->node->items));
    j->flow = FLOW_NEXT;
    j->scope = caller;
    j->r.line = line;
    return run_take_value(&j->r, mark, out);
}

/* --- loop's functions --- */
static enum status call_recursive_loop(struct jinja_run *j, struct loop *l, const struct call_args *args,
                                       struct value *out) {
    if (!l->node->flag || args->n != 1)
        return run_fail(&j->r, "loop() works in a recursive loop and takes what to go over");
    struct scope *inner = j->scope;
    struct value items;
    size_t mark = run_mark(&j->r);
    TRY(py_iterate(&j->r, &args->pos[0], &items));
    j->scope = l->outer;
    TRY(jinja_for(j, l->node, items, l->depth0 + 1));
    j->scope = inner;
    return run_take_value(&j->r, mark, out);
}

static enum status call_changed(struct jinja_run *j, struct loop *l, const struct call_args *args,
                                struct value *out) {
    struct value now = value_list();
    bool same = l->changed.kind == VALUE_LIST;
    for (u32 i = 0; i < args->n; i++)
        TRY(run_append(&j->r, &now, args->pos[i]));
    if (same)
        TRY(py_equal(&j->r, &now, &l->changed, &same));
    l->changed = now;
    *out = value_bool(!same);
    return OK;
}

/* --- globals --- */
static enum status call_range(struct jinja_run *j, const struct call_args *args, struct value *out) {
    i64 v[3] = {0, 0, 1};
    if (args->n < 1 || args->n > 3 || args->n_kw)
        return run_fail(&j->r, "range() takes one to three numbers");
    for (u32 i = 0; i < args->n; i++)
        if (!py_to_index(&args->pos[i], &v[args->n == 1 ? 1 : i]))
            return run_fail(&j->r, "range() takes integers, not '%s'", py_type_name(&args->pos[i]));
    if (v[2] == 0)
        return run_fail(&j->r, "range() needs a step that is not zero");
    f64 count = ((f64)v[1] - (f64)v[0]) / (f64)v[2];
    if (count > LIMIT_TEMPLATE_RANGE)
        return run_fail(&j->r, "range() gives at most %u numbers", LIMIT_TEMPLATE_RANGE);
    *out = value_list();
    for (i64 i = v[0]; v[2] > 0 ? i < v[1] : i > v[1];) {
        TRY(run_append(&j->r, out, value_int(i)));
        if (__builtin_add_overflow(i, v[2], &i))
            break;
    }
    TRY(run_charge(&j->r, out->list.n));
    for (int i = 0; i < 3; i++)
        TRY(run_append(&j->r, out, value_int(v[i])));
    out->list.n -= 3;
    out->form = FORM_RANGE;
    return OK;
}

static enum status copy_pairs(struct jinja_run *j, const struct value *from, struct value *out) {
    struct value items, pair, key, v;
    if (from->kind == VALUE_OBJECT) {
        TRY(run_charge(&j->r, value_object_len(from)));
        for (u32 i = 0; i < value_object_len(from); i++) {
            value_entry_at(from, i, &key, &v);
            TRY(run_set(&j->r, out, key, v));
        }
        return OK;
    }
    TRY(py_iterate(&j->r, from, &items));
    for (u32 i = 0; i < items.list.n; i++) {
        TRY(py_iterate(&j->r, &items.list.items[i], &pair));
        if (pair.list.n != 2)
            return run_fail(&j->r, "a dict is made from pairs");
        TRY(py_hashable(&j->r, &pair.list.items[0]));
        TRY(run_set(&j->r, out, pair.list.items[0], pair.list.items[1]));
    }
    return OK;
}

static enum status call_dict(struct jinja_run *j, const struct call_args *args, struct value *out) {
    TRY(run_object(&j->r, out));
    if (args->n > 1)
        return run_fail(&j->r, "at most one argument without a name");
    if (args->n)
        TRY(copy_pairs(j, &args->pos[0], out));
    for (u32 i = 0; i < args->n_kw; i++)
        TRY(run_set(&j->r, out, value_str(args->kw[i].name), args->kw[i].v));
    return OK;
}

static enum status call_raise(struct jinja_run *j, const struct call_args *args) {
    struct str text = STR("the template refuses these messages");
    if (args->n)
        TRY(py_text(&j->r, &args->pos[0], &text));
    return err_set(j->r.err, ERR_INVALID, "%.*s", STR_FMT(text));
}

/* The time zone's part is empty: Python's datetime.now() has none. */
enum status jinja_strftime(struct jinja_run *j, struct str format, struct value *out) {
    time_t t = (time_t)(j->r.now_unix + j->r.utc_offset_s);
    struct tm tm;
    size_t mark = run_mark(&j->r);
    if (!gmtime_r(&t, &tm))
        return run_fail(&j->r, "the time is out of range");
    for (size_t i = 0; i < format.n; i++) {
        char one[4] = {'%', 0, 0, 0}, text[128];
        if (format.p[i] != '%' || i + 1 == format.n) {
            TRY(run_put_char(&j->r, format.p[i]));
            continue;
        }
        one[1] = format.p[++i];
        if ((one[1] == '-' || one[1] == '_') && i + 1 < format.n)
            one[2] = format.p[++i];
        if (one[1] == 'f')
            TRY(run_put(&j->r, STR("000000")));
        else if (one[1] != 'z' && one[1] != 'Z' && one[1] != 's')
            TRY(run_put(&j->r, (struct str){text, strftime(text, sizeof text, one, &tm)}));
    }
    return run_take_value(&j->r, mark, out);
}

static enum status call_strftime(struct jinja_run *j, const struct call_args *args, struct value *out) {
    if (args->n != 1 || args->pos[0].kind != VALUE_STR)
        return run_fail(&j->r, "strftime_now() takes a format");
    return jinja_strftime(j, args->pos[0].s, out);
}

static enum status make_joiner(struct jinja_run *j, const struct call_args *args, struct value *out) {
    struct callable c = {.kind = CALL_JOINED, .self = args->n ? args->pos[0] : value_str(STR(", "))};
    return jinja_callable(j, c, out);
}

static enum status make_cycler(struct jinja_run *j, const struct call_args *args, struct value *out) {
    struct callable c = {.kind = CALL_CYCLER_OBJECT, .self = value_list()};
    if (!args->n)
        return run_fail(&j->r, "cycler() needs at least one item");
    for (u32 i = 0; i < args->n; i++)
        TRY(run_append(&j->r, &c.self, args->pos[i]));
    return jinja_callable(j, c, out);
}

enum status jinja_call(struct jinja_run *j, const struct value *f, const struct call_args *args,
                       struct value *out) {
    if (f->kind == VALUE_UNDEFINED)
        return jinja_undefined(j, f);
    if (f->kind != VALUE_CALLABLE)
        return run_fail(&j->r, "a value of the kind '%s' cannot be called", py_type_name(f));
    struct callable *c = (struct callable *)(uintptr_t)f->callable;
    *out = (struct value){.kind = VALUE_NONE};
    switch (c->kind) {
    case CALL_MACRO: return jinja_call_macro(j, c, args, out);
    case CALL_METHOD: return jinja_invoke(j, c->method, &c->self, args, out);
    case CALL_LOOP: return call_recursive_loop(j, c->loop, args, out);
    case CALL_LOOP_CYCLE:
        if (!args->n)
            return run_fail(&j->r, "cycle() needs at least one item");
        *out = args->pos[c->loop->i % args->n];
        return OK;
    case CALL_LOOP_CHANGED: return call_changed(j, c->loop, args, out);
    case CALL_RANGE: return call_range(j, args, out);
    case CALL_NAMESPACE:
        TRY(call_dict(j, args, out));
        out->form = FORM_NAMESPACE;
        return OK;
    case CALL_DICT: return call_dict(j, args, out);
    case CALL_RAISE: return call_raise(j, args);
    case CALL_STRFTIME: return call_strftime(j, args, out);
    case CALL_JOINER: return make_joiner(j, args, out);
    case CALL_JOINED: *out = c->n_used++ ? c->self : value_str(STR("")); return OK;
    case CALL_CYCLER: return make_cycler(j, args, out);
    case CALL_CYCLER_OBJECT: return run_fail(&j->r, "a cycler cannot be called");
    case CALL_CYCLER_NEXT:
        *out = c->owner->self.list.items[c->owner->n_used++ % c->owner->self.list.n];
        return OK;
    case CALL_CYCLER_RESET: c->owner->n_used = 0; return OK;
    }
    return OK;
}

enum status jinja_global(struct jinja_run *j, struct str name, struct value *out) {
    static const struct {
        const char *name;
        enum callable_kind kind;
    } globals[] = {
        {"range", CALL_RANGE},           {"namespace", CALL_NAMESPACE}, {"dict", CALL_DICT},
        {"raise_exception", CALL_RAISE}, {"joiner", CALL_JOINER},       {"strftime_now", CALL_STRFTIME},
        {"cycler", CALL_CYCLER},
    };
    for (size_t i = 0; i < ARRAY_LEN(globals); i++)
        if (str_is(name, globals[i].name))
            return jinja_callable(j, (struct callable){.kind = globals[i].kind}, out);
    return OK;
}
