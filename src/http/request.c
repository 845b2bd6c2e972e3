/* request.c - a request: framing checks, body, answer, stream.
 *
 * libmicrohttpd calls request_access() when the headers are there, for every piece of the body, when the body
 * is over, and again whenever the suspended connection was resumed. Between the last two the request belongs
 * to the handler. A body in pieces also suspends the connection while the handler is behind. */
#include "http/httpd_own.h"

#include <stdlib.h>
#include <strings.h>

#include "base/clock.h"

/* --- framing --- */

/* RFC 9110 section 5.6.2. */
static bool token_ok(const char *name) {
    static const char marks[] = "!#$%&'*+-.^_`|~";
    for (const char *c = name; *c; c++)
        if (!((*c >= '0' && *c <= '9') || ((*c | 0x20) >= 'a' && (*c | 0x20) <= 'z') || strchr(marks, *c)))
            return false;
    return *name != 0;
}

struct framing {
    u32 n_length, n_encoding;
    bool bad;
    u64 length;
};

static enum MHD_Result framing_look(void *cls, enum MHD_ValueKind kind, const char *name, const char *value) {
    (void)kind;
    struct framing *f = cls;
    /* Also "Content-Length : 5", which the library takes for another header. */
    f->bad |= !token_ok(name);
    if (!strcasecmp(name, "Content-Length")) {
        f->n_length++;
        f->bad |= !value || !str_to_u64(str_of(value), &f->length) || value[0] < '0' || value[0] > '9';
    } else if (!strcasecmp(name, "Transfer-Encoding")) {
        f->n_encoding++;
        f->bad |= !value || strcasecmp(value, "chunked") != 0;
    }
    return MHD_YES;
}

/* A body whose length two parties could read differently is how requests are smuggled: refuse all of them
 * (RFC 9112 section 6.3 allows it). */
static bool framing_ok(const struct framing *f, const char *version) {
    bool old = !strcmp(version, "HTTP/1.0");
    return !f->bad && f->n_length <= 1 && f->n_encoding <= 1 && !(f->n_length && f->n_encoding) &&
           !(old && f->n_encoding);
}

static int hex_digit(char c) {
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool percent_decode(char *s, size_t *n) {
    size_t to = 0;
    for (size_t from = 0; from < *n; from++) {
        char c = s[from];
        if (c == '%') {
            int high = from + 2 < *n ? hex_digit(s[from + 1]) : -1;
            int low = from + 2 < *n ? hex_digit(s[from + 2]) : -1;
            if (high < 0 || low < 0)
                return false;
            c = (char)(high << 4 | low);
            from += 2;
        }
        if (c == 0)
            return false;
        s[to++] = c;
    }
    *n = to;
    return true;
}

static bool path_set(struct http_request *r) {
    size_t n = strlen(r->uri);
    char *mark = memchr(r->uri, '?', n);
    size_t n_path = mark ? (size_t)(mark - r->uri) : n;
    if (mark)
        r->query = (struct str){mark + 1, n - n_path - 1};
    if (!percent_decode(r->uri, &n_path))
        return false;
    r->path = (struct str){r->uri, n_path};
    return n_path > 0;
}

/* --- answers --- */

static void response_add(struct MHD_Response *m, const char *name, const char *value) {
    /* Refused are a second Date or Transfer-Encoding and the like: the answer goes without it. */
    (void)MHD_add_response_header(m, name, value);
}

static void headers_put(struct http_request *r, struct MHD_Response *m, const char *content_type) {
    for (size_t at = 0; at < r->headers.n;) {
        const char *name = r->headers.p + at;
        const char *value = name + strlen(name) + 1;
        response_add(m, name, value);
        at = (size_t)(value + strlen(value) + 1 - r->headers.p);
    }
    if (content_type)
        response_add(m, "Content-Type", content_type);
    if (r->conn->d->draining)
        response_add(m, "Connection", "close");
}

static enum MHD_Result response_queue(struct http_request *r, u32 status, struct MHD_Response *m) {
    u32 stall_s = DIV_CEIL(r->conn->d->limit.stream_stall_ms, 1000u);
    MHD_set_connection_option(r->conn->mhd, MHD_CONNECTION_OPTION_TIMEOUT, (unsigned)stall_s);
    enum MHD_Result queued = MHD_queue_response(r->conn->mhd, status, m);
    MHD_destroy_response(m);
    return queued;
}

static const char *reject_text(u32 status) {
    switch (status) {
    case 413: return "{\"error\":\"request body too large\"}";
    case 503: return "{\"error\":\"server busy, please try again.  too many request bodies at once\"}";
    default: return "{\"error\":\"malformed request\"}";
    }
}

static enum MHD_Result reject(struct http_request *r, u32 status) {
    const char *text = reject_text(status);
    struct MHD_Response *m =
        MHD_create_response_from_buffer(strlen(text), (void *)text, MHD_RESPMEM_PERSISTENT);
    if (!m)
        return MHD_NO;
    response_add(m, "Content-Type", "application/json; charset=utf-8");
    response_add(m, "Connection", "close");
    if (status == 503)
        response_add(m, "Retry-After", "1");
    r->answered = true;
    return response_queue(r, status, m);
}

/* The suspended connection has something to do: an answer, bytes, an end. */
static void request_resume(struct http_request *r) {
    if (!r->suspended)
        return;
    r->suspended = false;
    MHD_resume_connection(r->conn->mhd);
    httpd_wake(r->conn->d);
}

/* --- the calls of libmicrohttpd, in their order --- */

void *request_uri(void *cls, const char *uri, struct MHD_Connection *c) {
    struct httpd *d = cls;
    struct conn *k = conn_of(c);
    if (!uri)
        uri = "";
    size_t n = strlen(uri);
    struct http_request *r = xcalloc(1, sizeof *r + n + 1);
    memcpy(r->uri, uri, n);
    r->conn = k;
    k->r = r;
    k->n_quiet = 0;
    /* The first request's headers count from the connection's start. */
    if (k->n_requests++)
        conn_deadline_set(k, d->limit.header_ms);
    return r;
}

static enum MHD_Result request_begin(struct http_request *r, const char *method, const char *version) {
    struct conn *k = r->conn;
    r->begun = true;
    r->arrival_ns = clock_ns();
    r->method = str_of(method);
    struct framing f = {0};
    MHD_get_connection_values(k->mhd, MHD_HEADER_KIND, framing_look, &f);
    bool has_body = f.n_encoding || f.length;
    k->body_mark = 0;
    conn_deadline_set(k, has_body ? k->d->limit.body_stall_ms : 0);
    bool bad = !framing_ok(&f, version) || !path_set(r);
    const struct httpd_handler *h = &k->d->handler;
    r->piecewise = !bad && h->on_begin && h->on_begin(h->ctx, r);
    u32 refused = bad ? 400 : !r->piecewise && f.length > k->d->limit.body_bytes_max ? 413 : 0;
    if (!refused)
        return MHD_YES;
    if (f.n_length || f.n_encoding)
        conn_linger(k);
    return reject(r, refused);
}

static void body_drop(struct http_request *r) {
    r->conn->d->bodies_bytes -= r->body.n;
    buf_release(&r->body);
}

static enum MHD_Result request_pass(struct http_request *r, const char *data, size_t n) {
    const struct httpd_handler *h = &r->conn->d->handler;
    r->body_bytes += n;
    if (!h->on_piece(h->ctx, r, (struct str){data, n})) {
        r->suspended = true;
        MHD_suspend_connection(r->conn->mhd);
    }
    return MHD_YES;
}

/* Over a limit a chunked body is read on, unkept, so that the client reads the answer; but not for ever. */
static enum MHD_Result request_take(struct http_request *r, const char *data, size_t n) {
    struct httpd *d = r->conn->d;
    r->body_bytes += n;
    if (!r->reject_status) {
        if (r->body_bytes > d->limit.body_bytes_max)
            r->reject_status = 413;
        else if (d->bodies_bytes + n > d->limit.bodies_bytes_max)
            r->reject_status = 503;
    }
    if (r->reject_status) {
        body_drop(r);
        return r->body_bytes > 2 * (u64)d->limit.body_bytes_max ? MHD_NO : MHD_YES;
    }
    buf_add(&r->body, data, n);
    d->bodies_bytes += n;
    return MHD_YES;
}

static void request_deliver(struct http_request *r) {
    struct httpd *d = r->conn->d;
    conn_deadline_set(r->conn, 0);
    r->delivered = true;
    d->handler.on_body(d->handler.ctx, r, buf_str(&r->body));
    body_drop(r);
}

/* The body is over, or the connection was resumed. */
static enum MHD_Result request_proceed(struct http_request *r) {
    if (r->reject_status)
        return reject(r, r->reject_status);
    if (!r->delivered)
        request_deliver(r);
    if (r->aborted)
        return MHD_NO;
    if (r->response) {
        struct MHD_Response *m = r->response;
        r->response = NULL;
        return response_queue(r, r->response_status, m);
    }
    if (r->answered)
        return MHD_YES;
    r->suspended = true;
    MHD_suspend_connection(r->conn->mhd);
    if (r->conn->hup)
        conn_recheck(r->conn);
    return MHD_YES;
}

enum MHD_Result request_access(void *cls, struct MHD_Connection *c, const char *url, const char *method,
                               const char *version, const char *data, size_t *size, void **con_cls) {
    (void)c, (void)url;
    struct httpd *d = cls;
    struct http_request *r = *con_cls;
    /* With a chunked body the library calls although the connection is suspended. Here that could only be
     * behind the body, but a wrong guess would answer a request twice. */
    if (r->suspended)
        return MHD_YES;
    if (r->dead || d->stopping)
        return MHD_NO;
    if (!r->begun)
        return request_begin(r, method, version);
    if (*size) {
        size_t n = *size;
        *size = 0;
        return r->piecewise ? request_pass(r, data, n) : request_take(r, data, n);
    }
    return request_proceed(r);
}

void request_completed(void *cls, struct MHD_Connection *c, void **con_cls,
                       enum MHD_RequestTerminationCode code) {
    struct httpd *d = cls;
    struct http_request *r = *con_cls;
    struct conn *k = r->conn;
    *con_cls = NULL;
    k->r = NULL;
    k->n_quiet = 0;
    body_drop(r);
    if ((r->delivered || r->piecewise) && !r->told) {
        r->told = true;
        r->dead = true;
        d->handler.on_gone(d->handler.ctx, r, code != MHD_REQUEST_TERMINATED_COMPLETED_OK && !r->aborted);
    }
    MHD_set_connection_option(c, MHD_CONNECTION_OPTION_TIMEOUT, 0u);
    conn_idle(k);
    if (r->response)
        MHD_destroy_response(r->response);
    buf_release(&r->headers);
    buf_release(&r->out);
    free(r);
}

bool request_open(const struct http_request *r) {
    return r->delivered && !r->told && !r->aborted && (!r->answered || (r->streaming && !r->ended));
}

void request_lost(struct http_request *r) {
    struct httpd *d = r->conn->d;
    r->dead = true;
    if (!r->told) {
        r->told = true;
        d->handler.on_gone(d->handler.ctx, r, true);
    }
    request_resume(r);
    /* A stream that waits for the client to read is woken by the failing send. */
    conn_cut(r->conn);
}

/* --- the handler's side --- */

struct str http_method(const struct http_request *r) {
    return r->method;
}
struct str http_path(const struct http_request *r) {
    return r->path;
}
struct str http_query(const struct http_request *r) {
    return r->query;
}
const char *http_peer(const struct http_request *r) { return r->conn->peer; }
void http_set_data(struct http_request *r, void *data) { r->data = data; }
void *http_data(const struct http_request *r) { return r->data; }
u64 http_arrival_ns(const struct http_request *r) { return r->arrival_ns; }
uv_loop_t *http_loop(const struct http_request *r) { return r->conn->d->loop; }

void http_body_continue(struct http_request *r) {
    check(r->piecewise && !r->delivered);
    /* The client's time begins now. */
    conn_deadline_set(r->conn, r->conn->d->limit.body_stall_ms);
    request_resume(r);
}

size_t http_stream_unsent(const struct http_request *r) { return r->out.n - r->out_at; }

struct str http_header(const struct http_request *r, const char *name) {
    return str_of(MHD_lookup_connection_value(r->conn->mhd, MHD_HEADER_KIND, name));
}

void http_add_header(struct http_request *r, const char *name, struct str value) {
    check(!r->answered);
    bool ok = token_ok(name) && value.n > 0;
    for (size_t i = 0; i < value.n; i++)
        ok &= (u8)value.p[i] >= 0x20 && value.p[i] != 0x7f;
    if (!ok)
        return;
    buf_add(&r->headers, name, strlen(name) + 1);
    buf_add_str(&r->headers, value);
    buf_add_char(&r->headers, 0);
}

static void answer(struct http_request *r, u32 status, const char *content_type, struct MHD_Response *m) {
    check(r->delivered && !r->answered);
    check(status >= 200 && status < 600);
    if (!m)
        die("out of memory for an HTTP response");
    headers_put(r, m, content_type);
    r->response = m;
    r->response_status = status;
    r->answered = true;
    request_resume(r);
}

void http_reply(struct http_request *r, u32 status, const char *content_type, struct str body) {
    answer(r, status, content_type,
           MHD_create_response_from_buffer(body.n, (void *)body.p, MHD_RESPMEM_MUST_COPY));
}

static ssize_t stream_read(void *cls, uint64_t pos, char *to, size_t max) {
    (void)pos;
    struct http_request *r = cls;
    if (r->dead || r->aborted)
        return MHD_CONTENT_READER_END_WITH_ERROR;
    size_t n = MIN(max, http_stream_unsent(r));
    if (n) {
        memcpy(to, r->out.p + r->out_at, n);
        r->out_at += n;
        if (r->out_at == r->out.n) {
            buf_clear(&r->out);
            r->out_at = 0;
        }
        return (ssize_t)n;
    }
    if (r->ended)
        return MHD_CONTENT_READER_END_OF_STREAM;
    r->suspended = true;
    MHD_suspend_connection(r->conn->mhd);
    return 0;
}

void http_stream_begin(struct http_request *r, u32 status, const char *content_type) {
    if (str_is(r->method, "HEAD")) {
        /* The library would send a last chunk behind the headers. */
        r->streaming = r->ended = true;
        http_reply(r, status, content_type, STR_NONE);
        return;
    }
    /* Chunked streams are read straight into the connection's memory; the block is for HTTP/1.0. */
    size_t block_bytes = 2048;
    r->streaming = true;
    answer(r, status, content_type,
           MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, block_bytes, stream_read, r, NULL));
}

bool http_stream_write(struct http_request *r, struct str bytes) {
    check(r->streaming);
    if (r->dead || r->ended || r->aborted)
        return true;
    if (http_stream_unsent(r) + bytes.n > LIMIT_STREAM_UNSENT_BYTES)
        return false;
    /* Reclaims what was sent only when the buffer would have to grow: each byte moves at most once or so. */
    if (r->out_at && r->out.cap - r->out.n < bytes.n) {
        buf_consume(&r->out, r->out_at);
        r->out_at = 0;
    }
    buf_add_str(&r->out, bytes);
    request_resume(r);
    return true;
}

void http_stream_end(struct http_request *r) {
    check(r->streaming);
    r->ended = true;
    request_resume(r);
}

void http_stream_abort(struct http_request *r) {
    r->aborted = true;
    request_resume(r);
    conn_cut(r->conn);
}
