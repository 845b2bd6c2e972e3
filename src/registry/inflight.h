/* inflight.h - the blobs that this process is downloading now, so that two pulls that need the same one fetch
 * it once: the second waits for the first and takes over should that one give up. */
#ifndef MINKA_REGISTRY_INFLIGHT_H
#define MINKA_REGISTRY_INFLIGHT_H

#include "base/str.h"

struct inflight; /* one blob */

/* NULL: another pull has it; *have is how far that one is. store_path tells stores apart. */
struct inflight *inflight_take(const char *store_path, const char *digest, u64 *have);
void inflight_progress(struct inflight *i, u64 have);
void inflight_drop(struct inflight *i); /* NULL is fine */

#endif
