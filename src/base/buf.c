/* buf.c - growable buffer and JSON text writer. */
#include "base/buf.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

void buf_release(struct buf *b) {
    free(b->p);
    *b = (struct buf){0};
}

void buf_reserve(struct buf *b, size_t extra) {
    check(extra < SIZE_MAX / 4);
    if (b->cap - b->n >= extra)
        return;
    b->cap = MAX(b->n + extra, MAX(b->cap * 2, (size_t)64));
    b->p = xrealloc(b->p, b->cap);
}

void buf_add(struct buf *b, const void *p, size_t n) {
    if (n == 0)
        return;
    buf_reserve(b, n);
    memcpy(b->p + b->n, p, n);
    b->n += n;
}

void buf_printf(struct buf *b, const char *fmt, ...) {
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    int n = vsnprintf(b->p ? b->p + b->n : NULL, b->cap - b->n, fmt, ap);
    va_end(ap);
    check(n >= 0);
    if ((size_t)n >= b->cap - b->n) {
        buf_reserve(b, (size_t)n + 1);
        vsnprintf(b->p + b->n, b->cap - b->n, fmt, again);
    }
    va_end(again);
    b->n += (size_t)n;
}

void buf_consume(struct buf *b, size_t n) {
    check(n <= b->n);
    if (n == 0)
        return;
    memmove(b->p, b->p + n, b->n - n);
    b->n -= n;
}

const char *buf_cstr(struct buf *b) {
    buf_reserve(b, 1);
    b->p[b->n] = 0;
    return b->p;
}

static void json_comma(struct buf *b) {
    if (b->n == 0)
        return;
    char last = b->p[b->n - 1];
    if (last != '{' && last != '[' && last != ':' && last != ',' && last != '\n' && last != ' ')
        buf_add_char(b, ',');
}

void json_key(struct buf *b, const char *key) {
    json_comma(b);
    buf_add_char(b, '"');
    buf_add_str(b, str_of(key));
    buf_add(b, "\":", 2);
}

static void json_escape(struct buf *b, u32 c) {
    static const char hex[] = "0123456789abcdef";
    switch (c) {
    case '"': buf_add(b, "\\\"", 2); return;
    case '\\': buf_add(b, "\\\\", 2); return;
    case '\n': buf_add(b, "\\n", 2); return;
    case '\r': buf_add(b, "\\r", 2); return;
    case '\t': buf_add(b, "\\t", 2); return;
    case '\b': buf_add(b, "\\b", 2); return;
    case '\f': buf_add(b, "\\f", 2); return;
    default: {
        char t[6] = {'\\', 'u', hex[c >> 12 & 15], hex[c >> 8 & 15], hex[c >> 4 & 15], hex[c & 15]};
        buf_add(b, t, 6);
    }
    }
}

void json_str(struct buf *b, struct str s) {
    json_comma(b);
    buf_reserve(b, s.n + 2);
    buf_add_char(b, '"');
    size_t from = 0, at = 0;
    while (at < s.n) {
        u8 c = (u8)s.p[at];
        u32 code = c, len = 1;
        if (c >= 0x80)
            len = utf8_decode(s, at, &code);
        bool plain = c >= 0x80 ? len && code != 0x2028 && code != 0x2029
                               : c >= 0x20 && c != '"' && c != '\\' && c != '<' && c != '>' && c != '&';
        if (plain) {
            at += len;
            continue;
        }
        buf_add(b, s.p + from, at - from);
        if (len == 0)
            buf_add(b, "\\ufffd", 6);
        else
            json_escape(b, code);
        at += len ? len : 1;
        from = at;
    }
    buf_add(b, s.n ? s.p + from : NULL, at - from);
    buf_add_char(b, '"');
}

void json_u64(struct buf *b, u64 v) {
    char t[20];
    size_t n = sizeof t;
    do
        t[--n] = (char)('0' + v % 10);
    while (v /= 10);
    json_comma(b);
    buf_add(b, t + n, sizeof t - n);
}

void json_i64(struct buf *b, i64 v) {
    if (v >= 0) {
        json_u64(b, (u64)v);
        return;
    }
    json_comma(b);
    buf_printf(b, "%lld", (long long)v);
}

void json_bool(struct buf *b, bool v) { json_raw(b, v ? STR("true") : STR("false")); }
void json_none(struct buf *b) { json_raw(b, STR("null")); }

void json_raw(struct buf *b, struct str text) {
    json_comma(b);
    buf_add_str(b, str_trim(text)); /* a line end behind it would hide that a value stands here */
}

/* What %.*g would give for a value from 0.0001 to below 1, which most of an embedding's are: there times 10^12 at
 * most is exact in f64 (24 bits of the value, 28 of 5^12), so that rounding it is rounding the value. False: left
 * to printf. */
static bool f32_fraction(struct buf *b, f32 v) {
    static const f64 scales[] = {1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12};
    static const f64 begins[] = {0.1, 0.01, 0.001, 0.0001};
    f64 a = fabs((f64)v);
    u32 zeros = 0;
    if (!(a >= 0.0001 && a < 1))
        return false;
    while (a < begins[zeros])
        zeros++;
    for (u32 more = 0; more <= 3; more++) { /* 6 to 9 digits */
        f64 scale = scales[zeros + more], q = rint(a * scale) / scale;
        u64 m = (u64)rint(a * scale), bits;
        memcpy(&bits, &q, sizeof bits);
        bool halfway = (bits & 0x1fffffff) == 0x10000000; /* would be rounded twice */
        if (halfway || (f32)q != (f32)a || q >= 1)
            continue;
        char t[16];
        u32 n = 0, digits = zeros + 6 + more;
        for (; digits > 1 && m % 10 == 0; digits--)
            m /= 10;
        for (; n < digits; n++, m /= 10)
            t[digits - 1 - n] = (char)('0' + m % 10);
        buf_add_str(b, v < 0 ? STR("-0.") : STR("0."));
        buf_add(b, t, n);
        return true;
    }
    return false;
}

void json_f32(struct buf *b, f32 v) {
    if (!isfinite(v)) {
        json_none(b);
        return;
    }
    json_comma(b);
    if (f32_fraction(b, v))
        return;
    char t[32];
    for (int digits = 6; digits <= 9; digits++) {
        snprintf(t, sizeof t, "%.*g", digits, (double)v);
        if (strtof(t, NULL) == v)
            break;
    }
    buf_add_str(b, str_of(t));
}

void json_f64(struct buf *b, f64 v) {
    if (!isfinite(v)) {
        json_none(b);
        return;
    }
    json_comma(b);
    char t[32];
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(t, sizeof t, "%.*g", digits, v);
        if (strtod(t, NULL) == v)
            break;
    }
    buf_add_str(b, str_of(t));
}

void json_open(struct buf *b, char bracket) {
    json_comma(b);
    buf_add_char(b, bracket);
}

void json_close(struct buf *b, char bracket) { buf_add_char(b, bracket); }
