/* tokenize.h - text to token ids and back, from the vocabulary of a GGUF file.
 *
 * Kinds: byte-level BPE (tokenizer.ggml.model "gpt2", pre-tokenizer by tokenizer.ggml.pre), SentencePiece
 * BPE ("llama"), WordPiece ("bert"), unigram ("t5"). A tokenizer is read-only after opening and may be
 * used by several threads, each with its own tokenize_scratch. */
#ifndef MINKA_TOKENIZE_H
#define MINKA_TOKENIZE_H

#include "base/buf.h"
#include "gguf/gguf.h"

#define TOKEN_NONE UINT32_MAX

struct tokenizer;

/* Copies what it needs: the file may be unmapped afterwards. ERR_UNSUPPORTED names the kind or the
 * pre-tokenizer that is not supported. */
enum status tokenizer_open(const struct gguf *g, struct tokenizer **out, struct err *err) MUST_USE;
void tokenizer_close(struct tokenizer *t);
u64 tokenizer_bytes(const struct tokenizer *t); /* memory it holds, for the ledger */

/* The ids of one file mean the same in the other: the same kind, texts and special ids; a list may be longer by
 * tokens of no use, which fill it up. ERR_INVALID says where they differ. */
enum status vocabularies_compare(const struct gguf *a, const struct gguf *b, struct err *err) MUST_USE;

struct token_list {
    u32 *ids;
    u32 n, cap;
};
void token_list_release(struct token_list *l);
void token_list_add(struct token_list *l, u32 id);

struct tokenize_scratch;
struct tokenize_scratch *tokenize_scratch_new(void) MUST_USE;
void tokenize_scratch_free(struct tokenize_scratch *s);

struct tokenize_options {
    bool parse_special; /* texts of control and user-defined tokens in the input become those tokens */
    bool add_special;   /* BOS in front, EOS behind, where the model asks for it */
};
/* Appends the ids of text (below 2 GiB) to out. Any bytes are allowed: invalid UTF-8 goes through the byte
 * tokens, and becomes U+FFFD where a vocabulary has none for it. */
void tokenize(const struct tokenizer *t, struct tokenize_scratch *s, struct str text,
              struct tokenize_options o, struct token_list *out);

/* --- facts of the vocabulary --- */
u32 tokenizer_n_vocab(const struct tokenizer *t);
u32 tokenizer_bos(const struct tokenizer *t); /* TOKEN_NONE if the model has none; eos, eot too */
u32 tokenizer_eos(const struct tokenizer *t);
bool tokenizer_adds_bos(const struct tokenizer *t);
/* A token that ends generation: eos, eot, eom and the well-known end texts (<|im_end|>, <|eot_id|>,
 * <end_of_turn>, ...). */
bool tokenizer_is_end(const struct tokenizer *t, u32 id);
bool tokenizer_is_control(const struct tokenizer *t, u32 id);
/* The bytes that a token stands for in running text, decoded (byte-level alphabet undone, SentencePiece's
 * U+2581 as a blank); special: control tokens give their text, else nothing. Valid while t lives. */
struct str tokenizer_bytes_of(const struct tokenizer *t, u32 id, bool special);
/* The vocabulary's own spelling, e.g. "Ġthe". */
struct str tokenizer_text_of(const struct tokenizer *t, u32 id);
u32 tokenizer_find(const struct tokenizer *t, struct str text); /* by own spelling; TOKEN_NONE */
/* Appends the bytes of a list of ids (SentencePiece: the blank that encoding put in front is removed). */
void detokenize(const struct tokenizer *t, const u32 *ids, u32 n, bool special, struct buf *out);

#endif
