/* body.c - parsing of request bodies, and reading of typed fields by table. */
#include "api/body.h"

#include "base/limit.h"

/* --- before the parser: what it would refuse and the reference accepts; what would cost too much --- */

struct scan {
    struct str s;
    struct buf *out; /* the cleaned text; NULL on the first pass */
    bool dirty;      /* something was replaced */
    u32 depth, depth_max;
    u64 n_values;
    bool in_string;
};

static void scan_emit(struct scan *c, const char *p, size_t n) {
    if (c->out)
        buf_add(c->out, p, n);
}

/* Code unit of "\uXXXX" at `at`; -1 if that is no such escape. */
static i32 escape_unit(struct str s, size_t at) {
    if (at + 6 > s.n || s.p[at] != '\\' || s.p[at + 1] != 'u')
        return -1;
    i32 v = 0;
    for (size_t i = at + 2; i < at + 6; i++) {
        char c = s.p[i];
        i32 digit = c >= '0' && c <= '9'   ? c - '0'
                    : c >= 'a' && c <= 'f' ? c - 'a' + 10
                    : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                           : -1;
        if (digit < 0)
            return -1;
        v = v << 4 | digit;
    }
    return v;
}

/* A backslash in a string at `at`; returns the bytes it takes. */
static size_t scan_escape(struct scan *c, size_t at) {
    i32 unit = escape_unit(c->s, at);
    if (unit < 0xd800 || unit > 0xdfff) {
        /* Any other escape, also a broken one, is the parser's business: two bytes, the second not a
         * part of a multi-byte character. */
        size_t n = at + 1 < c->s.n && (u8)c->s.p[at + 1] < 0x80 ? 2 : 1;
        scan_emit(c, c->s.p + at, n);
        return n;
    }
    i32 second = unit < 0xdc00 ? escape_unit(c->s, at + 6) : -1;
    if (second >= 0xdc00 && second <= 0xdfff) {
        scan_emit(c, c->s.p + at, 12);
        return 12;
    }
    c->dirty = true;
    scan_emit(c, "\\ufffd", 6);
    return 6;
}

static size_t scan_wide(struct scan *c, size_t at) {
    u32 code;
    u32 n = utf8_decode(c->s, at, &code);
    if (n == 0) {
        c->dirty = true;
        scan_emit(c, "\xef\xbf\xbd", 3);
        return 1;
    }
    scan_emit(c, c->s.p + at, n);
    return n;
}

static void scan_open(struct scan *c) {
    c->n_values++;
    c->depth++;
    c->depth_max = MAX(c->depth_max, c->depth);
}

/* Walks to the end of the first value (or of the text) and returns its offset. */
static size_t scan_value(struct scan *c) {
    size_t at = 0;
    while (at < c->s.n) {
        u8 b = (u8)c->s.p[at];
        if (b >= 0x80) {
            at += scan_wide(c, at);
            continue;
        }
        if (c->in_string && b == '\\') {
            at += scan_escape(c, at);
            continue;
        }
        scan_emit(c, c->s.p + at++, 1);
        if (b == '"')
            c->in_string = !c->in_string;
        else if (c->in_string)
            continue;
        else if (b == '{' || b == '[')
            scan_open(c);
        else if (b == ',')
            c->n_values++;
        else if ((b == '}' || b == ']') && c->depth > 0 && --c->depth == 0)
            return at;
    }
    return at;
}

static enum status text_parse(struct str text, json_t **out, struct err *err) {
    size_t flags = JSON_DISABLE_EOF_CHECK | JSON_ALLOW_NUL | JSON_DECODE_ANY;
    json_error_t where;
    *out = json_loadb(text.p, text.n, flags, &where);
    if (!*out && json_error_code(&where) == json_error_numeric_overflow)
        *out = json_loadb(text.p, text.n, flags | JSON_DECODE_INT_AS_REAL, &where);
    if (*out)
        return OK;
    if (json_error_code(&where) == json_error_premature_end_of_input)
        return err_set(err, ERR_INVALID, "unexpected EOF");
    return err_set(err, ERR_INVALID, "invalid JSON at line %d, column %d: %s", where.line, where.column,
                   where.text);
}

enum status body_parse(struct str body, json_t **out, struct err *err) {
    body = str_trim(body);
    *out = NULL;
    if (body.n == 0)
        return err_set(err, ERR_INVALID, "missing request body");
    struct scan first = {.s = body};
    body.n = scan_value(&first);
    if (first.depth_max > LIMIT_JSON_DEPTH)
        return err_set(err, ERR_INVALID, "JSON is nested deeper than %u levels", LIMIT_JSON_DEPTH);
    if (first.n_values > LIMIT_JSON_VALUES)
        return err_set(err, ERR_INVALID, "JSON has more than %u values", LIMIT_JSON_VALUES);
    if (!first.dirty)
        return text_parse(body, out, err);
    struct buf clean = {0};
    struct scan second = {.s = body, .out = &clean};
    scan_value(&second);
    enum status status = text_parse(buf_str(&clean), out, err);
    buf_release(&clean);
    return status;
}

/* --- fields --- */

const char *json_kind(const json_t *v) {
    switch (json_typeof(v)) {
    case JSON_OBJECT: return "object";
    case JSON_ARRAY: return "array";
    case JSON_STRING: return "string";
    case JSON_INTEGER:
    case JSON_REAL: return "number";
    case JSON_TRUE:
    case JSON_FALSE: return "bool";
    case JSON_NULL: return "null";
    }
    return "unknown";
}

struct str json_text(const json_t *v) {
    return json_is_string(v) ? (struct str){json_string_value(v), json_string_length(v)} : STR_NONE;
}

static bool field_set(const json_t *v, enum field_kind kind, void *to) {
    switch (kind) {
    case FIELD_STR: *(struct str *)to = json_text(v); return json_is_string(v);
    case FIELD_BOOL: *(enum tri *)to = json_is_true(v) ? TRI_TRUE : TRI_FALSE; return json_is_boolean(v);
    case FIELD_INT:
        *(struct maybe_int *)to = (struct maybe_int){true, json_integer_value(v)};
        return json_is_integer(v);
    case FIELD_REAL:
        *(struct maybe_real *)to = (struct maybe_real){true, json_number_value(v)};
        return json_is_number(v);
    case FIELD_LIST:
    case FIELD_OBJECT:
    case FIELD_ANY:
        *(const json_t **)to = v;
        return kind == FIELD_ANY || (kind == FIELD_LIST ? json_is_array(v) : json_is_object(v));
    }
    return false;
}

static const struct field *field_find(const struct field *fields, size_t n, struct str key) {
    for (size_t i = 0; i < n; i++)
        if (str_eq_nocase(key, str_of(fields[i].name)))
            return &fields[i];
    return NULL;
}

enum status fields_read(const json_t *object, const char *type_name, const struct field *fields,
                        size_t n_fields, void *out, struct err *err) {
    static const char *const types[] = {"string", "bool", "int", "float", "array", "object", "any"};
    if (json_is_null(object))
        return OK;
    if (!json_is_object(object))
        return err_set(err, ERR_INVALID, "json: cannot unmarshal %s into value of type %s", json_kind(object),
                       type_name);
    const char *key;
    json_t *v;
    /* The iterator of jansson takes a mutable tree, though it does not change it. */
    json_object_foreach((json_t *)object, key, v) {
        const struct field *f = field_find(fields, n_fields, str_of(key));
        if (f && !json_is_null(v) && !field_set(v, f->kind, (char *)out + f->offset))
            return err_set(err, ERR_INVALID, "json: cannot unmarshal %s into field %s.%s of type %s",
                           json_kind(v), type_name, f->name, types[f->kind]);
    }
    return OK;
}

void json_write(struct buf *b, const json_t *v) {
    const char *key;
    json_t *item;
    size_t i;
    switch (json_typeof(v)) {
    case JSON_OBJECT:
        json_open(b, '{');
        json_object_foreach((json_t *)v, key, item) {
            json_str(b, str_of(key));
            buf_add_char(b, ':');
            json_write(b, item);
        }
        json_close(b, '}');
        return;
    case JSON_ARRAY:
        json_open(b, '[');
        json_array_foreach(v, i, item) json_write(b, item);
        json_close(b, ']');
        return;
    case JSON_STRING: json_str(b, json_text(v)); return;
    case JSON_INTEGER: json_i64(b, json_integer_value(v)); return;
    case JSON_REAL: json_f64(b, json_real_value(v)); return;
    case JSON_TRUE: json_bool(b, true); return;
    case JSON_FALSE: json_bool(b, false); return;
    case JSON_NULL: json_none(b); return;
    }
}
