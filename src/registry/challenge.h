/* challenge.h - what a registry asks for with "WWW-Authenticate: Bearer realm=..,service=..,scope=..", and
 * the reply of its token service. */
#ifndef MINKA_REGISTRY_CHALLENGE_H
#define MINKA_REGISTRY_CHALLENGE_H

#include "base/arena.h"

struct challenge {
    struct str realm, service, scope; /* in the arena; empty = not said */
};

/* ERR_INVALID if it is no Bearer challenge with a realm. Unknown parameters are skipped. */
enum status challenge_parse(struct str header, struct arena *a, struct challenge *out,
                            struct err *err) MUST_USE;
/* The URL to get a token from: realm with nonce, scope (once per word), service and ts as its query, in this
 * order (sorted, as the reference sends them). */
struct str challenge_url(const struct challenge *c, struct str nonce, i64 unix_s, struct arena *a);
/* {"token":"..."} or {"access_token":"..."}; ERR_CORRUPT otherwise, or if it cannot stand in a header. */
enum status token_parse(struct str json, struct arena *a, struct str *token, struct err *err) MUST_USE;

#endif
