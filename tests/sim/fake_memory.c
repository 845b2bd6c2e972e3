/* fake_memory.c - see the header. Addresses are handed out once and never again, so that a page that is used
 * after its extent went back is found. */
#include "fake_memory.h"

#include <stdlib.h>

#define FAKE_BASE ((uintptr_t)1 << 40)
#define FAKE_UNIT ((u64)2 << 20)

static u32 unit_index(uintptr_t addr) {
    check(addr >= FAKE_BASE);
    return u32_of((addr - FAKE_BASE) / FAKE_UNIT);
}

static void *fake_map(void *ctx, u64 bytes) {
    struct fake_memory *m = ctx;
    check(bytes > 0 && bytes % FAKE_UNIT == 0);
    m->n_maps++;
    if (m->fail_at && --m->fail_at == 0)
        return NULL;
    if (m->fail_percent && random_percent(&m->random, m->fail_percent))
        return NULL;
    u32 n = u32_of(bytes / FAKE_UNIT);
    if (m->n_index + n > m->cap) {
        m->cap = MAX(m->cap * 2, m->n_index + n);
        m->by_index = xrealloc(m->by_index, m->cap * sizeof *m->by_index);
    }
    struct fake_extent *e = xcalloc(1, sizeof *e);
    e->addr = FAKE_BASE + m->n_index * FAKE_UNIT;
    e->bytes = bytes;
    for (u32 i = 0; i < n; i++)
        m->by_index[m->n_index++] = e;
    m->mapped_bytes += bytes;
    return (void *)e->addr;
}

static void fake_unmap(void *ctx, void *p, u64 bytes) {
    struct fake_memory *m = ctx;
    u32 first = unit_index((uintptr_t)p);
    check(first < m->n_index);
    struct fake_extent *e = m->by_index[first];
    check(e && e->addr == (uintptr_t)p && e->bytes == bytes);
    for (u32 i = 0; i < bytes / FAKE_UNIT; i++)
        m->by_index[first + i] = NULL;
    m->mapped_bytes -= bytes;
    for (u32 i = 0; i < e->n_pages; i++)
        free(e->pages[i]);
    free(e->pages);
    free(e);
}

u64 *fake_memory_words(struct fake_memory *m, const void *page) {
    uintptr_t addr = (uintptr_t)page;
    u32 index = unit_index(addr);
    check(index < m->n_index);
    struct fake_extent *e = m->by_index[index];
    check(e != NULL);
    for (u32 i = 0; i < e->n_pages; i++)
        if (e->pages[i]->addr == addr)
            return e->pages[i]->words;
    if (e->n_pages == e->cap) {
        e->cap = e->cap ? e->cap * 2 : 4;
        e->pages = xrealloc(e->pages, e->cap * sizeof *e->pages);
    }
    struct fake_page *p = xcalloc(1, sizeof *p);
    p->addr = addr;
    e->pages[e->n_pages++] = p;
    return p->words;
}

static void fake_copy(void *ctx, void *dst, const void *src, u64 bytes) {
    struct fake_memory *m = ctx;
    check(bytes > 0);
    memcpy(fake_memory_words(m, dst), fake_memory_words(m, src), KV_PAGE_TOKENS * sizeof(u64));
    m->n_copies++;
}

struct kv_memory fake_memory_hooks(struct fake_memory *m) {
    return (struct kv_memory){.map = fake_map, .unmap = fake_unmap, .copy = fake_copy, .ctx = m};
}

void fake_memory_release(struct fake_memory *m) {
    check(m->mapped_bytes == 0);
    free(m->by_index);
    *m = (struct fake_memory){0};
}
