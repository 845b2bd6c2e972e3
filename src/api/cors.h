/* cors.h - who may ask: origins of browser pages, and the Host header (against DNS rebinding). */
#ifndef MINKA_API_CORS_H
#define MINKA_API_CORS_H

#include "base/arena.h"

struct origins {
    const struct str *items; /* [n] lower case; at most one '*' each */
    u32 n;
    bool all; /* "*" is among them */
};

/* The comma list of OLLAMA_ORIGINS and the built-in local ones. Text lives in the arena. */
void origins_init(struct origins *o, struct str list, struct arena *a);
bool origin_allowed(const struct origins *o, struct str origin);
/* True if origin is http(s)://<host>: a page of this server itself, not a CORS request. */
bool origin_is_own(struct str origin, struct str host);

enum host_kind { HOST_REFUSED, HOST_ADDRESS, HOST_NAME };
/* What a Host header (port and all) names; asked only when the listener is a loopback address. */
enum host_kind host_check(struct str host);

#endif
