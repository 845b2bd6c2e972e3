/* Goal: merging, special tokens and limits, where the golden texts do not reach. Method: a naive merger that
 * follows the definition (look at all pairs, join the best, leftmost first) over random words of all lengths;
 * pairs of bytes that the models' expressions keep together or apart;
 * overlapping special tokens with answers worked out by hand; texts of megabytes that must go fast. */
#include "base/clock.h"
#include "base/limit.h"
#include "sample.h"

static struct sample sample;

static struct token_list ids_of(const struct tokenizer *t, struct str text, struct tokenize_options o) {
    struct token_list l = {0};
    struct tokenize_scratch *s = tokenize_scratch_new();
    tokenize(t, s, text, o, &l);
    tokenize_scratch_free(s);
    return l;
}

static void ids_are(const struct tokenizer *t, const char *text, struct tokenize_options o, const u32 *want,
                    u32 n) {
    struct token_list l = ids_of(t, str_of(text), o);
    assert_int_equal(l.n, n);
    assert_memory_equal(l.ids, want, n * sizeof *want);
    token_list_release(&l);
}
#define IDS(t, text, options, ...)                                                                           \
    ids_are(t, text, (struct tokenize_options)options, (const u32[]){__VA_ARGS__},                           \
            sizeof((const u32[]){__VA_ARGS__}) / sizeof(u32))
#define PLAIN                                                                                                \
    { .add_special = false }
#define PARSED                                                                                               \
    { .parse_special = true }

/* --- merging against the definition --- */

struct rule {
    u32 left, right, joined;
    f32 order; /* smaller first */
};

static u32 naive_find(const struct rule *rules, u32 n, u32 left, u32 right) {
    for (u32 i = 0; i < n; i++)
        if (rules[i].left == left && rules[i].right == right)
            return i;
    return UINT32_MAX;
}

static u32 naive_merge(const struct rule *rules, u32 n_rules, u32 *ids, u32 n) {
    for (;;) {
        u32 best = UINT32_MAX, at = 0;
        for (u32 i = 0; i + 1 < n; i++) {
            u32 r = naive_find(rules, n_rules, ids[i], ids[i + 1]);
            if (r != UINT32_MAX && (best == UINT32_MAX || rules[r].order < rules[best].order)) {
                best = r;
                at = i;
            }
        }
        if (best == UINT32_MAX)
            return n;
        ids[at] = rules[best].joined;
        memmove(ids + at + 1, ids + at + 2, (n - at - 2) * sizeof *ids);
        n--;
    }
}

/* Random rules over "abc": tokens 0..255 are bytes, each rule joins two tokens that exist. */
static u32 rules_make(struct rule *rules, u32 n_wanted, u32 *seed) {
    static char text[512];
    static struct str merges[256];
    size_t text_n = 0;
    u32 n = 0;
    for (u32 tries = 0; n < n_wanted && tries < 10000; tries++) {
        u32 left = random_next(seed) % (3 + n), right = random_next(seed) % (3 + n);
        left = left < 3 ? 'a' + left : 253 + left;
        right = right < 3 ? 'a' + right : 253 + right;
        struct str l = sample.tokens[left], r = sample.tokens[right];
        char joined[32];
        bool exists = l.n + r.n > sizeof joined || naive_find(rules, n, left, right) != UINT32_MAX;
        if (exists)
            continue;
        memcpy(joined, l.p, l.n);
        memcpy(joined + l.n, r.p, r.n);
        for (u32 i = 0; i < sample.n && !exists; i++)
            exists = str_eq(sample.tokens[i], (struct str){joined, l.n + r.n});
        if (exists)
            continue;
        if (text_n + l.n + r.n + 1 > sizeof text)
            break;
        merges[n] = (struct str){text + text_n, l.n + r.n + 1};
        memcpy(text + text_n, l.p, l.n);
        text[text_n + l.n] = ' ';
        memcpy(text + text_n + l.n + 1, r.p, r.n);
        text_n += l.n + r.n + 1;
        u32 id = sample_add(&sample, (struct str){joined, l.n + r.n}, NORMAL, 0);
        rules[n] = (struct rule){left, right, id, (f32)n};
        n++;
    }
    gguf_put_str_array(sample.w, "tokenizer.ggml.merges", merges, n);
    return n;
}

/* A random word over 'a', 'b' and the third character, whose token is 'c'. */
static void word_check(const struct tokenizer *t, const struct rule *rules, u32 n_rules, u32 n, char third,
                       u32 *seed) {
    char word[600];
    u32 want[600];
    for (u32 i = 0; i < n; i++) {
        want[i] = 'a' + random_next(seed) % 3;
        word[i] = want[i] == 'c' ? third : (char)want[i];
    }
    u32 n_want = naive_merge(rules, n_rules, want, n);
    struct token_list got = ids_of(t, (struct str){word, n}, (struct tokenize_options){0});
    assert_int_equal(got.n, n_want);
    assert_memory_equal(got.ids, want, n_want * sizeof *want);
    token_list_release(&got);
}

static void test_merges(void **state) {
    (void)state;
    for (u32 seed = 1; seed <= 20; seed++) {
        u32 random = seed * 77;
        struct rule rules[64];
        sample_init(&sample, "gpt2");
        gguf_put_str(sample.w, "tokenizer.ggml.pre", STR("gpt-2"));
        sample_add_bytes(&sample);
        u32 n_rules = rules_make(rules, 40, &random);
        assert_true(n_rules > 10);
        struct tokenizer *t = sample_open_ok(&sample);
        for (u32 n = 1; n < 120; n++)
            word_check(t, rules, n_rules, n, 'c', &random);
        word_check(t, rules, n_rules, 599, 'c', &random);
        tokenizer_close(t);
    }
}

/* SentencePiece: any two neighbours join whose text is a token, the higher score first. The naive merger
 * gets one rule per way to cut each token in two. */
static void scores_run(u32 seed, struct str third, char typed) {
    const struct str parts[] = {STR("a"), STR("b"), third};
    u32 random = seed * 991, n_rules = 0;
    static struct rule rules[2048];
    sample_init(&sample, "llama");
    gguf_put_bool(sample.w, "tokenizer.ggml.add_space_prefix", false);
    sample_add(&sample, STR("<unk>"), UNKNOWN, 0);
    sample_add(&sample, STR("<s>"), CONTROL, 0);
    sample_add(&sample, STR("</s>"), CONTROL, 0);
    while (sample.n < 'a')
        sample_add(&sample, STR("unused"), UNUSED_TOKEN, 0);
    for (u32 c = 0; c < 3; c++)
        sample_add(&sample, parts[c], NORMAL, -100);
    for (u32 i = 0; i < 60; i++) {
        struct buf text = {0};
        for (u32 n = 2 + random_next(&random) % 5; n; n--)
            buf_add_str(&text, parts[random_next(&random) % 3]);
        /* Every second time behind an "a" only. */
        bool exists = seed % 2 && str_find(buf_str(&text), STR("b\xe2\x96\x81"), 0) != SIZE_MAX;
        for (u32 k = 0; k < sample.n; k++)
            exists = exists || str_eq(sample.tokens[k], buf_str(&text));
        if (!exists) /* some scores are equal on purpose */
            sample_add(&sample, buf_str(&text), NORMAL, -(f32)(random_next(&random) % 20));
        buf_release(&text);
    }
    for (u32 l = 'a'; l < sample.n; l++)
        for (u32 r = 'a'; r < sample.n; r++)
            for (u32 j = 'a'; j < sample.n; j++)
                if (sample.tokens[l].n + sample.tokens[r].n == sample.tokens[j].n &&
                    str_starts(sample.tokens[j], sample.tokens[l]) &&
                    str_ends(sample.tokens[j], sample.tokens[r])) {
                    assert_true(n_rules < ARRAY_LEN(rules));
                    rules[n_rules++] = (struct rule){l, r, j, -sample.scores[j]};
                }
    struct tokenizer *t = sample_open_ok(&sample);
    for (u32 n = 1; n < 120; n++)
        word_check(t, rules, n_rules, n, typed, &random);
    tokenizer_close(t);
}

/* With blanks as the third character: tokens reach over them, so that words may not be cut there. */
static void test_scores(void **state) {
    (void)state;
    for (u32 seed = 1; seed <= 20; seed++) {
        scores_run(seed, STR("c"), 'c');
        scores_run(seed, STR("\xe2\x96\x81"), ' ');
    }
}

/* --- words: a merge of two bytes shows whether they are in one word --- */

static bool joins(const char *pre, const char *text, u8 left, u8 right) {
    char l[4], r[4], both[8], merge[9];
    u32 n_l = byte_spell(left, l), n_r = byte_spell(right, r);
    memcpy(both, l, n_l);
    memcpy(both + n_l, r, n_r);
    snprintf(merge, sizeof merge, "%.*s %.*s", (int)n_l, l, (int)n_r, r);
    sample_init(&sample, "gpt2");
    gguf_put_str(sample.w, "tokenizer.ggml.pre", str_of(pre));
    gguf_put_str_array(sample.w, "tokenizer.ggml.merges", &(struct str){merge, n_l + n_r + 1}, 1);
    sample_add_bytes(&sample);
    u32 joined = sample_add(&sample, (struct str){both, n_l + n_r}, NORMAL, 0);
    struct tokenizer *t = sample_open_ok(&sample);
    struct token_list ids = ids_of(t, str_of(text), (struct tokenize_options){0});
    bool found = false;
    for (u32 i = 0; i < ids.n; i++)
        found = found || ids.ids[i] == joined;
    token_list_release(&ids);
    tokenizer_close(t);
    return found;
}

static void test_words(void **state) {
    (void)state;
    static const struct {
        const char *pre, *text;
        u8 left, right;
        bool same_word;
    } cases[] = {
        {"tekken", "camelCase", 'l', 'C', false},
        {"tekken", "HTTPServer", 'P', 'S', true},
        {"llama-bpe", "camelCase", 'l', 'C', true},
        {"tekken", "e\xcc\x81", 'e', 0xcc, true},
        {"gpt-4o", "e\xcc\x81", 'e', 0xcc, true},
        {"llama-bpe", "e\xcc\x81", 'e', 0xcc, false},
        {"qwen35", "e\xcc\x81", 'e', 0xcc, true},
        {"tekken", "\xd0\xb6\xd0\x96", 0xb6, 0xd0, false},
        {"gpt-4o", "it's", 't', '\'', true},
        {"tekken", "it's", 't', '\'', false},
        {"gpt-4o", "it's", '\'', 's', true},
        {"gpt-2", "it's", '\'', 's', true},
        {"gpt-2", "it'S", '\'', 'S', false},
        {"llama-bpe", "it'S", '\'', 'S', true},
        {"gpt-2", "1234", '2', '3', true},
        {"llama-bpe", "1234", '3', '4', false},
        {"llama-bpe", "1234", '2', '3', true},
        {"qwen2", "1234", '1', '2', false},
        {"smollm", "a12", 'a', '1', false},
        {"smollm", " 1", ' ', '1', false},
        {"gpt-2", " 1", ' ', '1', true},
        {"gpt-2", "a  b", ' ', 'b', true},
        {"gpt-2", "a  b", ' ', ' ', false},
        {"gpt-2", "a   b", ' ', ' ', true},
        {"gpt-2", "!\n", '!', '\n', false},
        {"llama-bpe", "!\n", '!', '\n', true},
        {"gpt-4o", "!/", '!', '/', true},
        {"deepseek-v3",
         "\xe4\xb8\x80"
         "a",
         0x80, 'a', false},
        {"default", "a.b", 'a', '.', false},
        {"gemma4", "a", 'a', 'a', false},
    };
    for (u32 i = 0; i < ARRAY_LEN(cases); i++)
        if (joins(cases[i].pre, cases[i].text, cases[i].left, cases[i].right) != cases[i].same_word)
            fail_msg("%s: \"%s\"", cases[i].pre, cases[i].text);
}

/* --- special tokens --- */

static void test_special(void **state) {
    (void)state;
    sample_init_bytes(&sample);
    u32 control = sample_add(&sample, STR("<a>"), CONTROL, 0);
    u32 pair = sample_add(&sample, STR("<a><b>"), CONTROL, 0);
    u32 user = sample_add(&sample, STR("xyz"), USER, 0),
        user_long = sample_add(&sample, STR("yzzz"), USER, 0);
    u32 unknown = sample_add(&sample, STR("<?>"), UNKNOWN, 0);
    struct tokenizer *t = sample_open_ok(&sample);
    IDS(t, "<a>", PLAIN, '<', 'a', '>');
    IDS(t, "<a>", PARSED, control);
    IDS(t, "p<a><b>q", PARSED, 'p', pair, 'q');
    IDS(t, "<a><a><b><b>", PARSED, control, pair, '<', 'b', '>');
    IDS(t, "<?><?", PARSED, unknown, '<', '?');
    IDS(t, "<?>", PLAIN, '<', '?', '>');
    IDS(t, "axyzxyz", PLAIN, 'a', user, user); /* user-defined ones count always */
    IDS(t, "xyzzz", PLAIN, 'x', user_long);    /* the longer one wins, though it begins later */
    IDS(t, "xyzz", PLAIN, user, 'z');
    IDS(t, "yzzzyzzz", PARSED, user_long, user_long);
    assert_true(tokenizer_is_control(t, control) && tokenizer_is_control(t, unknown));
    assert_false(tokenizer_is_control(t, user));
    assert_int_equal(tokenizer_bytes_of(t, control, false).n, 0);
    assert_true(str_is(tokenizer_bytes_of(t, control, true), "<a>"));
    assert_true(str_is(tokenizer_bytes_of(t, user, false), "xyz"));
    tokenizer_close(t);
}

/* White space beside special tokens, by the model's name. */
static void test_strip(void **state) {
    (void)state;
    sample_init(&sample, "gpt2");
    gguf_put_str(sample.w, "general.name", STR("Phi-3 mini"));
    gguf_put_str(sample.w, "tokenizer.ggml.pre", STR("gpt-2"));
    gguf_put_str_array(sample.w, "tokenizer.ggml.merges", NULL, 0);
    sample_add_bytes(&sample);
    u32 user = sample_add(&sample, STR("<|user|>"), CONTROL, 0),
        s = sample_add(&sample, STR("<s>"), CONTROL, 0);
    struct tokenizer *t = sample_open_ok(&sample);
    IDS(t, "a <|user|> \nb", PARSED, 'a', ' ', user, 'b');
    IDS(t, "<s> <|user|>\n", PARSED, s, ' ', user);
    tokenizer_close(t);
    sample_init(&sample, "gpt2");
    gguf_put_str(sample.w, "tokenizer.ggml.pre", STR("jina-v2-de"));
    gguf_put_str_array(sample.w, "tokenizer.ggml.merges", NULL, 0);
    sample_add_bytes(&sample);
    u32 mask = sample_add(&sample, STR("<mask>"), CONTROL, 0);
    t = sample_open_ok(&sample);
    IDS(t, "a  <mask> b", PARSED, 'a', mask, ' ', 'b');
    IDS(t, "  <mask>", PARSED, mask);
    tokenizer_close(t);
}

/* --- invalid bytes --- */

static void test_any_bytes(void **state) {
    (void)state;
    u32 seed = 5;
    struct buf back = {0};
    sample_init(&sample, "gpt2");
    gguf_put_str(sample.w, "tokenizer.ggml.pre", STR("llama-bpe"));
    gguf_put_str_array(sample.w, "tokenizer.ggml.merges", NULL, 0);
    sample_add_bytes(&sample);
    struct tokenizer *t = sample_open_ok(&sample);
    for (u32 i = 0; i < 2000; i++) {
        char bytes[64];
        u32 n = random_next(&seed) % sizeof bytes;
        for (u32 k = 0; k < n; k++)
            bytes[k] = (char)(random_next(&seed) % 4 ? random_next(&seed) : 0xe2);
        struct token_list l = ids_of(t, (struct str){bytes, n}, (struct tokenize_options){0});
        buf_clear(&back);
        detokenize(t, l.ids, l.n, false, &back);
        assert_true(str_eq(buf_str(&back), (struct str){bytes, n}));
        token_list_release(&l);
    }
    tokenizer_close(t);
    buf_release(&back);
}

/* --- large texts --- */

static void large_check(const struct tokenizer *t, char unit, size_t n) {
    char *text = malloc(n);
    struct buf back = {0};
    memset(text, unit, n);
    u64 start = clock_ns();
    struct token_list l = ids_of(t, (struct str){text, n}, (struct tokenize_options){0});
    u64 ms = (clock_ns() - start) / 1000000;
    detokenize(t, l.ids, l.n, false, &back);
    assert_true(str_eq(buf_str(&back), (struct str){text, n}));
    assert_true(ms < 20000); /* quadratic would be an hour; a sanitizer on a busy machine takes two seconds */
    token_list_release(&l);
    buf_release(&back);
    free(text);
}

/* Words beyond the limit, runs of white space and of letters for each kind of regular expression. */
static void test_large(void **state) {
    (void)state;
    static const char *const pres[] = {"gpt-2",       "default",      "llama-bpe", "tekken", "gpt-4o",
                                       "deepseek-v3", "deepseek-llm", "qwen35",    "viking"};
    const struct str merges[] = {STR("a a"), STR("aa aa"), STR("aaaa aaaa"), STR("\xc4\xa0 \xc4\xa0")};
    for (u32 i = 0; i < ARRAY_LEN(pres); i++) {
        sample_init(&sample, "gpt2");
        gguf_put_str(sample.w, "tokenizer.ggml.pre", str_of(pres[i]));
        gguf_put_str_array(sample.w, "tokenizer.ggml.merges", merges, 4);
        sample_add_bytes(&sample);
        sample_add(&sample, STR("aa"), NORMAL, 0);
        sample_add(&sample, STR("aaaa"), NORMAL, 0);
        sample_add(&sample, STR("aaaaaaaa"), NORMAL, 0);
        sample_add(&sample, STR("\xc4\xa0\xc4\xa0"), NORMAL, 0);
        struct tokenizer *t = sample_open_ok(&sample);
        large_check(t, 'a', i ? 300000 : LIMIT_TOKENIZE_WORD_BYTES + 100000);
        large_check(t, 'Q', 300000);
        large_check(t, ' ', 300000);
        large_check(t, '!', 300000);
        large_check(t, '7', 300000);
        large_check(t, '\n', 300000);
        tokenizer_close(t);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_merges),  cmocka_unit_test(test_words), cmocka_unit_test(test_scores),
        cmocka_unit_test(test_special), cmocka_unit_test(test_strip), cmocka_unit_test(test_any_bytes),
        cmocka_unit_test(test_large),
    };
    return cmocka_run_group_tests_name("tokenize", tests, NULL, NULL);
}
