/* extent.c - extents from anonymous mappings: more is mapped than asked for, and what lies beside the aligned
 * part is given back. */
#include "kv/kv.h"

#include <sys/mman.h>

#define EXTENT_ALIGN_BYTES (2ull << 20)

static void *extent_map(void *ctx, u64 bytes) {
    (void)ctx;
    u8 *p = mmap(NULL, bytes + EXTENT_ALIGN_BYTES, PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED)
        return NULL;
    u8 *aligned = (u8 *)ALIGN_UP((uintptr_t)p, EXTENT_ALIGN_BYTES);
    if (aligned > p)
        munmap(p, (size_t)(aligned - p));
    munmap(aligned + bytes, (size_t)(p + EXTENT_ALIGN_BYTES - aligned));
    return aligned;
}

static void extent_unmap(void *ctx, void *p, u64 bytes) {
    (void)ctx;
    munmap(p, bytes);
}

const struct kv_memory kv_memory_anonymous = {.map = extent_map, .unmap = extent_unmap};
