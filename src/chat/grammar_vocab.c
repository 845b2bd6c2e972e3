/* grammar_vocab.c - the vocabulary as masks need it: two tries in preorder, so that a walk is one pass over
 * an array that skips subtrees, and ready masks of the tokens that a JSON string takes as they are. */
#include <stdlib.h>

#include "chat/grammar_parts.h"

struct entry {
    struct str bytes;
    u32 id;
    bool plain;
};

static int entry_order(const void *x, const void *y) {
    const struct entry *a = x, *b = y;
    size_t n = MIN(a->bytes.n, b->bytes.n);
    int order = memcmp(a->bytes.p, b->bytes.p, n);
    if (!order)
        order = (a->bytes.n > b->bytes.n) - (a->bytes.n < b->bytes.n);
    return order ? order : (a->id > b->id) - (a->id < b->id);
}

static void trie_push(struct vocab_trie *t, u8 byte, u16 depth) {
    if (t->n == t->cap) {
        t->cap = t->cap ? t->cap + t->cap / 2 : 4096;
        t->nodes = xrealloc(t->nodes, t->cap * sizeof *t->nodes);
    }
    t->nodes[t->n++] = (struct vocab_node){.token = TOKEN_NONE, .depth = depth, .byte = byte};
}

/* Sorted entries; those that are plain only if with_plain. */
static void trie_fill(struct vocab_trie *t, struct grammar_vocab *v, const struct entry *e, u32 n,
                      bool with_plain) {
    u32 *path = xmalloc((v->bytes_max + 1) * sizeof *path); /* nodes from the root to the last one */
    struct str last = STR_NONE;
    u32 depth = 0;
    for (u32 i = 0; i < n; i++) {
        if (e[i].plain && !with_plain)
            continue;
        u32 same = 0;
        while (same < last.n && same < e[i].bytes.n && last.p[same] == e[i].bytes.p[same])
            same++;
        while (depth > same)
            t->nodes[path[depth--]].skip = t->n;
        while (depth < e[i].bytes.n) {
            u8 byte = (u8)e[i].bytes.p[depth++];
            path[depth] = t->n;
            trie_push(t, byte, (u16)depth);
        }
        struct vocab_node *node = &t->nodes[path[depth]];
        if (with_plain)
            v->same[e[i].id] = node->token;
        node->token = e[i].id;
        last = e[i].bytes;
    }
    while (depth > 0)
        t->nodes[path[depth--]].skip = t->n;
    free(path);
    t->nodes = xrealloc(t->nodes, MAX(t->n, 1u) * sizeof *t->nodes);
    t->cap = t->n;
}

/* A node is bad if its byte is no part of an ordinary character, or a token ends in the middle of one: below
 * others there must be none. bad [n + 1] counts them in front of a node; whole [n]: the bytes so far are
 * whole characters. */
static void find_plain_below(struct vocab_trie *t, u32 bytes_max) {
    u32 *bad = xmalloc((t->n + 1) * sizeof *bad), *valid = xcalloc(bytes_max + 1, sizeof *valid);
    bool *whole = xmalloc((t->n + 1) * sizeof *whole);
    char *bytes = xmalloc(bytes_max + 1);
    bad[0] = 0;
    for (u32 i = 0; i < t->n; i++) {
        const struct vocab_node *node = &t->nodes[i];
        u32 depth = node->depth, code;
        bytes[depth - 1] = (char)node->byte;
        /* valid[depth]: bytes of whole characters among the first `depth`; the rest is the begin of one, or
         * wrong. */
        struct str rest = {bytes + valid[depth - 1], depth - valid[depth - 1]};
        whole[i] = utf8_decode(rest, 0, &code) == rest.n;
        valid[depth] = whole[i] ? depth : valid[depth - 1];
        bool ordinary = node->byte >= 0x20 && node->byte != '"' && node->byte != '\\';
        bool possible = whole[i] || utf8_complete_len(rest) == 0;
        bad[i + 1] = bad[i] + !(ordinary && possible && (whole[i] || node->token == TOKEN_NONE));
    }
    for (u32 i = 0; i < t->n; i++)
        t->nodes[i].plain_below = whole[i] && bad[t->nodes[i].skip] == bad[i + 1];
    free(bad);
    free(valid);
    free(whole);
    free(bytes);
}

/* Characters of a token that is plain; 0 for any other. */
static u32 plain_chars(struct str bytes) {
    u32 n = 0, code;
    for (size_t at = 0; at < bytes.n; n++) {
        u32 len = utf8_decode(bytes, at, &code);
        if (len == 0 || code < 0x20 || code == '"' || code == '\\')
            return 0;
        at += len;
    }
    return n;
}

static void plain_masks(struct grammar_vocab *v, const struct entry *e, u32 n) {
    for (u32 k = 0; k <= VOCAB_PLAIN_MAX; k++)
        v->plain[k] = xcalloc(v->n_words, sizeof(u32));
    for (u32 i = 0; i < n; i++) {
        u32 chars = plain_chars(e[i].bytes);
        v->plain_chars_max = MAX(v->plain_chars_max, chars);
        for (u32 k = MIN(chars, VOCAB_PLAIN_MAX); chars && k <= VOCAB_PLAIN_MAX; k++)
            v->plain[k][e[i].id / 32] |= 1u << (e[i].id % 32);
    }
}

/* Tokens that stand for text; control and end tokens are none of them. */
static u32 take_entries(struct grammar_vocab *v, struct entry *e) {
    u32 n = 0;
    for (u32 id = 0; id < v->n_vocab; id++) {
        struct str bytes = tokenizer_bytes_of(v->t, id, false);
        if (tokenizer_is_end(v->t, id)) {
            v->ends[v->n_ends++] = id;
            continue;
        }
        if (bytes.n == 0)
            continue;
        if (bytes.n == 1)
            v->single[(u8)bytes.p[0]] = true;
        v->bytes_max = MAX(v->bytes_max, (u32)bytes.n);
        e[n++] = (struct entry){bytes, id, plain_chars(bytes) > 0};
    }
    return n;
}

struct grammar_vocab *grammar_vocab_new(const struct tokenizer *t) {
    struct grammar_vocab *v = xcalloc(1, sizeof *v);
    v->t = t;
    v->n_vocab = tokenizer_n_vocab(t);
    v->n_words = DIV_CEIL(v->n_vocab, 32u);
    v->ends = xmalloc(v->n_vocab * sizeof *v->ends);
    v->same = xmalloc(v->n_vocab * sizeof *v->same);
    struct entry *e = xmalloc(v->n_vocab * sizeof *e);
    u32 n = take_entries(v, e);
    if (n)
        qsort(e, n, sizeof *e, entry_order);
    v->ends = xrealloc(v->ends, v->n_ends * sizeof *v->ends);
    trie_fill(&v->all, v, e, n, true);
    trie_fill(&v->odd, v, e, n, false);
    find_plain_below(&v->all, v->bytes_max);
    plain_masks(v, e, n);
    free(e);
    return v;
}

void grammar_vocab_free(struct grammar_vocab *v) {
    if (!v)
        return;
    free(v->all.nodes);
    free(v->odd.nodes);
    free(v->same);
    free(v->ends);
    for (u32 k = 0; k <= VOCAB_PLAIN_MAX; k++)
        free(v->plain[k]);
    free(v);
}

u64 grammar_vocab_bytes(const struct grammar_vocab *v) {
    return sizeof *v + (v->all.cap + v->odd.cap) * sizeof *v->all.nodes + (u64)v->n_vocab * sizeof *v->same +
           (VOCAB_PLAIN_MAX + 1ull) * v->n_words * sizeof(u32);
}
