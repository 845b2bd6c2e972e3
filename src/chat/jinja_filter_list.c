/* jinja_filter_list.c - filters on lists and dicts. Those that are generators in Jinja give FORM_GENERATOR.
 */
#include "chat/jinja.h"
#include "chat/text.h"

static enum status filter_length(struct jinja_run *j, const struct value *v, const struct value *a UNUSED,
                                 struct value *out) {
    u64 n;
    TRY(py_length(&j->r, v, &n));
    *out = value_int((i64)n);
    return OK;
}

static enum status filter_list(struct jinja_run *j, const struct value *v, const struct value *a UNUSED,
                               struct value *out) {
    TRY(py_iterate(&j->r, v, out));
    out->form = FORM_PLAIN;
    return OK;
}

static enum status filter_first(struct jinja_run *j, const struct value *v, const struct value *a UNUSED,
                                struct value *out) {
    struct value items;
    TRY(py_iterate(&j->r, v, &items));
    *out =
        items.list.n ? items.list.items[0] : (struct value){.kind = VALUE_UNDEFINED, .s = STR("first item")};
    return OK;
}

static enum status filter_last(struct jinja_run *j, const struct value *v, const struct value *a UNUSED,
                               struct value *out) {
    struct value items;
    if (v->kind == VALUE_LIST && v->form == FORM_GENERATOR)
        return run_fail(&j->r, "a value of the kind 'generator' has no last item; make it a list first");
    TRY(py_iterate(&j->r, v, &items));
    *out = items.list.n ? items.list.items[items.list.n - 1]
                        : (struct value){.kind = VALUE_UNDEFINED, .s = STR("last item")};
    return OK;
}

static enum status filter_reverse(struct jinja_run *j, const struct value *v, const struct value *a UNUSED,
                                  struct value *out) {
    struct value items;
    TRY(py_iterate(&j->r, v, &items));
    size_t mark = run_mark(&j->r);
    *out = value_list();
    TRY(run_charge(&j->r, items.list.n));
    for (u32 i = items.list.n; i-- > 0;)
        TRY(v->kind == VALUE_STR ? run_put(&j->r, items.list.items[i].s)
                                 : run_append(&j->r, out, items.list.items[i]));
    out->form = v->form == FORM_GENERATOR ? FORM_PLAIN
                                          : FORM_GENERATOR; /* Python cannot reverse a generator in place */
    return v->kind == VALUE_STR ? run_take_value(&j->r, mark, out) : OK;
}

enum status jinja_join(struct jinja_run *j, struct str between, const struct value *items,
                       struct value *out) {
    size_t mark = run_mark(&j->r);
    TRY(run_charge(&j->r, items->list.n));
    for (u32 i = 0; i < items->list.n; i++) {
        if (i)
            TRY(run_put(&j->r, between));
        TRY(py_put_str(&j->r, &items->list.items[i]));
    }
    return run_take_value(&j->r, mark, out);
}

/* v.a.b.0 for the path "a.b.0". */
static enum status get_path(struct jinja_run *j, const struct value *v, const struct value *path,
                            struct value *out) {
    *out = *v;
    if (path->kind != VALUE_STR)
        return jinja_getitem(j, v, path, out);
    for (size_t at = 0; at <= path->s.n;) {
        size_t dot = str_find(path->s, STR("."), at);
        struct str part = str_slice(path->s, at, MIN(dot, path->s.n));
        struct value from = *out, key = value_str(part);
        i64 index;
        if (part.n && part.p[0] != '-' && part.p[0] != '+' && str_to_i64(part, &index))
            key = value_int(index);
        TRY(jinja_getitem(j, &from, &key, out));
        at += part.n + 1;
    }
    return OK;
}

static bool given(const struct value *a) { return a->kind != VALUE_UNDEFINED && a->kind != VALUE_NONE; }

static enum status fold_case(struct jinja_run *j, bool case_sensitive, struct value *v) {
    if (case_sensitive || v->kind != VALUE_STR)
        return OK;
    size_t mark = run_mark(&j->r);
    TRY(text_put_case(&j->r, v->s, TEXT_LOWER));
    return run_take_value(&j->r, mark, v);
}

/* What an item is compared by: itself or an attribute, without case. */
static enum status compare_key(struct jinja_run *j, const struct value *item, const struct value *attribute,
                               bool case_sensitive, struct value *out) {
    *out = *item;
    if (given(attribute))
        TRY(get_path(j, item, attribute, out));
    return fold_case(j, case_sensitive, out);
}

/* What an item is sorted by: the same, or a list of several attributes, divided by commas. */
static enum status sort_key(struct jinja_run *j, const struct value *item, const struct value *attribute,
                            bool case_sensitive, struct value *out) {
    if (attribute->kind != VALUE_STR)
        return compare_key(j, item, attribute, case_sensitive, out);
    *out = value_list();
    for (size_t at = 0; at <= attribute->s.n;) {
        size_t comma = MIN(str_find(attribute->s, STR(","), at), attribute->s.n);
        struct value path = value_str(str_slice(attribute->s, at, comma)), part;
        TRY(get_path(j, item, &path, &part));
        TRY(fold_case(j, case_sensitive, &part));
        TRY(run_append(&j->r, out, part));
        at = comma + 1;
    }
    return OK;
}

static enum status copy_items(struct jinja_run *j, const struct value *v, struct value *out) {
    struct value items;
    TRY(py_iterate(&j->r, v, &items));
    *out = value_list();
    TRY(run_charge(&j->r, items.list.n));
    for (u32 i = 0; i < items.list.n; i++)
        TRY(run_append(&j->r, out, items.list.items[i]));
    return OK;
}

static enum status sort_by(struct jinja_run *j, struct value *list, const struct value *attribute,
                           bool case_sensitive, bool reverse) {
    struct value *keys;
    TRY(run_alloc(&j->r, list->list.n * sizeof *keys, &keys));
    for (u32 i = 0; i < list->list.n; i++)
        TRY(sort_key(j, &list->list.items[i], attribute, case_sensitive, &keys[i]));
    return py_sort(&j->r, list->list.items, keys, list->list.n, reverse);
}

static enum status filter_sort(struct jinja_run *j, const struct value *v, const struct value *a,
                               struct value *out) {
    TRY(copy_items(j, v, out));
    return sort_by(j, out, &a[2], py_truth(&a[1]), py_truth(&a[0]));
}

static enum status dict_pairs(struct jinja_run *j, const struct value *v, struct value *out) {
    *out = value_list();
    TRY(run_charge(&j->r, value_object_len(v)));
    for (u32 i = 0; i < value_object_len(v); i++) {
        struct value key, item, pair;
        value_entry_at(v, i, &key, &item);
        TRY(run_pair(&j->r, key, item, &pair));
        TRY(run_append(&j->r, out, pair));
    }
    return OK;
}

static bool is_dict(const struct value *v) { return v->kind == VALUE_OBJECT && v->form != FORM_NAMESPACE; }

static enum status filter_dictsort(struct jinja_run *j, const struct value *v, const struct value *a,
                                   struct value *out) {
    struct value by = value_int(0);
    if (!is_dict(v))
        return run_fail(&j->r, "dictsort needs a dict, not '%s'", py_type_name(v));
    if (a[1].kind == VALUE_STR && str_is(a[1].s, "value"))
        by = value_int(1);
    else if (given(&a[1]) && !(a[1].kind == VALUE_STR && str_is(a[1].s, "key")))
        return run_fail(&j->r, "dictsort: by must be 'key' or 'value'");
    TRY(dict_pairs(j, v, out));
    return sort_by(j, out, &by, py_truth(&a[0]), py_truth(&a[2]));
}

static enum status filter_items(struct jinja_run *j, const struct value *v, const struct value *a UNUSED,
                                struct value *out) {
    if (!is_dict(v) && v->kind != VALUE_UNDEFINED)
        return run_fail(&j->r, "items needs a dict, not '%s'", py_type_name(v));
    TRY(dict_pairs(j, v, out));
    out->form = FORM_GENERATOR;
    return OK;
}

static enum status filter_unique(struct jinja_run *j, const struct value *v, const struct value *a,
                                 struct value *out) {
    struct value items, seen, key;
    TRY(py_iterate(&j->r, v, &items));
    TRY(run_object(&j->r, &seen));
    *out = value_list();
    for (u32 i = 0; i < items.list.n; i++) {
        struct value before;
        TRY(compare_key(j, &items.list.items[i], &a[1], py_truth(&a[0]), &key));
        TRY(py_hashable(&j->r, &key));
        if (value_get_key(&seen, &key, &before))
            continue;
        TRY(run_set(&j->r, &seen, key, key));
        TRY(run_append(&j->r, out, items.list.items[i]));
    }
    out->form = FORM_GENERATOR;
    return OK;
}

static enum status extreme(struct jinja_run *j, const struct value *v, const struct value *a, int sign,
                           struct value *out) {
    struct value items, best, key;
    TRY(py_iterate(&j->r, v, &items));
    *out = (struct value){.kind = VALUE_UNDEFINED, .s = STR("item of an empty sequence")};
    for (u32 i = 0; i < items.list.n; i++) {
        int c = sign;
        TRY(compare_key(j, &items.list.items[i], &a[1], py_truth(&a[0]), &key));
        if (i)
            TRY(py_compare(&j->r, &key, &best, &c));
        if (c != sign)
            continue;
        best = key;
        *out = items.list.items[i];
    }
    return OK;
}

static enum status filter_min(struct jinja_run *j, const struct value *v, const struct value *a,
                              struct value *out) {
    return extreme(j, v, a, -1, out);
}

static enum status filter_max(struct jinja_run *j, const struct value *v, const struct value *a,
                              struct value *out) {
    return extreme(j, v, a, 1, out);
}

static enum status filter_sum(struct jinja_run *j, const struct value *v, const struct value *a,
                              struct value *out) {
    struct value items;
    TRY(py_iterate(&j->r, v, &items));
    *out = a[1].kind == VALUE_UNDEFINED ? value_int(0) : a[1];
    for (u32 i = 0; i < items.list.n; i++) {
        struct value item = items.list.items[i], before = *out;
        if (given(&a[0]))
            TRY(get_path(j, &items.list.items[i], &a[0], &item));
        TRY(run_charge(&j->r, 1));
        TRY(py_binary(&j->r, PY_ADD, &before, &item, out));
    }
    return OK;
}

static enum status filter_join(struct jinja_run *j, const struct value *v, const struct value *a,
                               struct value *out) {
    struct value items;
    struct str between = STR("");
    if (a[0].kind != VALUE_UNDEFINED)
        TRY(py_text(&j->r, &a[0], &between));
    if (!given(&a[1])) {
        TRY(py_iterate(&j->r, v, &items));
    } else {
        TRY(copy_items(j, v, &items));
        for (u32 i = 0; i < items.list.n; i++) {
            struct value item = items.list.items[i];
            TRY(get_path(j, &item, &a[1], &items.list.items[i]));
        }
    }
    return jinja_join(j, between, &items, out);
}

/* Lists of n items each; the last is filled up with `fill` if that is given. */
static enum status filter_batch(struct jinja_run *j, const struct value *v, const struct value *a,
                                struct value *out) {
    struct value items, part = value_list();
    i64 n;
    TRY(py_iterate(&j->r, v, &items));
    TRY(jinja_int_arg(j, &a[0], 0, &n));
    *out = value_list();
    for (u32 i = 0; i < items.list.n; i++) {
        if (part.list.n && (i64)part.list.n == n) {
            TRY(run_append(&j->r, out, part));
            part = value_list();
        }
        TRY(run_append(&j->r, &part, items.list.items[i]));
    }
    while (part.list.n && given(&a[1]) && (i64)part.list.n < n)
        TRY(run_append(&j->r, &part, a[1]));
    if (part.list.n)
        TRY(run_append(&j->r, out, part));
    out->form = FORM_GENERATOR;
    return OK;
}

/* --- map, select, reject and their attr forms --- */
static struct call_args args_behind(const struct call_args *args, u32 skip) {
    return (struct call_args){args->pos ? args->pos + skip : NULL, args->kw, args->n - skip, args->n_kw};
}

static enum status map_attribute(struct jinja_run *j, const struct value *items, const struct call_args *args,
                                 struct value *out) {
    struct value attribute = {0}, fallback = {0}, v;
    for (u32 i = 0; i < args->n_kw; i++) {
        if (str_is(args->kw[i].name, "attribute"))
            attribute = args->kw[i].v;
        else if (str_is(args->kw[i].name, "default"))
            fallback = args->kw[i].v;
        else
            return run_fail(&j->r, "map takes no argument '%.*s'", STR_FMT(args->kw[i].name));
    }
    if (!given(&attribute))
        return run_fail(&j->r, "map needs the name of a filter or an attribute");
    for (u32 i = 0; i < items->list.n; i++) {
        TRY(get_path(j, &items->list.items[i], &attribute, &v));
        TRY(run_append(&j->r, out,
                       v.kind == VALUE_UNDEFINED && fallback.kind != VALUE_UNDEFINED ? fallback : v));
    }
    return OK;
}

static enum status filter_map(struct jinja_run *j, const struct value *v, const struct call_args *args,
                              struct value *out) {
    struct value items, mapped;
    *out = value_list();
    out->form = FORM_GENERATOR;
    if (!py_truth(v)) /* also what cannot be gone over: None, 0 */
        return OK;
    TRY(py_iterate(&j->r, v, &items));
    if (!args->n)
        return map_attribute(j, &items, args, out);
    if (args->pos[0].kind != VALUE_STR)
        return run_fail(&j->r, "map needs the name of a filter");
    struct call_args rest = args_behind(args, 1);
    for (u32 i = 0; i < items.list.n; i++) {
        TRY(run_charge(&j->r, 1));
        TRY(jinja_filter(j, args->pos[0].s, &items.list.items[i], &rest, &mapped));
        TRY(run_append(&j->r, out, mapped));
    }
    return OK;
}

static enum status choose(struct jinja_run *j, const struct value *v, const struct call_args *args, bool attr,
                          bool keep, struct value *out) {
    struct value items;
    *out = value_list();
    out->form = FORM_GENERATOR;
    if (!py_truth(v))
        return OK;
    TRY(py_iterate(&j->r, v, &items));
    if (attr && !args->n)
        return run_fail(&j->r, "the name of an attribute is missing");
    struct call_args test = args_behind(args, attr), rest = args_behind(&test, test.n ? 1 : 0);
    if (test.n && test.pos[0].kind != VALUE_STR)
        return run_fail(&j->r, "the name of a test must be a string");
    for (u32 i = 0; i < items.list.n; i++) {
        struct value item = items.list.items[i];
        TRY(run_charge(&j->r, 1));
        if (attr)
            TRY(get_path(j, &items.list.items[i], &args->pos[0], &item));
        bool is = py_truth(&item);
        if (test.n)
            TRY(jinja_test(j, test.pos[0].s, &item, &rest, &is));
        if (is == keep)
            TRY(run_append(&j->r, out, items.list.items[i]));
    }
    return OK;
}

static enum status filter_select(struct jinja_run *j, const struct value *v, const struct call_args *args,
                                 struct value *out) {
    return choose(j, v, args, false, true, out);
}

static enum status filter_reject(struct jinja_run *j, const struct value *v, const struct call_args *args,
                                 struct value *out) {
    return choose(j, v, args, false, false, out);
}

static enum status filter_selectattr(struct jinja_run *j, const struct value *v, const struct call_args *args,
                                     struct value *out) {
    return choose(j, v, args, true, true, out);
}

static enum status filter_rejectattr(struct jinja_run *j, const struct value *v, const struct call_args *args,
                                     struct value *out) {
    return choose(j, v, args, true, false, out);
}

const struct jinja_method jinja_list_filters[] = {
    {"length", "", filter_length, NULL},
    {"count", "", filter_length, NULL},
    {"list", "", filter_list, NULL},
    {"first", "", filter_first, NULL},
    {"last", "", filter_last, NULL},
    {"join", "d,attribute", filter_join, NULL},
    {"items", "", filter_items, NULL, true},
    {"map", NULL, NULL, filter_map, true},
    {"select", NULL, NULL, filter_select, true},
    {"reject", NULL, NULL, filter_reject, true},
    {"selectattr", NULL, NULL, filter_selectattr, true},
    {"rejectattr", NULL, NULL, filter_rejectattr, true},
    {"sort", "reverse,case_sensitive,attribute", filter_sort, NULL},
    {"dictsort", "case_sensitive,by,reverse", filter_dictsort, NULL},
    {"reverse", "", filter_reverse, NULL},
    {"unique", "case_sensitive,attribute", filter_unique, NULL, true},
    {"min", "case_sensitive,attribute", filter_min, NULL},
    {"max", "case_sensitive,attribute", filter_max, NULL},
    {"sum", "attribute,start", filter_sum, NULL},
    {"batch", "linecount,fill_with", filter_batch, NULL, true},
    {NULL, NULL, NULL, NULL},
};
