/* Goal: a grammar accepts what is valid under its schema, never completes what is not, and its masks are
 * exact and never lead into a dead end. Method: schemas with documents judged by PyPI's jsonschema
 * (data/schemas.json); for every state of random walks, the mask against trying each token; the walks end in
 * JSON that jansson reads, and that the schema's automaton, fed byte by byte, takes again. Vocabularies:
 * those of data/tok and, where MINKA_TEST_SMOLLM2 and MINKA_TEST_GEMMA3 name files, the real ones. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>
#define json_null jansson_null /* base/buf.h has one of its own */
#include <jansson.h>
#undef json_null

#include "base/clock.h"
#include "chat/grammar.h"
#include "vocab.h"

static json_t *golden_open(void) {
    char path[4096];
    json_error_t e;
    snprintf(path, sizeof path, "%s/schemas.json", getenv("MINKA_GOLDEN"));
    json_t *golden = json_load_file(path, 0, &e);
    if (!golden)
        fail_msg("%s: %s", path, e.text);
    return golden;
}

static struct grammar *schema_compile(const struct grammar_vocab *v, const char *text) {
    struct grammar_part part = {.kind = GRAMMAR_SCHEMA, .text = str_of(text)};
    struct grammar *g;
    struct err err;
    if (grammar_compile(v, &part, &g, &err) != OK)
        fail_msg("%s: %s", text, err.text);
    return g;
}

/* Does the text belong to the grammar? */
static bool takes(struct grammar *g, struct str text) {
    struct grammar_run r;
    grammar_run_start(g, &r);
    bool taken = grammar_run_feed(&r, text) && grammar_run_complete(&r);
    grammar_run_release(&r);
    return taken;
}

/* The one valid text whose members are not in the order of the properties. */
#define OUT_OF_ORDER "{\"age\":0,\"name\":\"\"}"

static void test_golden_documents(void **state) {
    struct tokenizer *t = vocab_tiny("bpe_gpt2");
    struct grammar_vocab *v = grammar_vocab_new(t);
    json_t *golden = golden_open(), *c, *one;
    size_t i, k;
    (void)state;
    json_array_foreach(json_object_get(golden, "schemas"), i, c) {
        char *schema = json_dumps(json_object_get(c, "schema"), JSON_COMPACT | JSON_ENCODE_ANY);
        struct grammar *g = schema_compile(v, schema);
        json_array_foreach(json_object_get(c, "valid_compact_text"), k, one) {
            const char *text = json_string_value(one);
            if (takes(g, str_of(text)) == !strcmp(text, OUT_OF_ORDER))
                fail_msg("%s: wrong about %s", schema, text);
        }
        json_array_foreach(json_object_get(c, "invalid"), k, one) {
            char *text = json_dumps(one, JSON_COMPACT | JSON_ENCODE_ANY);
            if (takes(g, str_of(text)))
                fail_msg("%s: takes %s", schema, text);
            free(text);
        }
        grammar_free(g);
        free(schema);
    }
    json_decref(golden);
    grammar_vocab_free(v);
    tokenizer_close(t);
}

static void test_golden_texts(void **state) {
    struct tokenizer *t = vocab_tiny("bpe_gpt2");
    struct grammar_vocab *v = grammar_vocab_new(t);
    json_t *golden = golden_open(), *one;
    size_t k;
    (void)state;
    struct grammar *g = schema_compile(v, "true");
    json_array_foreach(json_object_get(golden, "json_texts_valid"), k, one) {
        /* White space around the document is not produced. */
        struct str text = str_trim(str_of(json_string_value(one)));
        if (!takes(g, text))
            fail_msg("refuses %.*s", STR_FMT(text));
    }
    json_array_foreach(json_object_get(golden, "json_texts_malformed"), k,
                       one) if (takes(g, str_of(json_string_value(one))))
        fail_msg("takes %s", json_string_value(one));
    grammar_free(g);
    json_decref(golden);
    grammar_vocab_free(v);
    tokenizer_close(t);
}

/* --- walks --- */

static u32 rng;

static u32 random_below(u32 n) {
    rng = rng * 1664525 + 1013904223;
    return (u32)((u64)(rng >> 4) * n >> 28);
}

struct walk {
    const struct tokenizer *t;
    const struct grammar_vocab *v;
    u32 n_vocab;
    u32 *mask;
    u32 n_masks, n_compared;
};

/* Tokens that the run takes though the mask forbids them, or the other way round; one of `every` is tried. */
static u32 count_differences(struct walk *w, const struct grammar_run *r, u32 every) {
    u32 n = 0;
    for (u32 id = random_below(every); id < w->n_vocab; id += every) {
        struct grammar_run copy;
        bool allowed = w->mask[id / 32] >> (id % 32) & 1;
        grammar_run_copy(r, &copy);
        n += grammar_run_accept(&copy, id) != allowed;
        grammar_run_release(&copy);
        w->n_compared++;
    }
    return n;
}

/* And a planted fault: one wrong bit must show. */
static void compare_mask(struct walk *w, const struct grammar_run *r, u32 every) {
    u32 id = random_below(w->n_vocab);
    assert_int_equal(count_differences(w, r, every), 0);
    if (every > 1)
        return;
    w->mask[id / 32] ^= 1u << (id % 32);
    assert_int_equal(count_differences(w, r, 1), 1);
    w->mask[id / 32] ^= 1u << (id % 32);
}

/* A random allowed token. To end at all, texts that have become long prefer tokens that close. */
static u32 choose(struct walk *w, size_t n_text) {
    u32 n = 0, best = TOKEN_NONE, best_rank = 0;
    for (u32 id = 0; id < w->n_vocab; id++) {
        if (!(w->mask[id / 32] >> (id % 32) & 1))
            continue;
        struct str b = tokenizer_bytes_of(w->t, id, false);
        u32 rank = 1;
        if (n_text > 200 && (tokenizer_is_end(w->t, id) || (b.n && strchr("]}\"", b.p[b.n - 1]))))
            rank = 3;
        else if (n_text > 200 && b.n == 1)
            rank = 2;
        if (rank > best_rank)
            n = 0;
        if (rank >= best_rank && random_below(++n) == 0) {
            best_rank = rank;
            best = id;
        }
    }
    assert_int_not_equal(best, TOKEN_NONE);
    return best;
}

/* Walks until the document is over and gives its text. */
static void walk_once(struct walk *w, struct grammar *g, u32 every, struct buf *text) {
    struct grammar_run r;
    struct err err;
    buf_clear(text);
    grammar_run_start(g, &r);
    for (u32 step = 0; !grammar_run_over(&r); step++) {
        assert_true(step < 3000);
        if (grammar_run_mask(&r, w->mask, &err) != OK)
            fail_msg("after %.*s: %s", STR_FMT(buf_str(text)), err.text);
        w->n_masks++;
        if (every && random_below(8) == 0)
            compare_mask(w, &r, every);
        u32 id = choose(w, text->n);
        if (!grammar_run_accept(&r, id))
            fail_msg("token %u of the mask is refused after %.*s", id, STR_FMT(buf_str(text)));
        if (tokenizer_is_end(w->t, id))
            break;
        buf_add_str(text, tokenizer_bytes_of(w->t, id, false));
    }
    assert_true(grammar_run_complete(&r));
    grammar_run_release(&r);
}

static void check_document(struct grammar *g, struct str text) {
    json_error_t e;
    json_t *value = json_loadb(text.p, text.n, JSON_DECODE_ANY | JSON_DECODE_INT_AS_REAL, &e);
    if (!value)
        fail_msg("no JSON: %.*s: %s", STR_FMT(text), e.text);
    json_decref(value);
    assert_true(takes(g, text));
}

/* Beside the golden ones: places where whole groups of tokens are taken at once. */
static const char *const more_schemas[] = {
    "{\"type\":\"string\",\"minLength\":40}",
    "{\"type\":\"string\",\"minLength\":3,\"maxLength\":100}",
    "{\"type\":\"string\",\"maxLength\":34}",
    "{\"anyOf\":[{\"type\":\"string\",\"maxLength\":9},{\"const\":\"the end of "
    "it\"},{\"type\":\"string\",\"pattern\":\"^the\"}]}",
    "{\"properties\":{\"na\":{},\"the\":{}},\"additionalProperties\":{\"type\":\"string\"}}",
    "{\"type\":\"string\",\"pattern\":\"^[^x]*$\"}",
    "{\"type\":\"object\",\"patternProperties\":{\"^[a-z ]+$\":{\"type\":\"number\",\"maximum\":17.5}}}",
};

static void walk_schemas(const char *path, const char *vocab, u32 n_walks, u32 every) {
    struct tokenizer *t = path ? vocab_open(path) : vocab_tiny(vocab);
    u64 start = clock_ns();
    struct walk w = {.t = t, .v = grammar_vocab_new(t), .n_vocab = tokenizer_n_vocab(t)};
    struct buf text = {0};
    json_t *golden = golden_open(), *c;
    size_t i;
    w.mask = xcalloc(DIV_CEIL(w.n_vocab, 32u), sizeof *w.mask);
    u64 opened = clock_ns(), compile_ns = 0;
    json_t *all = json_object_get(golden, "schemas");
    for (i = 0; i < ARRAY_LEN(more_schemas); i++)
        json_array_append_new(all, json_pack("{s:o}", "schema", json_loads(more_schemas[i], 0, NULL)));
    json_array_foreach(all, i, c) {
        char *schema = json_dumps(json_object_get(c, "schema"), JSON_COMPACT | JSON_ENCODE_ANY);
        u64 before = clock_ns();
        struct grammar *g = schema_compile(w.v, schema);
        compile_ns += clock_ns() - before;
        for (u32 k = 0; k < n_walks; k++) {
            rng = (u32)i * 1000 + k;
            walk_once(&w, g, every, &text);
            check_document(g, buf_str(&text));
        }
        grammar_free(g);
        free(schema);
    }
    printf("# %s: trie %.1f ms, %llu bytes; %zu schemas compiled in %.1f ms; %u masks, %u tokens compared\n",
           path ? path : vocab, (double)(opened - start) / 1e6, (unsigned long long)grammar_vocab_bytes(w.v),
           json_array_size(json_object_get(golden, "schemas")), (double)compile_ns / 1e6, w.n_masks,
           w.n_compared);
    free(w.mask);
    buf_release(&text);
    json_decref(golden);
    grammar_vocab_free((struct grammar_vocab *)w.v);
    tokenizer_close(t);
}

static void test_walks_small(void **state) {
    static const char *const vocabs[] = {"bpe_gpt2", "bpe_llama-bpe", "spm", "spm_phi3"};
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(vocabs); i++)
        walk_schemas(NULL, vocabs[i], 12, 1);
}

static void test_walks_smollm2(void **state) {
    (void)state;
    walk_schemas(getenv("MINKA_TEST_SMOLLM2"), NULL, 2, 97);
}

static void test_walks_gemma3(void **state) {
    (void)state;
    walk_schemas(getenv("MINKA_TEST_GEMMA3"), NULL, 1, 997);
}

int main(void) {
    struct CMUnitTest tests[8];
    size_t n = 0;
    tests[n++] = (struct CMUnitTest)cmocka_unit_test(test_golden_documents);
    tests[n++] = (struct CMUnitTest)cmocka_unit_test(test_golden_texts);
    tests[n++] = (struct CMUnitTest)cmocka_unit_test(test_walks_small);
    if (getenv("MINKA_TEST_SMOLLM2"))
        tests[n++] = (struct CMUnitTest)cmocka_unit_test(test_walks_smollm2);
    else
        printf("# skipped: walks over SmolLM2's vocabulary, MINKA_TEST_SMOLLM2 names no file\n");
    if (getenv("MINKA_TEST_GEMMA3"))
        tests[n++] = (struct CMUnitTest)cmocka_unit_test(test_walks_gemma3);
    else
        printf("# skipped: walks over Gemma 3's vocabulary, MINKA_TEST_GEMMA3 names no file\n");
    return _cmocka_run_group_tests("tests", tests, n, NULL, NULL);
}
