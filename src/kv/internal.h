/* internal.h - what the files of this folder share: pool.c (extents, pages), tree.c (nodes, matching,
 * eviction), seq.c (sequences), check.c (figures and invariants). */
#ifndef MINKA_KV_INTERNAL_H
#define MINKA_KV_INTERNAL_H

#include "base/limit.h"
#include "kv/kv.h"

#define KV_EXTENT_BYTES ((u64)2 << 20)

struct kv_page {
    struct kv_extent *extent;
    void *data;
    u32 seq_refs;                        /* tables of open sequences that hold it */
    u32 node_refs;                       /* tree nodes that hold it; free when both are 0 */
    u32 found_seq_refs, found_node_refs; /* kv_check and kv_space_stats: counted by walking */
};

/* One mapping, cut into pages of one layer group. */
struct kv_extent {
    struct kv_space *space;
    u32 group;
    void *data;
    u32 n_pages, n_free;
    u32 n_pinned;                  /* pages with seq_refs */
    u32 *free;                     /* [n_free] stack of page indices */
    struct kv_page *pages;         /* [n_pages] */
    struct kv_extent *prev, *next; /* group's list: those with free pages come first */
};

struct kv_group_pool {
    u64 page_bytes;
    u64 extent_bytes;
    u32 extent_pages;
    struct kv_extent *partial, *full;
};

/* A tree node: positions start..start+n_tokens-1 of every sequence that begins with the tokens on the path
 * from the root. It holds, per group, the pages that overlap its positions; where a page crosses
 * the border to the parent, its part before `start` belongs to the same path, so the deepest node of a path
 * that overlaps a page has the right one. */
struct kv_node {
    struct kv_space *space;
    struct kv_node *parent;
    struct kv_node **children; /* [n_children] ascending by first token */
    u32 n_children, children_cap;
    u32 start;
    u32 n_tokens, tokens_cap;
    u32 *tokens;                           /* [n_tokens]; n_tokens is 0 only in the root */
    struct kv_page **pages[KV_GROUPS_MAX]; /* [pages_cap] from page start/64 on; NULL = not held */
    u32 pages_cap;
    u32 n_pins;                 /* sequences whose node this is */
    u32 order;                  /* kv_check: place in the list */
    const struct kv_seq *owner; /* the open sequence whose publishing makes this leaf grow; NULL = finished */
    u64 last_used;
    struct kv_node *prev, *next; /* the pool's list, least recently used first; not the root */
};

struct kv_space {
    struct kv_pool *pool;
    struct kv_layout layout;
    u64 identity;
    struct kv_group_pool groups[KV_GROUPS_MAX];
    struct kv_node *root;
    struct kv_seq *seqs;
    u32 n_nodes; /* without the root */
    u64 pinned_bytes, cached_bytes, mapped_bytes;
    u64 pinned_extent_bytes; /* extents with n_pinned > 0 */
    struct kv_space *prev, *next;
};

struct kv_pool {
    struct kv_memory memory;
    u64 limit_bytes, mapped_bytes;
    bool refused; /* the system, not the limit, said no to the last map */
    struct kv_space *spaces;
    struct kv_node *oldest, *newest;
};

/* --- pool.c --- */
/* A page with no references yet, or NULL. */
struct kv_page *kv_page_alloc(struct kv_space *s, u32 group);
void kv_page_ref_seq(struct kv_page *p);
void kv_page_unref_seq(struct kv_page *p);
void kv_page_ref_node(struct kv_page *p);
void kv_page_unref_node(struct kv_page *p);
/* Gives back a page that never got a reference. */
void kv_page_discard(struct kv_page *p);

/* --- tree.c --- */
static inline u32 node_end(const struct kv_node *n) { return n->start + n->n_tokens; }
static inline u32 node_first_page(const struct kv_node *n) { return n->start / KV_PAGE_TOKENS; }
static inline u32 node_page_end(const struct kv_node *n) { return DIV_CEIL(node_end(n), KV_PAGE_TOKENS); }
/* First position that a query at position n_tokens can see in this group. */
static inline u32 window_start(const struct kv_group *g, u32 n_tokens) {
    return g->window == 0 || n_tokens < g->window ? 0 : n_tokens - g->window + 1;
}
struct kv_node *kv_node_new(struct kv_space *s, struct kv_node *parent, u32 start);
/* Drops the node's pages and the node; it has no children and no pins. */
void kv_node_free(struct kv_node *n);
void kv_node_touch(struct kv_node *n, u64 now);
struct kv_node *kv_node_child(const struct kv_node *n, u32 token);
/* Cuts n before its token at (0 < at < n_tokens); n stays the lower part, the new upper part is returned. */
struct kv_node *kv_node_split(struct kv_node *n, u32 at);
/* Longest usable match of tokens[n], see kv_seq_open: its length, and in *out the node that holds its last
 * position (the root if it is 0). */
u32 kv_tree_match(struct kv_space *s, const u32 *tokens, u32 n, struct kv_node **out);
/* Adds tokens[0..n-1] to the tree with the pages of seq, which holds them all (but released ones); moves
 * seq->node to where they end. */
void kv_tree_insert(struct kv_seq *seq, const u32 *tokens, u32 n, u64 now);

#endif
