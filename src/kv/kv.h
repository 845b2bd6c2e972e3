/* kv.h - the KV cache: pages of 64 tokens, sequences, and the prefix tree that keeps finished work.
 *
 * Pure bookkeeping plus memory obtained through kv_memory: no threads, no clock, no model knowledge.
 * The scheduler owns all of it (the simulator drives it with memory that is never touched); the forward
 * pass only reads the page tables of a kv_seq and writes into its pages.
 *
 *   kv_pool   all extents of the process and how many bytes may be mapped
 *   kv_space  one kv_identity: its layer groups, their pages and the prefix tree
 *   kv_seq    one sequence's page tables, one per layer group
 *
 * A page holds KV_PAGE_TOKENS consecutive positions of all layers of one group, laid out
 *   [layer in group][kv head][K slice | V slice]     (slice layout: kern.h, struct kern_attend)
 * and is in one of three states: free (in its extent's free list), cached (referenced by tree nodes
 * only) or pinned (by at least one open sequence, maybe by nodes too). Full pages are shared between
 * sequences and never written again; a partly filled one is written only by the one sequence that holds
 * it alone. Extents are multiples of 2 MiB chosen so that at most 1/16 is lost; an extent goes back to
 * the system when all its pages are free. Window pages are released when the window has left them. */
#ifndef MINKA_KV_H
#define MINKA_KV_H

#include "base/base.h"

#define KV_PAGE_TOKENS 64u
#define KV_GROUPS_MAX 4u

/* Where extents come from: mmap in the engine, addresses that nobody may touch in the simulator. */
struct kv_memory {
    void *(*map)(void *ctx, u64 bytes); /* zeroed, 2 MiB aligned; NULL = the system has none */
    void (*unmap)(void *ctx, void *p, u64 bytes);
    /* Copies a page whose first part another sequence goes on from; NULL = memcpy. The only place where
     * this folder would touch the memory: whoever writes a position first brings its block in order. */
    void (*copy)(void *ctx, void *dst, const void *src, u64 bytes);
    void *ctx;
};

/* Extents from anonymous mappings, for everybody who computes. Stateless. */
extern const struct kv_memory kv_memory_anonymous;

/* One layer group: layers whose pages live and die together. */
struct kv_group {
    u32 n_layers;
    u32 n_kv_heads;
    u32 head_dim;
    u32 elem_bytes;  /* of an element of K or V */
    u32 window;      /* 0 = full attention: pages stay; else only the last `window` positions are needed */
    u32 scale_bytes; /* beside the elements of one position and head, K or V */
};

struct kv_layout {
    u32 n_groups;
    struct kv_group groups[KV_GROUPS_MAX];
};

struct kv_pool;
struct kv_space;
struct kv_page;
struct kv_node;

/* A sequence: KV for positions 0..n_tokens-1 of `tokens` that somebody else keeps. Zeroed = empty. It
 * must not move in memory while it is open, and starts at least zeroed. */
struct kv_seq {
    struct kv_space *space; /* NULL = empty */
    u32 n_tokens;           /* positions whose K and V are computed (the owner advances it after a step) */
    struct kv_table {
        void **pages; /* [n_pages] index = position / 64; NULL where the window has left */
        u32 n_pages;  /* reserved up to here */
        u32 cap;
        u32 n_released;        /* pages 0..n_released-1 are NULL (window groups) */
        struct kv_page **held; /* [n_pages] kv: the same pages with their reference counts */
    } tables[KV_GROUPS_MAX];
    struct kv_node *node; /* kv: the tree node this sequence pins; it ends where publishing has come to */
    struct kv_seq *prev, *next; /* kv: open sequences of the space */
};

/* Bytes of one page; of one K or V slice in it; offset of a slice in its page. */
u64 kv_page_bytes(const struct kv_group *g);
static inline u64 kv_slice_bytes(const struct kv_group *g) {
    return KV_PAGE_TOKENS * ((u64)g->head_dim * g->elem_bytes + g->scale_bytes);
}
static inline u64 kv_slice_offset(const struct kv_group *g, u32 layer_in_group, u32 head, bool v) {
    return ((u64)(layer_in_group * g->n_kv_heads + head) * 2 + v) * kv_slice_bytes(g);
}
/* Bytes that a sequence of n_tokens takes, in whole pages of all groups: what the ledger books. */
u64 kv_plan_bytes(const struct kv_layout *l, u32 n_tokens);
/* The same in whole extents: what must be free for a sequence that is alone in the pool. */
u64 kv_plan_extent_bytes(const struct kv_layout *l, u32 n_tokens);
/* Size of one extent of the group: a multiple of 2 MiB of which whole pages fill at least 15/16. */
u64 kv_extent_bytes(const struct kv_group *g);

struct kv_pool *kv_pool_new(struct kv_memory memory) MUST_USE;
void kv_pool_free(struct kv_pool *p); /* all spaces must be freed before */
/* Most bytes of extents that may be mapped; may be below what is mapped now (then only frees). */
void kv_pool_limit(struct kv_pool *p, u64 bytes);
u64 kv_pool_mapped_bytes(const struct kv_pool *p); /* extents, what the ledger counts */
u64 kv_pool_limit_bytes(const struct kv_pool *p);
/* Extents with pinned pages: what stays mapped when kv_evict has freed all it can. */
u64 kv_pool_pinned_extent_bytes(const struct kv_pool *p);
u64 kv_space_pinned_extent_bytes(const struct kv_space *s);
u64 kv_space_pinned_bytes(const struct kv_space *s); /* pages only */
/* The last page that could not be had: the system had no memory (else the limit was reached). */
bool kv_pool_refused(const struct kv_pool *p);

/* identity: hash of model digest, KV type, rope variant, numerics version, kernel tier unless proven
 * equal, page layout and tenant; two spaces never share pages. */
struct kv_space *kv_space_new(struct kv_pool *p, const struct kv_layout *l, u64 identity) MUST_USE;
void kv_space_free(struct kv_space *s); /* all sequences closed; drops the tree */
const struct kv_layout *kv_space_layout(const struct kv_space *s);
u64 kv_space_identity(const struct kv_space *s);

/* Opens a sequence for tokens[n], n >= 1: finds the longest prefix in the tree, at most n - 1 tokens (at
 * least one must be computed), pins its pages and returns how many tokens are covered (= seq->n_tokens).
 * A match that ends inside a page copies the used part of that page to a new one; without room for the
 * copy the match ends at the page border. Matches count only where every group is present (for window
 * groups: the last `window` positions). now orders the least-recently-used list. */
u32 kv_seq_open(struct kv_seq *seq, struct kv_space *s, const u32 *tokens, u32 n, u64 now);
/* How many tokens kv_seq_open would cover at best, without opening. */
u32 kv_space_match(struct kv_space *s, const u32 *tokens, u32 n);
/* Bytes that opening tokens[n] and reserving n_reserve positions would pin anew: new pages and cached ones.
 */
u64 kv_space_need_bytes(struct kv_space *s, const u32 *tokens, u32 n, u32 n_reserve);
/* Pages for positions up to n_tokens - 1 in all groups. All or nothing; false = the pool has no room:
 * evict, park, or wait. */
bool kv_seq_reserve(struct kv_seq *seq, u32 n_tokens) MUST_USE;
/* How many bytes of new pages kv_seq_reserve would need (extents may already hold them). */
u64 kv_seq_need_bytes(const struct kv_seq *seq, u32 n_tokens);
/* Bytes of the pages in its tables. */
u64 kv_seq_held_bytes(const struct kv_seq *seq);
/* Makes the sequence's full pages of tokens[0..n_tokens-1] findable while it goes on (a prompt shared by
 * later arrivals). n_tokens <= seq->n_tokens. Cheap when nothing is new. */
void kv_seq_publish(struct kv_seq *seq, const u32 *tokens, u32 n_tokens, u64 now);
/* Releases window pages that no position >= seq->n_tokens can see. The tree keeps some of them, so that other
 * prompts can branch off: the window before every fourth multiple of the window, and before each branch. */
void kv_seq_trim(struct kv_seq *seq);
/* Ends the sequence. keep: its computed positions (partial last page too) go into the tree, unpinned;
 * else its private pages are freed. The kv_seq is empty afterwards; closing an empty one is allowed. */
void kv_seq_close(struct kv_seq *seq, const u32 *tokens, bool keep, u64 now);

/* Frees least recently used tree nodes that no sequence pins, each from its end, then pages of pinned nodes
 * that no sequence holds, until `bytes` are freed or nothing is left; returns the bytes freed. The nodes of
 * spare (may be NULL) go last. Freed pages help only their own group until their extent is empty. */
u64 kv_evict(struct kv_pool *p, u64 bytes, const struct kv_space *spare);
/* Drops every unpinned node of the space. */
void kv_space_drop_cached(struct kv_space *s);

struct kv_stats {
    u64 pinned_bytes;  /* pages held by open sequences (shared ones once) */
    u64 cached_bytes;  /* pages held by the tree only */
    u64 free_bytes;    /* pages free inside mapped extents, and what extents lose at their ends */
    u64 pinned_tokens; /* positions computed in open sequences, shared ones counted once per page */
    u32 n_nodes;
};
void kv_space_stats(const struct kv_space *s, struct kv_stats *out);
void kv_pool_stats(const struct kv_pool *p, struct kv_stats *out);
/* Invariants: every page in exactly one state, reference counts equal the references found, pinned +
 * cached + free = mapped, tree edges sorted and disjoint. Aborts by check(). */
void kv_check(const struct kv_pool *p);

#endif
