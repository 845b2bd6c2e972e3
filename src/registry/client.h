/* client.h - HTTP to one registry, for one transfer and on its thread: several requests at once, redirects
 * and token authentication done, every wait bounded.
 *
 *   fetch_start -> RUNNING -> (client_turn) -> FINISHED -> client_settle -> final answer, or RUNNING again
 *                                                          (redirect followed, token fetched)
 *
 * The Authorization header goes to the registry's own origin only. Plain http and unchecked certificates are
 * for `insecure`. Proxies come from the environment, never for a loopback address. */
#ifndef MINKA_REGISTRY_CLIENT_H
#define MINKA_REGISTRY_CLIENT_H

#include <stdatomic.h>

#include "base/buf.h"
#include "registry/key.h"

struct client;

struct client_options {
    const char *host;      /* "registry.example", "127.0.0.1:5000" */
    bool http;             /* scheme http */
    bool insecure;         /* redirects to http allowed, certificates not checked */
    const struct key *key; /* NULL: tokens are asked for anonymously */
    const atomic_bool *canceled;
    u32 stall_s;
};

enum status client_open(const struct client_options *o, struct client **out, struct err *err) MUST_USE;
void client_close(struct client *c);
/* "https://host" */
const char *client_base(const struct client *c);

enum fetch_state { FETCH_IDLE, FETCH_RUNNING, FETCH_FINISHED };

struct fetch {
    /* --- the question; texts stay the caller's until the answer --- */
    const char *method;
    const char *accept, *content_type; /* NULL = none */
    const char *extra_header;          /* "Name: value", or NULL */
    u64 range_from;                    /* > 0: "Range: bytes=N-" */
    struct str body;                   /* sent if body_fd < 0 */
    int body_fd;                       /* else these bytes of a file; 0 is none, set by fetch_init */
    u64 body_from, body_bytes;
    u32 stall_s;            /* 0 = the client's */
    bool keep_redirect;     /* a redirect is an answer; always so for what is neither GET nor HEAD */
    bool redirects_uploads; /* "X-Redirect-Uploads: 1": the registry may name a storage server */
    bool foreign;           /* never authorized: a storage server */
    size_t answer_bytes_max;
    /* Bytes of a 200 or 206 answer; NULL: they go to answer. False ends the fetch: f->refused should say why.
     */
    bool (*on_data)(void *ctx, const void *p, size_t n);
    void *ctx;

    /* --- the answer --- */
    enum fetch_state state;
    u32 code;                                        /* HTTP status; 0 = none */
    struct buf answer;                               /* body, or the beginning of an error's */
    struct buf location, upload_location, challenge; /* headers, empty if absent */
    i64 length;                                      /* Content-Length; -1 unknown */
    i64 range_start, range_total;                    /* Content-Range; -1 unknown */
    u64 sent;                                        /* bytes of the body handed to the system */
    bool unreachable;   /* no connection at all: the host, its name or its certificate is wrong */
    bool broken;        /* no answer: worth another try */
    struct err refused; /* set by on_data */

    /* --- the client's own --- */
    struct client *client;
    struct buf url;
    void *easy, *headers;
    u64 header_bytes;
    u32 n_redirects, token_serial, result;
    bool token_tried, body_over;
    char trouble[256];
};

void fetch_init(struct fetch *f);
/* Forgets the fetch, running or not; init again before the next use. */
void fetch_release(struct fetch *f);
enum status fetch_start(struct client *c, struct fetch *f, struct str url, struct err *err) MUST_USE;
/* Lets all running fetches go on for at most wait_ms. ERR_CANCELED when the transfer is cancelled. */
enum status client_turn(struct client *c, u32 wait_ms, struct err *err) MUST_USE;
/* For a FINISHED fetch. OK: state is FINISHED and the answer final (any code), or RUNNING again.
 * ERR_IO with f->broken: no answer. Others are final: refused by on_data, denied, too large. */
enum status client_settle(struct client *c, struct fetch *f, struct err *err) MUST_USE;
/* Start, turns and settle in one, until the final answer. */
enum status client_run(struct client *c, struct fetch *f, struct str url, struct err *err) MUST_USE;
/* An error of an answer's code: "file does not exist" for 404, else "<code>: <text>". */
enum status fetch_error(const struct fetch *f, struct err *err) MUST_USE;
/* A Location of f's answer as a whole URL. */
enum status fetch_resolve(const struct fetch *f, struct str location, struct buf *out,
                          struct err *err) MUST_USE;
/* Codes that may go away by themselves: 408, 429, 5xx. */
bool fetch_code_transient(u32 code);
/* Waits, ERR_CANCELED as client_turn. */
enum status client_wait(struct client *c, u64 ms, struct err *err) MUST_USE;

#endif
