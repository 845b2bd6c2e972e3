/* client.c - libcurl's multi interface. Redirects are followed here and not by libcurl, so that each hop is
 * checked and the token stays with its host. */
#include "registry/client.h"

#include <curl/curl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/limit.h"
#include "http/client.h"
#include "registry/challenge.h"

#define ORIGIN_BYTES 512

struct client {
    CURLM *multi;
    struct client_options options;
    char base[400];
    char origin[ORIGIN_BYTES];
    struct buf authorization; /* "Authorization: Bearer ..."; empty = none yet */
    u32 token_serial;         /* counts tokens */
};

/* --- URLs --- */

static char *url_part(CURLU *u, CURLUPart part, unsigned flags) {
    char *text = NULL;
    return curl_url_get(u, part, &text, flags) == CURLUE_OK ? text : NULL;
}

/* "https://host:443", lower case. */
static bool origin_of(const char *url, char out[ORIGIN_BYTES], bool *http, bool *loopback) {
    CURLU *u = curl_url();
    char *scheme = NULL, *host = NULL, *port = NULL;
    bool ok = u && curl_url_set(u, CURLUPART_URL, url, CURLU_DISALLOW_USER) == CURLUE_OK &&
              (scheme = url_part(u, CURLUPART_SCHEME, 0)) && (host = url_part(u, CURLUPART_HOST, 0)) &&
              (port = url_part(u, CURLUPART_PORT, CURLU_DEFAULT_PORT));
    if (ok) {
        int n = snprintf(out, ORIGIN_BYTES, "%s://%s:%s", scheme, host, port);
        ok = n > 0 && n < ORIGIN_BYTES;
        for (char *c = out; ok && *c; c++)
            *c = (char)(*c >= 'A' && *c <= 'Z' ? *c | 0x20 : *c);
        *http = !strcasecmp(scheme, "http");
        *loopback = http_host_is_loopback(host);
        ok = ok && (*http || !strcasecmp(scheme, "https"));
    }
    curl_free(scheme);
    curl_free(host);
    curl_free(port);
    curl_url_cleanup(u);
    return ok;
}

/* Where a Location leads, seen from url. */
static bool url_resolve(const char *url, struct str location, struct buf *out) {
    CURLU *u = curl_url();
    struct buf text = {0};
    buf_add_str(&text, location);
    char *whole = NULL;
    bool ok = u && location.n <= LIMIT_REGISTRY_URL_BYTES &&
              curl_url_set(u, CURLUPART_URL, url, 0) == CURLUE_OK &&
              curl_url_set(u, CURLUPART_URL, buf_cstr(&text), CURLU_DISALLOW_USER) == CURLUE_OK &&
              (whole = url_part(u, CURLUPART_URL, 0));
    if (ok) {
        buf_clear(out);
        buf_add_str(out, str_of(whole));
    }
    curl_free(whole);
    curl_url_cleanup(u);
    buf_release(&text);
    return ok;
}

/* --- callbacks --- */

static bool header_is(struct str line, const char *name, struct str *value) {
    size_t n = strlen(name);
    if (line.n <= n || line.p[n] != ':' || strncasecmp(line.p, name, n) != 0)
        return false;
    *value = str_trim(str_slice(line, n + 1, line.n));
    return true;
}

static void buf_set(struct buf *b, struct str s) {
    buf_clear(b);
    buf_add_str(b, s);
}

/* "bytes 5-9/10"; the total may be "*". */
static void content_range(struct fetch *f, struct str v) {
    u64 start, total;
    size_t dash = str_find(v, STR("-"), 0), slash = str_find(v, STR("/"), 0);
    if (!str_starts(v, STR("bytes ")) || dash == SIZE_MAX || slash == SIZE_MAX)
        return;
    if (str_to_u64(str_slice(v, 6, dash), &start) && start <= INT64_MAX)
        f->range_start = (i64)start;
    if (str_to_u64(str_slice(v, slash + 1, v.n), &total) && total <= INT64_MAX)
        f->range_total = (i64)total;
}

static size_t on_header(char *p, size_t size, size_t n, void *ctx) {
    struct fetch *f = ctx;
    struct str line = {p, n * size}, v;
    f->header_bytes += line.n;
    if (f->header_bytes > LIMIT_REGISTRY_HEADER_BYTES) {
        err_set(&f->refused, ERR_TOO_LARGE, "the registry's answer has more than %u KiB of headers",
                LIMIT_REGISTRY_HEADER_BYTES >> 10);
        return 0;
    }
    if (header_is(line, "Location", &v))
        buf_set(&f->location, v);
    else if (header_is(line, "Docker-Upload-Location", &v))
        buf_set(&f->upload_location, v);
    else if (header_is(line, "WWW-Authenticate", &v) && f->challenge.n == 0)
        buf_set(&f->challenge, v);
    else if (header_is(line, "Content-Range", &v))
        content_range(f, v);
    return line.n;
}

static void code_look(struct fetch *f) {
    long code = 0;
    curl_off_t length = -1;
    curl_easy_getinfo(f->easy, CURLINFO_RESPONSE_CODE, &code);
    curl_easy_getinfo(f->easy, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &length);
    f->code = (u32)code;
    f->length = length;
}

static size_t on_data(char *p, size_t size, size_t n, void *ctx) {
    struct fetch *f = ctx;
    n *= size;
    code_look(f);
    bool good = f->code == 200 || f->code == 206;
    if (good && f->on_data)
        return f->on_data(f->ctx, p, n) ? n : CURL_WRITEFUNC_ERROR;
    size_t max = f->code < 300 ? f->answer_bytes_max : LIMIT_REGISTRY_ERROR_BYTES;
    if (n > max - MIN(f->answer.n, max)) {
        buf_add(&f->answer, p, max - MIN(f->answer.n, max));
        f->body_over = true; /* of an error the beginning is enough */
        return CURL_WRITEFUNC_ERROR;
    }
    buf_add(&f->answer, p, n);
    return n;
}

static size_t on_read(char *p, size_t size, size_t n, void *ctx) {
    struct fetch *f = ctx;
    n = (size_t)MIN((u64)(n * size), f->body_bytes - f->sent);
    if (f->body_fd < 0) {
        if (n)
            memcpy(p, f->body.p + f->sent, n);
    } else if (n) {
        ssize_t got = pread(f->body_fd, p, n, (off_t)(f->body_from + f->sent));
        if (got <= 0) {
            err_set(&f->refused, ERR_IO, "the blob became shorter while it was sent");
            return CURL_READFUNC_ABORT;
        }
        n = (size_t)got;
    }
    f->sent += n;
    return n;
}

static int on_seek(void *ctx, curl_off_t offset, int origin) {
    struct fetch *f = ctx;
    if (origin != SEEK_SET || offset < 0 || (u64)offset > f->body_bytes)
        return CURL_SEEKFUNC_FAIL;
    f->sent = (u64)offset;
    return CURL_SEEKFUNC_OK;
}

/* --- one request on the wire --- */

void fetch_init(struct fetch *f) { *f = (struct fetch){.method = "GET", .body_fd = -1}; }

void fetch_release(struct fetch *f) {
    if (f->easy) {
        if (f->state != FETCH_IDLE)
            curl_multi_remove_handle(f->client->multi, f->easy);
        curl_easy_cleanup(f->easy);
    }
    curl_slist_free_all(f->headers);
    buf_release(&f->answer);
    buf_release(&f->location);
    buf_release(&f->upload_location);
    buf_release(&f->challenge);
    buf_release(&f->url);
    fetch_init(f);
}

static void header_add(struct fetch *f, const char *name, const char *value) {
    struct buf line = {0};
    buf_printf(&line, "%s%s%s", name, value[0] ? ": " : ":", value);
    f->headers = curl_slist_append(f->headers, buf_cstr(&line));
    check(f->headers);
    buf_release(&line);
}

static void headers_set(struct client *c, struct fetch *f, bool own) {
    curl_slist_free_all(f->headers);
    f->headers = NULL;
    header_add(f, "Expect", "");
    if (f->accept)
        header_add(f, "Accept", f->accept);
    if (f->content_type)
        header_add(f, "Content-Type", f->content_type);
    if (f->extra_header)
        f->headers = curl_slist_append(f->headers, f->extra_header);
    if (f->redirects_uploads)
        header_add(f, "X-Redirect-Uploads", "1");
    if (own && !f->foreign && c->authorization.n)
        f->headers = curl_slist_append(f->headers, buf_cstr(&c->authorization));
    check(f->headers);
    curl_easy_setopt(f->easy, CURLOPT_HTTPHEADER, f->headers);
}

static void body_set(struct fetch *f) {
    bool head = !strcmp(f->method, "HEAD"), get = !strcmp(f->method, "GET");
    curl_easy_setopt(f->easy, CURLOPT_NOBODY, head ? 1L : 0L);
    if (head || get)
        return;
    if (f->body_fd < 0)
        f->body_bytes = f->body.n;
    curl_easy_setopt(f->easy, CURLOPT_UPLOAD, 1L);
    curl_easy_setopt(f->easy, CURLOPT_CUSTOMREQUEST, f->method);
    curl_easy_setopt(f->easy, CURLOPT_INFILESIZE_LARGE, (curl_off_t)f->body_bytes);
    curl_easy_setopt(f->easy, CURLOPT_READFUNCTION, on_read);
    curl_easy_setopt(f->easy, CURLOPT_READDATA, f);
    curl_easy_setopt(f->easy, CURLOPT_SEEKFUNCTION, on_seek);
    curl_easy_setopt(f->easy, CURLOPT_SEEKDATA, f);
}

static void transport_set(struct client *c, struct fetch *f, bool http, bool loopback) {
    CURL *e = f->easy;
    curl_easy_setopt(e, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(e, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    curl_easy_setopt(e, CURLOPT_USERAGENT, "minka/" MINKA_VERSION " (amd64 linux)");
    curl_easy_setopt(e, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(e, CURLOPT_CONNECTTIMEOUT, 30L);
    curl_easy_setopt(e, CURLOPT_TCP_KEEPALIVE, 1L);
    curl_easy_setopt(e, CURLOPT_LOW_SPEED_LIMIT, 1L);
    curl_easy_setopt(e, CURLOPT_LOW_SPEED_TIME, (long)(f->stall_s ? f->stall_s : c->options.stall_s));
    curl_easy_setopt(e, CURLOPT_BUFFERSIZE, 256l << 10);
    if (c->options.insecure) {
        curl_easy_setopt(e, CURLOPT_SSL_VERIFYPEER, 0L);
        curl_easy_setopt(e, CURLOPT_SSL_VERIFYHOST, 0L);
    }
    /* As Go's programs do; libcurl itself knows only the system's certificates. */
    const char *cert_file = getenv("SSL_CERT_FILE"), *cert_dir = getenv("SSL_CERT_DIR");
    if (cert_file && cert_file[0])
        curl_easy_setopt(e, CURLOPT_CAINFO, cert_file);
    if (cert_dir && cert_dir[0])
        curl_easy_setopt(e, CURLOPT_CAPATH, cert_dir);
    /* libcurl reads http_proxy in lower case only, because of CGI scripts; users of the reference have it
     * in upper case, too. */
    const char *upper = getenv("HTTP_PROXY"), *lower = getenv("http_proxy");
    if (http && !lower && upper && !getenv("REQUEST_METHOD"))
        curl_easy_setopt(e, CURLOPT_PROXY, upper);
    if (loopback)
        curl_easy_setopt(e, CURLOPT_NOPROXY, "*");
}

static void answer_forget(struct fetch *f) {
    buf_clear(&f->answer);
    buf_clear(&f->location);
    buf_clear(&f->upload_location);
    buf_clear(&f->challenge);
    f->code = 0;
    f->length = f->range_start = f->range_total = -1;
    f->sent = f->header_bytes = 0;
    f->body_over = f->broken = f->unreachable = false;
    f->refused = (struct err){0};
    f->trouble[0] = 0;
}

/* Sends the question to f->url. */
static enum status fetch_send(struct client *c, struct fetch *f, struct err *err) {
    char origin[ORIGIN_BYTES], range[32];
    bool http, loopback;
    _Static_assert(sizeof f->trouble >= CURL_ERROR_SIZE, "what libcurl writes there");
    if (f->url.n > LIMIT_REGISTRY_URL_BYTES || !origin_of(buf_cstr(&f->url), origin, &http, &loopback))
        return err_set(err, ERR_INVALID, "the registry's address %.200s is not valid", buf_cstr(&f->url));
    if (http && !c->options.http && !c->options.insecure)
        return err_set(err, ERR_INVALID, "insecure protocol http");
    if (f->easy) {
        curl_multi_remove_handle(c->multi, f->easy);
        curl_easy_reset(f->easy);
    } else if (!(f->easy = curl_easy_init())) {
        return err_set(err, ERR_INTERNAL, "cannot start libcurl");
    }
    f->client = c;
    answer_forget(f);
    f->token_serial = c->token_serial;
    transport_set(c, f, http, loopback);
    headers_set(c, f, !strcmp(origin, c->origin));
    body_set(f);
    if (f->range_from) {
        snprintf(range, sizeof range, "%llu-", (unsigned long long)f->range_from);
        curl_easy_setopt(f->easy, CURLOPT_RANGE, range);
    }
    curl_easy_setopt(f->easy, CURLOPT_URL, buf_cstr(&f->url));
    curl_easy_setopt(f->easy, CURLOPT_ERRORBUFFER, f->trouble);
    curl_easy_setopt(f->easy, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(f->easy, CURLOPT_HEADERDATA, f);
    curl_easy_setopt(f->easy, CURLOPT_WRITEFUNCTION, on_data);
    curl_easy_setopt(f->easy, CURLOPT_WRITEDATA, f);
    curl_easy_setopt(f->easy, CURLOPT_PRIVATE, f);
    f->state = FETCH_RUNNING;
    if (curl_multi_add_handle(c->multi, f->easy) != CURLM_OK) {
        f->state = FETCH_IDLE;
        return err_set(err, ERR_INTERNAL, "cannot start a request");
    }
    return OK;
}

enum status fetch_start(struct client *c, struct fetch *f, struct str url, struct err *err) {
    buf_set(&f->url, url);
    f->n_redirects = 0;
    f->token_tried = false;
    return fetch_send(c, f, err);
}

enum status client_turn(struct client *c, u32 wait_ms, struct err *err) {
    int running, left;
    CURLMsg *m;
    if (atomic_load(c->options.canceled))
        return err_set(err, ERR_CANCELED, "context canceled");
    if (curl_multi_perform(c->multi, &running) != CURLM_OK)
        return err_set(err, ERR_INTERNAL, "libcurl failed");
    bool some = false;
    while ((m = curl_multi_info_read(c->multi, &left))) {
        struct fetch *f = NULL;
        curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, (char **)&f);
        if (m->msg != CURLMSG_DONE || !f)
            continue;
        f->result = m->data.result;
        f->state = FETCH_FINISHED;
        some = true;
    }
    if (!some)
        curl_multi_poll(c->multi, NULL, 0, (int)wait_ms, NULL);
    return OK;
}

enum status client_wait(struct client *c, u64 ms, struct err *err) {
    u64 end = clock_ns() + ms * 1000000;
    for (;;) {
        TRY(client_turn(c, 0, err));
        u64 now = clock_ns();
        if (now >= end)
            return OK;
        u64 left_ms = (end - now) / 1000000 + 1;
        usleep((useconds_t)MIN(left_ms, 50u) * 1000);
    }
}

/* --- tokens --- */

static struct str nonce_make(struct arena *a) {
    u8 bytes[16];
    struct buf b = {0};
    check(getrandom(bytes, sizeof bytes, 0) == (ssize_t)sizeof bytes);
    base64_write(&b, bytes, sizeof bytes);
    while (b.n && b.p[b.n - 1] == '=')
        b.n--;
    for (size_t i = 0; i < b.n; i++)
        b.p[i] = b.p[i] == '+' ? '-' : b.p[i] == '/' ? '_' : b.p[i];
    struct str s = arena_str(a, buf_str(&b));
    buf_release(&b);
    return s;
}

/* What the key signs: method, URL, base64 of the hex SHA-256 of an empty body. */
static void authorization_sign(const struct key *k, struct str url, struct buf *out) {
    static const char empty[] = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    struct buf text = {0};
    buf_printf(&text, "GET,%.*s,", STR_FMT(url));
    base64_write(&text, empty, sizeof empty - 1);
    buf_add_str(out, STR("Authorization: "));
    key_sign(k, buf_str(&text), out);
    buf_release(&text);
}

static enum status token_fetch(struct client *c, const struct challenge *challenge, struct arena *a,
                               struct err *err) {
    struct fetch f;
    struct buf signature = {0};
    struct str url = challenge_url(challenge, nonce_make(a), clock_wall_ns() / 1000000000, a), token;
    fetch_init(&f);
    f.answer_bytes_max = LIMIT_REGISTRY_TOKEN_BYTES + 4096;
    f.foreign = f.keep_redirect = true; /* a signature is for one URL */
    if (c->options.key) {
        authorization_sign(c->options.key, url, &signature);
        f.extra_header = buf_cstr(&signature);
    }
    enum status status = client_run(c, &f, url, err);
    if (status == OK && (f.code == 401 || f.code == 403))
        status = err_set(err, ERR_INVALID, "unauthorized: access denied");
    else if (status == OK && f.code != 200)
        status = fetch_error(&f, err);
    if (status == OK)
        status = token_parse(buf_str(&f.answer), a, &token, err);
    if (status == OK) {
        buf_clear(&c->authorization);
        buf_printf(&c->authorization, "Authorization: Bearer %.*s", STR_FMT(token));
        c->token_serial++;
    }
    buf_release(&signature);
    fetch_release(&f);
    return status;
}

/* The realm must be the registry's own origin, so that a registry cannot have signatures sent elsewhere. */
static enum status token_get(struct client *c, const struct fetch *f, struct err *err) {
    struct arena a;
    struct challenge challenge;
    char origin[ORIGIN_BYTES];
    bool http, loopback;
    arena_init(&a, 0);
    enum status status = challenge_parse(buf_str(&f->challenge), &a, &challenge, err);
    if (status == OK &&
        (!origin_of(challenge.realm.p, origin, &http, &loopback) || strcmp(origin, c->origin) != 0))
        status = err_set(err, ERR_INVALID, "the registry %s sends to another host for its tokens: %.*s",
                         c->base, (int)MIN(challenge.realm.n, (size_t)200), challenge.realm.p);
    if (status == OK)
        status = token_fetch(c, &challenge, &a, err);
    arena_release(&a);
    return status;
}

static enum status unauthorized(struct client *c, struct fetch *f, struct err *err) {
    char origin[ORIGIN_BYTES];
    bool http, loopback;
    /* Only the registry itself may ask for a token. */
    bool own = origin_of(buf_cstr(&f->url), origin, &http, &loopback) && !strcmp(origin, c->origin);
    bool stale = f->token_serial != c->token_serial; /* another fetch got one meanwhile */
    if (!own || f->foreign || (f->token_tried && !stale))
        return err_set(err, ERR_INVALID, "unauthorized: access denied");
    if (!stale) {
        f->token_tried = true;
        TRY(token_get(c, f, err));
    }
    return fetch_send(c, f, err);
}

/* --- answers --- */

bool fetch_code_transient(u32 code) { return code == 408 || code == 429 || code >= 500; }

/* An error's text is shown on terminals and in JSON: control characters become blanks. */
enum status fetch_error(const struct fetch *f, struct err *err) {
    if (f->code == 404)
        return err_set(err, ERR_NOT_FOUND, "file does not exist");
    char text[LIMIT_REGISTRY_ERROR_BYTES + 1];
    struct str s = str_trim(str_slice(buf_str(&f->answer), 0, LIMIT_REGISTRY_ERROR_BYTES));
    s.n = utf8_valid_len(s);
    if (s.n)
        memcpy(text, s.p, s.n);
    text[s.n] = 0;
    for (char *c = text; *c; c++)
        if ((u8)*c < 0x20 || *c == 0x7f)
            *c = ' ';
    return err_set(err, ERR_IO, "%u: %s", f->code, text);
}

enum status fetch_resolve(const struct fetch *f, struct str location, struct buf *out, struct err *err) {
    struct buf from = {0};
    buf_add_str(&from, buf_str(&f->url));
    bool ok = url_resolve(buf_cstr(&from), location, out);
    buf_release(&from);
    return ok ? OK : err_set(err, ERR_INVALID, "the registry redirects to an address that is not valid");
}

static enum status redirected(struct client *c, struct fetch *f, struct err *err) {
    if (++f->n_redirects > LIMIT_REGISTRY_REDIRECTS)
        return err_set(err, ERR_INVALID, "stopped after %u redirects", LIMIT_REGISTRY_REDIRECTS);
    struct buf to = {0};
    TRY(fetch_resolve(f, buf_str(&f->location), &to, err));
    buf_release(&f->url);
    f->url = to;
    return fetch_send(c, f, err);
}

static bool is_unreachable(u32 result) {
    return result == CURLE_COULDNT_RESOLVE_HOST || result == CURLE_COULDNT_RESOLVE_PROXY ||
           result == CURLE_COULDNT_CONNECT || result == CURLE_PEER_FAILED_VERIFICATION ||
           result == CURLE_SSL_CONNECT_ERROR;
}

static bool is_redirect(u32 code) {
    return code == 301 || code == 302 || code == 303 || code == 307 || code == 308;
}

enum status client_settle(struct client *c, struct fetch *f, struct err *err) {
    check(f->state == FETCH_FINISHED);
    code_look(f);
    if (f->refused.status != OK) {
        if (err)
            *err = f->refused;
        return f->refused.status;
    }
    if (f->body_over && f->code < 300)
        return err_set(err, ERR_TOO_LARGE, "the registry's answer is larger than %zu bytes",
                       f->answer_bytes_max);
    if (f->result != CURLE_OK && !f->body_over) {
        f->broken = true;
        f->unreachable = is_unreachable(f->result);
        return err_set(err, ERR_IO, "%s: %s", c->base,
                       f->trouble[0] ? f->trouble : curl_easy_strerror(f->result));
    }
    bool reads = !strcmp(f->method, "GET") || !strcmp(f->method, "HEAD");
    if (is_redirect(f->code) && f->location.n && reads && !f->keep_redirect)
        return redirected(c, f, err);
    if (f->code == 401 && !f->foreign)
        return unauthorized(c, f, err);
    return OK;
}

enum status client_run(struct client *c, struct fetch *f, struct str url, struct err *err) {
    TRY(fetch_start(c, f, url, err));
    for (;;) {
        while (f->state == FETCH_RUNNING)
            TRY(client_turn(c, 50, err));
        TRY(client_settle(c, f, err));
        if (f->state == FETCH_FINISHED)
            return OK;
    }
}

/* --- life --- */

static void curl_start(void) {
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != 0)
        die("cannot start libcurl");
}

enum status client_open(const struct client_options *o, struct client **out, struct err *err) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, curl_start);
    struct client *c = xcalloc(1, sizeof *c);
    c->options = *o;
    bool http, loopback;
    snprintf(c->base, sizeof c->base, "%s://%s", o->http ? "http" : "https", o->host);
    if (!origin_of(c->base, c->origin, &http, &loopback)) {
        free(c);
        return err_set(err, ERR_INVALID, "%s is no host of a registry", o->host);
    }
    c->multi = curl_multi_init();
    if (!c->multi) {
        free(c);
        return err_set(err, ERR_INTERNAL, "cannot start libcurl");
    }
    *out = c;
    return OK;
}

void client_close(struct client *c) {
    if (!c)
        return;
    curl_multi_cleanup(c->multi);
    buf_release(&c->authorization);
    free(c);
}

const char *client_base(const struct client *c) { return c->base; }
