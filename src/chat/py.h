/* py.h - Python's meaning of operations on values: truth, equality, order, text, arithmetic, indexing. */
#ifndef MINKA_CHAT_PY_H
#define MINKA_CHAT_PY_H

#include "chat/run.h"

/* list.cap of a FORM_GENERATOR that fails when it is iterated over. */
#define PY_GENERATOR_FAILS UINT32_MAX

const char *py_type_name(const struct value *v); /* "str", "dict", ... */
bool py_truth(const struct value *v);
bool py_is_number(const struct value *v); /* int, float or bool */
f64 py_to_f64(const struct value *v);     /* of a number */
bool py_to_index(const struct value *v, i64 *out); /* int or bool */

enum status py_equal(struct run *r, const struct value *a, const struct value *b, bool *out) MUST_USE;
/* -1, 0, 1, or 2 where nothing is true (NaN); ERR_INVALID for kinds without an order. */
enum status py_compare(struct run *r, const struct value *a, const struct value *b, int *out) MUST_USE;
/* `item in box`. */
enum status py_contains(struct run *r, const struct value *box, const struct value *item, bool *out) MUST_USE;

/* Appends str(v) or repr(v). */
enum status py_put_str(struct run *r, const struct value *v) MUST_USE;
enum status py_put_repr(struct run *r, const struct value *v) MUST_USE;
enum status py_text(struct run *r, const struct value *v, struct str *out) MUST_USE; /* str(v) */

/* What `for x in v` goes over, as a list: characters, keys, items. */
enum status py_iterate(struct run *r, const struct value *v, struct value *out) MUST_USE;
enum status py_length(struct run *r, const struct value *v, u64 *out) MUST_USE;
/* v[key] of a list, string or dict; *found false if there is none. */
enum status py_item(struct run *r, const struct value *v, const struct value *key, struct value *out, bool *found) MUST_USE;
/* v[from:to:step]; NONE or UNDEFINED for what is left out. */
enum status py_slice(struct run *r, const struct value *v, const struct value part[3], struct value *out) MUST_USE;
enum status py_hashable(struct run *r, const struct value *key) MUST_USE; /* usable as a key of a dict? */

enum py_op { PY_ADD, PY_SUB, PY_MUL, PY_DIV, PY_FLOORDIV, PY_MOD, PY_POW };
enum status py_binary(struct run *r, enum py_op op, const struct value *a, const struct value *b, struct value *out) MUST_USE;
enum status py_negate(struct run *r, const struct value *v, struct value *out) MUST_USE;
/* Stable; key compared by py_compare. keys may be items itself. */
enum status py_sort(struct run *r, struct value *items, struct value *keys, u32 n, bool reverse) MUST_USE;
/* HTML-escapes s onto the text. */
enum status py_put_escaped(struct run *r, struct str s) MUST_USE;

/* format % args, and format.format(*args, **kwargs) (kwargs: an object). In py_format.c. */
enum status py_percent(struct run *r, struct str format, const struct value *args, struct value *out) MUST_USE;
enum status py_format(struct run *r, struct str format, const struct value *args, const struct value *kwargs, struct value *out) MUST_USE;

#endif
