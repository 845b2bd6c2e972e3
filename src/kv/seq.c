/* seq.c - sequences: page tables over the tree's pages and their own. */
#include "kv/internal.h"

#include <stdlib.h>

/* Window pages that the tree keeps of a sequence that goes on: the window before every multiple of this
 * many windows, so that later prompts can branch off there. A quarter more pages for such groups, evictable.
 */
#define CHECKPOINT_WINDOWS 4u

/* ---------------------------------------------------------------- tables */

static void table_grow(struct kv_table *t, u32 n_pages) {
    if (n_pages <= t->cap)
        return;
    t->cap = MAX(n_pages, t->cap * 2);
    t->pages = xrealloc(t->pages, t->cap * sizeof *t->pages);
    t->held = xrealloc(t->held, t->cap * sizeof *t->held);
}

static void table_push(struct kv_table *t, struct kv_page *p) {
    table_grow(t, t->n_pages + 1);
    t->held[t->n_pages] = p;
    t->pages[t->n_pages] = p ? p->data : NULL;
    t->n_pages++;
    if (p)
        kv_page_ref_seq(p);
}

/* Back to n_pages: undoes pushes. */
static void table_cut(struct kv_table *t, u32 n_pages) {
    while (t->n_pages > n_pages)
        if (t->held[--t->n_pages])
            kv_page_unref_seq(t->held[t->n_pages]);
}

bool kv_seq_reserve(struct kv_seq *seq, u32 n_tokens) {
    u32 n_pages = DIV_CEIL(n_tokens, KV_PAGE_TOKENS), n_groups = seq->space->layout.n_groups;
    u32 before[KV_GROUPS_MAX];
    for (u32 g = 0; g < n_groups; g++)
        before[g] = seq->tables[g].n_pages;
    for (u32 g = 0; g < n_groups; g++) {
        struct kv_table *t = &seq->tables[g];
        while (t->n_pages < n_pages) {
            struct kv_page *p = kv_page_alloc(seq->space, g);
            if (!p) {
                for (u32 k = 0; k <= g; k++)
                    table_cut(&seq->tables[k], before[k]);
                return false;
            }
            table_push(t, p);
        }
    }
    return true;
}

u64 kv_seq_need_bytes(const struct kv_seq *seq, u32 n_tokens) {
    u32 n_pages = DIV_CEIL(n_tokens, KV_PAGE_TOKENS);
    u64 sum = 0;
    for (u32 g = 0; g < seq->space->layout.n_groups; g++)
        if (seq->tables[g].n_pages < n_pages)
            sum += (n_pages - seq->tables[g].n_pages) * seq->space->groups[g].page_bytes;
    return sum;
}

u64 kv_seq_held_bytes(const struct kv_seq *seq) {
    u64 sum = 0;
    for (u32 g = 0; seq->space && g < seq->space->layout.n_groups; g++)
        sum += (seq->tables[g].n_pages - seq->tables[g].n_released) * seq->space->groups[g].page_bytes;
    return sum;
}

/* ---------------------------------------------------------------- open */

/* Pages for the copies of the page that the match ends in; all groups or none. */
static bool copies_alloc(struct kv_space *s, struct kv_page *copies[KV_GROUPS_MAX]) {
    for (u32 g = 0; g < s->layout.n_groups; g++) {
        copies[g] = kv_page_alloc(s, g);
        if (copies[g])
            continue;
        while (g-- > 0)
            kv_page_discard(copies[g]);
        return false;
    }
    return true;
}

static void page_copy(struct kv_space *s, u32 group, struct kv_page *dst, const struct kv_page *src) {
    const struct kv_memory *m = &s->pool->memory;
    u64 bytes = s->groups[group].page_bytes;
    if (m->copy)
        m->copy(m->ctx, dst->data, src->data, bytes);
    else
        memcpy(dst->data, src->data, bytes);
}

/* The table of one group for the first n_matched positions on the path to node. */
static void table_fill(struct kv_seq *seq, u32 group, const struct kv_node *node, struct kv_page *copy) {
    struct kv_table *t = &seq->tables[group];
    u32 n = seq->n_tokens, n_full = n / KV_PAGE_TOKENS;
    u32 n_pages = DIV_CEIL(n, KV_PAGE_TOKENS);
    table_grow(t, n_pages);
    t->n_pages = n_pages;
    t->n_released = window_start(&seq->space->layout.groups[group], n) / KV_PAGE_TOKENS;
    for (u32 i = n_pages; i-- > 0;) {
        struct kv_page *p = NULL;
        if (i >= t->n_released) {
            u32 last_pos = MIN((i + 1) * KV_PAGE_TOKENS, n) - 1;
            while (node->start > last_pos)
                node = node->parent;
            p = node->pages[group][i - node_first_page(node)];
            check(p != NULL);
            if (i == n_full) {
                page_copy(seq->space, group, copy, p);
                p = copy;
            }
            kv_page_ref_seq(p);
        }
        t->held[i] = p;
        t->pages[i] = p ? p->data : NULL;
    }
}

u32 kv_seq_open(struct kv_seq *seq, struct kv_space *s, const u32 *tokens, u32 n, u64 now) {
    check(seq->space == NULL);
    check(n >= 1);
    struct kv_page *copies[KV_GROUPS_MAX] = {NULL};
    struct kv_node *node;
    u32 matched = kv_tree_match(s, tokens, n - 1, &node);
    while (matched % KV_PAGE_TOKENS && !copies_alloc(s, copies))
        matched = kv_tree_match(s, tokens, matched / KV_PAGE_TOKENS * KV_PAGE_TOKENS, &node);
    if (matched < node_end(node))
        node = kv_node_split(node, matched - node->start);
    node->n_pins++;
    kv_node_touch(node, now);
    seq->space = s;
    seq->node = node;
    seq->n_tokens = matched;
    for (u32 g = 0; g < s->layout.n_groups; g++)
        table_fill(seq, g, node, copies[g]);
    seq->prev = NULL;
    seq->next = s->seqs;
    if (seq->next)
        seq->next->prev = seq;
    s->seqs = seq;
    return matched;
}

u32 kv_space_match(struct kv_space *s, const u32 *tokens, u32 n) {
    struct kv_node *node;
    return kv_tree_match(s, tokens, n - 1, &node);
}

u64 kv_space_need_bytes(struct kv_space *s, const u32 *tokens, u32 n, u32 n_reserve) {
    struct kv_node *end;
    u32 matched = kv_tree_match(s, tokens, n - 1, &end);
    u64 sum = kv_plan_bytes(&s->layout, n_reserve);
    for (u32 g = 0; g < s->layout.n_groups; g++) {
        const struct kv_node *node = end;
        u32 first = window_start(&s->layout.groups[g], matched) / KV_PAGE_TOKENS;
        for (u32 i = matched / KV_PAGE_TOKENS; i-- > first;) {
            while (node->start >= (i + 1) * KV_PAGE_TOKENS)
                node = node->parent;
            if (node->pages[g][i - node_first_page(node)]->seq_refs)
                sum -= MIN(sum, s->groups[g].page_bytes);
        }
    }
    return sum;
}

/* ---------------------------------------------------------------- going on */

void kv_seq_publish(struct kv_seq *seq, const u32 *tokens, u32 n_tokens, u64 now) {
    check(n_tokens <= seq->n_tokens);
    u32 full = n_tokens / KV_PAGE_TOKENS * KV_PAGE_TOKENS;
    if (full > node_end(seq->node))
        kv_tree_insert(seq, tokens, full, now);
}

/* The tree keeps page i of a window group although its sequence has left it. */
static bool is_checkpoint(const struct kv_group *g, u32 page_index) {
    u64 spacing = (u64)g->window * CHECKPOINT_WINDOWS;
    u64 first = (u64)page_index * KV_PAGE_TOKENS, end = first + KV_PAGE_TOKENS;
    u64 next = ALIGN_UP(first + 1, spacing); /* the first multiple whose window can hold the page */
    return next < end + g->window;
}

void kv_seq_trim(struct kv_seq *seq) {
    struct kv_node *node = seq->node;
    for (u32 g = 0; g < seq->space->layout.n_groups; g++) {
        const struct kv_group *group = &seq->space->layout.groups[g];
        struct kv_table *t = &seq->tables[g];
        u32 keep = MIN(window_start(group, seq->n_tokens) / KV_PAGE_TOKENS, t->n_pages);
        for (; t->n_released < keep; t->n_released++) {
            u32 i = t->n_released;
            struct kv_page *p = t->held[i];
            t->held[i] = NULL;
            t->pages[i] = NULL;
            bool own = node->owner == seq && i >= node_first_page(node) && i < node_page_end(node);
            if (own && p->node_refs == 1 && p->seq_refs == 1 && !is_checkpoint(group, i)) {
                node->pages[g][i - node_first_page(node)] = NULL;
                kv_page_unref_node(p);
            }
            kv_page_unref_seq(p);
        }
    }
}

/* ---------------------------------------------------------------- close */

void kv_seq_close(struct kv_seq *seq, const u32 *tokens, bool keep, u64 now) {
    struct kv_space *s = seq->space;
    if (!s)
        return;
    if (keep && seq->n_tokens > node_end(seq->node))
        kv_tree_insert(seq, tokens, seq->n_tokens, now);
    seq->node->n_pins--;
    if (seq->node->owner == seq)
        seq->node->owner = NULL;
    for (u32 g = 0; g < s->layout.n_groups; g++) {
        table_cut(&seq->tables[g], 0);
        free(seq->tables[g].pages);
        free(seq->tables[g].held);
    }
    if (seq->next)
        seq->next->prev = seq->prev;
    if (seq->prev)
        seq->prev->next = seq->next;
    else
        s->seqs = seq->next;
    *seq = (struct kv_seq){0};
}
