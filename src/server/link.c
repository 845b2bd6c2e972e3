/* link.c - engine supervision, journal, and the backend that the dialects call.
 *
 * An engine that dies fails its open requests with the reference's text and is started again, at once the
 * first time, then after a growing pause while it keeps dying. The socket for the next engine is made when
 * the last one is lost: what arrives in the pause waits in it. */
#include "server/link.h"

#include "base/clock.h"
#include "base/cpu.h"
#include "base/limit.h"
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define RESTART_MS_FIRST 20u
#define RESTART_MS_MAX 5000u
/* An engine that lived this long has recovered from whatever killed the one before. */
#define RESTART_FORGIVE_NS 60000000000ull
/* CPU quota and memory are read again at this pace and sent to the engine, which can not read them. */
#define LIMITS_EVERY_MS 2000u
/* Model files under way to the engine at once; the connection holds 64. */
#define FDS_QUEUED_MAX 32u

static const char engine_died_text[] =
    "model runner has unexpectedly stopped, this may be due to resource limitations or an "
    "internal error, check minka server logs for details";

struct known_model {
    char digest[72]; /* "sha256:<hex>" */
    char name[256];
    bool announced; /* to the engine that runs now */
    u32 n_open;     /* requests */
};

struct open_request {
    struct open_request *next; /* in its hash chain */
    u64 id;
    u32 model_id, draft_id; /* draft_id 0: none */
    struct api_sink sink;
    bool started;
};

/* Our end of the socket pair to one engine. */
struct channel {
    uv_poll_t poll;
    struct wire_conn *conn;
    struct link *link;
    int engine_fd;      /* the other end, until the engine has it; then -1 */
    int watched;        /* events that poll waits for */
    struct arena arena; /* of the message that is handled; its block is used again, tokens allocate nothing */
};

struct link {
    uv_loop_t *loop;
    const struct settings *settings;
    struct store *store;
    uv_process_t process;
    bool process_open;  /* the handle is known to the loop */
    uv_prepare_t flush; /* writes once per turn of the loop what the turn has queued */
    uv_timer_t restart, limits;
    struct channel *channel; /* NULL only while closing */
    u32 n_fds_queued;        /* at most: model files that the channel has not sent yet */
    u64 started_ns;
    u32 restart_ms;
    bool closing;
    u32 n_handles;
    void (*on_closed)(void *ctx);
    void *closed_ctx;

    struct known_model *models; /* [n_models] model_id = index + 1 */
    u32 n_models, models_cap;
    struct open_request *chains[1024];
    u32 n_open, n_waiting;
    u64 last_id;
    struct wire_state state;
    struct wire_limits sent_limits;
    u64 available_bytes; /* when the engine was started */
};

/* --- journal --- */

static struct open_request **find_open(struct link *l, u64 id) {
    struct open_request **at = &l->chains[id % ARRAY_LEN(l->chains)];
    while (*at && (*at)->id != id)
        at = &(*at)->next;
    return at;
}

static void close_request(struct link *l, struct open_request **at) {
    struct open_request *r = *at;
    *at = r->next;
    l->n_open--;
    l->models[r->model_id - 1].n_open--;
    if (r->draft_id)
        l->models[r->draft_id - 1].n_open--;
    l->n_waiting -= !r->started;
    free(r);
}

/* Every open request gets the error; sinks may submit or cancel others meanwhile. */
static void fail_all(struct link *l, enum status status, const char *text) {
    for (u32 i = 0; i < ARRAY_LEN(l->chains); i++)
        while (l->chains[i]) {
            struct open_request *r = l->chains[i];
            struct api_sink sink = r->sink;
            struct gen_event e = {
                .request_id = r->id, .kind = GEN_ERROR, .status = status, .text = str_of(text)};
            close_request(l, &l->chains[i]);
            sink.on_event(sink.ctx, &e);
        }
}

/* --- messages of the engine --- */

static void on_event(struct link *l, const struct gen_event *e) {
    struct open_request **at = find_open(l, e->request_id);
    if (!*at)
        return; /* cancelled meanwhile */
    struct api_sink sink = (*at)->sink;
    if (e->kind != GEN_QUEUED && !(*at)->started) {
        (*at)->started = true;
        l->n_waiting--;
    }
    /* The engine may know the model as unusable, or not any more: the next request brings the file again. */
    if (e->kind == GEN_ERROR)
        l->models[(*at)->model_id - 1].announced = false;
    if (e->kind == GEN_DONE || e->kind == GEN_ERROR)
        close_request(l, at);
    sink.on_event(sink.ctx, e);
}

static void engine_lost(struct link *l);

static void read_engine(struct link *l) {
    struct err err;
    struct channel *c = l->channel;
    enum status status = wire_read(c->conn, &err);
    while (status == OK) {
        struct wire_message m;
        int fd;
        bool got;
        status = wire_next(c->conn, &c->arena, &m, &fd, &got, &err);
        if (status != OK || !got)
            break;
        if (m.type == WIRE_EVENT)
            on_event(l, &m.event);
        else if (m.type == WIRE_STATE)
            l->state = m.state;
        else
            status = err_set(&err, ERR_CORRUPT, "the engine sent a message of the server");
        /* The last event of a request can be large. */
        if (m.type == WIRE_EVENT && (m.event.kind == GEN_DONE || m.event.kind == GEN_ERROR))
            arena_release(&c->arena);
        else
            arena_reset(&c->arena);
    }
    if (status == OK)
        return;
    if (status == ERR_CORRUPT)
        log_error("engine broke the protocol", "error=\"%s\"", err.text);
    engine_lost(l);
}

static void on_poll(uv_poll_t *poll, int status, int events) {
    struct channel *c = poll->data;
    (void)status;
    if (events & UV_READABLE)
        read_engine(c->link);
}

static void watch(struct channel *c) {
    int events = UV_READABLE | (wire_wants_write(c->conn) ? UV_WRITABLE : 0);
    if (events != c->watched) /* starting it anew would be two system calls */
        uv_poll_start(&c->poll, events, on_poll);
    c->watched = events;
}

static void on_flush(uv_prepare_t *flush) {
    struct link *l = flush->data;
    struct err err;
    if (!l->channel)
        return;
    if (wire_flush(l->channel->conn, &err) != OK)
        engine_lost(l);
    if (!l->channel)
        return;
    if (!wire_wants_write(l->channel->conn))
        l->n_fds_queued = 0;
    watch(l->channel);
}

/* --- the process --- */

static void handle_closed(uv_handle_t *h) {
    struct link *l = h->data;
    if (--l->n_handles == 0 && l->closing)
        l->on_closed(l->closed_ctx);
}

static void channel_closed(uv_handle_t *h) {
    struct channel *c = h->data;
    h->data = c->link;
    wire_conn_free(c->conn);
    arena_release(&c->arena);
    if (c->engine_fd >= 0)
        close(c->engine_fd);
    handle_closed(h);
    free(c);
}

static void channel_open(struct link *l) {
    struct channel *c = xcalloc(1, sizeof *c);
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
        die("cannot make the engine's socket: %s", strerror(errno));
    c->link = l;
    c->conn = wire_conn_new(pair[0]);
    c->engine_fd = pair[1];
    if (uv_poll_init(l->loop, &c->poll, pair[0]))
        die("cannot watch the engine's socket");
    c->poll.data = c;
    l->n_handles++;
    l->n_fds_queued = 0;
    l->channel = c;
    watch(c);
}

static void channel_close(struct link *l) {
    struct channel *c = l->channel;
    l->channel = NULL;
    uv_close((uv_handle_t *)&c->poll, channel_closed);
}

/* The engine is of no use any more: its requests fail, it is ended if it has not ended by itself, and the
 * socket of the next one opens. */
static void engine_lost(struct link *l) {
    if (!l->channel)
        return;
    channel_close(l);
    if (l->process_open && !uv_is_closing((uv_handle_t *)&l->process))
        uv_process_kill(&l->process, SIGKILL);
    l->state = (struct wire_state){0};
    for (u32 i = 0; i < l->n_models; i++)
        l->models[i].announced = false;
    if (l->closing)
        return;
    log_error("engine is lost", "open_requests=%u", l->n_open);
    fail_all(l, ERR_INTERNAL, engine_died_text);
    channel_open(l);
}

static void start_engine(struct link *l);

static void on_restart(uv_timer_t *timer) { start_engine(timer->data); }

static void process_closed(uv_handle_t *h) {
    struct link *l = h->data;
    l->process_open = false;
    handle_closed(h);
}

static void on_exit_(uv_process_t *process, i64 code, int signal_number) {
    struct link *l = process->data;
    bool quick = clock_ns() - l->started_ns < RESTART_FORGIVE_NS;
    /* If the channel is still that of this engine: what it still said, at whose end it is lost. */
    if (l->channel && l->channel->engine_fd < 0)
        read_engine(l);
    if (l->channel && l->channel->engine_fd < 0)
        engine_lost(l);
    uv_close((uv_handle_t *)process, process_closed);
    if (l->closing)
        return;
    l->restart_ms = !quick ? 0 : l->restart_ms ? MIN(l->restart_ms * 2, RESTART_MS_MAX) : RESTART_MS_FIRST;
    log_error("engine has ended", "code=%" PRId64 " signal=%d restart_in_ms=%u", code, signal_number,
              l->restart_ms);
    uv_timer_start(&l->restart, on_restart, l->restart_ms, 0);
}

static void send_limits(struct link *l, bool first) {
    const struct settings *set = l->settings;
    /* What the engine holds is no more available, but its own: only the reading before it holds anything says
     * how much there is. The cgroup's limit does not depend on that. */
    if (first)
        l->available_bytes = memory_available_bytes();
    struct wire_limits limits = {
        .memory_bytes =
            set->memory_bytes ? set->memory_bytes : MIN(l->available_bytes, cgroup_memory_bytes("")),
        .n_threads = set->n_threads ? set->n_threads : cpu_count_usable(),
    };
    bool same =
        limits.memory_bytes == l->sent_limits.memory_bytes && limits.n_threads == l->sent_limits.n_threads;
    if (!first && same)
        return;
    l->sent_limits = limits;
    struct wire_message m = {.type = WIRE_LIMITS, .limits = limits};
    wire_send(l->channel->conn, &m, -1);
}

static void on_limits(uv_timer_t *timer) {
    struct link *l = timer->data;
    if (l->channel && l->channel->engine_fd < 0)
        send_limits(l, false);
}

static enum status spawn(struct link *l, int fd, struct err *err) {
    char program[4096];
    size_t size = sizeof program;
    if (uv_exepath(program, &size))
        return err_set(err, ERR_IO, "cannot find the path of this program");
    char *args[] = {program, "engine", NULL};
    uv_stdio_container_t stdio[4] = {
        {.flags = UV_IGNORE},
        {.flags = UV_INHERIT_FD, .data.fd = 2},
        {.flags = UV_INHERIT_FD, .data.fd = 2},
        {.flags = UV_INHERIT_FD, .data.fd = fd},
    };
    uv_process_options_t options = {
        .exit_cb = on_exit_, .file = program, .args = args, .stdio = stdio, .stdio_count = ARRAY_LEN(stdio)};
    l->process.data = l;
    int failed = uv_spawn(l->loop, &l->process, &options);
    /* Also after a failure the handle must be closed. */
    l->process_open = true;
    l->n_handles++;
    if (failed) {
        uv_close((uv_handle_t *)&l->process, process_closed);
        return err_set(err, ERR_IO, "cannot start the engine process: %s", uv_strerror(failed));
    }
    return OK;
}

static void start_engine(struct link *l) {
    struct err err;
    if (l->process_open) { /* the last one is still being closed */
        uv_timer_start(&l->restart, on_restart, 10, 0);
        return;
    }
    if (spawn(l, l->channel->engine_fd, &err) != OK) {
        log_error("engine does not start, trying again", "error=\"%s\"", err.text);
        engine_lost(l);
        uv_timer_start(&l->restart, on_restart, RESTART_MS_MAX, 0);
        return;
    }
    close(l->channel->engine_fd);
    l->channel->engine_fd = -1;
    l->started_ns = clock_ns();
    send_limits(l, true);
}

enum status link_new(uv_loop_t *loop, const struct settings *settings, struct store *store, struct link **out,
                     struct err *err) {
    (void)err;
    struct link *l = xcalloc(1, sizeof *l);
    l->loop = loop;
    l->settings = settings;
    l->store = store;
    uv_prepare_init(loop, &l->flush);
    uv_timer_init(loop, &l->restart);
    uv_timer_init(loop, &l->limits);
    l->flush.data = l->restart.data = l->limits.data = l;
    l->n_handles = 3;
    uv_prepare_start(&l->flush, on_flush);
    uv_timer_start(&l->limits, on_limits, LIMITS_EVERY_MS, LIMITS_EVERY_MS);
    channel_open(l);
    start_engine(l);
    *out = l;
    return OK;
}

void link_close(struct link *l, void (*on_closed)(void *ctx), void *ctx) {
    l->closing = true;
    l->on_closed = on_closed;
    l->closed_ctx = ctx;
    uv_close((uv_handle_t *)&l->flush, handle_closed);
    uv_close((uv_handle_t *)&l->restart, handle_closed);
    uv_close((uv_handle_t *)&l->limits, handle_closed);
    engine_lost(l);
}

void link_free(struct link *l) {
    for (u32 i = 0; i < ARRAY_LEN(l->chains); i++)
        while (l->chains[i])
            close_request(l, &l->chains[i]);
    free(l->models);
    free(l);
}

u32 link_open_requests(const struct link *l) { return l->n_open; }

/* --- the backend --- */

static u32 model_id_of(struct link *l, const struct store_model *m) {
    for (u32 i = 0; i < l->n_models; i++)
        if (str_is(m->model_digest, l->models[i].digest))
            return i + 1;
    return 0;
}

static u32 know_model(struct link *l, const struct store_model *m) {
    struct arena arena;
    if (l->n_models == l->models_cap) {
        l->models_cap = MAX(8u, l->models_cap * 2);
        l->models = xrealloc(l->models, sizeof *l->models * l->models_cap);
    }
    struct known_model *k = &l->models[l->n_models++];
    *k = (struct known_model){0};
    arena_init(&arena, 0);
    snprintf(k->digest, sizeof k->digest, "%.*s", STR_FMT(m->model_digest));
    snprintf(k->name, sizeof k->name, "%.*s", STR_FMT(model_name_short(&m->name, &arena)));
    arena_release(&arena);
    return l->n_models;
}

static void digest_bytes(const char *digest, u8 out[32]) {
    const char *hex = strchr(digest, ':');
    memset(out, 0, 32);
    for (u32 i = 0; hex && i < 32; i++) {
        unsigned byte = 0;
        if (sscanf(hex + 1 + 2 * i, "%2x", &byte) != 1)
            return;
        out[i] = (u8)byte;
    }
}

static bool is_loaded(const struct link *l, u32 model_id) {
    for (u32 i = 0; i < l->state.n_models && i < WIRE_MODELS_MAX; i++)
        if (l->state.models[i].model_id == model_id)
            return true;
    return false;
}

/* The engine gets the open file before the model is loaded, as it may have been replaced since the last time;
 * it is told nothing of paths. */
static enum status announce(struct link *l, u32 model_id, bool draft, struct err *err) {
    struct known_model *k = &l->models[model_id - 1];
    struct wire_message m = {.type = WIRE_MODEL};
    int fd;
    /* More models than the engine has places: it may have forgotten this one. */
    if (k->announced && l->n_models <= LIMIT_MODELS && (k->n_open || is_loaded(l, model_id)))
        return OK;
    if (l->n_fds_queued >= FDS_QUEUED_MAX)
        return err_set(err, ERR_BUSY, "the engine has not taken the last models yet");
    TRY(store_open_blob(l->store, str_of(k->digest), &fd, &m.model.file_bytes, err));
    m.model.model_id = model_id;
    m.model.name = str_of(k->name);
    m.model.draft = draft;
    digest_bytes(k->digest, m.model.digest);
    wire_send(l->channel->conn, &m, fd);
    close(fd);
    l->n_fds_queued++;
    k->announced = true;
    return OK;
}

/* The same for a draft model, without which a request goes on. 0: none. */
static u32 announce_draft(struct link *l, const struct store_model *m) {
    struct err err;
    if (!m)
        return 0;
    u32 draft_id = model_id_of(l, m);
    if (!draft_id)
        draft_id = know_model(l, m);
    if (announce(l, draft_id, true, &err) == OK)
        return draft_id;
    log_warn("a request goes on without its draft model", "model=%s error=\"%s\"",
             l->models[draft_id - 1].name, err.text);
    return 0;
}

static enum status backend_generate(void *ctx, const struct store_model *m, const struct store_model *draft,
                                    struct gen_request *r, i64 keep_alive_ns, struct api_sink sink,
                                    u32 *retry_after_s, struct err *err) {
    struct link *l = ctx;
    *retry_after_s = 0;
    if (!l->channel)
        return err_set(err, ERR_INTERNAL, "%s", engine_died_text);
    if (l->n_waiting >= l->settings->max_queue ||
        wire_queued_bytes(l->channel->conn) > LIMIT_WIRE_QUEUED_BYTES) {
        /* About how long the requests before this one take, from what has been measured so far. */
        f64 per_request_s = l->state.tokens_per_s > 0 ? 100 / l->state.tokens_per_s : 1;
        *retry_after_s = (u32)MAX(1.0, MIN(600.0, per_request_s * l->n_waiting));
        return err_set(err, ERR_BUSY, "server busy, please try again.  maximum pending requests exceeded");
    }
    u32 model_id = model_id_of(l, m);
    if (!model_id)
        model_id = know_model(l, m);
    TRY(announce(l, model_id, false, err));
    struct open_request *o = xcalloc(1, sizeof *o), **at;
    r->id = o->id = ++l->last_id;
    r->model_id = o->model_id = model_id;
    r->draft_id = o->draft_id = announce_draft(l, draft);
    o->sink = sink;
    at = find_open(l, o->id);
    *at = o;
    l->n_open++;
    l->models[model_id - 1].n_open++;
    if (o->draft_id)
        l->models[o->draft_id - 1].n_open++;
    l->n_waiting++;
    struct wire_message msg = {.type = WIRE_GENERATE, .stream_id = r->id, .generate = {*r, keep_alive_ns}};
    wire_send(l->channel->conn, &msg, -1);
    return OK;
}

static void backend_cancel(void *ctx, u64 request_id) {
    struct link *l = ctx;
    struct open_request **at = find_open(l, request_id);
    if (!*at)
        return;
    close_request(l, at);
    struct wire_message m = {.type = WIRE_CANCEL, .stream_id = request_id};
    if (l->channel)
        wire_send(l->channel->conn, &m, -1);
}

static void backend_expire(void *ctx, const struct store_model *m, i64 keep_alive_ns) {
    struct link *l = ctx;
    struct wire_message msg = {.type = WIRE_EXPIRE, .expire = {model_id_of(l, m), keep_alive_ns}};
    if (l->channel && msg.expire.model_id && l->models[msg.expire.model_id - 1].announced)
        wire_send(l->channel->conn, &msg, -1);
}

static const struct wire_state *backend_state(void *ctx) {
    struct link *l = ctx;
    l->state.n_waiting = l->n_waiting;
    l->state.n_running = l->n_open - l->n_waiting;
    return &l->state;
}

static bool backend_model_of(void *ctx, u32 model_id, struct str *digest, struct str *name) {
    struct link *l = ctx;
    if (model_id == 0 || model_id > l->n_models)
        return false;
    *digest = str_of(l->models[model_id - 1].digest);
    *name = str_of(l->models[model_id - 1].name);
    return true;
}

struct api_backend link_backend(struct link *l) {
    return (struct api_backend){backend_generate, backend_cancel,   backend_expire,
                                backend_state,    backend_model_of, l};
}
