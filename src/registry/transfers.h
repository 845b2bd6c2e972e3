/* transfers.h - pulls and pushes under a loop: each on a thread of its own, progress and end handed back to
 * the loop, requests for the same name sharing one.
 *
 *   start --> RUNNING --> over: every listener is told
 *               | the last listener leaves
 *               +--> CANCELED --> over: nobody is told
 *
 * A late listener is told first what the others were told so far (of each blob the latest). */
#ifndef MINKA_REGISTRY_TRANSFERS_H
#define MINKA_REGISTRY_TRANSFERS_H

#include <uv.h>

#include "registry/registry.h"

struct transfers;

/* config and its texts are copied. All functions on the loop's thread. */
struct transfers *transfers_new(uv_loop_t *loop, struct store *store,
                                const struct registry_config *config) MUST_USE;
struct transfer_service transfers_service(struct transfers *t);
/* Cancels all, waits for their threads (they look every 50 ms), tells listeners that are left; the loop must
 * turn once more, then the memory is gone. */
void transfers_close(struct transfers *t);

#endif
