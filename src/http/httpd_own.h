/* httpd_own.h - what the files of the HTTP server share; nobody else includes it.
 *
 *   httpd.c    the daemon in the loop: start, pump, drain, stop
 *   conn.c     a connection: disconnect watch, deadlines, lingering close
 *   request.c  a request: framing checks, body, answer, stream
 *
 * Facts about libmicrohttpd 0.9.75 that shape this code, each with a test in tests/e2e/http:
 *   - it sees no disconnect while a connection is suspended: conn.c watches the socket itself;
 *   - it loses a FIN that arrives behind a short read: conn.c looks at the socket and shuts it down;
 *   - it calls the access handler of a suspended connection when the body was chunked;
 *   - its time-outs count from the last byte, so slow headers need our own deadline;
 *   - it accepts two Content-Length, or one beside Transfer-Encoding, and cuts a decoded path at %00;
 *   - it aborts the process if it is stopped while a connection is suspended. */
#ifndef MINKA_HTTPD_OWN_H
#define MINKA_HTTPD_OWN_H

#include <microhttpd.h>
#include <netinet/in.h>

#include "base/limit.h"
#include "http/httpd.h"

struct conn;

struct httpd {
    uv_loop_t *loop;
    struct MHD_Daemon *mhd;
    struct httpd_handler handler;
    struct httpd_options limit;
    uv_poll_t epoll;  /* readable when libmicrohttpd's epoll has events */
    uv_timer_t timer; /* its next time-out */
    uv_idle_t soon;   /* active: pump in the next turn */
    u32 n_handles_open;
    struct conn *conns; /* doubly linked */
    u32 n_conns;
    struct lingerer *lingers;
    u32 n_lingers;
    size_t bodies_bytes;
    bool draining, stopping, in_mhd;
};

struct conn {
    struct httpd *d;
    struct conn *next, *prev;
    struct MHD_Connection *mhd;
    int fd;        /* libmicrohttpd's, valid until it says CLOSED */
    int linger_fd; /* a duplicate to read off a refused body, or -1 */
    struct http_request *r;
    uv_poll_t watch;     /* UV_DISCONNECT on fd */
    uv_timer_t deadline; /* header, body or idle time */
    uv_timer_t recheck;  /* after a disconnect that has to wait */
    u32 n_handles_open;
    u32 n_requests;
    u64 body_mark; /* bytes of the body at the last look of the deadline */
    u32 n_quiet;   /* looks in a row that found nothing to wait for */
    bool hup;      /* the client will send nothing more */
    char peer[INET6_ADDRSTRLEN + 1];
};

struct http_request {
    struct conn *conn;
    struct buf body;    /* until on_body */
    u64 body_bytes;     /* received, kept or not */
    struct buf headers; /* of the answer: name NUL value NUL ... */
    struct buf out;     /* stream: bytes from out_at on are unsent */
    size_t out_at;
    struct MHD_Response *response; /* made, not yet queued */
    u32 response_status;
    u32 reject_status; /* 0 or the answer once the body is over */
    struct str method, path, query;
    void *data;
    u64 arrival_ns;
    bool begun;     /* headers seen */
    bool piecewise; /* on_begin said true, on_gone is due */
    bool delivered; /* on_body was called, on_gone is due */
    bool told;      /* on_gone was called */
    bool suspended; /* in libmicrohttpd */
    bool answered;  /* reply or stream_begin was called, or it is refused */
    bool streaming; /* answered by stream_begin */
    bool ended;     /* stream_end was called */
    bool aborted;   /* stream_abort was called */
    bool dead;      /* the client is gone or the server stops: unwind */
    char uri[];     /* raw; path is decoded in place */
};

/* Lets libmicrohttpd run in this or the next turn of the loop, once for any number of calls. */
void httpd_wake(struct httpd *d);

/* MHD_NotifyConnectionCallback. */
void conn_notify(void *cls, struct MHD_Connection *c, void **socket_context,
                 enum MHD_ConnectionNotificationCode code);
struct conn *conn_of(struct MHD_Connection *c);
void conn_deadline_set(struct conn *k, u32 ms); /* 0 = none */
/* Looks at a half-closed connection again soon. */
void conn_recheck(struct conn *k);
/* Makes libmicrohttpd see the end of the connection. */
void conn_cut(struct conn *k);
/* The response will be followed by a close although the client may still send: read that off first. */
void conn_linger(struct conn *k);
void lingers_close(struct httpd *d);
void conn_idle(struct conn *k);

/* Callbacks for libmicrohttpd. */
void *request_uri(void *cls, const char *uri, struct MHD_Connection *c);
enum MHD_Result request_access(void *cls, struct MHD_Connection *c, const char *url, const char *method,
                               const char *version, const char *data, size_t *size, void **con_cls);
void request_completed(void *cls, struct MHD_Connection *c, void **con_cls,
                       enum MHD_RequestTerminationCode code);
/* The handler has r and its answer is not complete: a disconnect ends it. */
bool request_open(const struct http_request *r);
/* Tells the handler, then unwinds. */
void request_lost(struct http_request *r);

/* Decodes %XX in place; false on a bad escape or a NUL. */
bool percent_decode(char *s, size_t *n);

#endif
