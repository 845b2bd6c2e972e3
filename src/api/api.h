/* api.h - the API dialects: HTTP requests in, neutral requests to a backend, events back as bytes.
 *
 * Everything runs on the server's loop thread. routes.c finds the handler (and does CORS and the host check),
 * ollama.c and openai.c translate; both share resolve.c (model, parameters, defaults -> gen_request). The
 * backend is the engine behind its socket in the server, and a scripted one in the tests. */
#ifndef MINKA_API_H
#define MINKA_API_H

#include "gen/gen.h"
#include "http/httpd.h"
#include "store/store.h"
#include "store/transfer.h"
#include "wire/wire.h"

/* Receives the events of one request, on the loop thread; e and what it points to are valid during the
 * call. After DONE or ERROR, and after cancel(), nothing comes any more. */
struct api_sink {
    void (*on_event)(void *ctx, const struct gen_event *e);
    void *ctx;
};

struct api_backend {
    /* Takes a request for a model of the store; r, m and draft (may guess for m; NULL = none) are copied. r->id is
     * set. The files are opened, the engine told, the request journaled. Fails at once with ERR_BUSY (queue full,
     * *retry_after_s set) or ERR_NOT_FOUND / ERR_IO (blob of m; without that of draft it goes on). */
    enum status (*generate)(void *ctx, const struct store_model *m, const struct store_model *draft,
                            struct gen_request *r, i64 keep_alive_ns, struct api_sink sink,
                            u32 *retry_after_s, struct err *err);
    void (*cancel)(void *ctx, u64 request_id);
    /* Keep-alive without a request: 0 unloads when idle. */
    void (*expire)(void *ctx, const struct store_model *m, i64 keep_alive_ns);
    /* Latest figures of the engine; waiting counts what the server has not seen start. */
    const struct wire_state *(*state)(void *ctx);
    /* Blob digest ("sha256:...") and short name that a model_id was announced with; false if unknown. */
    bool (*model_of)(void *ctx, u32 model_id, struct str *digest, struct str *name);
    void *ctx;
};

/* Defaults from the environment, read once by main. */
struct api_config {
    struct str version;        /* of minka, shown by /api/version */
    struct str origins;        /* OLLAMA_ORIGINS */
    bool loopback;             /* the listener is a loopback address: the host check applies */
    u32 num_ctx_default;       /* OLLAMA_CONTEXT_LENGTH, else 4096 */
    i64 keep_alive_ns_default; /* OLLAMA_KEEP_ALIVE, else 5 minutes; < 0 = for ever */
    i32 go_template;           /* OLLAMA_GO_TEMPLATE: 1 = Go templates always win, -1 = Jinja does, 0 = unset */
    bool debug;                /* MINKA_DEBUG=1: logits hash in final objects */
};

struct api;
/* What pulls and pushes; without it /api/pull and /api/push answer 501. Copied. */
void api_set_transfers(struct api *a, const struct transfer_service *s);
struct api *api_new(const struct api_config *c, struct store *store,
                    const struct api_backend *backend) MUST_USE;
void api_free(struct api *a);
/* The handler to give to httpd_start. */
struct httpd_handler api_handler(struct api *a);

/* Duration of a keep_alive value as the reference reads it: a JSON number is seconds, text a Go duration;
 * negative = for ever (-1). ERR_INVALID otherwise. */
enum status api_keep_alive(struct str text, bool is_number, i64 *ns, struct err *err) MUST_USE;

#endif
