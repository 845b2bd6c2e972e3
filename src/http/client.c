/* client.c - libcurl's multi interface with one transfer, so that an eventfd can end it. */
#include "http/client.h"

#include <curl/curl.h>
#include <errno.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/limit.h"

#define TICK_MS 100

struct http_client {
    CURL *easy;
    CURLM *multi;
    struct curl_slist *headers;
    char base[1024];
    int cancel_fd;
    volatile sig_atomic_t busy;
    /* one transfer */
    const struct http_sink *sink;
    struct buf *whole;
    struct buf pending; /* a line so far, or the text of an error */
    bool too_large, stopped;
    bool uploads; /* the body comes from on_read */
    curl_off_t upload_bytes;
    u32 status;
    char trouble[CURL_ERROR_SIZE];
};

/* --- the answer --- */

/* fresh: bytes at the end of pending that were not looked at before. */
static bool lines_take(struct http_client *c, size_t fresh) {
    struct str text = buf_str(&c->pending);
    size_t from = 0, look = text.n - fresh, end;
    bool on = true;
    while (on && (end = str_find(text, STR("\n"), look)) != SIZE_MAX) {
        struct str line = str_trim(str_slice(text, from, end));
        if (line.n && c->sink->on_line)
            on = c->sink->on_line(c->sink->ctx, line);
        from = look = end + 1;
    }
    buf_consume(&c->pending, from);
    return on;
}

static size_t on_data(char *data, size_t size, size_t n, void *ctx) {
    struct http_client *c = ctx;
    n *= size;
    if (c->status == 0) {
        long status = 0;
        curl_easy_getinfo(c->easy, CURLINFO_RESPONSE_CODE, &status);
        c->status = (u32)status;
    }
    struct buf *to = c->whole && c->status < 400 ? c->whole : &c->pending;
    if (to->n + n > LIMIT_CLIENT_BYTES) {
        c->too_large = true;
        return CURL_WRITEFUNC_ERROR;
    }
    buf_add(to, data, n);
    if (c->sink && c->status < 400 && !lines_take(c, n)) {
        c->stopped = true;
        return CURL_WRITEFUNC_ERROR;
    }
    return n;
}

static enum status status_of_http(u32 http) {
    switch (http) {
    case 400: return ERR_INVALID;
    case 404: return ERR_NOT_FOUND;
    case 413: return ERR_TOO_LARGE;
    case 499: return ERR_CANCELED;
    case 501: return ERR_UNSUPPORTED;
    case 503: return ERR_BUSY;
    case 504: return ERR_TIMEOUT;
    default: return ERR_INTERNAL;
    }
}

/* {"error":"text"}, {"error":{"message":"text"}}, or any text. */
static enum status refused(struct http_client *c, struct err *err) {
    enum status status = status_of_http(c->status);
    struct str text = str_trim(buf_str(&c->pending));
    json_t *root = json_loadb(text.p ? text.p : "", text.n, JSON_ALLOW_NUL, NULL);
    json_t *error = json_object_get(root, "error");
    if (json_is_object(error))
        error = json_object_get(error, "message");
    if (json_is_string(error))
        text = (struct str){json_string_value(error), json_string_length(error)};
    if (text.n)
        err_set(err, status, "%.*s", STR_FMT(text));
    else
        err_set(err, status, "the server answered with HTTP status %u", c->status);
    json_decref(root);
    return status;
}

/* --- the transfer --- */

/* Until the transfer is over: its result. CURLE_ABORTED_BY_CALLBACK: http_client_cancel. */
static CURLcode transfer(struct http_client *c) {
    int running = 1;
    while (running) {
        if (curl_multi_perform(c->multi, &running) != CURLM_OK)
            return CURLE_FAILED_INIT;
        if (!running)
            break;
        struct curl_waitfd extra = {.fd = c->cancel_fd, .events = CURL_WAIT_POLLIN};
        bool ticks = c->sink && c->sink->on_tick;
        int n = 0;
        curl_multi_poll(c->multi, &extra, 1, ticks ? TICK_MS : 1000, &n);
        u64 count;
        if (read(c->cancel_fd, &count, sizeof count) == sizeof count)
            return CURLE_ABORTED_BY_CALLBACK;
        if (ticks && n == 0)
            c->sink->on_tick(c->sink->ctx);
    }
    int left;
    CURLMsg *m = curl_multi_info_read(c->multi, &left);
    return m ? m->data.result : CURLE_FAILED_INIT;
}

static enum status outcome(struct http_client *c, CURLcode code, struct err *err) {
    long status = 0;
    curl_easy_getinfo(c->easy, CURLINFO_RESPONSE_CODE, &status);
    c->status = (u32)status;
    if (code == CURLE_ABORTED_BY_CALLBACK || c->stopped)
        return err_set(err, ERR_CANCELED, "canceled");
    if (c->too_large)
        return err_set(err, ERR_TOO_LARGE, "the server's answer is larger than %u MiB",
                       LIMIT_CLIENT_BYTES >> 20);
    if (c->status >= 400)
        return refused(c, err);
    if (code != CURLE_OK)
        return err_set(err, ERR_IO, "%s", c->trouble[0] ? c->trouble : curl_easy_strerror(code));
    struct str rest = str_trim(buf_str(&c->pending));
    if (rest.n && c->sink && c->sink->on_line && !c->sink->on_line(c->sink->ctx, rest))
        return err_set(err, ERR_CANCELED, "canceled");
    return OK;
}

static enum status request(struct http_client *c, const char *method, const char *path, struct str body,
                           struct err *err) {
    char url[sizeof c->base + 256];
    snprintf(url, sizeof url, "%s%s", c->base, path);
    bool head = !strcmp(method, "HEAD");
    curl_easy_setopt(c->easy, CURLOPT_URL, url);
    curl_easy_setopt(c->easy, CURLOPT_NOBODY, 0L);
    curl_easy_setopt(c->easy, CURLOPT_HTTPGET, 1L);
    if (head)
        curl_easy_setopt(c->easy, CURLOPT_NOBODY, 1L);
    if (body.n) {
        curl_easy_setopt(c->easy, CURLOPT_POST, 1L);
        curl_easy_setopt(c->easy, CURLOPT_POSTFIELDS, body.p);
        curl_easy_setopt(c->easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)body.n);
    }
    if (c->uploads) {
        curl_easy_setopt(c->easy, CURLOPT_POST, 1L);
        curl_easy_setopt(c->easy, CURLOPT_POSTFIELDS, NULL);
        curl_easy_setopt(c->easy, CURLOPT_POSTFIELDSIZE_LARGE, c->upload_bytes);
    }
    curl_easy_setopt(c->easy, CURLOPT_CUSTOMREQUEST, head ? NULL : method);
    buf_clear(&c->pending);
    c->too_large = c->stopped = false;
    c->status = 0;
    c->trouble[0] = 0;
    u64 old;
    (void)!read(c->cancel_fd, &old, sizeof old);
    c->busy = 1;
    curl_multi_add_handle(c->multi, c->easy);
    CURLcode code = transfer(c);
    enum status status = outcome(c, code, err);
    curl_multi_remove_handle(c->multi, c->easy);
    c->busy = 0;
    return status;
}

struct upload {
    int fd;
    u64 sent;
    void (*progress)(void *ctx, u64 sent);
    void *ctx;
};

static size_t on_read(char *to, size_t size, size_t n, void *ctx) {
    struct upload *u = ctx;
    ssize_t got;
    do
        got = pread(u->fd, to, size * n, (off_t)u->sent);
    while (got < 0 && errno == EINTR);
    if (got < 0)
        return CURL_READFUNC_ABORT;
    u->sent += (u64)got;
    if (u->progress)
        u->progress(u->ctx, u->sent);
    return (size_t)got;
}

/* For a kept connection that was closed before a byte arrived: libcurl sends again. */
static int on_seek(void *ctx, curl_off_t offset, int origin) {
    struct upload *u = ctx;
    if (origin != SEEK_SET)
        return CURL_SEEKFUNC_CANTSEEK;
    u->sent = (u64)offset;
    return CURL_SEEKFUNC_OK;
}

enum status http_client_upload(struct http_client *c, const char *path, int fd, u64 bytes,
                               void (*progress)(void *ctx, u64 sent), void *ctx, struct err *err) {
    struct upload u = {fd, 0, progress, ctx};
    struct buf answer = {0};
    struct curl_slist *own = curl_slist_append(NULL, "Content-Type: application/octet-stream");
    own = curl_slist_append(own, "Expect:");
    curl_easy_setopt(c->easy, CURLOPT_HTTPHEADER, own);
    curl_easy_setopt(c->easy, CURLOPT_READFUNCTION, on_read);
    curl_easy_setopt(c->easy, CURLOPT_READDATA, &u);
    curl_easy_setopt(c->easy, CURLOPT_SEEKFUNCTION, on_seek);
    curl_easy_setopt(c->easy, CURLOPT_SEEKDATA, &u);
    c->upload_bytes = (curl_off_t)bytes;
    c->uploads = true;
    enum status status = http_client_call(c, "POST", path, STR_NONE, &answer, err);
    c->uploads = false;
    curl_easy_setopt(c->easy, CURLOPT_READFUNCTION, NULL);
    curl_easy_setopt(c->easy, CURLOPT_SEEKFUNCTION, NULL);
    curl_easy_setopt(c->easy, CURLOPT_HTTPHEADER, c->headers);
    curl_slist_free_all(own);
    buf_release(&answer);
    return status;
}

enum status http_client_stream(struct http_client *c, const char *method, const char *path, struct str body,
                               const struct http_sink *sink, struct err *err) {
    c->sink = sink;
    c->whole = NULL;
    return request(c, method, path, body, err);
}

enum status http_client_call(struct http_client *c, const char *method, const char *path, struct str body,
                             struct buf *out, struct err *err) {
    buf_clear(out);
    c->sink = NULL;
    c->whole = out;
    return request(c, method, path, body, err);
}

u32 http_client_status(const struct http_client *c) { return c->status; }

void http_client_cancel(struct http_client *c) {
    u64 one = 1;
    int saved = errno;
    if (c->busy)
        (void)!write(c->cancel_fd, &one, sizeof one);
    errno = saved;
}

/* --- life --- */

bool http_host_is_loopback(const char *host) {
    return !strcmp(host, "localhost") || !strncmp(host, "127.", 4) || !strcmp(host, "::1");
}

static void base_set(struct http_client *c, const struct settings *s) {
    if (s->unix_path[0]) {
        snprintf(c->base, sizeof c->base, "http://localhost");
        curl_easy_setopt(c->easy, CURLOPT_UNIX_SOCKET_PATH, s->unix_path);
        curl_easy_setopt(c->easy, CURLOPT_NOPROXY, "*");
        return;
    }
    const char *host = s->host;
    if (!strcmp(host, "0.0.0.0"))
        host = "127.0.0.1";
    else if (!strcmp(host, "::"))
        host = "::1";
    bool six = strchr(host, ':') != NULL;
    snprintf(c->base, sizeof c->base, "%s://%s%s%s:%u%s", s->https ? "https" : "http", six ? "[" : "", host,
             six ? "]" : "", s->port, s->host_path);
    size_t n = strlen(c->base);
    while (n && c->base[n - 1] == '/')
        c->base[--n] = 0;
    if (http_host_is_loopback(host))
        curl_easy_setopt(c->easy, CURLOPT_NOPROXY, "*");
}

enum status http_client_open(const struct settings *s, struct http_client **out, struct err *err) {
    static bool ready;
    if (!ready && curl_global_init(CURL_GLOBAL_DEFAULT) != 0)
        return err_set(err, ERR_INTERNAL, "cannot start libcurl");
    ready = true;
    struct http_client *c = xcalloc(1, sizeof *c);
    c->easy = curl_easy_init();
    c->multi = curl_multi_init();
    c->cancel_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (!c->easy || !c->multi || c->cancel_fd < 0) {
        http_client_close(c);
        return err_set(err, ERR_INTERNAL, "cannot start libcurl");
    }
    base_set(c, s);
    c->headers = curl_slist_append(NULL, "Content-Type: application/json");
    c->headers = curl_slist_append(c->headers, "Accept: application/x-ndjson, application/json");
    /* No waiting for 100-continue with long prompts. */
    c->headers = curl_slist_append(c->headers, "Expect:");
    curl_easy_setopt(c->easy, CURLOPT_HTTPHEADER, c->headers);
    curl_easy_setopt(c->easy, CURLOPT_USERAGENT, "minka/" MINKA_VERSION);
    curl_easy_setopt(c->easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    curl_easy_setopt(c->easy, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(c->easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(c->easy, CURLOPT_CONNECTTIMEOUT, 10L);
    curl_easy_setopt(c->easy, CURLOPT_TCP_KEEPALIVE, 1L);
    curl_easy_setopt(c->easy, CURLOPT_ERRORBUFFER, c->trouble);
    curl_easy_setopt(c->easy, CURLOPT_WRITEFUNCTION, on_data);
    curl_easy_setopt(c->easy, CURLOPT_WRITEDATA, c);
    *out = c;
    return OK;
}

void http_client_close(struct http_client *c) {
    if (!c)
        return;
    curl_easy_cleanup(c->easy);
    curl_multi_cleanup(c->multi);
    curl_slist_free_all(c->headers);
    if (c->cancel_fd >= 0)
        close(c->cancel_fd);
    buf_release(&c->pending);
    free(c);
}
