/* tokenize.c - the public face: opening, one pass over a text, and back. */
#include "tokenize/tokenize.h"

#include <stdlib.h>

#include "base/limit.h"
#include "tokenize/internal.h"
#include "tokenize/pretoken.h"

#define SCRATCH_BYTES_KEPT (1u << 20)

enum status tokenizer_open(const struct gguf *g, struct tokenizer **out, struct err *err) {
    struct tokenizer *t = xcalloc(1, sizeof *t);
    enum status status = vocab_load(t, g, err);
    if (status != OK) {
        tokenizer_close(t);
        return status;
    }
    *out = t;
    return OK;
}

void tokenizer_close(struct tokenizer *t) {
    if (!t)
        return;
    free(t->tokens);
    buf_release(&t->blob);
    free(t->slots);
    free(t->merges);
    free(t->charsmap);
    token_list_release(&t->replacement);
    pretoken_close(t->pre);
    trie_release(&t->special);
    trie_release(&t->pieces);
    trie_release(&t->user);
    free(t);
}

u64 tokenizer_bytes(const struct tokenizer *t) {
    u64 bytes = sizeof *t + t->cap_tokens * sizeof *t->tokens + t->blob.cap +
                (t->slot_mask + 1ull) * sizeof *t->slots;
    if (t->merges)
        bytes += (t->merge_mask + 1ull) * sizeof *t->merges;
    return bytes + trie_bytes(&t->special) + trie_bytes(&t->pieces) + trie_bytes(&t->user) +
           t->n_charsmap * sizeof *t->charsmap;
}

void token_list_release(struct token_list *l) {
    free(l->ids);
    *l = (struct token_list){0};
}

void token_list_add(struct token_list *l, u32 id) {
    if (l->n == l->cap) {
        l->cap = MAX(64, 2 * l->cap);
        l->ids = xrealloc(l->ids, l->cap * sizeof *l->ids);
    }
    l->ids[l->n++] = id;
}

struct tokenize_scratch *tokenize_scratch_new(void) {
    struct tokenize_scratch *s = xcalloc(1, sizeof *s);
    s->pre = pretoken_scratch_new();
    s->known = xcalloc(KNOWN_WORDS, sizeof *s->known);
    return s;
}

void tokenize_scratch_free(struct tokenize_scratch *s) {
    if (!s)
        return;
    free(s->known);
    free(s->symbols);
    free(s->heap);
    free(s->matches);
    free(s->paths);
    buf_release(&s->covered);
    buf_release(&s->text);
    pretoken_scratch_free(s->pre);
    free(s);
}

/* --- a text --- */

struct pass {
    const struct tokenizer *t;
    struct tokenize_scratch *s;
    struct token_list *out;
    bool after_special; /* SentencePiece: the next text gets a blank in front */
};

/* Bytes of text up to its first invalid sequence; ASCII goes by eight. */
static size_t valid_len(struct str text) {
    size_t at = 0;
    u32 code, n;
    for (;;) {
        while (at + 8 <= text.n && !(load_u64(text.p + at) & 0x8080808080808080ull))
            at += 8;
        n = utf8_decode(text, at, &code);
        if (n == 0)
            return at;
        at += n;
    }
}

/* A word that is too long is cut between characters. */
static void word_take(void *arg, struct str word) {
    struct pass *p = arg;
    while (word.n > LIMIT_TOKENIZE_WORD_BYTES) {
        size_t n = utf8_complete_len(str_slice(word, 0, LIMIT_TOKENIZE_WORD_BYTES));
        merge_word(p->t, p->s, str_slice(word, 0, n), p->out);
        word = str_slice(word, n, word.n);
    }
    merge_word(p->t, p->s, word, p->out);
}

static void invalid_take(struct pass *p, struct str byte) {
    const struct token_list *r = &p->t->replacement;
    if (!p->t->byte_level || p->t->byte_ids[(u8)byte.p[0]] != TOKEN_NONE)
        merge_word(p->t, p->s, byte, p->out);
    else
        for (u32 i = 0; i < r->n; i++)
            token_list_add(p->out, r->ids[i]);
}

/* Valid runs go through the pre-tokenizer; an invalid byte is a word of its own. */
static void bpe_tokenize(struct pass *p, struct str text) {
    while (text.n) {
        size_t n = valid_len(text);
        if (n)
            pretoken_split(p->t->pre, p->s, str_slice(text, 0, n), word_take, p);
        if (n < text.n)
            invalid_take(p, str_slice(text, n, n + 1));
        text = str_slice(text, n + 1, text.n);
    }
}

/* Into s->text: each blank becomes U+2581. */
static struct str blanks_escape(struct tokenize_scratch *s, struct str text, bool lead) {
    buf_clear(&s->text);
    buf_reserve(&s->text, text.n + text.n / 4 + BLANK.n);
    if (lead)
        buf_add_str(&s->text, BLANK);
    while (text.n) {
        const char *blank = memchr(text.p, ' ', text.n);
        size_t n = blank ? (size_t)(blank - text.p) : text.n;
        buf_add(&s->text, text.p, n);
        if (blank)
            buf_add_str(&s->text, BLANK);
        text = str_slice(text, n + 1, text.n);
    }
    return buf_str(&s->text);
}

/* Length of the first word: blanks, and up to the next blanks that no token reaches over to. */
static size_t spm_word_len(const struct tokenizer *t, struct str text) {
    size_t at = blank_find(text, blanks_skip(text, 0));
    while (at < text.n && t->before_blank[(u8)text.p[at - 1]])
        at = blank_find(text, blanks_skip(text, at));
    return at;
}

static void spm_tokenize(struct pass *p, struct str text) {
    text = blanks_escape(p->s, text, p->t->add_blank && p->after_special);
    while (text.n) {
        size_t n = spm_word_len(p->t, text);
        word_take(p, str_slice(text, 0, n));
        text = str_slice(text, n, text.n);
    }
}

static void part_take(void *arg, struct str text, u32 id) {
    struct pass *p = arg;
    if (id != TOKEN_NONE) {
        token_list_add(p->out, id);
        p->after_special = true;
        return;
    }
    switch (p->t->kind) {
    case KIND_BPE: bpe_tokenize(p, p->t->escape_blanks ? blanks_escape(p->s, text, false) : text); break;
    case KIND_SPM: spm_tokenize(p, text); break;
    case KIND_WORDPIECE: wordpiece_tokenize(p->t, p->s, text, p->out); break;
    case KIND_UNIGRAM: unigram_tokenize(p->t, p->s, text, p->out); break;
    }
    p->after_special = false;
}

/* What a huge text has made grow is given back, so that an idle scratch is small. */
static void scratch_trim(struct tokenize_scratch *s) {
    if (s->text.cap > SCRATCH_BYTES_KEPT)
        buf_release(&s->text);
    if (s->covered.cap > SCRATCH_BYTES_KEPT)
        buf_release(&s->covered);
    if (s->cap_paths * sizeof *s->paths > SCRATCH_BYTES_KEPT) {
        free(s->paths);
        s->paths = NULL;
        s->cap_paths = 0;
    }
    if (s->cap_matches * sizeof *s->matches > SCRATCH_BYTES_KEPT) {
        free(s->matches);
        s->matches = NULL;
        s->cap_matches = 0;
    }
}

void tokenize(const struct tokenizer *t, struct tokenize_scratch *s, struct str text,
              struct tokenize_options o, struct token_list *out) {
    struct pass p = {t, s, out, true};
    check(text.n <= INT32_MAX);
    if (++s->call == 0) { /* after 2^32 calls the old entries would count again */
        memset(s->known, 0, KNOWN_WORDS * sizeof *s->known);
        s->call = 1;
    }
    bool bert = t->kind == KIND_WORDPIECE;
    if (o.add_special && (t->add_bos || bert) && t->bos != TOKEN_NONE)
        token_list_add(out, t->bos);
    special_split(t, s, text, o.parse_special, part_take, &p);
    u32 end = bert ? t->sep : t->add_eos ? t->eos : TOKEN_NONE;
    if (o.add_special && end != TOKEN_NONE)
        token_list_add(out, end);
    scratch_trim(s);
}

/* --- facts, and back --- */

u32 tokenizer_n_vocab(const struct tokenizer *t) { return t->n_vocab; }
u32 tokenizer_bos(const struct tokenizer *t) { return t->bos; }
u32 tokenizer_eos(const struct tokenizer *t) { return t->eos; }
bool tokenizer_adds_bos(const struct tokenizer *t) {
    return (t->add_bos || t->kind == KIND_WORDPIECE) && t->bos != TOKEN_NONE;
}

bool tokenizer_is_end(const struct tokenizer *t, u32 id) { return id < t->n_vocab && t->tokens[id].end; }

bool tokenizer_is_control(const struct tokenizer *t, u32 id) {
    return id < t->n_vocab && t->tokens[id].attr & (ATTR_CONTROL | ATTR_UNKNOWN);
}

struct str tokenizer_bytes_of(const struct tokenizer *t, u32 id, bool special) {
    if (id >= t->n_vocab || (!special && tokenizer_is_control(t, id)))
        return STR_NONE;
    return (struct str){t->blob.p + t->tokens[id].bytes_at, t->tokens[id].bytes_n};
}

struct str tokenizer_text_of(const struct tokenizer *t, u32 id) {
    return id < t->n_vocab ? token_text(t, id) : STR_NONE;
}

u32 tokenizer_find(const struct tokenizer *t, struct str text) {
    u32 id = vocab_find(t, text);
    return id < t->n_vocab ? id : TOKEN_NONE;
}

void detokenize(const struct tokenizer *t, const u32 *ids, u32 n, bool special, struct buf *out) {
    bool start = t->add_blank;
    for (u32 i = 0; i < n; i++) {
        struct str bytes = tokenizer_bytes_of(t, ids[i], special);
        if (start && !(i == 0 && ids[i] == t->bos)) {
            if (bytes.n && bytes.p[0] == ' ')
                bytes = str_slice(bytes, 1, bytes.n);
            start = false;
        }
        buf_add_str(out, bytes);
    }
}
