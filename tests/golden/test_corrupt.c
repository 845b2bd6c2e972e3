/* Goal: a file that is no model gives a status and a text, never a crash, never a read outside of it. Method:
 * a tiny model is changed in every systematic way - each byte of its header to four other values, each length
 * it may be cut to, each key and tensor removed, each number replaced by absurd ones - and opened; what still
 * opens is computed with. The bytes lie in a block of exactly their size, so that AddressSanitizer sees every
 * read behind it. */
#include "golden.h"

#include <math.h>
#include <unistd.h>

static json_t *forward;
static const char *const models[] = {"llama-q-q4_1", "llama-bias", "gemma3-q4_0", "phi3-longrope"};

struct bytes {
    u8 *p;
    size_t n;
};

static struct bytes read_file(const char *path) {
    struct bytes b;
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    fseek(f, 0, SEEK_END);
    b.n = (size_t)ftell(f);
    rewind(f);
    b.p = xmalloc(b.n);
    assert_int_equal(fread(b.p, 1, b.n, f), b.n);
    fclose(f);
    return b;
}

static void ignore(void *ctx, u32 position, const f32 *logits) {
    (void)ctx;
    (void)position;
    (void)logits;
}

/* Opens and, if that works, computes three tokens. */
static enum status open_and_run(const struct bytes *b, struct err *err) {
    struct eval_model e;
    struct model_info info;
    struct gguf g;
    struct eval_options o = {.n_threads = 1, .num_ctx = 16, .slice = 2};
    memset(err, 0, sizeof *err);
    enum status parsed = gguf_parse(&g, b->p, b->n, err);
    if (parsed != OK)
        return parsed;
    enum status told = model_info_read(&g, KERN_CACHE_F16, &info, err);
    gguf_release(&g);
    enum status s = eval_model_open_memory(b->p, b->n, &o, &e, err);
    assert_true(s != OK || told == OK);
    if (s != OK) {
        assert_true(s == ERR_CORRUPT || s == ERR_UNSUPPORTED);
        assert_true(err->text[0] != 0);
        return s;
    }
    u32 ids[] = {0, 1, MIN(2u, model_info(e.model)->n_vocab - 1)};
    if (model_info(e.model)->n_vocab >= 2)
        assert_int_equal(eval_model_run(&e, ids, ARRAY_LEN(ids), true, ignore, NULL, err), OK);
    eval_model_close(&e);
    return OK;
}

static size_t header_bytes(const struct bytes *b) {
    struct gguf g;
    struct err err;
    size_t n = b->n;
    assert_int_equal(gguf_parse(&g, b->p, b->n, &err), OK);
    for (u32 i = 0; i < g.n_tensors; i++)
        n = MIN(n, (size_t)(g.tensors[i].data - b->p));
    gguf_release(&g);
    return n;
}

static void each_byte(void **state) {
    (void)state;
    char path[4096];
    u32 n_refused = 0, n_opened = 0;
    golden_model(forward, models[0], path);
    struct bytes b = read_file(path);
    struct err err;
    size_t n = header_bytes(&b);
    for (size_t i = 0; i < n; i++) {
        u8 was = b.p[i];
        u8 others[] = {0, 0xFF, was ^ 1, was ^ 0x80};
        for (u32 k = 0; k < ARRAY_LEN(others); k++) {
            b.p[i] = others[k];
            if (others[k] != was)
                open_and_run(&b, &err) == OK ? n_opened++ : n_refused++;
        }
        b.p[i] = was;
    }
    assert_true(n_refused > n_opened);
    assert_true(n_opened > 0); /* numbers that are as good as the old ones */
    free(b.p);
}

static void each_length(void **state) {
    (void)state;
    char path[4096];
    golden_model(forward, models[0], path);
    struct bytes b = read_file(path);
    struct err err;
    size_t header = header_bytes(&b);
    for (size_t n = 0; n < b.n; n += n < header + 64 ? 1 : 997) {
        struct bytes cut = {.p = xmalloc(n), .n = n};
        memcpy(cut.p, b.p, n);
        assert_true(open_and_run(&cut, &err) != OK);
        assert_true(err.text[0] != 0);
        free(cut.p);
    }
    free(b.p);
}

/* A copy of the file without one key or tensor, or with another value for one key. */
struct change {
    u32 skip_key, skip_tensor; /* UINT32_MAX: none */
    u32 key;                   /* UINT32_MAX: none */
    bool is_u32;
    u32 u;
    f32 f;
};

static struct bytes changed(const struct gguf *g, const struct change *c) {
    char path[] = "/tmp/minka-corrupt-XXXXXX";
    struct gguf_writer *w = gguf_writer_new();
    struct err err;
    for (u32 i = 0; i < g->n_kvs; i++) {
        char key[256];
        snprintf(key, sizeof key, "%.*s", STR_FMT(g->kvs[i].key));
        if (i == c->skip_key)
            continue;
        if (i != c->key)
            gguf_put_kv(w, &g->kvs[i]);
        else if (c->is_u32)
            gguf_put_u32(w, key, c->u);
        else
            gguf_put_f32(w, key, c->f);
    }
    for (u32 i = 0; i < g->n_tensors; i++) {
        const struct gguf_tensor *t = &g->tensors[i];
        if (i != c->skip_tensor)
            gguf_put_tensor(w, t->name, t->type, t->n_dims, t->dims, t->data);
    }
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    assert_int_equal(gguf_write(w, path, &err), OK);
    gguf_writer_free(w);
    struct bytes b = read_file(path);
    unlink(path);
    return b;
}

static bool names(const struct err *err, struct str what) {
    return str_find(str_of(err->text), what, 0) != SIZE_MAX;
}

/* Ends of names without which the file is another model, but a right one. */
static const char *const optional[] = {
    ".bias",
    "output.weight",
    "attention.head_count_kv",
    "attention.value_length",
    "attention.sliding_window",
    "rope.freq_base",
    "rope.freq_base_swa",
    "rope.dimension_count",
    "rope.scaling.type",
    "rope.scaling.original_context_length",
    "rope.scaling.attn_factor",
};

static bool is_optional(struct str name) {
    for (u32 i = 0; i < ARRAY_LEN(optional); i++)
        if (str_ends(name, str_of(optional[i])))
            return true;
    return false;
}

static void each_removed(void **state) {
    (void)state;
    char path[4096];
    for (u32 m = 0; m < ARRAY_LEN(models); m++) {
        struct gguf g;
        struct err err;
        golden_model(forward, models[m], path);
        struct bytes b = read_file(path);
        assert_int_equal(gguf_parse(&g, b.p, b.n, &err), OK);
        for (u32 i = 0; i < g.n_kvs + g.n_tensors; i++) {
            bool key = i < g.n_kvs;
            struct change c = {.skip_key = key ? i : UINT32_MAX,
                               .skip_tensor = key ? UINT32_MAX : i - g.n_kvs,
                               .key = UINT32_MAX};
            struct str name = key ? g.kvs[i].key : g.tensors[i - g.n_kvs].name;
            struct bytes other = changed(&g, &c);
            enum status s = open_and_run(&other, &err);
            if (s == OK && !is_optional(name))
                fail_msg("%s opens without %.*s", models[m], STR_FMT(name));
            /* Without its own key the head size is another, and a tensor's shape is what disagrees; without
             * attn_qkv its three parts are looked for. */
            if (s != OK && !names(&err, name) && !is_optional(name) && !str_ends(name, STR("key_length")) &&
                !str_ends(name, STR("attn_qkv.weight")))
                fail_msg("%s without %.*s: \"%s\" does not name it", models[m], STR_FMT(name), err.text);
            free(other.p);
        }
        gguf_release(&g);
        free(b.p);
    }
}

static void each_number(void **state) {
    (void)state;
    const u32 numbers[] = {0,    1,     2,     3,       5,          7,          15,         16,
                           17,   31,    33,    64,      100,        255,        256,        257,
                           4096, 65535, 65536, 1000003, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, UINT32_MAX};
    const f32 floats[] = {0,     -0.0f,  1,    -1,    0.5f,     1e-38f,    1e-45f,
                          3e38f, -3e38f, 1e6f, 1e12f, INFINITY, -INFINITY, NAN};
    char path[4096];
    for (u32 m = 0; m < ARRAY_LEN(models); m++) {
        struct gguf g;
        struct err err;
        golden_model(forward, models[m], path);
        struct bytes b = read_file(path);
        assert_int_equal(gguf_parse(&g, b.p, b.n, &err), OK);
        for (u32 i = 0; i < g.n_kvs; i++) {
            struct change c = {.skip_key = UINT32_MAX, .skip_tensor = UINT32_MAX, .key = i};
            for (u32 k = 0; k < ARRAY_LEN(numbers) + ARRAY_LEN(floats); k++) {
                c.is_u32 = k < ARRAY_LEN(numbers);
                c.u = c.is_u32 ? numbers[k] : 0;
                c.f = c.is_u32 ? 0 : floats[k - ARRAY_LEN(numbers)];
                struct bytes other = changed(&g, &c);
                open_and_run(&other, &err);
                free(other.p);
            }
        }
        gguf_release(&g);
        free(b.p);
    }
}

static int start(void **state) {
    (void)state;
    forward = golden_load("forward.json");
    return 0;
}

static int finish(void **state) {
    (void)state;
    json_decref(forward);
    golden_cleanup();
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_byte),
        cmocka_unit_test(each_length),
        cmocka_unit_test(each_removed),
        cmocka_unit_test(each_number),
    };
    return cmocka_run_group_tests(tests, start, finish);
}
