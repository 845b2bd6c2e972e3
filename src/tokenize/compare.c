/* compare.c - whether two files have the same vocabulary. */
#include <stdio.h>

#include "base/limit.h"
#include "tokenize/internal.h"

#define KEY(name) STR("tokenizer.ggml." name)
/* Kind of a token in the file: fills the vocabulary up to a round number. */
#define KIND_UNUSED 5u

static enum status ids_compare(const struct gguf *a, const struct gguf *b, struct err *err) {
    static const char *const keys[] = {"bos", "eos", "eot", "eom"};
    for (u32 i = 0; i < ARRAY_LEN(keys); i++) {
        char key[64];
        u32 x, y;
        int n = snprintf(key, sizeof key, "tokenizer.ggml.%s_token_id", keys[i]);
        struct str name = {key, (size_t)n};
        if (gguf_get_u32(a, name, &x) && gguf_get_u32(b, name, &y) && x != y)
            return err_set(err, ERR_INVALID, "%s is token %u, and %u there", keys[i], x, y);
    }
    return OK;
}

/* The longer of two lists may only be filled up. */
static enum status rest_compare(const struct gguf *longer, u64 from, u64 n, struct err *err) {
    const struct gguf_kv *kinds = gguf_find(longer, KEY("token_type"));
    for (u64 i = from; i < n; i++) {
        u32 kind;
        if (!kinds || kinds->type != GGUF_ARRAY || i >= kinds->n || !gguf_elem_u32(kinds, i, &kind) ||
            kind != KIND_UNUSED)
            return err_set(err, ERR_INVALID, "one has %llu tokens, the other %llu", (unsigned long long)from,
                           (unsigned long long)n);
    }
    return OK;
}

static bool is_texts(const struct gguf_kv *kv) {
    return kv && kv->type == GGUF_ARRAY && kv->elem_type == GGUF_STRING && kv->n <= LIMIT_VOCAB;
}

enum status vocabularies_compare(const struct gguf *a, const struct gguf *b, struct err *err) {
    const struct gguf_kv *x = gguf_find(a, KEY("tokens")), *y = gguf_find(b, KEY("tokens"));
    struct str kind_a = STR_NONE, kind_b = STR_NONE, s, t;
    size_t at_x = 0, at_y = 0;
    gguf_get_str(a, KEY("model"), &kind_a);
    gguf_get_str(b, KEY("model"), &kind_b);
    if (!str_eq(kind_a, kind_b))
        return err_set(err, ERR_INVALID, "they are of different kinds");
    if (!is_texts(x) || !is_texts(y))
        return err_set(err, ERR_INVALID, "a file has no list of tokens");
    u64 n = MIN(x->n, y->n);
    for (u64 i = 0; i < n; i++)
        if (!gguf_next_str(x, &at_x, &s) || !gguf_next_str(y, &at_y, &t) || !str_eq(s, t))
            return err_set(err, ERR_INVALID, "token %llu is another", (unsigned long long)i);
    TRY(ids_compare(a, b, err));
    return rest_compare(x->n > n ? a : b, n, MAX(x->n, y->n), err);
}
