/* httpd.h - the HTTP server: libmicrohttpd inside a libuv loop, behind a few functions, so that nothing else
 * knows either. HTTP/1.0 and 1.1, no TLS. All callbacks run on the loop's thread.
 *
 * Life of a request: headers are checked -> the body is gathered up to the limit, or handed on in pieces
 * (on_begin, on_piece) -> on_body (the handler
 * answers now or later) -> http_reply, or http_stream_begin + http_stream_write* + http_stream_end ->
 * on_gone (exactly once for each on_body or on_begin that said true, always last).
 *
 * What never reaches the handler, and its answer {"error":"..."}: ambiguous framing, a bad path, a missing
 * Host (400), a body over the limit (413), no room for another body (503), oversized headers (431), slow
 * headers and bodies that stall or trickle (408, then cut). A client that closes or half-closes its side while its request waits or
 * streams is gone: on_gone comes within the same turn of the loop. */
#ifndef MINKA_HTTPD_H
#define MINKA_HTTPD_H

#include <uv.h>

#include "base/buf.h"

struct httpd;
struct http_request;

struct httpd_handler {
    /* May be NULL. The headers are there; true: the body shall come in pieces, however long it is. Method, path,
     * query and headers of r are readable, r cannot be answered yet. From true on, on_gone is due. */
    bool (*on_begin)(void *ctx, struct http_request *r);
    /* One piece, valid during the call; on_body with an empty body ends them. False: no more pieces until
     * http_body_continue. */
    bool (*on_piece)(void *ctx, struct http_request *r, struct str piece);
    /* The whole body is there (empty for GET); its bytes are valid during the call only. Answer now or keep r
     * and answer later. */
    void (*on_body)(void *ctx, struct http_request *r, struct str body);
    /* r is finished (answered) or its client is gone; r is invalid afterwards. gone: the client left, or the
     * server stopped, before the answer was handed to the system. May be called inside httpd_stop, never
     * inside the other functions of this file. */
    void (*on_gone)(void *ctx, struct http_request *r, bool gone);
    void *ctx;
};

/* What tests shorten; 0 = the value of limit.h. */
struct httpd_options {
    size_t body_bytes_max;   /* LIMIT_BODY_BYTES */
    size_t bodies_bytes_max; /* LIMIT_BODIES_BYTES, over all requests */
    u32 header_ms;           /* LIMIT_HEADER_MS */
    u32 body_stall_ms;       /* LIMIT_BODY_STALL_MS */
    u32 body_stall_bytes;    /* LIMIT_BODY_STALL_BYTES */
    u32 idle_ms;             /* LIMIT_IDLE_MS */
    u32 stream_stall_ms;     /* LIMIT_STREAM_STALL_MS; rounded up to whole seconds */
    u32 connections_max;     /* LIMIT_CONNECTIONS */
};

/* fd: a bound, listening, non-blocking socket (TCP or Unix), owned from now on, also on failure. The process
 * ignores SIGPIPE afterwards and may open as many descriptors as the system lets it. */
enum status httpd_start(uv_loop_t *loop, int fd, const struct httpd_handler *h, struct httpd **out,
                        struct err *err) MUST_USE;
/* The same with other bounds; o may be NULL. */
enum status httpd_start_with(uv_loop_t *loop, int fd, const struct httpd_handler *h,
                             const struct httpd_options *o, struct httpd **out, struct err *err) MUST_USE;
/* Stops accepting and closes idle connections; open requests go on and close theirs when answered. */
void httpd_drain(struct httpd *d);
/* Connections that are open now. */
u32 httpd_connections(const struct httpd *d);
/* Ends everything; on_gone for open requests. Not from inside a callback of the handler. d is invalid
 * afterwards; the loop must turn once more to close its handles. */
void httpd_stop(struct httpd *d);

/* --- the request; strings valid until on_gone --- */
struct str http_method(const struct http_request *r); /* any token, upper case or not */
struct str http_path(const struct http_request *r);   /* percent-decoded; %00 and bad escapes gave 400 */
struct str http_query(const struct http_request *r);  /* raw, without '?' */
struct str http_header(const struct http_request *r, const char *name); /* empty if absent */
/* Numeric address of the client, "unix" for a Unix socket. */
const char *http_peer(const struct http_request *r);
void http_set_data(struct http_request *r, void *data); /* the handler's own */
void *http_data(const struct http_request *r);
u64 http_arrival_ns(const struct http_request *r); /* clock_ns when the headers were complete */
uv_loop_t *http_loop(const struct http_request *r);
/* The next piece may come. */
void http_body_continue(struct http_request *r);

/* --- the answer, once --- */
/* Adds a header to the answer; before reply or stream_begin. Names that are no token and values with control
 * characters are refused (the header is left out). */
void http_add_header(struct http_request *r, const char *name, struct str value);
/* content_type NULL: none. For HEAD the body is left out, its length told. */
void http_reply(struct http_request *r, u32 status, const char *content_type,
                struct str body); /* body copied */
void http_stream_begin(struct http_request *r, u32 status, const char *content_type);
/* Copies. What is written within one turn of the loop goes out together, otherwise one write is one chunk as
 * far as the socket allows. False: the reader is too slow (over LIMIT_STREAM_UNSENT_BYTES), nothing was
 * taken: the caller aborts. Ignored (true) after end and abort. */
bool http_stream_write(struct http_request *r, struct str bytes) MUST_USE;
size_t http_stream_unsent(const struct http_request *r);
void http_stream_end(struct http_request *r);
/* Ends a stream as broken (the connection is cut without a final chunk); on_gone(gone = false) follows. */
void http_stream_abort(struct http_request *r);

#endif
