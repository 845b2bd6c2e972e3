/* Goal: vocabularies are read as their files mean, and damaged ones are refused with a message that names
 * what is wrong. Method: one small vocabulary per case. */
#include "base/limit.h"
#include "sample.h"

static struct sample sample;

static void bpe_init(const char *pre) {
    sample_init(&sample, "gpt2");
    if (pre)
        gguf_put_str(sample.w, "tokenizer.ggml.pre", str_of(pre));
    gguf_put_str_array(sample.w, "tokenizer.ggml.merges", NULL, 0);
    sample_add_bytes(&sample);
}

static void refused(enum status want, const char *part) {
    struct tokenizer *t = NULL;
    struct err err = {0};
    assert_int_equal(sample_open(&sample, &t, &err), want);
    if (!strstr(err.text, part))
        fail_msg("\"%s\" lacks \"%s\"", err.text, part);
}

static void test_unsupported(void **state) {
    (void)state;
    sample_init(&sample, "rwkv");
    refused(ERR_UNSUPPORTED, "\"rwkv\"");
    bpe_init("no-such-pre");
    refused(ERR_UNSUPPORTED, "\"no-such-pre\"");
    bpe_init("gpt-2 phi-2"); /* two names of the table are no name */
    refused(ERR_UNSUPPORTED, "\"gpt-2 phi-2\"");
    bpe_init("a-name-that-is-longer-than-every-buffer-that-could-have-been-made-for-it-x");
    refused(ERR_UNSUPPORTED, "a-name-that-is");
}

static void test_damaged(void **state) {
    (void)state;
    static char long_text[LIMIT_TOKEN_BYTES + 1];
    memset(long_text, 'x', sizeof long_text);
    sample_init(&sample, "gpt2");
    refused(ERR_CORRUPT, "tokens is missing");
    sample_init(&sample, "gpt2");
    sample_add_bytes(&sample);
    refused(ERR_CORRUPT, "merges is missing");
    bpe_init("gpt-2");
    sample_add(&sample, (struct str){long_text, sizeof long_text}, NORMAL, 0);
    refused(ERR_TOO_LARGE, "token 256 of the vocabulary has 4097 bytes");
    sample_init(&sample, "gpt2");
    char merge[LIMIT_TOKEN_BYTES + 16];
    memset(merge, 'x', sizeof merge);
    merge[LIMIT_TOKEN_BYTES / 2] = ' ';
    gguf_put_str_array(sample.w, "tokenizer.ggml.merges", &(struct str){merge, sizeof merge}, 1);
    sample_add_bytes(&sample);
    refused(ERR_TOO_LARGE, "a merge of the vocabulary makes a text of");
    sample_init(&sample, "t5");
    sample_add(&sample, STR("a"), NORMAL, 0);
    refused(ERR_CORRUPT, "unknown_token_id");
}

/* Lists that are shorter than the vocabulary; rules of normalization that are none. */
static void test_lists(void **state) {
    (void)state;
    static const u8 rules[][12] = {{4, 0, 0, 0, 0, 0, 0, 0, 'x', 0},   /* one entry, one text: right */
                                   {8, 0, 0, 0, 0, 0, 0, 0, 0, 0},     /* array goes beyond the end */
                                   {3, 0, 0, 0, 0, 0, 0, 0, 'x', 0},   /* no whole entries */
                                   {4, 0, 0, 0, 0, 0, 0, 0, 'x', 'y'}, /* text without an end */
                                   {0, 0, 0, 0, 0, 0}};
    for (u32 i = 0; i < ARRAY_LEN(rules); i++) {
        sample_init(&sample, "t5");
        for (u32 k = 0; k < 4; k++)
            sample_add(&sample, (struct str){"abcd" + k, 1}, NORMAL, -1);
        gguf_put_array(sample.w, "tokenizer.ggml.precompiled_charsmap", GGUF_U8, rules[i], 10);
        if (i == 0)
            tokenizer_close(sample_open_ok(&sample));
        else
            refused(ERR_CORRUPT, "precompiled_charsmap is damaged");
    }
    /* token_type is written by sample_open; a second, shorter vocabulary list shows the check. */
    sample_init(&sample, "t5");
    gguf_put_array(sample.w, "tokenizer.ggml.precompiled_charsmap", GGUF_U32, (u32[]){1}, 1);
    for (u32 k = 0; k < 4; k++)
        sample_add(&sample, (struct str){"abcd" + k, 1}, NORMAL, -1);
    refused(ERR_CORRUPT, "no list of bytes");
}

static void test_special_ids(void **state) {
    (void)state;
    bpe_init("llama-bpe");
    u32 bos = sample_add(&sample, STR("<bos>"), CONTROL, 0),
        eos = sample_add(&sample, STR("<stop>"), CONTROL, 0);
    gguf_put_u32(sample.w, "tokenizer.ggml.bos_token_id", bos);
    gguf_put_u32(sample.w, "tokenizer.ggml.eos_token_id", eos);
    gguf_put_u32(sample.w, "tokenizer.ggml.eot_token_id", 4000000000u); /* not in the vocabulary: ignored */
    gguf_put_bool(sample.w, "tokenizer.ggml.add_eos_token", true);
    struct tokenizer *t = sample_open_ok(&sample);
    assert_int_equal(tokenizer_bos(t), bos);
    assert_int_equal(tokenizer_eos(t), eos);
    assert_true(tokenizer_adds_bos(t));
    assert_true(tokenizer_is_end(t, eos));
    assert_false(tokenizer_is_end(t, bos));
    assert_false(tokenizer_is_end(t, 4000000000u));
    struct tokenize_scratch *s = tokenize_scratch_new();
    struct token_list l = {0};
    tokenize(t, s, STR("x"), (struct tokenize_options){.add_special = true}, &l);
    const u32 want[] = {bos, 'x', eos};
    assert_int_equal(l.n, 3);
    assert_memory_equal(l.ids, want, sizeof want);
    token_list_release(&l);
    tokenize_scratch_free(s);
    tokenizer_close(t);
    bpe_init("gpt-2"); /* no keys: no ids, and nothing is added */
    t = sample_open_ok(&sample);
    assert_int_equal(tokenizer_bos(t), TOKEN_NONE);
    assert_int_equal(tokenizer_eos(t), TOKEN_NONE);
    assert_false(tokenizer_adds_bos(t));
    tokenizer_close(t);
}

/* Well-known texts end generation, even where the file calls them normal; harmony's <|end|> does not. */
static void test_ends(void **state) {
    (void)state;
    bpe_init("gpt-2");
    u32 im_end = sample_add(&sample, STR("<|im_end|>"), NORMAL, 0),
        end = sample_add(&sample, STR("<|end|>"), CONTROL, 0);
    u32 channel = sample_add(&sample, STR("<|channel|>"), CONTROL, 0);
    u32 fim = sample_add(&sample, STR("<|fim_prefix|>"), USER, 0);
    struct tokenizer *t = sample_open_ok(&sample);
    assert_true(tokenizer_is_end(t, im_end) && tokenizer_is_control(t, im_end));
    assert_true(tokenizer_is_end(t, end));
    assert_false(tokenizer_is_control(t, channel)); /* stays visible */
    assert_true(tokenizer_is_control(t, fim));
    assert_false(tokenizer_is_end(t, fim));
    tokenizer_close(t);
    bpe_init("gpt-4o");
    end = sample_add(&sample, STR("<|end|>"), CONTROL, 0);
    u32 finish = sample_add(&sample, STR("<|return|>"), CONTROL, 0),
        call = sample_add(&sample, STR("<|call|>"), CONTROL, 0);
    t = sample_open_ok(&sample);
    assert_true(tokenizer_is_end(t, finish) && tokenizer_is_end(t, call));
    assert_false(tokenizer_is_end(t, end));
    tokenizer_close(t);
}

/* Spellings: found, decoded, doubles and empty ones. */
static void test_texts(void **state) {
    (void)state;
    bpe_init(NULL); /* no pre-tokenizer named: the default one */
    u32 the = sample_add(&sample, STR("\xc4\xa0the"), NORMAL, 0),
        twice = sample_add(&sample, STR("twice"), NORMAL, 0);
    u32 again = sample_add(&sample, STR("twice"), NORMAL, 0), empty = sample_add(&sample, STR(""), NORMAL, 0);
    u32 foreign = sample_add(&sample, STR("\xe5\xad\x97 x"), NORMAL, 0); /* not of the alphabet: itself */
    u32 unused = sample_add(&sample, STR("gone"), UNUSED_TOKEN, 0);
    struct tokenizer *t = sample_open_ok(&sample);
    assert_int_equal(tokenizer_n_vocab(t), sample.n);
    assert_true(str_is(tokenizer_bytes_of(t, the, false), " the"));
    assert_true(str_is(tokenizer_text_of(t, the), "\xc4\xa0the"));
    assert_int_equal(tokenizer_find(t, STR("\xc4\xa0the")), the);
    assert_int_equal(tokenizer_find(t, STR(" the")), TOKEN_NONE);
    assert_int_equal(tokenizer_find(t, STR("twice")), again);
    assert_true(str_is(tokenizer_bytes_of(t, twice, false), "twice"));
    assert_true(tokenizer_text_of(t, empty).n > 0);
    assert_true(str_is(tokenizer_bytes_of(t, foreign, false), "\xe5\xad\x97 x"));
    assert_int_equal(tokenizer_bytes_of(t, unused, true).n, 0);
    assert_int_equal(tokenizer_bytes_of(t, sample.n, true).n, 0);
    assert_int_equal(tokenizer_text_of(t, sample.n).n, 0);
    assert_true(tokenizer_bytes(t) > sample.n * 24);
    tokenizer_close(t);
}

/* SentencePiece: the blank in front comes and goes. */
static void test_blank(void **state) {
    (void)state;
    sample_init(&sample, "llama");
    sample_add(&sample, STR("<unk>"), UNKNOWN, 0);
    u32 bos = sample_add(&sample, STR("<s>"), CONTROL, 0), eos = sample_add(&sample, STR("</s>"), CONTROL, 0);
    u32 a = sample_add(&sample,
                       STR("\xe2\x96\x81"
                           "a"),
                       NORMAL, -1),
        blank = sample_add(&sample, STR("\xe2\x96\x81"), NORMAL, -2);
    u32 x = sample_add(&sample, STR("<0x78>"), BYTE, 0);
    sample_add(&sample, STR("a"), NORMAL, -3);
    struct tokenizer *t = sample_open_ok(&sample);
    struct tokenize_scratch *s = tokenize_scratch_new();
    struct token_list l = {0};
    struct buf back = {0};
    tokenize(t, s, STR("a x</s>a"), (struct tokenize_options){.add_special = true, .parse_special = true},
             &l);
    const u32 want[] = {bos, a, blank, x, eos, a};
    assert_int_equal(l.n, ARRAY_LEN(want));
    assert_memory_equal(l.ids, want, sizeof want);
    detokenize(t, l.ids, l.n, false, &back);
    assert_true(str_is(buf_str(&back), "a x a"));
    buf_clear(&back);
    detokenize(t, l.ids + 1, l.n - 1, true, &back);
    assert_true(str_is(buf_str(&back), "a x</s> a"));
    assert_true(str_is(tokenizer_bytes_of(t, x, false), "x"));
    buf_release(&back);
    token_list_release(&l);
    tokenize_scratch_free(s);
    tokenizer_close(t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_unsupported), cmocka_unit_test(test_damaged), cmocka_unit_test(test_lists),
        cmocka_unit_test(test_special_ids), cmocka_unit_test(test_ends),    cmocka_unit_test(test_texts),
        cmocka_unit_test(test_blank),
    };
    return cmocka_run_group_tests_name("vocab", tests, NULL, NULL);
}
