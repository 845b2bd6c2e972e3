/* py_format.c - Python's two ways to format: "%5.2f" % x and "{:>5}".format(x). */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/limit.h"
#include "chat/py.h"
#include "chat/text.h"

struct spec {
    struct str fill;
    char align; /* < > = ^ or 0 */
    char sign;  /* + blank - or 0 */
    bool alternate, zero, comma, underscore;
    i64 width, precision; /* -1: not given */
    char type;            /* 0: by the value */
};

/* Wider fields than this are an attack on memory, not a layout. */
#define FIELD_WIDTH_MAX 100000

static enum status put_padded(struct run *r, const struct spec *s, struct str sign, struct str body,
                              char align) {
    i64 pad = s->width - (i64)(text_len(sign) + text_len(body));
    i64 left = pad <= 0 ? 0 : align == '>' || align == '=' ? pad : align == '^' ? pad / 2 : 0;
    TRY(run_charge(r, (u64)MAX(pad, 0)));
    if (align == '=')
        TRY(run_put(r, sign));
    for (i64 i = 0; i < left; i++)
        TRY(run_put(r, s->fill));
    if (align != '=')
        TRY(run_put(r, sign));
    TRY(run_put(r, body));
    for (i64 i = left; i < pad; i++)
        TRY(run_put(r, s->fill));
    return OK;
}

static struct str sign_of(const struct spec *s, bool negative) {
    return negative ? STR("-") : s->sign == '+' ? STR("+") : s->sign == ' ' ? STR(" ") : STR("");
}

/* Digits in groups: of three for decimal numbers, of four for the others. */
static struct str grouped(const struct spec *s, struct str digits, char *out) {
    size_t whole = 0, n = 0,
           group = s->type == 'x' || s->type == 'X' || s->type == 'o' || s->type == 'b' ? 4 : 3;
    while (whole < digits.n && digits.p[whole] != '.' && digits.p[whole] != 'e' && digits.p[whole] != 'E')
        whole++;
    for (size_t i = 0; i < digits.n; i++) {
        if (i && i < whole && (whole - i) % group == 0 && (s->comma || s->underscore))
            out[n++] = s->comma ? ',' : '_';
        out[n++] = digits.p[i];
    }
    return (struct str){out, n};
}

static enum status put_int(struct run *r, const struct spec *s, i64 v) {
    char digits[80], all[160], prefix[4] = "";
    u64 u = v < 0 ? 0 - (u64)v : (u64)v;
    u32 base = s->type == 'x' || s->type == 'X' ? 16 : s->type == 'o' ? 8 : s->type == 'b' ? 2 : 10;
    size_t at = sizeof digits;
    do
        digits[--at] = (s->type == 'X' ? "0123456789ABCDEF" : "0123456789abcdef")[u % base];
    while (u /= base);
    if (s->alternate && base != 10)
        snprintf(prefix, sizeof prefix, "0%c", s->type);
    struct str sign = sign_of(s, v < 0),
               body = grouped(s, (struct str){digits + at, sizeof digits - at}, all);
    char head[8];
    int n = snprintf(head, sizeof head, "%.*s%s", STR_FMT(sign), prefix);
    return put_padded(r, s, (struct str){head, (size_t)n}, body, s->align ? s->align : '>');
}

static enum status put_float(struct run *r, const struct spec *s, f64 f) {
    char text[512], all[700], form[8];
    struct buf shortest = {0};
    bool percent = s->type == '%', negative = signbit(f) && !isnan(f);
    f64 v = fabs(percent ? f * 100 : f);
    i64 precision = s->precision < 0 ? 6 : MIN(s->precision, 100);
    struct str body;
    if (!isfinite(v)) {
        body = isnan(v) ? STR("nan") : STR("inf");
    } else if (!s->type && s->precision < 0) {
        value_write_float(&shortest, v);
        body = buf_str(&shortest);
    } else {
        char type = percent ? 'f' : s->type ? s->type : 'g';
        snprintf(form, sizeof form, "%%%s.*%c", s->alternate ? "#" : "", type == 'n' ? 'g' : type);
        int n = snprintf(text, sizeof text, form, (int)precision, v);
        body = (struct str){text, (size_t)MIN(n, (int)sizeof text - 2)};
        if (percent)
            text[body.n++] = '%';
    }
    body = grouped(s, str_slice(body, 0, 500), all);
    enum status status = put_padded(r, s, sign_of(s, negative), body, s->align ? s->align : '>');
    buf_release(&shortest);
    return status;
}

static enum status put_text(struct run *r, const struct spec *s, struct str text) {
    TRY(run_charge(r, text.n / 16));
    if (s->precision >= 0)
        text = str_slice(text, 0, text_offset(text, (size_t)s->precision));
    return put_padded(r, s, STR(""), text, s->align ? s->align : '<');
}

/* --- "..." % args --- */
struct percent {
    struct run *r;
    struct str format;
    size_t at;
    const struct value *args;
    u32 next; /* of a tuple */
    bool by_name;
};

static enum status percent_arg(struct percent *p, struct value *out) {
    bool tuple = p->args->kind == VALUE_LIST && p->args->form == FORM_TUPLE;
    u32 n = tuple ? p->args->list.n : 1;
    if (p->next >= n)
        return run_fail(p->r, "not enough arguments for the format");
    *out = tuple ? p->args->list.items[p->next] : *p->args;
    p->next++;
    return OK;
}

static enum status percent_number(struct percent *p, i64 *out) {
    struct value v;
    *out = 0;
    if (p->at < p->format.n && p->format.p[p->at] == '*') {
        p->at++;
        TRY(percent_arg(p, &v));
        if (!py_to_index(&v, out))
            return run_fail(p->r, "* in a format needs an integer");
    }
    while (p->at < p->format.n && p->format.p[p->at] >= '0' && p->format.p[p->at] <= '9') {
        *out = *out * 10 + (p->format.p[p->at++] - '0');
        if (*out > FIELD_WIDTH_MAX)
            break;
    }
    return *out > FIELD_WIDTH_MAX || *out < -FIELD_WIDTH_MAX ? run_fail(p->r, "the field is too wide") : OK;
}

static enum status percent_name(struct percent *p, struct value *out) {
    size_t end = str_find(p->format, STR(")"), p->at);
    if (end == SIZE_MAX)
        return run_fail(p->r, "the name in a format has no end");
    struct value key = value_str(str_slice(p->format, p->at, end));
    bool found = false;
    if (p->args->kind == VALUE_OBJECT)
        TRY(py_item(p->r, p->args, &key, out, &found));
    if (!found)
        return run_fail(p->r, "the format has no value '%.*s'", STR_FMT(key.s));
    p->at = end + 1;
    p->by_name = true;
    return OK;
}

static enum status percent_put(struct percent *p, struct spec *s, char type, const struct value *v) {
    struct str text;
    char t[4];
    i64 i;
    s->type = type == 'i' || type == 'u' || type == 'd' ? 0 : type;
    bool number = type != 's' && type != 'r' && type != 'a' && type != 'c';
    if (!s->align)
        s->align = s->zero && number ? '=' : '>';
    s->fill = s->zero && number ? STR("0") : STR(" ");
    if (type == 's' || type == 'r' || type == 'a') {
        size_t mark = run_mark(p->r);
        TRY(type == 's' ? py_put_str(p->r, v) : py_put_repr(p->r, v));
        TRY(run_take(p->r, mark, &text));
        return put_text(p->r, s, text);
    }
    if (type == 'c' && v->kind == VALUE_STR && text_len(v->s) == 1)
        return put_text(p->r, s, v->s);
    if (type == 'c' && py_to_index(v, &i) && i >= 0 && i <= 0x10ffff && (i < 0xd800 || i >= 0xe000))
        return put_text(p->r, s, (struct str){t, utf8_encode((u32)i, t)});
    if (!py_is_number(v) || type == 'c')
        return run_fail(p->r, "%%%c needs a number, not '%s'", type, py_type_name(v));
    if (strchr("eEfFgG", type))
        return put_float(p->r, s, py_to_f64(v));
    if (v->kind == VALUE_FLOAT && !(fabs(v->f) < 9e18))
        return run_fail(p->r, "the number does not fit an integer of 64 bits");
    return put_int(p->r, s, v->kind == VALUE_FLOAT ? (i64)v->f : v->kind == VALUE_BOOL ? (i64)v->b : v->i);
}

/* Behind "%". */
static enum status percent_field(struct percent *p) {
    struct spec s = {.width = -1, .precision = -1};
    struct value v = {0};
    bool named = p->format.p[p->at] == '(';
    if (named) {
        p->at++;
        TRY(percent_name(p, &v));
    }
    for (; p->at < p->format.n && p->format.p[p->at] && strchr("-+ #0", p->format.p[p->at]); p->at++) {
        char c = p->format.p[p->at];
        s.align = c == '-' ? '<' : s.align;
        s.sign = c == '+' || (c == ' ' && !s.sign) ? c : s.sign;
        s.alternate |= c == '#';
        s.zero |= c == '0';
    }
    TRY(percent_number(p, &s.width));
    if (s.width < 0) {
        s.align = '<';
        s.width = -s.width;
    }
    if (p->at < p->format.n && p->format.p[p->at] == '.') {
        p->at++;
        TRY(percent_number(p, &s.precision));
    }
    char type = p->at < p->format.n ? p->format.p[p->at++] : 0;
    if (type == '%')
        return run_put_char(p->r, '%');
    if (!type || !strchr("sradiuxXofFeEgGc", type))
        return run_fail(p->r, "unknown field in a format");
    if (!named)
        TRY(percent_arg(p, &v));
    return percent_put(p, &s, type, &v);
}

enum status py_percent(struct run *r, struct str format, const struct value *args, struct value *out) {
    struct percent p = {.r = r, .format = format, .args = args};
    size_t mark = run_mark(r);
    while (p.at < format.n) {
        size_t sign = MIN(str_find(format, STR("%"), p.at), format.n);
        TRY(run_put(r, str_slice(format, p.at, sign)));
        p.at = sign + 1;
        if (sign == format.n)
            break;
        if (p.at == format.n)
            return run_fail(r, "incomplete format");
        TRY(percent_field(&p));
    }
    bool tuple = args->kind == VALUE_LIST && args->form == FORM_TUPLE;
    /* What Python takes for a mapping may stay unused. */
    bool mapping = args->kind == VALUE_OBJECT || args->kind == VALUE_UNDEFINED ||
                   (args->kind == VALUE_LIST && args->form <= FORM_RANGE);
    bool rest = tuple ? p.next < args->list.n : !p.next && !mapping;
    if (rest && !p.by_name)
        return run_fail(r, "not all arguments are used by the format");
    return run_take_value(r, mark, out);
}

/* --- "{}".format() --- */
static i64 spec_number(struct str s, size_t *at) {
    i64 v = -1;
    for (; *at < s.n && s.p[*at] >= '0' && s.p[*at] <= '9' && v <= FIELD_WIDTH_MAX; ++*at)
        v = MAX(v, 0) * 10 + (s.p[*at] - '0');
    return v;
}

/* [[fill]align][sign][#][0][width][,][.precision][type] */
static enum status parse_spec(struct run *r, struct str text, struct spec *s) {
    size_t at = 0, next = 0;
    *s = (struct spec){.fill = STR(" "), .width = -1, .precision = -1};
    if (text.n)
        text_next(text, &next);
    if (next < text.n && strchr("<>=^", text.p[next])) {
        s->fill = str_slice(text, 0, next);
        s->align = text.p[next];
        at = next + 1;
    } else if (text.n && strchr("<>=^", text.p[0])) {
        s->align = text.p[0];
        at = 1;
    }
    if (at < text.n && strchr("+- ", text.p[at]))
        s->sign = text.p[at++];
    if (at < text.n && text.p[at] == '#')
        s->alternate = ++at > 0;
    if (at < text.n && text.p[at] == '0') {
        at++;
        s->fill = s->align ? s->fill : STR("0");
        s->align = s->align ? s->align : '=';
    }
    s->width = spec_number(text, &at);
    if (at < text.n && (text.p[at] == ',' || text.p[at] == '_')) {
        s->comma = text.p[at] == ',';
        s->underscore = text.p[at++] == '_';
    }
    if (at < text.n && text.p[at] == '.') {
        at++;
        s->precision = spec_number(text, &at);
        if (s->precision < 0)
            return run_fail(r, "a format lacks its precision");
    }
    if (at < text.n)
        s->type = text.p[at++];
    if (at < text.n || s->width > FIELD_WIDTH_MAX || s->precision > FIELD_WIDTH_MAX ||
        (s->type && !strchr("sdbcoxXeEfFgGn%", s->type)))
        return run_fail(r, "wrong format '%.*s'", STR_FMT(text));
    return OK;
}

static enum status put_by_spec(struct run *r, struct str spec, const struct value *v) {
    struct spec s;
    struct str text;
    TRY(parse_spec(r, spec, &s));
    if (v->kind == VALUE_STR || (!spec.n) || !py_is_number(v)) {
        if (s.type && s.type != 's')
            return run_fail(r, "the format '%c' needs a number", s.type);
        if (v->kind != VALUE_STR && spec.n)
            return run_fail(r, "a value of the kind '%s' takes no format", py_type_name(v));
        TRY(py_text(r, v, &text));
        return put_text(r, &s, text);
    }
    if (s.type == 's')
        return run_fail(r, "the format 's' needs a string");
    bool real = v->kind == VALUE_FLOAT || (s.type && strchr("eEfFgG%", s.type));
    if (!real)
        s.type = s.type == 'd' || s.type == 'n' ? 0 : s.type;
    return real ? put_float(r, &s, py_to_f64(v)) : put_int(r, &s, v->kind == VALUE_BOOL ? (i64)v->b : v->i);
}

struct format {
    struct run *r;
    const struct value *args, *kwargs;
    u32 next;
};

/* name, 0, or nothing, then .attribute or [key] any number of times. */
static enum status format_value(struct format *f, struct str name, struct value *out) {
    size_t end = 0;
    i64 index = -1;
    bool found = false;
    while (end < name.n && name.p[end] != '.' && name.p[end] != '[')
        end++;
    struct str first = str_slice(name, 0, end);
    if (!first.n)
        index = f->next++;
    if (!first.n || str_to_i64(first, &index)) {
        found = index >= 0 && index < f->args->list.n;
        if (found)
            *out = f->args->list.items[index];
    } else {
        *out = value_get(f->kwargs, first);
        found = out->kind != VALUE_UNDEFINED;
    }
    while (found && end < name.n) {
        bool item = name.p[end] == '[';
        size_t from = end + 1, to = from;
        while (to < name.n && (item ? name.p[to] != ']' : name.p[to] != '.' && name.p[to] != '['))
            to++;
        struct value key = value_str(str_slice(name, from, to)), of = *out;
        if (item && str_to_i64(key.s, &index))
            key = value_int(index);
        if (item)
            TRY(py_item(f->r, &of, &key, out, &found));
        else
            found = false;
        end = to + item;
    }
    return found ? OK : run_fail(f->r, "the format has no value '%.*s'", STR_FMT(name));
}

static enum status format_field(struct format *f, struct str field) {
    size_t colon = MIN(str_find(field, STR(":"), 0), field.n);
    struct str name = str_slice(field, 0, colon), spec = str_slice(field, colon + 1, field.n);
    struct value v = {0};
    char conversion = 0;
    if (name.n >= 2 && name.p[name.n - 2] == '!') {
        conversion = name.p[name.n - 1];
        name.n -= 2;
    }
    TRY(format_value(f, name, &v));
    if (str_find(spec, STR("{"), 0) != SIZE_MAX)
        return run_fail(f->r, "fields inside of fields are not supported");
    if (conversion) {
        size_t mark = run_mark(f->r);
        TRY(conversion == 'r' ? py_put_repr(f->r, &v) : py_put_str(f->r, &v));
        TRY(run_take_value(f->r, mark, &v));
    }
    return put_by_spec(f->r, spec, &v);
}

enum status py_format(struct run *r, struct str format, const struct value *args, const struct value *kwargs,
                      struct value *out) {
    struct format f = {r, args, kwargs, 0};
    size_t mark = run_mark(r);
    TRY(run_charge(r, format.n));
    for (size_t at = 0; at < format.n; at++) {
        char c = format.p[at];
        bool twice = at + 1 < format.n && format.p[at + 1] == c;
        if (c != '{' && c != '}') {
            TRY(run_put_char(r, c));
        } else if (twice) {
            TRY(run_put_char(r, c));
            at++;
        } else {
            size_t end = c == '{' ? str_find(format, STR("}"), at) : SIZE_MAX;
            if (end == SIZE_MAX)
                return run_fail(r, "a single brace in a format");
            TRY(format_field(&f, str_slice(format, at + 1, end)));
            at = end;
        }
    }
    return run_take_value(r, mark, out);
}
