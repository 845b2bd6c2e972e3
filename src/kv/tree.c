/* tree.c - the prefix tree of a space: a radix tree over tokens whose nodes hold pages.
 *
 * A node ends where sequences diverge, where a turn ended, or where one that still runs has got to (its
 * `owner` extends it in place). Splitting a node costs no page: a page that the cut goes through is held by
 * both parts. Nodes are in one list of the pool by last use, children before their parents. */
#include "kv/internal.h"

#include <stdlib.h>

/* ---------------------------------------------------------------- list by last use */

static void list_remove(struct kv_node *n) {
    struct kv_pool *p = n->space->pool;
    if (n->next)
        n->next->prev = n->prev;
    else
        p->newest = n->prev;
    if (n->prev)
        n->prev->next = n->next;
    else
        p->oldest = n->next;
    n->prev = n->next = NULL;
}

/* Behind `at`; NULL = as the oldest. */
static void list_insert(struct kv_node *n, struct kv_node *at) {
    struct kv_pool *p = n->space->pool;
    n->prev = at;
    n->next = at ? at->next : p->oldest;
    if (n->next)
        n->next->prev = n;
    else
        p->newest = n;
    if (at)
        at->next = n;
    else
        p->oldest = n;
}

/* A parent is used when a child is, and goes behind it. */
void kv_node_touch(struct kv_node *n, u64 now) {
    for (; n->parent; n = n->parent) {
        n->last_used = MAX(n->last_used, now);
        list_remove(n);
        struct kv_node *at = n->space->pool->newest;
        while (at && at->last_used > n->last_used)
            at = at->prev;
        list_insert(n, at);
    }
}

/* ---------------------------------------------------------------- nodes */

/* Index of the first child whose first token is >= token. */
static u32 child_index(const struct kv_node *n, u32 token) {
    u32 lo = 0, hi = n->n_children;
    while (lo < hi) {
        u32 mid = lo + (hi - lo) / 2;
        if (n->children[mid]->tokens[0] < token)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

struct kv_node *kv_node_child(const struct kv_node *n, u32 token) {
    u32 i = child_index(n, token);
    return i < n->n_children && n->children[i]->tokens[0] == token ? n->children[i] : NULL;
}

static void child_add(struct kv_node *parent, struct kv_node *n) {
    if (parent->n_children == parent->children_cap) {
        parent->children_cap = parent->children_cap ? parent->children_cap * 2 : 2;
        parent->children = xrealloc(parent->children, parent->children_cap * sizeof(struct kv_node *));
    }
    u32 at = child_index(parent, n->tokens[0]);
    memmove(&parent->children[at + 1], &parent->children[at],
            (parent->n_children - at) * sizeof(struct kv_node *));
    parent->children[at] = n;
    parent->n_children++;
}

static void child_remove(struct kv_node *parent, const struct kv_node *n) {
    u32 at = child_index(parent, n->tokens[0]);
    check(parent->children[at] == n);
    parent->n_children--;
    memmove(&parent->children[at], &parent->children[at + 1],
            (parent->n_children - at) * sizeof(struct kv_node *));
}

struct kv_node *kv_node_new(struct kv_space *s, struct kv_node *parent, u32 start) {
    struct kv_node *n = xcalloc(1, sizeof *n);
    n->space = s;
    n->parent = parent;
    n->start = start;
    if (parent) {
        list_insert(n, s->pool->newest);
        s->n_nodes++;
    }
    return n;
}

/* The node's hold on page i of group g ends; true if that freed the page. */
static bool node_drop_page(struct kv_node *n, u32 group, u32 page_index) {
    struct kv_page **slot = &n->pages[group][page_index - node_first_page(n)];
    struct kv_page *p = *slot;
    *slot = NULL;
    if (!p)
        return false;
    bool last = p->node_refs == 1 && p->seq_refs == 0;
    kv_page_unref_node(p);
    return last;
}

static void node_drop_pages(struct kv_node *n) {
    for (u32 g = 0; g < n->space->layout.n_groups; g++)
        for (u32 i = node_first_page(n); i < node_page_end(n); i++)
            node_drop_page(n, g, i);
}

void kv_node_free(struct kv_node *n) {
    check(n->n_children == 0 && n->n_pins == 0);
    if (n->parent) {
        node_drop_pages(n);
        list_remove(n);
        child_remove(n->parent, n);
        n->space->n_nodes--;
    }
    for (u32 g = 0; g < KV_GROUPS_MAX; g++)
        free(n->pages[g]);
    free(n->children);
    free(n->tokens);
    free(n);
}

static void node_grow(struct kv_node *n, u32 n_tokens) {
    if (n_tokens > n->tokens_cap) {
        n->tokens_cap = MAX(n_tokens, n->tokens_cap * 2);
        n->tokens = xrealloc(n->tokens, n->tokens_cap * sizeof(u32));
    }
    u32 n_pages = DIV_CEIL(n->start + n_tokens, KV_PAGE_TOKENS) - node_first_page(n);
    if (n_pages <= n->pages_cap)
        return;
    n->pages_cap = MAX(n_pages, n->pages_cap * 2);
    for (u32 g = 0; g < n->space->layout.n_groups; g++)
        n->pages[g] = xrealloc(n->pages[g], n->pages_cap * sizeof(struct kv_page *));
}

struct kv_node *kv_node_split(struct kv_node *n, u32 at) {
    check(at > 0 && at < n->n_tokens);
    struct kv_node *parent = n->parent;
    u32 cut = n->start + at, first = node_first_page(n), page_end = node_page_end(n);
    child_remove(parent, n);
    struct kv_node *upper = kv_node_new(n->space, parent, n->start);
    node_grow(upper, at);
    memcpy(upper->tokens, n->tokens, at * sizeof(u32));
    upper->n_tokens = at;
    upper->last_used = n->last_used;
    list_remove(upper);
    list_insert(upper, n);
    child_add(parent, upper);

    n->start = cut;
    n->n_tokens -= at;
    n->parent = upper;
    memmove(n->tokens, n->tokens + at, n->n_tokens * sizeof(u32));
    u32 upper_pages = node_page_end(upper) - first, skip = node_first_page(n) - first;
    for (u32 g = 0; g < n->space->layout.n_groups; g++) {
        struct kv_page **pages = n->pages[g];
        memcpy(upper->pages[g], pages, upper_pages * sizeof *pages);
        if (upper_pages > skip && pages[skip])
            kv_page_ref_node(pages[skip]);
        memmove(pages, pages + skip, (page_end - first - skip) * sizeof *pages);
    }
    child_add(upper, n);
    return upper;
}

/* ---------------------------------------------------------------- matching */

static u32 common_prefix(const u32 *a, const u32 *b, u32 n) {
    u32 i = 0;
    while (i < n && a[i] == b[i])
        i++;
    return i;
}

/* n_matched if the pages that the group needs for it are present. If page i is missing, the next candidate:
 * where the node that lacks it begins (the parent has a page i of its own), or where the page begins. */
static u32 match_group(const struct kv_node *node, u32 group, u32 n_matched) {
    const struct kv_group *g = &node->space->layout.groups[group];
    if (n_matched == 0)
        return n_matched;
    u32 first = window_start(g, n_matched) / KV_PAGE_TOKENS;
    for (u32 i = DIV_CEIL(n_matched, KV_PAGE_TOKENS); i-- > first;) {
        u32 last_pos = MIN((i + 1) * KV_PAGE_TOKENS, n_matched) - 1;
        while (node->start > last_pos)
            node = node->parent;
        if (!node->pages[group][i - node_first_page(node)])
            return MAX(node->start, i * KV_PAGE_TOKENS);
    }
    return n_matched;
}

u32 kv_tree_match(struct kv_space *s, const u32 *tokens, u32 n, struct kv_node **out) {
    struct kv_node *node = s->root;
    u32 pos = 0;
    while (pos < n && pos == node_end(node)) {
        struct kv_node *child = kv_node_child(node, tokens[pos]);
        if (!child)
            break;
        pos += common_prefix(child->tokens, tokens + pos, MIN(child->n_tokens, n - pos));
        node = child;
    }
    for (u32 before = UINT32_MAX; before != pos;) {
        before = pos;
        for (u32 g = 0; g < s->layout.n_groups; g++) {
            while (node->parent && node->start >= pos)
                node = node->parent;
            pos = match_group(node, g, pos);
        }
    }
    while (node->parent && node->start >= pos)
        node = node->parent;
    *out = node;
    return pos;
}

/* ---------------------------------------------------------------- inserting */

/* The sequence has computed positions that the node has too: they hold the same bits. What the
 * node lacks it takes; where both have a full page the sequence lets its own go. */
static void node_exchange(struct kv_node *n, struct kv_seq *seq, u32 n_computed) {
    for (u32 g = 0; g < n->space->layout.n_groups; g++) {
        struct kv_table *t = &seq->tables[g];
        for (u32 i = node_first_page(n); i < node_page_end(n); i++) {
            struct kv_page **slot = &n->pages[g][i - node_first_page(n)];
            struct kv_page *own = t->held[i];
            if (!own || own == *slot)
                continue;
            u32 page_end = (i + 1) * KV_PAGE_TOKENS;
            if (!*slot) {
                kv_page_ref_node(own);
                *slot = own;
            } else if (page_end <= n_computed && page_end <= node_end(n)) {
                kv_page_ref_seq(*slot);
                t->held[i] = *slot;
                t->pages[i] = (*slot)->data;
                kv_page_unref_seq(own);
            }
        }
    }
}

/* Appends tokens up to position end, with the pages of the sequence, to a node without children that no other
 * sequence pins (it would claim more than that one has computed). */
static void node_extend(struct kv_node *n, const struct kv_seq *seq, const u32 *tokens, u32 end) {
    u32 old_end = node_end(n);
    u32 from = old_end / KV_PAGE_TOKENS;
    check(n->n_tokens == 0 || old_end % KV_PAGE_TOKENS == 0);
    node_grow(n, end - n->start);
    memcpy(n->tokens + n->n_tokens, tokens + old_end, (end - old_end) * sizeof(u32));
    n->n_tokens = end - n->start;
    for (u32 g = 0; g < n->space->layout.n_groups; g++) {
        for (u32 i = from; i < node_page_end(n); i++) {
            struct kv_page *p = seq->tables[g].held[i];
            if (p)
                kv_page_ref_node(p);
            n->pages[g][i - node_first_page(n)] = p;
        }
    }
}

void kv_tree_insert(struct kv_seq *seq, const u32 *tokens, u32 n, u64 now) {
    struct kv_node *old = seq->node, *node = old;
    while (node_end(node) < n) {
        u32 pos = node_end(node);
        struct kv_node *child = kv_node_child(node, tokens[pos]);
        if (child) {
            u32 m = common_prefix(child->tokens, tokens + pos, MIN(child->n_tokens, n - pos));
            node = m < child->n_tokens ? kv_node_split(child, m) : child;
            node_exchange(node, seq, n);
        } else if (node->owner == seq && node->n_pins == 1 && node->n_children == 0) {
            node_extend(node, seq, tokens, n);
        } else {
            struct kv_node *leaf = kv_node_new(seq->space, node, pos);
            node_extend(leaf, seq, tokens, n);
            child_add(node, leaf);
            leaf->owner = seq;
            node = leaf;
        }
    }
    if (node != old) {
        old->n_pins--;
        if (old->owner == seq)
            old->owner = NULL;
        node->n_pins++;
        seq->node = node;
    }
    kv_node_touch(node, now);
}

/* ---------------------------------------------------------------- eviction */

/* Frees the pages at the end of a leaf, as many as are needed, or all of it. */
static u64 leaf_evict(struct kv_node *n, u64 bytes) {
    u64 freed = 0;
    u32 i = node_page_end(n);
    while (i > node_first_page(n) && freed < bytes) {
        i--;
        for (u32 g = 0; g < n->space->layout.n_groups; g++)
            if (node_drop_page(n, g, i))
                freed += n->space->groups[g].page_bytes;
    }
    if (i * KV_PAGE_TOKENS > n->start)
        n->n_tokens = i * KV_PAGE_TOKENS - n->start;
    else
        kv_node_free(n);
    return freed;
}

/* Leaves in order of last use; a parent comes behind its last child, so one pass gets everything. */
static u64 evict_leaves(struct kv_pool *p, u64 bytes, const struct kv_space *only,
                        const struct kv_space *spare) {
    u64 freed = 0;
    for (struct kv_node *n = p->oldest, *next; n && freed < bytes; n = next) {
        next = n->next;
        if (n->n_children || n->n_pins || n->space == spare || (only && n->space != only))
            continue;
        freed += leaf_evict(n, bytes - freed);
    }
    return freed;
}

/* Pages that only the tree holds in nodes that can't go: window pages behind their sequence's window, and
 * pages of which the sequence has a copy that goes on. */
static u64 evict_unpinned_pages(struct kv_pool *p, u64 bytes) {
    u64 freed = 0;
    for (struct kv_node *n = p->oldest; n && freed < bytes; n = n->next)
        for (u32 g = 0; g < n->space->layout.n_groups; g++)
            for (u32 i = node_first_page(n); i < node_page_end(n) && freed < bytes; i++) {
                struct kv_page *page = n->pages[g][i - node_first_page(n)];
                if (page && page->seq_refs == 0 && node_drop_page(n, g, i))
                    freed += n->space->groups[g].page_bytes;
            }
    return freed;
}

u64 kv_evict(struct kv_pool *p, u64 bytes, const struct kv_space *spare) {
    u64 freed = evict_leaves(p, bytes, NULL, spare);
    if (freed < bytes && spare)
        freed += evict_leaves(p, bytes - freed, NULL, NULL);
    if (freed < bytes)
        freed += evict_unpinned_pages(p, bytes - freed);
    return freed;
}

void kv_space_drop_cached(struct kv_space *s) { evict_leaves(s->pool, UINT64_MAX, s, NULL); }
