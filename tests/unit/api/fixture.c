/* fixture.c - server thread, scripted backend, blocking client. */
#include "fixture.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "gguf/gguf.h"

/* --- scripts --- */

struct step {
    enum gen_event_kind kind;
    const char *text;
    bool logprobs;
    enum gen_done_reason reason;
    enum status status;
};

static const struct gen_logprob top[] = {{1, -0.25f, {"Hel", 3}}, {2, -1.5f, {"\xc3", 1}}};
static const struct gen_logprobs some_logprobs[] = {{{1, -0.25f, {"Hel", 3}}, top, 2},
                                                    {{2, -1.5f, {"\xc3", 1}}, NULL, 0}};

#define STEP_END                                                                                             \
    { GEN_QUEUED, NULL, false, 0, 0 }
static const struct {
    const char *name;
    struct step steps[6];
} scripts[] = {
    {"two words",
     {{GEN_STARTED, 0, 0, 0, 0},
      {GEN_TEXT, "Hello", 0, 0, 0},
      {GEN_TEXT, " <w\xc3\xb6rld> & \"\xe2\x80\xa8\"", 0, 0, 0},
      {GEN_DONE, 0, 0, GEN_STOP, 0},
      STEP_END}},
    {"length", {{GEN_TEXT, "cut", 0, 0, 0}, {GEN_DONE, 0, 0, GEN_LENGTH, 0}, STEP_END}},
    {"nothing", {{GEN_DONE, 0, 0, GEN_STOP, 0}, STEP_END}},
    {"held", {{GEN_TEXT, "", 0, 0, 0}, {GEN_TEXT, "free", 0, 0, 0}, {GEN_DONE, 0, 0, GEN_STOP, 0}, STEP_END}},
    {"think",
     {{GEN_THINK, "Hm.", 0, 0, 0}, {GEN_TEXT, "Yes", 0, 0, 0}, {GEN_DONE, 0, 0, GEN_STOP, 0}, STEP_END}},
    {"tool",
     {{GEN_TEXT, "Let me see.", 0, 0, 0},
      {GEN_TOOL, 0, 0, 0, 0},
      {GEN_TOOL, 0, 0, 0, 0},
      {GEN_DONE, 0, 0, GEN_STOP, 0},
      STEP_END}},
    {"logprobs",
     {{GEN_TEXT, "Hello", true, 0, 0}, {GEN_TEXT, "", true, 0, 0}, {GEN_DONE, 0, 0, GEN_STOP, 0}, STEP_END}},
    {"a vector", {{GEN_STARTED, 0, 0, 0, 0}, {GEN_VECTOR, 0, 0, 0, 0}, {GEN_DONE, 0, 0, GEN_STOP, 0}, STEP_END}},
    {"two vectors", /* the engine died behind the first: the new one begins anew */
     {{GEN_VECTOR, 0, 0, 0, 0},
      {GEN_VECTOR, 0, 0, 0, 0},
      {GEN_VECTOR, 0, 0, 1, 0},
      {GEN_DONE, 0, 0, GEN_STOP, 0},
      STEP_END}},
    {"a bad vector", {{GEN_VECTOR, "nan", 0, 0, 0}, {GEN_DONE, 0, 0, GEN_STOP, 0}, STEP_END}},
    {"fail early", {{GEN_ERROR, "the prompt is too long", 0, 0, ERR_INVALID}, STEP_END}},
    {"fail late",
     {{GEN_TEXT, "So", 0, 0, 0}, {GEN_ERROR, "the file is damaged", 0, 0, ERR_CORRUPT}, STEP_END}},
    {"engine gone", {{GEN_ERROR, "", 0, 0, ERR_INTERNAL}, STEP_END}},
    {"engine gone late", {{GEN_TEXT, "So", 0, 0, 0}, {GEN_ERROR, "", 0, 0, ERR_INTERNAL}, STEP_END}},
    {"wait", {STEP_END}},
    {"talk", {{GEN_TEXT, "on and on", 0, 0, 0}, STEP_END}},
    {"flood", {{GEN_TEXT, NULL, 0, 0, 0}, STEP_END}}, /* the same piece again and again, without end */
};

struct play {
    struct play *next;
    u64 id;
    struct api_sink sink;
    const struct step *at;
    bool flood, load_only, render_only, want_context;
};

struct fixture {
    char folder[64];
    u16 port;
    pthread_t thread;
    uv_loop_t loop;
    uv_async_t stop;
    uv_timer_t tick;
    struct store *store;
    struct api *api;
    struct httpd *httpd;
    struct play *plays;
    u64 next_id;
    struct wire_state state;
    pthread_mutex_t lock; /* guards seen and n_cancelled */
    struct buf seen;
    u32 n_cancelled;
};

static void note(struct fixture *f, struct str line) {
    pthread_mutex_lock(&f->lock);
    buf_add_str(&f->seen, line);
    buf_add_char(&f->seen, '\n');
    pthread_mutex_unlock(&f->lock);
}

/* --- what the backend was asked, as text --- */

static void text_note(struct buf *b, struct str s) {
    struct buf quoted = {0};
    json_str(&quoted, s);
    buf_add_str(b, buf_str(&quoted));
    buf_release(&quoted);
}

static void messages_note(struct buf *b, const struct gen_request *r) {
    for (u32 i = 0; i < r->n_messages; i++) {
        const struct gen_message *m = &r->messages[i];
        buf_printf(b, "\n  %s ", gen_role_name(m->role));
        text_note(b, m->content);
        if (m->thinking.n)
            buf_printf(b, " thinking="), text_note(b, m->thinking);
        if (m->tool_name.n)
            buf_printf(b, " tool_name="), text_note(b, m->tool_name);
        if (m->tool_call_id.n)
            buf_printf(b, " tool_call_id="), text_note(b, m->tool_call_id);
        for (u32 k = 0; k < m->n_tool_calls; k++)
            buf_printf(b, " call(%.*s %.*s %.*s)", STR_FMT(m->tool_calls[k].id),
                       STR_FMT(m->tool_calls[k].name), STR_FMT(m->tool_calls[k].arguments));
    }
}

static void inputs_note(struct buf *b, const struct gen_request *r) {
    for (u32 i = 0; i < r->n_inputs; i++) {
        buf_printf(b, "\n  input ");
        for (u32 k = 0; k < r->inputs[i].n_ids; k++)
            buf_printf(b, "%s%u", k ? "," : "", r->inputs[i].ids[k]);
        if (r->inputs[i].n_ids == 0)
            text_note(b, r->inputs[i].text);
    }
}

static void request_note(struct fixture *f, const struct store_model *m, const struct store_model *draft,
                         const struct gen_request *r, i64 keep_alive_ns) {
    static const char *const forms[] = {"raw", "chat", "fill", "embed"};
    static const char *const choices[] = {"auto", "none", "required", "one"};
    static const char *const thinks[] = {"default", "off", "on", "low", "medium", "high"};
    const struct gen_sampling *s = &r->sampling;
    struct buf b = {0};
    buf_printf(&b, "generate %s:%s %s", m->name.model, m->name.tag, forms[r->form]);
    buf_printf(&b, " ctx=%u predict=%u keep=%u", r->num_ctx, r->num_predict, r->num_keep);
    /* A drawn seed has 64 random bits. */
    if (s->seed >> 40)
        buf_printf(&b, " seed=drawn");
    else
        buf_printf(&b, " seed=%llu", (unsigned long long)s->seed);
    buf_printf(&b,
               " temperature=%g top_k=%d top_p=%g min_p=%g typical_p=%g last_n=%d repeat=%g presence=%g "
               "frequency=%g",
               (f64)s->temperature, s->top_k, (f64)s->top_p, (f64)s->min_p, (f64)s->typical_p,
               s->repeat_last_n, (f64)s->repeat_penalty, (f64)s->presence_penalty, (f64)s->frequency_penalty);
    buf_printf(&b, "%s%s%s%s%s%s%s%s", r->truncate ? "" : " no-truncate", r->shift ? "" : " no-shift",
               r->add_special ? "" : " no-special", r->logprobs ? " logprobs" : "",
               r->want_context ? " want-context" : "", r->want_hash ? " want-hash" : "",
               r->render_only ? " render-only" : "", r->load_only ? " load-only" : "");
    if (draft)
        buf_printf(&b, " draft=%s", draft->name.model);
    if (r->top_logprobs)
        buf_printf(&b, " top=%u", r->top_logprobs);
    if (r->format == GEN_FORMAT_JSON)
        buf_printf(&b, " format=json");
    if (r->format == GEN_FORMAT_SCHEMA)
        buf_printf(&b, " schema="), text_note(&b, r->schema);
    if (r->think != GEN_THINK_DEFAULT)
        buf_printf(&b, " think=%s", thinks[r->think]);
    buf_printf(&b, " keep_alive=%g client=%.*s", keep_alive_ns < 0 ? -1.0 : (f64)keep_alive_ns / 1e9,
               STR_FMT(r->client));
    for (u32 i = 0; i < r->n_stop; i++)
        buf_printf(&b, " stop="), text_note(&b, r->stop[i]);
    for (u32 i = 0; i < r->n_context; i++)
        buf_printf(&b, "%s%u", i ? "," : " context=", r->context[i]);
    if (r->prompt.n)
        buf_printf(&b, "\n  prompt "), text_note(&b, r->prompt);
    if (r->suffix.n)
        buf_printf(&b, "\n  suffix "), text_note(&b, r->suffix);
    if (r->chat_template.n)
        buf_printf(&b, "\n  template "), text_note(&b, r->chat_template);
    if (r->tools.n)
        buf_printf(&b, "\n  tools %s %.*s", choices[r->tool_choice], STR_FMT(r->tools));
    if (r->tool_choice_name.n)
        buf_printf(&b, " %.*s", STR_FMT(r->tool_choice_name));
    messages_note(&b, r);
    inputs_note(&b, r);
    note(f, buf_str(&b));
    buf_release(&b);
}

/* --- the backend --- */

static const struct step *script_find(struct str name) {
    for (size_t i = 0; i < ARRAY_LEN(scripts); i++)
        if (str_is(name, scripts[i].name))
            return scripts[i].steps;
    return scripts[0].steps;
}

static enum status backend_generate(void *ctx, const struct store_model *m, const struct store_model *draft,
                                    struct gen_request *r, i64 keep_alive_ns, struct api_sink sink,
                                    u32 *retry_after_s, struct err *err) {
    struct fixture *f = ctx;
    struct str name = r->n_messages ? r->messages[r->n_messages - 1].content : r->prompt;
    if (r->n_inputs)
        name = r->inputs[0].n_ids ? STR("a vector") : r->inputs[0].text;
    r->id = f->next_id++;
    request_note(f, m, draft, r, keep_alive_ns);
    if (str_is(name, "busy")) {
        *retry_after_s = 7;
        return err_set(err, ERR_BUSY, "queue full");
    }
    if (str_is(name, "no blob"))
        return err_set(err, ERR_NOT_FOUND, "no such blob");
    if (str_is(name, "bad disk"))
        return err_set(err, ERR_IO, "read error");
    struct play *p = xcalloc(1, sizeof *p);
    *p = (struct play){.next = f->plays,
                       .id = r->id,
                       .sink = sink,
                       .at = script_find(name),
                       .flood = str_is(name, "flood"),
                       .load_only = r->load_only,
                       .render_only = r->render_only,
                       .want_context = r->want_context};
    f->plays = p;
    return OK;
}

static void backend_cancel(void *ctx, u64 id) {
    struct fixture *f = ctx;
    for (struct play **at = &f->plays; *at; at = &(*at)->next)
        if ((*at)->id == id) {
            struct play *p = *at;
            *at = p->next;
            free(p);
            note(f, STR("cancel"));
            pthread_mutex_lock(&f->lock);
            f->n_cancelled++;
            pthread_mutex_unlock(&f->lock);
            return;
        }
}

static void backend_expire(void *ctx, const struct store_model *m, i64 keep_alive_ns) {
    char line[256];
    int n = snprintf(line, sizeof line, "expire %s:%s %lld", m->name.model, m->name.tag,
                     (long long)keep_alive_ns);
    note(ctx, (struct str){line, (size_t)n});
}

static const struct wire_state *backend_state(void *ctx) { return &((struct fixture *)ctx)->state; }

static bool backend_model_of(void *ctx, u32 model_id, struct str *digest, struct str *name) {
    (void)ctx;
    *digest = STR("sha256:0");
    *name = model_id == 1 ? STR("tiny:latest") : STR("removed:latest");
    return model_id < 3;
}

static void event_play(struct play *p, const struct step *s) {
    static char flood[64 * 1024];
    static const u32 ids[] = {3, 1, 4};
    struct gen_event e = {.request_id = p->id,
                          .kind = s->kind,
                          .text = str_of(s->text),
                          .ids = ids,
                          .n_ids = 1,
                          .status = s->status,
                          .reason = s->reason};
    memset(flood, 'x', sizeof flood);
    if (p->flood)
        e.text = (struct str){flood, sizeof flood};
    if (s->logprobs)
        e.logprobs = some_logprobs, e.n_logprobs = 2;
    static const f32 vectors[][4] = {{3, 0, -4, 12}, {0.5f, 0, 0, 0}, {1, NAN, 0, 0}};
    if (s->kind == GEN_VECTOR) /* the step's reason is the input's index */
        e.input = s->reason, e.vector = vectors[s->text ? 2 : s->reason], e.n_vector = 4, e.text = STR_NONE;
    if (s->kind == GEN_TOOL)
        e.tool = (struct gen_tool_call){STR("call_1"), STR("look"), STR("{\"at\":\"<Rome>\"}")};
    if (s->kind == GEN_DONE) {
        e.counts = (struct gen_counts){
            .n_prompt = 7, .n_cached = 3, .n_output = 2, .queue_ns = 11, .prompt_ns = 22, .output_ns = 33};
        e.logits_hash = 0x0123456789abcdef;
        e.context = ids, e.n_context = p->want_context ? 3 : 0;
        if (p->load_only)
            e.reason = GEN_LOAD, e.counts = (struct gen_counts){0};
        if (p->render_only)
            e.text = STR("<|user|>rendered"), e.counts = (struct gen_counts){0};
    }
    p->sink.on_event(p->sink.ctx, &e);
}

static bool play_alive(const struct fixture *f, const struct play *wanted) {
    for (const struct play *p = f->plays; p; p = p->next)
        if (p == wanted)
            return true;
    return false;
}

static void play_remove(struct fixture *f, const struct play *wanted) {
    for (struct play **at = &f->plays; *at; at = &(*at)->next)
        if (*at == wanted) {
            struct play *p = *at;
            *at = p->next;
            free(p);
            return;
        }
}

/* One event of one play per tick: every event is a turn of the loop of its own. */
static void on_tick(uv_timer_t *t) {
    struct fixture *f = t->data;
    for (struct play *p = f->plays; p; p = p->next) {
        static const struct step done = {GEN_DONE, NULL, false, GEN_STOP, OK};
        const struct step *s = p->load_only || p->render_only ? &done : p->at;
        bool end = s->kind == GEN_DONE || s->kind == GEN_ERROR;
        if (s->kind == GEN_QUEUED)
            continue;
        if (!p->flood)
            p->at++;
        event_play(p, s);
        if (end && play_alive(f, p))
            play_remove(f, p);
        return;
    }
}

/* --- models --- */

static void blob_file(struct fixture *f, const char *below, struct str text) {
    char path[256];
    snprintf(path, sizeof path, "%s/%s", f->folder, below);
    for (char *at = path + 1; *at; at++)
        if (*at == '/') {
            *at = 0;
            mkdir(path, 0755);
            *at = '/';
        }
    FILE *file = fopen(path, "w");
    check(file && fwrite(text.p, 1, text.n, file) == text.n && fclose(file) == 0);
}

static void model_import(struct fixture *f, const char *name, const char *jinja, bool pooling) {
    char path[256];
    struct err err;
    struct model_name n;
    u64 dims[2] = {32, 2};
    static const f32 values[64];
    static const u32 numbers[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    static const struct str words[2] = {{"a", 1}, {"<b>", 3}};
    snprintf(path, sizeof path, "%s/%s.gguf", f->folder, name);
    struct gguf_writer *w = gguf_writer_new();
    gguf_put_str(w, "general.architecture", STR("llama"));
    gguf_put_str(w, "general.name", str_of(name));
    gguf_put_u32(w, "general.file_type", 15);
    gguf_put_u32(w, "llama.context_length", 2048);
    gguf_put_u32(w, "llama.embedding_length", 32);
    gguf_put_f32(w, "llama.rope.freq_base", 10000.5f);
    gguf_put_bool(w, "tokenizer.ggml.add_bos_token", true);
    gguf_put_array(w, "tokenizer.ggml.token_type", GGUF_U32, numbers, 8);
    gguf_put_str_array(w, "tokenizer.ggml.tokens", words, 2);
    if (jinja)
        gguf_put_str(w, "tokenizer.chat_template", str_of(jinja));
    if (pooling)
        gguf_put_u32(w, "llama.pooling_type", 1);
    gguf_put_tensor(w, STR("token_embd.weight"), 0, 2, dims, values);
    check(gguf_write(w, path, &err) == OK);
    gguf_writer_free(w);
    check(model_name_parse(str_of(name), &n, &err) == OK);
    check(store_import(f->store, path, &n, &err) == OK);
}

#define HEX64(c)                                                                                             \
    c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c  \
        c c c c c c c c c c c c
#define LAYER(kind, c)                                                                                       \
    "{\"mediaType\":\"application/vnd.ollama.image." kind "\",\"digest\":\"sha256:" HEX64(c) "\",\"size\":"  \
                                                                                             "9}"
#define LIBRARY "models/manifests/registry.ollama.ai/library/"

/* A model with every kind of text layer, whose weights are those of "tiny". */
static void model_dressed(struct fixture *f) {
    struct arena a;
    struct model_name n;
    struct store_model tiny;
    struct err err;
    arena_init(&a, 0);
    check(model_name_parse(STR("tiny"), &n, &err) == OK && store_find(f->store, &n, &a, &tiny, &err) == OK);
    struct str json = arena_printf(
        &a,
        "{\"schemaVersion\":2,\"config\":{\"digest\":\"sha256:" HEX64(
            "c") "\",\"size\":50},\"layers\":[{\"mediaType\":"
                 "\"application/vnd.ollama.image.model\",\"digest\":\"%s\",\"size\":10}," LAYER(
                     "system",
                     "2") "," LAYER("params",
                                    "3") "," LAYER("messages",
                                                   "4") "," LAYER("license",
                                                                  "5") "," LAYER("license",
                                                                                 "6") "," LAYER("template",
                                                                                                "7") "]}",
        tiny.model_digest.p);
    blob_file(f, LIBRARY "dressed/latest", json);
    blob_file(f, "models/blobs/sha256-" HEX64("c"),
               STR("{\"model_format\":\"gguf\",\"model_family\":\"llama\",\"model_families\":[\"llama\"],"
                   "\"model_type\":\"8B\",\"file_type\":\"Q8_0\",\"requires\":\"0.1.0\"}"));
    blob_file(f, "models/blobs/sha256-" HEX64("2"), STR("You are \"terse\".\nVery."));
    blob_file(f, "models/blobs/sha256-" HEX64("3"),
               STR("{\"temperature\":0.25,\"num_ctx\":1024,\"stop\":[\"<end>\",\"\\n\\n\"],\"num_gpu\":3}"));
    blob_file(f, "models/blobs/sha256-" HEX64("4"),
               STR("[{\"role\":\"user\",\"content\":\"hi\"},{\"role\":\"assistant\",\"content\":\"yes?\"}]"));
    blob_file(f, "models/blobs/sha256-" HEX64("5"), STR("MIT"));
    blob_file(f, "models/blobs/sha256-" HEX64("6"), STR("second license\n"));
    blob_file(f, "models/blobs/sha256-" HEX64("7"), STR("{{ .Prompt }}"));
    arena_release(&a);
}

/* A model of the weights of "tiny" and a TEMPLATE layer. */
static void model_layered(struct fixture *f, const char *name, const char *hex) {
    struct arena a;
    struct model_name n;
    struct store_model tiny;
    struct err err;
    char path[128];
    arena_init(&a, 0);
    check(model_name_parse(STR("tiny"), &n, &err) == OK && store_find(f->store, &n, &a, &tiny, &err) == OK);
    snprintf(path, sizeof path, LIBRARY "%s/latest", name);
    blob_file(f, path,
               arena_printf(&a,
                            "{\"layers\":[{\"mediaType\":\"application/vnd.ollama.image.model\",\"digest\":\"%s\",\"size\":10},"
                            "{\"mediaType\":\"application/vnd.ollama.image.template\",\"digest\":\"sha256:%s\",\"size\":9}]}",
                            tiny.model_digest.p, hex));
    arena_release(&a);
}

static void models_make(struct fixture *f) {
    model_import(f, "tiny", "{% for m in messages %}{{ m.content }}{% endfor %}", false);
    model_import(f, "thinker", "<think></think>{{ tools }}", false);
    model_import(f, "embedder", NULL, true);
    model_dressed(f);
    blob_file(f, "models/blobs/sha256-" HEX64("8"),
               STR("{\"remote_host\":\"https://ollama.com\",\"remote_model\":\"big\"}"));
    blob_file(f, LIBRARY "remote/latest",
               STR("{\"config\":{\"digest\":\"sha256:" HEX64("8") "\",\"size\":1},\"layers\":[]}"));
    blob_file(f, LIBRARY "tensors/latest", STR("{\"layers\":[" LAYER("tensor", "9") "]}"));
    blob_file(f, LIBRARY "adapted/latest",
               STR("{\"layers\":[" LAYER("model", "9") "," LAYER("adapter", "8") "]}"));
    blob_file(f, "models/blobs/sha256-" HEX64("f"),
               STR("{{ if .System }}{{ .System }}{{ end }}{{ .Prompt }}{{ .Suffix }}"));
    blob_file(f, LIBRARY "gotemplate/latest",
               STR("{\"layers\":[" LAYER("model", "9") "," LAYER("template", "f") "]}"));
    /* The weights of "tiny" with templates of Go: one that fills in, one that can use tools and think, a broken one. */
    model_layered(f, "filler", HEX64("f"));
    blob_file(f, "models/blobs/sha256-" HEX64("d"),
               STR("{{ .Tools }}{{ range .Messages }}{{ if .Thinking }}<hm>{{ .Thinking }}</hm>{{ end }}{{ .Content "
                   "}}{{ if .ToolCalls }}<call>{{ range .ToolCalls }}{{ .Function.Name }}{{ end }}{{ end }}{{ end "
                   "}}"));
    model_layered(f, "caller", HEX64("d"));
    model_layered(f, "deepseek-r1", HEX64("f"));
    blob_file(f, "models/blobs/sha256-" HEX64("b"), STR("{{ .Prompt"));
    model_layered(f, "brokengo", HEX64("b"));
    blob_file(f, "models/blobs/sha256-" HEX64("e"), STR("{\"temperature\":\"warm\"}"));
    blob_file(f, LIBRARY "badparams/latest",
               STR("{\"layers\":[" LAYER("model", "9") "," LAYER("params", "e") "]}"));
    blob_file(f, LIBRARY "broken/latest", STR("{"));
    static const time_t age[] = {9000, 8000, 7000, 6000, 5000, 4000, 3000, 2000, 1000, 900, 800, 700, 600};
    static const char *const order[] = {"tiny",    "thinker", "embedder",   "dressed",  "remote",
                                        "tensors", "adapted", "gotemplate", "badparams", "filler", "caller", "brokengo",
                                        "deepseek-r1"};
    for (size_t i = 0; i < ARRAY_LEN(order); i++) {
        char path[256];
        struct timespec t[2] = {{1700000000 + age[i], 120000000}, {1700000000 + age[i], 120000000}};
        snprintf(path, sizeof path, "%s/" LIBRARY "%s/latest", f->folder, order[i]);
        check(utimensat(-100, path, t, 0) == 0);
    }
}

/* --- server --- */

static void on_stop(uv_async_t *h) {
    struct fixture *f = h->data;
    httpd_stop(f->httpd);
    uv_close((uv_handle_t *)&f->stop, NULL);
    uv_close((uv_handle_t *)&f->tick, NULL);
}

static void *server_thread(void *arg) {
    struct fixture *f = arg;
    uv_run(&f->loop, UV_RUN_DEFAULT);
    return NULL;
}

static int listen_open(u16 *port) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t size = sizeof at;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    check(fd >= 0 && bind(fd, (struct sockaddr *)&at, sizeof at) == 0 && listen(fd, 64) == 0);
    check(getsockname(fd, (struct sockaddr *)&at, &size) == 0);
    *port = ntohs(at.sin_port);
    return fd;
}

struct fixture *fixture_open(const struct api_config *config) {
    struct fixture *f = xcalloc(1, sizeof *f);
    struct err err;
    char path[128];
    setenv("TZ", "UTC-02", 1); /* two hours east, so that zones show */
    tzset();
    snprintf(f->folder, sizeof f->folder, "/tmp/minka-api-XXXXXX");
    check(mkdtemp(f->folder));
    snprintf(path, sizeof path, "%s/models", f->folder);
    check(store_open(path, &f->store, &err) == OK);
    models_make(f);
    f->next_id = 100;
    f->state = (struct wire_state){
        .n_running = 2,
        .n_waiting = 1,
        .limit_bytes = 1000,
        .weights_bytes = 100,
        .kv_bytes = 30,
        .scratch_bytes = 7,
        .n_steps_total = 3,
        .steps_ns_total = 3000,
        .n_rows_total = 20,
        .n_drafts_total = 9,
        .n_agreed_total = 5,
        .drafts_lost_ns_total = 70,
        .n_draft_passes_total = 4,
        .draft_ns_total = 800,
        .n_models = 4,
        .models = {{.model_id = 2, .weights_bytes = 5, .kv_bytes = 6, .expires_in_ns = 1000000000},
                   {.model_id = 1, .weights_bytes = 50, .kv_bytes = 20, .expires_in_ns = INT64_MAX},
                   {.model_id = 1, .n_running = 1},
                   {.model_id = 9}}};
    pthread_mutex_init(&f->lock, NULL);
    uv_loop_init(&f->loop);
    struct api_backend backend = {backend_generate, backend_cancel,   backend_expire,
                                  backend_state,    backend_model_of, f};
    f->api = api_new(config, f->store, &backend);
    struct httpd_handler handler = api_handler(f->api);
    if (httpd_start(&f->loop, listen_open(&f->port), &handler, &f->httpd, &err) != OK)
        die("%s", err.text);
    uv_async_init(&f->loop, &f->stop, on_stop);
    uv_timer_init(&f->loop, &f->tick);
    f->stop.data = f->tick.data = f;
    uv_timer_start(&f->tick, on_tick, 1, 1);
    check(pthread_create(&f->thread, NULL, server_thread, f) == 0);
    return f;
}

void fixture_close(struct fixture *f) {
    char command[128];
    uv_async_send(&f->stop);
    pthread_join(f->thread, NULL);
    uv_loop_close(&f->loop);
    api_free(f->api);
    store_close(f->store);
    while (f->plays)
        play_remove(f, f->plays);
    buf_release(&f->seen);
    pthread_mutex_destroy(&f->lock);
    snprintf(command, sizeof command, "rm -rf %s", f->folder);
    check(system(command) == 0);
    free(f);
}

const char *fixture_folder(const struct fixture *f) { return f->folder; }

void fixture_seen(struct fixture *f, struct buf *out) {
    pthread_mutex_lock(&f->lock);
    buf_clear(out);
    buf_add_str(out, buf_str(&f->seen));
    buf_clear(&f->seen);
    pthread_mutex_unlock(&f->lock);
}

u32 fixture_cancelled(struct fixture *f, u32 n) {
    u32 seen = 0;
    for (int i = 0; i < 5000 && seen < n; i++) {
        pthread_mutex_lock(&f->lock);
        seen = f->n_cancelled;
        pthread_mutex_unlock(&f->lock);
        usleep(1000);
    }
    return seen;
}

/* --- client --- */

static int client_connect(struct fixture *f) {
    struct sockaddr_in to = {
        .sin_family = AF_INET, .sin_port = htons(f->port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    struct timeval wait = {10, 0};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    check(fd >= 0 && connect(fd, (struct sockaddr *)&to, sizeof to) == 0);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait);
    return fd;
}

static void bytes_send(int fd, struct str bytes) {
    while (bytes.n) {
        ssize_t n = send(fd, bytes.p, bytes.n, MSG_NOSIGNAL);
        if (n <= 0)
            return; /* the server may refuse and close before it has read all */
        bytes = str_slice(bytes, (size_t)n, bytes.n);
    }
}

static void chunks_join(struct str raw, struct reply *out) {
    for (;;) {
        size_t end = str_find(raw, STR("\r\n"), 0);
        if (end == SIZE_MAX)
            return;
        size_t n = strtoul(raw.p, NULL, 16);
        if (n == 0) {
            out->whole = true;
            return;
        }
        if (raw.n < end + 2 + n + 2)
            return;
        buf_add(&out->body, raw.p + end + 2, n);
        raw = str_slice(raw, end + 2 + n + 2, raw.n);
    }
}

static void reply_parse(struct buf *all, struct reply *out) {
    struct str text = {buf_cstr(all), all->n};
    size_t end = str_find(text, STR("\r\n\r\n"), 0);
    if (end == SIZE_MAX)
        return;
    buf_add(&out->head, text.p, end + 2);
    out->code = text.n > 12 ? (u32)strtoul(text.p + 9, NULL, 10) : 0;
    struct str body = str_slice(text, end + 4, text.n);
    if (str_is(reply_header(out, "Transfer-Encoding"), "chunked")) {
        chunks_join(body, out);
        return;
    }
    u64 length = 0;
    out->whole =
        out->code == 204 || (str_to_u64(reply_header(out, "Content-Length"), &length) && length == body.n);
    buf_add_str(&out->body, body);
}

static void reply_read(int fd, struct reply *out) {
    struct buf all = {0};
    *out = (struct reply){0};
    for (;;) {
        buf_reserve(&all, 65536);
        ssize_t n = recv(fd, all.p + all.n, 65536, 0);
        if (n <= 0)
            break;
        all.n += (size_t)n;
    }
    close(fd);
    reply_parse(&all, out);
    buf_release(&all);
}

void reply_release(struct reply *r) {
    buf_release(&r->head);
    buf_release(&r->body);
}

void fixture_raw(struct fixture *f, struct str bytes, struct reply *out) {
    int fd = client_connect(f);
    bytes_send(fd, bytes);
    reply_read(fd, out);
}

static int request_send(struct fixture *f, const char *method, const char *path, const char *headers,
                        struct str body) {
    struct buf b = {0};
    int fd = client_connect(f);
    buf_printf(&b, "%s %s HTTP/1.1\r\n%s%sConnection: close\r\n", method, path, headers,
               strstr(headers, "Host:") ? "" : "Host: localhost\r\n");
    if (body.n || strcmp(method, "POST") == 0)
        buf_printf(&b, "Content-Length: %zu\r\n", body.n);
    buf_add(&b, "\r\n", 2);
    buf_add_str(&b, body);
    bytes_send(fd, buf_str(&b));
    buf_release(&b);
    return fd;
}

void fixture_ask(struct fixture *f, const char *method, const char *path, const char *headers,
                 struct str body, struct reply *out) {
    reply_read(request_send(f, method, path, headers, body), out);
}

int fixture_send(struct fixture *f, const char *method, const char *path, struct str body) {
    return request_send(f, method, path, "", body);
}

struct str reply_header(const struct reply *r, const char *name) {
    struct str head = buf_str(&r->head);
    while (head.n) {
        size_t end = MIN(str_find(head, STR("\r\n"), 0), head.n);
        struct str line = str_slice(head, 0, end);
        size_t colon = str_find(line, STR(":"), 0);
        if (colon != SIZE_MAX && str_eq_nocase(str_slice(line, 0, colon), str_of(name)))
            return str_trim(str_slice(line, colon + 1, line.n));
        head = str_slice(head, end + 2, head.n);
    }
    return STR("");
}
