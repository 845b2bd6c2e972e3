/* httpd.h - the HTTP server: libmicrohttpd inside a libuv loop, behind a few functions, so that nothing else
 * knows either. All callbacks run on the loop's thread.
 *
 * Life of a request: on_request (headers) -> body gathered up to LIMIT_BODY_BYTES -> on_body (whole body;
 * the handler answers now or later) -> httpd_reply, or httpd_stream_begin + httpd_stream_write* +
 * httpd_stream_end -> on_gone (exactly once, always last; gone = the client left before the end). */
#ifndef MINKA_HTTPD_H
#define MINKA_HTTPD_H

#include <uv.h>

#include "base/buf.h"

struct httpd;
struct http_request;

struct httpd_handler {
    /* The whole body is there (empty for GET). Answer now or keep r and answer later. */
    void (*on_body)(void *ctx, struct http_request *r, struct str body);
    /* r is finished (answered) or its client is gone; r is invalid afterwards. */
    void (*on_gone)(void *ctx, struct http_request *r, bool gone);
    void *ctx;
};

/* fd: a bound, listening, non-blocking socket, owned from now on. max_body 0: LIMIT_BODY_BYTES. */
enum status httpd_start(uv_loop_t *loop, int fd, const struct httpd_handler *h, struct httpd **out, struct err *err) MUST_USE;
/* Stops accepting; open requests go on. */
void httpd_drain(struct httpd *d);
/* Ends everything; on_gone for open requests. */
void httpd_stop(struct httpd *d);

/* --- the request; strings valid until on_gone --- */
struct str http_method(const struct http_request *r);
struct str http_path(const struct http_request *r);  /* percent-decoded; %00 and bad escapes gave 400 */
struct str http_query(const struct http_request *r); /* raw, without '?' */
struct str http_header(const struct http_request *r, const char *name); /* empty if absent */
/* Numeric address of the client, "unix" for a Unix socket. */
const char *http_peer(const struct http_request *r);
void http_set_data(struct http_request *r, void *data); /* the handler's own */
void *http_data(const struct http_request *r);
u64 http_arrival_ns(const struct http_request *r); /* clock_ns when the headers were complete */

/* --- the answer, once --- */
/* Adds a header to the answer; before reply or stream_begin. Values with control characters are refused. */
void http_add_header(struct http_request *r, const char *name, struct str value);
void http_reply(struct http_request *r, u32 status, const char *content_type, struct str body); /* body copied */
void http_stream_begin(struct http_request *r, u32 status, const char *content_type);
/* Copies; one write is one chunk as far as the socket allows. False: the reader is too slow (over
 * LIMIT_STREAM_UNSENT_BYTES): the caller cancels. Ignored when the client is gone. */
bool http_stream_write(struct http_request *r, struct str bytes) MUST_USE;
size_t http_stream_unsent(const struct http_request *r);
void http_stream_end(struct http_request *r);
/* Ends a stream as broken (the connection is cut without a final chunk). */
void http_stream_abort(struct http_request *r);

#endif
