/* grammar_run.c - a state is the set of places that a text can be at, each with its stack. States and stacks
 * are made when a text first gets there and shared from then on, so that most steps are one look into a
 * table. When they take more room than LIMIT_GRAMMAR_CACHE_BYTES, those where no run stands are forgotten. */
#include <pthread.h>
#include <stdlib.h>

#include "chat/grammar_parts.h"

#define CHAINS 256u
#define SEEN_MAX (8 * LIMIT_GRAMMAR_PLACES)

struct seen {
    struct place place;
    u32 epoch;
};

/* Nowhere. */
static struct grammar_state dead;

struct state_set {
    pthread_mutex_t lock;
    struct grammar_state *chains[CHAINS];
    u64 bytes;      /* of states and masks */
    u64 bytes_most; /* beyond it what no run needs is forgotten */

    struct frame *frames;
    u32 n_frames, cap_frames, free_frame; /* a free frame's parent is the next free one */
    u32 *frame_slots;                     /* [n_frame_slots] index + 1, by what the frame holds */
    u32 n_frame_slots, used_frame_slots;

    /* the closure under construction */
    struct place *found, *todo; /* [n_seen_slots] */
    struct seen *seen;          /* [n_seen_slots] a power of two, at most half full */
    u32 n_found, n_todo, n_seen, n_seen_slots, epoch;
    bool complete, full;

    struct grammar_state **path; /* [bytes_max + 2] */
    u32 n_path;
};

void states_lock(struct grammar *g) { pthread_mutex_lock(&g->set->lock); }
void states_unlock(struct grammar *g) { pthread_mutex_unlock(&g->set->lock); }
struct grammar_state **states_path(struct grammar *g) {
    return g->set->path;
}
void states_keep(struct grammar *g, u32 n) { g->set->n_path = n; }

/* --- stacks --- */

static u64 mix(u64 x) {
    x *= 0x9e3779b97f4a7c15ull;
    return x ^ x >> 29;
}

static u64 frame_hash(u32 node, u32 count, u32 parent) { return mix(mix((u64)node << 32 | parent) + count); }

static u32 *frame_slot(struct state_set *set, u32 node, u32 count, u32 parent) {
    for (u64 i = frame_hash(node, count, parent);; i++) {
        u32 *slot = &set->frame_slots[i & (set->n_frame_slots - 1)];
        const struct frame *f = *slot ? &set->frames[*slot - 1] : NULL;
        if (!f || (f->node == node && f->count == count && f->parent == parent))
            return slot;
    }
}

/* Enters all frames that are marked into a table of n slots. */
static void frame_slots_fill(struct state_set *set, u32 n) {
    free(set->frame_slots);
    set->n_frame_slots = n;
    set->frame_slots = xcalloc(n, sizeof *set->frame_slots);
    set->used_frame_slots = 0;
    for (u32 i = 0; i < set->n_frames; i++) {
        const struct frame *f = &set->frames[i];
        if (!f->marked)
            continue;
        *frame_slot(set, f->node, f->count, f->parent) = i + 1;
        set->used_frame_slots++;
    }
}

static u32 frame_depth(const struct state_set *set, u32 frame) {
    return frame == FRAME_NONE ? 0 : set->frames[frame].depth;
}

static bool frame_single(const struct state_set *set, u32 frame) {
    return frame == FRAME_NONE || set->frames[frame].single;
}

/* The frame with these contents; marked frames are in use. */
static u32 frame_at(struct grammar *g, u32 node, u32 count, u32 parent) {
    struct state_set *set = g->set;
    u32 *slot = frame_slot(set, node, count, parent);
    if (*slot)
        return *slot - 1;
    if (2 * (set->used_frame_slots + 1) > set->n_frame_slots) {
        frame_slots_fill(set, 2 * set->n_frame_slots);
        slot = frame_slot(set, node, count, parent);
    }
    u32 i = set->free_frame;
    if (i != FRAME_NONE) {
        set->free_frame = set->frames[i].parent;
    } else {
        if (set->n_frames == set->cap_frames) {
            set->cap_frames = set->cap_frames ? 2 * set->cap_frames : 64;
            set->frames = xrealloc(set->frames, set->cap_frames * sizeof *set->frames);
        }
        i = set->n_frames++;
    }
    u32 depth = frame_depth(set, parent);
    set->frames[i] = (struct frame){
        .node = node,
        .count = count,
        .parent = parent,
        .depth = (u8)(depth + 1),
        .single = frame_single(set, parent) && g->a.nodes[node].need_single + depth <= LIMIT_GRAMMAR_DEPTH,
        .marked = true,
    };
    *slot = i + 1;
    set->used_frame_slots++;
    return i;
}

bool place_is_single(const struct grammar *g, const struct place *p) {
    return frame_single(g->set, p->frame) &&
           g->a.nodes[p->node].need_single + frame_depth(g->set, p->frame) <= LIMIT_GRAMMAR_DEPTH;
}

const struct frame *place_frame(const struct grammar *g, const struct place *p) {
    return p->frame == FRAME_NONE ? NULL : &g->set->frames[p->frame];
}

/* --- closure: from a place to all that is reached without taking a byte --- */

static void closure_begin(struct state_set *set) {
    set->n_found = set->n_todo = set->n_seen = 0;
    set->complete = set->full = false;
    if (++set->epoch == 0) {
        memset(set->seen, 0, set->n_seen_slots * sizeof *set->seen);
        set->epoch = 1;
    }
}

/* The slot of a place in the table; not of this epoch: it is free. */
static struct seen *seen_slot(struct state_set *set, struct place p) {
    for (u64 i = mix((u64)p.node << 32 | p.frame);; i++) {
        struct seen *s = &set->seen[i & (set->n_seen_slots - 1)];
        if (s->epoch != set->epoch || (s->place.node == p.node && s->place.frame == p.frame))
            return s;
    }
}

static void seen_grow(struct state_set *set) {
    struct seen *old = set->seen;
    u32 n_old = set->n_seen_slots;
    set->n_seen_slots = n_old ? 2 * n_old : 64;
    set->seen = xcalloc(set->n_seen_slots, sizeof *set->seen);
    set->found = xrealloc(set->found, set->n_seen_slots * sizeof *set->found);
    set->todo = xrealloc(set->todo, set->n_seen_slots * sizeof *set->todo);
    for (u32 i = 0; i < n_old; i++)
        if (old[i].epoch == set->epoch)
            *seen_slot(set, old[i].place) = old[i];
    free(old);
}

/* Notes a place to go on from, once, and only if END can still be reached from it. */
static void closure_add(struct grammar *g, u32 node, u32 frame) {
    struct state_set *set = g->set;
    struct place p = {node, frame};
    if (g->a.nodes[node].need + frame_depth(set, frame) > LIMIT_GRAMMAR_DEPTH)
        return;
    if (2 * (set->n_seen + 1) > set->n_seen_slots)
        seen_grow(set);
    struct seen *s = seen_slot(set, p);
    if (s->epoch == set->epoch)
        return;
    if (set->n_seen == SEEN_MAX) {
        set->full = true;
        return;
    }
    set->n_seen++;
    *s = (struct seen){p, set->epoch};
    set->todo[set->n_todo++] = p;
}

static void closure_end_of(struct grammar *g, u32 frame) {
    if (frame == FRAME_NONE) {
        g->set->complete = true;
        return;
    }
    struct frame f = g->set->frames[frame];
    const struct node *loop = &g->a.nodes[f.node];
    if (f.count == 0) {
        closure_add(g, f.node, f.parent);
        return;
    }
    if (f.count >= loop->min)
        closure_add(g, loop->next, f.parent);
    if (f.count < loop->max)
        closure_add(g, loop->body, frame_at(g, f.node, f.count + 1, f.parent));
}

static void closure_expand(struct grammar *g, struct place p) {
    struct state_set *set = g->set;
    const struct node *node = &g->a.nodes[p.node];
    switch ((enum node_kind)node->kind) {
    case NODE_END: closure_end_of(g, p.frame); return;
    case NODE_BYTES:
    case NODE_TOKEN:
        if (set->n_found == LIMIT_GRAMMAR_PLACES)
            set->full = true;
        else
            set->found[set->n_found++] = p;
        return;
    case NODE_SPLIT:
        for (u32 e = node->edge; e != NODE_NONE; e = g->a.edges[e].rest)
            closure_add(g, g->a.edges[e].to, p.frame);
        return;
    case NODE_CALL:
        /* A call at the end of a rule needs no return: repetition by recursion stays flat. */
        if (g->a.nodes[node->next].kind == NODE_END)
            closure_add(g, node->body, p.frame);
        else
            closure_add(g, node->body, frame_at(g, node->next, 0, p.frame));
        return;
    case NODE_LOOP:
        if (node->min == 0)
            closure_add(g, node->next, p.frame);
        closure_add(g, node->body, frame_at(g, p.node, 1, p.frame));
        return;
    }
}

static int place_order(const void *x, const void *y) {
    const struct place *a = x, *b = y;
    if (a->node != b->node)
        return a->node < b->node ? -1 : 1;
    return (a->frame > b->frame) - (a->frame < b->frame);
}

static void places_sort(struct place *p, u32 n) {
    if (n > 16) {
        qsort(p, n, sizeof *p, place_order);
        return;
    }
    for (u32 i = 1; i < n; i++)
        for (u32 j = i; j > 0 && place_order(&p[j - 1], &p[j]) > 0; j--) {
            struct place swap = p[j];
            p[j] = p[j - 1];
            p[j - 1] = swap;
        }
}

/* --- states --- */

static size_t state_bytes(const struct grammar *g, u32 n_places) {
    return sizeof(struct grammar_state) + g->a.n_classes * sizeof(struct grammar_state *) +
           n_places * sizeof(struct place);
}

static void mask_drop(struct grammar *g, struct grammar_state *s) {
    g->set->bytes -= s->mask ? g->v->n_words * sizeof(u32) : 0;
    free(s->mask);
    s->mask = NULL;
}

static void state_free(struct grammar *g, struct grammar_state *s) {
    mask_drop(g, s);
    g->set->bytes -= state_bytes(g, s->n_places);
    free(s);
}

static struct grammar_state *state_new(struct grammar *g, u64 hash) {
    struct state_set *set = g->set;
    struct grammar_state *s = xcalloc(1, state_bytes(g, set->n_found));
    s->hash = hash;
    s->n_places = set->n_found;
    s->places = (struct place *)(void *)(s->next + g->a.n_classes);
    if (s->n_places)
        memcpy(s->places, set->found, s->n_places * sizeof *s->places);
    s->complete = s->single = set->complete;
    for (u32 i = 0; i < s->n_places; i++) {
        bool single = place_is_single(g, &s->places[i]);
        s->single |= single;
        s->star |= single && g->a.nodes[s->places[i].node].plain_star;
    }
    s->chain = set->chains[hash % CHAINS];
    set->chains[hash % CHAINS] = s;
    set->bytes += state_bytes(g, s->n_places);
    return s;
}

/* The state of what was added since closure_begin; the dead one if that is nothing. */
static struct grammar_state *closure_finish(struct grammar *g) {
    struct state_set *set = g->set;
    while (set->n_todo && !set->full)
        closure_expand(g, set->todo[--set->n_todo]);
    if (set->full)
        return NULL;
    if (set->n_found == 0 && !set->complete)
        return &dead;
    places_sort(set->found, set->n_found);
    u64 hash = hash_bytes(set->found, set->n_found * sizeof *set->found, set->complete);
    for (struct grammar_state *s = set->chains[hash % CHAINS]; s; s = s->chain)
        if (s->hash == hash && s->n_places == set->n_found && s->complete == set->complete &&
            (s->n_places == 0 || memcmp(s->places, set->found, s->n_places * sizeof *s->places) == 0))
            return s;
    return state_new(g, hash);
}

static void mark(struct grammar *g, struct grammar_state *s) {
    struct state_set *set = g->set;
    s->marked = true;
    for (u32 i = 0; i < s->n_places; i++)
        for (u32 f = s->places[i].frame; f != FRAME_NONE && !set->frames[f].marked; f = set->frames[f].parent)
            set->frames[f].marked = true;
}

/* Forgets states where no run stands, what the others know of them, and all masks. */
static void sweep(struct grammar *g) {
    struct state_set *set = g->set;
    for (u32 i = 0; i < set->n_frames; i++)
        set->frames[i].marked = false;
    for (u32 c = 0; c < CHAINS; c++)
        for (struct grammar_state *s = set->chains[c]; s; s = s->chain)
            if (s->pins)
                mark(g, s);
    for (u32 i = 0; i < set->n_path; i++)
        mark(g, set->path[i]);
    for (u32 c = 0; c < CHAINS; c++)
        for (struct grammar_state **at = &set->chains[c]; *at;) {
            struct grammar_state *s = *at;
            if (!s->marked) {
                *at = s->chain;
                state_free(g, s);
                continue;
            }
            s->marked = false;
            mask_drop(g, s);
            for (u32 k = 0; k < g->a.n_classes; k++)
                if (s->next[k] != &dead)
                    s->next[k] = NULL;
            at = &s->chain;
        }
    set->free_frame = FRAME_NONE;
    for (u32 i = 0; i < set->n_frames; i++)
        if (!set->frames[i].marked) {
            set->frames[i].parent = set->free_frame;
            set->free_frame = i;
        }
    frame_slots_fill(set, set->n_frame_slots);
}

/* Where the runs themselves need nearly all of the room, it is doubled, or each step would sweep. */
static void make_room(struct grammar *g) {
    struct state_set *set = g->set;
    if (set->bytes + set->n_frames * sizeof(struct frame) <= set->bytes_most)
        return;
    sweep(g);
    set->bytes_most = MAX(LIMIT_GRAMMAR_CACHE_BYTES, 2 * (set->bytes + set->n_frames * sizeof(struct frame)));
}

struct grammar_state *state_after(struct grammar *g, struct grammar_state *s, u8 byte, bool *full) {
    struct state_set *set = g->set;
    u32 class = g->a.class_of[byte];
    struct grammar_state *to = s->next[class];
    if (!to) {
        make_room(g);
        closure_begin(set);
        for (u32 i = 0; i < s->n_places; i++) {
            const struct node *node = &g->a.nodes[s->places[i].node];
            if (node->kind != NODE_BYTES)
                continue;
            for (u32 e = node->edge; e != NODE_NONE; e = g->a.edges[e].rest)
                if (byte >= g->a.edges[e].lo && byte <= g->a.edges[e].hi)
                    closure_add(g, g->a.edges[e].to, s->places[i].frame);
        }
        to = closure_finish(g);
        if (!to) {
            *full = true;
            return NULL;
        }
        s->next[class] = to;
    }
    return to == &dead ? NULL : to;
}

struct grammar_state *state_after_token(struct grammar *g, struct grammar_state *s, u32 token, bool *full) {
    make_room(g);
    closure_begin(g->set);
    for (u32 i = 0; i < s->n_places; i++) {
        const struct node *node = &g->a.nodes[s->places[i].node];
        if (node->kind == NODE_TOKEN && node->body == token)
            closure_add(g, node->next, s->places[i].frame);
    }
    struct grammar_state *to = closure_finish(g);
    *full |= !to;
    return to == &dead ? NULL : to;
}

void state_keep_mask(struct grammar *g, struct grammar_state *s, const u32 *mask) {
    make_room(g);
    if (!s->mask) {
        s->mask = xmalloc(g->v->n_words * sizeof *mask);
        g->set->bytes += g->v->n_words * sizeof *mask;
    }
    memcpy(s->mask, mask, g->v->n_words * sizeof *mask);
}

/* --- grammars and runs --- */

void grammar_free(struct grammar *g) {
    if (!g)
        return;
    struct state_set *set = g->set;
    for (u32 c = 0; set && c < CHAINS; c++)
        while (set->chains[c]) {
            struct grammar_state *s = set->chains[c];
            check(s->pins == 0);
            set->chains[c] = s->chain;
            state_free(g, s);
        }
    if (set) {
        pthread_mutex_destroy(&set->lock);
        free(set->frames);
        free(set->frame_slots);
        free(set->found);
        free(set->todo);
        free(set->seen);
        free(set->path);
        free(set);
    }
    free(g->a.nodes);
    free(g->a.edges);
    free(g);
}

u64 grammar_bytes(const struct grammar *g) {
    return sizeof *g + sizeof *g->set + g->a.cap_nodes * sizeof *g->a.nodes +
           g->a.cap_edges * sizeof *g->a.edges + LIMIT_GRAMMAR_CACHE_BYTES;
}

/* Takes the automaton over. */
struct grammar *grammar_new(const struct automaton *a, const struct grammar_vocab *v) {
    struct grammar *g = xcalloc(1, sizeof *g);
    g->a = *a;
    g->v = v;
    g->set = xcalloc(1, sizeof *g->set);
    pthread_mutex_init(&g->set->lock, NULL);
    g->set->free_frame = FRAME_NONE;
    g->set->bytes_most = LIMIT_GRAMMAR_CACHE_BYTES;
    frame_slots_fill(g->set, 256);
    g->set->path = xmalloc((v->bytes_max + 2) * sizeof(struct grammar_state *));
    return g;
}

bool grammar_run_try(struct grammar *g, struct grammar_run *r) {
    states_lock(g);
    states_keep(g, 0);
    make_room(g);
    closure_begin(g->set);
    closure_add(g, g->a.start, FRAME_NONE);
    struct grammar_state *s = closure_finish(g);
    if (s) {
        check(s != &dead); /* build_finish has refused it */
        s->pins++;
        *r = (struct grammar_run){g, s};
    }
    states_unlock(g);
    return s != NULL;
}

void grammar_run_start(struct grammar *g, struct grammar_run *r) {
    bool started = grammar_run_try(g, r);
    check(started); /* grammar_compile has tried */
}

void grammar_run_copy(const struct grammar_run *from, struct grammar_run *to) {
    *to = *from;
    if (!from->g)
        return;
    states_lock(from->g);
    from->state->pins++;
    states_unlock(from->g);
}

void grammar_run_release(struct grammar_run *r) {
    if (r->g) {
        states_lock(r->g);
        check(r->state->pins > 0);
        r->state->pins--;
        states_unlock(r->g);
    }
    *r = (struct grammar_run){0};
}

static struct grammar_state *after_bytes(struct grammar *g, struct grammar_state *s, struct str bytes) {
    bool full = false;
    for (size_t i = 0; i < bytes.n && s; i++) {
        g->set->path[0] = s;
        states_keep(g, 1);
        s = state_after(g, s, (u8)bytes.p[i], &full);
    }
    return s;
}

/* Moves the run; false if there is nowhere to go. The states are locked. */
static bool run_move(struct grammar_run *r, struct grammar_state *to) {
    if (to) {
        to->pins++;
        r->state->pins--;
        r->state = to;
    }
    return to != NULL;
}

bool grammar_run_accept(struct grammar_run *r, u32 token) {
    struct grammar *g = r->g;
    struct grammar_state *to;
    bool full = false, taken;
    if (tokenizer_is_end(g->v->t, token))
        return r->state->complete;
    struct str bytes = tokenizer_bytes_of(g->v->t, token, false);
    states_lock(g);
    if (bytes.n) {
        to = after_bytes(g, r->state, bytes);
    } else {
        g->set->path[0] = r->state;
        states_keep(g, 1);
        to = state_after_token(g, r->state, token, &full);
    }
    taken = run_move(r, to && to->single ? to : NULL);
    states_unlock(g);
    return taken;
}

bool grammar_run_feed(struct grammar_run *r, struct str bytes) {
    states_lock(r->g);
    bool taken = run_move(r, after_bytes(r->g, r->state, bytes));
    states_unlock(r->g);
    return taken;
}

bool grammar_run_complete(const struct grammar_run *r) { return r->state->complete; }
bool grammar_run_over(const struct grammar_run *r) { return r->state->complete && r->state->n_places == 0; }
