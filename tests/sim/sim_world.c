/* sim_world.c - events in time order, and the loop that an engine would run around the scheduler. */
#include "sim.h"

#include <stdio.h>
#include <stdlib.h>

void sim_print(const struct sim *w, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    printf("%12.3f ms  ", (f64)w->now_ns / (f64)SIM_MS);
    vprintf(fmt, args);
    printf("\n");
    va_end(args);
}

/* ---------------------------------------------------------------- events: a heap by time */

static bool event_before(const struct sim_event *a, const struct sim_event *b) {
    return a->at_ns != b->at_ns ? a->at_ns < b->at_ns : a->order < b->order;
}

static void event_swap(struct sim_event *a, struct sim_event *b) {
    struct sim_event t = *a;
    *a = *b;
    *b = t;
}

static void event_push(struct sim *w, struct sim_event e) {
    check(w->n_events < SIM_EVENTS_MAX);
    e.order = w->event_order++;
    u32 i = w->n_events++;
    w->events[i] = e;
    for (; i > 0 && event_before(&w->events[i], &w->events[(i - 1) / 2]); i = (i - 1) / 2)
        event_swap(&w->events[i], &w->events[(i - 1) / 2]);
}

static struct sim_event event_pop(struct sim *w) {
    struct sim_event top = w->events[0];
    w->events[0] = w->events[--w->n_events];
    for (u32 i = 0;;) {
        u32 least = i, l = 2 * i + 1, r = 2 * i + 2;
        if (l < w->n_events && event_before(&w->events[l], &w->events[least]))
            least = l;
        if (r < w->n_events && event_before(&w->events[r], &w->events[least]))
            least = r;
        if (least == i)
            return top;
        event_swap(&w->events[i], &w->events[least]);
        i = least;
    }
}

void sim_event_add(struct sim *w, u64 at_ns, enum sim_event_kind kind, u32 index, u64 value) {
    event_push(w, (struct sim_event){.at_ns = at_ns, .kind = kind, .index = index, .value = value});
}

/* One that a new engine must not hear. */
static void event_add_own(struct sim *w, u64 at_ns, enum sim_event_kind kind, u32 index, u64 value) {
    event_push(w, (struct sim_event){
                      .at_ns = at_ns, .kind = kind, .index = index, .epoch = w->epoch, .value = value});
}

/* ---------------------------------------------------------------- what the engine tells the scheduler */

static void tell(struct sim *w, struct sched_event e) {
    e.now_ns = w->now_ns;
    sched_event(w->sched, &e);
    sim_promise_event(w);
}

void sim_model_used(struct sim *w, u32 model, i64 keep_alive_ns) {
    struct sim_model *m = &w->models[model];
    m->last_use_ns = w->now_ns;
    bool shorter = keep_alive_ns >= 0 && (m->keep_alive_min_ns < 0 || keep_alive_ns < m->keep_alive_min_ns);
    if (shorter)
        m->keep_alive_min_ns = keep_alive_ns;
}

static void arrive(struct sim *w, struct sim_request *r, bool readmitted) {
    r->arrived = true;
    r->wanted = r->prompt_sent = false;
    r->limit_min_bytes = MIN(r->limit_min_bytes, w->limit_bytes);
    sim_say(w, "arrive %llu model %u prompt %u ctx %u predict %u%s", (unsigned long long)r->id, r->model,
            r->n_tokens, r->num_ctx, r->predict_max, r->load_only ? " load only" : "");
    u32 n_waiting = w->sched->n_waiting;
    tell(w, (struct sched_event){.kind = SCHED_ARRIVE,
                                 .request_id = r->id,
                                 .model_id = w->models[r->model].info.model_id,
                                 .draft_id = r->draft_id,
                                 .keep_alive_ns = r->keep_alive_ns,
                                 .readmitted = readmitted});
    sim_promise_arrival(w, r, n_waiting, readmitted);
    if (r->load_only) {
        r->prompt_sent = true;
        sim_model_used(w, r->model, r->keep_alive_ns); /* if it is there; else from its loading on */
        tell(w, (struct sched_event){.kind = SCHED_PROMPT,
                                     .request_id = r->id,
                                     .prompt = {.load_only = true, .num_ctx = r->num_ctx}});
    }
}

static void send_prompt(struct sim *w, struct sim_request *r) {
    if (r->end != SIM_OPEN || r->prompt_sent)
        return;
    if (!w->models[r->model].loaded)
        return; /* its tokenizer is gone: we shall be asked again */
    r->prompt_sent = true;
    tell(w, (struct sched_event){.kind = SCHED_PROMPT,
                                 .request_id = r->id,
                                 .prompt = {.tokens = r->tokens,
                                            .n_tokens = r->n_tokens,
                                            .predict_max = r->predict_max - (r->n_ends ? 0 : r->n_output),
                                            .num_ctx = r->num_ctx,
                                            .ends = r->ends,
                                            .n_ends = r->n_ends,
                                            .every_row = r->every_row}});
}

static bool in_items(const struct sim *w, u64 id) {
    for (u32 i = 0; w->in_step && i < w->n_items; i++)
        if (w->items[i].request_id == id)
            return true;
    return false;
}

static void cancel(struct sim *w, struct sim_request *r) {
    if (!r->arrived || r->end != SIM_OPEN)
        return;
    r->end = SIM_CANCELLED;
    sim_say(w, "cancel %llu", (unsigned long long)r->id);
    sim_model_used(w, r->model, r->keep_alive_ns);
    if (in_items(w, r->id))
        w->counts->n_cancel_in_step++;
    else if (r->started)
        w->counts->n_cancel_running++;
    else
        w->counts->n_cancel_queued++;
    tell(w, (struct sched_event){.kind = SCHED_CANCEL,
                                 .request_id = r->id,
                                 .status = random_percent(&w->random, 20) ? ERR_INTERNAL : OK});
}

static void loaded(struct sim *w, u32 model, bool ok) {
    sim_say(w, "loaded %u %s", model, ok ? "ok" : "failed");
    w->models[model].loaded = ok;
    w->models[model].mapped = ok;
    w->models[model].last_use_ns = w->now_ns;
    tell(w, (struct sched_event){.kind = SCHED_LOADED,
                                 .model_id = w->models[model].info.model_id,
                                 .status = ok ? OK : ERR_IO,
                                 .text = "cannot read the file"});
}

static void unloaded(struct sim *w, u32 model) {
    sim_say(w, "unloaded %u", model);
    w->models[model].mapped = false;
    tell(w, (struct sched_event){.kind = SCHED_UNLOADED, .model_id = w->models[model].info.model_id});
}

static void set_limit(struct sim *w, u64 bytes) {
    sim_say(w, "limit %llu MiB", (unsigned long long)(bytes / SIM_MIB));
    w->limit_bytes = bytes;
    w->limit_changed_ns = w->now_ns;
    for (u32 i = 0; i < w->o.n_requests; i++)
        if (w->requests[i].arrived)
            w->requests[i].limit_min_bytes = MIN(w->requests[i].limit_min_bytes, bytes);
    tell(w, (struct sched_event){.kind = SCHED_LIMITS, .memory_limit_bytes = bytes});
}

/* ---------------------------------------------------------------- steps */

static struct sim_request *request_of(struct sim *w, u64 id) {
    check(id >= 1000 && id < 1000 + w->o.n_requests);
    return &w->requests[id - 1000];
}

/* The passes of the step's draft model: as many as the item that wants most guesses, each over all that want
 * one more. */
static void draft_begin(struct sim *w, const struct sched_plan *p) {
    u32 n_passes = 0, n_rows = 0;
    for (u32 i = 0; i < p->n_items; i++) {
        const struct sched_item *it = &p->items[i];
        check(it->n_wanted <= LIMIT_DRAFT && (it->n_wanted == 0 || it->n_logits > 0));
        check(it->n_wanted == 0 || request_of(w, it->request_id)->draft_id == p->draft_id);
        n_passes = MAX(n_passes, it->n_wanted);
        n_rows += it->n_wanted;
    }
    w->n_draft_passes = n_passes;
    w->n_draft_rows = n_rows;
    w->draft_ns = 0;
    if (n_passes == 0)
        return;
    check(p->draft_id && p->draft_id != p->model_id);
    const struct sim_model *d = &w->models[p->draft_id - 100];
    check(d->loaded && !d->info.encoder);
    w->draft_ns = n_passes * d->base_ns + n_rows * d->per_row_ns;
    w->counts->n_draft_passes += n_passes;
}

static void step_begin(struct sim *w, const struct sched_plan *p) {
    check(p->n_items > 0 && p->n_items <= LIMIT_RUNNING);
    struct sim_model *m = &w->models[p->model_id - 100];
    check(m->loaded);
    memcpy(w->items, p->items, p->n_items * sizeof *p->items);
    w->n_items = p->n_items;
    w->step_model = p->model_id - 100;
    w->in_step = true;
    w->step_ns = m->base_ns + p->n_rows * m->per_row_ns;
    w->step_ns = w->step_ns / 100 * (80 + random_below(&w->random, 40));
    draft_begin(w, p);
    w->step_ns += w->draft_ns;
    w->longest_step_ns = MAX(w->longest_step_ns, w->step_ns);
    w->counts->n_steps++;
    w->counts->n_rows += p->n_rows;
    event_add_own(w, w->now_ns + w->step_ns, SIM_STEP, 0, 0);
}

static void step_end(struct sim *w) {
    static u32 tokens[LIMIT_RUNNING][SIM_TOKENS_MAX];
    struct sched_result results[LIMIT_RUNNING];
    for (u32 i = 0; i < w->n_items; i++) {
        struct sim_request *r = request_of(w, w->items[i].request_id);
        check(r->started && (r->end == SIM_OPEN || r->end == SIM_CANCELLED));
        w->trace = hash_bytes(&w->items[i].pos0, sizeof(u32), w->trace ^ r->id);
        sim_item_run(w, r, &w->items[i], &results[i], tokens[i]);
        if (results[i].outcome != SCHED_FINISH || r->end == SIM_CANCELLED)
            continue;
        check(r->n_output == r->n_expected);
        check(memcmp(r->output, r->expected, r->n_output * sizeof(u32)) == 0);
        r->end = SIM_FINISHED;
        sim_model_used(w, r->model, r->keep_alive_ns);
        w->counts->n_finished++;
        sim_say(w, "finished %llu after %u tokens", (unsigned long long)r->id, r->n_output);
    }
    w->in_step = false;
    tell(w, (struct sched_event){.kind = SCHED_STEP,
                                 .step = {.duration_ns = w->step_ns,
                                          .results = results,
                                          .n_results = w->n_items,
                                          .draft_ns = w->draft_ns,
                                          .n_draft_passes = w->n_draft_passes,
                                          .n_draft_rows = w->n_draft_rows}});
}

/* ---------------------------------------------------------------- crashes */

static void engine_new(struct sim *w) {
    w->epoch++;
    w->in_step = false;
    w->o.config.memory = fake_memory_hooks(&w->memory);
    w->o.config.memory_limit_bytes = w->limit_bytes;
    w->sched = sched_new(&w->o.config);
    for (u32 i = 0; i < w->o.n_models; i++) {
        w->models[i].mapped = w->models[i].loaded = false;
        if (!w->models[i].forgotten)
            tell(w, (struct sched_event){.kind = SCHED_MODEL, .model = w->models[i].info});
    }
}

/* Everything is lost but what the server has: the open requests with their tokens. */
static void crash(struct sim *w) {
    sim_say(w, "crash");
    w->counts->n_crashes++;
    sched_free(w->sched);
    engine_new(w);
    u64 order[SIM_REQUESTS_MAX];
    u32 n = 0;
    for (u32 i = 0; i < w->o.n_requests; i++)
        if (w->requests[i].arrived && w->requests[i].end == SIM_OPEN)
            order[n++] = w->requests[i].arrival_ns * SIM_REQUESTS_MAX + i;
    for (u32 i = 0; i < n; i++) {
        u32 least = i;
        for (u32 k = i + 1; k < n; k++)
            if (order[k] < order[least])
                least = k;
        u64 t = order[i];
        order[i] = order[least];
        order[least] = t;
        struct sim_request *r = &w->requests[order[i] % SIM_REQUESTS_MAX];
        r->started = false;
        if (w->models[r->model].info.encoder)
            r->n_output = 0; /* its inputs are simply computed again */
        arrive(w, r, true);
    }
}

/* ---------------------------------------------------------------- plans */

static void hear(struct sim *w, const struct sched_notice *n) {
    struct sim_request *r = request_of(w, n->request_id);
    if (r->end == SIM_CANCELLED)
        return; /* said before the cancel was heard */
    check(r->end == SIM_OPEN);
    switch (n->kind) {
    case SCHED_NOTICE_STARTED:
        check(!r->started);
        r->started = true;
        sim_model_used(w, r->model, r->keep_alive_ns);
        w->counts->n_cached_tokens += n->n_cached;
        check(n->n_cached < r->n_tokens && (n->n_cached == 0 || !(r->every_row || r->n_ends)));
        check(n->load_ns <= n->queue_ns);
        break;
    case SCHED_NOTICE_REJECTED: sim_promise_rejection(w, r, n); break;
    case SCHED_NOTICE_READY:
        check(r->load_only && w->models[r->model].loaded);
        r->end = SIM_READY;
        w->counts->n_ready++;
        break;
    case SCHED_NOTICE_WANTED:
        check(!r->load_only);
        r->wanted = true;
        event_add_own(w, w->now_ns + r->prompt_delay_ns, SIM_PROMPT, (u32)(r->id - 1000), 0);
        r->prompt_delay_ns /= 2; /* if it is asked again: no machine is that slow for ever */
        break;
    }
}

static bool follow_plan(struct sim *w, const struct sched_plan *p) {
    switch (p->kind) {
    case SCHED_PLAN_IDLE: return false;
    case SCHED_PLAN_STEP: step_begin(w, p); return false;
    case SCHED_PLAN_LOAD: {
        u32 i = p->model_id - 100;
        u64 load_ns = random_next(&w->random) % w->o.load_ns_max;
        check(!w->models[i].mapped);
        w->models[i].mapped = true;
        w->models[i].keep_alive_min_ns = -1;
        for (u32 k = 0; k < w->o.n_requests; k++) /* that of who waits holds if all of them leave */
            if (w->requests[k].model == i && w->requests[k].arrived && w->requests[k].end == SIM_OPEN)
                sim_model_used(w, i, w->requests[k].keep_alive_ns);
        w->counts->n_loads++;
        w->counts->n_draft_loads += smodel_find(w->sched, p->model_id)->waiting.n == 0;
        w->longest_load_ns = MAX(w->longest_load_ns, load_ns);
        sim_say(w, "load %u", i);
        event_add_own(w, w->now_ns + load_ns, SIM_LOADED, i,
                      random_percent(&w->random, w->o.load_fail_percent));
        return true;
    }
    case SCHED_PLAN_UNLOAD: {
        u32 i = p->model_id - 100;
        check(w->models[i].loaded);
        sim_promise_unload(w, i);
        w->models[i].loaded = false;
        w->counts->n_unloads++;
        w->counts->n_draft_unloads += smodel_find(w->sched, p->model_id)->drafts;
        sim_say(w, "unload %u", i);
        event_add_own(w, w->now_ns + random_below(&w->random, 5) * SIM_MS, SIM_UNLOADED, i, 0);
        return true;
    }
    }
    return false;
}

/* Asks until there is a step or nothing to do; returns when to ask again at the latest. */
static u64 decide(struct sim *w) {
    struct sched_plan p;
    do {
        const struct sreq *oldest = sreq_oldest_running(w->sched);
        u64 oldest_id = oldest ? oldest->id : 0;
        u64 parked = w->sched->n_parked_total;
        if (w->fault && !w->fault_done)
            w->fault_done = w->fault(w);
        sched_next(w->sched, w->now_ns, &p);
        w->counts->n_parked += w->sched->n_parked_total - parked;
        sim_promise_plan(w, &p, oldest_id);
        for (u32 i = 0; i < p.n_notices; i++)
            hear(w, &p.notices[i]);
    } while (follow_plan(w, &p));
    return p.kind == SCHED_PLAN_IDLE ? p.wake_ns : UINT64_MAX;
}

/* ---------------------------------------------------------------- the run */

static void happen(struct sim *w, const struct sim_event *e) {
    if (e->epoch && e->epoch != w->epoch)
        return;
    switch (e->kind) {
    case SIM_ARRIVE: arrive(w, &w->requests[e->index], false); break;
    case SIM_PROMPT: send_prompt(w, &w->requests[e->index]); break;
    case SIM_CANCEL: cancel(w, &w->requests[e->index]); break;
    case SIM_LOADED: loaded(w, e->index, e->value == 0); break;
    case SIM_UNLOADED: unloaded(w, e->index); break;
    case SIM_STEP: step_end(w); break;
    case SIM_LIMIT: set_limit(w, e->value); break;
    case SIM_EXPIRE:
        sim_model_used(w, e->index, (i64)e->value);
        tell(w, (struct sched_event){.kind = SCHED_EXPIRE,
                                     .model_id = w->models[e->index].info.model_id,
                                     .keep_alive_ns = (i64)e->value});
        break;
    case SIM_FORGET:
        sim_say(w, "forget %u", e->index);
        w->models[e->index].forgotten = true;
        tell(w, (struct sched_event){.kind = SCHED_FORGET, .model_id = w->models[e->index].info.model_id});
        break;
    case SIM_ANNOUNCE:
        sim_say(w, "announce %u", e->index);
        w->models[e->index].forgotten = false;
        tell(w, (struct sched_event){.kind = SCHED_MODEL, .model = w->models[e->index].info});
        break;
    case SIM_CRASH: crash(w); break;
    }
}

static bool all_ended(const struct sim *w) {
    for (u32 i = 0; i < w->o.n_requests; i++)
        if (w->requests[i].end == SIM_OPEN)
            return false;
    return true;
}

void sim_run(struct sim *w) {
    sim_draw(w);
    w->limit_bytes = w->o.config.memory_limit_bytes;
    w->memory.fail_percent = w->o.map_fail_percent;
    w->memory.random = w->seed;
    for (u32 i = 0; i < w->o.n_requests; i++)
        w->requests[i].limit_min_bytes = UINT64_MAX;
    engine_new(w);
    u64 wake = UINT64_MAX;
    for (u32 n = 0; !(all_ended(w) && w->n_events == 0); n++) {
        check(n < 1000000);
        u64 at = w->n_events ? w->events[0].at_ns : UINT64_MAX;
        check(at != UINT64_MAX || wake != UINT64_MAX);
        if (w->in_step || at <= wake) {
            w->now_ns = MAX(w->now_ns, at);
            struct sim_event e = event_pop(w);
            happen(w, &e);
        } else {
            w->now_ns = MAX(w->now_ns, wake);
        }
        if (!w->in_step)
            wake = decide(w);
    }
    sim_promise_end(w);
    sched_free(w->sched);
    fake_memory_release(&w->memory);
}
