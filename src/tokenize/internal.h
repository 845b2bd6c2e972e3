/* internal.h - what the files of this folder share: the vocabulary in memory and the parts of a pass.
 *
 * A text goes through: special.c (cuts out control and user-defined tokens), then by kind
 *   byte-level BPE  pretoken.c cuts it into words, merge.c merges each word's bytes by rank
 *   SentencePiece   merge.c merges characters by score
 *   WordPiece       wordpiece.c    unigram  unigram.c */
#ifndef MINKA_TOKENIZE_INTERNAL_H
#define MINKA_TOKENIZE_INTERNAL_H

#include "tokenize/tokenize.h"
#include "tokenize/trie.h"

/* U+2581, SentencePiece's visible blank. */
#define BLANK STR("\xe2\x96\x81")

enum vocab_kind { KIND_BPE, KIND_SPM, KIND_WORDPIECE, KIND_UNIGRAM };

/* Bits; a token of the file has one of the first six. */
enum token_attr {
    ATTR_NORMAL = 1,
    ATTR_UNKNOWN = 2,
    ATTR_CONTROL = 4,
    ATTR_USER = 8,
    ATTR_UNUSED = 16,
    ATTR_BYTE = 32,
    ATTR_LSTRIP = 64, /* takes the white space in front with it */
    ATTR_RSTRIP = 128 /* and behind */
};

struct token {
    u32 text_at, text_n;   /* own spelling, in blob */
    u32 bytes_at, bytes_n; /* what it stands for, in blob; often the same place */
    f32 score;
    u8 attr;
    bool end;
};

/* (left id, right id) -> rank and the merged token. */
struct merge {
    u64 pair; /* left << 32 | right */
    u32 rank;
    u32 id; /* TOKEN_NONE: the slot is free */
};

struct pretoken;

struct tokenizer {
    enum vocab_kind kind;
    u32 n_vocab;
    /* Behind the vocabulary lie texts that only merges know: steps of a merge that are no token. */
    struct token *tokens; /* [n_tokens] */
    u32 n_tokens, cap_tokens;
    struct buf blob;
    u64 *slots; /* hash table by spelling: high half of the hash << 32 | id + 1 */
    u32 slot_mask, probes_max;
    u32 text_n_max; /* longest spelling of the vocabulary */

    u32 bos, eos, unk, sep;
    bool add_bos, add_eos;
    bool add_blank;         /* SentencePiece: a blank in front of a text */
    bool escape_blanks;     /* blanks are spelled U+2581 */
    bool merge_blanks;      /* unigram: runs of blanks become one */
    bool byte_level;        /* BPE over the byte alphabet; else over characters with <0xXX> fallback */
    bool ignore_merges;     /* a word that is a token is that token */
    bool newline_words;     /* ... but only words of newlines */
    bool before_blank[256]; /* bytes that a blank inside a token may follow; behind others it begins a word */
    bool lowercase, strip_accents; /* WordPiece */

    u32 byte_ids[256];             /* token that stands for a byte; TOKEN_NONE */
    u32 start_ids[256];            /* byte_level: the symbol merging begins with; may be beyond n_vocab */
    struct token_list replacement; /* byte_level: stands for an invalid byte without a token */
    struct merge *merges;
    u32 merge_mask, merge_probes_max;
    struct pretoken *pre;
    struct trie special; /* control, unknown and user-defined tokens */
    struct trie pieces;  /* WordPiece, unigram: all tokens that text may become */

    /* unigram */
    struct trie user; /* user-defined tokens, which normalization leaves alone */
    f32 unknown_score;
    u32 *charsmap; /* double array of the normalization rules [n_charsmap] */
    u32 n_charsmap;
    u32 charsmap_text_at, charsmap_text_n; /* replacement texts with NULs behind them, in blob */
};

static inline struct str token_text(const struct tokenizer *t, u32 id) {
    return (struct str){t->blob.p + t->tokens[id].text_at, t->tokens[id].text_n};
}

/* --- vocab.c --- */
u64 text_hash(struct str text);
enum status vocab_load(struct tokenizer *t, const struct gguf *g, struct err *err) MUST_USE;
/* Also finds texts beyond the vocabulary (id >= n_vocab); TOKEN_NONE. */
u32 vocab_find(const struct tokenizer *t, struct str text);
/* Adds a text beyond the vocabulary. */
enum status vocab_add_text(struct tokenizer *t, struct str text, u32 *id, struct err *err) MUST_USE;

static inline bool blank_at(struct str text, size_t at) {
    return at + 3 <= text.n && memcmp(text.p + at, "\xe2\x96\x81", 3) == 0;
}

/* Offset of the first character at or behind `at` that is no U+2581. */
static inline size_t blanks_skip(struct str text, size_t at) {
    while (blank_at(text, at))
        at += 3;
    return at;
}

/* Offset of the first U+2581 at or behind `at`; text.n if none. */
static inline size_t blank_find(struct str text, size_t at) {
    while (at < text.n) {
        const char *p = memchr(text.p + at, 0xe2, text.n - at);
        if (!p)
            return text.n;
        at = (size_t)(p - text.p);
        if (blank_at(text, at))
            return at;
        at++;
    }
    return text.n;
}

/* --- bytelevel.c: GPT-2's alphabet, in which each byte is a printable character --- */
/* Spells bytes in the alphabet; out holds 2 * bytes.n. Returns the length. */
size_t bytelevel_spell(struct str bytes, char *out);
/* Undoes it; characters outside the alphabet stay as they are. out holds text.n bytes. */
size_t bytelevel_decode(struct str text, char *out);

/* --- merge.c --- */
enum status merges_load(struct tokenizer *t, const struct gguf *g, struct err *err) MUST_USE;
/* Tokenizes one word (byte_level: raw bytes; else characters, blanks escaped), at most
 * LIMIT_TOKENIZE_WORD_BYTES long. */
void merge_word(const struct tokenizer *t, struct tokenize_scratch *s, struct str word,
                struct token_list *out);

/* --- pretoken.c --- */
/* Sets the flags of t that the pre-tokenizer implies. */
enum status pretoken_open(struct tokenizer *t, struct str name, struct err *err) MUST_USE;
void pretoken_close(struct pretoken *p);
typedef void word_fn(void *arg, struct str word);
/* Calls fn for each word of a valid UTF-8 text, in order; together they are the text. */
void pretoken_split(const struct pretoken *p, struct tokenize_scratch *s, struct str text, word_fn *fn,
                    void *arg);

/* --- special.c --- */
/* Calls fn(arg, text, TOKEN_NONE) for plain parts and fn(arg, text, id) for special tokens, in order.
 * Longer tokens win over shorter ones, then earlier over later; user-defined tokens count always,
 * the others only if parse_special. */
typedef void part_fn(void *arg, struct str text, u32 id);
void special_split(const struct tokenizer *t, struct tokenize_scratch *s, struct str text, bool parse_special,
                   part_fn *fn, void *arg);

/* --- wordpiece.c, unigram.c --- */
void wordpiece_tokenize(const struct tokenizer *t, struct tokenize_scratch *s, struct str text,
                        struct token_list *out);
enum status unigram_load(struct tokenizer *t, const struct gguf *g, struct err *err) MUST_USE;
void unigram_tokenize(const struct tokenizer *t, struct tokenize_scratch *s, struct str text,
                      struct token_list *out);

/* --- scratch --- */
struct symbol {
    u32 at, n; /* in the word; n == 0: merged into its left neighbour */
    u32 id;    /* TOKEN_NONE: no token (or, for SentencePiece, not looked up yet) */
    u32 prev, next;
};

struct heap_item {
    u64 key; /* order << 32 | index of the left symbol: smaller first */
    u32 id;  /* the merged token */
    u32 n;   /* length of both together: stale if it differs */
};

/* A word that this call of tokenize has merged already. 64 bytes. */
struct known_word {
    u32 call; /* of tokenize, counted; any other: the entry is empty */
    u8 n_text, n_ids;
    char text[34];
    u32 ids[6];
};

#define KNOWN_WORDS 1024u

struct special_match {
    u32 at, n, id;
};

struct best_path {
    f64 score;
    u32 from, id;
};

struct tokenize_scratch {
    struct known_word *known; /* [KNOWN_WORDS], by hash */
    u32 call;
    struct symbol *symbols;
    struct heap_item *heap;
    u32 cap_symbols, cap_heap, n_heap;
    struct special_match *matches;
    u32 n_matches, cap_matches;
    struct buf covered; /* one bit per byte of the text: inside an accepted match */
    struct buf text;    /* blanks escaped, or normalized */
    struct best_path *paths;
    size_t cap_paths;
    struct pretoken_scratch *pre;
};

#endif
