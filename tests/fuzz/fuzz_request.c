/* fuzz_request.c - request bodies through the dialects, and the engine's events back.
 * Input: a byte that picks the route, a byte that picks the events, then the body. Whatever comes, the
 * backend sees a request within its bounds, and the client one complete answer of JSON. */
#include "api_fake.h"

int LLVMFuzzerTestOneInput(const u8 *data, size_t size);

static const char *const routes[] = {"/api/generate", "/api/chat", "/v1/chat/completions", "/v1/completions",
                                     "/api/show"};
/* Picked by bytes from 128 on. */
static const char *const embed_routes[] = {"/api/embed", "/api/embeddings", "/v1/embeddings"};

enum {
    EVENT_THINK = 1,
    EVENT_TOOL = 2,
    EVENT_LOGPROBS = 4,
    EVENT_ERROR = 8,
    EVENT_LEAVE = 16,
    EVENT_EMPTY = 32
};

/* False when the request has ended: nothing may be sent any more. */
static bool event_send(enum gen_event_kind kind, struct str text, bool logprobs) {
    static const u32 ids[] = {1, 2};
    if (!fake.sink.on_event)
        return false;
    struct gen_logprob top = {3, -1.0f, str_slice(text, 0, 5)};
    struct gen_logprobs p = {{4, -0.5f, str_slice(text, 0, 3)}, &top, 1};
    struct gen_event e = {.kind = kind, .text = text, .ids = ids, .n_ids = 1};
    if (logprobs)
        e.logprobs = &p, e.n_logprobs = 1;
    if (kind == GEN_TOOL)
        e.tool = (struct gen_tool_call){text, text, STR("{\"a\":\"<&>\"}")}, e.text = STR_NONE;
    static const f32 vectors[][3] = {{1, -2, 0.25f}, {0, 0, 0}, {1, NAN, 2}};
    if (kind == GEN_VECTOR)
        e.input = fake.n_vectors++, e.vector = vectors[text.n % 3], e.n_vector = 3, e.text = STR_NONE, e.n_ids = 0;
    if (kind == GEN_ERROR)
        e.status = ERR_CORRUPT;
    if (kind == GEN_DONE)
        e.context = ids, e.n_context = 2, e.counts.n_prompt = 2,
        e.reason = fake.load_only ? GEN_LOAD : GEN_STOP;
    fake.sink.on_event(fake.sink.ctx, &e);
    if (kind == GEN_DONE || kind == GEN_ERROR)
        fake.sink.on_event = NULL;
    return true;
}

static void events_play(u8 events, struct str text) {
    bool logprobs = events & EVENT_LOGPROBS;
    if (!fake.load_only && !fake.render_only && !(events & EVENT_EMPTY)) {
        event_send(GEN_STARTED, STR_NONE, false);
        while (fake.n_vectors < fake.n_inputs && event_send(GEN_VECTOR, text, false))
            ;
        if (events & EVENT_THINK)
            event_send(GEN_THINK, text, logprobs);
        event_send(GEN_TEXT, text, logprobs);
        if (events & EVENT_TOOL)
            event_send(GEN_TOOL, text, false);
    }
    if (!(events & EVENT_LEAVE))
        event_send(events & EVENT_ERROR ? GEN_ERROR : GEN_DONE, STR_NONE, false);
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size) {
    if (size < 2)
        return 0;
    fake_open();
    fake.sink.on_event = NULL;
    const char *path = data[0] < 128 ? routes[data[0] % ARRAY_LEN(routes)] : embed_routes[data[0] % ARRAY_LEN(embed_routes)];
    struct http_request r = {.method = STR("POST"), .path = str_of(path)};
    struct str body = {(const char *)data + 2, size - 2};
    struct httpd_handler h = api_handler(fake.api);
    h.on_body(h.ctx, &r, body);
    bool leaves = fake.sink.on_event && (data[1] & EVENT_LEAVE);
    if (fake.sink.on_event)
        events_play(data[1], body);
    if (!leaves)
        answer_check(&r);
    h.on_gone(h.ctx, &r, leaves);
    check(!fake.sink.on_event);
    buf_release(&r.body);
    return 0;
}
