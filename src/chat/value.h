/* value.h - the values that templates compute with: JSON's kinds, with ordered objects. They live in an
 * arena and are never changed after they are built, but for lists and objects under construction. */
#ifndef MINKA_VALUE_H
#define MINKA_VALUE_H

#include "base/arena.h"
#include "base/buf.h"

enum value_kind { VALUE_UNDEFINED, VALUE_NONE, VALUE_BOOL, VALUE_INT, VALUE_FLOAT, VALUE_STR, VALUE_LIST, VALUE_OBJECT, VALUE_CALLABLE };

struct value;
struct value_member;

struct value {
    enum value_kind kind;
    union {
        bool b;
        i64 i;
        f64 f;
        struct str s;
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

/* JSON text to a value; ERR_INVALID with position. Depth at most LIMIT_JSON_DEPTH. */
enum status value_parse_json(struct arena *a, struct str text, struct value *out, struct err *err) MUST_USE;
/* As Python's json.dumps(ensure_ascii=False): ", " and ": " between; indent < 0 = one line. */
void value_to_json(struct buf *b, const struct value *v, int indent);

#endif
