/* grammar_bench.c - what a constrained answer costs per token: the mask in a state that no text has been in
 * before (cold) and in one that is known (warm), and the sampler with and without a mask.
 *
 *   grammar_bench MODEL.gguf
 *
 * Texts are fed token by token; the first pass over a text is cold, the following ones are warm. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "chat/grammar.h"
#include "model/sampler.h"

#define ROUNDS 20u

static const struct {
    const char *name, *schema, *text;
} cases[] = {
    {"object of strings and numbers",
     "{\"type\":\"object\",\"properties\":{\"name\":{\"type\":\"string\"},\"age\":{\"type\":\"integer\","
     "\"minimum\":0},"
     "\"address\":{\"type\":\"object\",\"properties\":{\"street\":{\"type\":\"string\"},\"city\":{\"type\":"
     "\"string\"}},"
     "\"required\":[\"street\",\"city\"]}},\"required\":[\"name\",\"age\",\"address\"]}",
     "{\"name\": \"Ada Lovelace\", \"age\": 36, \"address\": {\n  \"street\": \"St James's Square 12\",\n  "
     "\"city\": "
     "\"London, Great Britain\"\n}}"},
    {"strings of bounded length",
     "{\"type\":\"array\",\"items\":{\"type\":\"string\",\"minLength\":3,\"maxLength\":200}}",
     "[\"A sentence of some words that is not short at all, as such sentences go.\", \"Another one follows "
     "it, so "
     "that there are two.\"]"},
    {"any JSON", "{\"type\":\"object\"}",
     "{\"a\": [1, 2.5, {\"b\": null}], \"text\": \"Some words \\u00e9 and more words\", \"deep\": "
     "[[[\"x\"]]]}"},
    {"pattern", "{\"type\":\"string\",\"pattern\":\"^[A-Za-z ,.]+$\"}",
     "\"Letters and blanks, and nothing else. This is a pattern.\""},
    {"other properties",
     "{\"properties\":{\"name\":{},\"kind\":{}},\"additionalProperties\":{\"type\":\"string\"}}",
     "{\"name\": 1, \"colour of it\": \"red\", \"number of pieces\": \"many\"}"},
};

static struct tokenizer *tokenizer_load(const char *path) {
    struct stat st;
    struct gguf g;
    struct err err;
    struct tokenizer *t;
    int fd = open(path, O_RDONLY);
    if (fd < 0 || fstat(fd, &st))
        die("%s can't be opened", path);
    void *data = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    close(fd);
    if (data == MAP_FAILED || gguf_parse(&g, data, (size_t)st.st_size, &err) != OK ||
        tokenizer_open(&g, &t, &err) != OK)
        die("%s: %s", path, err.text);
    return t;
}

static int f64_compare(const void *a, const void *b) {
    f64 x = *(const f64 *)a, y = *(const f64 *)b;
    return x < y ? -1 : x > y;
}

static void report(const char *what, f64 *us, u32 n) {
    qsort(us, n, sizeof *us, f64_compare);
    printf("  %-6s median %7.1f us, 90th percentile %7.1f, most %7.1f (%u masks)\n", what, us[n / 2],
           us[n * 9 / 10], us[n - 1], n);
}

static void bench_case(const struct grammar_vocab *v, const struct tokenizer *t, struct tokenize_scratch *s,
                       u32 i, u32 *mask) {
    struct grammar_part part = {.kind = GRAMMAR_SCHEMA, .text = str_of(cases[i].schema)};
    struct grammar *g;
    struct err err;
    struct token_list ids = {0};
    u64 start = clock_ns();
    if (grammar_compile(v, &part, &g, &err) != OK)
        die("%s: %s", cases[i].name, err.text);
    printf("%s: compiled in %.2f ms\n", cases[i].name, (f64)(clock_ns() - start) / 1e6);
    tokenize(t, s, str_of(cases[i].text), (struct tokenize_options){0}, &ids);
    f64 *us = xmalloc(sizeof *us * ids.n * ROUNDS);
    for (u32 round = 0, n = 0; round <= ROUNDS; round++) {
        struct grammar_run r;
        grammar_run_start(g, &r);
        for (u32 k = 0; k < ids.n; k++) {
            start = clock_ns();
            if (grammar_run_mask(&r, mask, &err) != OK)
                die("%s", err.text);
            us[n++] = (f64)(clock_ns() - start) / 1e3;
            /* SentencePiece puts a blank in front of a text. */
            bool first_blank = k == 0 && cases[i].text[0] != tokenizer_bytes_of(t, ids.ids[0], false).p[0];
            if (first_blank
                    ? !grammar_run_feed(&r, str_slice(tokenizer_bytes_of(t, ids.ids[0], false), 1, SIZE_MAX))
                    : !grammar_run_accept(&r, ids.ids[k]))
                die("%s: token %u is refused", cases[i].name, k);
        }
        grammar_run_release(&r);
        if (round == 0 || round == ROUNDS) {
            report(round ? "warm" : "cold", us, n);
            n = 0;
        }
    }
    free(us);
    token_list_release(&ids);
    grammar_free(g);
}

static void bench_sampler(u32 n_vocab, u32 *mask) {
    struct gen_sampling p = {
        .seed = 1, .temperature = 0.8f, .top_k = 40, .top_p = 0.9f, .typical_p = 1, .repeat_penalty = 1};
    const struct kern *k;
    struct err err;
    if (kern_open(NULL, &k, &err) != OK)
        die("%s", err.text);
    f32 *logits = xmalloc(n_vocab * sizeof *logits);
    void *scratch = xmalloc(sampler_scratch_bytes(n_vocab));
    f64 us[2][200];
    u32 seed = 1;
    for (u32 i = 0; i < n_vocab; i++) {
        seed = seed * 1664525 + 1013904223;
        logits[i] = (f32)(seed >> 8) / (1 << 21);
    }
    struct sampler *s = sampler_new(&p, n_vocab);
    for (u32 i = 0; i < 400; i++) {
        struct sampler_pick pick;
        u64 start = clock_ns();
        sampler_pick(s, k, logits, i, i % 2 ? mask : NULL, 0, false, scratch, &pick);
        us[i % 2][i / 2] = (f64)(clock_ns() - start) / 1e3;
    }
    printf("sampler\n");
    report("free", us[0], 200);
    report("mask", us[1], 200);
    sampler_free(s);
    free(logits);
    free(scratch);
}

int main(int argc, char **argv) {
    if (argc != 2)
        die("usage: grammar_bench MODEL.gguf");
    struct tokenizer *t = tokenizer_load(argv[1]);
    u64 start = clock_ns();
    struct grammar_vocab *v = grammar_vocab_new(t);
    u32 n_vocab = tokenizer_n_vocab(t), *mask = xcalloc(DIV_CEIL(n_vocab, 32u), sizeof *mask);
    printf("%u tokens, prepared in %.1f ms, %.1f MB\n", n_vocab, (f64)(clock_ns() - start) / 1e6,
           (f64)grammar_vocab_bytes(v) / 1e6);
    struct tokenize_scratch *s = tokenize_scratch_new();
    for (u32 i = 0; i < ARRAY_LEN(cases); i++)
        bench_case(v, t, s, i, mask);
    bench_sampler(n_vocab, mask);
    tokenize_scratch_free(s);
    grammar_vocab_free(v);
    tokenizer_close(t);
    free(mask);
    return 0;
}
