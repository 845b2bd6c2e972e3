/* grammar.h - what an answer may look like, as exact token masks.
 *
 * A grammar_part describes a set of texts: literals, JSON, JSON that follows a schema, and combinations. It
 * is compiled for one vocabulary into an automaton over bytes with a stack. A token is allowed iff all its
 * bytes keep the automaton alive and what follows can still be completed with tokens of this vocabulary, so
 * an answer never runs into a dead end. Everything that is produced under a schema is valid under it; of
 * several spellings of one value not all are produced (objects in property order, white space bounded,
 * numbers of bounded length).
 *
 * A compiled grammar is shared by all requests that have the same; its functions may be called from several
 * threads. What is allowed depends on the bytes so far only, never on what other requests did. */
#ifndef MINKA_GRAMMAR_H
#define MINKA_GRAMMAR_H

#include "tokenize/tokenize.h"

/* --- what is allowed --- */

enum grammar_kind {
    GRAMMAR_LITERAL, /* text, byte for byte */
    GRAMMAR_SPECIAL, /* the control token spelled text; like LITERAL if the vocabulary has none of that name
                      */
    GRAMMAR_BLANKS,  /* white space as JSON allows it: nothing, one blank, or line breaks and a bounded indent
                      */
    GRAMMAR_JSON,    /* any JSON object */
    GRAMMAR_SCHEMA,  /* a JSON value under the schema in text */
    GRAMMAR_SEQUENCE, /* parts[0 .. n_parts) one after the other */
    GRAMMAR_ANY_OF,   /* one of the parts */
    GRAMMAR_REPEAT,   /* parts[0], at least min times and at most max times (0: without end) */
    GRAMMAR_TEXT,     /* any text in which the literal text does not occur (empty: any text at all) */
    GRAMMAR_UNTIL, /* any text up to and with the first occurrence of text (not empty): a control token or a
                      literal */
};

/* Plain data; the compiled grammar keeps nothing of it. E.g. a call of one of two tools:
 *   SEQUENCE{ LITERAL "<tool_call>\n{\"name\": ",
 *             ANY_OF{ SEQUENCE{ LITERAL "\"add\", \"arguments\": ", SCHEMA "{...}" },
 *                     SEQUENCE{ LITERAL "\"sub\", \"arguments\": ", SCHEMA "{...}" } },
 *             LITERAL "}\n</tool_call>" } */
struct grammar_part {
    enum grammar_kind kind;
    struct str text;
    const struct grammar_part *parts;
    u32 n_parts;
    u32 min, max;
    /* SCHEMA: where it stands in the request, in front of the paths in messages; e.g.
     * "/tools/0/function/parameters" (empty: the schema is all there is). */
    struct str path;
};

/* --- a vocabulary, as masks need it; one per loaded model --- */
struct grammar_vocab;
/* t must outlive it. */
struct grammar_vocab *grammar_vocab_new(const struct tokenizer *t) MUST_USE;
void grammar_vocab_free(struct grammar_vocab *v);
u64 grammar_vocab_bytes(const struct grammar_vocab *v);

/* --- a compiled grammar --- */
struct grammar;
/* v must outlive it. ERR_INVALID: the schema is no JSON, contradicts itself, nothing can satisfy it, or
 * it has a keyword that cannot be honoured, named by its path ("schema keyword at /properties/a/not is not
 * supported"); ERR_TOO_LARGE: over a LIMIT_GRAMMAR_*. */
enum status grammar_compile(const struct grammar_vocab *v, const struct grammar_part *part,
                            struct grammar **out, struct err *err) MUST_USE;
void grammar_free(struct grammar *g);       /* no run of it may be left */
u64 grammar_bytes(const struct grammar *g); /* the most it ever holds */

/* The place of one answer in its grammar. A copy is a snapshot: copying and returning to a copy cost nothing.
 */
struct grammar_state;
struct grammar_run {
    struct grammar *g;
    struct grammar_state *state;
};
void grammar_run_start(struct grammar *g, struct grammar_run *r);
/* *to holds no run. Both are released in the end. */
void grammar_run_copy(const struct grammar_run *from, struct grammar_run *to);
void grammar_run_release(struct grammar_run *r); /* zeroed afterwards; a zeroed run is allowed */
/* Takes a token that the mask allows; false, with the run unchanged, for any other. End tokens change nothing
 * and are taken if the text is complete. */
bool grammar_run_accept(struct grammar_run *r, u32 token) MUST_USE;
/* Takes plain bytes (the rest of a token behind a marker). */
bool grammar_run_feed(struct grammar_run *r, struct str bytes) MUST_USE;
/* The text so far is one of the grammar's. */
bool grammar_run_complete(const struct grammar_run *r);
/* ... and nothing can follow: the answer is over. */
bool grammar_run_over(const struct grammar_run *r);
/* Sets the bits of all allowed tokens in mask [DIV_CEIL(n_vocab, 32)] (as sampler_pick takes it) and clears
 * the others. ERR_TOO_LARGE: the schema leaves more possibilities open here than can be followed.
 * ERR_INVALID: no token at all: the text is over, and the vocabulary has no end token. */
enum status grammar_run_mask(const struct grammar_run *r, u32 *mask, struct err *err) MUST_USE;

#endif
