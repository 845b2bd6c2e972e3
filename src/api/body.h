/* body.h - request bodies: JSON as the reference reads it. Field names match in any case, null is absent,
 * only the first value counts, broken UTF-8 and lone surrogates become U+FFFD, unknown fields are skipped. */
#ifndef MINKA_API_BODY_H
#define MINKA_API_BODY_H

#include <jansson.h>

#include "base/arena.h"
#include "base/buf.h"

/* A body without a value is ERR_INVALID "missing request body". The caller owns *out (json_decref); its
 * depth is at most LIMIT_JSON_DEPTH. */
enum status body_parse(struct str body, json_t **out, struct err *err) MUST_USE;

/* Zero is "absent" for every kind, so a zeroed struct is an empty request. */
enum tri { TRI_NONE, TRI_FALSE, TRI_TRUE };
struct maybe_int {
    bool set;
    i64 v;
};
struct maybe_real {
    bool set;
    f64 v;
};

enum field_kind {
    FIELD_STR,    /* struct str, in the tree */
    FIELD_BOOL,   /* enum tri */
    FIELD_INT,    /* struct maybe_int */
    FIELD_REAL,   /* struct maybe_real */
    FIELD_LIST,   /* json_t *, an array */
    FIELD_OBJECT, /* json_t *, an object */
    FIELD_ANY,    /* json_t *, whatever it is */
};

struct field {
    const char *name;
    enum field_kind kind;
    size_t offset;
};
#define FIELD(type, member, text, kind)                                                                      \
    { text, kind, offsetof(struct type, member) }

/* Fills the struct at `out` from a JSON object (null: nothing). ERR_INVALID names type_name.field. */
enum status fields_read(const json_t *object, const char *type_name, const struct field *fields,
                        size_t n_fields, void *out, struct err *err) MUST_USE;

/* "string", "number", "bool", "array", "object", "null". */
const char *json_kind(const json_t *v);
struct str json_text(const json_t *v); /* of a string; empty for anything else */
/* Compact JSON text of a value, members in order. */
void json_write(struct buf *b, const json_t *v);

#endif
