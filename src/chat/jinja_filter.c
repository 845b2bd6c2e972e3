/* jinja_filter.c - filters on text, numbers and single values, and the call of tabled functions. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/limit.h"
#include "chat/jinja.h"
#include "chat/text.h"

/* --- calling functions of a table --- */
const struct jinja_method *jinja_find(const struct jinja_method *table, struct str name) {
    for (; table->name; table++)
        if (str_is(name, table->name))
            return table;
    return NULL;
}

/* Index of name in "a,b,c"; the number of names if it is none of them. */
static u32 param_index(const char *params, struct str name) {
    u32 i = 0;
    for (const char *at = params; *at; i++) {
        size_t n = strcspn(at, ",");
        if (str_eq(name, (struct str){at, n}))
            return i;
        at += n + (at[n] == ',');
    }
    return i;
}

enum status jinja_invoke(struct jinja_run *j, const struct jinja_method *m, const struct value *v,
                         const struct call_args *args, struct value *out) {
    if (m->args_fn)
        return m->args_fn(j, v, args, out);
    struct value a[CALL_PARAMS_MAX] = {0};
    u32 n = param_index(m->params, STR_NONE);
    check(n <= CALL_PARAMS_MAX);
    if (args->n > n)
        return run_fail(&j->r, "%s takes at most %u arguments", m->name, n);
    for (u32 i = 0; i < args->n; i++)
        a[i] = args->pos[i];
    for (u32 i = 0; i < args->n_kw; i++) {
        u32 at = param_index(m->params, args->kw[i].name);
        if (at == n)
            return run_fail(&j->r, "%s takes no argument '%.*s'", m->name, STR_FMT(args->kw[i].name));
        a[at] = args->kw[i].v;
    }
    return m->fn(j, v, a, out);
}

enum status jinja_filter(struct jinja_run *j, struct str name, const struct value *v,
                         const struct call_args *args, struct value *out) {
    const struct jinja_method *m = jinja_find(jinja_text_filters, name);
    if (!m)
        m = jinja_find(jinja_list_filters, name);
    if (!m)
        return run_fail(&j->r, "there is no filter '%.*s'", STR_FMT(name));
    u32 depth = j->r.depth;
    size_t mark = run_mark(&j->r);
    enum status s = jinja_invoke(j, m, v, args, out);
    if (s != ERR_INVALID || !m->lazy)
        return s;
    j->r.depth = depth;
    j->r.text->n = mark;
    *out = value_list();
    out->form = FORM_GENERATOR;
    out->list.cap = PY_GENERATOR_FAILS;
    return OK;
}

enum status jinja_int_arg(struct jinja_run *j, const struct value *a, i64 fallback, i64 *out) {
    *out = fallback;
    if (a->kind == VALUE_UNDEFINED || a->kind == VALUE_NONE || py_to_index(a, out))
        return OK;
    return run_fail(&j->r, "an integer is needed, not '%s'", py_type_name(a));
}

static enum status text_arg(struct jinja_run *j, const struct value *a, struct str fallback,
                            struct str *out) {
    *out = fallback;
    return a->kind == VALUE_UNDEFINED || a->kind == VALUE_NONE ? OK : py_text(&j->r, a, out);
}

static enum status need_text(struct jinja_run *j, const struct value *v, struct str *out) {
    *out = v->s;
    return v->kind == VALUE_STR ? OK : run_fail(&j->r, "a string is needed, not '%s'", py_type_name(v));
}

/* --- case and white space --- */
static enum status put_case(struct jinja_run *j, const struct value *v, enum text_case to,
                            struct value *out) {
    struct str s;
    TRY(py_text(&j->r, v, &s));
    size_t mark = run_mark(&j->r);
    TRY(text_put_case(&j->r, s, to));
    return run_take_value(&j->r, mark, out);
}

static enum status filter_upper(struct jinja_run *j, const struct value *v, const struct value *a UNUSED,
                                struct value *out) {
    return put_case(j, v, TEXT_UPPER, out);
}

static enum status filter_lower(struct jinja_run *j, const struct value *v, const struct value *a UNUSED,
                                struct value *out) {
    return put_case(j, v, TEXT_LOWER, out);
}

static enum status filter_title(struct jinja_run *j, const struct value *v, const struct value *a UNUSED,
                                struct value *out) {
    return put_case(j, v, TEXT_JINJA_TITLE, out);
}

static enum status filter_capitalize(struct jinja_run *j, const struct value *v, const struct value *a UNUSED,
                                     struct value *out) {
    return put_case(j, v, TEXT_CAPITALIZE, out);
}

static enum status filter_trim(struct jinja_run *j, const struct value *v, const struct value *a,
                               struct value *out) {
    struct str s, chars;
    TRY(py_text(&j->r, v, &s));
    TRY(text_arg(j, &a[0], STR_NONE, &chars));
    TRY(run_charge(&j->r, s.n / 16 * (chars.n + 1)));
    *out = value_str(text_strip(s, true, true, chars));
    return OK;
}

static enum status filter_center(struct jinja_run *j, const struct value *v, const struct value *a,
                                 struct value *out) {
    struct str s;
    i64 width;
    TRY(py_text(&j->r, v, &s));
    TRY(jinja_int_arg(j, &a[0], 80, &width));
    return jinja_center(j, s, width, STR(" "), true, true, out);
}

static enum status filter_replace(struct jinja_run *j, const struct value *v, const struct value *a,
                                  struct value *out) {
    struct str s, from, to;
    i64 count;
    TRY(py_text(&j->r, v, &s));
    TRY(py_text(&j->r, &a[0], &from));
    TRY(py_text(&j->r, &a[1], &to));
    TRY(jinja_int_arg(j, &a[2], -1, &count));
    return jinja_replace(j, s, from, to, count, out);
}

static enum status put_indented(struct jinja_run *j, struct str s, struct str by, bool first, bool blank) {
    struct str line;
    size_t at = 0;
    for (u32 i = 0; jinja_next_line(s, &at, &line); i++) {
        if (i)
            TRY(run_put_char(&j->r, '\n'));
        if (i == 0 ? first : blank || line.n)
            TRY(run_put(&j->r, by));
        TRY(run_put(&j->r, line));
    }
    return OK;
}

/* A newline at the end of the text is kept, as Jinja adds one before it splits. */
static enum status filter_indent(struct jinja_run *j, const struct value *v, const struct value *a,
                                 struct value *out) {
    struct str s, by = STR_NONE;
    struct value blanks = value_str(STR(" ")), width = a[0].kind == VALUE_UNDEFINED ? value_int(4) : a[0],
                 indent;
    TRY(need_text(j, v, &s));
    if (width.kind == VALUE_STR)
        by = width.s;
    else {
        TRY(py_binary(&j->r, PY_MUL, &blanks, &width, &indent));
        by = indent.s;
    }
    size_t mark = run_mark(&j->r);
    TRY(run_put(&j->r, s));
    TRY(run_put_char(&j->r, '\n'));
    TRY(run_take(&j->r, mark, &s));
    TRY(put_indented(j, s, by, py_truth(&a[1]), py_truth(&a[2])));
    return run_take_value(&j->r, mark, out);
}

static enum status filter_truncate(struct jinja_run *j, const struct value *v, const struct value *a,
                                   struct value *out) {
    struct str s, end;
    i64 length, leeway;
    u64 n;
    TRY(py_length(&j->r, v, &n));
    TRY(jinja_int_arg(j, &a[0], 255, &length));
    TRY(text_arg(j, &a[2], STR("..."), &end));
    TRY(jinja_int_arg(j, &a[3], 5, &leeway));
    i64 keep = length - (i64)text_len(end);
    if (keep < 0 || leeway < 0)
        return run_fail(&j->r, "truncate: the length is smaller than its end mark");
    *out = *v;
    if ((i64)n <= length + leeway)
        return OK;
    TRY(need_text(j, v, &s));
    struct str head = str_slice(s, 0, text_offset(s, (size_t)keep));
    if (!py_truth(&a[1]))
        for (size_t i = head.n; i-- > 0;)
            if (head.p[i] == ' ') {
                head.n = i;
                break;
            }
    size_t mark = run_mark(&j->r);
    TRY(run_put(&j->r, head));
    TRY(run_put(&j->r, end));
    return run_take_value(&j->r, mark, out);
}

static enum status filter_wordcount(struct jinja_run *j, const struct value *v, const struct value *a UNUSED,
                                    struct value *out) {
    struct str s;
    i64 n = 0;
    bool inside = false;
    TRY(py_text(&j->r, v, &s));
    TRY(run_charge(&j->r, s.n / 4));
    for (size_t at = 0; at < s.n;) {
        size_t from = at;
        bool word = text_next(s, &at) == '_' || text_is(str_slice(s, from, at), TEXT_ALNUM);
        n += word && !inside;
        inside = word;
    }
    *out = value_int(n);
    return OK;
}

static enum status filter_urlencode(struct jinja_run *j, const struct value *v, const struct value *a UNUSED,
                                    struct value *out) {
    struct str s;
    TRY(py_text(&j->r, v, &s));
    TRY(run_charge(&j->r, s.n));
    size_t mark = run_mark(&j->r);
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        bool plain =
            (c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'z') || (c && strchr("_.-~/", c));
        TRY(plain ? run_put_char(&j->r, c) : run_printf(&j->r, "%%%02X", (u32)(u8)c));
    }
    return run_take_value(&j->r, mark, out);
}

static enum status filter_escape(struct jinja_run *j, const struct value *v, const struct value *a UNUSED,
                                 struct value *out) {
    struct str s;
    *out = *v;
    if (v->kind == VALUE_STR && v->form == FORM_MARKUP)
        return OK;
    TRY(py_text(&j->r, v, &s));
    size_t mark = run_mark(&j->r);
    TRY(py_put_escaped(&j->r, s));
    TRY(run_take_value(&j->r, mark, out));
    out->form = FORM_MARKUP;
    return OK;
}

static enum status filter_safe(struct jinja_run *j, const struct value *v, const struct value *a UNUSED,
                               struct value *out) {
    TRY(py_text(&j->r, v, &out->s));
    out->kind = VALUE_STR;
    out->form = FORM_MARKUP;
    return OK;
}

static enum status filter_string(struct jinja_run *j, const struct value *v, const struct value *a UNUSED,
                                 struct value *out) {
    struct str s;
    *out = *v;
    if (v->kind == VALUE_STR)
        return OK;
    TRY(py_text(&j->r, v, &s));
    *out = value_str(s);
    return OK;
}

static enum status filter_default(struct jinja_run *j UNUSED, const struct value *v, const struct value *a,
                                  struct value *out) {
    bool use = v->kind == VALUE_UNDEFINED || (py_truth(&a[1]) && !py_truth(v));
    *out = !use ? *v : a[0].kind == VALUE_UNDEFINED ? value_str(STR("")) : a[0];
    return OK;
}

static enum status filter_attr(struct jinja_run *j, const struct value *v, const struct value *a,
                               struct value *out) {
    struct str name;
    TRY(py_text(&j->r, &a[0], &name));
    struct value none = {.kind = VALUE_UNDEFINED, .s = name};
    if (v->kind == VALUE_OBJECT && v->form != FORM_NAMESPACE && !jinja_find_method(v, name)) {
        *out = none;
        return OK;
    }
    return jinja_attr(j, v, name, out);
}

/* --- JSON --- */
static enum status json_indent(struct jinja_run *j, const struct value *a, struct json_style *style) {
    struct value blank = value_str(STR(" ")), text = *a;
    if (a->kind == VALUE_NONE || a->kind == VALUE_UNDEFINED)
        return OK;
    style->comma = STR(",");
    if (a->kind != VALUE_STR)
        TRY(py_binary(&j->r, PY_MUL, &blank, a, &text));
    style->indent = text.s.p ? text.s : STR("");
    return OK;
}

static enum status filter_tojson(struct jinja_run *j, const struct value *v, const struct value *a,
                                 struct value *out) {
    struct json_style style = {.comma = STR(", "),
                               .colon = STR(": "),
                               .ascii = py_truth(&a[0]),
                               .sort_keys = py_truth(&a[3]),
                               .limit_bytes = j->r.text_bytes_max};
    TRY(json_indent(j, &a[1], &style));
    const struct value *pair = &a[2];
    if (pair->kind == VALUE_LIST) {
        if (pair->list.n != 2 || pair->list.items[0].kind != VALUE_STR ||
            pair->list.items[1].kind != VALUE_STR)
            return run_fail(&j->r, "tojson: separators are two strings");
        style.comma = pair->list.items[0].s;
        style.colon = pair->list.items[1].s;
    }
    size_t mark = run_mark(&j->r);
    struct err why;
    enum status s = value_write_json(j->r.text, v, &style, &why);
    if (s != OK)
        return s == ERR_TOO_LARGE ? run_too_large(&j->r, why.text) : run_fail(&j->r, "%.300s", why.text);
    TRY(run_charge(&j->r, (run_mark(&j->r) - mark) / 4));
    return run_take_value(&j->r, mark, out);
}

/* --- numbers --- */
/* Python's int(text, base): blanks around, a sign, a prefix that fits the base, single underscores inside. */
static bool parse_int(struct str s, i64 base, i64 *out) {
    char digits[80];
    size_t n = 0;
    s = text_strip(s, true, true, STR_NONE);
    bool minus = s.n && s.p[0] == '-';
    if (s.n && (s.p[0] == '-' || s.p[0] == '+'))
        s = str_slice(s, 1, s.n);
    if (s.n > 2 && s.p[0] == '0') {
        char kind = (char)(s.p[1] | 32);
        i64 named = kind == 'x' ? 16 : kind == 'o' ? 8 : kind == 'b' ? 2 : 0;
        if (named && (base == named || base == 0)) {
            base = named;
            s = str_slice(s, s.p[2] == '_' ? 3 : 2, s.n);
        }
    }
    base = base == 0 ? 10 : base;
    if (!s.n || s.p[0] == '_' || s.p[s.n - 1] == '_')
        return false;
    for (size_t i = 0; i < s.n && n < sizeof digits - 1; i++) {
        u32 c = (u8)s.p[i];
        u32 d = c >= '0' && c <= '9'                 ? c - '0'
                : (c | 32) >= 'a' && (c | 32) <= 'z' ? (c | 32) - 'a' + 10
                                                     : 99;
        if (c == '_' && s.p[i - 1] != '_')
            continue;
        if ((i64)d >= base)
            return false;
        digits[n++] = (char)c;
    }
    digits[n] = 0;
    unsigned long long v = strtoull(digits, NULL, (int)base);
    if (n == sizeof digits - 1 || v > INT64_MAX)
        return false;
    *out = minus ? -(i64)v : (i64)v;
    return true;
}

static bool parse_float(struct str s, f64 *out) {
    char text[400];
    size_t n = 0;
    s = text_strip(s, true, true, STR_NONE);
    struct str word = s.n && (s.p[0] == '-' || s.p[0] == '+') ? str_slice(s, 1, s.n) : s;
    bool named = str_eq_nocase(word, STR("inf")) || str_eq_nocase(word, STR("infinity")) ||
                 str_eq_nocase(word, STR("nan"));
    if (s.n == 0 || s.n >= sizeof text)
        return false;
    for (size_t i = 0; i < s.n; i++) {
        bool digit = s.p[i] >= '0' && s.p[i] <= '9';
        bool gap = s.p[i] == '_' && i && i + 1 < s.n && s.p[i - 1] >= '0' && s.p[i - 1] <= '9' &&
                   s.p[i + 1] >= '0' && s.p[i + 1] <= '9';
        if (gap)
            continue;
        if (!named && !digit && !strchr("+-.eE", s.p[i]))
            return false;
        text[n++] = s.p[i];
    }
    text[n] = 0;
    char *end;
    *out = strtod(text, &end);
    return end == text + n;
}

static enum status filter_int(struct jinja_run *j, const struct value *v, const struct value *a,
                              struct value *out) {
    i64 base, i = 0;
    f64 f;
    if (v->kind == VALUE_UNDEFINED)
        return jinja_undefined(j, v);
    TRY(jinja_int_arg(j, &a[1], 10, &base));
    bool is = py_to_index(v, &i);
    if (v->kind == VALUE_STR && base >= 0 && base <= 36 && base != 1)
        is = parse_int(v->s, base, &i);
    bool real = !is && (v->kind == VALUE_FLOAT || (v->kind == VALUE_STR && parse_float(v->s, &f)));
    if (v->kind == VALUE_FLOAT)
        f = v->f;
    if (real && !isnan(f)) {
        if (!(f > -9.2e18 && f < 9.2e18))
            return run_fail(&j->r, "the number does not fit an integer of 64 bits");
        i = (i64)f;
        is = true;
    }
    *out = is ? value_int(i) : a[0].kind == VALUE_UNDEFINED ? value_int(0) : a[0];
    return OK;
}

static enum status filter_float(struct jinja_run *j, const struct value *v, const struct value *a,
                                struct value *out) {
    f64 f = 0;
    if (v->kind == VALUE_UNDEFINED)
        return jinja_undefined(j, v);
    bool is = py_is_number(v) || (v->kind == VALUE_STR && parse_float(v->s, &f));
    if (py_is_number(v))
        f = py_to_f64(v);
    *out = is || a[0].kind == VALUE_UNDEFINED ? (struct value){.kind = VALUE_FLOAT, .f = f} : a[0];
    return OK;
}

static enum status filter_abs(struct jinja_run *j, const struct value *v, const struct value *a UNUSED,
                              struct value *out) {
    if (!py_is_number(v))
        return run_fail(&j->r, "abs needs a number, not '%s'", py_type_name(v));
    if (v->kind == VALUE_FLOAT) {
        *out = (struct value){.kind = VALUE_FLOAT, .f = fabs(v->f)};
        return OK;
    }
    *out = value_int(v->kind == VALUE_BOOL ? (i64)v->b : v->i);
    return out->i < 0 ? py_negate(&j->r, v, out) : OK;
}

/* Python's round(): half to even on the exact decimal value, which printf does. */
static f64 round_common(f64 f, i64 precision) {
    char text[400];
    if (precision > 22 || !isfinite(f))
        return f;
    if (precision < 0) {
        f64 unit = pow(10, (f64)-precision);
        return isfinite(unit) ? rint(f / unit) * unit : 0;
    }
    snprintf(text, sizeof text, "%.*f", (int)precision, f);
    return strtod(text, NULL);
}

static enum status filter_round(struct jinja_run *j, const struct value *v, const struct value *a,
                                struct value *out) {
    i64 precision;
    struct str method;
    TRY(jinja_int_arg(j, &a[0], 0, &precision));
    TRY(text_arg(j, &a[1], STR("common"), &method));
    bool common = str_is(method, "common");
    if (!common && !str_is(method, "ceil") && !str_is(method, "floor"))
        return run_fail(&j->r, "round: the method must be common, ceil or floor");
    if (!py_is_number(v))
        return run_fail(&j->r, "round needs a number, not '%s'", py_type_name(v));
    if (common && v->kind != VALUE_FLOAT && precision >= 0) {
        *out = value_int(v->kind == VALUE_BOOL ? (i64)v->b : v->i);
        return OK;
    }
    f64 f = py_to_f64(v), unit = pow(10, (f64)MAX(MIN(precision, 300), -300));
    f = common ? round_common(f, precision)
               : (str_is(method, "ceil") ? ceil(f * unit) : floor(f * unit)) / unit;
    *out = common && v->kind != VALUE_FLOAT ? value_int((i64)f) : (struct value){.kind = VALUE_FLOAT, .f = f};
    return OK;
}

static enum status filter_format(struct jinja_run *j, const struct value *v, const struct call_args *args,
                                 struct value *out) {
    struct value all = value_list();
    struct str s;
    TRY(py_text(&j->r, v, &s));
    if (args->n && args->n_kw)
        return run_fail(&j->r, "format takes arguments with or without names, not both");
    all.form = FORM_TUPLE;
    for (u32 i = 0; i < args->n; i++)
        TRY(run_append(&j->r, &all, args->pos[i]));
    if (args->n_kw)
        TRY(run_object(&j->r, &all));
    for (u32 i = 0; i < args->n_kw; i++)
        TRY(run_set(&j->r, &all, value_str(args->kw[i].name), args->kw[i].v));
    return py_percent(&j->r, s, &all, out);
}

const struct jinja_method jinja_text_filters[] = {
    {"tojson", "ensure_ascii,indent,separators,sort_keys", filter_tojson, NULL},
    {"trim", "chars", filter_trim, NULL},
    {"upper", "", filter_upper, NULL},
    {"lower", "", filter_lower, NULL},
    {"title", "", filter_title, NULL},
    {"capitalize", "", filter_capitalize, NULL},
    {"string", "", filter_string, NULL},
    {"replace", "old,new,count", filter_replace, NULL},
    {"default", "default_value,boolean", filter_default, NULL},
    {"d", "default_value,boolean", filter_default, NULL},
    {"indent", "width,first,blank", filter_indent, NULL},
    {"int", "default,base", filter_int, NULL},
    {"float", "default", filter_float, NULL},
    {"abs", "", filter_abs, NULL},
    {"round", "precision,method", filter_round, NULL},
    {"safe", "", filter_safe, NULL},
    {"escape", "", filter_escape, NULL},
    {"e", "", filter_escape, NULL},
    {"format", NULL, NULL, filter_format},
    {"center", "width", filter_center, NULL},
    {"truncate", "length,killwords,end,leeway", filter_truncate, NULL},
    {"wordcount", "", filter_wordcount, NULL},
    {"urlencode", "", filter_urlencode, NULL},
    {"attr", "name", filter_attr, NULL},
    {NULL, NULL, NULL, NULL},
};
