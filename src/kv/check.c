/* check.c - figures, and the invariants by counting every reference anew. */
#include "kv/internal.h"

/* ---------------------------------------------------------------- figures */

static void clear_found(const struct kv_extent *list) {
    for (const struct kv_extent *e = list; e; e = e->next)
        for (u32 i = 0; i < e->n_pages; i++)
            e->pages[i].found_seq_refs = e->pages[i].found_node_refs = 0;
}

/* Positions in open sequences, a shared page counted once, in a group that keeps all pages if there is one.
 */
static u64 pinned_tokens(const struct kv_space *s) {
    u32 g = 0;
    while (g + 1 < s->layout.n_groups && s->layout.groups[g].window)
        g++;
    clear_found(s->groups[g].partial);
    clear_found(s->groups[g].full);
    u64 sum = 0;
    for (const struct kv_seq *q = s->seqs; q; q = q->next) {
        const struct kv_table *t = &q->tables[g];
        u32 n_pages = DIV_CEIL(q->n_tokens, KV_PAGE_TOKENS);
        for (u32 i = t->n_released; i < n_pages; i++)
            if (t->held[i]->found_seq_refs++ == 0)
                sum += MIN(q->n_tokens - i * KV_PAGE_TOKENS, KV_PAGE_TOKENS);
    }
    return sum;
}

static void stats_add(const struct kv_space *s, struct kv_stats *out) {
    out->pinned_bytes += s->pinned_bytes;
    out->cached_bytes += s->cached_bytes;
    out->free_bytes += s->mapped_bytes - s->pinned_bytes - s->cached_bytes;
    out->pinned_tokens += pinned_tokens(s);
    out->n_nodes += s->n_nodes;
}

void kv_space_stats(const struct kv_space *s, struct kv_stats *out) {
    *out = (struct kv_stats){0};
    stats_add(s, out);
}

void kv_pool_stats(const struct kv_pool *p, struct kv_stats *out) {
    *out = (struct kv_stats){0};
    for (const struct kv_space *s = p->spaces; s; s = s->next)
        stats_add(s, out);
}

/* ---------------------------------------------------------------- invariants */

static void check_seq(const struct kv_seq *q) {
    u32 n_pages = DIV_CEIL(q->n_tokens, KV_PAGE_TOKENS);
    check(q->node->n_pins > 0);
    check(node_end(q->node) <= q->n_tokens);
    for (u32 g = 0; g < q->space->layout.n_groups; g++) {
        const struct kv_table *t = &q->tables[g];
        check(t->n_pages >= n_pages && t->n_pages <= t->cap);
        check(t->n_released <= window_start(&q->space->layout.groups[g], q->n_tokens) / KV_PAGE_TOKENS);
        for (u32 i = 0; i < t->n_pages; i++) {
            struct kv_page *p = t->held[i];
            check((p == NULL) == (i < t->n_released));
            check(t->pages[i] == (p ? p->data : NULL));
            if (!p)
                continue;
            check(p->extent->space == q->space && p->extent->group == g);
            p->found_seq_refs++;
            /* What may still be written to is held by this sequence alone. */
            if ((i + 1) * KV_PAGE_TOKENS > q->n_tokens)
                check(p->seq_refs == 1 && p->node_refs == 0);
        }
    }
}

static void check_node(const struct kv_node *n) {
    check(n->n_tokens > 0);
    check(n->start == node_end(n->parent));
    check(kv_node_child(n->parent, n->tokens[0]) == n);
    if (n->parent->parent)
        check(n->order < n->parent->order);
    check(!n->owner || n->n_pins > 0);
    for (u32 i = 0; i < n->n_children; i++) {
        check(n->children[i]->parent == n);
        check(i == 0 || n->children[i - 1]->tokens[0] < n->children[i]->tokens[0]);
    }
    u32 n_pages = node_page_end(n) - node_first_page(n);
    check(n_pages <= n->pages_cap);
    for (u32 g = 0; g < n->space->layout.n_groups; g++)
        for (u32 i = 0; i < n_pages; i++) {
            struct kv_page *p = n->pages[g][i];
            if (!p)
                continue;
            check(p->extent->space == n->space && p->extent->group == g);
            p->found_node_refs++;
        }
}

/* Adds up what the extents of one list hold; frees have no reference and are in the stack once. */
struct sums {
    u64 pinned, cached, mapped, pinned_extents;
};

static void check_extents(const struct kv_extent *list, bool full, struct sums *sums) {
    for (const struct kv_extent *e = list; e; e = e->next) {
        const struct kv_group_pool *gp = &e->space->groups[e->group];
        check(full == (e->n_free == 0));
        check(e->n_free < e->n_pages);
        u32 n_free = 0, n_pinned = 0;
        for (u32 i = 0; i < e->n_pages; i++) {
            const struct kv_page *p = &e->pages[i];
            check(p->seq_refs == p->found_seq_refs);
            check(p->node_refs == p->found_node_refs);
            n_pinned += p->seq_refs > 0;
            n_free += p->seq_refs == 0 && p->node_refs == 0;
        }
        check(n_free == e->n_free);
        check(n_pinned == e->n_pinned);
        sums->pinned += n_pinned * gp->page_bytes;
        sums->cached += (e->n_pages - n_pinned - n_free) * gp->page_bytes;
        sums->mapped += gp->extent_bytes;
        sums->pinned_extents += n_pinned ? gp->extent_bytes : 0;
        for (u32 i = 0; i < e->n_free; i++) {
            const struct kv_page *p = &e->pages[e->free[i]];
            check(p->seq_refs == 0 && p->node_refs == 0);
        }
    }
}

static void check_space(const struct kv_space *s) {
    struct sums sums = {0};
    u32 n_pins = 0, n_seqs = 0, n_nodes = 0;
    for (u32 g = 0; g < s->layout.n_groups; g++) {
        clear_found(s->groups[g].partial);
        clear_found(s->groups[g].full);
    }
    for (const struct kv_seq *q = s->seqs; q; q = q->next) {
        check_seq(q);
        n_seqs++;
    }
    for (const struct kv_node *n = s->pool->oldest; n; n = n->next) {
        if (n->space != s)
            continue;
        check_node(n);
        n_nodes++;
        n_pins += n->n_pins;
    }
    check(s->root->start == 0 && s->root->n_tokens == 0);
    check(n_pins + s->root->n_pins == n_seqs);
    check(n_nodes == s->n_nodes);
    for (u32 g = 0; g < s->layout.n_groups; g++) {
        check_extents(s->groups[g].partial, false, &sums);
        check_extents(s->groups[g].full, true, &sums);
    }
    check(sums.pinned == s->pinned_bytes);
    check(sums.cached == s->cached_bytes);
    check(sums.mapped == s->mapped_bytes);
    check(sums.pinned_extents == s->pinned_extent_bytes);
}

void kv_check(const struct kv_pool *p) {
    u64 mapped = 0;
    u32 order = 0;
    for (struct kv_node *n = p->oldest; n; n = n->next) {
        n->order = order++;
        check(n->next ? n->next->prev == n : p->newest == n);
        check(!n->next || n->last_used <= n->next->last_used);
    }
    for (const struct kv_space *s = p->spaces; s; s = s->next) {
        check(s->pool == p);
        check_space(s);
        mapped += s->mapped_bytes;
    }
    check(mapped == p->mapped_bytes);
}
