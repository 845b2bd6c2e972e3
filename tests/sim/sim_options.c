/* sim_options.c - what a seed means. */
#include "sim.h"

static u32 pick(struct sim *w, u32 lo, u32 hi) { return lo + random_below(&w->random, hi - lo + 1); }
static bool chance(struct sim *w, u32 percent) { return random_percent(&w->random, percent); }

static void draw_model(struct sim *w, u32 i) {
    struct sim_model *m = &w->models[i];
    u32 layers = pick(w, 2, 24);
    struct kv_layout l = {.n_groups = 1, .groups = {{layers, 2, 64, 2, 0}}};
    if (chance(w, 40)) {
        u32 windows[] = {64, 100, 128, 200};
        l.n_groups = 2;
        l.groups[1] = (struct kv_group){layers * 2, 2, 64, 2, windows[random_below(&w->random, 4)]};
    }
    bool encoder = chance(w, 20);
    if (encoder)
        l = (struct kv_layout){0};
    m->info = (struct sched_model){
        .model_id = 100 + i,
        .identity = random_next(&w->random),
        .weights_bytes = pick(w, 5, 120) * SIM_MIB,
        .scratch_bytes = pick(w, 1, 8) * SIM_MIB,
        .layout = l,
        .encoder = encoder,
        .draft_bytes = encoder ? 0 : pick(w, 1, 8) * SIM_MIB,
    };
    m->base_ns = pick(w, 200, 20000) * 1000;
    m->per_row_ns = m->base_ns / pick(w, 2, 40);
}

static void draw_config(struct sim *w) {
    struct sched_config *c = &w->o.config;
    c->queue_max = chance(w, 30) ? pick(w, 1, 12) : 512;
    c->parallel_max = chance(w, 25) ? pick(w, 1, 4) : 0;
    c->loaded_max = chance(w, 20) ? pick(w, 1, 2) : 0;
    c->fixed_bytes = pick(w, 1, 10) * SIM_MIB;
    c->step_target_ns = 20 * SIM_MS;
    c->slice_target_ns = 50 * SIM_MS;
    c->max_wait_ns = pick(w, 200, 5000) * SIM_MS;
    c->rows_max = chance(w, 30) ? pick(w, 32, 64) : 512;
    c->inputs_max = chance(w, 30) ? pick(w, 1, 8) : LIMIT_STEP_INPUTS;
    u32 forces[] = {1, 7, 64, 512};
    c->slice_force = chance(w, 10) ? forces[random_below(&w->random, 4)] : 0;
    c->draft_force = chance(w, 30) ? pick(w, 1, LIMIT_DRAFT) : 0;
    /* Enough for the largest model and a little, up to plenty for all. */
    u64 largest = 0, sum = 0;
    for (u32 i = 0; i < w->o.n_models; i++) {
        u64 cost = w->models[i].info.weights_bytes + w->models[i].info.scratch_bytes;
        largest = MAX(largest, cost);
        sum += cost;
    }
    u64 kv = pick(w, 4, chance(w, 40) ? 40 : 400) * SIM_MIB;
    c->memory_limit_bytes = c->fixed_bytes + kv + (chance(w, 50) ? largest : sum);
}

static void draw_request(struct sim *w, u32 i) {
    struct sim_request *r = &w->requests[i];
    r->id = 1000 + i;
    r->model = random_below(&w->random, w->o.n_models);
    r->arrival_ns = random_below(&w->random, (u32)(w->o.span_ns / SIM_MS)) * SIM_MS;
    if (i > 0 && chance(w, w->o.burst_percent)) {
        r->arrival_ns = w->requests[i - 1].arrival_ns;
        if (chance(w, 60))
            r->model = w->requests[i - 1].model;
    }
    if (chance(w, w->o.cancel_percent))
        r->cancel_ns = r->arrival_ns + random_below(&w->random, 3000) * SIM_MS;
    r->prompt_delay_ns = random_below(&w->random, 5) * SIM_MS;
    if (chance(w, w->o.slow_prompt_percent))
        r->prompt_delay_ns = random_below(&w->random, 3000) * SIM_MS;
    i64 keeps[] = {-1, 0, 300 * (i64)SIM_MS, 5000 * (i64)SIM_MS, 300000 * (i64)SIM_MS};
    r->keep_alive_ns = keeps[random_below(&w->random, w->o.short_keep_alive ? 4 : 5)];
    r->load_only = chance(w, w->o.load_only_percent);
    /* Any model, also itself and an encoder: then nobody guesses. */
    r->draft_id = chance(w, w->o.draft_model_percent) ? 100 + random_below(&w->random, w->o.n_models) : 0;
    sim_request_draw(w, r);
}

static void draw_disturbances(struct sim *w) {
    struct sim_options *o = &w->o;
    u32 span_ms = (u32)(o->span_ns / SIM_MS) + 2000;
    u64 limit = o->config.memory_limit_bytes;
    for (u32 i = 0; i < o->n_limit_changes; i++)
        sim_event_add(w, random_below(&w->random, span_ms) * SIM_MS, SIM_LIMIT, 0,
                      limit / 100 * pick(w, chance(w, 20) ? 5 : 60, 130));
    if (o->n_limit_changes)
        sim_event_add(w, span_ms * SIM_MS, SIM_LIMIT, 0, limit);
    for (u32 i = 0; i < o->n_crashes; i++)
        sim_event_add(w, random_below(&w->random, span_ms) * SIM_MS, SIM_CRASH, 0, 0);
    for (u32 i = 0; i < o->n_expires; i++)
        sim_event_add(w, random_below(&w->random, span_ms) * SIM_MS, SIM_EXPIRE,
                      random_below(&w->random, o->n_models), chance(w, 50) ? 0 : 100 * SIM_MS);
    for (u32 i = 0; i < o->n_forgets; i++) {
        u64 at = random_below(&w->random, span_ms) * SIM_MS;
        u32 model = random_below(&w->random, o->n_models);
        sim_event_add(w, at, SIM_FORGET, model, 0);
        if (chance(w, 70))
            sim_event_add(w, at + random_below(&w->random, 500) * SIM_MS, SIM_ANNOUNCE, model, 0);
    }
}

void sim_draw(struct sim *w) {
    struct sim_options *o = &w->o;
    *o = (struct sim_options){
        .n_models = pick(w, 1, chance(w, 50) ? 2 : SIM_MODELS_MAX),
        .n_requests = pick(w, 4, SIM_REQUESTS_MAX),
        .span_ns = pick(w, 1, 20000) * SIM_MS,
        .burst_percent = pick(w, 0, 90),
        .cancel_percent = chance(w, 50) ? pick(w, 1, 40) : 0,
        .load_only_percent = chance(w, 20) ? 10 : 0,
        .slow_prompt_percent = chance(w, 40) ? pick(w, 1, 50) : 0,
        .load_ns_max = pick(w, 1, chance(w, 70) ? 100 : 4000) * SIM_MS,
        .load_fail_percent = chance(w, 20) ? 15 : 0,
        .map_fail_percent = chance(w, 10) ? pick(w, 1, 10) : 0,
        .n_limit_changes = chance(w, 25) ? pick(w, 1, 6) : 0,
        .n_crashes = chance(w, 25) ? pick(w, 1, 3) : 0,
        .n_forgets = chance(w, 15) ? 1 : 0,
        .n_expires = chance(w, 20) ? pick(w, 1, 3) : 0,
        .same_percent = pick(w, 0, 100),
        .num_ctx_max = pick(w, 80, SIM_TOKENS_MAX),
        .short_keep_alive = chance(w, 70),
        .draft_percent = chance(w, 70) ? pick(w, 1, 100) : 0,
        .draft_right_percent = pick(w, 0, 100),
        .draft_model_percent = chance(w, 50) ? pick(w, 1, 100) : 0,
    };
    for (u32 i = 0; i < o->n_models; i++)
        draw_model(w, i);
    draw_config(w);
    for (u32 i = 0; i < SIM_BASES; i++)
        for (u32 k = 0; k < SIM_TOKENS_MAX; k++)
            w->bases[i][k] = random_below(&w->random, 6);
    for (u32 i = 0; i < o->n_requests; i++) {
        draw_request(w, i);
        sim_event_add(w, w->requests[i].arrival_ns, SIM_ARRIVE, i, 0);
        if (w->requests[i].cancel_ns)
            sim_event_add(w, w->requests[i].cancel_ns, SIM_CANCEL, i, 0);
    }
    draw_disturbances(w);
}
