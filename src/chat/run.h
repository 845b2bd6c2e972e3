/* run.h - one run of a template, what both evaluators share: the arena that everything lives in, the bounds,
 * and the text being built.
 *
 * `text` is a stack of texts under construction: who builds a string remembers run_mark(), appends, and takes
 * it off with run_take(). The bottom is the output itself. */
#ifndef MINKA_CHAT_RUN_H
#define MINKA_CHAT_RUN_H

#include "chat/value.h"

struct run {
    struct arena *arena;
    struct buf *text;
    size_t text_bytes_max; /* text->n may not go beyond it */
    u64 steps_left;
    u32 depth; /* of the evaluator's recursion */
    u32 line;  /* of the node that runs, for messages */
    i64 now_unix;
    i32 utc_offset_s;
    struct err *err;
};

/* ERR_INVALID with "line N: " in front. */
enum status run_fail(struct run *r, const char *fmt, ...) PRINTF(2, 3);
enum status run_too_large(struct run *r, const char *what);
/* Work worth n basic steps (or n / 16 bytes looked at). */
enum status run_charge(struct run *r, u64 n) MUST_USE;
enum status run_enter(struct run *r) MUST_USE; /* one level of recursion; run_leave when it worked */
static inline void run_leave(struct run *r) { r->depth--; }

enum status run_alloc(struct run *r, size_t size, void *out) MUST_USE; /* *(T **)out; not zeroed */
enum status run_append(struct run *r, struct value *list, struct value item) MUST_USE;
enum status run_object(struct run *r, struct value *out) MUST_USE;
enum status run_set(struct run *r, struct value *object, struct value key, struct value v) MUST_USE;
enum status run_pair(struct run *r, struct value a, struct value b, struct value *out) MUST_USE; /* a tuple */

static inline size_t run_mark(const struct run *r) { return r->text->n; }
enum status run_put(struct run *r, struct str s) MUST_USE;
static inline enum status run_put_char(struct run *r, char c) { return run_put(r, (struct str){&c, 1}); }
enum status run_printf(struct run *r, const char *fmt, ...) PRINTF(2, 3);
/* Moves the text behind mark into the arena. */
enum status run_take(struct run *r, size_t mark, struct str *out) MUST_USE;
enum status run_take_value(struct run *r, size_t mark, struct value *out) MUST_USE;

#endif
