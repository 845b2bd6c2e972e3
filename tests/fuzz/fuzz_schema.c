/* fuzz_schema.c - JSON Schemas from outside: whatever compiles is walked with tokens that the masks allow,
 * chosen by the schema's own bytes; every one of them is taken, and there is always one until the text is
 * over. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "chat/grammar.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define N_TOKENS 259u

/* <0x00> .. <0xFF>, a word, its end and an end token. */
static struct grammar_vocab *vocab_make(void) {
    static char texts[N_TOKENS][16];
    static struct str tokens[N_TOKENS];
    static i32 types[N_TOKENS];
    static f32 scores[N_TOKENS];
    char path[] = "/tmp/minka-fuzz-XXXXXX";
    struct err err;
    struct gguf g;
    struct tokenizer *t;
    static u8 bytes[1 << 16];
    for (u32 i = 0; i < 256; i++) {
        snprintf(texts[i], sizeof texts[i], "<0x%02X>", i);
        types[i] = 6;
    }
    snprintf(texts[256], sizeof texts[256], "words");
    snprintf(texts[257], sizeof texts[257], "s\",\"");
    snprintf(texts[258], sizeof texts[258], "</s>");
    types[256] = types[257] = 1, types[258] = 3;
    for (u32 i = 0; i < N_TOKENS; i++)
        tokens[i] = str_of(texts[i]);
    struct gguf_writer *w = gguf_writer_new();
    gguf_put_str(w, "tokenizer.ggml.model", STR("llama"));
    gguf_put_u32(w, "tokenizer.ggml.eos_token_id", 258);
    gguf_put_str_array(w, "tokenizer.ggml.tokens", tokens, N_TOKENS);
    gguf_put_array(w, "tokenizer.ggml.token_type", GGUF_I32, types, N_TOKENS);
    gguf_put_array(w, "tokenizer.ggml.scores", GGUF_F32, scores, N_TOKENS);
    int fd = mkstemp(path);
    check(fd >= 0);
    check(gguf_write(w, path, &err) == OK);
    gguf_writer_free(w);
    ssize_t n = pread(fd, bytes, sizeof bytes, 0);
    close(fd);
    unlink(path);
    check(n > 0 && gguf_parse(&g, bytes, (size_t)n, &err) == OK);
    check(tokenizer_open(&g, &t, &err) == OK);
    gguf_release(&g);
    return grammar_vocab_new(t);
}

static void walk(struct grammar *g, const uint8_t *data, size_t size) {
    struct grammar_run r, mark = {0};
    u32 mask[DIV_CEIL(N_TOKENS, 32u)], seed = (u32)size;
    struct err err;
    grammar_run_start(g, &r);
    for (u32 step = 0; step < 120 && !grammar_run_over(&r); step++) {
        if (grammar_run_mask(&r, mask, &err) != OK) {
            check(err.status == ERR_TOO_LARGE);
            break;
        }
        u32 n = 0, chosen = N_TOKENS;
        seed = seed * 1664525 + 1013904223 + data[step % size];
        for (u32 i = 0; i < N_TOKENS; i++)
            if (mask[i / 32] >> (i % 32) & 1 && (seed ^ i * 2654435761u) % ++n == 0)
                chosen = i;
        check(chosen < N_TOKENS);
        if (step == 40)
            grammar_run_copy(&r, &mark);
        check(grammar_run_accept(&r, chosen));
        if (chosen == 258)
            break;
    }
    grammar_run_release(&r);
    grammar_run_release(&mark);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static struct grammar_vocab *vocab;
    struct grammar_part part = {
        .kind = GRAMMAR_SCHEMA, .text = {(const char *)data, size}, .path = STR("/format")};
    struct grammar *g;
    struct err err = {0};
    if (!vocab)
        vocab = vocab_make();
    if (grammar_compile(vocab, &part, &g, &err) != OK) {
        check(err.text[0]);
        return 0;
    }
    walk(g, data, size);
    grammar_free(g);
    return 0;
}
