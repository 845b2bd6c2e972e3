/* engine.c - the loop of the engine process. */
#include "engine/engine.h"

#include "base/clock.h"
#include "base/cpu.h"
#include "base/limit.h"
#include "base/log.h"
#include "engine/own.h"
#include "engine/sandbox.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <unistd.h>

/* Idle models whose file was deleted are looked for this often. */
#define SWEEP_EVERY_NS 1000000000ull

/* --- events to the server --- */

void engine_send(struct engine *en, const struct gen_event *e) {
    struct wire_message m = {.type = WIRE_EVENT, .stream_id = e->request_id, .event = *e};
    wire_send(en->conn, &m, -1);
    en->state_changed = true;
}

void engine_drop(struct engine *en, struct request *q) {
    request_remove(&en->requests, q);
    q->gone = true;
    en->state_changed = true;
    if (!q->preparing)
        request_free(q);
}

static void fail_request(struct engine *en, struct request *q, enum status status, const char *text) {
    struct gen_event e = {.request_id = q->id, .kind = GEN_ERROR, .status = status, .text = str_of(text)};
    engine_send(en, &e);
    engine_drop(en, q);
}

static void finish_request(struct engine *en, struct request *q, enum gen_done_reason reason) {
    struct gen_event e;
    request_done_event(q, reason, clock_ns(), &e);
    engine_send(en, &e);
    engine_drop(en, q);
}

/* A context that a loaded model is used with. */
static u32 num_ctx_in_use(const struct engine *en, const struct slot *s) {
    u32 most = 0;
    for (u32 i = 0; i < ARRAY_LEN(en->requests.chains); i++)
        for (const struct request *q = en->requests.chains[i]; q; q = q->next)
            if (q->slot == s && q->started_ns)
                most = MAX(most, q->r->num_ctx);
    return most ? most : s->num_ctx;
}

void engine_send_state(struct engine *en) {
    struct wire_message m = {.type = WIRE_STATE};
    struct wire_state *w = &m.state;
    struct sched_state s;
    u64 now = clock_ns();
    sched_state(en->sched, &s);
    *w = (struct wire_state){
        .n_running = s.n_running,
        .n_waiting = s.n_waiting,
        .limit_bytes = s.limit_bytes,
        .weights_bytes = s.weights_bytes,
        .kv_bytes = s.kv_bytes,
        .kv_cached_bytes = s.kv_cached_bytes,
        .scratch_bytes = s.scratch_bytes,
        .n_steps_total = s.n_steps_total,
        .n_rows_total = s.n_rows_total,
        .steps_ns_total = s.steps_ns_total,
        .n_drafts_total = s.n_drafts_total,
        .n_agreed_total = s.n_agreed_total,
        .drafts_lost_ns_total = s.drafts_lost_ns_total,
        .n_draft_passes_total = s.n_draft_passes_total,
        .draft_ns_total = s.draft_ns_total,
        .n_parked_total = s.n_parked_total,
        .tokens_per_s = s.tokens_per_s,
    };
    for (u32 i = 0; i < en->n_slots && w->n_models < WIRE_MODELS_MAX; i++) {
        struct slot *slot = en->slots[i];
        struct sched_model_state ms;
        if (!sched_model_state(en->sched, slot->model_id, &ms) || !(ms.loaded || ms.loading))
            continue;
        struct kv_stats kv = {0};
        const struct kv_space *space = sched_space(en->sched, slot->model_id);
        if (space)
            kv_space_stats(space, &kv);
        w->models[w->n_models++] = (struct wire_model_state){
            .model_id = slot->model_id,
            .loading = ms.loading,
            .n_running = ms.n_running,
            .n_waiting = ms.n_waiting,
            .num_ctx = num_ctx_in_use(en, slot),
            .weights_bytes = slot->weights_bytes,
            .kv_bytes = kv.pinned_bytes + kv.cached_bytes + draft_model_mapped_bytes(slot->draft),
            .expires_in_ns = ms.expires_ns == INT64_MAX || ms.expires_ns == 0
                                 ? ms.expires_ns
                                 : MAX(ms.expires_ns - (i64)now, 1),
        };
    }
    wire_send(en->conn, &m, -1);
    en->state_sent_ns = now;
    en->state_changed = false;
}

/* --- models --- */

struct slot *engine_slot(struct engine *en, u32 model_id) {
    for (u32 i = 0; i < en->n_slots; i++)
        if (en->slots[i]->model_id == model_id)
            return en->slots[i];
    return NULL;
}

/* No request, job or load refers to it. */
static bool slot_is_idle(const struct engine *en, const struct slot *s) {
    struct sched_model_state ms;
    bool known = sched_model_state(en->sched, s->model_id, &ms);
    if (s->n_preparing || (s->state != SLOT_BROKEN && s->state != SLOT_KNOWN) ||
        (known && (ms.n_waiting || ms.loading)))
        return false;
    for (u32 i = 0; i < ARRAY_LEN(en->requests.chains); i++)
        for (const struct request *q = en->requests.chains[i]; q; q = q->next)
            if (q->slot == s)
                return false;
    return true;
}

static void forget_slot(struct engine *en, struct slot *s) {
    u32 at = 0;
    while (en->slots[at] != s)
        at++;
    sched_event(en->sched,
                &(struct sched_event){.kind = SCHED_FORGET, .now_ns = clock_ns(), .model_id = s->model_id});
    slot_free(s);
    en->slots[at] = en->slots[--en->n_slots];
}

/* Makes room in the table by forgetting a model that nothing uses. */
static bool forget_idle_slot(struct engine *en) {
    for (u32 i = 0; i < en->n_slots; i++)
        if (slot_is_idle(en, en->slots[i])) {
            forget_slot(en, en->slots[i]);
            return true;
        }
    return false;
}

/* The disk gets back what was deleted while its model lay idle. The server announces a model again before it
 * asks for one that is not loaded. */
static void forget_deleted(struct engine *en) {
    u64 now = clock_ns();
    if (now - en->swept_ns < SWEEP_EVERY_NS)
        return;
    en->swept_ns = now;
    for (u32 i = en->n_slots; i-- > 0;)
        if (slot_file_deleted(en->slots[i]) && slot_is_idle(en, en->slots[i]))
            forget_slot(en, en->slots[i]);
}

static void on_model(struct engine *en, const struct wire_model *m, int fd) {
    struct slot *s = engine_slot(en, m->model_id);
    /* A file that could not be used may be in order now, and any may have been replaced. */
    bool again = s && ((s->error.status != OK && !m->draft) || !slot_same_file(s, fd));
    if (again && slot_is_idle(en, s)) {
        forget_slot(en, s);
        s = NULL;
    }
    if (s || (en->n_slots == LIMIT_MODELS && !forget_idle_slot(en))) {
        close(fd); /* known already; or its requests will be told that it is unknown */
        return;
    }
    s = slot_new(m, fd, &en->model_config, team_threads(en->team), en->settings.num_ctx);
    en->slots[en->n_slots++] = s;
    slot_check(s, en->loader);
}

/* The request's draft model; 0: none, or one that cannot be used, which was logged when that was found. */
static u32 draft_of(struct engine *en, const struct request *q) {
    const struct slot *d = q->r->draft_id ? engine_slot(en, q->r->draft_id) : NULL;
    bool usable = d && d != q->slot && d->state != SLOT_BROKEN && d->error.status == OK;
    return usable && en->settings.speculation != SPECULATION_OFF ? d->model_id : 0;
}

static void arrive(struct engine *en, struct request *q) {
    sched_event(en->sched, &(struct sched_event){.kind = SCHED_ARRIVE,
                                                 .now_ns = clock_ns(),
                                                 .draft_id = draft_of(en, q),
                                                 .request_id = q->id,
                                                 .model_id = q->slot->model_id,
                                                 .keep_alive_ns = q->keep_alive_ns,
                                                 .readmitted = q->r->n_resume > 0});
}

/* The header check is over: what was held arrives, or fails with the file's error. */
static void on_checked(struct engine *en, struct slot *s) {
    if (s->state == SLOT_KNOWN) {
        if (!s->encoder)
            s->draft_bytes = draft_model_bytes(&s->kv, en->memory_bytes / LIMIT_DRAFT_MEMORY_PARTS);
        struct sched_event e = {.kind = SCHED_MODEL, .now_ns = clock_ns(), .model_id = s->model_id};
        e.model = (struct sched_model){.model_id = s->model_id,
                                       .identity = s->identity,
                                       .weights_bytes = s->weights_bytes,
                                       .scratch_bytes = s->scratch_bytes,
                                       .layout = s->kv,
                                       .encoder = s->encoder,
                                       .draft_bytes = s->draft_bytes};
        sched_event(en->sched, &e);
    }
    for (struct request **at = &en->held; *at;) {
        struct request *q = *at;
        if (q->slot != s) {
            at = &q->next;
            continue;
        }
        *at = q->next;
        request_add(&en->requests, q);
        if (s->state == SLOT_KNOWN)
            arrive(en, q);
        else
            fail_request(en, q, s->error.status, s->error.text);
    }
}

/* One buffer per thread, of at least need bytes each. */
static enum status fit_buffers(void **buffers, u32 n, size_t *bytes, size_t need, struct err *err) {
    if (need <= *bytes)
        return OK;
    for (u32 i = 0; i < n; i++) {
        free(buffers[i]);
        buffers[i] = aligned_alloc(64, ALIGN_UP(need, 64));
        if (!buffers[i])
            return err_set(err, ERR_NO_MEMORY, "no memory to sample from the model");
    }
    *bytes = need;
    return OK;
}

/* Buffers that depend on the model: before its first step. */
static enum status fit_scratch(struct engine *en, const struct slot *s, struct err *err) {
    u32 threads = team_threads(en->team), n_vocab = tokenizer_n_vocab(s->tokenizer);
    TRY(model_scratch_fit(en->scratch, s->model, s->n_rows_max, s->n_logits_max, threads, err));
    TRY(fit_buffers(en->masks, threads, &en->mask_bytes, DIV_CEIL(n_vocab, 32u) * sizeof(u32), err));
    return fit_buffers(en->sampler_scratch, threads, &en->sampler_scratch_bytes,
                       sampler_scratch_bytes(n_vocab), err);
}

void engine_fail_model(struct engine *en, struct slot *s) {
    u64 now = clock_ns();
    log_error("model file is damaged", "model=%s error=\"%s\"", s->name, s->error.text);
    for (u32 i = 0; i < ARRAY_LEN(en->requests.chains); i++)
        for (struct request *q = en->requests.chains[i], *next; q; q = next) {
            next = q->next;
            if (q->slot != s || q->done)
                continue;
            sched_event(en->sched, &(struct sched_event){.kind = SCHED_CANCEL,
                                                         .now_ns = now,
                                                         .request_id = q->id,
                                                         .status = s->error.status});
            fail_request(en, q, s->error.status, s->error.text);
        }
    sched_event(en->sched,
                &(struct sched_event){.kind = SCHED_EXPIRE, .now_ns = now, .model_id = s->model_id});
}

static void on_loaded(struct engine *en, struct slot *s) {
    if (s->state == SLOT_LOADED && fit_scratch(en, s, &s->error) != OK)
        slot_unload(s);
    sched_event(en->sched, &(struct sched_event){.kind = SCHED_LOADED,
                                                 .now_ns = clock_ns(),
                                                 .model_id = s->model_id,
                                                 .status = s->error.status,
                                                 .text = s->error.text});
}

/* --- messages --- */

static void on_generate(struct engine *en, struct arena *arena, const struct wire_generate *g) {
    struct request *q = request_new(arena, g), **end = &en->held;
    q->slot = engine_slot(en, g->request.model_id);
    bool damaged = q->slot && q->slot->state == SLOT_LOADED && q->slot->error.status != OK;
    if (!q->slot || q->slot->state == SLOT_BROKEN || damaged) {
        request_add(&en->requests, q);
        fail_request(en, q, q->slot ? q->slot->error.status : ERR_BUSY,
                     q->slot ? q->slot->error.text : "too many models are in use at once; try again later");
        return;
    }
    if (q->slot->state != SLOT_CHECKING) {
        request_add(&en->requests, q);
        arrive(en, q);
        return;
    }
    while (*end)
        end = &(*end)->next;
    *end = q;
}

static void on_cancel(struct engine *en, u64 id) {
    for (struct request **at = &en->held; *at; at = &(*at)->next)
        if ((*at)->id == id) {
            struct request *q = *at;
            *at = q->next;
            request_free(q);
            return;
        }
    struct request *q = request_find(&en->requests, id);
    if (!q)
        return; /* it has just ended */
    sched_event(en->sched,
                &(struct sched_event){.kind = SCHED_CANCEL, .now_ns = clock_ns(), .request_id = id});
    engine_drop(en, q);
}

static void on_limits(struct engine *en, const struct wire_limits *l) {
    sched_event(en->sched, &(struct sched_event){.kind = SCHED_LIMITS,
                                                 .now_ns = clock_ns(),
                                                 .memory_limit_bytes = l->memory_bytes});
    en->memory_bytes = l->memory_bytes;
    if (l->n_threads)
        team_limit(en->team, l->n_threads);
}

/* Reads and handles all that has arrived; ERR_IO when the server is gone. */
static enum status read_messages(struct engine *en, struct err *err) {
    TRY(wire_read(en->conn, err));
    for (;;) {
        struct arena arena;
        struct wire_message m;
        int fd;
        bool got, kept = false;
        arena_init(&arena, 0);
        enum status status = wire_next(en->conn, &arena, &m, &fd, &got, err);
        if (status == OK && got) {
            switch (m.type) {
            case WIRE_MODEL: on_model(en, &m.model, fd); break;
            case WIRE_GENERATE:
                on_generate(en, &arena, &m.generate);
                kept = true;
                break;
            case WIRE_CANCEL: on_cancel(en, m.stream_id); break;
            case WIRE_EXPIRE:
                sched_event(en->sched, &(struct sched_event){.kind = SCHED_EXPIRE,
                                                             .now_ns = clock_ns(),
                                                             .model_id = m.expire.model_id,
                                                             .keep_alive_ns = m.expire.keep_alive_ns});
                break;
            case WIRE_LIMITS: on_limits(en, &m.limits); break;
            case WIRE_EVENT:
            case WIRE_STATE:
                status = err_set(err, ERR_CORRUPT, "the server sent a message of the engine");
                break;
            }
        }
        if (!kept)
            arena_release(&arena);
        if (status != OK || !got)
            return status;
    }
}

/* --- finished jobs --- */

static void on_prepared(struct engine *en, struct request *q) {
    struct err err;
    enum status status = request_prepared(q, &err);
    if (q->gone) {
        request_free(q);
        return;
    }
    if (slot_verify(q->slot) != OK) {
        engine_fail_model(en, q->slot);
        return;
    }
    if (status == OK && !q->r->render_only && (q->r->num_predict || q->r->form == GEN_FORM_EMBED)) {
        sched_event(en->sched, &(struct sched_event){.kind = SCHED_PROMPT,
                                                     .now_ns = clock_ns(),
                                                     .request_id = q->id,
                                                     .prompt = request_sched_prompt(q)});
        return;
    }
    sched_event(en->sched,
                &(struct sched_event){.kind = SCHED_CANCEL, .now_ns = clock_ns(), .request_id = q->id});
    if (status == OK)
        finish_request(en, q, q->r->render_only ? GEN_STOP : GEN_LENGTH);
    else
        fail_request(en, q, status, err.text);
}

static void take_done_jobs(struct engine *en) {
    struct job *job;
    while ((job = jobs_take_done(en->prep)))
        on_prepared(en, CONTAINER(job, struct request, job));
    while ((job = jobs_take_done(en->loader))) {
        struct slot *s = CONTAINER(job, struct slot, job);
        bool checking = s->state == SLOT_CHECKING;
        slot_job_done(s);
        if (checking)
            on_checked(en, s);
        else
            on_loaded(en, s);
    }
}

/* --- notices of the scheduler --- */

static void on_notice(struct engine *en, const struct sched_notice *n) {
    struct request *q = request_find(&en->requests, n->request_id);
    if (!q)
        return;
    switch (n->kind) {
    case SCHED_NOTICE_WANTED:
        if (q->r->load_only)
            sched_event(en->sched, &(struct sched_event){.kind = SCHED_PROMPT,
                                                         .now_ns = clock_ns(),
                                                         .request_id = q->id,
                                                         .prompt = {.load_only = true}});
        else
            request_prepare(q, q->slot, en->prep, en->tokenize_scratch);
        return;
    case SCHED_NOTICE_STARTED:
        q->counts.n_cached = n->n_cached;
        q->counts.queue_ns = n->queue_ns;
        q->counts.load_ns = n->load_ns;
        q->started_ns = clock_ns();
        q->slot->num_ctx = q->r->num_ctx;
        engine_send(en, &(struct gen_event){.request_id = q->id, .kind = GEN_STARTED, .counts = q->counts});
        return;
    case SCHED_NOTICE_READY:
        q->counts.queue_ns = n->queue_ns;
        q->counts.load_ns = n->load_ns;
        q->slot->num_ctx = q->r->num_ctx;
        finish_request(en, q, GEN_LOAD);
        return;
    case SCHED_NOTICE_REJECTED: {
        /* A notice cuts long texts. */
        bool of_model = strncmp(n->text, q->slot->error.text, sizeof n->text - 1) == 0;
        fail_request(en, q, n->status, of_model ? q->slot->error.text : n->text);
        return;
    }
    }
}

/* --- models that go --- */

static void unload(struct engine *en, u32 model_id) {
    struct slot *s = engine_slot(en, model_id);
    /* A cancelled request may still be in preparation with this tokenizer: it ends within milliseconds. */
    while (s->n_preparing) {
        struct pollfd p = {.fd = jobs_fd(en->prep), .events = POLLIN};
        poll(&p, 1, 1000);
        take_done_jobs(en);
    }
    slot_unload(s);
    log_info("model unloaded", "model=%s", s->name);
    sched_event(en->sched,
                &(struct sched_event){.kind = SCHED_UNLOADED, .now_ns = clock_ns(), .model_id = model_id});
    en->state_changed = true;
}

/* --- the loop --- */

/* Nothing to compute: waits for a message, a finished job or the scheduler's next time. */
static void wait_for_work(struct engine *en, u64 wake_ns) {
    struct pollfd fds[3] = {
        {.fd = wire_conn_fd(en->conn),
         .events = (short)(POLLIN | (wire_wants_write(en->conn) ? POLLOUT : 0))},
        {.fd = jobs_fd(en->prep), .events = POLLIN},
        {.fd = jobs_fd(en->loader), .events = POLLIN},
    };
    u64 now = clock_ns();
    int timeout_ms = wake_ns == UINT64_MAX ? 1000
                     : wake_ns <= now      ? 0
                                           : (int)MIN((wake_ns - now) / 1000000 + 1, 1000u);
    if (poll(fds, ARRAY_LEN(fds), timeout_ms) < 0 && errno != EINTR)
        die("engine cannot wait for messages: %s", strerror(errno));
}

static enum status loop(struct engine *en, struct err *err) {
    for (;;) {
        struct sched_plan plan;
        TRY(read_messages(en, err));
        take_done_jobs(en);
        sched_next(en->sched, clock_ns(), &plan);
        for (u32 i = 0; i < plan.n_notices; i++)
            on_notice(en, &plan.notices[i]);
        bool idle = plan.kind == SCHED_PLAN_IDLE && plan.n_notices == 0;
        switch (plan.kind) {
        case SCHED_PLAN_STEP: engine_step(en, &plan); break;
        case SCHED_PLAN_LOAD: {
            struct slot *s = engine_slot(en, plan.model_id);
            log_info("loading model", "model=%s bytes=%" PRIu64, s->name, s->file_bytes);
            slot_load(s, en->loader);
            en->state_changed = true;
            break;
        }
        case SCHED_PLAN_UNLOAD: unload(en, plan.model_id); break;
        case SCHED_PLAN_IDLE:
            if (idle && en->state_changed)
                engine_send_state(en);
            break;
        }
        TRY(wire_flush(en->conn, err));
        if (idle)
            forget_deleted(en);
        if (idle)
            wait_for_work(en, plan.wake_ns);
    }
}

static void engine_init(struct engine *en, int fd, const struct settings *settings) {
    struct err err;
    u32 threads = settings->n_threads ? settings->n_threads : cpu_count_usable();
    u64 memory = settings->memory_bytes ? settings->memory_bytes : memory_usable_bytes();
    if (sandbox_enter(&err) != OK)
        log_warn("engine runs without a sandbox", "error=\"%s\"", err.text);
    en->conn = wire_conn_new(fd);
    en->settings = *settings;
    if (kern_open(settings->kernels, &en->model_config.kern, &err) != OK)
        die("MINKA_KERNELS: %s", err.text);
    if (kern_cache_by_name(settings->kv_cache_type, &en->model_config.cache, &err) != OK)
        die("OLLAMA_KV_CACHE_TYPE: %s", err.text);
    threads = MIN(threads, TEAM_THREADS_MAX);
    en->team = team_new(threads);
    en->prep = jobs_new();
    en->loader = jobs_new();
    en->tokenize_scratch = tokenize_scratch_new();
    en->scratch = model_scratch_new();
    en->sampler_scratch = xcalloc(threads, sizeof *en->sampler_scratch);
    en->masks = xcalloc(threads, sizeof *en->masks);
    struct sched_config c = {
        .queue_max = settings->max_queue,
        .parallel_max = settings->num_parallel,
        .loaded_max = settings->max_loaded,
        .memory_limit_bytes = memory,
        .fixed_bytes = LIMIT_ENGINE_FIXED_BYTES,
        .step_target_ns = 20000000,
        .slice_target_ns = 50000000,
        .max_wait_ns = settings->max_wait_ns,
        .rows_max = LIMIT_STEP_ROWS,
        .inputs_max = LIMIT_STEP_INPUTS,
        .draft_force = settings->speculation == SPECULATION_ALWAYS ? LIMIT_DRAFT : 0,
        .memory = kv_memory_anonymous,
    };
    en->memory_bytes = memory;
    en->sched = sched_new(&c);
    log_info("engine ready", "kernels=%s threads=%u memory=%" PRIu64, en->model_config.kern->name, threads,
             memory);
}

int engine_run(int fd, const struct settings *settings) {
    static struct engine engine;
    struct err err = {0};
    /* The server's end ends the engine, also when it could not close the socket. */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    prctl(PR_SET_NAME, "minka-engine");
    signal(SIGPIPE, SIG_IGN);
    /* Ctrl-C goes to the whole terminal group, systemd's SIGTERM to the whole unit: the server decides. */
    signal(SIGINT, SIG_IGN);
    signal(SIGTERM, SIG_IGN);
    engine_init(&engine, fd, settings);
    enum status status = loop(&engine, &err);
    if (status == ERR_IO)
        return 0; /* the server is gone or shutting down */
    log_error("engine stops", "error=\"%s\"", err.text);
    return 1;
}
