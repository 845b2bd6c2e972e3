/* api_fake.h - the API without a network, for fuzz targets: the functions of httpd.h, whose answers are kept
 * and checked, and a backend that plays the events it is given. Include it once per program. */
#ifndef MINKA_FUZZ_API_FAKE_H
#define MINKA_FUZZ_API_FAKE_H

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "api/api.h"
#include "base/limit.h"
#include "base/log.h"
#include "gguf/gguf.h"

struct http_request {
    struct str method, path;
    void *data;
    u32 code;
    bool streaming, ended;
    struct buf body;
};

struct str http_method(const struct http_request *r) {
    return r->method;
}
struct str http_path(const struct http_request *r) {
    return r->path;
}
struct str http_query(const struct http_request *r) {
    (void)r;
    return STR_NONE;
}
struct str http_header(const struct http_request *r, const char *name) {
    (void)r, (void)name;
    return STR_NONE;
}
const char *http_peer(const struct http_request *r) {
    (void)r;
    return "127.0.0.1";
}
void http_set_data(struct http_request *r, void *data) { r->data = data; }
void *http_data(const struct http_request *r) { return r->data; }
u64 http_arrival_ns(const struct http_request *r) {
    (void)r;
    return 1;
}
uv_loop_t *http_loop(const struct http_request *r) {
    (void)r;
    return uv_default_loop();
}
void http_body_continue(struct http_request *r) { (void)r; }
void http_add_header(struct http_request *r, const char *name, struct str value) {
    (void)name, (void)value;
    check(!r->code);
}

void http_reply(struct http_request *r, u32 status, const char *content_type, struct str body) {
    (void)content_type;
    check(!r->code && !r->ended);
    r->code = status;
    r->ended = true;
    buf_add_str(&r->body, body);
}

void http_stream_begin(struct http_request *r, u32 status, const char *content_type) {
    (void)content_type;
    check(!r->code && !r->ended);
    r->code = status;
    r->streaming = true;
}

bool http_stream_write(struct http_request *r, struct str bytes) {
    check(r->streaming && !r->ended);
    buf_add_str(&r->body, bytes);
    return true;
}

void http_stream_end(struct http_request *r) {
    check(r->streaming && !r->ended);
    r->ended = true;
}

void http_stream_abort(struct http_request *r) { http_stream_end(r); }

/* --- backend --- */

struct fake {
    struct store *store;
    struct api *api;
    struct api_sink sink; /* of the request that runs; on_event NULL if none does */
    bool load_only, render_only;
    u32 n_inputs, n_vectors;
    char folder[64];
};

static struct fake fake;

static void request_check(const struct gen_request *r) {
    const struct gen_sampling *s = &r->sampling;
    check(r->num_ctx >= 4 && r->num_ctx <= LIMIT_NUM_CTX);
    check(r->num_predict <= LIMIT_PREDICT_CONTEXTS * r->num_ctx && r->num_keep <= r->num_ctx);
    check(isfinite(s->temperature) && isfinite(s->top_p) && isfinite(s->min_p) && isfinite(s->typical_p));
    check(isfinite(s->repeat_penalty) && isfinite(s->presence_penalty) && isfinite(s->frequency_penalty));
    check(s->top_k >= 0 && s->repeat_last_n >= 0 && s->repeat_last_n <= (i32)r->num_ctx);
    check(r->n_stop <= LIMIT_STOPS && r->n_messages <= LIMIT_MESSAGES &&
          r->top_logprobs <= LIMIT_TOP_LOGPROBS);
    check(r->n_inputs <= LIMIT_EMBED_INPUTS && (r->form == GEN_FORM_EMBED || r->n_inputs == 0));
    check(r->n_context <= LIMIT_NUM_CTX && r->n_resume == 0);
    for (u32 i = 0; i < r->n_stop; i++)
        check(r->stop[i].n > 0 && r->stop[i].n <= LIMIT_STOP_BYTES);
    for (u32 i = 0; i < r->n_messages; i++) {
        check(r->messages[i].role <= ROLE_TOOL &&
              utf8_valid_len(r->messages[i].content) == r->messages[i].content.n);
        for (u32 k = 0; k < r->messages[i].n_tool_calls; k++) {
            struct str text = r->messages[i].tool_calls[k].arguments;
            json_t *v = json_loadb(text.p, text.n, JSON_ALLOW_NUL, NULL);
            check(json_is_object(v));
            json_decref(v);
        }
    }
}

static enum status fake_generate(void *ctx, const struct store_model *m, const struct store_model *draft,
                                 struct gen_request *r, i64 keep_alive_ns, struct api_sink sink,
                                 u32 *retry_after_s, struct err *err) {
    (void)ctx, (void)m, (void)draft, (void)keep_alive_ns, (void)retry_after_s, (void)err;
    check(keep_alive_ns >= -1);
    request_check(r);
    r->id = 1;
    fake.sink = sink;
    fake.load_only = r->load_only;
    fake.render_only = r->render_only;
    fake.n_inputs = r->load_only ? 0 : r->n_inputs;
    fake.n_vectors = 0;
    return OK;
}

static void fake_cancel(void *ctx, u64 id) {
    (void)ctx, (void)id;
    check(fake.sink.on_event);
    fake.sink.on_event = NULL;
}

static void fake_expire(void *ctx, const struct store_model *m, i64 keep_alive_ns) {
    (void)ctx, (void)m, (void)keep_alive_ns;
}

static const struct wire_state *fake_state(void *ctx) {
    static const struct wire_state none;
    (void)ctx;
    return &none;
}

static bool fake_model_of(void *ctx, u32 id, struct str *digest, struct str *name) {
    (void)ctx, (void)id, (void)digest, (void)name;
    return false;
}

/* --- a store --- */

static void fake_remove(void) {
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", fake.folder);
    if (system(command) != 0)
        perror(fake.folder);
}

static void fake_file(const char *below, struct str text) {
    char path[320];
    snprintf(path, sizeof path, "%s/%s", fake.folder, below);
    for (char *at = path + 1; *at; at++)
        if (*at == '/') {
            *at = 0;
            mkdir(path, 0755);
            *at = '/';
        }
    FILE *f = fopen(path, "w");
    check(f && fwrite(text.p, 1, text.n, f) == text.n && fclose(f) == 0);
}

static void fake_import(const char *name, const char *jinja) {
    char path[256];
    struct err err;
    struct model_name n;
    u64 dim = 32;
    static const f32 values[32];
    snprintf(path, sizeof path, "%s/%s.gguf", fake.folder, name);
    struct gguf_writer *w = gguf_writer_new();
    gguf_put_str(w, "general.architecture", STR("llama"));
    gguf_put_u32(w, "llama.context_length", 2048);
    gguf_put_str(w, "tokenizer.chat_template", str_of(jinja));
    gguf_put_tensor(w, STR("token_embd.weight"), 0, 1, &dim, values);
    check(gguf_write(w, path, &err) == OK);
    gguf_writer_free(w);
    check(model_name_parse(str_of(name), &n, &err) == OK && store_import(fake.store, path, &n, &err) == OK);
}

#define HEX64(c)                                                                                             \
    c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c  \
        c c c c c c c c c c c c
#define LAYER(kind, c)                                                                                       \
    "{\"mediaType\":\"application/vnd.ollama.image." kind "\",\"digest\":\"sha256:" HEX64(c) "\",\"size\":"  \
                                                                                             "9}"
#define LIBRARY "models/manifests/registry.ollama.ai/library/"

/* Models "tiny" and "thinker", and "dressed" with a system text, parameters and messages. */
static void fake_models(void) {
    fake_import("tiny", "{{ messages }}");
    fake_import("thinker", "<think></think>{{ tools }}");
    fake_file("models/blobs/sha256-" HEX64("a"), STR("Be brief."));
    fake_file("models/blobs/sha256-" HEX64("b"), STR("{\"stop\":[\"<end>\"],\"num_ctx\":512}"));
    fake_file("models/blobs/sha256-" HEX64("c"), STR("[{\"role\":\"user\",\"content\":\"hi\"}]"));
    fake_file(LIBRARY "dressed/latest",
              STR("{\"layers\":[" LAYER("model", "d") "," LAYER("system", "a") "," LAYER(
                  "params", "b") "," LAYER("messages", "c") "]}"));
}

/* Makes store and API at the first call. */
static void fake_open(void) {
    struct err err;
    char path[128];
    if (fake.store)
        return;
    log_init(LOG_ERROR, "fuzz");
    snprintf(fake.folder, sizeof fake.folder, "/tmp/minka-fuzz-XXXXXX");
    check(mkdtemp(fake.folder));
    atexit(fake_remove);
    snprintf(path, sizeof path, "%s/models", fake.folder);
    check(store_open(path, &fake.store, &err) == OK);
    fake_models();
    struct api_config config = {
        .version = STR("1"), .num_ctx_default = 4096, .keep_alive_ns_default = 1, .debug = true};
    struct api_backend backend = {fake_generate, fake_cancel, fake_expire, fake_state, fake_model_of, NULL};
    fake.api = api_new(&config, fake.store, &backend);
}

/* --- what came back --- */

static void line_check(struct str line) {
    if (str_starts(line, STR("data: ")))
        line = str_slice(line, 6, line.n);
    if (line.n == 0 || str_is(line, "[DONE]"))
        return;
    json_error_t where;
    json_t *v = json_loadb(line.p, line.n, JSON_ALLOW_NUL | JSON_REJECT_DUPLICATES, &where);
    if (!v)
        die("the answer is no JSON (%s): %.*s", where.text, STR_FMT(line));
    json_decref(v);
}

/* Every line of an answer is JSON, and the answer is complete once work on the pool has ended. */
static void answer_check(const struct http_request *r) {
    uv_run(uv_default_loop(), UV_RUN_DEFAULT);
    struct str text = buf_str(&r->body);
    check(r->ended && r->code);
    while (text.n) {
        size_t end = MIN(str_find(text, STR("\n"), 0), text.n);
        line_check(str_slice(text, 0, end));
        text = str_slice(text, end + 1, text.n);
    }
}

#endif
