/* Goal: the reader returns what the writer put in, and survives every damaged file. Method: a small file
 * with each kind of value is written and read back; then it is cut at every length, each of its bytes takes
 * every value, and each count and offset takes hostile ones; whatever parses is walked to its last byte
 * (ASan and a buffer of exact size watch the borders). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/limit.h"
#include "gguf/gguf.h"

static const f32 weights[64] = {1, -2, 3.5f, [63] = 7};

static void writer_fill(struct gguf_writer *w) {
    static const i16 numbers[] = {-3, 0, 300};
    static const u64 large[] = {1, 1ull << 40};
    static const f64 doubles[] = {0.5, -2};
    static const u8 flags[] = {1, 0};
    const struct str names[] = {STR("one"), STR(""), STR("three\0x")};
    gguf_put_str(w, "general.architecture", STR("llama"));
    gguf_put_u32(w, "u", 4000000000u);
    gguf_put_f32(w, "f", 1e-5f);
    gguf_put_bool(w, "b", true);
    gguf_put_array(w, "i16s", GGUF_I16, numbers, 3);
    gguf_put_array(w, "u64s", GGUF_U64, large, 2);
    gguf_put_array(w, "f64s", GGUF_F64, doubles, 2);
    gguf_put_array(w, "bools", GGUF_BOOL, flags, 2);
    gguf_put_array(w, "none", GGUF_F32, NULL, 0);
    gguf_put_str_array(w, "names", names, 3);
    gguf_put_tensor(w, STR("w"), QUANT_F32, 2, (u64[]){4, 2}, weights);
    gguf_put_tensor(w, STR("q"), QUANT_Q8_0, 1, (u64[]){32}, weights);
}

/* Writes to a file and reads it into a heap block of its exact size. */
static u8 *writer_bytes(struct gguf_writer *w, size_t *n) {
    char path[] = "/tmp/minka-gguf-XXXXXX";
    struct err err;
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(gguf_write(w, path, &err), OK);
    *n = (size_t)lseek(fd, 0, SEEK_END);
    u8 *bytes = malloc(*n);
    assert_int_equal(pread(fd, bytes, *n, 0), (ssize_t)*n);
    close(fd);
    unlink(path);
    return bytes;
}

static u8 *sample_bytes(size_t *n) {
    struct gguf_writer *w = gguf_writer_new();
    writer_fill(w);
    u8 *bytes = writer_bytes(w, n);
    gguf_writer_free(w);
    return bytes;
}

static u64 bytes_sum(const u8 *p, u64 n) {
    u64 sum = 0;
    for (u64 i = 0; i < n; i++)
        sum += p[i];
    return sum;
}

/* Touches everything that a parsed file shows. */
static u64 gguf_walk(const struct gguf *g) {
    u64 sum = 0;
    for (u32 i = 0; i < g->n_kvs; i++) {
        const struct gguf_kv *kv = &g->kvs[i];
        struct str s;
        size_t at = 0;
        u64 n = 0;
        assert_ptr_equal(gguf_find(g, kv->key), kv);
        sum += bytes_sum(kv->data, kv->bytes);
        while (gguf_next_str(kv, &at, &s)) {
            sum += bytes_sum((const u8 *)s.p, s.n);
            n++;
        }
        assert_true(n == 0 || n == kv->n);
        for (u64 k = 0; k <= kv->n && k < 100; k++) {
            u32 u;
            f32 f;
            bool b;
            sum += gguf_elem_u32(kv, k, &u) + gguf_elem_f32(kv, k, &f) + gguf_elem_bool(kv, k, &b);
        }
    }
    for (u32 i = 0; i < g->n_tensors; i++) {
        assert_ptr_equal(gguf_tensor_find(g, g->tensors[i].name), &g->tensors[i]);
        sum += bytes_sum(g->tensors[i].data, g->tensors[i].bytes);
    }
    return sum;
}

static enum status parse_and_walk(const u8 *bytes, size_t n) {
    struct gguf g;
    struct err err = {0};
    enum status status = gguf_parse(&g, bytes, n, &err);
    if (status == OK) {
        gguf_walk(&g);
        gguf_release(&g);
    } else {
        assert_true(err.status == status && err.text[0]);
    }
    return status;
}

static void test_round_trip(void **state) {
    (void)state;
    size_t n, at = 0;
    u8 *bytes = sample_bytes(&n);
    struct gguf g;
    struct err err;
    struct str s;
    u32 u;
    f32 f;
    bool b;
    assert_int_equal(gguf_parse(&g, bytes, n, &err), OK);
    assert_int_equal(g.version, 3);
    assert_int_equal(g.n_kvs, 10);
    assert_true(gguf_get_str(&g, STR("general.architecture"), &s) && str_is(s, "llama"));
    assert_true(gguf_get_u32(&g, STR("u"), &u) && u == 4000000000u);
    assert_true(gguf_get_f32(&g, STR("f"), &f) && f == 1e-5f);
    assert_true(gguf_get_bool(&g, STR("b"), &b) && b);
    assert_false(gguf_get_u32(&g, STR("f"), &u));
    assert_false(gguf_get_f32(&g, STR("u"), &f)); /* 4000000000 is none of f32's integers for sure */
    assert_false(gguf_get_bool(&g, STR("u"), &b));
    assert_false(gguf_get_str(&g, STR("names"), &s));
    assert_false(gguf_get_u32(&g, STR("absent"), &u));
    const struct gguf_kv *kv = gguf_find(&g, STR("i16s"));
    assert_false(gguf_elem_u32(kv, 0, &u));
    assert_true(gguf_elem_f32(kv, 0, &f) && f == -3);
    assert_true(gguf_elem_u32(kv, 2, &u) && u == 300);
    assert_false(gguf_elem_u32(kv, 3, &u));
    assert_false(gguf_elem_u32(gguf_find(&g, STR("u64s")), 1, &u));
    assert_true(gguf_elem_f32(gguf_find(&g, STR("f64s")), 1, &f) && f == -2);
    assert_true(gguf_elem_bool(gguf_find(&g, STR("bools")), 1, &b) && !b);
    assert_int_equal(gguf_find(&g, STR("none"))->n, 0);
    kv = gguf_find(&g, STR("names"));
    assert_true(gguf_next_str(kv, &at, &s) && str_is(s, "one"));
    assert_true(gguf_next_str(kv, &at, &s) && s.n == 0);
    assert_true(gguf_next_str(kv, &at, &s) && str_eq(s, STR("three\0x")));
    assert_false(gguf_next_str(kv, &at, &s));
    const struct gguf_tensor *t = gguf_tensor_find(&g, STR("w"));
    assert_int_equal(t->bytes, 32);
    assert_memory_equal(t->data, weights, 32);
    assert_int_equal(gguf_tensor_find(&g, STR("q"))->bytes, 34);
    assert_null(gguf_tensor_find(&g, STR("v")));
    gguf_release(&g);
    assert_null(gguf_find(&g, STR("u")));
    free(bytes);
}

/* A parsed file written again by gguf_put_kv has the same bytes. */
static void test_copy(void **state) {
    (void)state;
    size_t n, n_copy;
    u8 *bytes = sample_bytes(&n);
    struct gguf g;
    struct err err;
    assert_int_equal(gguf_parse(&g, bytes, n, &err), OK);
    struct gguf_writer *w = gguf_writer_new();
    for (u32 i = 0; i < g.n_kvs; i++)
        gguf_put_kv(w, &g.kvs[i]);
    for (u32 i = 0; i < g.n_tensors; i++)
        gguf_put_tensor(w, g.tensors[i].name, g.tensors[i].type, g.tensors[i].n_dims, g.tensors[i].dims,
                        g.tensors[i].data);
    u8 *copy = writer_bytes(w, &n_copy);
    assert_int_equal(n, n_copy);
    assert_memory_equal(bytes, copy, n);
    gguf_writer_free(w);
    gguf_release(&g);
    free(bytes);
    free(copy);
}

static void test_write_fails(void **state) {
    (void)state;
    struct gguf_writer *w = gguf_writer_new();
    struct err err;
    writer_fill(w);
    assert_int_equal(gguf_write(w, "/nowhere/at/all.gguf", &err), ERR_IO);
    assert_int_equal(gguf_write(w, "/dev/full", &err), ERR_IO);
    gguf_writer_free(w);
}

static void test_truncated(void **state) {
    (void)state;
    size_t n;
    u8 *bytes = sample_bytes(&n);
    size_t data_end = n - (ALIGN_UP(34u, 32u) - 34); /* the padding behind the last tensor may be missing */
    for (size_t cut = 0; cut < n; cut++) {
        u8 *part = malloc(cut ? cut : 1);
        memcpy(part, bytes, cut);
        enum status status = parse_and_walk(part, cut);
        assert_true(cut < data_end ? status == ERR_CORRUPT : status == OK);
        free(part);
    }
    free(bytes);
}

static void test_each_byte(void **state) {
    (void)state;
    size_t n;
    u8 *bytes = sample_bytes(&n);
    for (size_t i = 0; i < n; i++) {
        u8 was = bytes[i];
        for (u32 v = 0; v < 256; v++) {
            bytes[i] = (u8)v;
            enum status status = parse_and_walk(bytes, n);
            assert_true(status == OK || status == ERR_CORRUPT || status == ERR_UNSUPPORTED);
        }
        bytes[i] = was;
    }
    free(bytes);
}

/* Every 4- and 8-byte field (at any place) takes the values at which sums and products wrap. */
static void test_each_field(void **state) {
    (void)state;
    static const u64 hostile[] = {
        0,          1,          UINT64_MAX, UINT64_MAX - 7, INT64_MAX,  1ull << 63,
        1ull << 61, 1ull << 32, UINT32_MAX, 1u << 31,       1ull << 60, (1ull << 32) + 1,
        1ull << 24, 65536,      65537,      1ull << 56,     1ull << 62};
    size_t n;
    u8 *bytes = sample_bytes(&n);
    for (size_t i = 0; i + 8 <= n; i++)
        for (u32 h = 0; h < ARRAY_LEN(hostile); h++)
            for (size_t width = 4; width <= 8; width += 4) {
                u8 was[8];
                memcpy(was, bytes + i, 8);
                memcpy(bytes + i, &hostile[h], width);
                enum status status = parse_and_walk(bytes, n);
                assert_true(status == OK || status == ERR_CORRUPT || status == ERR_UNSUPPORTED);
                memcpy(bytes + i, was, 8);
            }
    free(bytes);
}

/* --- files put together by hand --- */

static void put_u32(struct buf *b, u32 v) { buf_add(b, &v, 4); }
static void put_u64(struct buf *b, u64 v) { buf_add(b, &v, 8); }
static void put_str(struct buf *b, const char *s) {
    put_u64(b, strlen(s));
    buf_add(b, s, strlen(s));
}

static void head_put(struct buf *b, u32 version, u64 n_tensors, u64 n_kvs) {
    buf_clear(b);
    buf_add(b, "GGUF", 4);
    put_u32(b, version);
    put_u64(b, n_tensors);
    put_u64(b, n_kvs);
}

static void tensor_put(struct buf *b, const char *name, u64 d0, u64 d1, u32 type, u64 offset) {
    put_str(b, name);
    put_u32(b, 2);
    put_u64(b, d0);
    put_u64(b, d1);
    put_u32(b, type);
    put_u64(b, offset);
}

static enum status buf_parse(const struct buf *b, struct err *err) {
    struct gguf g;
    u8 *exact = malloc(b->n);
    memcpy(exact, b->p, b->n);
    enum status status = gguf_parse(&g, exact, b->n, err);
    if (status == OK) {
        gguf_walk(&g);
        gguf_release(&g);
    }
    free(exact);
    return status;
}

static void fails(const struct buf *b, enum status want, const char *part) {
    struct err err = {0};
    assert_int_equal(buf_parse(b, &err), want);
    if (!strstr(err.text, part))
        fail_msg("\"%s\" lacks \"%s\"", err.text, part);
}

static void zeros_put(struct buf *b, size_t n) {
    while (n--)
        buf_add_char(b, 0);
}

static void test_head(void **state) {
    (void)state;
    struct buf b = {0};
    struct err err;
    buf_add(&b, "PK\3\4....", 8);
    fails(&b, ERR_CORRUPT, "not a GGUF file");
    head_put(&b, 1, 0, 0);
    fails(&b, ERR_UNSUPPORTED, "version 1");
    head_put(&b, 3u << 24, 0, 0);
    fails(&b, ERR_UNSUPPORTED, "big-endian");
    head_put(&b, 2, 0, 0);
    assert_int_equal(buf_parse(&b, &err), OK);
    head_put(&b, 3, 0, 1ull << 40);
    fails(&b, ERR_CORRUPT, "do not fit");
    head_put(&b, 3, 0, LIMIT_GGUF_KEYS + 1);
    zeros_put(&b, 13 * (LIMIT_GGUF_KEYS + 1));
    fails(&b, ERR_TOO_LARGE, "65537 keys");
    buf_release(&b);
}

static void test_keys(void **state) {
    (void)state;
    struct buf b = {0};
    head_put(&b, 3, 0, 2);
    for (u32 i = 0; i < 2; i++) {
        put_str(&b, "twice");
        put_u32(&b, GGUF_U32);
        put_u32(&b, i);
    }
    fails(&b, ERR_CORRUPT, "key twice twice");
    head_put(&b, 3, 0, 1);
    put_str(&b, "bad\x1b[2Jname");
    put_u32(&b, 13);
    put_u64(&b, 0);
    fails(&b, ERR_CORRUPT, "bad?[2Jname");
    head_put(&b, 3, 0, 1);
    put_str(&b, "nested");
    put_u32(&b, GGUF_ARRAY);
    put_u32(&b, GGUF_ARRAY);
    put_u64(&b, 0);
    fails(&b, ERR_CORRUPT, "arrays of arrays");
    for (u32 i = 0; i < 4; i++) {
        static const u32 values[] = {0, 3, 1u << 31, 64};
        struct err err;
        head_put(&b, 3, 0, 1);
        put_str(&b, "general.alignment");
        put_u32(&b, GGUF_U32);
        put_u32(&b, values[i]);
        if (i < 2)
            fails(&b, ERR_CORRUPT, "power of two");
        else
            assert_int_equal(buf_parse(&b, &err), OK);
    }
    buf_release(&b);
}

static void test_tensors(void **state) {
    (void)state;
    struct buf b = {0};
    struct err err;
    static const struct {
        u64 d0, d1, offset;
        u32 type;
        enum status want;
        const char *text;
    } cases[] = {
        {4, 8, 0, QUANT_F32, OK, ""},
        {4, 8, 0, 4, OK, ""}, /* a removed format: no size, refused when it is needed */
        {4, 8, 1u << 20, 4, ERR_CORRUPT, "beyond its end"},
        {4, 9, 0, QUANT_F32, ERR_CORRUPT, "beyond its end"},
        {4, 8, 32, QUANT_F32, ERR_CORRUPT, "beyond its end"},
        {4, 8, 16, QUANT_F32, ERR_CORRUPT, "not aligned"},
        {4, 8, UINT64_MAX - 31, QUANT_F32, ERR_CORRUPT, "beyond its end"},
        {0, 8, 0, QUANT_F32, ERR_CORRUPT, "dimension 0 is 0"},
        {1ull << 32, 1ull << 32, 0, QUANT_F32, ERR_CORRUPT, "overflow"},
        {1ull << 62, 1, 0, QUANT_F32, ERR_CORRUPT, "overflow"},
        {1ull << 63, 1, 0, 4, ERR_CORRUPT, "overflow"},
        {33, 1, 0, QUANT_Q8_0, ERR_CORRUPT, "no multiple of Q8_0's block of 32"},
    };
    for (u32 i = 0; i < ARRAY_LEN(cases); i++) {
        head_put(&b, 3, 1, 0);
        tensor_put(&b, "t", cases[i].d0, cases[i].d1, cases[i].type, cases[i].offset);
        zeros_put(&b, ALIGN_UP(b.n, 32) - b.n + 128);
        if (cases[i].want == OK)
            assert_int_equal(buf_parse(&b, &err), OK);
        else
            fails(&b, cases[i].want, cases[i].text);
    }
    head_put(&b, 3, 2, 0);
    tensor_put(&b, "same", 1, 1, QUANT_F32, 0);
    tensor_put(&b, "same", 1, 1, QUANT_F32, 0);
    zeros_put(&b, 128);
    fails(&b, ERR_CORRUPT, "tensor same twice");
    buf_release(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),  cmocka_unit_test(test_copy),
        cmocka_unit_test(test_write_fails), cmocka_unit_test(test_truncated),
        cmocka_unit_test(test_each_byte),   cmocka_unit_test(test_each_field),
        cmocka_unit_test(test_head),        cmocka_unit_test(test_keys),
        cmocka_unit_test(test_tensors),
    };
    return cmocka_run_group_tests_name("gguf", tests, NULL, NULL);
}
