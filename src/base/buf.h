/* buf.h - a growable byte buffer, and a JSON writer over it that allocates nothing per value once
 * the buffer has grown (the per-token path). The buffer owns its bytes. */
#ifndef MINKA_BUF_H
#define MINKA_BUF_H

#include "base/str.h"

struct buf {
    char *p; /* NULL until first use */
    size_t n;
    size_t cap;
};

void buf_release(struct buf *b);
static inline void buf_clear(struct buf *b) { b->n = 0; }
static inline struct str buf_str(const struct buf *b) { return (struct str){b->p, b->n}; }
/* Room for at least extra more bytes. */
void buf_reserve(struct buf *b, size_t extra);
void buf_add(struct buf *b, const void *p, size_t n);
static inline void buf_add_str(struct buf *b, struct str s) { buf_add(b, s.p, s.n); }
static inline void buf_add_char(struct buf *b, char c) { buf_add(b, &c, 1); }
void buf_printf(struct buf *b, const char *fmt, ...) PRINTF(2, 3);
/* Removes the first n bytes. */
void buf_consume(struct buf *b, size_t n);
/* Bytes with a NUL behind them (not counted). */
const char *buf_cstr(struct buf *b);

/* --- JSON text, written value by value; the caller keeps the nesting right --- */
/* Puts a comma if the text so far ends a value, so members and elements need no bookkeeping. */
void json_key(struct buf *b, const char *key); /* key: plain ASCII, written as is */
/* s in quotes, escaped as Go's encoding/json does: < > & U+2028 U+2029 as \u..., each byte of invalid
 * UTF-8 as \ufffd. */
void json_str(struct buf *b, struct str s);
void json_i64(struct buf *b, i64 v);
void json_u64(struct buf *b, u64 v);
void json_bool(struct buf *b, bool v);
void json_none(struct buf *b); /* null; jansson owns the name json_null */
/* Shortest text that reads back as the same float/double; NaN and infinities become null. */
void json_f32(struct buf *b, f32 v);
void json_f64(struct buf *b, f64 v);
void json_open(struct buf *b, char bracket);  /* '{' or '[' */
void json_close(struct buf *b, char bracket); /* '}' or ']' */
/* A value that is already JSON text; white space around it is dropped. */
void json_raw(struct buf *b, struct str text);

#endif
