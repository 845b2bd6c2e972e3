/* arena.h - memory by lifetime: everything of one request (or step, or load) comes from one arena
 * and goes with it. Pointers stay valid until arena_reset or arena_release; blocks never move. */
#ifndef MINKA_ARENA_H
#define MINKA_ARENA_H

#include "base/str.h"

struct arena_block;

struct arena {
    struct arena_block *head; /* newest block */
    size_t used_bytes;        /* handed out since init or reset */
    size_t limit_bytes;       /* 0 = no limit */
};

/* limit_bytes bounds what may be handed out; beyond it arena_try_alloc returns NULL. */
void arena_init(struct arena *a, size_t limit_bytes);
void arena_release(struct arena *a);
/* Frees all but one block; what was handed out is gone. */
void arena_reset(struct arena *a);

/* 16-byte aligned, not zeroed. NULL only when over the limit. */
void *arena_try_alloc(struct arena *a, size_t size) MUST_USE;
/* The same where being over the limit is our bug; zeroed. */
void *arena_alloc(struct arena *a, size_t size) MUST_USE;
#define ARENA_NEW(a, type) ((type *)arena_alloc((a), sizeof(type)))
#define ARENA_ARRAY(a, type, n) ((type *)arena_alloc((a), sizeof(type) * (n)))
/* Copies with a NUL behind the bytes (not counted in n). */
struct str arena_str(struct arena *a, struct str s);
struct str arena_printf(struct arena *a, const char *fmt, ...) PRINTF(2, 3);

#endif
