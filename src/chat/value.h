/* value.h - the values that templates compute with: JSON's kinds, with ordered objects. They live in an
 * arena and are never changed after they are built, but for lists and objects under construction. */
#ifndef MINKA_VALUE_H
#define MINKA_VALUE_H

#include "base/arena.h"
#include "base/buf.h"

enum value_kind { VALUE_UNDEFINED, VALUE_NONE, VALUE_BOOL, VALUE_INT, VALUE_FLOAT, VALUE_STR, VALUE_LIST, VALUE_OBJECT, VALUE_CALLABLE };

/* How an evaluator made a value, where that changes how it prints or behaves; FORM_PLAIN for everything
 * that comes from JSON. */
enum value_form {
    FORM_PLAIN,
    FORM_TUPLE,     /* lists: (a, b) */
    FORM_RANGE,     /* lists: range(from, to, step), these three behind the items */
    FORM_GENERATOR, /* lists: what map, select and items give: no length, no index */
    FORM_KEYS,      /* lists: views of a dict */
    FORM_VALUES,
    FORM_ITEMS,
    FORM_MARKUP,    /* strings: already escaped for HTML */
    FORM_NAMESPACE, /* objects: the only mutable ones */
    FORM_STRUCT,    /* objects: Go structs: a missing field is an error, printing is without names */
    FORM_JSON,      /* lists, objects: Go types that print themselves as JSON */
};

struct value_object;

struct value {
    enum value_kind kind;
    enum value_form form;
    union {
        bool b;
        i64 i;
        f64 f;
        struct str s; /* of VALUE_UNDEFINED: what was looked for, for messages */
        struct { struct value *items; u32 n, cap; } list;
        struct value_object *object; /* insertion order kept */
        const void *callable;        /* the evaluator's own */
    };
};

struct value value_str(struct str s);
struct value value_int(i64 i);
struct value value_bool(bool b);
struct value value_list(void);
struct value value_object(struct arena *a);
void value_append(struct arena *a, struct value *list, struct value item);
/* Replaces or adds. key is not copied. */
void value_set(struct arena *a, struct value *object, struct str key, struct value v);
/* UNDEFINED if absent or no object. */
struct value value_get(const struct value *object, struct str key);
u32 value_object_len(const struct value *object);
/* i-th member in insertion order. */
void value_member_at(const struct value *object, u32 i, struct str *key, struct value *v);

/* The same for arenas with a limit: false when it is reached (the functions above treat that as a bug). */
bool value_try_object(struct arena *a, struct value *out) MUST_USE;
bool value_try_append(struct arena *a, struct value *list, struct value item) MUST_USE;
/* Keys of any hashable kind, equal as Python's dict has it: 1, 1.0 and True are one key. */
bool value_try_set_key(struct arena *a, struct value *object, struct value key, struct value v) MUST_USE;
bool value_get_key(const struct value *object, const struct value *key, struct value *out);
void value_entry_at(const struct value *object, u32 i, struct value *key, struct value *v);

/* JSON text to a value; ERR_INVALID with position, ERR_TOO_LARGE if the arena's limit is reached. Depth at
 * most LIMIT_JSON_DEPTH; of equal keys the last wins, in the place of the first; integers beyond i64 become
 * floats; a lone surrogate becomes U+FFFD; text that is no UTF-8 is ERR_INVALID. */
enum status value_parse_json(struct arena *a, struct str text, struct value *out, struct err *err) MUST_USE;
/* As Python's json.dumps(ensure_ascii=False): ", " and ": " between; indent < 0 = one line. */
void value_to_json(struct buf *b, const struct value *v, int indent);

struct json_style {
    struct str indent;             /* one level of it; p == NULL: all in one line */
    struct str comma, colon;       /* as json.dumps' separators */
    bool ascii, sort_keys;
    bool go;                       /* Go's json.Marshal: compact, escapes < > &, sorted keys but for structs; what JSON
                                      cannot show is null */
    size_t limit_bytes;            /* b->n may not go beyond it */
};
/* ERR_TOO_LARGE over limit_bytes or LIMIT_JSON_DEPTH, ERR_INVALID for what JSON cannot show. The text so far
 * stays in b. Values need not be trees: the limit bounds shared parts too. */
enum status value_write_json(struct buf *b, const struct value *v, const struct json_style *style, struct err *err) MUST_USE;
/* Shortest digits that read back as f, as Python's repr: 1.0, 1e+16, 0.0001, inf, nan. */
void value_write_float(struct buf *b, f64 f);

#endif
