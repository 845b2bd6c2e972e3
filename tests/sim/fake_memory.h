/* fake_memory.h - memory for the KV pool that is never touched: addresses with a side table in which tests
 * keep one 64-bit word per position of a page. Recycled pages keep their old words, as real ones do. */
#ifndef MINKA_FAKE_MEMORY_H
#define MINKA_FAKE_MEMORY_H

#include "kv/kv.h"

struct fake_page {
    uintptr_t addr;
    u64 words[KV_PAGE_TOKENS];
};

struct fake_extent {
    uintptr_t addr;
    u64 bytes;
    struct fake_page **pages;
    u32 n_pages, cap;
};

struct fake_memory {
    struct fake_extent **by_index; /* [n_index] by 2 MiB of address; NULL = not mapped */
    u32 n_index, cap;
    u64 mapped_bytes, n_maps, n_copies;
    u64 fail_at;      /* the n-th map from now on fails once; 0 = none */
    u32 fail_percent; /* that many of 100 maps fail */
    u64 random;       /* state for fail_percent */
};

void fake_memory_release(struct fake_memory *m); /* all must be unmapped */
struct kv_memory fake_memory_hooks(struct fake_memory *m);
/* The words of the page at this address, which must be mapped. */
u64 *fake_memory_words(struct fake_memory *m, const void *page);

/* splitmix64: the tests' random numbers. */
static inline u64 random_next(u64 *state) {
    u64 z = (*state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}
/* 0..n-1 */
static inline u32 random_below(u64 *state, u32 n) { return n ? (u32)(random_next(state) % n) : 0; }
static inline bool random_percent(u64 *state, u32 percent) { return random_below(state, 100) < percent; }

#endif
