/* str.c - operations on (pointer, length) text, numbers and UTF-8. */
#include "base/str.h"

#include <errno.h>
#include <stdlib.h>

static char lower(char c) { return c >= 'A' && c <= 'Z' ? (char)(c + 32) : c; }

bool str_eq_nocase(struct str a, struct str b) {
    if (a.n != b.n)
        return false;
    for (size_t i = 0; i < a.n; i++)
        if (lower(a.p[i]) != lower(b.p[i]))
            return false;
    return true;
}

bool str_starts(struct str s, struct str prefix) {
    return s.n >= prefix.n && (prefix.n == 0 || memcmp(s.p, prefix.p, prefix.n) == 0);
}

bool str_ends(struct str s, struct str suffix) {
    return s.n >= suffix.n && (suffix.n == 0 || memcmp(s.p + s.n - suffix.n, suffix.p, suffix.n) == 0);
}

size_t str_find(struct str s, struct str needle, size_t from) {
    if (from > s.n || needle.n > s.n - from)
        return SIZE_MAX;
    if (needle.n == 0)
        return from;
    const char *hit = memmem(s.p + from, s.n - from, needle.p, needle.n);
    return hit ? (size_t)(hit - s.p) : SIZE_MAX;
}

struct str str_slice(struct str s, size_t from, size_t to) {
    to = MIN(to, s.n);
    from = MIN(from, to);
    return (struct str){s.p ? s.p + from : NULL, to - from};
}

static bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

struct str str_trim(struct str s) {
    while (s.n && is_space(s.p[0]))
        s.p++, s.n--;
    while (s.n && is_space(s.p[s.n - 1]))
        s.n--;
    return s;
}

bool str_to_u64(struct str s, u64 *out) {
    u64 v = 0;
    if (s.n == 0)
        return false;
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] < '0' || s.p[i] > '9')
            return false;
        if (mul_overflow(v, 10, &v) || add_overflow(v, (u64)(s.p[i] - '0'), &v))
            return false;
    }
    *out = v;
    return true;
}

bool str_to_i64(struct str s, i64 *out) {
    bool negative = s.n && s.p[0] == '-';
    u64 v;
    if (s.n && (s.p[0] == '-' || s.p[0] == '+'))
        s.p++, s.n--;
    if (!str_to_u64(s, &v) || v > (u64)INT64_MAX + negative)
        return false;
    *out = negative ? (i64)(0 - v) : (i64)v;
    return true;
}

bool str_to_f64(struct str s, f64 *out) {
    char text[64], *end;
    if (s.n == 0 || s.n >= sizeof text)
        return false;
    for (size_t i = 0; i < s.n; i++) /* strtod also takes blanks, hexadecimal, inf and nan */
        if (!strchr("0123456789+-.eE", s.p[i]) || s.p[i] == 0)
            return false;
    memcpy(text, s.p, s.n);
    text[s.n] = 0;
    errno = 0;
    *out = strtod(text, &end);
    return end == text + s.n && errno != ERANGE;
}

u32 utf8_decode(struct str s, size_t at, u32 *code_point) {
    if (at >= s.n)
        return 0;
    const u8 *b = (const u8 *)s.p + at;
    size_t left = s.n - at;
    if (b[0] < 0x80) {
        *code_point = b[0];
        return 1;
    }
    u32 len = b[0] >= 0xf0 ? 4 : b[0] >= 0xe0 ? 3 : 2;
    if (b[0] < 0xc2 || b[0] > 0xf4 || left < len)
        return 0;
    u32 c = b[0] & (0x7fu >> len);
    for (u32 i = 1; i < len; i++) {
        if ((b[i] & 0xc0) != 0x80)
            return 0;
        c = c << 6 | (b[i] & 0x3fu);
    }
    if ((len == 3 && (c < 0x800 || (c >= 0xd800 && c < 0xe000))) ||
        (len == 4 && (c < 0x10000 || c > 0x10ffff)))
        return 0;
    *code_point = c;
    return len;
}

u32 utf8_encode(u32 c, char out[4]) {
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        out[0] = (char)(0xc0 | c >> 6);
        out[1] = (char)(0x80 | (c & 63));
        return 2;
    }
    if (c < 0x10000) {
        out[0] = (char)(0xe0 | c >> 12);
        out[1] = (char)(0x80 | (c >> 6 & 63));
        out[2] = (char)(0x80 | (c & 63));
        return 3;
    }
    out[0] = (char)(0xf0 | c >> 18);
    out[1] = (char)(0x80 | (c >> 12 & 63));
    out[2] = (char)(0x80 | (c >> 6 & 63));
    out[3] = (char)(0x80 | (c & 63));
    return 4;
}

size_t utf8_valid_len(struct str s) {
    size_t at = 0;
    u32 c;
    while (at < s.n) {
        u32 n = utf8_decode(s, at, &c);
        if (n == 0)
            break;
        at += n;
    }
    return at;
}

size_t utf8_complete_len(struct str s) {
    /* Look at up to three trailing bytes for a lead byte whose character is not finished yet. */
    for (size_t back = 1; back <= 3 && back <= s.n; back++) {
        u8 b = (u8)s.p[s.n - back];
        if ((b & 0xc0) == 0x80)
            continue; /* a continuation byte: the lead is further left */
        size_t need = b >= 0xf0 ? 4 : b >= 0xe0 ? 3 : b >= 0xc0 ? 2 : 1;
        if (need <= back || b < 0xc2 || b > 0xf4)
            return s.n;
        /* Could the bytes so far still become valid? Fill up with both extremes and try. */
        for (int fill = 0x80; fill <= 0xbf; fill += 0x3f) {
            char t[4];
            u32 c;
            memcpy(t, s.p + s.n - back, back);
            memset(t + back, fill, 4 - back);
            if (utf8_decode((struct str){t, need}, 0, &c))
                return s.n - back;
        }
        return s.n;
    }
    return s.n;
}
