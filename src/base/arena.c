/* arena.c - bump allocation in blocks that double up to 1 MiB. */
#include "base/arena.h"

#include <stdio.h>
#include <stdlib.h>

#define ARENA_FIRST_BYTES 4096u
#define ARENA_BLOCK_BYTES_MAX (1u << 20)

struct arena_block {
    struct arena_block *next;
    size_t size; /* of data */
    size_t used;
    _Alignas(16) u8 data[];
};

void arena_init(struct arena *a, size_t limit_bytes) { *a = (struct arena){NULL, 0, limit_bytes}; }

void arena_release(struct arena *a) {
    for (struct arena_block *b = a->head, *next; b; b = next) {
        next = b->next;
        free(b);
    }
    a->head = NULL;
    a->used_bytes = 0;
}

void arena_reset(struct arena *a) {
    if (!a->head)
        return;
    struct arena_block *keep = a->head;
    a->head = keep->next;
    arena_release(a);
    keep->next = NULL;
    keep->used = 0;
    a->head = keep;
}

void *arena_try_alloc(struct arena *a, size_t size) {
    check(size < SIZE_MAX / 4);
    size = ALIGN_UP(MAX(size, 1), 16);
    if (a->limit_bytes && (size > a->limit_bytes || a->used_bytes > a->limit_bytes - size))
        return NULL;
    struct arena_block *b = a->head;
    if (!b || b->size - b->used < size) {
        size_t want = b ? MIN(b->size * 2, (size_t)ARENA_BLOCK_BYTES_MAX) : ARENA_FIRST_BYTES;
        want = MAX(want, size);
        b = xmalloc(sizeof *b + want);
        *b = (struct arena_block){a->head, want, 0};
        a->head = b;
    }
    void *p = b->data + b->used;
    b->used += size;
    a->used_bytes += size;
    return p;
}

void *arena_alloc(struct arena *a, size_t size) {
    void *p = arena_try_alloc(a, size);
    check(p != NULL);
    return memset(p, 0, size);
}

struct str arena_str(struct arena *a, struct str s) {
    char *p = arena_alloc(a, s.n + 1);
    if (s.n)
        memcpy(p, s.p, s.n);
    return (struct str){p, s.n};
}

struct str arena_printf(struct arena *a, const char *fmt, ...) {
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    check(n >= 0);
    char *p = arena_alloc(a, (size_t)n + 1);
    vsnprintf(p, (size_t)n + 1, fmt, again);
    va_end(again);
    va_end(again);
    return (struct str){p, (size_t)n};
}
