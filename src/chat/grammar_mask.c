/* grammar_mask.c - which tokens a state allows: one walk over the vocabulary's trie, cut where the automaton
 * dies. Inside of strings nearly every token is allowed; there the ready mask of ordinary tokens is taken and
 * only the others are walked. Masks that took long are kept with their state. */
#include "chat/grammar_parts.h"

/* A walk over fewer nodes is as fast as copying a mask. */
#define KEEP_FROM_NODES 1024u

static void set_bit(u32 *mask, u32 token) { mask[token / 32] |= 1u << (token % 32); }

static void set_tokens(const struct grammar_vocab *v, const struct vocab_node *node, u32 *mask) {
    for (u32 token = node->token; token != TOKEN_NONE; token = v->same[token])
        set_bit(mask, token);
}

static enum status too_open(struct err *err) {
    return err_set(err, ERR_TOO_LARGE,
                   "the schema leaves too many possibilities open at the same time; "
                   "make alternatives or patterns more specific");
}

/* Adds what the trie's tokens allow; *visited counts nodes. */
static enum status walk(struct grammar *g, struct grammar_state *s, const struct vocab_trie *t, u32 *mask,
                        u32 *visited, struct err *err) {
    struct grammar_state **path = states_path(g);
    u64 work = 0;
    bool full = false;
    path[0] = s;
    for (u32 i = 0; i < t->n;) {
        const struct vocab_node *node = &t->nodes[i];
        struct grammar_state *from = path[node->depth - 1];
        states_keep(g, node->depth);
        struct grammar_state *to = state_after(g, from, node->byte, &full);
        work += from->n_places;
        ++*visited;
        if (full || work > LIMIT_GRAMMAR_MASK_WORK)
            return too_open(err);
        if (!to) {
            i = node->skip;
            continue;
        }
        path[node->depth] = to;
        if (to->single)
            set_tokens(g->v, node, mask);
        i++;
        if (!to->star || !node->plain_below)
            continue;
        for (; i < node->skip; i++)
            set_tokens(g->v, &t->nodes[i], mask);
    }
    return OK;
}

static void add_plain(const struct grammar_vocab *v, u32 chars, u32 *mask) {
    for (u32 i = 0; i < v->n_words; i++)
        mask[i] |= v->plain[chars][i];
}

/* The node takes no ordinary character: tokens of these get nowhere from it. */
static bool takes_no_plain(const struct grammar *g, const struct node *node) {
    for (u32 e = node->edge; e != NODE_NONE; e = g->a.edges[e].rest)
        if (g->a.edges[e].lo != '"' || g->a.edges[e].hi != '"')
            return false;
    return node->kind == NODE_BYTES;
}

/* The one place from which ordinary characters lead on; NULL if there are several or none. */
static const struct place *plain_place(const struct grammar *g, const struct grammar_state *s) {
    const struct place *found = NULL;
    for (u32 i = 0; i < s->n_places; i++) {
        if (takes_no_plain(g, &g->a.nodes[s->places[i].node]))
            continue;
        if (found)
            return NULL;
        found = &s->places[i];
    }
    return found;
}

/* Inside of a string that is bound by its length at most: adds the ordinary tokens that fit. False if the
 * state is no such place; then all tokens must be walked. */
static bool take_plain(const struct grammar *g, const struct grammar_state *s, u32 *mask) {
    if (s->star) {
        add_plain(g->v, VOCAB_PLAIN_MAX, mask);
        return true;
    }
    const struct place *p = plain_place(g, s);
    if (!p || !g->a.nodes[p->node].plain_one || !place_is_single(g, p))
        return false;
    const struct frame *f = place_frame(g, p);
    if (!f || f->count == 0)
        return false;
    const struct node *loop = &g->a.nodes[f->node];
    u32 left = loop->max - f->count + 1;
    if (loop->then_star || left >= g->v->plain_chars_max)
        left = VOCAB_PLAIN_MAX;
    else if (left >= VOCAB_PLAIN_MAX)
        return false;
    add_plain(g->v, left, mask);
    return true;
}

static enum status compute(struct grammar *g, struct grammar_state *s, u32 *mask, u32 *visited,
                           struct err *err) {
    bool full = false;
    memset(mask, 0, g->v->n_words * sizeof *mask);
    for (u32 i = 0; s->complete && i < g->v->n_ends; i++)
        set_bit(mask, g->v->ends[i]);
    for (u32 i = 0; i < s->n_places; i++) {
        const struct node *node = &g->a.nodes[s->places[i].node];
        if (node->kind != NODE_TOKEN)
            continue;
        states_path(g)[0] = s;
        states_keep(g, 1);
        struct grammar_state *to = state_after_token(g, s, node->body, &full);
        if (full)
            return too_open(err);
        if (to && to->single)
            set_bit(mask, node->body);
    }
    return walk(g, s, take_plain(g, s, mask) ? &g->v->odd : &g->v->all, mask, visited, err);
}

static bool any_bit(const u32 *mask, u32 n) {
    for (u32 i = 0; i < n; i++)
        if (mask[i])
            return true;
    return false;
}

enum status grammar_run_mask(const struct grammar_run *r, u32 *mask, struct err *err) {
    struct grammar *g = r->g;
    struct grammar_state *s = r->state;
    u32 visited = 0;
    enum status status = OK;
    states_lock(g);
    if (s->mask) {
        memcpy(mask, s->mask, g->v->n_words * sizeof *mask);
    } else {
        status = compute(g, s, mask, &visited, err);
        if (status == OK && !any_bit(mask, g->v->n_words))
            status = err_set(err, ERR_INVALID, "the vocabulary has no token that could follow");
        if (status == OK && visited >= KEEP_FROM_NODES)
            state_keep_mask(g, s, mask);
    }
    states_unlock(g);
    return status;
}
