/* py.c - truth, equality, order, text and indexing of values as Python has them. */
#include "chat/py.h"

#include <math.h>

#include "base/limit.h"
#include "chat/text.h"

const char *py_type_name(const struct value *v) {
    static const char *const list_names[] = {
        [FORM_PLAIN] = "list",          [FORM_TUPLE] = "tuple",    [FORM_RANGE] = "range",
        [FORM_GENERATOR] = "generator", [FORM_KEYS] = "dict_keys", [FORM_VALUES] = "dict_values",
        [FORM_ITEMS] = "dict_items"};
    switch (v->kind) {
    case VALUE_UNDEFINED: return "Undefined";
    case VALUE_NONE: return "NoneType";
    case VALUE_BOOL: return "bool";
    case VALUE_INT: return "int";
    case VALUE_FLOAT: return "float";
    case VALUE_STR: return v->form == FORM_MARKUP ? "Markup" : "str";
    case VALUE_LIST: return v->form <= FORM_ITEMS ? list_names[v->form] : "list";
    case VALUE_OBJECT: return v->form == FORM_NAMESPACE ? "Namespace" : "dict";
    case VALUE_CALLABLE: return "function";
    }
    return "object";
}

bool py_truth(const struct value *v) {
    switch (v->kind) {
    case VALUE_UNDEFINED:
    case VALUE_NONE: return false;
    case VALUE_BOOL: return v->b;
    case VALUE_INT: return v->i != 0;
    case VALUE_FLOAT: return v->f != 0;
    case VALUE_STR: return v->s.n > 0;
    case VALUE_LIST: return v->form == FORM_GENERATOR || v->list.n > 0;
    case VALUE_OBJECT: return v->form == FORM_NAMESPACE || value_object_len(v) > 0;
    case VALUE_CALLABLE: return true;
    }
    return true;
}

bool py_is_number(const struct value *v) {
    return v->kind == VALUE_INT || v->kind == VALUE_FLOAT || v->kind == VALUE_BOOL;
}

f64 py_to_f64(const struct value *v) {
    return v->kind == VALUE_FLOAT ? v->f : v->kind == VALUE_BOOL ? (f64)v->b : (f64)v->i;
}

bool py_to_index(const struct value *v, i64 *out) {
    if (v->kind != VALUE_INT && v->kind != VALUE_BOOL)
        return false;
    *out = v->kind == VALUE_BOOL ? (i64)v->b : v->i;
    return true;
}

/* --- equality and order --- */
static bool same_sequence(const struct value *a, const struct value *b) {
    return a->kind == VALUE_LIST && b->kind == VALUE_LIST && a->form == b->form;
}

static enum status lists_equal(struct run *r, const struct value *a, const struct value *b, bool *out) {
    if (a->form == FORM_GENERATOR || a->form == FORM_VALUES) {
        *out = a->list.items == b->list.items;
        return OK;
    }
    *out = a->list.n == b->list.n;
    for (u32 i = 0; *out && i < a->list.n; i++)
        TRY(py_equal(r, &a->list.items[i], &b->list.items[i], out));
    return OK;
}

static enum status objects_equal(struct run *r, const struct value *a, const struct value *b, bool *out) {
    if (a->form == FORM_NAMESPACE || b->form == FORM_NAMESPACE || a->object == b->object) {
        *out = a->object == b->object;
        return OK;
    }
    *out = value_object_len(a) == value_object_len(b);
    for (u32 i = 0; *out && i < value_object_len(a); i++) {
        struct value key, x, y;
        value_entry_at(a, i, &key, &x);
        *out = value_get_key(b, &key, &y);
        if (*out)
            TRY(py_equal(r, &x, &y, out));
    }
    return OK;
}

enum status py_equal(struct run *r, const struct value *a, const struct value *b, bool *out) {
    TRY(run_enter(r));
    enum status s = OK;
    if (a->kind == VALUE_STR && b->kind == VALUE_STR) {
        s = run_charge(r, MIN(a->s.n, b->s.n) / 16);
        *out = str_eq(a->s, b->s);
    } else if (a->kind == VALUE_INT && b->kind == VALUE_INT) {
        *out = a->i == b->i;
    } else if (py_is_number(a) && py_is_number(b)) {
        *out = py_to_f64(a) == py_to_f64(b);
    } else if (same_sequence(a, b)) {
        s = lists_equal(r, a, b, out);
    } else if (a->kind == VALUE_OBJECT && b->kind == VALUE_OBJECT) {
        s = objects_equal(r, a, b, out);
    } else if (a->kind == VALUE_CALLABLE && b->kind == VALUE_CALLABLE) {
        *out = a->callable == b->callable;
    } else {
        *out = a->kind == b->kind && (a->kind == VALUE_NONE || a->kind == VALUE_UNDEFINED);
    }
    run_leave(r);
    return s;
}

static enum status compare_lists(struct run *r, const struct value *a, const struct value *b, int *out) {
    for (u32 i = 0; i < a->list.n && i < b->list.n; i++) {
        bool equal;
        TRY(py_equal(r, &a->list.items[i], &b->list.items[i], &equal));
        if (!equal)
            return py_compare(r, &a->list.items[i], &b->list.items[i], out);
    }
    *out = (a->list.n > b->list.n) - (a->list.n < b->list.n);
    return OK;
}

enum status py_compare(struct run *r, const struct value *a, const struct value *b, int *out) {
    TRY(run_enter(r));
    enum status s = OK;
    if (a->kind == VALUE_STR && b->kind == VALUE_STR) {
        size_t n = MIN(a->s.n, b->s.n);
        int c = n ? memcmp(a->s.p, b->s.p, n) : 0;
        *out = c ? (c > 0) - (c < 0) : (a->s.n > b->s.n) - (a->s.n < b->s.n);
        s = run_charge(r, n / 16);
    } else if (a->kind == VALUE_INT && b->kind == VALUE_INT) {
        *out = (a->i > b->i) - (a->i < b->i);
    } else if (py_is_number(a) && py_is_number(b)) {
        f64 x = py_to_f64(a), y = py_to_f64(b);
        *out = isnan(x) || isnan(y) ? 2 : (x > y) - (x < y);
    } else if (same_sequence(a, b) && a->form <= FORM_TUPLE) {
        s = compare_lists(r, a, b, out);
    } else {
        s = run_fail(r, "values of the kinds '%s' and '%s' have no order", py_type_name(a), py_type_name(b));
    }
    run_leave(r);
    return s;
}

enum status py_contains(struct run *r, const struct value *box, const struct value *item, bool *out) {
    if (box->kind == VALUE_STR) {
        if (item->kind != VALUE_STR)
            return run_fail(r, "'in <string>' needs a string on its left, not '%s'", py_type_name(item));
        TRY(run_charge(r, box->s.n / 16 + 1));
        *out = str_find(box->s, item->s, 0) != SIZE_MAX;
        return OK;
    }
    if (box->kind == VALUE_OBJECT && box->form != FORM_NAMESPACE) {
        struct value v;
        TRY(py_hashable(r, item));
        *out = value_get_key(box, item, &v);
        return OK;
    }
    struct value list;
    TRY(py_iterate(r, box, &list));
    *out = false;
    for (u32 i = 0; !*out && i < list.list.n; i++)
        TRY(py_equal(r, &list.list.items[i], item, out));
    return OK;
}

/* Insertion position by halves (merge sort, bottom up), so that equal keys keep their order. */
enum status py_sort(struct run *r, struct value *items, struct value *keys, u32 n, bool reverse) {
    struct value *from[2] = {items, keys}, *to[2];
    bool own_keys = keys != items;
    TRY(run_alloc(r, n * sizeof *items, &to[0]));
    to[1] = to[0];
    if (own_keys)
        TRY(run_alloc(r, n * sizeof *keys, &to[1]));
    for (u64 width = 1; width < n; width *= 2) {
        for (u64 lo = 0; lo < n; lo += 2 * width) {
            u64 mid = MIN(lo + width, (u64)n), hi = MIN(lo + 2 * width, (u64)n), a = lo, b = mid;
            for (u64 k = lo; k < hi; k++) {
                bool second = a == mid;
                if (!second && b < hi) {
                    int c;
                    TRY(reverse ? py_compare(r, &from[1][a], &from[1][b], &c)
                                : py_compare(r, &from[1][b], &from[1][a], &c));
                    second = c == -1;
                }
                u64 pick = second ? b++ : a++;
                to[0][k] = from[0][pick];
                to[1][k] = from[1][pick];
            }
        }
        for (int i = 0; i < 2; i++) {
            struct value *t = from[i];
            from[i] = to[i];
            to[i] = t;
        }
    }
    if (n && from[0] != items)
        memcpy(items, from[0], n * sizeof *items);
    return OK;
}

/* --- text --- */
static enum status put_quoted(struct run *r, struct str s) {
    TRY(run_charge(r, s.n));
    char quote = str_find(s, STR("'"), 0) != SIZE_MAX && str_find(s, STR("\""), 0) == SIZE_MAX ? '"' : '\'';
    TRY(run_put_char(r, quote));
    for (size_t at = 0; at < s.n;) {
        size_t from = at;
        u32 c = text_next(s, &at);
        if (c == (u32)quote || c == '\\')
            TRY(run_printf(r, "\\%c", (char)c));
        else if (c == '\n' || c == '\r' || c == '\t')
            TRY(run_printf(r, "\\%c", c == '\n' ? 'n' : c == '\r' ? 'r' : 't'));
        else if (text_is_printable(c))
            TRY(run_put(r, str_slice(s, from, at)));
        else if (c < 0x100)
            TRY(run_printf(r, "\\x%02x", c));
        else
            TRY(run_printf(r, c < 0x10000 ? "\\u%04x" : "\\U%08x", c));
    }
    return run_put_char(r, quote);
}

static enum status put_items(struct run *r, const struct value *v) {
    for (u32 i = 0; i < v->list.n; i++) {
        if (i)
            TRY(run_put(r, STR(", ")));
        TRY(py_put_repr(r, &v->list.items[i]));
    }
    return OK;
}

static enum status put_list(struct run *r, const struct value *v) {
    switch (v->form) {
    case FORM_TUPLE:
        TRY(run_put_char(r, '('));
        TRY(put_items(r, v));
        return run_put(r, v->list.n == 1 ? STR(",)") : STR(")"));
    case FORM_RANGE: {
        const struct value *bound = v->list.items + v->list.n;
        TRY(run_printf(r, "range(%lld, %lld", (long long)bound[0].i, (long long)bound[1].i));
        return bound[2].i == 1 ? run_put_char(r, ')') : run_printf(r, ", %lld)", (long long)bound[2].i);
    }
    case FORM_GENERATOR: return run_put(r, STR("<generator object>"));
    case FORM_KEYS:
    case FORM_VALUES:
    case FORM_ITEMS:
        TRY(run_printf(r, "%s([", py_type_name(v)));
        TRY(put_items(r, v));
        return run_put(r, STR("])"));
    default:
        TRY(run_put_char(r, '['));
        TRY(put_items(r, v));
        return run_put_char(r, ']');
    }
}

static enum status put_object(struct run *r, const struct value *v) {
    TRY(run_put(r, v->form == FORM_NAMESPACE ? STR("<Namespace {") : STR("{")));
    for (u32 i = 0; i < value_object_len(v); i++) {
        struct value key, item;
        value_entry_at(v, i, &key, &item);
        if (i)
            TRY(run_put(r, STR(", ")));
        TRY(py_put_repr(r, &key));
        TRY(run_put(r, STR(": ")));
        TRY(py_put_repr(r, &item));
    }
    return run_put(r, v->form == FORM_NAMESPACE ? STR("}>") : STR("}"));
}

static enum status put_value(struct run *r, const struct value *v, bool repr) {
    switch (v->kind) {
    case VALUE_UNDEFINED: return run_put(r, repr ? STR("Undefined") : STR(""));
    case VALUE_NONE: return run_put(r, STR("None"));
    case VALUE_BOOL: return run_put(r, v->b ? STR("True") : STR("False"));
    case VALUE_INT: return run_printf(r, "%lld", (long long)v->i);
    case VALUE_FLOAT: value_write_float(r->text, v->f); return OK;
    case VALUE_STR:
        if (!repr)
            return run_put(r, v->s);
        if (v->form != FORM_MARKUP)
            return put_quoted(r, v->s);
        TRY(run_put(r, STR("Markup(")));
        TRY(put_quoted(r, v->s));
        return run_put_char(r, ')');
    case VALUE_LIST: return put_list(r, v);
    case VALUE_OBJECT: return put_object(r, v);
    case VALUE_CALLABLE: return run_put(r, STR("<function>"));
    }
    return OK;
}

enum status py_put_str(struct run *r, const struct value *v) { return put_value(r, v, false); }

enum status py_put_repr(struct run *r, const struct value *v) {
    TRY(run_enter(r));
    enum status s = put_value(r, v, true);
    run_leave(r);
    return s;
}

enum status py_text(struct run *r, const struct value *v, struct str *out) {
    if (v->kind == VALUE_STR) {
        *out = v->s;
        return OK;
    }
    size_t mark = run_mark(r);
    TRY(py_put_str(r, v));
    return run_take(r, mark, out);
}

enum status py_put_escaped(struct run *r, struct str s) {
    TRY(run_charge(r, s.n));
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        struct str t = c == '&'    ? STR("&amp;")
                       : c == '<'  ? STR("&lt;")
                       : c == '>'  ? STR("&gt;")
                       : c == '"'  ? STR("&#34;")
                       : c == '\'' ? STR("&#39;")
                                   : (struct str){&s.p[i], 1};
        TRY(run_put(r, t));
    }
    return OK;
}

/* --- going over and indexing --- */
static enum status characters(struct run *r, struct str s, struct value *out) {
    *out = value_list();
    TRY(run_charge(r, s.n));
    for (size_t at = 0; at < s.n;) {
        size_t from = at;
        text_next(s, &at);
        TRY(run_append(r, out, value_str(str_slice(s, from, at))));
    }
    return OK;
}

enum status py_iterate(struct run *r, const struct value *v, struct value *out) {
    switch (v->kind) {
    case VALUE_LIST:
        if (v->form == FORM_GENERATOR && v->list.cap == PY_GENERATOR_FAILS)
            return run_fail(r, "a filter was given what it cannot go over");
        *out = *v;
        return OK;
    case VALUE_UNDEFINED: *out = value_list(); return OK;
    case VALUE_STR: return characters(r, v->s, out);
    case VALUE_OBJECT:
        if (v->form == FORM_NAMESPACE)
            break;
        *out = value_list();
        TRY(run_charge(r, value_object_len(v)));
        for (u32 i = 0; i < value_object_len(v); i++) {
            struct value key, item;
            value_entry_at(v, i, &key, &item);
            TRY(run_append(r, out, key));
        }
        return OK;
    case VALUE_NONE:
    case VALUE_BOOL:
    case VALUE_INT:
    case VALUE_FLOAT:
    case VALUE_CALLABLE: break;
    }
    return run_fail(r, "a value of the kind '%s' cannot be iterated over", py_type_name(v));
}

enum status py_length(struct run *r, const struct value *v, u64 *out) {
    *out = 0;
    if (v->kind == VALUE_STR) {
        TRY(run_charge(r, v->s.n / 16));
        *out = text_len(v->s);
    } else if (v->kind == VALUE_LIST && v->form != FORM_GENERATOR) {
        *out = v->list.n;
    } else if (v->kind == VALUE_OBJECT && v->form != FORM_NAMESPACE) {
        *out = value_object_len(v);
    } else if (v->kind != VALUE_UNDEFINED) {
        return run_fail(r, "a value of the kind '%s' has no length", py_type_name(v));
    }
    return OK;
}

enum status py_hashable(struct run *r, const struct value *key) {
    TRY(run_charge(r, 1 + (key->kind == VALUE_STR ? key->s.n / 16 : 0)));
    bool bad = key->kind == VALUE_OBJECT || (key->kind == VALUE_LIST && key->form != FORM_TUPLE);
    if (bad)
        return run_fail(r, "a value of the kind '%s' cannot be a key", py_type_name(key));
    if (key->kind == VALUE_LIST) {
        TRY(run_enter(r));
        for (u32 i = 0; i < key->list.n; i++)
            TRY(py_hashable(r, &key->list.items[i]));
        run_leave(r);
    }
    return OK;
}

static bool indexable(const struct value *v) { return v->kind == VALUE_LIST && v->form <= FORM_RANGE; }

enum status py_item(struct run *r, const struct value *v, const struct value *key, struct value *out,
                    bool *found) {
    i64 i;
    *found = false;
    if (v->kind == VALUE_OBJECT && v->form != FORM_NAMESPACE) {
        if (key->kind == VALUE_OBJECT || (key->kind == VALUE_LIST && key->form != FORM_TUPLE))
            return OK;
        TRY(py_hashable(r, key));
        *found = value_get_key(v, key, out);
    } else if (py_to_index(key, &i) && indexable(v)) {
        i += i < 0 ? (i64)v->list.n : 0;
        *found = i >= 0 && i < (i64)v->list.n;
        if (*found)
            *out = v->list.items[i];
    } else if (py_to_index(key, &i) && v->kind == VALUE_STR) {
        TRY(run_charge(r, v->s.n / 16));
        i += i < 0 ? (i64)text_len(v->s) : 0;
        size_t from = i < 0 ? v->s.n : text_offset(v->s, (size_t)i), to = from;
        *found = from < v->s.n;
        if (*found) {
            text_next(v->s, &to);
            *out = value_str(str_slice(v->s, from, to));
        }
    }
    return OK;
}

/* Python's slice.indices(n): the parts clamped to what exists; *count items from *start on. */
static enum status slice_bounds(struct run *r, const struct value part[3], i64 n, i64 *start, i64 *step,
                                i64 *count) {
    i64 v[3] = {0, 0, 1};
    bool given[3];
    for (int i = 0; i < 3; i++) {
        given[i] = part[i].kind != VALUE_NONE && part[i].kind != VALUE_UNDEFINED;
        if (given[i] && !py_to_index(&part[i], &v[i]))
            return run_fail(r, "slice indices must be integers or None");
    }
    if (v[2] == 0)
        return run_fail(r, "slice step cannot be zero");
    bool down = v[2] < 0;
    i64 low = down ? -1 : 0, high = down ? n - 1 : n;
    for (int i = 0; i < 2; i++) {
        if (!given[i])
            v[i] = (i == 0) == down ? high : low;
        else
            v[i] = v[i] < 0 ? MAX(v[i] < -n ? low : v[i] + n, low) : MIN(v[i], high);
    }
    *start = v[0];
    *step = v[2] < -n - 1 ? -n - 1 : MIN(v[2], n + 1); /* one step leaves the sequence */
    i64 span = down ? v[0] - v[1] : v[1] - v[0];
    *count = span > 0 ? (span - 1) / (down ? -*step : *step) + 1 : 0;
    return OK;
}

static enum status slice_text(struct run *r, const struct value *v, const struct value part[3],
                              struct value *out) {
    i64 start, step, count;
    TRY(run_charge(r, v->s.n / 8 + 1));
    TRY(slice_bounds(r, part, (i64)text_len(v->s), &start, &step, &count));
    if (step == 1) {
        size_t from = count ? text_offset(v->s, (size_t)start) : 0;
        struct str rest = str_slice(v->s, from, v->s.n);
        *out = value_str(str_slice(rest, 0, text_offset(rest, (size_t)count)));
        return OK;
    }
    struct value letters;
    size_t mark = run_mark(r);
    TRY(characters(r, v->s, &letters));
    for (i64 i = 0; i < count; i++)
        TRY(run_put(r, letters.list.items[start + i * step].s));
    return run_take_value(r, mark, out);
}

enum status py_slice(struct run *r, const struct value *v, const struct value part[3], struct value *out) {
    if (v->kind == VALUE_STR)
        return slice_text(r, v, part, out);
    if (!indexable(v))
        return run_fail(r, "a value of the kind '%s' cannot be sliced", py_type_name(v));
    i64 start, step, count;
    TRY(slice_bounds(r, part, v->list.n, &start, &step, &count));
    *out = value_list();
    out->form = v->form == FORM_TUPLE ? FORM_TUPLE : FORM_PLAIN;
    TRY(run_charge(r, (u64)count));
    for (i64 i = 0; i < count; i++)
        TRY(run_append(r, out, v->list.items[start + i * step]));
    return OK;
}
