/* grammar_pattern.c - strings that match several patterns at once (or must not), with a length: the subset
 * construction over all their automata together makes one deterministic automaton, which becomes nodes.
 *
 * A pattern that has matched stays so, whatever follows: then only its MATCH is kept. */
#include <stdlib.h>

#include "chat/grammar_schema.h"

#define INTERVALS_MAX 1024u
#define CHAINS 1024u

/* Nodes of all patterns that a text can be at, sorted; and its length so far, where that matters. */
struct dfa_state {
    u32 at, n; /* in dfa.pool */
    u32 length;
    u32 chain; /* index + 1 */
    bool accept;
};

struct dfa {
    struct arena *arena;
    struct regex_nodes nodes;
    u32 *first; /* [n_patterns + 1] nodes of pattern i are first[i] .. first[i + 1] */
    u32 *start; /* [n_patterns] */
    bool *negate;
    u32 n_patterns;
    u64 min, max; /* length */

    u32 intervals[INTERVALS_MAX + 1]; /* code points where they begin; the last is behind the end */
    u32 n_intervals;

    struct dfa_state *states;
    u32 *next; /* [n_states][n_intervals] UINT32_MAX: nowhere */
    u32 n_states, cap_states;
    u32 *pool;
    u32 n_pool, cap_pool;
    u32 chains[CHAINS];

    /* the set under construction */
    bool *in; /* [nodes.n] */
    u32 *set, *todo;
    u32 n_set, n_todo;
};

/* --- sets of nodes --- */

static void set_begin(struct dfa *d) {
    for (u32 i = 0; i < d->n_set; i++)
        d->in[d->set[i]] = false;
    d->n_set = d->n_todo = 0;
}

static void set_add(struct dfa *d, u32 node) {
    if (d->in[node])
        return;
    d->in[node] = true;
    d->set[d->n_set++] = node;
    d->todo[d->n_todo++] = node;
}

/* Adds what is reached without a character. */
static void set_close(struct dfa *d, bool at_begin, bool at_end) {
    while (d->n_todo) {
        const struct regex_node *n = &d->nodes.list[d->todo[--d->n_todo]];
        switch (n->kind) {
        case REGEX_SPLIT:
            set_add(d, n->next);
            set_add(d, n->other);
            break;
        case REGEX_BEGIN:
            if (at_begin)
                set_add(d, n->next);
            break;
        case REGEX_END:
            if (at_end)
                set_add(d, n->next);
            break;
        case REGEX_SET:
        case REGEX_MATCH: break;
        }
    }
}

static bool set_holds(const struct regex_node *n, u32 code) {
    u32 lo = 0, hi = n->n_ranges;
    while (lo < hi) {
        u32 mid = (lo + hi) / 2;
        if (n->ranges[mid].hi < code)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < n->n_ranges && n->ranges[lo].lo <= code;
}

static u32 pattern_of(const struct dfa *d, u32 node) {
    u32 i = 0;
    while (node >= d->first[i + 1])
        i++;
    return i;
}

/* Which patterns have matched; matched [n_patterns]. */
static void find_matched(const struct dfa *d, bool *matched) {
    memset(matched, 0, d->n_patterns * sizeof *matched);
    for (u32 i = 0; i < d->n_set; i++)
        if (d->nodes.list[d->set[i]].kind == REGEX_MATCH)
            matched[pattern_of(d, d->set[i])] = true;
}

static int index_order(const void *x, const void *y) {
    u32 a = *(const u32 *)x, b = *(const u32 *)y;
    return (a > b) - (a < b);
}

/* Keeps of the set what tells states apart, sorted. False if no text from here can be accepted. */
static bool set_reduce(struct dfa *d, bool *matched, bool *alive) {
    u32 n = 0;
    find_matched(d, matched);
    memset(alive, 0, d->n_patterns * sizeof *alive);
    for (u32 i = 0; i < d->n_set; i++) {
        u32 node = d->set[i], p = pattern_of(d, node);
        enum regex_kind kind = d->nodes.list[node].kind;
        bool keep = matched[p] ? kind == REGEX_MATCH : kind == REGEX_SET || kind == REGEX_END;
        alive[p] |= keep;
        if (keep)
            d->set[n++] = node;
        else
            d->in[node] = false;
    }
    d->n_set = n;
    if (n)
        qsort(d->set, n, sizeof *d->set, index_order);
    for (u32 p = 0; p < d->n_patterns; p++)
        if (d->negate[p] ? matched[p] : !alive[p])
            return false;
    return true;
}

/* The set of nodes behind one more character. */
static void set_step(struct dfa *d, const u32 *from, u32 n, u32 code) {
    set_begin(d);
    for (u32 i = 0; i < n; i++) {
        const struct regex_node *node = &d->nodes.list[from[i]];
        if (node->kind == REGEX_MATCH)
            set_add(d, from[i]);
        else if (node->kind == REGEX_SET && set_holds(node, code))
            set_add(d, node->next);
    }
    set_close(d, false, false);
}

/* A text that ends at these nodes is accepted, its length aside. */
static bool set_accepts(struct dfa *d, const u32 *from, u32 n, bool at_begin, bool *matched) {
    set_begin(d);
    for (u32 i = 0; i < n; i++)
        set_add(d, from[i]);
    set_close(d, at_begin, true);
    find_matched(d, matched);
    for (u32 p = 0; p < d->n_patterns; p++)
        if (matched[p] == d->negate[p])
            return false;
    return true;
}

/* --- states --- */

/* The state of the set; UINT32_MAX if it cannot be accepted. */
static u32 state_of_set(struct dfa *d, u64 length) {
    bool *matched = xmalloc(2 * d->n_patterns * sizeof *matched);
    u32 found = UINT32_MAX;
    bool alive = set_reduce(d, matched, matched + d->n_patterns) && length <= d->max;
    if (d->max == UINT64_MAX)
        length = MIN(length, d->min);
    u64 hash = hash_bytes(d->set, d->n_set * sizeof *d->set, length);
    for (u32 i = alive ? d->chains[hash % CHAINS] : 0; i && found == UINT32_MAX; i = d->states[i - 1].chain) {
        const struct dfa_state *s = &d->states[i - 1];
        if (s->n == d->n_set && s->length == length &&
            (s->n == 0 || memcmp(d->pool + s->at, d->set, s->n * sizeof *d->set) == 0))
            found = i - 1;
    }
    if (alive && found == UINT32_MAX) {
        if (d->n_pool + d->n_set > d->cap_pool) {
            d->cap_pool = 2 * d->cap_pool + d->n_set;
            d->pool = xrealloc(d->pool, d->cap_pool * sizeof *d->pool);
        }
        if (d->n_states == d->cap_states) {
            d->cap_states = 2 * d->cap_states + 16;
            d->states = xrealloc(d->states, d->cap_states * sizeof *d->states);
            d->next = xrealloc(d->next, (size_t)d->cap_states * d->n_intervals * sizeof *d->next);
        }
        struct dfa_state s = {d->n_pool, d->n_set, (u32)length, d->chains[hash % CHAINS], false};
        if (s.n)
            memcpy(d->pool + s.at, d->set, s.n * sizeof *d->set);
        d->n_pool += s.n;
        s.accept = length >= d->min && set_accepts(d, d->pool + s.at, s.n, d->n_states == 0, matched);
        found = d->n_states++;
        d->states[found] = s;
        d->chains[hash % CHAINS] = found + 1;
    }
    free(matched);
    return found;
}

/* All states reached from the empty text, in the order they are found; false if they are too many. */
static bool states_find(struct dfa *d) {
    set_begin(d);
    for (u32 p = 0; p < d->n_patterns; p++)
        set_add(d, d->start[p]);
    set_close(d, true, false);
    if (state_of_set(d, 0) == UINT32_MAX)
        return true;
    for (u32 i = 0; i < d->n_states; i++) {
        u32 *from = xmalloc((d->states[i].n + 1) * sizeof *from), n = d->states[i].n;
        memcpy(from, d->pool + d->states[i].at, n * sizeof *from);
        for (u32 k = 0; k < d->n_intervals && d->n_states <= LIMIT_PATTERN_STATES; k++) {
            set_step(d, from, n, d->intervals[k]);
            u32 to = state_of_set(d, (u64)d->states[i].length + 1);
            d->next[(size_t)i * d->n_intervals + k] = to;
        }
        free(from);
        if (d->n_states > LIMIT_PATTERN_STATES)
            return false;
    }
    return true;
}

/* Where sets of code points begin and end; false if that is too often. */
static bool intervals_find(struct dfa *d) {
    u32 n = 0, cap = 256, *cut = xmalloc(cap * sizeof *cut);
    cut[n++] = 0;
    cut[n++] = 0x110000;
    for (u32 i = 0; i < d->nodes.n; i++)
        for (u32 k = 0; d->nodes.list[i].kind == REGEX_SET && k < d->nodes.list[i].n_ranges; k++) {
            if (n + 2 > cap) {
                cap *= 2;
                cut = xrealloc(cut, cap * sizeof *cut);
            }
            cut[n++] = d->nodes.list[i].ranges[k].lo;
            cut[n++] = d->nodes.list[i].ranges[k].hi + 1;
        }
    qsort(cut, n, sizeof *cut, index_order);
    d->n_intervals = 0;
    bool fits = true;
    for (u32 i = 0; i < n && fits; i++) {
        if (i && cut[i] == cut[i - 1])
            continue;
        fits = d->n_intervals <= INTERVALS_MAX;
        if (fits)
            d->intervals[d->n_intervals++] = cut[i];
    }
    d->n_intervals--; /* the last is the end */
    free(cut);
    return fits;
}

/* --- patterns in --- */

/* A pattern of plain texts: just these. */
static u32 names_build(struct dfa *d, const struct str *names, u32 n_names) {
    u32 match = regex_add(d->arena, &d->nodes, (struct regex_node){.kind = REGEX_MATCH});
    u32 start = regex_add(d->arena, &d->nodes, (struct regex_node){.kind = REGEX_END, .next = match});
    u32 end = start;
    for (u32 i = 0; i < n_names; i++) {
        struct code_range *codes = ARENA_ARRAY(d->arena, struct code_range, names[i].n + 1);
        u32 n = 0, at_node = end;
        for (size_t at = 0; at < names[i].n; n++) {
            u32 code, len = utf8_decode(names[i], at, &code);
            codes[n] = (struct code_range){code, code};
            at += MAX(len, 1u);
        }
        while (n-- > 0)
            at_node =
                regex_add(d->arena, &d->nodes, (struct regex_node){REGEX_SET, at_node, 0, &codes[n], 1});
        start = i ? regex_add(d->arena, &d->nodes,
                              (struct regex_node){.kind = REGEX_SPLIT, .next = at_node, .other = start})
                  : at_node;
    }
    return regex_add(d->arena, &d->nodes, (struct regex_node){.kind = REGEX_BEGIN, .next = start});
}

static enum status dfa_open(struct dfa *d, struct schema *c, const struct patterns *p,
                            const struct str *names, u32 n_names, struct err *err) {
    u32 n = p->n + (n_names > 0);
    d->arena = c->arena;
    d->first = ARENA_ARRAY(c->arena, u32, n + 1);
    d->start = ARENA_ARRAY(c->arena, u32, n + 1);
    d->negate = ARENA_ARRAY(c->arena, bool, n + 1);
    for (u32 i = 0; i < p->n; i++) {
        d->first[i] = d->nodes.n;
        d->negate[i] = p->list[i].negate;
        TRY(regex_build(c->arena, &p->list[i], &d->nodes, &d->start[i], err));
    }
    if (n_names) {
        d->first[p->n] = d->nodes.n;
        d->negate[p->n] = true;
        d->start[p->n] = names_build(d, names, n_names);
    }
    d->n_patterns = n;
    d->first[n] = d->nodes.n;
    d->in = xcalloc(d->nodes.n, sizeof *d->in);
    d->set = xmalloc(d->nodes.n * sizeof *d->set);
    d->todo = xmalloc(d->nodes.n * sizeof *d->todo);
    /* Time is bounded over all patterns of a schema. */
    c->n_merges += d->nodes.n / 16;
    if (c->n_merges > LIMIT_GRAMMAR_MERGES)
        return err_set(err, ERR_TOO_LARGE, "the schema has too many patterns");
    return OK;
}

static void dfa_close(struct dfa *d) {
    free(d->states);
    free(d->next);
    free(d->pool);
    free(d->in);
    free(d->set);
    free(d->todo);
}

/* --- nodes out --- */

/* The characters lo..hi as a string holds them: themselves, or with a backslash; of the control characters
 * only those that have a short form. *escape is made when it is needed. */
static void emit_range(struct build *b, u32 node, u32 *escape, u32 lo, u32 hi, u32 to) {
    static const struct {
        u8 code, letter;
    } escapes[] = {{'\b', 'b'}, {'\t', 't'}, {'\n', 'n'}, {'\f', 'f'}, {'\r', 'r'}, {'"', '"'}, {'\\', '\\'}};
    for (u32 i = 0; i < ARRAY_LEN(escapes); i++) {
        if (escapes[i].code < lo || escapes[i].code > hi)
            continue;
        if (*escape == NODE_NONE) {
            *escape = build_node(b, NODE_BYTES);
            build_edge(b, node, '\\', '\\', *escape);
        }
        build_edge(b, *escape, escapes[i].letter, escapes[i].letter, to);
    }
    build_code_points(b, node, MAX(lo, 0x20u), MIN(hi, 0x21u), to);
    build_code_points(b, node, MAX(lo, 0x23u), MIN(hi, 0x5bu), to);
    build_code_points(b, node, MAX(lo, 0x5du), hi, to);
}

static void emit_state(struct build *b, const struct dfa *d, const u32 *node_of, u32 i, u32 to) {
    const u32 *next = d->next + (size_t)i * d->n_intervals;
    u32 escape = NODE_NONE;
    bool star = true;
    for (u32 k = 0, n; k < d->n_intervals && !b->full; k = n) {
        for (n = k + 1; n < d->n_intervals && next[n] == next[k]; n++)
            continue;
        star &= next[k] == i || d->intervals[n] <= 0x20;
        if (next[k] != UINT32_MAX)
            emit_range(b, node_of[i], &escape, d->intervals[k], d->intervals[n] - 1, node_of[next[k]]);
    }
    if (d->states[i].accept)
        build_edge(b, node_of[i], '"', '"', to);
    b->a.nodes[node_of[i]].plain_star = star;
}

static enum status too_large(const struct patterns *p, struct err *err) {
    if (p->n == 0)
        return err_set(err, ERR_TOO_LARGE,
                       "the schema has too many property names beside additionalProperties");
    return err_set(
        err, ERR_INVALID,
        "schema keyword at %.*s is not supported: with the lengths and patterns beside it, it takes more "
        "than %u states",
        STR_FMT(p->list[0].path), LIMIT_PATTERN_STATES);
}

enum status emit_pattern(struct schema *c, const struct patterns *p, const struct str *names, u32 n_names,
                         u64 min, u64 max, u32 to, u32 *start, struct err *err) {
    struct dfa d = {.min = min, .max = max};
    enum status status = dfa_open(&d, c, p, names, n_names, err);
    if (status == OK && !(intervals_find(&d) && states_find(&d)))
        status = too_large(p, err);
    if (status == OK) {
        u32 *node_of = xmalloc((d.n_states + 1) * sizeof *node_of);
        for (u32 i = 0; i < d.n_states; i++)
            node_of[i] = build_node(c->b, NODE_BYTES);
        for (u32 i = 0; i < d.n_states && !c->b->full; i++)
            emit_state(c->b, &d, node_of, i, to);
        *start = d.n_states ? build_byte(c->b, '"', '"', node_of[0]) : build_node(c->b, NODE_BYTES);
        free(node_of);
    }
    dfa_close(&d);
    return status;
}

enum status pattern_matches(struct schema *c, const struct pattern *p, struct str text, bool *matches,
                            struct err *err) {
    struct dfa d = {.max = UINT64_MAX};
    struct patterns one = {.list = (struct pattern[]){*p}, .n = 1};
    bool matched[2];
    enum status status = dfa_open(&d, c, &one, NULL, 0, err);
    if (status == OK) {
        u32 *from = xmalloc(d.nodes.n * sizeof *from), n = 0;
        set_begin(&d);
        set_add(&d, d.start[0]);
        set_close(&d, true, false);
        for (size_t at = 0; at < text.n && status == OK;) {
            u32 code, len = utf8_decode(text, at, &code);
            n = d.n_set;
            c->n_compared += n;
            status = check_compared(c, err);
            memcpy(from, d.set, n * sizeof *from);
            set_step(&d, from, n, len ? code : 0xfffd);
            at += MAX(len, 1u);
        }
        n = d.n_set;
        memcpy(from, d.set, n * sizeof *from);
        *matches = set_accepts(&d, from, n, text.n == 0, matched);
        free(from);
    }
    dfa_close(&d);
    return status;
}
