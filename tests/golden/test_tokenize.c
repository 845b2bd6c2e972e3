/* Goal: token ids equal those of llama.cpp, for every kind of vocabulary and pre-tokenizer. Method: data/tok/
 * NAME.gguf is a vocabulary of 512 tokens, NAME.json holds 237 nasty texts with their ids (without and with
 * special tokens parsed, without and with BOS and EOS around them) and their text after decoding. The same
 * for SmolLM2's real vocabulary if MINKA_TEST_SMOLLM2 names its file. Pairs of files as arguments replace the
 * list.
 *
 * Where the JSON has hf_ids, Hugging Face's library and llama.cpp differ, and either is right. Texts that are
 * no valid UTF-8 (hex) must come back byte for byte; their ids are our own choice. */
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

#include "vocab.h"

struct golden {
    char vocab[4096], cases[4096];
};

struct run {
    struct tokenizer *t;
    struct tokenize_scratch *s;
    json_t *golden;
    bool unigram;                   /* loses what its vocabulary lacks */
    bool byte_level, sentencepiece; /* kinds that keep every byte, but for U+2581 in the latter */
    u32 n_failed;
};

static bool ids_are(const struct token_list *got, json_t *prefix, json_t *want, json_t *suffix) {
    json_t *parts[] = {prefix, want, suffix};
    u32 at = 0;
    for (u32 p = 0; p < 3; p++)
        for (size_t i = 0; i < json_array_size(parts[p]); i++, at++)
            if (at >= got->n || got->ids[at] != json_integer_value(json_array_get(parts[p], i)))
                return false;
    return at == got->n;
}

static void ids_report(struct run *r, const char *what, struct str text, const struct token_list *got,
                       json_t *want) {
    char *shown = want ? json_dumps(want, JSON_COMPACT) : NULL;
    printf("# %s of \"%.*s\": got [", what, STR_FMT(text));
    for (u32 i = 0; i < got->n; i++)
        printf("%s%u", i ? "," : "", got->ids[i]);
    printf("], want %s\n", shown ? shown : "(other bytes)");
    free(shown);
    r->n_failed++;
}

static void ids_check(struct run *r, struct str text, json_t *c, struct tokenize_options o, json_t *want) {
    struct token_list ids = {0};
    json_t *around = o.add_special ? json_object_get(r->golden, "add_special") : NULL;
    json_t *own = o.add_special ? json_object_get(c, "ids_add_special") : NULL,
           *other = json_object_get(c, "hf_ids");
    tokenize(r->t, r->s, text, o, &ids);
    bool ok = own ? ids_are(&ids, NULL, own, NULL)
                  : ids_are(&ids, json_object_get(around, "prefix"), want, json_object_get(around, "suffix"));
    if (!ok && other)
        ok = ids_are(&ids, json_object_get(around, "prefix"), other, json_object_get(around, "suffix"));
    if (!ok)
        ids_report(r,
                   o.add_special     ? "ids with BOS"
                   : o.parse_special ? "ids with special tokens"
                                     : "ids",
                   text, &ids, want);
    token_list_release(&ids);
}

static void back_check(struct run *r, struct str text, struct str want) {
    struct token_list ids = {0};
    struct buf back = {0};
    tokenize(r->t, r->s, text, (struct tokenize_options){0}, &ids);
    detokenize(r->t, ids.ids, ids.n, true, &back);
    if (!str_eq(buf_str(&back), want)) {
        ids_report(r, "text", text, &ids, NULL);
        printf("# back: \"%.*s\"\n", STR_FMT(buf_str(&back)));
    }
    buf_release(&back);
    token_list_release(&ids);
}

static struct str hex_read(const char *hex, char *out, size_t cap) {
    size_t n = strlen(hex) / 2;
    assert_true(n <= cap);
    for (size_t i = 0; i < n; i++) {
        unsigned byte;
        assert_int_equal(sscanf(hex + 2 * i, "%2x", &byte), 1);
        out[i] = (char)byte;
    }
    return (struct str){out, n};
}

/* Bytes that UTF-8 never has may have no token; they come back as U+FFFD. */
static struct str lost_replace(struct run *r, struct str s, char *out, size_t cap) {
    size_t n = 0;
    assert_true(3 * s.n <= cap);
    for (size_t i = 0; i < s.n; i++) {
        u8 byte = (u8)s.p[i];
        char spelled[2] = {(char)(0xc0 | byte >> 6), (char)(0x80 | (byte & 63))};
        bool never = byte == 0xc0 || byte == 0xc1 || byte >= 0xf5;
        if (r->byte_level && never && tokenizer_find(r->t, (struct str){spelled, 2}) == TOKEN_NONE)
            n += (size_t)snprintf(out + n, cap - n, "\xef\xbf\xbd");
        else
            out[n++] = s.p[i];
    }
    return (struct str){out, n};
}

static void case_run(struct run *r, json_t *c) {
    static char bytes[65536], back[65536];
    json_t *text = json_object_get(c, "text"), *ids = json_object_get(c, "ids"),
           *parsed = json_object_get(c, "ids_parse_special");
    const char *detok = json_string_value(json_object_get(c, "detok_hex"));
    struct str s = text ? (struct str){json_string_value(text), json_string_length(text)}
                        : hex_read(json_string_value(json_object_get(c, "hex")), bytes, sizeof bytes);
    struct str want = s;
    if (!text)
        want = lost_replace(r, s, back, sizeof back);
    else if (detok &&
             !r->byte_level) /* llama.cpp removes blanks in front of punctuation for byte-level kinds */
        want = hex_read(detok, back, sizeof back);
    if (text && ids) {
        ids_check(r, s, c, (struct tokenize_options){0}, ids);
        if (json_object_get(r->golden, "add_special"))
            ids_check(r, s, c, (struct tokenize_options){.add_special = true}, ids);
        ids_check(r, s, c, (struct tokenize_options){.parse_special = true}, parsed ? parsed : ids);
    }
    if (r->byte_level || r->sentencepiece || (r->unigram && detok && text))
        back_check(r, s, want);
}

static void golden_run(void **state) {
    const struct golden *g = *state;
    json_error_t e;
    json_t *c;
    size_t i;
    struct run r = {.t = vocab_open(g->vocab),
                    .s = tokenize_scratch_new(),
                    .golden = json_load_file(g->cases, JSON_ALLOW_NUL, &e)};
    if (!r.golden)
        fail_msg("%s: %s", g->cases, e.text);
    r.sentencepiece = tokenizer_find(r.t, STR("<0x00>")) != TOKEN_NONE;
    r.byte_level = !r.sentencepiece && tokenizer_find(r.t, STR("\xc4\x80")) != TOKEN_NONE;
    r.unigram = !r.byte_level && !r.sentencepiece && tokenizer_find(r.t, STR("[CLS]")) == TOKEN_NONE;
    json_array_foreach(json_object_get(r.golden, "cases"), i, c) case_run(&r, c);
    printf("# %zu texts\n", i);
    tokenize_scratch_free(r.s);
    tokenizer_close(r.t);
    json_decref(r.golden);
    assert_true(i > 40);
    assert_int_equal(r.n_failed, 0);
}

int main(int argc, char **argv) {
    static const char *const names[] = {"bpe_deepseek-v3", "bpe_gpt-4o", "bpe_gpt2",   "bpe_llama-bpe",
                                        "bpe_qwen2",       "bpe_smollm", "bpe_tekken", "spm",
                                        "spm_phi3",        "ugm",        "wpm"};
    const char *folder = getenv("MINKA_GOLDEN"), *smollm2 = getenv("MINKA_TEST_SMOLLM2");
    struct CMUnitTest tests[64] = {0};
    static struct golden goldens[64];
    size_t n = 0;
    for (int i = 1; i + 1 < argc && n < ARRAY_LEN(goldens); i += 2, n++) {
        snprintf(goldens[n].vocab, sizeof goldens[n].vocab, "%s", argv[i]);
        snprintf(goldens[n].cases, sizeof goldens[n].cases, "%s", argv[i + 1]);
        tests[n] = (struct CMUnitTest){argv[i + 1], golden_run, NULL, NULL, &goldens[n]};
    }
    if (argc == 1) {
        for (; n < ARRAY_LEN(names); n++) {
            snprintf(goldens[n].vocab, sizeof goldens[n].vocab, "%s/tok/%s.gguf", folder, names[n]);
            snprintf(goldens[n].cases, sizeof goldens[n].cases, "%s/tok/%s.json", folder, names[n]);
            tests[n] = (struct CMUnitTest){names[n], golden_run, NULL, NULL, &goldens[n]};
        }
        if (smollm2 && smollm2[0]) {
            snprintf(goldens[n].vocab, sizeof goldens[n].vocab, "%s", smollm2);
            snprintf(goldens[n].cases, sizeof goldens[n].cases, "%s/tok/smollm2.json", folder);
            tests[n] = (struct CMUnitTest){"smollm2 (real vocabulary)", golden_run, NULL, NULL, &goldens[n]};
            n++;
        } else {
            printf("# skipped: MINKA_TEST_SMOLLM2 does not name SmolLM2's GGUF file\n");
        }
    }
    return _cmocka_run_group_tests("tokenize", tests, n, NULL, NULL);
}
