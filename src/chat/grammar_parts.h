/* grammar_parts.h - what the files of the grammar share: the automaton, its builder, the vocabulary's tries.
 *
 * The way of a schema: grammar_schema.c (which schemas hold together for a value; rules) -> grammar_merge.c
 * (what they say in sum) -> grammar_object.c, grammar_string.c, grammar_number.c (texts of one type) ->
 * grammar_build.c (nodes and edges) -> grammar_run.c (states while an answer grows) -> grammar_mask.c
 * (tokens). */
#ifndef MINKA_GRAMMAR_PARTS_H
#define MINKA_GRAMMAR_PARTS_H

#include "base/arena.h"
#include "base/limit.h"
#include "chat/grammar.h"

/* --- the automaton: a graph of nodes; CALL and LOOP put their return on a stack --- */

enum node_kind {
    NODE_END,   /* of a rule or a loop's body: back to what is on the stack */
    NODE_BYTES, /* edges take a byte each */
    NODE_SPLIT, /* edges take nothing */
    NODE_CALL,  /* body up to its END, then next */
    NODE_LOOP,  /* body up to its END, min to max times, then next; a body takes at least one byte */
    NODE_TOKEN, /* the control token `body`, then next */
};

#define NODE_NONE UINT32_MAX
#define NODE_THE_END 0u
#define NEED_DEAD 255u

struct node {
    u8 kind;
    /* BYTES: every ordinary character of a JSON string (those without " and \ from U+0020 on) leads back
     * here; or to END, for the body of a loop that counts characters. */
    bool plain_star, plain_one;
    /* LOOP: behind it follows a plain_star. */
    bool then_star;
    /* Calls that must still fit on the stack to get from here to END; NEED_DEAD: there is no way. The second
     * by bytes that are tokens of their own: a way that every vocabulary of these tokens can go. */
    u8 need, need_single;
    u32 edge; /* BYTES, SPLIT: first of a list; else NODE_NONE */
    u32 body, next;
    u32 min, max;
};

struct edge {
    u32 to;
    u32 rest; /* of the list; NODE_NONE */
    u8 lo, hi;
};

struct automaton {
    struct node *nodes;
    struct edge *edges;
    u32 n_nodes, cap_nodes, n_edges, cap_edges;
    u32 start;
    u8 class_of[256]; /* bytes that no edge tells apart are of one class */
    u32 n_classes;
};

/* --- grammar_build.c: nodes are made from the end to the beginning: each function takes where to go on and
 * returns where to begin. Over LIMIT_GRAMMAR_* `full` is set and the result is of no use. --- */

struct build {
    struct automaton a;
    struct arena *arena;
    const struct grammar_vocab *vocab;
    bool full;
    u32 string, number, value, object; /* rules that every schema may use; NODE_NONE until the first use */
    u32 one_char;                      /* the body of loops that count characters */
    u32 n_merges;                      /* work that the schemas so far took, all of a grammar's together */
    u64 n_compared;
    u32 tail_to, tails[3]; /* the last target of continuation bytes, and the ways there */
};

void build_init(struct build *b, struct arena *arena, const struct grammar_vocab *v);
void build_release(struct build *b);
/* Checks the limits, prunes dead ends, finds classes of bytes. */
enum status build_finish(struct build *b, u32 start, struct err *err) MUST_USE;

u32 build_node(struct build *b, enum node_kind kind);
void build_edge(struct build *b, u32 from, u8 lo, u8 hi, u32 to); /* from: BYTES */
void build_empty(struct build *b, u32 from, u32 to);              /* from: SPLIT */
/* Any of these code points (surrogates are left out) as UTF-8; from: BYTES. */
void build_code_points(struct build *b, u32 from, u32 lo, u32 hi, u32 to);
u32 build_byte(struct build *b, u8 lo, u8 hi, u32 to);
u32 build_literal(struct build *b, struct str text, u32 to);
/* One of the texts; common beginnings are shared. Sorts the array. */
u32 build_literals(struct build *b, struct str *texts, u32 n, u32 to);
u32 build_either(struct build *b, u32 x, u32 y);
u32 build_call(struct build *b, u32 body, u32 to);
u32 build_token(struct build *b, u32 token, u32 to);
/* body: a rule of its own that takes at least one byte. max UINT32_MAX: no end. */
u32 build_loop(struct build *b, u32 body, u32 min, u32 max, u32 to);

/* --- grammar_json.c --- */
u32 build_blanks(struct build *b, u32 to);
/* A JSON string of min..max characters, quotes included. */
u32 build_string(struct build *b, u64 min, u64 max, u32 to);
u32 build_any_number(struct build *b, u32 to);
u32 build_any_value(struct build *b, u32 to);
u32 build_any_object(struct build *b, u32 to);
u32 build_colon(struct build *b, u32 to); /* and at most one blank */
/* Any bytes up to and with the first occurrence of text; with open_end: any without it, text may be empty. */
u32 build_until(struct build *b, struct str text, bool open_end, u32 to);

/* --- grammar_schema.c --- */
enum status build_schema(struct build *b, struct str text, struct str path, u32 to, u32 *start,
                         struct err *err) MUST_USE;

/* --- grammar_vocab.c: tokens sorted by their bytes, as a trie in preorder --- */

struct vocab_node {
    u32 skip;  /* index behind the last descendant */
    u32 token; /* TOKEN_NONE: none ends here; more of the same bytes follow in vocab->same */
    u16 depth; /* of this byte in the token, from 1 */
    u8 byte;
    /* The bytes so far are whole characters, and all tokens below go on with ordinary characters of a JSON
     * string. */
    bool plain_below;
};

struct vocab_trie {
    struct vocab_node *nodes; /* [n] */
    u32 n, cap;
};

/* Ordinary tokens: whole characters that a JSON string holds as they are, by the number of characters; those
 * of more are in the last. */
#define VOCAB_PLAIN_MAX 32u

struct grammar_vocab {
    const struct tokenizer *t;
    u32 n_vocab, n_words;            /* n_words: of a mask */
    struct vocab_trie all, odd;      /* odd: what is not plain */
    u32 *same;                       /* [n_vocab] next token with the same bytes; TOKEN_NONE */
    u32 *plain[VOCAB_PLAIN_MAX + 1]; /* [n]: mask of plain tokens of at most n characters; the last: of all */
    u32 plain_chars_max;
    u32 *ends; /* [n_ends] */
    u32 n_ends;
    bool single[256]; /* bytes that are a token */
    u32 bytes_max;    /* of a token */
};

/* --- grammar_run.c: states of the automaton while texts grow, found when they are needed --- */

/* What a call or a loop returns to. */
struct frame {
    u32 node;   /* of a call: where it goes on; of a loop: itself */
    u32 count;  /* of a loop: bodies begun, the open one too; 0: a call */
    u32 parent; /* FRAME_NONE: none */
    u8 depth;
    bool single; /* can be left by bytes that are tokens of their own */
    bool marked;
};
#define FRAME_NONE UINT32_MAX

struct place {
    u32 node, frame;
};

/* All places that the text so far can be at. */
struct grammar_state {
    u64 hash;
    struct grammar_state *chain;
    struct place *places; /* [n_places] BYTES and TOKEN nodes, sorted */
    u32 n_places;
    u32 pins;      /* runs that stand here */
    bool complete; /* the text may end here */
    bool single;   /* complete, or can be completed by bytes that are tokens of their own */
    bool star;     /* ordinary characters of a JSON string lead back to one of its places */
    bool marked;
    u32 *mask;                    /* NULL: not kept */
    struct grammar_state *next[]; /* [n_classes] NULL: not known yet */
};

struct state_set;

struct grammar {
    struct automaton a;
    const struct grammar_vocab *v;
    struct state_set *set;
};

struct grammar *grammar_new(const struct automaton *a,
                            const struct grammar_vocab *v) MUST_USE; /* takes a's memory */
/* grammar_run_start; false if there are more than LIMIT_GRAMMAR_PLACES to start at. */
bool grammar_run_try(struct grammar *g, struct grammar_run *r) MUST_USE;
/* One thread at a time; states may only be used in between. */
void states_lock(struct grammar *g);
void states_unlock(struct grammar *g);
/* States that must survive while a text is tried: path[0 .. n) of at least bytes_max + 1 entries. */
struct grammar_state **states_path(struct grammar *g);
void states_keep(struct grammar *g, u32 n);
/* Where a byte or a control token leads; s is in the path. NULL: nowhere. *full is set (never cleared) if
 * there are more places than LIMIT_GRAMMAR_PLACES; the result is NULL then. */
struct grammar_state *state_after(struct grammar *g, struct grammar_state *s, u8 byte, bool *full);
struct grammar_state *state_after_token(struct grammar *g, struct grammar_state *s, u32 token, bool *full);
bool place_is_single(const struct grammar *g, const struct place *p);
const struct frame *place_frame(const struct grammar *g, const struct place *p); /* NULL: none */
/* Keeps a mask with the state while there is room. */
void state_keep_mask(struct grammar *g, struct grammar_state *s, const u32 *mask);

#endif
