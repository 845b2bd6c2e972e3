/* write.c - the writer: keys gather in a buffer, tensors in a list; gguf_write lays them out. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/arena.h"
#include "base/buf.h"
#include "gguf/gguf.h"

#define ALIGNMENT 32u

struct gguf_writer {
    struct buf kvs;
    u64 n_kvs;
    struct arena names;
    struct gguf_tensor *tensors;
    u32 n_tensors, cap_tensors;
};

struct gguf_writer *gguf_writer_new(void) {
    struct gguf_writer *w = xcalloc(1, sizeof *w);
    arena_init(&w->names, 0);
    return w;
}

void gguf_writer_free(struct gguf_writer *w) {
    if (!w)
        return;
    buf_release(&w->kvs);
    arena_release(&w->names);
    free(w->tensors);
    free(w);
}

static void add_u32(struct buf *b, u32 v) { buf_add(b, &v, sizeof v); }
static void add_u64(struct buf *b, u64 v) { buf_add(b, &v, sizeof v); }

static void add_str(struct buf *b, struct str s) {
    add_u64(b, s.n);
    buf_add_str(b, s);
}

static void put_key(struct gguf_writer *w, struct str key, u32 type) {
    add_str(&w->kvs, key);
    add_u32(&w->kvs, type);
    w->n_kvs++;
}

void gguf_put_u32(struct gguf_writer *w, const char *key, u32 v) {
    put_key(w, str_of(key), GGUF_U32);
    add_u32(&w->kvs, v);
}

void gguf_put_f32(struct gguf_writer *w, const char *key, f32 v) {
    put_key(w, str_of(key), GGUF_F32);
    buf_add(&w->kvs, &v, sizeof v);
}

void gguf_put_bool(struct gguf_writer *w, const char *key, bool v) {
    put_key(w, str_of(key), GGUF_BOOL);
    buf_add_char(&w->kvs, v);
}

void gguf_put_str(struct gguf_writer *w, const char *key, struct str v) {
    put_key(w, str_of(key), GGUF_STRING);
    add_str(&w->kvs, v);
}

void gguf_put_array(struct gguf_writer *w, const char *key, enum gguf_type elem, const void *values, u64 n) {
    static const u8 bytes[] = {
        [GGUF_U8] = 1,  [GGUF_I8] = 1,   [GGUF_U16] = 2, [GGUF_I16] = 2, [GGUF_U32] = 4, [GGUF_I32] = 4,
        [GGUF_F32] = 4, [GGUF_BOOL] = 1, [GGUF_U64] = 8, [GGUF_I64] = 8, [GGUF_F64] = 8};
    check(elem != GGUF_STRING);
    check(elem != GGUF_ARRAY);
    put_key(w, str_of(key), GGUF_ARRAY);
    add_u32(&w->kvs, elem);
    add_u64(&w->kvs, n);
    buf_add(&w->kvs, values, n * bytes[elem]);
}

void gguf_put_str_array(struct gguf_writer *w, const char *key, const struct str *values, u64 n) {
    put_key(w, str_of(key), GGUF_ARRAY);
    add_u32(&w->kvs, GGUF_STRING);
    add_u64(&w->kvs, n);
    for (u64 i = 0; i < n; i++)
        add_str(&w->kvs, values[i]);
}

void gguf_put_kv(struct gguf_writer *w, const struct gguf_kv *kv) {
    put_key(w, kv->key, kv->type);
    if (kv->type == GGUF_ARRAY) {
        add_u32(&w->kvs, kv->elem_type);
        add_u64(&w->kvs, kv->n);
    }
    buf_add(&w->kvs, kv->data, kv->bytes);
}

void gguf_put_tensor(struct gguf_writer *w, struct str name, u32 type, u32 n_dims, const u64 *dims,
                     const void *data) {
    check(n_dims >= 1 && n_dims <= 4);
    if (w->n_tensors == w->cap_tensors) {
        w->cap_tensors = MAX(16, 2 * w->cap_tensors);
        w->tensors = xrealloc(w->tensors, w->cap_tensors * sizeof *w->tensors);
    }
    struct gguf_tensor *t = &w->tensors[w->n_tensors++];
    *t = (struct gguf_tensor){.name = arena_str(&w->names, name),
                              .type = type,
                              .n_dims = n_dims,
                              .dims = {1, 1, 1, 1},
                              .data = data};
    u64 n_rows = 1;
    for (u32 i = 0; i < n_dims; i++) {
        t->dims[i] = dims[i];
        if (i)
            n_rows *= dims[i];
    }
    t->bytes = n_rows * quant_row_bytes(type, u32_of(dims[0]));
}

static void pad(struct buf *b) {
    while (b->n % ALIGNMENT)
        buf_add_char(b, 0);
}

static void head_lay(const struct gguf_writer *w, struct buf *head) {
    buf_add(head, "GGUF", 4);
    add_u32(head, 3);
    add_u64(head, w->n_tensors);
    add_u64(head, w->n_kvs);
    buf_add(head, w->kvs.p, w->kvs.n);
    u64 offset = 0;
    for (u32 i = 0; i < w->n_tensors; i++) {
        const struct gguf_tensor *t = &w->tensors[i];
        add_str(head, t->name);
        add_u32(head, t->n_dims);
        buf_add(head, t->dims, t->n_dims * sizeof t->dims[0]);
        add_u32(head, t->type);
        add_u64(head, offset);
        offset += ALIGN_UP(t->bytes, ALIGNMENT);
    }
    pad(head);
}

static bool file_fill(const struct gguf_writer *w, const struct buf *head, FILE *f) {
    static const u8 zeros[ALIGNMENT];
    if (fwrite(head->p, 1, head->n, f) != head->n)
        return false;
    for (u32 i = 0; i < w->n_tensors; i++) {
        const struct gguf_tensor *t = &w->tensors[i];
        size_t padding = ALIGN_UP(t->bytes, ALIGNMENT) - t->bytes;
        if (fwrite(t->data, 1, t->bytes, f) != t->bytes || fwrite(zeros, 1, padding, f) != padding)
            return false;
    }
    return true;
}

enum status gguf_write(struct gguf_writer *w, const char *path, struct err *err) {
    struct buf head = {0};
    FILE *f = fopen(path, "wb");
    if (!f)
        return err_errno(err, ERR_IO, "%s can't be created", path);
    head_lay(w, &head);
    bool ok = file_fill(w, &head, f);
    int saved = errno;
    ok = fclose(f) == 0 && ok;
    buf_release(&head);
    if (ok)
        return OK;
    errno = saved ? saved : errno;
    return err_errno(err, ERR_IO, "%s can't be written", path);
}
