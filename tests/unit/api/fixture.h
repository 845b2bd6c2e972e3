/* fixture.h - the API over a real HTTP server on a loopback port, with a scripted backend, on its own thread;
 * and a small blocking client.
 *
 * The backend plays a script that the last user text (or the raw prompt) names: see scripts in fixture.c. */
#ifndef MINKA_TEST_API_FIXTURE_H
#define MINKA_TEST_API_FIXTURE_H

#include "api/api.h"

struct fixture;

struct fixture *fixture_open(const struct api_config *config);
void fixture_close(struct fixture *f);
/* A folder of the fixture's own; the store is in "models" below it. */
const char *fixture_folder(const struct fixture *f);

/* What the backend saw since the last call: requests, cancels, expiries, one line each. */
void fixture_seen(struct fixture *f, struct buf *out);
/* Waits up to 5 s until n requests have been cancelled since the start; the number seen. */
u32 fixture_cancelled(struct fixture *f, u32 n);

struct reply {
    u32 code;
    struct buf head; /* status line and headers */
    struct buf body; /* chunks put together */
    bool whole;      /* the length or the last chunk was there */
};
void reply_release(struct reply *r);
/* Sends bytes as they are and reads to the end of the connection. */
void fixture_raw(struct fixture *f, struct str bytes, struct reply *out);
/* One request with Connection: close; headers: more lines, each ended by \r\n. */
void fixture_ask(struct fixture *f, const char *method, const char *path, const char *headers,
                 struct str body, struct reply *out);
/* A connection whose request has been sent; the caller reads or closes it. */
int fixture_send(struct fixture *f, const char *method, const char *path, struct str body);
/* Value of a header, "" if absent. */
struct str reply_header(const struct reply *r, const char *name);

#endif
