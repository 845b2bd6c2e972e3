/* grammar_build.c - nodes and edges, and what is read off the finished graph. */
#include <stdlib.h>

#include "chat/grammar_parts.h"

void build_init(struct build *b, struct arena *arena, const struct grammar_vocab *v) {
    *b = (struct build){.arena = arena, .vocab = v};
    b->string = b->number = b->value = b->object = b->one_char = b->tail_to = NODE_NONE;
    u32 end = build_node(b, NODE_END);
    check(end == NODE_THE_END);
}

void build_release(struct build *b) {
    free(b->a.nodes);
    free(b->a.edges);
    b->a = (struct automaton){0};
}

u32 build_node(struct build *b, enum node_kind kind) {
    struct automaton *a = &b->a;
    if (a->n_nodes == LIMIT_GRAMMAR_NODES) {
        b->full = true;
        return NODE_THE_END;
    }
    if (a->n_nodes == a->cap_nodes) {
        a->cap_nodes = a->cap_nodes ? 2 * a->cap_nodes : 256;
        a->nodes = xrealloc(a->nodes, a->cap_nodes * sizeof *a->nodes);
    }
    a->nodes[a->n_nodes] = (struct node){.kind = (u8)kind, .edge = NODE_NONE};
    return a->n_nodes++;
}

void build_edge(struct build *b, u32 from, u8 lo, u8 hi, u32 to) {
    struct automaton *a = &b->a;
    if (b->full || a->n_edges == LIMIT_GRAMMAR_EDGES) {
        b->full = true;
        return;
    }
    if (a->n_edges == a->cap_edges) {
        a->cap_edges = a->cap_edges ? 2 * a->cap_edges : 512;
        a->edges = xrealloc(a->edges, a->cap_edges * sizeof *a->edges);
    }
    a->edges[a->n_edges] = (struct edge){.to = to, .rest = a->nodes[from].edge, .lo = lo, .hi = hi};
    a->nodes[from].edge = a->n_edges++;
}

void build_empty(struct build *b, u32 from, u32 to) { build_edge(b, from, 0, 0, to); }

u32 build_byte(struct build *b, u8 lo, u8 hi, u32 to) {
    u32 node = build_node(b, NODE_BYTES);
    build_edge(b, node, lo, hi, to);
    return node;
}

u32 build_literal(struct build *b, struct str text, u32 to) {
    for (size_t i = text.n; i-- > 0 && !b->full;)
        to = build_byte(b, (u8)text.p[i], (u8)text.p[i], to);
    return to;
}

u32 build_either(struct build *b, u32 x, u32 y) {
    u32 node = build_node(b, NODE_SPLIT);
    build_empty(b, node, x);
    build_empty(b, node, y);
    return node;
}

static u32 build_jump(struct build *b, enum node_kind kind, u32 body, u32 to) {
    u32 node = build_node(b, kind);
    b->a.nodes[node].body = body;
    b->a.nodes[node].next = to;
    return node;
}

u32 build_call(struct build *b, u32 body, u32 to) { return build_jump(b, NODE_CALL, body, to); }
u32 build_token(struct build *b, u32 token, u32 to) { return build_jump(b, NODE_TOKEN, token, to); }

/* A body without end: the stack stays as it is, every turn calls the body and comes back. */
static u32 build_star(struct build *b, u32 body, u32 to) {
    u32 node = build_node(b, NODE_SPLIT);
    u32 turn = build_call(b, body, node);
    build_empty(b, node, turn);
    build_empty(b, node, to);
    return node;
}

u32 build_loop(struct build *b, u32 body, u32 min, u32 max, u32 to) {
    if (max == UINT32_MAX) {
        to = build_star(b, body, to);
        max = min;
    }
    if (max == 0)
        return to;
    u32 node = build_jump(b, NODE_LOOP, body, to);
    b->a.nodes[node].min = min;
    b->a.nodes[node].max = max;
    return node;
}

/* --- many texts --- */

static int text_order(const void *x, const void *y) {
    const struct str *a = x, *b = y;
    size_t n = MIN(a->n, b->n);
    int order = n ? memcmp(a->p, b->p, n) : 0;
    return order ? order : (a->n > b->n) - (a->n < b->n);
}

/* Sorted texts that are equal up to byte `at`. Each level of recursion takes at least one text's end off. */
static u32 build_sorted(struct build *b, const struct str *texts, u32 n, size_t at, u32 to) {
    struct str first = texts[0], last = texts[n - 1];
    size_t same = at;
    while (same < first.n && same < last.n && first.p[same] == last.p[same])
        same++;
    u32 node = build_node(b, NODE_SPLIT);
    u32 i = 0;
    for (; i < n && texts[i].n == same; i++)
        if (i == 0)
            build_empty(b, node, to);
    while (i < n && !b->full) {
        u32 j = i + 1;
        while (j < n && texts[j].p[same] == texts[i].p[same])
            j++;
        u32 rest = j - i == 1 ? build_literal(b, str_slice(texts[i], same + 1, texts[i].n), to)
                              : build_sorted(b, texts + i, j - i, same + 1, to);
        build_empty(b, node, build_byte(b, (u8)texts[i].p[same], (u8)texts[i].p[same], rest));
        i = j;
    }
    return build_literal(b, str_slice(first, at, same), node);
}

u32 build_literals(struct build *b, struct str *texts, u32 n, u32 to) {
    if (n == 0)
        return build_node(b, NODE_BYTES); /* nothing */
    qsort(texts, n, sizeof *texts, text_order);
    return build_sorted(b, texts, n, 0, to);
}

/* --- code points --- */

/* n continuation bytes of any value. */
static u32 build_tail(struct build *b, u32 n, u32 to) {
    if (n == 0)
        return to;
    if (b->tail_to != to) {
        b->tail_to = to;
        b->tails[0] = build_byte(b, 0x80, 0xbf, to);
        b->tails[1] = build_byte(b, 0x80, 0xbf, b->tails[0]);
        b->tails[2] = build_byte(b, 0x80, 0xbf, b->tails[1]);
    }
    return b->tails[n - 1];
}

static bool all_are(const u8 *p, u32 n, u8 value) {
    for (u32 i = 0; i < n; i++)
        if (p[i] != value)
            return false;
    return true;
}

/* Sequences of n bytes between lo and hi, in the order of code points. */
static void build_sequences(struct build *b, u32 from, const u8 *lo, const u8 *hi, u32 n, u32 to) {
    static const u8 least[3] = {0x80, 0x80, 0x80}, most[3] = {0xbf, 0xbf, 0xbf};
    u32 first = lo[0], last = hi[0];
    if (n > 1 && (first == last || !all_are(lo + 1, n - 1, 0x80))) {
        u32 node = build_node(b, NODE_BYTES);
        build_edge(b, from, lo[0], lo[0], node);
        build_sequences(b, node, lo + 1, first == last ? hi + 1 : most, n - 1, to);
        if (first++ == last)
            return;
    }
    if (n > 1 && !all_are(hi + 1, n - 1, 0xbf)) {
        u32 node = build_node(b, NODE_BYTES);
        build_edge(b, from, hi[0], hi[0], node);
        build_sequences(b, node, least, hi + 1, n - 1, to);
        last--;
    }
    if (first <= last)
        build_edge(b, from, (u8)first, (u8)last, build_tail(b, n - 1, to));
}

void build_code_points(struct build *b, u32 from, u32 lo, u32 hi, u32 to) {
    static const u32 lasts[] = {0x7f, 0x7ff, 0xd7ff, 0xdfff, 0xffff, 0x10ffff};
    for (u32 i = 0; i < ARRAY_LEN(lasts) && lo <= hi; i++) {
        u32 end = MIN(hi, lasts[i]);
        char from_bytes[4], to_bytes[4];
        if (lo > lasts[i])
            continue;
        if (lasts[i] != 0xdfff) { /* surrogates are no characters */
            u32 n = utf8_encode(lo, from_bytes);
            utf8_encode(end, to_bytes);
            build_sequences(b, from, (const u8 *)from_bytes, (const u8 *)to_bytes, n, to);
        }
        lo = end + 1;
    }
}

/* --- the finished graph --- */

static void find_classes(struct automaton *a) {
    bool cut[257] = {0};
    for (u32 i = 0; i < a->n_edges; i++) {
        cut[a->edges[i].lo] = true;
        cut[a->edges[i].hi + 1] = true;
    }
    a->n_classes = 0;
    for (u32 c = 0; c < 256; c++) {
        a->n_classes += c == 0 || cut[c];
        a->class_of[c] = (u8)(a->n_classes - 1);
    }
}

/* Needs of a node from those of the nodes it leads to; single: only bytes that are tokens count. */
static u8 need_of(const struct automaton *a, u32 n, bool single, const bool *is_single) {
    const struct node *node = &a->nodes[n];
#define NEED(x) (single ? a->nodes[x].need_single : a->nodes[x].need)
    u32 need = NEED_DEAD;
    switch ((enum node_kind)node->kind) {
    case NODE_END: return 0;
    case NODE_TOKEN: return NEED(node->next);
    case NODE_BYTES:
    case NODE_SPLIT:
        for (u32 e = node->edge; e != NODE_NONE; e = a->edges[e].rest) {
            bool usable = !single || node->kind == NODE_SPLIT;
            for (u32 c = a->edges[e].lo; !usable && c <= a->edges[e].hi; c++)
                usable = is_single[c];
            if (usable)
                need = MIN(need, NEED(a->edges[e].to));
        }
        return (u8)need;
    case NODE_CALL:
    case NODE_LOOP:
        need = NEED(node->next);
        if (node->kind == NODE_CALL || node->min > 0)
            need = MAX(need, NEED(node->body) + 1u);
        return need > LIMIT_GRAMMAR_DEPTH ? NEED_DEAD : (u8)need;
    }
#undef NEED
    return NEED_DEAD;
}

/* Who leads to a node: of[at[n] .. at[n + 1]). */
struct callers {
    u32 *at, *of;
};

static void count_caller(struct callers *c, u32 from, u32 to, bool store) {
    if (store)
        c->of[c->at[to]++] = from;
    else
        c->at[to]++;
}

static void walk_callers(const struct automaton *a, struct callers *c, bool store) {
    for (u32 n = 0; n < a->n_nodes; n++) {
        const struct node *node = &a->nodes[n];
        if (node->kind == NODE_CALL || node->kind == NODE_LOOP)
            count_caller(c, n, node->body, store);
        if (node->kind == NODE_CALL || node->kind == NODE_LOOP || node->kind == NODE_TOKEN)
            count_caller(c, n, node->next, store);
        for (u32 e = node->edge; e != NODE_NONE; e = a->edges[e].rest)
            count_caller(c, n, a->edges[e].to, store);
    }
}

static struct callers callers_of(const struct automaton *a) {
    struct callers c = {xcalloc(a->n_nodes + 1, sizeof *c.at), NULL};
    u32 total = 0;
    walk_callers(a, &c, false);
    for (u32 n = 0; n <= a->n_nodes; n++) {
        u32 count = c.at[n];
        c.at[n] = total;
        total += count;
    }
    c.of = xmalloc(total * sizeof *c.of);
    walk_callers(a, &c, true);
    memmove(c.at + 1, c.at, a->n_nodes * sizeof *c.at); /* storing moved each begin to its end */
    c.at[0] = 0;
    return c;
}

/* The least fixed point, from END backwards: a node is looked at again whenever one it leads to got a smaller
 * need, which happens at most LIMIT_GRAMMAR_DEPTH times to each; a queue makes it once for nearly all. */
static void find_needs(struct automaton *a, bool single, const bool *is_single) {
    struct callers c = callers_of(a);
    u32 *queue = xmalloc((a->n_nodes + 1) * sizeof *queue), head = 0, tail = 0;
    bool *queued = xcalloc(a->n_nodes, sizeof *queued);
    for (u32 n = 0; n < a->n_nodes; n++)
        *(single ? &a->nodes[n].need_single : &a->nodes[n].need) = NEED_DEAD;
    *(single ? &a->nodes[NODE_THE_END].need_single : &a->nodes[NODE_THE_END].need) = 0;
    queue[tail++] = NODE_THE_END;
    while (head != tail) {
        u32 n = queue[head];
        head = (head + 1) % (a->n_nodes + 1);
        queued[n] = false;
        for (u32 i = c.at[n]; i < c.at[n + 1]; i++) {
            u32 from = c.of[i];
            u8 *need = single ? &a->nodes[from].need_single : &a->nodes[from].need;
            u8 now = need_of(a, from, single, is_single);
            if (now >= *need)
                continue;
            *need = now;
            if (!queued[from]) {
                queued[from] = true;
                queue[tail] = from;
                tail = (tail + 1) % (a->n_nodes + 1);
            }
        }
    }
    free(queue);
    free(queued);
    free(c.at);
    free(c.of);
}

enum status build_finish(struct build *b, u32 start, struct err *err) {
    if (b->full)
        return err_set(err, ERR_TOO_LARGE,
                       "the schema is too large: its automaton has more than %u nodes or %u edges",
                       LIMIT_GRAMMAR_NODES, LIMIT_GRAMMAR_EDGES);
    b->a.start = start;
    find_classes(&b->a);
    find_needs(&b->a, false, NULL);
    if (b->a.nodes[start].need == NEED_DEAD)
        return err_set(err, ERR_INVALID,
                       "nothing can satisfy the schema (or only values of more than %u levels)",
                       LIMIT_GRAMMAR_DEPTH);
    find_needs(&b->a, true, b->vocab->single);
    if (b->a.nodes[start].need_single == NEED_DEAD)
        return err_set(err, ERR_INVALID,
                       "the schema asks for characters that the model's vocabulary cannot write");
    return OK;
}
