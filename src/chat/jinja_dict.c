/* jinja_dict.c - methods of dicts, lists and floats. */
#include <math.h>

#include "chat/jinja.h"

static enum status method_get(struct jinja_run *j, const struct value *v, const struct value *a,
                              struct value *out) {
    bool found;
    TRY(py_hashable(&j->r, &a[0]));
    TRY(py_item(&j->r, v, &a[0], out, &found));
    if (!found)
        *out = a[1].kind == VALUE_UNDEFINED ? (struct value){.kind = VALUE_NONE} : a[1];
    return OK;
}

static enum status view(struct jinja_run *j, const struct value *v, enum value_form form, struct value *out) {
    *out = value_list();
    out->form = form;
    TRY(run_charge(&j->r, value_object_len(v)));
    for (u32 i = 0; i < value_object_len(v); i++) {
        struct value key, item, pair;
        value_entry_at(v, i, &key, &item);
        if (form == FORM_ITEMS)
            TRY(run_pair(&j->r, key, item, &pair));
        TRY(run_append(&j->r, out, form == FORM_KEYS ? key : form == FORM_VALUES ? item : pair));
    }
    return OK;
}

static enum status method_keys(struct jinja_run *j, const struct value *v, const struct value *a UNUSED,
                               struct value *out) {
    return view(j, v, FORM_KEYS, out);
}

static enum status method_values(struct jinja_run *j, const struct value *v, const struct value *a UNUSED,
                                 struct value *out) {
    return view(j, v, FORM_VALUES, out);
}

static enum status method_items(struct jinja_run *j, const struct value *v, const struct value *a UNUSED,
                                struct value *out) {
    return view(j, v, FORM_ITEMS, out);
}

/* Values never change, so that a copy is the same value. */
static enum status method_copy(struct jinja_run *j UNUSED, const struct value *v,
                               const struct value *a UNUSED, struct value *out) {
    *out = *v;
    return OK;
}

static enum status method_count(struct jinja_run *j, const struct value *v, const struct value *a,
                                struct value *out) {
    i64 n = 0;
    for (u32 i = 0; i < v->list.n; i++) {
        bool equal;
        TRY(py_equal(&j->r, &v->list.items[i], &a[0], &equal));
        n += equal;
    }
    *out = value_int(n);
    return OK;
}

static enum status method_index(struct jinja_run *j, const struct value *v, const struct value *a,
                                struct value *out) {
    for (u32 i = 0; i < v->list.n; i++) {
        bool equal;
        TRY(py_equal(&j->r, &v->list.items[i], &a[0], &equal));
        if (equal) {
            *out = value_int(i);
            return OK;
        }
    }
    return run_fail(&j->r, "the item is not in the list");
}

static enum status method_is_integer(struct jinja_run *j UNUSED, const struct value *v,
                                     const struct value *a UNUSED, struct value *out) {
    *out = value_bool(v->f == floor(v->f) && isfinite(v->f));
    return OK;
}

static const struct jinja_method dict_methods[] = {
    {"get", "key,default", method_get, NULL}, {"items", "", method_items, NULL},
    {"keys", "", method_keys, NULL},          {"values", "", method_values, NULL},
    {"copy", "", method_copy, NULL},          {NULL, NULL, NULL, NULL},
};
static const struct jinja_method list_methods[] = {
    {"count", "value", method_count, NULL},
    {"index", "value", method_index, NULL},
    {"copy", "", method_copy, NULL},
    {NULL, NULL, NULL, NULL},
};
static const struct jinja_method float_methods[] = {{"is_integer", "", method_is_integer, NULL},
                                                    {NULL, NULL, NULL, NULL}};

const struct jinja_method *jinja_find_method(const struct value *v, struct str name) {
    if (v->kind == VALUE_STR)
        return jinja_find(jinja_text_methods, name);
    if (v->kind == VALUE_OBJECT && v->form != FORM_NAMESPACE)
        return jinja_find(dict_methods, name);
    if (v->kind == VALUE_LIST && v->form <= FORM_TUPLE)
        return v->form == FORM_TUPLE && str_is(name, "copy") ? NULL : jinja_find(list_methods, name);
    return v->kind == VALUE_FLOAT ? jinja_find(float_methods, name) : NULL;
}
