/* sample.h - small vocabularies for the tests of this folder, made with the GGUF writer. */
#ifndef MINKA_TESTS_SAMPLE_H
#define MINKA_TESTS_SAMPLE_H

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "tokenize/tokenize.h"

enum { NORMAL = 1, UNKNOWN = 2, CONTROL = 3, USER = 4, UNUSED_TOKEN = 5, BYTE = 6 };

struct sample {
    struct gguf_writer *w;
    char store[1 << 16];
    size_t store_n;
    struct str tokens[4096];
    i32 types[4096];
    f32 scores[4096];
    u32 n;
};

static inline u32 random_next(u32 *seed) {
    *seed = *seed * 1664525 + 1013904223;
    return *seed >> 8;
}

static inline u32 sample_add(struct sample *s, struct str text, i32 type, f32 score) {
    assert_true(s->n < ARRAY_LEN(s->tokens) && s->store_n + text.n <= sizeof s->store);
    memcpy(s->store + s->store_n, text.p, text.n);
    s->tokens[s->n] = (struct str){s->store + s->store_n, text.n};
    s->types[s->n] = type;
    s->scores[s->n] = score;
    s->store_n += text.n;
    return s->n++;
}

static inline void sample_init(struct sample *s, const char *model) {
    s->n = 0;
    s->store_n = 0;
    s->w = gguf_writer_new();
    gguf_put_str(s->w, "tokenizer.ggml.model", str_of(model));
}

/* GPT-2's alphabet, by its definition: printable bytes are themselves, the others count up from 256. */
static inline u32 byte_spell(u8 byte, char out[4]) {
    u32 code = 256;
    for (u32 b = 0; b <= byte; b++) {
        bool printable = (b >= '!' && b <= '~') || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
        if (b == byte)
            return utf8_encode(printable ? b : code, out);
        code += !printable;
    }
    return 0;
}

static inline void sample_add_bytes(struct sample *s) {
    for (u32 b = 0; b < 256; b++) {
        char text[4];
        sample_add(s, (struct str){text, byte_spell((u8)b, text)}, NORMAL, 0);
    }
}

/* A BPE vocabulary of the 256 bytes without merges: every text can be spelled. */
static inline void sample_init_bytes(struct sample *s) {
    sample_init(s, "gpt2");
    gguf_put_str(s->w, "tokenizer.ggml.pre", STR("gpt-2"));
    gguf_put_str_array(s->w, "tokenizer.ggml.merges", NULL, 0);
    sample_add_bytes(s);
}

/* Puts the token lists and opens; the writer is used up. Refuses as tokenizer_open does. */
static inline enum status sample_open(struct sample *s, struct tokenizer **t, struct err *err) {
    char path[] = "/tmp/minka-vocab-XXXXXX";
    struct gguf g;
    gguf_put_str_array(s->w, "tokenizer.ggml.tokens", s->tokens, s->n);
    gguf_put_array(s->w, "tokenizer.ggml.token_type", GGUF_I32, s->types, s->n);
    gguf_put_array(s->w, "tokenizer.ggml.scores", GGUF_F32, s->scores, s->n);
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(gguf_write(s->w, path, err), OK);
    gguf_writer_free(s->w);
    size_t n = (size_t)lseek(fd, 0, SEEK_END);
    u8 *bytes = malloc(n);
    assert_int_equal(pread(fd, bytes, n, 0), (ssize_t)n);
    close(fd);
    unlink(path);
    assert_int_equal(gguf_parse(&g, bytes, n, err), OK);
    enum status status = tokenizer_open(&g, t, err);
    gguf_release(&g);
    free(bytes); /* the tokenizer has copied what it needs */
    return status;
}

static inline struct tokenizer *sample_open_ok(struct sample *s) {
    struct tokenizer *t = NULL;
    struct err err = {0};
    if (sample_open(s, &t, &err) != OK)
        fail_msg("%s", err.text);
    return t;
}

#endif
