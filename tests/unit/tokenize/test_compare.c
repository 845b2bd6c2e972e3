/* vocabularies_compare: which differences make the ids of one file mean something else in another. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "tokenize/tokenize.h"

struct vocabulary {
    const char *kind;
    const char *texts; /* one letter each */
    u32 n_unused;      /* behind them */
    u32 bos, eot;      /* 0 = not said */
    bool no_kinds;
};

struct file {
    struct buf bytes;
    struct gguf gguf;
};

/* Writes and parses. */
static void file_finish(struct file *f, struct gguf_writer *w) {
    char path[] = "/tmp/minka-compare-XXXXXX", bytes[4096];
    struct err err;
    *f = (struct file){0};
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(gguf_write(w, path, &err), OK);
    gguf_writer_free(w);
    FILE *in = fopen(path, "rb");
    assert_non_null(in);
    for (size_t n; (n = fread(bytes, 1, sizeof bytes, in)) > 0;)
        buf_add(&f->bytes, bytes, n);
    fclose(in);
    close(fd);
    unlink(path);
    assert_int_equal(gguf_parse(&f->gguf, f->bytes.p, f->bytes.n, &err), OK);
}

static void file_release(struct file *f) {
    gguf_release(&f->gguf);
    buf_release(&f->bytes);
}

static void file_make(struct file *f, const struct vocabulary *v) {
    struct gguf_writer *w = gguf_writer_new();
    struct str texts[64];
    i32 kinds[64];
    u32 n = 0;
    for (; v->texts[n]; n++) {
        texts[n] = (struct str){v->texts + n, 1};
        kinds[n] = 1;
    }
    for (u32 i = 0; i < v->n_unused; i++, n++) {
        texts[n] = STR("[PAD]");
        kinds[n] = 5;
    }
    gguf_put_str(w, "tokenizer.ggml.model", str_of(v->kind));
    gguf_put_str_array(w, "tokenizer.ggml.tokens", texts, n);
    if (!v->no_kinds)
        gguf_put_array(w, "tokenizer.ggml.token_type", GGUF_I32, kinds, n);
    if (v->bos)
        gguf_put_u32(w, "tokenizer.ggml.bos_token_id", v->bos);
    if (v->eot)
        gguf_put_u32(w, "tokenizer.ggml.eot_token_id", v->eot);
    file_finish(f, w);
}

/* NULL: the same. In both directions. */
static void expect(struct vocabulary a, struct vocabulary b, const char *text) {
    struct file x, y;
    struct err err;
    file_make(&x, &a);
    file_make(&y, &b);
    for (u32 i = 0; i < 2; i++) {
        enum status status =
            i ? vocabularies_compare(&y.gguf, &x.gguf, &err) : vocabularies_compare(&x.gguf, &y.gguf, &err);
        assert_int_equal(status, text ? ERR_INVALID : OK);
        if (text && !strstr(err.text, text))
            fail_msg("\"%s\" is not in \"%s\"", text, err.text);
    }
    file_release(&x);
    file_release(&y);
}

static void test_compare(void **state) {
    (void)state;
    struct vocabulary v = {.kind = "gpt2", .texts = "abcdef", .bos = 1, .eot = 2}, w = v;
    expect(v, v, NULL);
    w.texts = "abcxef";
    expect(v, w, "token 3 is another");
    w.texts = "abcdefg";
    expect(v, w, "one has 6 tokens, the other 7");
    w = v, w.n_unused = 3;
    expect(v, w, NULL); /* filled up */
    w.no_kinds = true;
    expect(v, w, "one has 6 tokens, the other 9");
    w = v, w.bos = 3;
    expect(v, w, "bos");
    w = v, w.eot = 0; /* one says less than the other */
    expect(v, w, NULL);
    w = v, w.eot = 1;
    expect(v, w, "eot");
    w = v, w.kind = "llama";
    expect(v, w, "different kinds");
}

static void test_no_list(void **state) {
    (void)state;
    struct file x, y;
    struct gguf_writer *w = gguf_writer_new();
    struct err err;
    gguf_put_str(w, "tokenizer.ggml.model", STR("gpt2"));
    gguf_put_str(w, "tokenizer.ggml.tokens", STR("ab"));
    file_finish(&y, w);
    file_make(&x, &(struct vocabulary){.kind = "gpt2", .texts = "ab"});
    assert_int_equal(vocabularies_compare(&x.gguf, &y.gguf, &err), ERR_INVALID);
    assert_int_equal(vocabularies_compare(&y.gguf, &x.gguf, &err), ERR_INVALID);
    file_release(&x);
    file_release(&y);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_compare), cmocka_unit_test(test_no_list)};
    return cmocka_run_group_tests_name("tokenize_compare", tests, NULL, NULL);
}
