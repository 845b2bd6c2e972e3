/* trie.h - byte strings -> u32, walked byte by byte. Edges lie in one hash table, so that 250k strings
 * cost two allocations and no pointers. */
#ifndef MINKA_TRIE_H
#define MINKA_TRIE_H

#include "base/str.h"

#define TRIE_ROOT 0u
#define TRIE_NONE UINT32_MAX

struct trie {
    u64 *edges;  /* node << 36 | byte << 28 | child; 0 = free */
    u32 *values; /* [n_nodes] TRIE_NONE: no string ends here */
    u32 n_nodes, cap_nodes, n_edges;
    u32 edge_shift; /* 64 - log2(slots) */
    u32 first[256]; /* children of the root; 0 = none */
};

void trie_init(struct trie *t);
void trie_release(struct trie *t);
/* A string that exists gets the new value; the empty one is ignored. False if the trie is full (2^28 nodes).
 */
bool trie_add(struct trie *t, struct str key, u32 value) MUST_USE;
u64 trie_bytes(const struct trie *t);

static inline u32 trie_slot(const struct trie *t, u64 key) {
    return (u32)((key * 0x9e3779b97f4a7c15ull) >> t->edge_shift);
}

/* Child of node over byte; 0 if there is none. */
static inline u32 trie_child(const struct trie *t, u32 node, u8 byte) {
    if (node == TRIE_ROOT)
        return t->first[byte];
    u64 key = (u64)node << 8 | byte;
    u32 mask = (u32)((1ull << (64 - t->edge_shift)) - 1);
    for (u32 i = trie_slot(t, key); t->edges[i]; i = (i + 1) & mask)
        if (t->edges[i] >> 28 == key)
            return (u32)(t->edges[i] & ((1u << 28) - 1));
    return 0;
}

#endif
