/* go_func.c - the functions of Go's text/template and those that the reference adds. */
#include <math.h>
#include <time.h>

#include "base/limit.h"
#include "chat/go.h"
#include "chat/text.h"

typedef enum status go_fn(struct go_run *g, const struct value *a, u32 n, struct value *out);

static bool is_nil(const struct value *v) { return v->kind == VALUE_NONE || v->kind == VALUE_UNDEFINED; }

/* --- comparison --- */
enum basic { BASIC_NONE, BASIC_BOOL, BASIC_INT, BASIC_FLOAT, BASIC_STR };

static enum basic basic_kind(const struct value *v) {
    return v->kind == VALUE_BOOL    ? BASIC_BOOL
           : v->kind == VALUE_INT   ? BASIC_INT
           : v->kind == VALUE_FLOAT ? BASIC_FLOAT
           : v->kind == VALUE_STR   ? BASIC_STR
                                    : BASIC_NONE;
}

static enum status equal(struct go_run *g, const struct value *a, const struct value *b, bool *out) {
    enum basic x = basic_kind(a), y = basic_kind(b);
    *out = false;
    if (x != y)
        return is_nil(a) || is_nil(b)
                   ? OK
                   : run_fail(&g->r, "%s and %s cannot be compared", go_type(a), go_type(b));
    switch (x) {
    case BASIC_BOOL: *out = a->b == b->b; return OK;
    case BASIC_INT: *out = a->i == b->i; return OK;
    case BASIC_FLOAT: *out = a->f == b->f; return OK;
    case BASIC_STR: *out = str_eq(a->s, b->s); return run_charge(&g->r, MIN(a->s.n, b->s.n) / 16);
    case BASIC_NONE: break;
    }
    *out = is_nil(a) && is_nil(b);
    return is_nil(a) || is_nil(b) ? OK
                                  : run_fail(&g->r, "values of the type %s cannot be compared", go_type(a));
}

static enum status less(struct go_run *g, const struct value *a, const struct value *b, bool *out) {
    enum basic x = basic_kind(a), y = basic_kind(b);
    if (x != y || x == BASIC_NONE || x == BASIC_BOOL)
        return run_fail(&g->r, "%s and %s have no order", go_type(a), go_type(b));
    size_t n = MIN(a->s.n, b->s.n);
    int c = x == BASIC_STR && n ? memcmp(a->s.p, b->s.p, n) : 0;
    *out = x == BASIC_INT ? a->i < b->i : x == BASIC_FLOAT ? a->f < b->f : c ? c < 0 : a->s.n < b->s.n;
    return x == BASIC_STR ? run_charge(&g->r, n / 16) : OK;
}

static enum status func_eq(struct go_run *g, const struct value *a, u32 n, struct value *out) {
    bool is = false;
    if (n < 2)
        return run_fail(&g->r, "eq needs something to compare with");
    for (u32 i = 1; i < n && !is; i++)
        TRY(equal(g, &a[0], &a[i], &is));
    *out = value_bool(is);
    return OK;
}

static enum status func_ne(struct go_run *g, const struct value *a, u32 n UNUSED, struct value *out) {
    bool is;
    TRY(equal(g, &a[0], &a[1], &is));
    *out = value_bool(!is);
    return OK;
}

static enum status func_lt(struct go_run *g, const struct value *a, u32 n UNUSED, struct value *out) {
    bool is;
    TRY(less(g, &a[0], &a[1], &is));
    *out = value_bool(is);
    return OK;
}

static enum status func_le(struct go_run *g, const struct value *a, u32 n UNUSED, struct value *out) {
    bool is;
    TRY(less(g, &a[0], &a[1], &is));
    if (!is)
        TRY(equal(g, &a[0], &a[1], &is));
    *out = value_bool(is);
    return OK;
}

static enum status func_gt(struct go_run *g, const struct value *a, u32 n, struct value *out) {
    TRY(func_le(g, a, n, out));
    *out = value_bool(!out->b);
    return OK;
}

static enum status func_ge(struct go_run *g, const struct value *a, u32 n, struct value *out) {
    TRY(func_lt(g, a, n, out));
    *out = value_bool(!out->b);
    return OK;
}

static enum status func_not(struct go_run *g UNUSED, const struct value *a, u32 n UNUSED, struct value *out) {
    *out = value_bool(!go_truth(a));
    return OK;
}

/* The evaluator short-circuits these; they get here only without arguments. */
static enum status func_logic(struct go_run *g, const struct value *a UNUSED, u32 n UNUSED,
                              struct value *out UNUSED) {
    return run_fail(&g->r, "'and' and 'or' need an argument");
}

/* --- lists, maps, strings --- */
static enum status func_len(struct go_run *g, const struct value *a, u32 n UNUSED, struct value *out) {
    if (a->kind == VALUE_STR)
        *out = value_int((i64)a->s.n);
    else if (a->kind == VALUE_LIST)
        *out = value_int(a->list.n);
    else if (a->kind == VALUE_OBJECT && a->form != FORM_STRUCT)
        *out = value_int(value_object_len(a));
    else
        return run_fail(&g->r, "a value of the type %s has no length", go_type(a));
    return OK;
}

static enum status index_one(struct go_run *g, const struct value *v, const struct value *key,
                             struct value *out) {
    u64 n = v->kind == VALUE_STR ? v->s.n : v->list.n;
    if (v->kind == VALUE_OBJECT && v->form != FORM_STRUCT) {
        if (key->kind != VALUE_STR)
            return run_fail(&g->r, "index: a map's key must be a string, not %s", go_type(key));
        *out = value_get(v, key->s);
        return run_charge(&g->r, key->s.n / 16);
    }
    if (v->kind != VALUE_LIST && v->kind != VALUE_STR)
        return run_fail(&g->r, "a value of the type %s has no index", go_type(v));
    if (key->kind != VALUE_INT)
        return run_fail(&g->r, "index: an integer is needed, not %s", go_type(key));
    if (key->i < 0 || (u64)key->i >= n)
        return run_fail(&g->r, "index out of range: %lld", (long long)key->i);
    *out = v->kind == VALUE_STR ? value_int((u8)v->s.p[key->i]) : v->list.items[key->i];
    return OK;
}

static enum status func_index(struct go_run *g, const struct value *a, u32 n, struct value *out) {
    if (is_nil(a))
        return run_fail(&g->r, "index of untyped nil");
    *out = a[0];
    for (u32 i = 1; i < n; i++) {
        struct value from = *out;
        TRY(index_one(g, &from, &a[i], out));
    }
    return OK;
}

static enum status func_slice(struct go_run *g, const struct value *a, u32 n, struct value *out) {
    bool text = a->kind == VALUE_STR;
    if ((!text && a->kind != VALUE_LIST) || n > (text ? 3u : 4u))
        return run_fail(&g->r, "a value of the type %s cannot be sliced so", go_type(a));
    i64 len = text ? (i64)a->s.n : (i64)a->list.n, bound[3] = {0, len, len};
    for (u32 i = 1; i < n; i++) {
        if (a[i].kind != VALUE_INT)
            return run_fail(&g->r, "slice: an integer is needed, not %s", go_type(&a[i]));
        if (a[i].i < 0 || a[i].i > len)
            return run_fail(&g->r, "index out of range: %lld", (long long)a[i].i);
        bound[i - 1] = a[i].i;
    }
    if (bound[0] > bound[1] || bound[1] > bound[2])
        return run_fail(&g->r, "slice: %lld > %lld", (long long)bound[0], (long long)bound[1]);
    *out = a[0];
    if (text) {
        out->s = str_slice(a->s, (size_t)bound[0], (size_t)bound[1]);
        return OK;
    }
    out->list.items = a->list.items ? a->list.items + bound[0] : NULL;
    out->list.n = out->list.cap = (u32)(bound[1] - bound[0]);
    return OK;
}

static enum status func_call(struct go_run *g, const struct value *a UNUSED, u32 n UNUSED,
                             struct value *out UNUSED) {
    return run_fail(&g->r, "call: there are no values that can be called");
}

/* --- printing --- */
static enum status func_print(struct go_run *g, const struct value *a, u32 n, struct value *out) {
    size_t mark = run_mark(&g->r);
    TRY(go_put_all(&g->r, a, n, false));
    return run_take_value(&g->r, mark, out);
}

static enum status func_println(struct go_run *g, const struct value *a, u32 n, struct value *out) {
    size_t mark = run_mark(&g->r);
    TRY(go_put_all(&g->r, a, n, true));
    return run_take_value(&g->r, mark, out);
}

static enum status func_printf(struct go_run *g, const struct value *a, u32 n, struct value *out) {
    if (a->kind != VALUE_STR)
        return run_fail(&g->r, "printf needs a format, not %s", go_type(a));
    size_t mark = run_mark(&g->r);
    TRY(go_printf(&g->r, a->s, a + 1, n - 1));
    return run_take_value(&g->r, mark, out);
}

/* The text that html, js and urlquery escape: print's, with nil as it prints alone. */
static enum status escapable(struct go_run *g, const struct value *a, u32 n, struct str *out) {
    struct value *shown = NULL, text;
    TRY(run_alloc(&g->r, (n + 1) * sizeof *shown, &shown));
    for (u32 i = 0; i < n; i++)
        shown[i] = is_nil(&a[i]) ? value_str(STR("<no value>")) : a[i];
    TRY(func_print(g, shown, n, &text));
    *out = text.s;
    return run_charge(&g->r, out->n);
}

static enum status func_html(struct go_run *g, const struct value *a, u32 n, struct value *out) {
    struct str s;
    TRY(escapable(g, a, n, &s));
    size_t mark = run_mark(&g->r);
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        struct str t = c == '"'    ? STR("&#34;")
                       : c == '\'' ? STR("&#39;")
                       : c == '&'  ? STR("&amp;")
                       : c == '<'  ? STR("&lt;")
                       : c == '>'  ? STR("&gt;")
                       : c == 0    ? STR("\xef\xbf\xbd")
                                   : (struct str){&s.p[i], 1};
        TRY(run_put(&g->r, t));
    }
    return run_take_value(&g->r, mark, out);
}

static enum status put_js(struct run *r, struct str s) {
    for (size_t at = 0; at < s.n;) {
        size_t from = at;
        u32 c = text_next(s, &at);
        if (c == '\\' || c == '\'' || c == '"')
            TRY(run_printf(r, "\\%c", (char)c));
        else if (c < ' ' || c == '<' || c == '>' || c == '&' || c == '=' ||
                 (c >= 0x80 && !text_is_printable(c)))
            TRY(run_printf(r, "\\u%04X", c));
        else
            TRY(run_put(r, str_slice(s, from, at)));
    }
    return OK;
}

static enum status func_js(struct go_run *g, const struct value *a, u32 n, struct value *out) {
    struct str s;
    TRY(escapable(g, a, n, &s));
    size_t mark = run_mark(&g->r);
    TRY(put_js(&g->r, s));
    return run_take_value(&g->r, mark, out);
}

static enum status func_urlquery(struct go_run *g, const struct value *a, u32 n, struct value *out) {
    struct str s;
    TRY(escapable(g, a, n, &s));
    size_t mark = run_mark(&g->r);
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        bool plain =
            (c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'z') || (c && strchr("-_.~", c));
        TRY(plain      ? run_put_char(&g->r, c)
            : c == ' ' ? run_put_char(&g->r, '+')
                       : run_printf(&g->r, "%%%02X", (u32)(u8)c));
    }
    return run_take_value(&g->r, mark, out);
}

/* --- the reference's own --- */
static enum status func_json(struct go_run *g, const struct value *a, u32 n UNUSED, struct value *out) {
    size_t mark = run_mark(&g->r);
    TRY(go_put_json(&g->r, a));
    return run_take_value(&g->r, mark, out);
}

static enum status put_date(struct go_run *g, i64 days, struct value *out) {
    time_t t = (time_t)(g->r.now_unix + g->r.utc_offset_s + days * 86400);
    struct tm tm;
    size_t mark = run_mark(&g->r);
    if (!gmtime_r(&t, &tm))
        return run_fail(&g->r, "the time is out of range");
    TRY(run_printf(&g->r, "%04d-%02d-%02d", tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday));
    return run_take_value(&g->r, mark, out);
}

static enum status func_current_date(struct go_run *g, const struct value *a UNUSED, u32 n UNUSED,
                                     struct value *out) {
    return put_date(g, 0, out);
}

static enum status func_yesterday_date(struct go_run *g, const struct value *a UNUSED, u32 n UNUSED,
                                       struct value *out) {
    return put_date(g, -1, out);
}

static struct str typescript_name(const struct value *type) {
    static const struct {
        const char *json, *name;
    } names[] = {
        {"string", "string"},   {"number", "number"}, {"integer", "number"},
        {"boolean", "boolean"}, {"array", "any[]"},   {"object", "Record<string, any>"},
        {"null", "null"},
    };
    for (size_t i = 0; type->kind == VALUE_STR && i < ARRAY_LEN(names); i++)
        if (str_is(type->s, names[i].json))
            return str_of(names[i].name);
    return STR("any");
}

static enum status put_typescript(struct run *r, const struct value *property) {
    struct value any_of = value_get(property, STR("anyOf")), type = value_get(property, STR("type"));
    TRY(run_enter(r));
    if (any_of.kind == VALUE_LIST && any_of.list.n) {
        for (u32 i = 0; i < any_of.list.n; i++) {
            TRY(run_put(r, i ? STR(" | ") : STR("")));
            TRY(put_typescript(r, &any_of.list.items[i]));
        }
    } else if (type.kind == VALUE_LIST && type.list.n) {
        for (u32 i = 0; i < type.list.n; i++) {
            TRY(run_put(r, i ? STR(" | ") : STR("")));
            TRY(run_put(r, typescript_name(&type.list.items[i])));
        }
    } else {
        TRY(run_put(r, typescript_name(&type)));
    }
    run_leave(r);
    return OK;
}

static enum status func_typescript(struct go_run *g, const struct value *a, u32 n UNUSED, struct value *out) {
    if (a->kind != VALUE_OBJECT)
        return run_fail(&g->r, "toTypeScriptType needs a property, not %s", go_type(a));
    size_t mark = run_mark(&g->r);
    TRY(put_typescript(&g->r, a));
    return run_take_value(&g->r, mark, out);
}

#define ANY UINT32_MAX
static const struct {
    const char *name;
    go_fn *fn;
    u32 n_min, n_max;
} functions[] = {
    [GO_FUNC_AND] = {"and", func_logic, 0, ANY},
    [GO_FUNC_OR] = {"or", func_logic, 0, ANY},
    {"not", func_not, 1, 1},
    {"eq", func_eq, 1, ANY},
    {"ne", func_ne, 2, 2},
    {"lt", func_lt, 2, 2},
    {"le", func_le, 2, 2},
    {"gt", func_gt, 2, 2},
    {"ge", func_ge, 2, 2},
    {"len", func_len, 1, 1},
    {"index", func_index, 1, ANY},
    {"slice", func_slice, 1, ANY},
    {"print", func_print, 0, ANY},
    {"printf", func_printf, 1, ANY},
    {"println", func_println, 0, ANY},
    {"html", func_html, 0, ANY},
    {"js", func_js, 0, ANY},
    {"urlquery", func_urlquery, 0, ANY},
    {"call", func_call, 1, ANY},
    {"json", func_json, 1, 1},
    {"currentDate", func_current_date, 0, ANY},
    {"yesterdayDate", func_yesterday_date, 0, ANY},
    {"toTypeScriptType", func_typescript, 1, 1},
};

bool go_func_find(struct str name, u32 *index) {
    for (u32 i = 0; i < ARRAY_LEN(functions); i++)
        if (str_is(name, functions[i].name)) {
            *index = i;
            return true;
        }
    return false;
}

enum status go_func_call(struct go_run *g, u32 index, const struct value *a, u32 n, struct value *out) {
    check(index < ARRAY_LEN(functions));
    if (n < functions[index].n_min || n > functions[index].n_max)
        return run_fail(&g->r, "wrong number of arguments for %s: %u", functions[index].name, n);
    return functions[index].fn(g, a, n, out);
}
