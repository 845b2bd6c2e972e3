/* routes.c - the table of routes, and what comes before any of them: redirects, CORS, the host check. */
#include <stdio.h>
#include <stdlib.h>

#include "api/call.h"
#include "base/clock.h"

struct route {
    const char *methods;  /* "GET HEAD" */
    const char *pattern;  /* a segment that begins with ':' matches anything; "*" at the end: the rest */
    enum dialect dialect; /* of its errors */
    void (*handle)(struct call *c, struct str body, struct str tail);
    bool pieces; /* the body goes to upload_begin and those behind it */
};

/* --- handlers of one line --- */

static void text_reply(struct call *c, u32 code, const char *type, struct str text) {
    c->state = CALL_OVER;
    http_reply(c->http, code, type, text);
}

static void route_root(struct call *c, struct str body, struct str tail) {
    (void)body, (void)tail;
    text_reply(c, 200, "text/plain; charset=utf-8", STR("Ollama is running"));
}
static void route_version(struct call *c, struct str body, struct str tail) {
    (void)body, (void)tail;
    handle_version(c);
}
static void route_tags(struct call *c, struct str body, struct str tail) {
    (void)body, (void)tail;
    handle_tags(c);
}
static void route_ps(struct call *c, struct str body, struct str tail) {
    (void)body, (void)tail;
    handle_ps(c);
}
static void route_show(struct call *c, struct str body, struct str tail) {
    (void)tail;
    handle_show(c, body);
}
static void route_create(struct call *c, struct str body, struct str tail) {
    (void)tail;
    handle_create(c, body);
}
static void route_copy(struct call *c, struct str body, struct str tail) {
    (void)tail;
    handle_copy(c, body);
}
static void route_delete(struct call *c, struct str body, struct str tail) {
    (void)tail;
    handle_delete(c, body);
}
static void route_blob_head(struct call *c, struct str body, struct str tail) {
    (void)body;
    handle_blob_head(c, tail);
}
static void route_pull(struct call *c, struct str body, struct str tail) {
    (void)tail;
    handle_pull(c, body);
}
static void route_push(struct call *c, struct str body, struct str tail) {
    (void)tail;
    handle_push(c, body);
}
static void route_generate(struct call *c, struct str body, struct str tail) {
    (void)tail;
    handle_generate(c, body);
}
static void route_chat(struct call *c, struct str body, struct str tail) {
    (void)tail;
    handle_chat(c, body);
}
static void route_openai_chat(struct call *c, struct str body, struct str tail) {
    (void)tail;
    handle_openai_chat(c, body);
}
static void route_openai_completion(struct call *c, struct str body, struct str tail) {
    (void)tail;
    handle_openai_completion(c, body);
}
static void route_embed(struct call *c, struct str body, struct str tail) {
    (void)tail;
    handle_embed(c, body);
}
static void route_embeddings(struct call *c, struct str body, struct str tail) {
    (void)tail;
    handle_embeddings(c, body);
}
static void route_openai_embeddings(struct call *c, struct str body, struct str tail) {
    (void)tail;
    handle_openai_embeddings(c, body);
}
static void route_openai_models(struct call *c, struct str body, struct str tail) {
    (void)body, (void)tail;
    handle_openai_models(c);
}
static void route_openai_model(struct call *c, struct str body, struct str tail) {
    (void)body;
    handle_openai_model(c, tail);
}

/* Cloud services of the reference: answered as it answers with its cloud switched off. */
static void route_status(struct call *c, struct str body, struct str tail) {
    (void)body, (void)tail;
    text_reply(c, 200, "application/json; charset=utf-8",
               STR("{\"cloud\":{\"disabled\":true,\"source\":\"env\"}}"));
}
static void route_account(struct call *c, struct str body, struct str tail) {
    (void)body, (void)tail;
    call_refuse(c, 401, STR("unauthorized"));
}
static void route_web_search(struct call *c, struct str body, struct str tail) {
    (void)body, (void)tail;
    call_refuse(c, 403, STR("ollama cloud is disabled: web search is unavailable"));
}
static void route_web_fetch(struct call *c, struct str body, struct str tail) {
    (void)body, (void)tail;
    call_refuse(c, 403, STR("ollama cloud is disabled: web fetch is unavailable"));
}

/* --- the table --- */

static const struct route routes[] = {
    {"GET HEAD", "/", DIALECT_NATIVE, route_root},
    {"GET HEAD", "/api/version", DIALECT_NATIVE, route_version},
    {"GET", "/api/status", DIALECT_NATIVE, route_status},
    {"GET HEAD", "/api/tags", DIALECT_NATIVE, route_tags},
    {"GET", "/api/ps", DIALECT_NATIVE, route_ps},
    {"POST", "/api/show", DIALECT_NATIVE, route_show},
    {"POST", "/api/create", DIALECT_NATIVE, route_create},
    {"POST", "/api/copy", DIALECT_NATIVE, route_copy},
    {"DELETE", "/api/delete", DIALECT_NATIVE, route_delete},
    {"POST", "/api/blobs/:digest", DIALECT_NATIVE, NULL, .pieces = true},
    {"HEAD", "/api/blobs/:digest", DIALECT_NATIVE, route_blob_head},
    {"POST", "/api/pull", DIALECT_NATIVE, route_pull},
    {"POST", "/api/push", DIALECT_NATIVE, route_push},
    {"POST", "/api/generate", DIALECT_NATIVE, route_generate},
    {"POST", "/api/chat", DIALECT_NATIVE, route_chat},
    {"POST", "/v1/chat/completions", DIALECT_OPENAI, route_openai_chat},
    {"POST", "/v1/completions", DIALECT_OPENAI, route_openai_completion},
    {"POST", "/api/embed", DIALECT_NATIVE, route_embed},
    {"POST", "/api/embeddings", DIALECT_NATIVE, route_embeddings},
    {"POST", "/v1/embeddings", DIALECT_OPENAI, route_openai_embeddings},
    {"GET", "/v1/models", DIALECT_OPENAI, route_openai_models},
    {"GET", "/v1/models/*", DIALECT_OPENAI, route_openai_model},
    {"POST", "/api/me", DIALECT_NATIVE, route_account},
    {"POST", "/api/signout", DIALECT_NATIVE, route_account},
    {"DELETE", "/api/user/keys/:key", DIALECT_NATIVE, route_account},
    {"POST", "/api/experimental/web_search", DIALECT_NATIVE, route_web_search},
    {"POST", "/api/experimental/web_fetch", DIALECT_NATIVE, route_web_fetch},
    /* Routes of the reference that have no handler yet. */
    {"GET", "/api/experimental/model-recommendations", DIALECT_NATIVE, NULL},
    {"POST", "/v1/responses", DIALECT_OPENAI, NULL},
    {"POST", "/v1/audio/transcriptions", DIALECT_OPENAI, NULL},
    {"POST", "/v1/messages", DIALECT_ANTHROPIC, NULL},
};

/* The next segment of a path, "/" in front cut off; false at the end. */
static bool segment_take(struct str *path, struct str *segment) {
    if (path->n == 0 || path->p[0] != '/')
        return false;
    size_t end = MIN(str_find(*path, STR("/"), 1), path->n);
    *segment = str_slice(*path, 1, end);
    *path = str_slice(*path, end, path->n);
    return true;
}

static bool pattern_matches(const char *pattern, struct str path, struct str *tail) {
    struct str left = str_of(pattern), want, have;
    while (segment_take(&left, &want)) {
        if (str_is(want, "*")) {
            *tail = str_slice(path, 1, path.n);
            return tail->n > 0 && !str_ends(*tail, STR("/"));
        }
        if (!segment_take(&path, &have))
            return false;
        bool any = want.n && want.p[0] == ':';
        if (any ? have.n == 0 : !str_eq(want, have))
            return false;
        if (any)
            *tail = have;
    }
    return path.n == 0;
}

static bool method_among(struct str method, const char *methods) {
    struct str left = str_of(methods);
    while (left.n) {
        size_t end = MIN(str_find(left, STR(" "), 0), left.n);
        if (str_eq(str_slice(left, 0, end), method))
            return true;
        left = str_slice(left, end + 1, left.n);
    }
    return false;
}

/* The route of a path and method; NULL if none. *known: some method has the path. */
static const struct route *route_find(struct str method, struct str path, struct str *tail, bool *known) {
    *known = false;
    for (size_t i = 0; i < ARRAY_LEN(routes); i++) {
        if (!pattern_matches(routes[i].pattern, path, tail))
            continue;
        *known = true;
        if (method_among(method, routes[i].methods))
            return &routes[i];
    }
    return NULL;
}

/* --- before the route --- */

#define CORS_METHODS "GET,POST,PUT,PATCH,DELETE,HEAD,OPTIONS"
#define CORS_HEADERS                                                                                         \
    "Authorization,Content-Type,User-Agent,Accept,X-Requested-With,OpenAI-Beta,x-stainless-arch,x-"          \
    "stainless-async,"                                                                                       \
    "x-stainless-custom-poll-interval,x-stainless-helper-method,x-stainless-lang,x-stainless-os,"            \
    "x-stainless-package-version,x-stainless-poll-helper,x-stainless-retry-count,x-stainless-runtime,"       \
    "x-stainless-runtime-version,x-stainless-timeout"

static void empty_reply(struct http_request *r, u32 code) { http_reply(r, code, NULL, STR_NONE); }

/* True if the request has been answered. */
static bool cors_apply(struct api *a, struct http_request *r) {
    struct str origin = http_header(r, "Origin");
    if (origin.n == 0 || origin_is_own(origin, http_header(r, "Host")))
        return false;
    if (!origin_allowed(&a->origins, origin)) {
        empty_reply(r, 403);
        return true;
    }
    http_add_header(r, "Access-Control-Allow-Origin", a->origins.all ? STR("*") : origin);
    if (!a->origins.all)
        http_add_header(r, "Vary", STR("Origin"));
    if (!str_is(http_method(r), "OPTIONS"))
        return false;
    http_add_header(r, "Access-Control-Allow-Methods", STR(CORS_METHODS));
    http_add_header(r, "Access-Control-Allow-Headers", STR(CORS_HEADERS));
    http_add_header(r, "Access-Control-Max-Age", STR("43200"));
    empty_reply(r, 204);
    return true;
}

static bool host_apply(struct api *a, struct http_request *r) {
    if (!a->config.loopback)
        return false;
    enum host_kind kind = host_check(http_header(r, "Host"));
    if (kind == HOST_ADDRESS || (kind == HOST_NAME && !str_is(http_method(r), "OPTIONS")))
        return false;
    empty_reply(r, kind == HOST_NAME ? 204 : 403);
    return true;
}

/* "/api/tags/" is "/api/tags": the client is sent there. True if answered. */
static bool slash_redirect(struct http_request *r) {
    struct str path = http_path(r), query = http_query(r), tail;
    bool known;
    if (path.n < 2 || !str_ends(path, STR("/")))
        return false;
    path.n--;
    if (!route_find(http_method(r), path, &tail, &known))
        return false;
    bool get = str_is(http_method(r), "GET");
    struct buf to = {0}, page = {0};
    buf_add_str(&to, path);
    if (query.n)
        buf_printf(&to, "?%.*s", STR_FMT(query));
    http_add_header(r, "Location", buf_str(&to));
    if (get)
        buf_printf(&page, "<a href=\"%.*s\">Moved Permanently</a>.\n\n", STR_FMT(path));
    http_reply(r, get ? 301 : 307, get ? "text/html; charset=utf-8" : NULL, buf_str(&page));
    buf_release(&to);
    buf_release(&page);
    return true;
}

static void allow_header(struct http_request *r, struct str path) {
    char allow[64];
    size_t n = 0;
    struct str tail;
    for (size_t i = 0; i < ARRAY_LEN(routes); i++)
        if (pattern_matches(routes[i].pattern, path, &tail)) {
            if (n && n + 3 < sizeof allow)
                memcpy(allow + n, ", ", 2), n += 2;
            for (const char *p = routes[i].methods; *p && n + 3 < sizeof allow; p++) {
                allow[n++] = *p == ' ' ? ',' : *p;
                if (*p == ' ')
                    allow[n++] = ' ';
            }
        }
    http_add_header(r, "Allow", (struct str){allow, n});
}

/* --- dispatch --- */

/* Routes that gather nothing and stream nothing still answer errors in their dialect. */
static const struct call_writer plain_writers[] = {
    [DIALECT_NATIVE] = {.dialect = DIALECT_NATIVE},
    [DIALECT_OPENAI] = {.dialect = DIALECT_OPENAI},
    [DIALECT_ANTHROPIC] = {.dialect = DIALECT_ANTHROPIC},
};

static struct call *call_new(struct api *a, const struct route *route, struct http_request *r) {
    struct call *c = xcalloc(1, sizeof *c);
    c->api = a;
    c->http = r;
    c->writer = &plain_writers[route->dialect];
    c->arrival_ns = http_arrival_ns(r);
    c->wall_ns = clock_wall_ns();
    /* No limit of its own: what goes in is bounded by the body, by LIMIT_STORE_TEXT_BYTES for a model's
     * texts, and by LIMIT_STORE_LIST_BYTES for a listing. */
    arena_init(&c->arena, 0);
    http_set_data(r, c);
    return c;
}

static void dispatch(struct api *a, const struct route *route, struct http_request *r, struct str body,
                     struct str tail) {
    struct call *c = call_new(a, route, r);
    if (route->handle) {
        route->handle(c, body, tail);
        return;
    }
    char text[128];
    int n = snprintf(text, sizeof text, "%s is not supported by minka yet", route->pattern);
    call_refuse(c, 501, (struct str){text, (size_t)n});
}

/* Requests that cors_apply and host_apply would answer are read like any other. */
static bool on_begin(void *ctx, struct http_request *r) {
    struct api *a = ctx;
    struct str tail = STR_NONE, origin = http_header(r, "Origin");
    bool known;
    const struct route *route = route_find(http_method(r), http_path(r), &tail, &known);
    if (!route || !route->pieces)
        return false;
    if (a->config.loopback && host_check(http_header(r, "Host")) == HOST_REFUSED)
        return false;
    if (origin.n && !origin_is_own(origin, http_header(r, "Host")) && !origin_allowed(&a->origins, origin))
        return false;
    upload_begin(call_new(a, route, r), tail);
    return true;
}

static bool on_piece(void *ctx, struct http_request *r, struct str piece) {
    (void)ctx;
    return upload_piece(http_data(r), piece);
}

static void on_body(void *ctx, struct http_request *r, struct str body) {
    struct api *a = ctx;
    struct str tail = STR_NONE;
    bool known;
    struct call *uploading = http_data(r);
    const struct route *route = route_find(http_method(r), http_path(r), &tail, &known);
    if (!route && slash_redirect(r))
        return;
    if (cors_apply(a, r) || host_apply(a, r))
        return;
    if (uploading) {
        upload_end(uploading);
    } else if (route) {
        dispatch(a, route, r, body, tail);
    } else if (known) {
        allow_header(r, http_path(r));
        http_reply(r, 405, "text/plain", STR("405 method not allowed"));
    } else {
        http_reply(r, 404, "text/plain", STR("404 page not found"));
    }
}

static void on_gone(void *ctx, struct http_request *r, bool gone) {
    (void)ctx, (void)gone;
    struct call *c = http_data(r);
    if (c)
        call_gone(c);
}

struct api *api_new(const struct api_config *config, struct store *store, const struct api_backend *backend) {
    struct api *a = xcalloc(1, sizeof *a);
    arena_init(&a->arena, 0);
    a->config = *config;
    a->config.version = arena_str(&a->arena, config->version);
    a->config.origins = arena_str(&a->arena, config->origins);
    a->store = store;
    a->models = models_new(store, a->config.go_template);
    a->backend = *backend;
    origins_init(&a->origins, a->config.origins, &a->arena);
    return a;
}

void api_set_transfers(struct api *a, const struct transfer_service *s) { a->transfers = *s; }

void api_free(struct api *a) {
    if (!a)
        return;
    models_free(a->models);
    arena_release(&a->arena);
    free(a);
}

struct httpd_handler api_handler(struct api *a) {
    return (struct httpd_handler){on_begin, on_piece, on_body, on_gone, a};
}
