/* pool.c - extents and pages. An extent belongs to one layer group of one space and is cut into pages of
 * one size; a group takes a free page of an extent it has before it maps another, so a sequence alone
 * never takes more extents than its pages need. */
#include "kv/internal.h"

#include <stdlib.h>

/* ---------------------------------------------------------------- sizes */

u64 kv_page_bytes(const struct kv_group *g) {
    return (u64)g->n_layers * g->n_kv_heads * 2 * kv_slice_bytes(g);
}

/* The smallest multiple of 2 MiB that whole pages fill to 15/16; 16 pages always do. */
u64 kv_extent_bytes(const struct kv_group *g) {
    u64 page = kv_page_bytes(g);
    u64 bytes = ALIGN_UP(page, KV_EXTENT_BYTES);
    while (bytes % page > bytes / 16)
        bytes += KV_EXTENT_BYTES;
    return bytes;
}

/* Pages of one group that a sequence of n_tokens holds at most: a window group still has the pages of
 * the step that is being computed. */
static u64 plan_pages(const struct kv_group *g, u32 n_tokens) {
    u64 all = DIV_CEIL((u64)n_tokens, KV_PAGE_TOKENS);
    if (g->window == 0)
        return all;
    return MIN(all, DIV_CEIL((u64)g->window + LIMIT_STEP_ROWS, KV_PAGE_TOKENS) + 1);
}

u64 kv_plan_bytes(const struct kv_layout *l, u32 n_tokens) {
    u64 sum = 0;
    for (u32 i = 0; i < l->n_groups; i++)
        sum += plan_pages(&l->groups[i], n_tokens) * kv_page_bytes(&l->groups[i]);
    return sum;
}

u64 kv_plan_extent_bytes(const struct kv_layout *l, u32 n_tokens) {
    u64 sum = 0;
    for (u32 i = 0; i < l->n_groups; i++) {
        u64 extent = kv_extent_bytes(&l->groups[i]);
        u64 per_extent = extent / kv_page_bytes(&l->groups[i]);
        sum += DIV_CEIL(plan_pages(&l->groups[i], n_tokens), per_extent) * extent;
    }
    return sum;
}

/* ---------------------------------------------------------------- pool and spaces */

struct kv_pool *kv_pool_new(struct kv_memory memory) {
    struct kv_pool *p = xcalloc(1, sizeof *p);
    p->memory = memory;
    return p;
}

void kv_pool_free(struct kv_pool *p) {
    check(p->spaces == NULL);
    check(p->mapped_bytes == 0);
    free(p);
}

void kv_pool_limit(struct kv_pool *p, u64 bytes) { p->limit_bytes = bytes; }
u64 kv_pool_mapped_bytes(const struct kv_pool *p) { return p->mapped_bytes; }
u64 kv_pool_limit_bytes(const struct kv_pool *p) { return p->limit_bytes; }
bool kv_pool_refused(const struct kv_pool *p) { return p->refused; }

u64 kv_pool_pinned_extent_bytes(const struct kv_pool *p) {
    u64 sum = 0;
    for (const struct kv_space *s = p->spaces; s; s = s->next)
        sum += s->pinned_extent_bytes;
    return sum;
}

u64 kv_space_pinned_extent_bytes(const struct kv_space *s) { return s->pinned_extent_bytes; }
u64 kv_space_pinned_bytes(const struct kv_space *s) { return s->pinned_bytes; }

static void group_init(struct kv_group_pool *gp, const struct kv_group *g) {
    check(g->n_layers > 0 && g->n_kv_heads > 0);
    check(g->head_dim > 0 && g->elem_bytes > 0);
    gp->page_bytes = kv_page_bytes(g);
    gp->extent_bytes = kv_extent_bytes(g);
    gp->extent_pages = u32_of(gp->extent_bytes / gp->page_bytes);
}

struct kv_space *kv_space_new(struct kv_pool *p, const struct kv_layout *l, u64 identity) {
    check(l->n_groups <= KV_GROUPS_MAX); /* 0: an encoder, which opens no sequences */
    struct kv_space *s = xcalloc(1, sizeof *s);
    s->pool = p;
    s->layout = *l;
    s->identity = identity;
    for (u32 i = 0; i < l->n_groups; i++)
        group_init(&s->groups[i], &l->groups[i]);
    s->root = kv_node_new(s, NULL, 0);
    s->next = p->spaces;
    if (s->next)
        s->next->prev = s;
    p->spaces = s;
    return s;
}

void kv_space_free(struct kv_space *s) {
    check(s->seqs == NULL);
    kv_space_drop_cached(s);
    check(s->n_nodes == 0 && s->mapped_bytes == 0);
    kv_node_free(s->root);
    if (s->next)
        s->next->prev = s->prev;
    if (s->prev)
        s->prev->next = s->next;
    else
        s->pool->spaces = s->next;
    free(s);
}

const struct kv_layout *kv_space_layout(const struct kv_space *s) { return &s->layout; }
u64 kv_space_identity(const struct kv_space *s) { return s->identity; }

/* ---------------------------------------------------------------- extents */

static struct kv_group_pool *extent_group(struct kv_extent *e) { return &e->space->groups[e->group]; }

static void extent_link(struct kv_extent *e, struct kv_extent **list) {
    e->prev = NULL;
    e->next = *list;
    if (e->next)
        e->next->prev = e;
    *list = e;
}

static void extent_unlink(struct kv_extent *e, struct kv_extent **list) {
    if (e->next)
        e->next->prev = e->prev;
    if (e->prev)
        e->prev->next = e->next;
    else
        *list = e->next;
}

static struct kv_extent *extent_map(struct kv_space *s, u32 group) {
    struct kv_group_pool *gp = &s->groups[group];
    struct kv_pool *pool = s->pool;
    pool->refused = false;
    if (pool->mapped_bytes + gp->extent_bytes > pool->limit_bytes)
        return NULL;
    void *data = pool->memory.map(pool->memory.ctx, gp->extent_bytes);
    pool->refused = !data;
    if (!data)
        return NULL;
    struct kv_extent *e = xcalloc(1, sizeof *e);
    *e = (struct kv_extent){.space = s, .group = group, .data = data};
    e->n_pages = e->n_free = gp->extent_pages;
    e->pages = xcalloc(e->n_pages, sizeof *e->pages);
    e->free = xmalloc(e->n_pages * sizeof *e->free);
    for (u32 i = 0; i < e->n_pages; i++) {
        /* An address, not an access: the memory may be a fake. */
        void *page = (void *)((uintptr_t)data + i * gp->page_bytes);
        e->pages[i] = (struct kv_page){.extent = e, .data = page};
        e->free[i] = e->n_pages - 1 - i;
    }
    pool->mapped_bytes += gp->extent_bytes;
    s->mapped_bytes += gp->extent_bytes;
    extent_link(e, &gp->partial);
    return e;
}

static void extent_unmap(struct kv_extent *e) {
    struct kv_group_pool *gp = extent_group(e);
    struct kv_pool *pool = e->space->pool;
    check(e->n_free == e->n_pages);
    extent_unlink(e, &gp->partial);
    pool->mapped_bytes -= gp->extent_bytes;
    e->space->mapped_bytes -= gp->extent_bytes;
    pool->memory.unmap(pool->memory.ctx, e->data, gp->extent_bytes);
    free(e->pages);
    free(e->free);
    free(e);
}

/* ---------------------------------------------------------------- pages */

struct kv_page *kv_page_alloc(struct kv_space *s, u32 group) {
    struct kv_group_pool *gp = &s->groups[group];
    struct kv_extent *e = gp->partial;
    if (!e)
        e = extent_map(s, group);
    if (!e)
        return NULL;
    struct kv_page *p = &e->pages[e->free[--e->n_free]];
    check(p->seq_refs == 0 && p->node_refs == 0);
    if (e->n_free == 0) {
        extent_unlink(e, &gp->partial);
        extent_link(e, &gp->full);
    }
    return p;
}

void kv_page_discard(struct kv_page *p) {
    struct kv_extent *e = p->extent;
    check(p->seq_refs == 0 && p->node_refs == 0);
    if (e->n_free == 0) {
        extent_unlink(e, &extent_group(e)->full);
        extent_link(e, &extent_group(e)->partial);
    }
    e->free[e->n_free++] = (u32)(p - e->pages);
    if (e->n_free == e->n_pages)
        extent_unmap(e);
}

static u64 page_bytes(const struct kv_page *p) { return extent_group(p->extent)->page_bytes; }

void kv_page_ref_seq(struct kv_page *p) {
    struct kv_space *s = p->extent->space;
    if (p->seq_refs++ > 0)
        return;
    if (p->extent->n_pinned++ == 0)
        s->pinned_extent_bytes += extent_group(p->extent)->extent_bytes;
    s->pinned_bytes += page_bytes(p);
    if (p->node_refs > 0)
        s->cached_bytes -= page_bytes(p);
}

void kv_page_unref_seq(struct kv_page *p) {
    struct kv_space *s = p->extent->space;
    check(p->seq_refs > 0);
    if (--p->seq_refs > 0)
        return;
    if (--p->extent->n_pinned == 0)
        s->pinned_extent_bytes -= extent_group(p->extent)->extent_bytes;
    s->pinned_bytes -= page_bytes(p);
    if (p->node_refs > 0)
        s->cached_bytes += page_bytes(p);
    else
        kv_page_discard(p);
}

void kv_page_ref_node(struct kv_page *p) {
    if (p->node_refs++ == 0 && p->seq_refs == 0)
        p->extent->space->cached_bytes += page_bytes(p);
}

void kv_page_unref_node(struct kv_page *p) {
    check(p->node_refs > 0);
    if (--p->node_refs > 0 || p->seq_refs > 0)
        return;
    p->extent->space->cached_bytes -= page_bytes(p);
    kv_page_discard(p);
}
