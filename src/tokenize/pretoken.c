/* pretoken.c - cuts a text into the words within which byte-level BPE merges.
 *
 * Each pre-tokenizer is a list of regular expressions, applied one after the other: every match and every
 * gap between matches of one becomes a text of its own for the next. The expressions are those of the
 * models' tokenizer.json files, written for PCRE2:
 *   - white space is spelled out: PCRE2's \s differs from Unicode's White_Space by U+180E;
 *   - no nested groups, so that matching needs no stack, and no unanchored search that is quadratic. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "tokenize/pretoken.h"

#include <stdlib.h>

#include <pcre2.h>

#include "tokenize/internal.h"

#define STAGES_MAX 5u

/* White_Space for use inside a class, as a class, and the tail that all of them share: white space but
 * for the last one before a word. */
#define WS                                                                                                   \
    "\\t-\\r\\x20\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}"
#define S "[" WS "]"
#define SPACES S "+(?![^" WS "])|" S "+"
#define NEWLINES S "*[\\r\\n]+|"

#define CLITIC "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
#define WORD "[^\\r\\n\\p{L}\\p{N}]?\\p{L}+"
#define SYMBOLS " ?[^" WS "\\p{L}\\p{N}]+"

#define GPT2 "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+|" SYMBOLS "|" SPACES
/* digits: how many of them make a word */
#define LLAMA3(digits) CLITIC "|" WORD "|" digits "|" SYMBOLS "[\\r\\n]*|" NEWLINES SPACES
/* Words by case: capitals then small letters. Marks and letters without case count as both. (llama.cpp reads
 * these expressions with ASCII case only and without marks, which cuts words of many scripts in pieces.) */
#define UPPER "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define LOWER "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define BY_CASE(tail, digits)                                                                                \
    "[^\\r\\n\\p{L}\\p{N}]?" UPPER "*" LOWER "+" tail "|[^\\r\\n\\p{L}\\p{N}]?" UPPER "+" LOWER "*" tail     \
    "|" digits "|" SYMBOLS "[\\r\\n/]*|" NEWLINES SPACES
#define CJK "[\\x{4e00}-\\x{9fa5}\\x{3040}-\\x{309f}\\x{30a0}-\\x{30ff}]+"
#define DEEPSEEK3_MAIN                                                                                       \
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+|"     \
    " ?[\\p{P}\\p{S}]+[\\r\\n]*|" NEWLINES SPACES
/* DeepSeek's list of cased letters: Latin, Greek, Cyrillic, Armenian, Georgian, Cherokee and others. */
#define DEEPSEEK_LETTERS                                                                                     \
    "A-Za-z\\x{b5}\\x{c0}-\\x{d6}\\x{d8}-\\x{f6}\\x{f8}-\\x{1ba}\\x{1bc}-\\x{1bf}\\x{1c4}-\\x{293}"          \
    "\\x{295}-\\x{2af}\\x{370}-\\x{373}\\x{376}\\x{377}\\x{37b}-\\x{37d}\\x{37f}\\x{386}\\x{388}-\\x{38a}"   \
    "\\x{38c}\\x{38e}-\\x{3a1}\\x{3a3}-\\x{3f5}\\x{3f7}-\\x{481}\\x{48a}-\\x{52f}\\x{531}-\\x{556}"          \
    "\\x{10a0}-\\x{10c5}\\x{13a0}-\\x{13f5}\\x{13f8}-\\x{13fd}\\x{1c90}-\\x{1cba}\\x{1cbd}-\\x{1cbf}"        \
    "\\x{1d00}-\\x{1d2b}\\x{1d6b}-\\x{1d77}\\x{1d79}-\\x{1d9a}\\x{1e00}-\\x{1f15}\\x{1f18}-\\x{1f1d}"        \
    "\\x{1f20}-\\x{1f45}\\x{1f48}-\\x{1f4d}\\x{1f50}-\\x{1f57}\\x{1f59}\\x{1f5b}\\x{1f5d}"                   \
    "\\x{1f5f}-\\x{1f7d}\\x{1f80}-\\x{1fb4}\\x{1fb6}-\\x{1fbc}\\x{1fbe}\\x{1fc2}-\\x{1fc4}"                  \
    "\\x{1fc6}-\\x{1fcc}\\x{1fd0}-\\x{1fd3}\\x{1fd6}-\\x{1fdb}\\x{1fe0}-\\x{1fec}\\x{1ff2}-\\x{1ff4}"        \
    "\\x{1ff6}-\\x{1ffc}\\x{2102}\\x{2107}\\x{210a}-\\x{2113}\\x{2115}\\x{2119}-\\x{211d}\\x{2124}\\x{2126}" \
    "\\x{2128}\\x{212a}-\\x{212d}\\x{212f}-\\x{2134}\\x{2139}\\x{213c}-\\x{213f}\\x{2145}-\\x{2149}\\x{"     \
    "214e}"                                                                                                  \
    "\\x{2183}\\x{2184}\\x{2c00}-\\x{2c7b}\\x{2c7e}-\\x{2ce4}\\x{2ceb}-\\x{2cee}\\x{2cf2}\\x{2cf3}"          \
    "\\x{a640}-\\x{a66d}\\x{a680}-\\x{a69b}\\x{a722}-\\x{a76f}\\x{a771}-\\x{a787}\\x{a78b}-\\x{a78e}"        \
    "\\x{ab70}-\\x{abbf}\\x{fb00}-\\x{fb06}\\x{fb13}-\\x{fb17}\\x{ff21}-\\x{ff3a}\\x{ff41}-\\x{ff5a}"        \
    "\\x{10400}-\\x{1044f}\\x{104b0}-\\x{104d3}\\x{104d8}-\\x{104fb}\\x{10c80}-\\x{10cb2}"                   \
    "\\x{10cc0}-\\x{10cf2}\\x{118a0}-\\x{118df}\\x{1e900}-\\x{1e943}"

enum pre_flag {
    IGNORE_MERGES = 1, /* a word that is a token is that token */
    ADD_BOS = 2,       /* unless the file says otherwise */
    RAW = 4,           /* over characters with blanks escaped, not over the byte alphabet */
    NEWLINE_WORDS = 8,
};

struct rule {
    const char *names; /* each with a blank on both sides */
    u32 flags;
    const char *stages[STAGES_MAX + 1];
};

static const struct rule rules[] = {
    {" default ", 0, {"[\\p{P}$+<=>^~|]+", GPT2, "\\p{N}+", "[0-9][0-9][0-9]"}},
    {" gpt-2 phi-2 jina-es jina-de gigachat jina-v2-es jina-v2-de a.x-4.0 mellum modern-bert jina-v1-en "
     "jina-v2-code roberta-bpe exaone4 mpt olmo jais trillion granite-docling ",
     0,
     {GPT2}},
    {" smollm starcoder refact command-r codeshell exaone minerva-7b mellum2 ", 0, {"\\p{N}", GPT2}},
    {" llama3 llama-v3 llama-bpe falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano ",
     IGNORE_MERGES | ADD_BOS,
     {LLAMA3("\\p{N}{1,3}")}},
    {" glm4 glm5 ", IGNORE_MERGES, {LLAMA3("\\p{N}{1,3}")}},
    {" chatglm-bpe dbrx smaug-bpe ", 0, {LLAMA3("\\p{N}{1,3}")}},
    {" qwen2 deepseek-r1-qwen kormo f2llmv2 stablelm2 megrez hunyuan solar-open grok-2 ",
     0,
     {LLAMA3("\\p{N}")}},
    {" qwen35 ",
     0,
     {CLITIC "|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}| ?[^" WS
             "\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|" NEWLINES SPACES}},
    {" tekken ", IGNORE_MERGES | ADD_BOS, {BY_CASE("", "\\p{N}")}},
    {" gpt-4o llama4 kanana2 talkie minimax-m2 ", 0, {BY_CASE(CLITIC "?", "\\p{N}{1,3}")}},
    {" deepseek-v3 hunyuan-dense joyai-llm hy_v4 ", 0, {"\\p{N}{1,3}", CJK, DEEPSEEK3_MAIN}},
    {" deepseek-llm ",
     0,
     {"[\\r\\n]", S "?[" DEEPSEEK_LETTERS "]+",
      S "?[!-/:-~\\x{ff01}-\\x{ff0f}\\x{ff1a}-\\x{ff5e}\\x{2018}-\\x{201f}\\x{3000}-\\x{3002}]+",
      /* The first of two: white space up to the end, looked for only where it begins. */
      "(?<!" S ")" S "++\\z|[\\x{4e00}-\\x{9fa5}\\x{800}-\\x{4e00}\\x{ac00}-\\x{d7ff}]+", "\\p{N}+"}},
    {" deepseek-coder ",
     0,
     {"[\\r\\n]", S "?\\p{L}+", S "?\\p{P}+", "[\\x{4e00}-\\x{9fa5}\\x{800}-\\x{4e00}\\x{ac00}-\\x{d7ff}]+",
      "\\p{N}"}},
    {" falcon ", 0, {"[\\p{P}$+<=>^~|`]+", GPT2, "[0-9][0-9][0-9]"}},
    {" poro-chat bloom gpt3-finnish ",
     0,
     {" ?[^(" WS "|.,!?\\x{2026}\\x{3002}\\x{ff0c}\\x{3001}\\x{964}\\x{6d4}\\x{60c})]+"}},
    {" viking ",
     0,
     {" ?[^(" WS "|.,!?\\x{2026}\\x{3002}\\x{ff0c}\\x{3001}\\x{964}\\x{6d4}\\x{60c})]+", "\\p{N}"}},
    {" bailingmoe bailingmoe2 llada-moe ",
     0,
     {CLITIC "|" WORD "|\\p{N}|" SYMBOLS "[\\r\\n]*|" S "*[\\r\\n]|" SPACES}},
    {" seed-coder ", 0, {CLITIC "|" WORD "|\\p{N}| ?[^" WS "\\p{L}\\p{N}]+|" NEWLINES SPACES}},
    {" minicpm5 ", IGNORE_MERGES, {"\\p{N}{1,3}", LLAMA3("\\p{N}+")}},
    {" ufakzeka ", 0, {WORD "|\\p{N}|" SYMBOLS "[\\r\\n]*|" NEWLINES SPACES}},
    {" laguna ", 0, {"[^\\n]+|\\n+", LLAMA3("\\p{N}")}},
    {" gemma4 granite-embed-multi-311m ", RAW | NEWLINE_WORDS | ADD_BOS, {"[^\\n]+|\\n+"}},
    {" sarvam-moe ", RAW, {"[^\\n]+|\\n+"}},
};

struct pretoken {
    pcre2_code *stages[STAGES_MAX];
    u32 n_stages;
    bool jit;
};

struct pretoken_scratch {
    pcre2_match_data *match;
};

struct pretoken_scratch *pretoken_scratch_new(void) {
    struct pretoken_scratch *s = xmalloc(sizeof *s);
    s->match = pcre2_match_data_create(1, NULL);
    if (!s->match)
        die("out of memory");
    return s;
}

void pretoken_scratch_free(struct pretoken_scratch *s) {
    pcre2_match_data_free(s->match);
    free(s);
}

static const struct rule *rule_find(struct str name) {
    char padded[64];
    if (name.n == 0)
        name = STR("default");
    if (name.n > sizeof padded - 2 || memchr(name.p, ' ', name.n))
        return NULL;
    padded[0] = padded[name.n + 1] = ' ';
    memcpy(padded + 1, name.p, name.n);
    for (u32 i = 0; i < ARRAY_LEN(rules); i++)
        if (str_find(str_of(rules[i].names), (struct str){padded, name.n + 2}, 0) != SIZE_MAX)
            return &rules[i];
    return NULL;
}

static struct pretoken *rule_compile(const struct rule *rule) {
    struct pretoken *p = xcalloc(1, sizeof *p);
    p->jit = true;
    for (; rule->stages[p->n_stages]; p->n_stages++) {
        int error;
        size_t at;
        const char *text = rule->stages[p->n_stages];
        pcre2_code *code =
            pcre2_compile((PCRE2_SPTR)text, PCRE2_ZERO_TERMINATED, PCRE2_UTF | PCRE2_UCP, &error, &at, NULL);
        check(code != NULL); /* our own expression */
        /* Without executable memory the interpreter gives the same words, five times slower. */
        p->jit = pcre2_jit_compile(code, PCRE2_JIT_COMPLETE) == 0 && p->jit;
        p->stages[p->n_stages] = code;
    }
    return p;
}

enum status pretoken_open(struct tokenizer *t, struct str name, struct err *err) {
    const struct rule *rule = rule_find(name);
    if (!rule)
        return err_set(err, ERR_UNSUPPORTED, "pre-tokenizer \"%.*s\" is not supported (tokenizer.ggml.pre)",
                       (int)MIN(name.n, 64), name.p);
    t->ignore_merges = rule->flags & IGNORE_MERGES;
    t->add_bos = rule->flags & ADD_BOS;
    t->byte_level = !(rule->flags & RAW);
    t->escape_blanks = rule->flags & RAW;
    t->newline_words = rule->flags & NEWLINE_WORDS;
    t->pre = rule_compile(rule);
    return OK;
}

void pretoken_close(struct pretoken *p) {
    if (!p)
        return;
    for (u32 i = 0; i < p->n_stages; i++)
        pcre2_code_free(p->stages[i]);
    free(p);
}

struct split {
    const struct pretoken *p;
    pcre2_match_data *match;
    word_fn *fn;
    void *arg;
};

static int match_at(const struct split *s, u32 stage, struct str text, size_t at) {
    const pcre2_code *code = s->p->stages[stage];
    PCRE2_SPTR p = (PCRE2_SPTR)text.p;
    if (s->p->jit)
        return pcre2_jit_match(code, p, text.n, at, PCRE2_NO_UTF_CHECK, s->match, NULL);
    return pcre2_match(code, p, text.n, at, PCRE2_NO_UTF_CHECK, s->match, NULL);
}

/* Recurses once per stage. */
static void stage_split(const struct split *s, u32 stage, struct str text) {
    if (stage == s->p->n_stages) {
        s->fn(s->arg, text);
        return;
    }
    for (size_t at = 0; at < text.n;) {
        size_t from = text.n, to = text.n;
        if (match_at(s, stage, text, at) > 0) {
            const size_t *ends = pcre2_get_ovector_pointer(s->match);
            from = ends[0];
            to = ends[1];
            check(from >= at && to > from);
        }
        if (from > at)
            stage_split(s, stage + 1, str_slice(text, at, from));
        if (to > from)
            stage_split(s, stage + 1, str_slice(text, from, to));
        at = to;
    }
}

void pretoken_split(const struct pretoken *p, struct tokenize_scratch *s, struct str text, word_fn *fn,
                    void *arg) {
    stage_split(&(struct split){p, s->pre->match, fn, arg}, 0, text);
}
