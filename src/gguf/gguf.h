/* gguf.h - reads a GGUF file (versions 2 and 3) that lies in memory; writes one.
 *
 * The file is hostile: every offset, count, type and length is checked before it is used, and nothing
 * outside [data, data + bytes) is ever read. Keys, strings and arrays point into the mapping. */
#ifndef MINKA_GGUF_H
#define MINKA_GGUF_H

#include "base/str.h"
#include "gguf/quant.h"

enum gguf_type {
    GGUF_U8,
    GGUF_I8,
    GGUF_U16,
    GGUF_I16,
    GGUF_U32,
    GGUF_I32,
    GGUF_F32,
    GGUF_BOOL,
    GGUF_STRING,
    GGUF_ARRAY,
    GGUF_U64,
    GGUF_I64,
    GGUF_F64,
};

struct gguf_kv {
    struct str key;
    enum gguf_type type;
    enum gguf_type elem_type; /* ARRAY: never ARRAY itself (nested arrays are refused) */
    u64 n;                    /* ARRAY: elements; else 1 */
    const u8 *data;           /* first element; strings as u64 length + bytes */
    u64 bytes;                /* of the value from data on */
};

struct gguf_tensor {
    struct str name;
    u32 type;    /* quant_type number, maybe one we do not support */
    u32 n_dims;  /* 1..4 */
    u64 dims[4]; /* dims[0] = row length; unused ones are 1 */
    u64 bytes;   /* 0 if the type's size is unknown to us */
    const u8 *data;
};

struct gguf {
    const u8 *data;
    size_t bytes;
    u32 version;
    u32 n_kvs;
    u32 n_tensors;
    struct gguf_kv *kvs;          /* [n_kvs] */
    struct gguf_tensor *tensors;  /* [n_tensors] */
    u32 *kv_index, *tensor_index; /* hash tables, gguf.c */
    u32 kv_index_size, tensor_index_size;
};

/* Parses; data must outlive g. ERR_CORRUPT names what is wrong and where (byte offset). Duplicate keys and
 * tensor names are refused. */
enum status gguf_parse(struct gguf *g, const void *data, size_t bytes, struct err *err) MUST_USE;
void gguf_release(struct gguf *g);

const struct gguf_kv *gguf_find(const struct gguf *g, struct str key); /* NULL if absent */
const struct gguf_tensor *gguf_tensor_find(const struct gguf *g, struct str name);
/* Typed reads: false if absent or of a type that does not convert without loss (any integer type that
 * holds a value in range; bool; f32/f64). */
bool gguf_get_u32(const struct gguf *g, struct str key, u32 *out);
bool gguf_get_f32(const struct gguf *g, struct str key, f32 *out);
bool gguf_get_bool(const struct gguf *g, struct str key, bool *out);
bool gguf_get_str(const struct gguf *g, struct str key, struct str *out);
/* Element i of an array as the same conversions allow. */
bool gguf_elem_u32(const struct gguf_kv *kv, u64 i, u32 *out);
bool gguf_elem_f32(const struct gguf_kv *kv, u64 i, f32 *out);
bool gguf_elem_bool(const struct gguf_kv *kv, u64 i, bool *out);
/* Walks a string array: *at starts at 0 and advances; false at the end. O(1) per call. */
bool gguf_next_str(const struct gguf_kv *kv, size_t *at, struct str *out);

/* --- writing: tools and tests --- */
struct gguf_writer;
struct gguf_writer *gguf_writer_new(void) MUST_USE;
void gguf_writer_free(struct gguf_writer *w);
void gguf_put_u32(struct gguf_writer *w, const char *key, u32 v);
void gguf_put_f32(struct gguf_writer *w, const char *key, f32 v);
void gguf_put_bool(struct gguf_writer *w, const char *key, bool v);
void gguf_put_str(struct gguf_writer *w, const char *key, struct str v);
void gguf_put_array(struct gguf_writer *w, const char *key, enum gguf_type elem, const void *values, u64 n);
void gguf_put_str_array(struct gguf_writer *w, const char *key, const struct str *values, u64 n);
void gguf_put_kv(struct gguf_writer *w, const struct gguf_kv *kv); /* copies one of a parsed file */
/* data must stay valid until gguf_write. */
void gguf_put_tensor(struct gguf_writer *w, struct str name, u32 type, u32 n_dims, const u64 *dims,
                     const void *data);
/* Creates or overwrites path; after a failure (ERR_IO) what is there is not a whole file. */
enum status gguf_write(struct gguf_writer *w, const char *path, struct err *err) MUST_USE;

#endif
