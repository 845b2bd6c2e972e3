/* json.c - JSON text to values and back. The parser is strict RFC 8259; the writer writes as Python's
 * json.dumps (what templates were written against) or as Go's json.Marshal. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/limit.h"
#include "chat/value.h"

/* --- reading --- */
struct json_reader {
    struct arena *arena;
    struct str text;
    size_t at;
    u32 depth;
    struct err *err;
    struct buf scratch; /* a string with escapes under construction */
};

static enum status json_fail(struct json_reader *r, const char *what) {
    u32 line = 1;
    size_t start = 0;
    for (size_t i = 0; i < r->at && i < r->text.n; i++)
        if (r->text.p[i] == '\n') {
            line++;
            start = i + 1;
        }
    return err_set(r->err, ERR_INVALID, "JSON, line %u column %zu: %s", line, r->at - start + 1, what);
}

static enum status json_full(struct json_reader *r) {
    return err_set(r->err, ERR_TOO_LARGE, "JSON text of %zu bytes takes more memory than allowed", r->text.n);
}

static void json_blank(struct json_reader *r) {
    while (r->at < r->text.n && strchr(" \t\r\n", r->text.p[r->at]) && r->text.p[r->at])
        r->at++;
}

static int json_peek(const struct json_reader *r) { return r->at < r->text.n ? (u8)r->text.p[r->at] : -1; }

static bool json_hex4(struct json_reader *r, u32 *out) {
    if (r->text.n - r->at < 4)
        return false;
    u32 v = 0;
    for (int i = 0; i < 4; i++) {
        char c = r->text.p[r->at + (size_t)i];
        u32 d;
        if (c >= '0' && c <= '9')
            d = (u32)(c - '0');
        else if ((c | 32) >= 'a' && (c | 32) <= 'f')
            d = (u32)((c | 32) - 'a' + 10);
        else
            return false;
        v = v << 4 | d;
    }
    r->at += 4;
    *out = v;
    return true;
}

/* Behind "\u". A high surrogate takes its low one along; one that stands alone becomes U+FFFD. */
static enum status json_unicode(struct json_reader *r) {
    u32 c;
    if (!json_hex4(r, &c))
        return json_fail(r, "\\u needs four hexadecimal digits");
    if (c >= 0xd800 && c < 0xdc00 && r->text.n - r->at >= 2 && r->text.p[r->at] == '\\' &&
        r->text.p[r->at + 1] == 'u') {
        size_t back = r->at;
        u32 low = 0;
        r->at += 2;
        if (json_hex4(r, &low) && low >= 0xdc00 && low < 0xe000)
            c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
        else
            r->at = back;
    }
    if (c >= 0xd800 && c < 0xe000)
        c = 0xfffd;
    char t[4];
    buf_add(&r->scratch, t, utf8_encode(c, t));
    return OK;
}

static enum status json_escape_read(struct json_reader *r) {
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    int c = json_peek(r);
    r->at++;
    if (c == 'u')
        return json_unicode(r);
    const char *at = c > 0 ? strchr(from, c) : NULL;
    if (!at) {
        r->at--;
        return json_fail(r, "unknown escape in a string");
    }
    buf_add_char(&r->scratch, to[at - from]);
    return OK;
}

/* At the opening quote. Without escapes the text itself is copied once; with them it goes through scratch. */
static enum status json_string(struct json_reader *r, struct str *out) {
    size_t from = ++r->at;
    buf_clear(&r->scratch);
    for (;;) {
        int c = json_peek(r);
        if (c < 0)
            return json_fail(r, "the string does not end");
        if (c == '"')
            break;
        if (c < 0x20)
            return json_fail(r, "control character in a string");
        if (c == '\\') {
            buf_add(&r->scratch, r->text.p + from, r->at - from);
            r->at++;
            TRY(json_escape_read(r));
            from = r->at;
            continue;
        }
        u32 code, n = c < 0x80 ? 1 : utf8_decode(r->text, r->at, &code);
        if (!n)
            return json_fail(r, "invalid UTF-8 in a string");
        r->at += n;
    }
    buf_add(&r->scratch, r->text.p + from, r->at - from);
    r->at++;
    char *p = arena_try_alloc(r->arena, r->scratch.n + 1);
    if (!p)
        return json_full(r);
    if (r->scratch.n)
        memcpy(p, r->scratch.p, r->scratch.n);
    p[r->scratch.n] = 0;
    *out = (struct str){p, r->scratch.n};
    return OK;
}

static bool json_digits(struct json_reader *r) {
    size_t from = r->at;
    while (json_peek(r) >= '0' && json_peek(r) <= '9')
        r->at++;
    return r->at > from;
}

static enum status json_number(struct json_reader *r, struct value *out) {
    size_t from = r->at;
    bool real = false;
    if (json_peek(r) == '-')
        r->at++;
    if (json_peek(r) == '0')
        r->at++;
    else if (!json_digits(r))
        return json_fail(r, "unexpected character");
    if (json_peek(r) == '.') {
        real = true;
        r->at++;
        if (!json_digits(r))
            return json_fail(r, "digits must follow the decimal point");
    }
    if (json_peek(r) == 'e' || json_peek(r) == 'E') {
        real = true;
        r->at++;
        if (json_peek(r) == '+' || json_peek(r) == '-')
            r->at++;
        if (!json_digits(r))
            return json_fail(r, "digits must follow the exponent");
    }
    struct str s = str_slice(r->text, from, r->at);
    i64 i;
    if (!real && str_to_i64(s, &i)) {
        *out = value_int(i);
        return OK;
    }
    char *copy = arena_try_alloc(r->arena, s.n + 1);
    if (!copy)
        return json_full(r);
    memcpy(copy, s.p, s.n);
    copy[s.n] = 0;
    *out = (struct value){.kind = VALUE_FLOAT, .f = strtod(copy, NULL)};
    return OK;
}

static enum status json_value(struct json_reader *r, struct value *out);

static enum status json_array(struct json_reader *r, struct value *out) {
    *out = value_list();
    r->at++;
    json_blank(r);
    if (json_peek(r) == ']') {
        r->at++;
        return OK;
    }
    for (;;) {
        struct value item;
        TRY(json_value(r, &item));
        if (!value_try_append(r->arena, out, item))
            return json_full(r);
        json_blank(r);
        int c = json_peek(r);
        if (c != ',' && c != ']')
            return json_fail(r, "expected ',' or ']'");
        r->at++;
        if (c == ']')
            return OK;
    }
}

static enum status json_object(struct json_reader *r, struct value *out) {
    if (!value_try_object(r->arena, out))
        return json_full(r);
    r->at++;
    json_blank(r);
    if (json_peek(r) == '}') {
        r->at++;
        return OK;
    }
    for (;;) {
        struct str key;
        struct value v;
        json_blank(r);
        if (json_peek(r) != '"')
            return json_fail(r, "expected a name in quotes");
        TRY(json_string(r, &key));
        json_blank(r);
        if (json_peek(r) != ':')
            return json_fail(r, "expected ':'");
        r->at++;
        TRY(json_value(r, &v));
        if (!value_try_set_key(r->arena, out, value_str(key), v))
            return json_full(r);
        json_blank(r);
        int c = json_peek(r);
        if (c != ',' && c != '}')
            return json_fail(r, "expected ',' or '}'");
        r->at++;
        if (c == '}')
            return OK;
    }
}

static bool json_word(struct json_reader *r, struct str word) {
    if (!str_starts(str_slice(r->text, r->at, r->text.n), word))
        return false;
    r->at += word.n;
    return true;
}

static enum status json_value(struct json_reader *r, struct value *out) {
    json_blank(r);
    enum status s = OK;
    if (++r->depth > LIMIT_JSON_DEPTH)
        return json_fail(r, "nested too deep");
    int c = json_peek(r);
    if (c < 0)
        return json_fail(r, "unexpected end");
    if (c == '{') {
        s = json_object(r, out);
    } else if (c == '[') {
        s = json_array(r, out);
    } else if (c == '"') {
        struct str text = STR_NONE;
        s = json_string(r, &text);
        *out = value_str(text);
    } else if (json_word(r, STR("true")))
        *out = value_bool(true);
    else if (json_word(r, STR("false")))
        *out = value_bool(false);
    else if (json_word(r, STR("null")))
        *out = (struct value){.kind = VALUE_NONE};
    else
        s = json_number(r, out);
    r->depth--;
    return s;
}

enum status value_parse_json(struct arena *a, struct str text, struct value *out, struct err *err) {
    struct json_reader r = {.arena = a, .text = text, .err = err};
    enum status s = json_value(&r, out);
    if (s == OK) {
        json_blank(&r);
        if (r.at < text.n)
            s = json_fail(&r, "text behind the end of the value");
    }
    buf_release(&r.scratch);
    return s;
}

/* --- writing --- */
struct json_writer {
    struct buf *b;
    const struct json_style *style;
    u32 depth;
    struct err *err;
};

static enum status json_out(struct json_writer *w, const void *p, size_t n) {
    if (n > w->style->limit_bytes || w->b->n > w->style->limit_bytes - n)
        return err_set(w->err, ERR_TOO_LARGE, "the text would be larger than %zu bytes",
                       w->style->limit_bytes);
    buf_add(w->b, p, n);
    return OK;
}

static enum status json_out_str(struct json_writer *w, struct str s) { return json_out(w, s.p, s.n); }

static enum status json_line(struct json_writer *w) {
    if (!w->style->indent.p)
        return OK;
    TRY(json_out(w, "\n", 1));
    for (u32 i = 0; i < w->depth; i++)
        TRY(json_out_str(w, w->style->indent));
    return OK;
}

/* The escape of one code point, or length 0 if it stands for itself. */
static size_t json_escape_of(const struct json_style *style, u32 c, char t[13]) {
    static const char plain[] = "\"\\\n\r\t\b\f", letter[] = "\"\\nrtbf";
    const char *at = c && c < 0x80 ? strchr(plain, (int)c) : NULL;
    if (at)
        return (size_t)snprintf(t, 13, "\\%c", letter[at - plain]);
    bool html = style->go && (c == '<' || c == '>' || c == '&' || c == 0x2028 || c == 0x2029);
    if (c >= 0x20 && !html && !(style->ascii && c > 0x7e))
        return 0;
    if (c < 0x10000)
        return (size_t)snprintf(t, 13, "\\u%04x", c);
    return (size_t)snprintf(t, 13, "\\u%04x\\u%04x", 0xd800 + ((c - 0x10000) >> 10), 0xdc00 + (c & 0x3ff));
}

static enum status json_write_str(struct json_writer *w, struct str s) {
    TRY(json_out(w, "\"", 1));
    size_t from = 0, at = 0;
    while (at < s.n) {
        u32 c = (u8)s.p[at], n = 1;
        char t[13];
        if (c >= 0x80) {
            n = utf8_decode(s, at, &c);
            if (!n)
                c = 0xfffd;
        }
        size_t n_escape = json_escape_of(w->style, c, t);
        if (!n && !n_escape)
            n_escape = utf8_encode(c, t);
        if (n_escape) {
            TRY(json_out(w, s.p + from, at - from));
            TRY(json_out(w, t, n_escape));
            from = at + MAX(n, 1u);
        }
        at += MAX(n, 1u);
    }
    TRY(json_out(w, from < s.n ? s.p + from : NULL, s.n - from));
    return json_out(w, "\"", 1);
}

void value_write_float(struct buf *b, f64 f) {
    if (isnan(f) || isinf(f)) {
        buf_add_str(b, isnan(f) ? STR("nan") : f > 0 ? STR("inf") : STR("-inf"));
        return;
    }
    char t[40];
    int digits = 1;
    do
        snprintf(t, sizeof t, "%.*e", digits - 1, f);
    while (strtod(t, NULL) != f && ++digits <= 17);
    int exponent = (int)strtol(strchr(t, 'e') + 1, NULL, 10);
    if (exponent < -4 || exponent >= 16) {
        buf_add_str(b, str_of(t));
        return;
    }
    snprintf(t, sizeof t, "%.*f", MAX(digits - 1 - exponent, 0), f);
    buf_add_str(b, str_of(t));
    if (!strchr(t, '.'))
        buf_add(b, ".0", 2);
}

static enum status json_write_float(struct json_writer *w, f64 f) {
    if (isnan(f) || isinf(f)) {
        if (w->style->go)
            return json_out(w, "null", 4);
        return json_out_str(w, isnan(f) ? STR("NaN") : f > 0 ? STR("Infinity") : STR("-Infinity"));
    }
    struct buf t = {0};
    if (w->style->go)
        json_f64(&t, f);
    else
        value_write_float(&t, f);
    enum status s = json_out_str(w, buf_str(&t));
    buf_release(&t);
    return s;
}

static enum status json_write_value(struct json_writer *w, const struct value *v);

static enum status json_write_list(struct json_writer *w, const struct value *v) {
    if (!v->list.n)
        return json_out(w, "[]", 2);
    TRY(json_out(w, "[", 1));
    w->depth++;
    for (u32 i = 0; i < v->list.n; i++) {
        if (i)
            TRY(json_out_str(w, w->style->comma));
        TRY(json_line(w));
        TRY(json_write_value(w, &v->list.items[i]));
    }
    w->depth--;
    TRY(json_line(w));
    return json_out(w, "]", 1);
}

/* Python writes keys that are no strings as the text of their JSON value. */
static enum status json_write_key(struct json_writer *w, const struct value *key) {
    if (key->kind == VALUE_STR)
        return json_write_str(w, key->s);
    if (key->kind == VALUE_LIST || key->kind == VALUE_OBJECT || key->kind == VALUE_CALLABLE)
        return err_set(w->err, ERR_INVALID, "keys must be str, int, float, bool or None");
    TRY(json_out(w, "\"", 1));
    TRY(json_write_value(w, key));
    return json_out(w, "\"", 1);
}

static int compare_keys(const void *a, const void *b) {
    const struct value *x = a, *y = b;
    if (x->kind != VALUE_STR || y->kind != VALUE_STR)
        return (x->kind > y->kind) - (x->kind < y->kind);
    int c = memcmp(x->s.p ? x->s.p : "", y->s.p ? y->s.p : "", MIN(x->s.n, y->s.n));
    return c ? c : (x->s.n > y->s.n) - (x->s.n < y->s.n);
}

static enum status json_write_members(struct json_writer *w, const struct value *v,
                                      const struct value *keys) {
    u32 n = value_object_len(v);
    for (u32 i = 0; i < n; i++) {
        struct value key, item;
        value_entry_at(v, i, &key, &item);
        if (keys) {
            key = keys[i];
            check(value_get_key(v, &key, &item));
        }
        if (i)
            TRY(json_out_str(w, w->style->comma));
        TRY(json_line(w));
        TRY(json_write_key(w, &key));
        TRY(json_out_str(w, w->style->colon));
        TRY(json_write_value(w, &item));
    }
    return OK;
}

static enum status json_write_object(struct json_writer *w, const struct value *v) {
    u32 n = value_object_len(v);
    if (!n)
        return json_out(w, "{}", 2);
    struct value *keys = NULL;
    bool sort = w->style->sort_keys || (w->style->go && v->form != FORM_STRUCT);
    if (sort) {
        keys = xcalloc(n, sizeof *keys);
        for (u32 i = 0; i < n; i++) {
            struct value item;
            value_entry_at(v, i, &keys[i], &item);
        }
        qsort(keys, n, sizeof *keys, compare_keys);
    }
    enum status s = json_out(w, "{", 1);
    w->depth++;
    if (s == OK)
        s = json_write_members(w, v, keys);
    free(keys);
    w->depth--;
    TRY(s);
    TRY(json_line(w));
    return json_out(w, "}", 1);
}

/* json.dumps knows lists and tuples, dicts, strings and scalars; Go writes what it does not know as null. */
static enum status json_write_value(struct json_writer *w, const struct value *v) {
    if (w->depth > LIMIT_JSON_DEPTH)
        return err_set(w->err, ERR_TOO_LARGE, "values nested deeper than %u", LIMIT_JSON_DEPTH);
    bool list = v->form == FORM_PLAIN || v->form == FORM_TUPLE || v->form == FORM_JSON;
    switch (v->kind) {
    case VALUE_NONE: return json_out(w, "null", 4);
    case VALUE_BOOL: return json_out_str(w, v->b ? STR("true") : STR("false"));
    case VALUE_INT: {
        char t[24];
        return json_out(w, t, (size_t)snprintf(t, sizeof t, "%lld", (long long)v->i));
    }
    case VALUE_FLOAT: return json_write_float(w, v->f);
    case VALUE_STR: return json_write_str(w, v->s);
    case VALUE_LIST:
        if (list)
            return json_write_list(w, v);
        break;
    case VALUE_OBJECT:
        if (v->form != FORM_NAMESPACE)
            return json_write_object(w, v);
        break;
    case VALUE_UNDEFINED:
    case VALUE_CALLABLE: break;
    }
    if (w->style->go)
        return json_out(w, "null", 4);
    return err_set(w->err, ERR_INVALID, "%s is not JSON serializable",
                   v->kind == VALUE_UNDEFINED ? "an undefined value"
                                              : "a value that is no string, number, list or dict");
}

enum status value_write_json(struct buf *b, const struct value *v, const struct json_style *style,
                             struct err *err) {
    struct json_writer w = {b, style, 0, err};
    return json_write_value(&w, v);
}

void value_to_json(struct buf *b, const struct value *v, int indent) {
    static const char blanks[] = "                ";
    struct json_style style = {
        .comma = indent < 0 ? STR(", ") : STR(","), .colon = STR(": "), .limit_bytes = SIZE_MAX};
    if (indent >= 0)
        style.indent = (struct str){blanks, MIN((size_t)indent, sizeof blanks - 1)};
    size_t before = b->n;
    if (value_write_json(b, v, &style, NULL) != OK) { /* no JSON value: the nearest thing that is one */
        b->n = before;
        buf_add(b, "null", 4);
    }
}
