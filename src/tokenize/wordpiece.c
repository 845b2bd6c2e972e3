/* wordpiece.c - BERT's tokenizer: clean, split at white space, punctuation and ideographs, strip accents,
 * lower case, then take the longest token from the left. In GGUF a token that begins a word is spelled
 * with U+2581 in front, the others without "##". */
#include <utf8proc.h>

#include "tokenize/internal.h"

/* A longer word is unknown, as in the original. */
#define WORD_CHARS_MAX 100u

struct words {
    const struct tokenizer *t;
    struct buf *word; /* U+2581 and the characters so far */
    u32 n_chars;
    struct token_list *out;
};

static void word_reset(struct words *w) {
    buf_clear(w->word);
    buf_add_str(w->word, BLANK);
    w->n_chars = 0;
}

static bool pieces_add(struct words *w) {
    const struct trie *trie = &w->t->pieces;
    struct str word = buf_str(w->word);
    for (size_t at = 0; at < word.n;) {
        u32 node = TRIE_ROOT, id = TOKEN_NONE;
        size_t end = at;
        for (size_t i = at; i < word.n; i++) {
            node = trie_child(trie, node, (u8)word.p[i]);
            if (node == 0)
                break;
            if (trie->values[node] != TRIE_NONE) {
                id = trie->values[node];
                end = i + 1;
            }
        }
        if (id == TOKEN_NONE)
            return false;
        token_list_add(w->out, id);
        at = end;
    }
    return true;
}

static void word_end(struct words *w) {
    u32 n = w->out->n;
    if (w->n_chars == 0)
        return;
    if (w->n_chars > WORD_CHARS_MAX || !pieces_add(w)) {
        w->out->n = n; /* one part unknown: the whole word is */
        if (w->t->unk != TOKEN_NONE)
            token_list_add(w->out, w->t->unk);
    }
    word_reset(w);
}

static bool is_space(u32 c) {
    return (c >= 9 && c <= 13) || c == 0x85 || c == 0x2028 || c == 0x2029 ||
           utf8proc_category((utf8proc_int32_t)c) == UTF8PROC_CATEGORY_ZS;
}

static bool is_other(utf8proc_category_t c) {
    return c == UTF8PROC_CATEGORY_CC || c == UTF8PROC_CATEGORY_CF || c == UTF8PROC_CATEGORY_CN ||
           c == UTF8PROC_CATEGORY_CO || c == UTF8PROC_CATEGORY_CS;
}

static bool is_punctuation(u32 c, utf8proc_category_t category) {
    bool ascii_symbol =
        (c >= '!' && c <= '/') || (c >= ':' && c <= '@') || (c >= '[' && c <= '`') || (c >= '{' && c <= '~');
    return ascii_symbol || (category >= UTF8PROC_CATEGORY_PC && category <= UTF8PROC_CATEGORY_PO);
}

/* The blocks that the original treats as words of one character (the gap at 2b820 is its own). */
static bool is_ideograph(u32 c) {
    static const u32 ranges[][2] = {{0x4e00, 0x9fff},   {0x3400, 0x4dbf},   {0x20000, 0x2a6df},
                                    {0x2a700, 0x2b73f}, {0x2b740, 0x2b81f}, {0x2b920, 0x2ceaf},
                                    {0xf900, 0xfaff},   {0x2f800, 0x2fa1f}};
    for (u32 i = 0; i < ARRAY_LEN(ranges); i++)
        if (c >= ranges[i][0] && c <= ranges[i][1])
            return true;
    return false;
}

static void char_add(struct words *w, u32 c) {
    char text[4];
    if (w->n_chars++ <= WORD_CHARS_MAX) /* beyond it the word is lost anyway */
        buf_add(w->word, text,
                utf8_encode(w->t->lowercase ? (u32)utf8proc_tolower((utf8proc_int32_t)c) : c, text));
}

/* One character, already decomposed. */
static void char_take(struct words *w, u32 c) {
    utf8proc_category_t category = utf8proc_category((utf8proc_int32_t)c);
    if (is_space(c)) {
        word_end(w);
    } else if (c == 0 || c == 0xfffd || is_other(category) ||
               (w->t->strip_accents && category == UTF8PROC_CATEGORY_MN)) {
        return;
    } else if (is_punctuation(c, category) || is_ideograph(c)) {
        word_end(w);
        char_add(w, c);
        word_end(w);
    } else {
        char_add(w, c);
    }
}

void wordpiece_tokenize(const struct tokenizer *t, struct tokenize_scratch *s, struct str text,
                        struct token_list *out) {
    struct words w = {t, &s->text, 0, out};
    word_reset(&w);
    for (size_t at = 0; at < text.n;) {
        utf8proc_int32_t parts[16];
        int class = 0;
        u32 c, n = utf8_decode(text, at, &c);
        at += MAX(n, 1);
        if (n == 0)
            continue; /* would be U+FFFD, which is dropped */
        utf8proc_ssize_t n_parts = t->strip_accents && c >= 0x80
                                       ? utf8proc_decompose_char((utf8proc_int32_t)c, parts, ARRAY_LEN(parts),
                                                                 UTF8PROC_DECOMPOSE, &class)
                                       : 0;
        if (n_parts <= 0 || n_parts > (utf8proc_ssize_t)ARRAY_LEN(parts))
            char_take(&w, c);
        else
            for (utf8proc_ssize_t i = 0; i < n_parts; i++)
                char_take(&w, (u32)parts[i]);
    }
    word_end(&w);
}
