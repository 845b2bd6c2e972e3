/* gguf.c - the reader. One pass over the header with a cursor that can't leave the file; two hash
 * tables of names behind it. The layout is ggml's docs/gguf.md:
 *   "GGUF", u32 version, u64 n_tensors, u64 n_kvs
 *   kvs:     string key, u32 type, value           string = u64 length, bytes
 *            array value = u32 element type, u64 n, elements
 *   tensors: string name, u32 n_dims, u64 dims[], u32 type, u64 offset (from the data section)
 *   padding to general.alignment (32 if absent), data section */
#include "gguf/gguf.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/limit.h"

#define ALIGNMENT_DEFAULT 32u
/* More than that many names on one chain of a half-empty table is no accident. */
#define PROBES_MAX 256u

/* Least bytes that one entry takes in the file; refuses a count before it is allocated for. */
#define KV_BYTES_MIN (8u + 4u + 1u)
#define TENSOR_BYTES_MIN (8u + 4u + 4u + 8u)

struct cursor {
    const u8 *data;
    size_t bytes, at;
    struct err *err;
};

/* Room for a name in a message: cut, and nothing that could confuse a terminal. */
struct shown {
    char text[68];
};

static struct shown name_shown(struct str name) {
    struct shown s;
    size_t n = MIN(name.n, sizeof s.text - 4);
    for (size_t i = 0; i < n; i++)
        s.text[i] = name.p[i] >= ' ' && name.p[i] < 127 ? name.p[i] : '?';
    snprintf(s.text + n, sizeof s.text - n, "%s", n < name.n ? "..." : "");
    return s;
}

static enum status cut_off(struct cursor *c, const char *what) {
    return err_set(c->err, ERR_CORRUPT,
                   "the GGUF file is cut off or damaged: %s at byte %zu goes beyond its end (%zu)", what,
                   c->at, c->bytes);
}

static enum status read_bytes(struct cursor *c, u64 n, const char *what, const u8 **out) {
    *out = NULL;
    if (n > c->bytes - c->at)
        return cut_off(c, what);
    *out = c->data + c->at;
    c->at += (size_t)n;
    return OK;
}

static enum status read_u32(struct cursor *c, const char *what, u32 *out) {
    const u8 *p;
    *out = 0;
    TRY(read_bytes(c, 4, what, &p));
    *out = load_u32(p);
    return OK;
}

static enum status read_u64(struct cursor *c, const char *what, u64 *out) {
    const u8 *p;
    *out = 0;
    TRY(read_bytes(c, 8, what, &p));
    *out = load_u64(p);
    return OK;
}

static enum status read_str(struct cursor *c, const char *what, struct str *out) {
    u64 n;
    const u8 *p;
    TRY(read_u64(c, what, &n));
    TRY(read_bytes(c, n, what, &p));
    if (n > LIMIT_GGUF_STRING_BYTES)
        return err_set(c->err, ERR_TOO_LARGE,
                       "%s at byte %zu of the GGUF file has %llu bytes; at most %u are read", what,
                       c->at - (size_t)n, (unsigned long long)n, LIMIT_GGUF_STRING_BYTES);
    *out = (struct str){(const char *)p, (size_t)n};
    return OK;
}

/* Bytes of a value; 0 for strings, arrays and unknown types. */
static u32 scalar_bytes(u32 type) {
    static const u8 bytes[] = {
        [GGUF_U8] = 1,  [GGUF_I8] = 1,   [GGUF_U16] = 2, [GGUF_I16] = 2, [GGUF_U32] = 4, [GGUF_I32] = 4,
        [GGUF_F32] = 4, [GGUF_BOOL] = 1, [GGUF_U64] = 8, [GGUF_I64] = 8, [GGUF_F64] = 8};
    return type < ARRAY_LEN(bytes) ? bytes[type] : 0;
}

/* --- key-value pairs --- */

static enum status read_strings(struct cursor *c, u64 n) {
    struct str s;
    if (n > (c->bytes - c->at) / 8)
        return cut_off(c, "a string array");
    for (u64 i = 0; i < n; i++)
        TRY(read_str(c, "a string array", &s));
    return OK;
}

static enum status read_array(struct cursor *c, struct gguf_kv *kv) {
    u32 type;
    u64 n, bytes;
    const u8 *p;
    TRY(read_u32(c, "an array", &type));
    TRY(read_u64(c, "an array", &n));
    struct shown key = name_shown(kv->key);
    if (type == GGUF_ARRAY)
        return err_set(c->err, ERR_CORRUPT, "GGUF key %s (byte %zu): arrays of arrays are not read", key.text,
                       c->at);
    if (type != GGUF_STRING && scalar_bytes(type) == 0)
        return err_set(c->err, ERR_CORRUPT, "GGUF key %s (byte %zu): unknown element type %u", key.text,
                       c->at, type);
    if (n > LIMIT_GGUF_ARRAY && n <= c->bytes)
        return err_set(c->err, ERR_TOO_LARGE, "GGUF key %s (byte %zu): %llu elements; at most %u are read",
                       key.text, c->at, (unsigned long long)n, LIMIT_GGUF_ARRAY);
    kv->elem_type = type;
    kv->n = n;
    kv->data = c->data + c->at;
    if (type == GGUF_STRING)
        return read_strings(c, n);
    if (mul_overflow(n, scalar_bytes(type), &bytes))
        return cut_off(c, "an array");
    return read_bytes(c, bytes, "an array", &p);
}

static enum status read_kv(struct cursor *c, struct gguf_kv *kv) {
    u32 type;
    struct str s;
    TRY(read_str(c, "a key", &kv->key));
    TRY(read_u32(c, "a value's type", &type));
    if (type != GGUF_STRING && type != GGUF_ARRAY && scalar_bytes(type) == 0)
        return err_set(c->err, ERR_CORRUPT, "GGUF key %s (byte %zu): unknown type %u",
                       name_shown(kv->key).text, c->at - 4, type);
    kv->type = type;
    kv->n = 1;
    kv->data = c->data + c->at;
    if (type == GGUF_ARRAY)
        TRY(read_array(c, kv));
    else if (type == GGUF_STRING)
        TRY(read_str(c, "a text", &s));
    else
        TRY(read_bytes(c, scalar_bytes(type), "a value", &kv->data));
    kv->bytes = (u64)(c->data + c->at - kv->data);
    return OK;
}

/* --- tensors --- */

static enum status tensor_size(struct cursor *c, struct gguf_tensor *t) {
    u64 values = t->dims[1], bytes;
    u32 block = quant_block_values(t->type);
    struct shown name = name_shown(t->name);
    bool overflow = mul_overflow(values, t->dims[2], &values) || mul_overflow(values, t->dims[3], &values);
    if (overflow || mul_overflow(values, t->dims[0], &bytes) || bytes > INT64_MAX)
        return err_set(c->err, ERR_CORRUPT, "GGUF tensor %s: its dimensions overflow", name.text);
    if (block == 0)
        return OK;
    if (t->dims[0] % block != 0)
        return err_set(c->err, ERR_CORRUPT,
                       "GGUF tensor %s: rows of %llu values are no multiple of %s's block of %u", name.text,
                       (unsigned long long)t->dims[0], quant_name(t->type), block);
    if (mul_overflow(bytes / block, quant_block_bytes(t->type), &t->bytes))
        return err_set(c->err, ERR_CORRUPT, "GGUF tensor %s: its size overflows", name.text);
    return OK;
}

/* data is left at its offset (as a number) until the start of the data section is known. */
static enum status read_tensor(struct cursor *c, struct gguf_tensor *t, u64 *offset) {
    TRY(read_str(c, "a tensor's name", &t->name));
    TRY(read_u32(c, "a tensor's dimensions", &t->n_dims));
    struct shown name = name_shown(t->name);
    if (t->n_dims > 4)
        return err_set(c->err, ERR_CORRUPT,
                       "GGUF tensor %s (byte %zu): %u dimensions; at most 4 are possible", name.text,
                       c->at - 4, t->n_dims);
    for (u32 i = 0; i < 4; i++) {
        t->dims[i] = 1;
        if (i < t->n_dims)
            TRY(read_u64(c, "a tensor's dimensions", &t->dims[i]));
        if (t->dims[i] == 0)
            return err_set(c->err, ERR_CORRUPT, "GGUF tensor %s (byte %zu): dimension %u is 0", name.text,
                           c->at - 8, i);
    }
    t->n_dims = MAX(t->n_dims, 1); /* a scalar is one value */
    TRY(read_u32(c, "a tensor's type", &t->type));
    TRY(read_u64(c, "a tensor's offset", offset));
    return tensor_size(c, t);
}

static enum status tensor_place(struct gguf *g, struct gguf_tensor *t, u64 offset, u64 start, u32 alignment,
                                struct err *err) {
    u64 begin, end;
    if (offset % alignment != 0)
        return err_set(err, ERR_CORRUPT, "GGUF tensor %s: offset %llu is not aligned to %u",
                       name_shown(t->name).text, (unsigned long long)offset, alignment);
    if (add_overflow(start, offset, &begin) || add_overflow(begin, t->bytes, &end) || end > g->bytes)
        return err_set(
            err, ERR_CORRUPT,
            "the GGUF file is cut off or damaged: tensor %s (%llu bytes at %llu of the data) ends beyond "
            "its end (%zu)",
            name_shown(t->name).text, (unsigned long long)t->bytes, (unsigned long long)offset, g->bytes);
    t->data = g->data + begin;
    return OK;
}

/* --- the tables of names --- */

static u32 index_slots(u32 n) {
    u32 slots = 4;
    while (slots < 2 * n)
        slots *= 2;
    return slots;
}

/* Names lie `stride` bytes apart, as the first member of their structs. */
static struct str name_at(const void *names, size_t stride, u32 i) {
    struct str s;
    memcpy(&s, (const u8 *)names + stride * i, sizeof s);
    return s;
}

static enum status index_build(const void *names, size_t stride, u32 n, u32 **out, u32 *out_size,
                               const char *what, struct err *err) {
    u32 size = index_slots(n), *slots = xcalloc(size, sizeof *slots);
    *out = slots;
    *out_size = size;
    for (u32 i = 0; i < n; i++) {
        struct str name = name_at(names, stride, i);
        u32 at = (u32)hash_bytes(name.p, name.n, 0) & (size - 1);
        for (u32 probes = 0; slots[at]; at = (at + 1) & (size - 1)) {
            if (str_eq(name, name_at(names, stride, slots[at] - 1)))
                return err_set(err, ERR_CORRUPT, "the GGUF file has the %s %s twice", what,
                               name_shown(name).text);
            if (++probes > PROBES_MAX)
                return err_set(err, ERR_CORRUPT, "the %ss of the GGUF file are made to collide", what);
        }
        slots[at] = i + 1;
    }
    return OK;
}

static u32 index_find(const void *names, size_t stride, const u32 *slots, u32 size, struct str name) {
    if (size == 0)
        return UINT32_MAX;
    for (u32 at = (u32)hash_bytes(name.p, name.n, 0) & (size - 1); slots[at]; at = (at + 1) & (size - 1))
        if (str_eq(name, name_at(names, stride, slots[at] - 1)))
            return slots[at] - 1;
    return UINT32_MAX;
}

/* --- the file --- */

static enum status count_check(struct cursor *c, const char *what, u64 n, u32 bytes_min, u32 limit) {
    if (n > (c->bytes - c->at) / bytes_min)
        return err_set(c->err, ERR_CORRUPT,
                       "the GGUF file is cut off or damaged: %llu %s do not fit into %zu bytes",
                       (unsigned long long)n, what, c->bytes);
    if (n > limit)
        return err_set(c->err, ERR_TOO_LARGE, "the GGUF file has %llu %s; at most %u are read",
                       (unsigned long long)n, what, limit);
    return OK;
}

static enum status read_head(struct cursor *c, struct gguf *g) {
    const u8 *magic;
    u64 n_tensors, n_kvs;
    if (c->bytes < 4 || memcmp(c->data, "GGUF", 4) != 0)
        return err_set(c->err, ERR_CORRUPT, "not a GGUF file: it does not begin with \"GGUF\"");
    TRY(read_bytes(c, 4, "the head", &magic));
    TRY(read_u32(c, "the head", &g->version));
    if (g->version != 2 && g->version != 3)
        return err_set(c->err, ERR_UNSUPPORTED, "GGUF version %u; versions 2 and 3 are read%s", g->version,
                       g->version && (g->version & 0xffff) == 0 ? " (this file is big-endian)" : "");
    TRY(read_u64(c, "the head", &n_tensors));
    TRY(read_u64(c, "the head", &n_kvs));
    TRY(count_check(c, "keys", n_kvs, KV_BYTES_MIN, LIMIT_GGUF_KEYS));
    TRY(count_check(c, "tensors", n_tensors, TENSOR_BYTES_MIN, LIMIT_GGUF_TENSORS));
    g->n_kvs = (u32)n_kvs;
    g->n_tensors = (u32)n_tensors;
    g->kvs = xcalloc(g->n_kvs, sizeof *g->kvs);
    g->tensors = xcalloc(g->n_tensors, sizeof *g->tensors);
    return OK;
}

static enum status read_alignment(struct cursor *c, const struct gguf *g, u32 *alignment) {
    const struct gguf_kv *kv = gguf_find(g, STR("general.alignment"));
    *alignment = ALIGNMENT_DEFAULT;
    if (!kv)
        return OK;
    if (!gguf_get_u32(g, kv->key, alignment) || *alignment == 0 || (*alignment & (*alignment - 1)) != 0)
        return err_set(c->err, ERR_CORRUPT, "general.alignment of the GGUF file is no power of two");
    return OK;
}

static enum status parse(struct cursor *c, struct gguf *g, u64 *offsets) {
    u32 alignment;
    TRY(read_alignment(c, g, &alignment));
    for (u32 i = 0; i < g->n_tensors; i++)
        TRY(read_tensor(c, &g->tensors[i], &offsets[i]));
    TRY(index_build(g->tensors, sizeof *g->tensors, g->n_tensors, &g->tensor_index, &g->tensor_index_size,
                    "tensor", c->err));
    u64 start = ALIGN_UP((u64)c->at, (u64)alignment);
    for (u32 i = 0; i < g->n_tensors; i++)
        TRY(tensor_place(g, &g->tensors[i], offsets[i], start, alignment, c->err));
    return OK;
}

static enum status parse_all(struct cursor *c, struct gguf *g) {
    TRY(read_head(c, g));
    for (u32 i = 0; i < g->n_kvs; i++)
        TRY(read_kv(c, &g->kvs[i]));
    TRY(index_build(g->kvs, sizeof *g->kvs, g->n_kvs, &g->kv_index, &g->kv_index_size, "key", c->err));
    u64 *offsets = xcalloc(g->n_tensors, sizeof *offsets);
    enum status status = parse(c, g, offsets);
    free(offsets);
    return status;
}

_Static_assert(offsetof(struct gguf_kv, key) == 0 && offsetof(struct gguf_tensor, name) == 0,
               "name_at reads it there");

enum status gguf_parse(struct gguf *g, const void *data, size_t bytes, struct err *err) {
    *g = (struct gguf){.data = data, .bytes = bytes};
    struct cursor c = {data, bytes, 0, err};
    enum status status = parse_all(&c, g);
    if (status != OK)
        gguf_release(g);
    return status;
}

void gguf_release(struct gguf *g) {
    free(g->kvs);
    free(g->tensors);
    free(g->kv_index);
    free(g->tensor_index);
    *g = (struct gguf){0};
}

/* --- access --- */

const struct gguf_kv *gguf_find(const struct gguf *g, struct str key) {
    u32 i = index_find(g->kvs, sizeof *g->kvs, g->kv_index, g->kv_index_size, key);
    return i == UINT32_MAX ? NULL : &g->kvs[i];
}

const struct gguf_tensor *gguf_tensor_find(const struct gguf *g, struct str name) {
    u32 i = index_find(g->tensors, sizeof *g->tensors, g->tensor_index, g->tensor_index_size, name);
    return i == UINT32_MAX ? NULL : &g->tensors[i];
}

static u32 elem_type(const struct gguf_kv *kv) { return kv->type == GGUF_ARRAY ? kv->elem_type : kv->type; }

/* An integer element as sign and magnitude; false for other types. */
static bool elem_int(const struct gguf_kv *kv, u64 i, bool *negative, u64 *magnitude) {
    u32 type = elem_type(kv), bytes = scalar_bytes(type);
    if (i >= kv->n || bytes == 0 || type == GGUF_BOOL || type == GGUF_F32 || type == GGUF_F64)
        return false;
    bool is_signed = type == GGUF_I8 || type == GGUF_I16 || type == GGUF_I32 || type == GGUF_I64;
    u64 v = 0;
    memcpy(&v, kv->data + i * bytes, bytes);
    *negative = is_signed && v >> (8 * bytes - 1);
    if (*negative && bytes < 8)
        v |= UINT64_MAX << (8 * bytes);
    *magnitude = *negative ? 0 - v : v;
    return true;
}

bool gguf_elem_u32(const struct gguf_kv *kv, u64 i, u32 *out) {
    bool negative;
    u64 v;
    if (!elem_int(kv, i, &negative, &v) || negative || v > UINT32_MAX)
        return false;
    *out = (u32)v;
    return true;
}

bool gguf_elem_f32(const struct gguf_kv *kv, u64 i, f32 *out) {
    u32 type = elem_type(kv);
    bool negative;
    u64 v;
    if (elem_int(kv, i, &negative, &v)) {
        if (v > 1u << 24) /* beyond that f32 has gaps */
            return false;
        *out = negative ? -(f32)v : (f32)v;
        return true;
    }
    if (i >= kv->n || (type != GGUF_F32 && type != GGUF_F64))
        return false;
    if (type == GGUF_F32) {
        *out = load_f32(kv->data + i * 4);
    } else {
        f64 d;
        memcpy(&d, kv->data + i * 8, sizeof d);
        *out = (f32)d;
    }
    return true;
}

bool gguf_elem_bool(const struct gguf_kv *kv, u64 i, bool *out) {
    if (i >= kv->n || elem_type(kv) != GGUF_BOOL)
        return false;
    *out = kv->data[i] != 0;
    return true;
}

static const struct gguf_kv *find_scalar(const struct gguf *g, struct str key) {
    const struct gguf_kv *kv = gguf_find(g, key);
    return kv && kv->type != GGUF_ARRAY ? kv : NULL;
}

bool gguf_get_u32(const struct gguf *g, struct str key, u32 *out) {
    const struct gguf_kv *kv = find_scalar(g, key);
    return kv && gguf_elem_u32(kv, 0, out);
}

bool gguf_get_f32(const struct gguf *g, struct str key, f32 *out) {
    const struct gguf_kv *kv = find_scalar(g, key);
    return kv && gguf_elem_f32(kv, 0, out);
}

bool gguf_get_bool(const struct gguf *g, struct str key, bool *out) {
    const struct gguf_kv *kv = find_scalar(g, key);
    return kv && gguf_elem_bool(kv, 0, out);
}

bool gguf_get_str(const struct gguf *g, struct str key, struct str *out) {
    const struct gguf_kv *kv = find_scalar(g, key);
    size_t at = 0;
    return kv && gguf_next_str(kv, &at, out);
}

bool gguf_next_str(const struct gguf_kv *kv, size_t *at, struct str *out) {
    if (elem_type(kv) != GGUF_STRING || *at >= kv->bytes || kv->bytes - *at < 8)
        return false;
    /* The parser has walked these lengths, but the file may have changed since. */
    u64 n = load_u64(kv->data + *at);
    if (n > kv->bytes - *at - 8)
        return false;
    *out = (struct str){(const char *)kv->data + *at + 8, (size_t)n};
    *at += 8 + (size_t)n;
    return true;
}
