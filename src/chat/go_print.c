/* go_print.c - values as Go's fmt package prints them. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/limit.h"
#include "chat/go.h"
#include "chat/text.h"

/* From this exponent on Go's %v and %g write one. */
#define EXPONENT_MAX 6

static enum status put_inner(struct run *r, const struct value *v);

enum status go_put_json(struct run *r, const struct value *v) {
    struct json_style style = {
        .comma = STR(","), .colon = STR(":"), .go = true, .limit_bytes = r->text_bytes_max};
    struct err why;
    size_t mark = run_mark(r);
    enum status s = value_write_json(r->text, v, &style, &why);
    if (s != OK)
        return run_too_large(r, why.text);
    return run_charge(r, (run_mark(r) - mark) / 4);
}

/* %v of a float64: the shortest digits, with an exponent from 1e+06 on and below 1e-04. */
enum status go_put_float(struct run *r, f64 f) {
    char t[64];
    int digits = 0;
    if (!isfinite(f))
        return run_put(r, isnan(f) ? STR("NaN") : f > 0 ? STR("+Inf") : STR("-Inf"));
    do
        snprintf(t, sizeof t, "%.*e", digits, f);
    while (strtod(t, NULL) != f && ++digits < 17);
    long exponent = strtol(strchr(t, 'e') + 1, NULL, 10);
    if (exponent >= -4 && exponent < EXPONENT_MAX)
        snprintf(t, sizeof t, "%.*f", (int)MAX(digits - exponent, 0), f);
    return run_put(r, str_of(t));
}

static enum status put_list(struct run *r, const struct value *v) {
    TRY(run_put_char(r, '['));
    for (u32 i = 0; i < v->list.n; i++) {
        if (i)
            TRY(run_put_char(r, ' '));
        TRY(put_inner(r, &v->list.items[i]));
    }
    return run_put_char(r, ']');
}

static enum status put_map(struct run *r, const struct value *v) {
    struct value keys, item;
    TRY(go_sorted_keys(r, v, &keys));
    TRY(run_put(r, STR("map[")));
    for (u32 i = 0; i < keys.list.n; i++) {
        check(value_get_key(v, &keys.list.items[i], &item));
        if (i)
            TRY(run_put_char(r, ' '));
        TRY(run_put(r, keys.list.items[i].s));
        TRY(run_put_char(r, ':'));
        TRY(put_inner(r, &item));
    }
    return run_put_char(r, ']');
}

static enum status put_value(struct run *r, const struct value *v, struct str nil) {
    switch (v->kind) {
    case VALUE_UNDEFINED:
    case VALUE_NONE: return run_put(r, nil);
    case VALUE_BOOL: return run_put(r, v->b ? STR("true") : STR("false"));
    case VALUE_INT: return run_printf(r, "%lld", (long long)v->i);
    case VALUE_FLOAT: return go_put_float(r, v->f);
    case VALUE_STR: return run_put(r, v->s);
    case VALUE_LIST: return v->form == FORM_JSON ? go_put_json(r, v) : put_list(r, v);
    case VALUE_OBJECT: return v->form == FORM_PLAIN ? put_map(r, v) : go_put_json(r, v);
    case VALUE_CALLABLE: return OK;
    }
    return OK;
}

static enum status put_inner(struct run *r, const struct value *v) {
    TRY(run_enter(r));
    TRY(put_value(r, v, STR("<nil>")));
    run_leave(r);
    return OK;
}

enum status go_put(struct run *r, const struct value *v) { return put_value(r, v, STR("<no value>")); }

enum status go_put_all(struct run *r, const struct value *a, u32 n, bool line) {
    for (u32 i = 0; i < n; i++) {
        bool blank = i && (line || (a[i].kind != VALUE_STR && a[i - 1].kind != VALUE_STR));
        if (blank)
            TRY(run_put_char(r, ' '));
        TRY(put_inner(r, &a[i]));
    }
    return line ? run_put_char(r, '\n') : OK;
}

/* --- Printf --- */
struct verb {
    bool plus, minus, sharp, space, zero;
    bool has_width, has_precision;
    i64 width, precision;
    u32 letter;
};

#define FIELD_WIDTH_MAX 100000

/* number: zeros go behind the sign. */
static enum status put_padded(struct run *r, const struct verb *f, size_t mark, bool number) {
    struct str s;
    TRY(run_take(r, mark, &s));
    i64 pad = f->has_width ? f->width - (i64)text_len(s) : 0;
    TRY(run_charge(r, (u64)MAX(pad, 0) + s.n / 16));
    bool zeros = f->zero && !f->minus,
         sign = zeros && number && s.n && (s.p[0] == '-' || s.p[0] == '+' || s.p[0] == ' ');
    if (sign)
        TRY(run_put_char(r, s.p[0]));
    for (i64 i = 0; i < pad && !f->minus; i++)
        TRY(run_put_char(r, zeros ? '0' : ' '));
    TRY(run_put(r, str_slice(s, sign, s.n)));
    for (i64 i = 0; i < pad && f->minus; i++)
        TRY(run_put_char(r, ' '));
    return OK;
}

static enum status put_quoted(struct run *r, struct str s) {
    TRY(run_charge(r, s.n));
    TRY(run_put_char(r, '"'));
    for (size_t at = 0; at < s.n;) {
        size_t from = at;
        u32 c = text_next(s, &at);
        static const char plain[] = "\a\b\f\n\r\t\v\\\"", letter[] = "abfnrtv\\\"";
        const char *found = c && c < 0x80 ? strchr(plain, (int)c) : NULL;
        if (found)
            TRY(run_printf(r, "\\%c", letter[found - plain]));
        else if (c == 0xfffd && at - from == 1)
            TRY(run_printf(r, "\\x%02x", (u8)s.p[from]));
        else if (text_is_printable(c))
            TRY(run_put(r, str_slice(s, from, at)));
        else if (c < 0x80)
            TRY(run_printf(r, "\\x%02x", c));
        else
            TRY(run_printf(r, c < 0x10000 ? "\\u%04x" : "\\U%08x", c));
    }
    return run_put_char(r, '"');
}

static enum status put_integer(struct run *r, const struct verb *f, i64 v) {
    char t[72], *at = t + sizeof t;
    u64 u = v < 0 ? 0 - (u64)v : (u64)v;
    u32 base = f->letter == 'x' || f->letter == 'X'   ? 16
               : f->letter == 'o' || f->letter == 'O' ? 8
               : f->letter == 'b'                     ? 2
                                                      : 10;
    const char *digits = f->letter == 'X' ? "0123456789ABCDEF" : "0123456789abcdef";
    do
        *--at = digits[u % base];
    while (u /= base);
    i64 n = t + sizeof t - at;
    if (v < 0 || f->plus || f->space)
        TRY(run_put_char(r, v < 0 ? '-' : f->plus ? '+' : ' '));
    if (f->sharp && base != 10)
        TRY(run_put(r, base == 16  ? (f->letter == 'X' ? STR("0X") : STR("0x"))
                       : base == 8 ? STR("0")
                                   : STR("0b")));
    for (i64 i = n; f->has_precision && i < f->precision; i++)
        TRY(run_put_char(r, '0'));
    return run_put(r, (struct str){at, (size_t)n});
}

/* Is the verb one of these? */
static bool letter_in(const struct verb *f, const char *letters) {
    return f->letter && f->letter < 0x80 && strchr(letters, (int)f->letter);
}

static enum status put_real(struct run *r, const struct verb *f, f64 v) {
    char form[16], t[512];
    if (v >= 0 && (f->plus || f->space))
        TRY(run_put_char(r, f->plus ? '+' : ' '));
    if (!isfinite(v) || (!f->has_precision && letter_in(f, "vgG")))
        return go_put_float(r, v);
    snprintf(form, sizeof form, "%%%s.*%c", f->sharp ? "#" : "", f->letter == 'v' ? 'g' : (char)f->letter);
    int n = snprintf(t, sizeof t, form, f->has_precision ? (int)MIN(f->precision, 100) : 6, v);
    return run_put(r, (struct str){t, (size_t)MIN(n, (int)sizeof t - 1)});
}

static enum status put_verb(struct run *r, const struct verb *f, const struct value *v);

/* What fmt writes for a verb that does not fit: %!d(string=x), the value with the flags of the verb. */
static enum status put_misfit(struct run *r, const struct verb *f, const struct value *v) {
    char t[4];
    struct verb plain = *f;
    plain.letter = 'v';
    TRY(run_put(r, STR("%!")));
    TRY(run_put(r, (struct str){t, utf8_encode(f->letter, t)}));
    if (v->kind == VALUE_NONE || v->kind == VALUE_UNDEFINED)
        return run_put(r, STR("(<nil>)"));
    TRY(run_printf(r, "(%s=", go_type(v)));
    TRY(put_verb(r, &plain, v));
    return run_put_char(r, ')');
}

static enum status put_hex(struct run *r, const struct verb *f, struct str s) {
    TRY(run_charge(r, s.n));
    if (f->has_precision)
        s = str_slice(s, 0, (size_t)f->precision);
    for (size_t i = 0; i < s.n; i++)
        TRY(run_printf(r, f->letter == 'x' ? "%02x" : "%02X", (u8)s.p[i]));
    return OK;
}

static enum status put_text(struct run *r, const struct verb *f, struct str s) {
    if (letter_in(f, "xX"))
        return put_hex(r, f, s);
    if (f->has_precision)
        s = str_slice(s, 0, text_offset(s, (size_t)f->precision));
    return f->letter == 'q' || (f->letter == 'v' && f->sharp) ? put_quoted(r, s) : run_put(r, s);
}

static enum status put_char(struct run *r, u32 letter, i64 c) {
    char t[4];
    if (letter == 'U')
        return run_printf(r, "U+%04llX", (unsigned long long)c);
    bool valid = c >= 0 && c <= 0x10ffff && (c < 0xd800 || c > 0xdfff);
    struct str s = {t, utf8_encode(valid ? (u32)c : 0xfffd, t)};
    if (letter == 'c')
        return run_put(r, s);
    TRY(run_put_char(r, '\''));
    TRY(run_put(r, c == '\'' || c == '\\' ? STR("\\") : STR("")));
    TRY(c < 0x80 && !text_is_printable((u32)c) ? run_printf(r, "\\x%02x", (u32)c) : run_put(r, s));
    return run_put_char(r, '\'');
}

/* The text of a single value, or false if the verb does not fit it. */
static enum status put_scalar(struct run *r, const struct verb *f, const struct value *v, bool *fits) {
    *fits = true;
    if (v->kind == VALUE_STR && letter_in(f, "svqxX"))
        return put_text(r, f, v->s);
    if (v->kind == VALUE_INT && letter_in(f, "dvxXobO"))
        return put_integer(r, f, v->i);
    if (v->kind == VALUE_INT && letter_in(f, "cUq"))
        return put_char(r, f->letter, v->i);
    if (v->kind == VALUE_FLOAT && letter_in(f, "veEfFgG"))
        return put_real(r, f, v->f);
    if (v->kind == VALUE_BOOL && letter_in(f, "tv"))
        return put_inner(r, v);
    if ((v->kind == VALUE_NONE || v->kind == VALUE_UNDEFINED) && f->letter == 'v')
        return run_put(r, STR("<nil>"));
    if ((v->kind == VALUE_LIST || v->kind == VALUE_OBJECT) && letter_in(f, "sv"))
        return go_put_json(r, v);
    *fits = false;
    return OK;
}

static enum status put_items(struct run *r, const struct verb *f, const struct value *v) {
    bool map = v->kind == VALUE_OBJECT;
    struct value keys = *v, item;
    if (map)
        TRY(go_sorted_keys(r, v, &keys));
    TRY(run_put(r, map ? STR("map[") : STR("[")));
    for (u32 i = 0; i < keys.list.n; i++) {
        item = keys.list.items[i];
        if (i)
            TRY(run_put_char(r, ' '));
        if (map) {
            TRY(put_verb(r, f, &keys.list.items[i]));
            TRY(run_put_char(r, ':'));
            check(value_get_key(v, &keys.list.items[i], &item));
        }
        bool nil = item.kind == VALUE_NONE || item.kind == VALUE_UNDEFINED;
        TRY(nil ? run_put(r, STR("<nil>")) : put_verb(r, f, &item));
    }
    return run_put_char(r, ']');
}

/* Go applies a verb to the items of a container, each with its width. */
static enum status put_verb(struct run *r, const struct verb *f, const struct value *v) {
    bool fits, number = v->kind == VALUE_INT || v->kind == VALUE_FLOAT;
    size_t mark = run_mark(r);
    TRY(run_enter(r));
    enum status s;
    if ((v->kind == VALUE_LIST || v->kind == VALUE_OBJECT) && v->form == FORM_PLAIN) {
        s = put_items(r, f, v);
    } else {
        s = put_scalar(r, f, v, &fits);
        if (s == OK)
            s = fits ? put_padded(r, f, mark, number) : put_misfit(r, f, v);
    }
    run_leave(r);
    return s;
}

static const char *type_name(const struct value *v) {
    if (v->kind == VALUE_LIST)
        return "[]interface {}";
    if (v->kind == VALUE_OBJECT)
        return "map[string]interface {}";
    return v->kind == VALUE_NONE || v->kind == VALUE_UNDEFINED ? "<nil>" : go_type(v);
}

struct printf {
    struct run *r;
    struct str format;
    size_t at;
    const struct value *a; /* [n] */
    u32 n, next;
};

static enum status read_number(struct printf *p, bool width, bool *has, i64 *out) {
    *out = 0;
    *has = false;
    if (p->at < p->format.n && p->format.p[p->at] == '*') {
        p->at++;
        *has = p->next < p->n && p->a[p->next].kind == VALUE_INT;
        *out = *has ? p->a[p->next].i : 0;
        p->next += p->next < p->n;
        if (*out > FIELD_WIDTH_MAX || *out < -FIELD_WIDTH_MAX)
            return run_fail(p->r, "printf: the field is too wide");
        return *has ? OK : run_put(p->r, width ? STR("%!(BADWIDTH)") : STR("%!(BADPREC)"));
    }
    while (p->at < p->format.n && p->format.p[p->at] >= '0' && p->format.p[p->at] <= '9' &&
           *out <= FIELD_WIDTH_MAX) {
        *out = *out * 10 + (p->format.p[p->at++] - '0');
        *has = true;
    }
    return *out > FIELD_WIDTH_MAX || *out < -FIELD_WIDTH_MAX ? run_fail(p->r, "printf: the field is too wide")
                                                             : OK;
}

static enum status read_verb(struct printf *p, struct verb *f) {
    for (; p->at < p->format.n; p->at++) {
        char c = p->format.p[p->at];
        bool *flag = c == '+'   ? &f->plus
                     : c == '-' ? &f->minus
                     : c == '#' ? &f->sharp
                     : c == ' ' ? &f->space
                     : c == '0' ? &f->zero
                                : NULL;
        if (!flag)
            break;
        *flag = true;
    }
    TRY(read_number(p, true, &f->has_width, &f->width));
    if (f->has_width && f->width < 0) {
        f->minus = true;
        f->width = -f->width;
    }
    if (p->at < p->format.n && p->format.p[p->at] == '.') {
        bool given;
        p->at++;
        TRY(read_number(p, false, &given, &f->precision));
        f->has_precision = f->precision >= 0;
    }
    if (p->at < p->format.n)
        f->letter = text_next(p->format, &p->at);
    return OK;
}

/* Behind "%". */
static enum status put_field(struct printf *p) {
    struct verb f = {0};
    char t[4];
    TRY(read_verb(p, &f));
    if (!f.letter)
        return run_put(p->r, STR("%!(NOVERB)"));
    if (f.letter == '%')
        return run_put_char(p->r, '%');
    if (p->next >= p->n) {
        TRY(run_put(p->r, STR("%!")));
        TRY(run_put(p->r, (struct str){t, utf8_encode(f.letter, t)}));
        return run_put(p->r, STR("(MISSING)"));
    }
    const struct value *v = &p->a[p->next++];
    struct value type = value_str(str_of(type_name(v)));
    if (f.letter == 'T') {
        f.letter = 's';
        v = &type;
    }
    return put_verb(p->r, &f, v);
}

enum status go_printf(struct run *r, struct str format, const struct value *a, u32 n) {
    struct printf p = {.r = r, .format = format, .a = a, .n = n};
    while (p.at < format.n) {
        size_t sign = MIN(str_find(format, STR("%"), p.at), format.n);
        TRY(run_put(r, str_slice(format, p.at, sign)));
        p.at = sign + 1;
        if (sign < format.n)
            TRY(put_field(&p));
    }
    if (p.next >= n)
        return OK;
    TRY(run_put(r, STR("%!(EXTRA ")));
    for (u32 i = p.next; i < n; i++) {
        TRY(run_put(r, i > p.next ? STR(", ") : STR("")));
        TRY(run_put(r, str_of(type_name(&a[i]))));
        bool nil = a[i].kind == VALUE_NONE || a[i].kind == VALUE_UNDEFINED;
        TRY(run_put(r, nil ? STR("") : STR("=")));
        if (!nil)
            TRY(put_inner(r, &a[i]));
    }
    return run_put_char(r, ')');
}
