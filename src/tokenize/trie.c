/* trie.c - building the trie of trie.h. */
#include "tokenize/trie.h"

#include <stdlib.h>

#define NODES_MAX (1u << 28)

void trie_init(struct trie *t) {
    *t = (struct trie){.edge_shift = 64 - 6};
    t->edges = xcalloc(1u << 6, sizeof *t->edges);
    t->cap_nodes = 64;
    t->values = xmalloc(t->cap_nodes * sizeof *t->values);
    t->values[TRIE_ROOT] = TRIE_NONE;
    t->n_nodes = 1;
}

void trie_release(struct trie *t) {
    free(t->edges);
    free(t->values);
    *t = (struct trie){0};
}

u64 trie_bytes(const struct trie *t) {
    return t->edges ? (sizeof *t->edges << (64 - t->edge_shift)) + t->cap_nodes * sizeof *t->values : 0;
}

static void edge_put(struct trie *t, u64 edge) {
    u32 mask = (u32)((1ull << (64 - t->edge_shift)) - 1), i = trie_slot(t, edge >> 28);
    while (t->edges[i])
        i = (i + 1) & mask;
    t->edges[i] = edge;
}

static void edges_grow(struct trie *t) {
    u64 *old = t->edges, n = 1ull << (64 - t->edge_shift);
    t->edge_shift--;
    t->edges = xcalloc(2 * n, sizeof *t->edges);
    for (u64 i = 0; i < n; i++)
        if (old[i])
            edge_put(t, old[i]);
    free(old);
}

static u32 child_add(struct trie *t, u32 node, u8 byte) {
    u32 child = t->n_nodes++;
    if (child == t->cap_nodes) {
        t->cap_nodes *= 2;
        t->values = xrealloc(t->values, t->cap_nodes * sizeof *t->values);
    }
    t->values[child] = TRIE_NONE;
    if (node == TRIE_ROOT) {
        t->first[byte] = child;
        return child;
    }
    if (2ull * ++t->n_edges > 1ull << (64 - t->edge_shift))
        edges_grow(t);
    edge_put(t, (u64)node << 36 | (u64)byte << 28 | child);
    return child;
}

bool trie_add(struct trie *t, struct str key, u32 value) {
    u32 node = TRIE_ROOT;
    if (t->n_nodes + key.n >= NODES_MAX)
        return false;
    for (size_t i = 0; i < key.n; i++) {
        u32 child = trie_child(t, node, (u8)key.p[i]);
        node = child ? child : child_add(t, node, (u8)key.p[i]);
    }
    if (node != TRIE_ROOT)
        t->values[node] = value;
    return true;
}
