/* special.c - finds control and user-defined tokens in a text.
 *
 * All places where one could stand are gathered in one walk over the text. Where they overlap, longer
 * ones are placed first, then earlier ones; what then lies on an occupied byte is dropped. Since no later
 * one is longer than an earlier one, looking at its two ends is enough. */
#include <stdlib.h>

#include "tokenize/internal.h"

/* So many matches are settled at once; a text needs more only if it is made of overlapping tokens. */
#define MATCHES_MAX (1u << 20)

static void match_add(struct tokenize_scratch *s, struct special_match m) {
    if (s->n_matches == s->cap_matches) {
        s->cap_matches = MAX(64, 2 * s->cap_matches);
        s->matches = xrealloc(s->matches, s->cap_matches * sizeof *s->matches);
    }
    s->matches[s->n_matches++] = m;
}

/* Gathers the matches that begin in text from `at` on; returns where it stopped. */
static size_t matches_gather(const struct tokenizer *t, struct tokenize_scratch *s, struct str text,
                             size_t at, bool parse_special) {
    u8 wanted = parse_special ? ATTR_USER | ATTR_CONTROL | ATTR_UNKNOWN : ATTR_USER;
    u8 unwanted = parse_special ? 0 : ATTR_CONTROL | ATTR_UNKNOWN;
    s->n_matches = 0;
    for (; at < text.n && s->n_matches < MATCHES_MAX; at++) {
        u32 node = trie_child(&t->special, TRIE_ROOT, (u8)text.p[at]);
        for (size_t end = at + 1; node; end++) {
            u32 id = t->special.values[node];
            if (id != TRIE_NONE && t->tokens[id].attr & wanted && !(t->tokens[id].attr & unwanted))
                match_add(s, (struct special_match){(u32)at, (u32)(end - at), id});
            if (end == text.n)
                break;
            node = trie_child(&t->special, node, (u8)text.p[end]);
        }
    }
    return at;
}

static int by_length(const void *a, const void *b) {
    const struct special_match *x = a, *y = b;
    if (x->n != y->n)
        return x->n > y->n ? -1 : 1;
    return x->at < y->at ? -1 : x->at > y->at;
}

static int by_place(const void *a, const void *b) {
    const struct special_match *x = a, *y = b;
    return x->at < y->at ? -1 : x->at > y->at;
}

/* Keeps the matches that win, ordered by place. */
static void matches_settle(struct tokenize_scratch *s, size_t text_n) {
    u32 n = 0;
    bool overlap = false;
    for (u32 i = 1; i < s->n_matches && !overlap; i++)
        overlap = s->matches[i].at < s->matches[i - 1].at + s->matches[i - 1].n;
    if (!overlap)
        return; /* gathered in order of place */
    buf_clear(&s->covered);
    buf_reserve(&s->covered, text_n / 8 + 1);
    memset(s->covered.p, 0, text_n / 8 + 1);
    u8 *covered = (u8 *)s->covered.p;
    qsort(s->matches, s->n_matches, sizeof *s->matches, by_length);
    for (u32 i = 0; i < s->n_matches; i++) {
        struct special_match m = s->matches[i];
        size_t last = (size_t)m.at + m.n - 1;
        if (covered[m.at / 8] >> (m.at % 8) & 1 || covered[last / 8] >> (last % 8) & 1)
            continue;
        for (size_t k = m.at; k <= last; k++)
            covered[k / 8] |= (u8)(1 << (k % 8));
        s->matches[n++] = m;
    }
    s->n_matches = n;
    qsort(s->matches, s->n_matches, sizeof *s->matches, by_place);
}

static bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

void special_split(const struct tokenizer *t, struct tokenize_scratch *s, struct str text, bool parse_special,
                   part_fn *fn, void *arg) {
    size_t done = 0, at = 0; /* emitted up to; gathered up to */
    while (at < text.n) {
        at = matches_gather(t, s, text, at, parse_special);
        matches_settle(s, text.n);
        for (u32 i = 0; i < s->n_matches; i++) {
            struct special_match m = s->matches[i];
            if (m.at < done)
                continue; /* white space that the one before has taken, or a new batch's overlap */
            size_t end = m.at;
            if (t->tokens[m.id].attr & ATTR_LSTRIP)
                while (end > done && is_space(text.p[end - 1]))
                    end--;
            if (end > done)
                fn(arg, str_slice(text, done, end), TOKEN_NONE);
            fn(arg, str_slice(text, m.at, (size_t)m.at + m.n), m.id);
            done = (size_t)m.at + m.n;
            if (t->tokens[m.id].attr & ATTR_RSTRIP)
                while (done < text.n && is_space(text.p[done]))
                    done++;
        }
        at = MAX(at, done);
    }
    if (done < text.n)
        fn(arg, str_slice(text, done, text.n), TOKEN_NONE);
}
