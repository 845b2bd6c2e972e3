/* Parses the bytes as a GGUF file; whatever parses is read to its last byte. */
#include "gguf/gguf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static volatile u64 sink;

static void bytes_touch(const u8 *p, u64 n) {
    u64 sum = 0;
    for (u64 i = 0; i < n; i++)
        sum += p[i];
    sink += sum;
}

static void kv_touch(const struct gguf *g, const struct gguf_kv *kv) {
    struct str s;
    size_t at = 0;
    u32 u;
    f32 f;
    bool b;
    u64 n = 0;
    check(gguf_find(g, kv->key) == kv);
    bytes_touch(kv->data, kv->bytes);
    while (gguf_next_str(kv, &at, &s)) {
        bytes_touch((const u8 *)s.p, s.n);
        n++;
    }
    check(n == 0 || n == kv->n);
    for (u64 i = 0; i <= kv->n && i < 64; i++)
        sink += gguf_elem_u32(kv, i, &u) + gguf_elem_f32(kv, i, &f) + gguf_elem_bool(kv, i, &b);
    sink += gguf_get_u32(g, kv->key, &u) + gguf_get_f32(g, kv->key, &f) + gguf_get_bool(g, kv->key, &b) +
            gguf_get_str(g, kv->key, &s);
}

static void tensor_touch(const struct gguf *g, const struct gguf_tensor *t) {
    f32 values[256];
    check(gguf_tensor_find(g, t->name) == t);
    check(t->n_dims >= 1 && t->n_dims <= 4);
    bytes_touch(t->data, t->bytes);
    if (t->bytes && quant_supported(t->type))
        quant_decode(t->type, t->data, values, quant_block_values(t->type));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct gguf g;
    struct err err = {0};
    enum status status = gguf_parse(&g, data, size, &err);
    if (status != OK) {
        check(err.status == status && err.text[0]);
        return 0;
    }
    for (u32 i = 0; i < g.n_kvs; i++)
        kv_touch(&g, &g.kvs[i]);
    for (u32 i = 0; i < g.n_tensors; i++)
        tensor_touch(&g, &g.tensors[i]);
    check(gguf_find(&g, STR("no such key")) == NULL);
    gguf_release(&g);
    return 0;
}
