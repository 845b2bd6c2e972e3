/* str.h - text as (pointer, length); NUL only at the edge to the operating system.
 * A struct str owns nothing: whoever made the bytes says how long they live. */
#ifndef MINKA_STR_H
#define MINKA_STR_H

#include "base/base.h"

struct str {
    const char *p; /* may be NULL when n == 0 */
    size_t n;      /* bytes */
};

#define STR(literal) ((struct str){(literal), sizeof(literal) - 1})
#define STR_NONE ((struct str){NULL, 0})
/* For printf's "%.*s". */
#define STR_FMT(s) (int)MIN((s).n, (size_t)INT32_MAX), (s).p ? (s).p : ""

static inline struct str str_of(const char *c) { return (struct str){c, c ? strlen(c) : 0}; }
static inline bool str_eq(struct str a, struct str b) {
    return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}
static inline bool str_is(struct str a, const char *c) { return str_eq(a, str_of(c)); }
bool str_eq_nocase(struct str a, struct str b); /* ASCII only */
bool str_starts(struct str s, struct str prefix);
bool str_ends(struct str s, struct str suffix);
/* Offset of the first needle in s at or behind from; SIZE_MAX if none. An empty needle is at from. */
size_t str_find(struct str s, struct str needle, size_t from);
struct str str_slice(struct str s, size_t from, size_t to); /* clamped to s */
struct str str_trim(struct str s);                          /* ASCII white space at both ends */
/* Whole string as a decimal number; false if empty, with other characters, or out of range. */
bool str_to_u64(struct str s, u64 *out);
bool str_to_i64(struct str s, i64 *out);
bool str_to_f64(struct str s, f64 *out);

/* --- UTF-8 --- */
/* Decodes one code point at s.p[at]; returns its length 1..4, or 0 if the bytes are not valid UTF-8
 * (overlong, surrogate, above U+10FFFF, cut off). */
u32 utf8_decode(struct str s, size_t at, u32 *code_point);
/* Writes code_point (a valid scalar value) to out[4]; returns its length. */
u32 utf8_encode(u32 code_point, char out[4]);
/* Bytes of s up to its first invalid sequence; s.n if all is valid. */
size_t utf8_valid_len(struct str s);
/* Length of the prefix of s that does not end inside a so far valid multi-byte character. Bytes
 * that can never become valid count as complete. For streaming: hold back s.n - result bytes. */
size_t utf8_complete_len(struct str s);

#endif
