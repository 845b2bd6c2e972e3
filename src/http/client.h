/* client.h - a small blocking HTTP client over libcurl, for the command line: one server, one request at a
 * time, whole answers or a line at a time, interruptible from a signal handler. */
#ifndef MINKA_HTTP_CLIENT_H
#define MINKA_HTTP_CLIENT_H

#include "base/buf.h"
#include "base/settings.h"

struct http_client;

/* The server is OLLAMA_HOST of s: a TCP address (an unspecified one, 0.0.0.0 or ::, means this machine), with
 * a path in front of every route, or a Unix socket. Proxies of the environment are used, but never for a
 * loopback address. Nothing is connected yet. */
enum status http_client_open(const struct settings *s, struct http_client **out, struct err *err) MUST_USE;
void http_client_close(struct http_client *c);

/* Where the answer goes. */
struct http_sink {
    /* One line without its end, empty lines left out; the last one may come without a line end. Valid during
     * the call. False ends the transfer with ERR_CANCELED. NULL: lines are dropped. */
    bool (*on_line)(void *ctx, struct str line);
    /* Called about every 100 ms while nothing arrives; may be NULL. */
    void (*on_tick)(void *ctx);
    void *ctx;
};

/* Sends a request with a JSON body (empty: none) and reads the answer. path: "/api/chat".
 * ERR_IO          no answer: not reachable, cut; http_client_status is 0 if no status line came
 * ERR_CANCELED    http_client_cancel or on_line said so
 * ERR_TOO_LARGE   the answer or a line is over LIMIT_CLIENT_BYTES
 * other           the server answered >= 400: 400 ERR_INVALID, 404 ERR_NOT_FOUND, 413 ERR_TOO_LARGE,
 *                 501 ERR_UNSUPPORTED, 503 ERR_BUSY, 504 ERR_TIMEOUT, the rest ERR_INTERNAL;
 *                 the text is the "error" of the body (Ollama's or OpenAI's form), else the body itself. */
enum status http_client_stream(struct http_client *c, const char *method, const char *path, struct str body,
                               const struct http_sink *sink, struct err *err) MUST_USE;
/* The same with the whole answer, replacing what is in out. */
enum status http_client_call(struct http_client *c, const char *method, const char *path, struct str body,
                             struct buf *out, struct err *err) MUST_USE;
/* POST of `bytes` bytes of a file from its beginning; progress (may be NULL) hears of what has been handed to
 * the system. */
enum status http_client_upload(struct http_client *c, const char *path, int fd, u64 bytes,
                               void (*progress)(void *ctx, u64 sent), void *ctx, struct err *err) MUST_USE;
/* HTTP status of the last answer; 0 = none came. */
u32 http_client_status(const struct http_client *c);
/* Ends the transfer in progress. Safe in a signal handler; without a transfer it does nothing. */
void http_client_cancel(struct http_client *c);

/* "localhost", 127.x, ::1: no proxy is asked. */
bool http_host_is_loopback(const char *host);

#endif
