/* engine.c - the loop of the engine process. */
#include "engine/engine.h"

#include "base/clock.h"
#include "base/cpu.h"
#include "base/limit.h"
#include "base/log.h"
#include "engine/embed.h"
#include "engine/sandbox.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <unistd.h>

/* Figures go to the server at most this often while steps run. */
#define STATE_EVERY_NS 100000000ull
/* Idle models whose file was deleted are looked for this often. */
#define SWEEP_EVERY_NS 1000000000ull

struct engine {
    struct wire_conn *conn;
    struct settings settings;
    struct model_config model_config;
    struct team *team;
    struct jobs *prep, *loader;
    struct tokenize_scratch *tokenize_scratch; /* of the prep thread */
    struct sched *sched;
    struct slot *slots[LIMIT_MODELS];
    u32 n_slots;
    struct request_table requests;
    struct request *held; /* arrived while their model's header is being checked, oldest first */
    struct model_scratch *scratch;
    void **sampler_scratch; /* [threads] */
    size_t sampler_scratch_bytes;
    void **masks; /* [threads] tokens that a constrained answer may go on with */
    size_t mask_bytes;
    u64 state_sent_ns, swept_ns;
    bool state_changed;
};

/* --- events to the server --- */

static void send_event(struct engine *en, const struct gen_event *e) {
    struct wire_message m = {.type = WIRE_EVENT, .stream_id = e->request_id, .event = *e};
    wire_send(en->conn, &m, -1);
    en->state_changed = true;
}

/* Frees the request, or leaves that to its preparation job. */
static void drop_request(struct engine *en, struct request *q) {
    request_remove(&en->requests, q);
    q->gone = true;
    en->state_changed = true;
    if (!q->preparing)
        request_free(q);
}

static void fail_request(struct engine *en, struct request *q, enum status status, const char *text) {
    struct gen_event e = {.request_id = q->id, .kind = GEN_ERROR, .status = status, .text = str_of(text)};
    send_event(en, &e);
    drop_request(en, q);
}

static void finish_request(struct engine *en, struct request *q, enum gen_done_reason reason) {
    struct gen_event e;
    request_done_event(q, reason, clock_ns(), &e);
    send_event(en, &e);
    drop_request(en, q);
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

static void send_state(struct engine *en) {
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
            .kv_bytes = kv.pinned_bytes + kv.cached_bytes,
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

static struct slot *find_slot(struct engine *en, u32 model_id) {
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
    struct slot *s = find_slot(en, m->model_id);
    /* A file that could not be used may be in order now, and any may have been replaced. */
    if (s && (s->error.status != OK || !slot_same_file(s, fd)) && slot_is_idle(en, s)) {
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

static void arrive(struct engine *en, struct request *q) {
    sched_event(en->sched, &(struct sched_event){.kind = SCHED_ARRIVE,
                                                 .now_ns = clock_ns(),
                                                 .request_id = q->id,
                                                 .model_id = q->slot->model_id,
                                                 .keep_alive_ns = q->keep_alive_ns,
                                                 .readmitted = q->r->n_resume > 0});
}

/* The header check is over: what was held arrives, or fails with the file's error. */
static void on_checked(struct engine *en, struct slot *s) {
    if (s->state == SLOT_KNOWN) {
        struct sched_event e = {.kind = SCHED_MODEL, .now_ns = clock_ns(), .model_id = s->model_id};
        e.model = (struct sched_model){.model_id = s->model_id,
                                       .identity = s->identity,
                                       .weights_bytes = s->weights_bytes,
                                       .scratch_bytes = s->scratch_bytes,
                                       .layout = s->kv,
                                       .encoder = s->encoder};
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

/* The file of a loaded model is damaged: its requests end with that, and it goes as soon as nobody uses it.
 */
static void fail_model(struct engine *en, struct slot *s) {
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
    q->slot = find_slot(en, g->request.model_id);
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
    drop_request(en, q);
}

static void on_limits(struct engine *en, const struct wire_limits *l) {
    sched_event(en->sched, &(struct sched_event){.kind = SCHED_LIMITS,
                                                 .now_ns = clock_ns(),
                                                 .memory_limit_bytes = l->memory_bytes});
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
        fail_model(en, q->slot);
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
        send_event(en, &(struct gen_event){.request_id = q->id, .kind = GEN_STARTED, .counts = q->counts});
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

/* --- a step --- */

/* An item of the step from which tokens are drawn. */
struct drawing {
    struct request *q;
    struct sched_result *result;
    bool settled; /* no further row of it counts: what was guessed was not drawn, or the answer is over */
    u32 draft[LIMIT_DRAFT];
};

/* A row of logits. The rows of one item lie side by side, in the order of their positions. */
struct sampled {
    struct drawing *d;
    u32 pos;          /* of the row */
    const u32 *guess; /* the next row is right only if this is drawn here; NULL: the item's last row */
    struct sampler_pick pick;
    u64 hash;
    struct err error; /* status OK: there is a pick */
};

struct sample_work {
    struct engine *en;
    struct sampled *rows;              /* [tile] */
    u32 firsts[MODEL_LOGITS_TILE + 1]; /* [groups + 1] first row of each group of rows of one item */
    const f32 *logits;
    u32 n_vocab;
};

/* One row: what the grammar allows (run, NULL: anything), a draw from it. */
static enum status sample_row(const struct sample_work *w, u32 i, const struct grammar_run *run, u32 position,
                              u32 thread, struct err *err) {
    struct request *q = w->rows[i].d->q;
    u32 *mask = run ? w->en->masks[thread] : NULL;
    if (run)
        TRY(grammar_run_mask(run, mask, err));
    sampler_pick(q->sampler, w->en->model_config.kern, w->logits + (size_t)i * w->n_vocab, position, mask,
                 q->r->top_logprobs, q->r->logprobs, w->en->sampler_scratch[thread], &w->rows[i].pick);
    return OK;
}

/* The rows of one item in this tile: position by position, as long as what was guessed is drawn. A draw sees
 * the penalties, the grammar and the random number that it would have seen without guesses, so it is the
 * same. */
static void sample_group(void *arg, u32 group, u32 thread) {
    const struct sample_work *w = arg;
    u32 first = w->firsts[group], end = w->firsts[group + 1];
    struct request *q = w->rows[first].d->q;
    if (w->rows[first].d->settled)
        return;
    struct constraint *c = &q->constraint;
    struct grammar_run run = {0};
    u32 mark = sampler_snapshot(q->sampler);
    u64 hash = q->hash;
    if (c->grammar)
        grammar_run_copy(&c->run, &run);
    for (u32 i = first; i < end; i++) {
        struct sampled *row = &w->rows[i];
        if (q->r->want_hash)
            hash = model_logits_hash(w->logits + (size_t)i * w->n_vocab, w->n_vocab, hash);
        row->error.status =
            sample_row(w, i, c->grammar ? &run : NULL, q->n_output + i - first, thread, &row->error);
        row->hash = hash;
        if (row->error.status != OK || !row->guess || row->pick.token != *row->guess)
            break;
        if (c->grammar && (!grammar_run_accept(&run, row->pick.token) || grammar_run_over(&run)))
            break; /* the answer is over */
        sampler_accept(q->sampler, row->pick.token);
    }
    grammar_run_release(&run);
    sampler_rollback(q->sampler, mark);
}

/* What the token of one row means: events out, a result for the scheduler. True if the next row of the item,
 * whose input was guessed, goes on from here. */
static bool apply_pick(struct engine *en, struct sampled *row, u64 now) {
    struct request *q = row->d->q;
    struct sched_result *res = row->d->result;
    struct gen_event e;
    enum gen_done_reason reason;
    if (!q->first_token_ns)
        q->first_token_ns = now;
    q->hash = row->hash;
    if (row->error.status != OK) {
        e = (struct gen_event){.request_id = q->id,
                               .kind = GEN_ERROR,
                               .status = row->error.status,
                               .text = str_of(row->error.text)};
        send_event(en, &e);
        *res = (struct sched_result){.request_id = q->id, .outcome = SCHED_FINISH};
        q->done = true;
        return false;
    }
    res->outcome = request_token(q, &row->pick, &e, &reason);
    res->n_tokens = 0;
    if (res->outcome == SCHED_SHIFT) {
        res->tokens = q->tokens.ids;
        res->n_tokens = q->tokens.n;
    } else if (e.n_ids) {
        res->tokens = &q->tokens.ids[q->tokens.n - 1];
        res->n_tokens = 1;
    }
    if (e.n_ids || e.text.n || e.kind == GEN_TOOL)
        send_event(en, &e);
    for (u32 i = 0; request_more(q, i, &e); i++)
        send_event(en, &e);
    if (res->outcome == SCHED_FINISH) {
        request_done_event(q, reason, now, &e);
        send_event(en, &e);
        q->done = true;
    }
    return res->outcome == SCHED_MORE && row->guess && *row->guess == row->pick.token;
}

/* Rows first..first+n-1 of the step; not OK: the file is damaged, no token came of them. */
static enum status sample_tile(struct engine *en, struct slot *s, struct sampled *rows, u32 first, u32 n) {
    struct sample_work w = {.en = en, .rows = rows + first, .n_vocab = tokenizer_n_vocab(s->tokenizer)};
    u32 n_groups = 0;
    w.logits = model_logits(s->model, en->team, en->scratch, first, n);
    for (u32 i = 0; i < n; i++)
        if (i == 0 || w.rows[i].d != w.rows[i - 1].d)
            w.firsts[n_groups++] = i;
    w.firsts[n_groups] = n;
    team_run(en->team, sample_group, &w, n_groups);
    TRY(slot_verify(s));
    u64 now = clock_ns();
    for (u32 i = 0; i < n; i++) {
        struct drawing *d = w.rows[i].d;
        if (!d->settled && apply_pick(en, &w.rows[i], now))
            d->result->n_agreed++;
        else
            d->settled = true;
    }
    return OK;
}

static bool embeds(const struct drawing *d) { return d->q->r->form == GEN_FORM_EMBED; }

/* A vector, or the end of a request whose vectors are all there. */
static void send_embedded(void *ctx, const struct gen_event *e) { send_event(ctx, e); }

/* Rows of requests that embed with a generating model: an input that ends makes room for the next. */
static void embed_rows(struct engine *en, struct sampled *rows, u32 first, u32 n) {
    for (u32 i = first; i < first + n; i++) {
        struct request *q = rows[i].d->q;
        embed_row(q, model_hidden(q->slot->model, en->scratch, i), rows[i].pos, rows[i].d->result,
                  send_embedded, en);
    }
}

/* The rows of logits that an item gives. */
static u32 add_drawing(struct drawing *d, const struct sched_item *it, struct sampled *rows) {
    const u32 *guesses = it->tokens + it->n_tokens - it->n_drafts;
    check(it->n_logits == 1 + it->n_drafts || embeds(d));
    d->settled = false;
    for (u32 i = 0; i < it->n_logits; i++) {
        rows[i].d = d;
        rows[i].pos = it->pos0 + it->n_tokens - it->n_logits + i;
        rows[i].guess = i < it->n_drafts ? &guesses[i] : NULL;
    }
    return it->n_logits;
}

/* Reports a step; requests that it finished go. */
static void step_done(struct engine *en, u64 start_ns, const struct sched_result *results, u32 n) {
    struct sched_event e = {.kind = SCHED_STEP, .now_ns = clock_ns()};
    e.step = (struct sched_step){e.now_ns - start_ns, results, n};
    sched_event(en->sched, &e);
    for (u32 i = 0; i < n; i++)
        if (results[i].outcome == SCHED_FINISH)
            drop_request(en, request_find(&en->requests, results[i].request_id));
    if (e.now_ns - en->state_sent_ns > STATE_EVERY_NS)
        send_state(en);
}

static void run_encoder_step(struct engine *en, struct slot *s, const struct sched_plan *plan) {
    struct embed_item items[LIMIT_STEP_INPUTS];
    struct sched_result results[LIMIT_STEP_INPUTS];
    u64 start = clock_ns();
    check(plan->n_items <= LIMIT_STEP_INPUTS);
    for (u32 i = 0; i < plan->n_items; i++) {
        const struct sched_item *it = &plan->items[i];
        items[i] = (struct embed_item){request_find(&en->requests, it->request_id), it->pos0, it->n_tokens};
        results[i] = (struct sched_result){.request_id = it->request_id, .outcome = SCHED_MORE};
    }
    embed_run(s, en->team, en->scratch, items, plan->n_items);
    if (slot_verify(s) == OK)
        embed_collect(s, en->scratch, items, plan->n_items, results, send_embedded, en);
    else
        fail_model(en, s);
    step_done(en, start, results, plan->n_items);
}

/* Rows from first on that are handled together: all drawn from, or all embedded. */
static u32 rows_alike(const struct sampled *rows, u32 first, u32 n_rows) {
    u32 n = 1;
    while (first + n < n_rows && n < MODEL_LOGITS_TILE && embeds(rows[first + n].d) == embeds(rows[first].d))
        n++;
    return n;
}

static void run_step(struct engine *en, const struct sched_plan *plan) {
    static struct model_span spans[LIMIT_STEP_ROWS];
    static struct sched_result results[LIMIT_STEP_ROWS];
    static struct drawing drawings[LIMIT_RUNNING];
    static struct sampled rows[LIMIT_STEP_ROWS];
    struct slot *s = find_slot(en, plan->model_id);
    u64 start = clock_ns();
    u32 n_rows = 0, n_drawings = 0;
    check(s && s->state == SLOT_LOADED && plan->n_items <= LIMIT_STEP_ROWS);
    if (s->encoder) {
        run_encoder_step(en, s, plan);
        return;
    }
    for (u32 i = 0; i < plan->n_items; i++) {
        const struct sched_item *it = &plan->items[i];
        spans[i] =
            (struct model_span){it->seq, it->tokens, it->pos0, it->n_tokens, it->n_logits, s->rope_ctx};
        results[i] = (struct sched_result){.request_id = it->request_id, .outcome = SCHED_MORE};
        if (it->n_logits == 0)
            continue;
        struct drawing *d = &drawings[n_drawings++];
        check(n_rows + it->n_logits <= s->n_logits_max);
        d->q = request_find(&en->requests, it->request_id);
        d->result = &results[i];
        n_rows += add_drawing(d, it, rows + n_rows);
    }
    model_forward(s->model, en->team, en->scratch, spans, plan->n_items, 0, 0);
    enum status intact = slot_verify(s);
    for (u32 first = 0, n; first < n_rows && intact == OK; first += n) {
        n = rows_alike(rows, first, n_rows);
        if (embeds(rows[first].d))
            embed_rows(en, rows, first, n);
        else
            intact = sample_tile(en, s, rows, first, n);
    }
    for (u32 i = 0; i < n_drawings && intact == OK; i++) {
        struct sched_result *res = drawings[i].result;
        res->draft = drawings[i].draft;
        if (en->settings.speculation != SPECULATION_OFF && res->outcome == SCHED_MORE)
            res->n_draft = request_guess(drawings[i].q, drawings[i].draft);
    }
    if (intact != OK)
        fail_model(en, s);
    step_done(en, start, results, plan->n_items);
}

static void unload(struct engine *en, u32 model_id) {
    struct slot *s = find_slot(en, model_id);
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
        case SCHED_PLAN_STEP: run_step(en, &plan); break;
        case SCHED_PLAN_LOAD: {
            struct slot *s = find_slot(en, plan.model_id);
            log_info("loading model", "model=%s bytes=%" PRIu64, s->name, s->file_bytes);
            slot_load(s, en->loader);
            en->state_changed = true;
            break;
        }
        case SCHED_PLAN_UNLOAD: unload(en, plan.model_id); break;
        case SCHED_PLAN_IDLE:
            if (idle && en->state_changed)
                send_state(en);
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
