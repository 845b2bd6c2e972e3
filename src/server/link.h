/* link.h - the server's end of the engine: starts the process, watches it, starts it anew when it dies, and
 * keeps the journal of open requests. Implements the backend of the API dialects. */
#ifndef MINKA_LINK_H
#define MINKA_LINK_H

#include <uv.h>

#include "api/api.h"
#include "base/settings.h"

struct link;

/* Starts the engine as a child running `<this program> engine` with its socket on descriptor 3. */
enum status link_new(uv_loop_t *loop, const struct settings *settings, struct store *store, struct link **out,
                     struct err *err) MUST_USE;
struct api_backend link_backend(struct link *l);
/* Ends the engine; on_closed when the loop no longer holds anything of it, then link_free. */
void link_close(struct link *l, void (*on_closed)(void *ctx), void *ctx);
void link_free(struct link *l);
/* Requests that have neither ended nor been cancelled. */
u32 link_open_requests(const struct link *l);

#endif
