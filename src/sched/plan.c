/* plan.c - steps: whose turn it is, how many rows, and what a step gave. */
#include "sched/internal.h"

#include <stdlib.h>

/* A step may take this much longer than its decoding rows alone, if that is above the target. */
#define STEP_STRETCH 1.5
/* Figures of speed look back over this much computing. */
#define RECENT_NS 5e9

/* ---------------------------------------------------------------- whose turn */

/* The runnable model that was charged the least computing; each is tried once per round. */
static struct smodel *next_turn(struct sched *s) {
    struct smodel *best = NULL;
    for (u32 i = 0; i < s->n_models; i++) {
        struct smodel *m = s->models[i];
        if (m->running.n == 0 || m->round == s->round || m->state != MODEL_LOADED)
            continue;
        if (!best || m->charged_ns < best->charged_ns)
            best = m;
    }
    if (best)
        best->round = s->round;
    return best;
}

/* ---------------------------------------------------------------- how much */

static bool model_decodes(const struct smodel *m) {
    for (const struct sreq *r = m->running.first; r; r = r->next)
        if (r->state == REQUEST_DECODE)
            return true;
    return false;
}

/* Prompt tokens beside n_decode rows. With decoding streams anywhere the models share the step target, and
 * a slice is no longer than efficiency asks; else it may take slice_target. */
static u32 slice_tokens(const struct sched *s, const struct smodel *m, u32 n_decode) {
    u32 n_active = 0, n_decoding = 0, n;
    for (u32 i = 0; i < s->n_models; i++) {
        n_active += s->models[i]->running.n > 0;
        n_decoding += model_decodes(s->models[i]);
    }
    if (n_decoding == 0) {
        n = scost_rows_within(&m->cost, (f64)s->config.slice_target_ns / MAX(n_active, 1u));
    } else {
        f64 target = (f64)s->config.step_target_ns / MAX(n_active, 1u);
        target = MAX(target, STEP_STRETCH * scost_step_ns(&m->cost, n_decode));
        n = scost_rows_within(&m->cost, target);
        n = MIN(n > n_decode ? n - n_decode : 0, scost_rows_efficient(&m->cost));
    }
    return MIN(MAX(n, SLICE_MIN), s->config.rows_max - n_decode);
}

/* ---------------------------------------------------------------- building a step */

void splanned_add(struct sched *s, struct sreq *r, u32 n_tokens) {
    if (s->n_planned == s->planned_cap) {
        s->planned_cap = s->planned_cap ? s->planned_cap * 2 : 64;
        s->planned = xrealloc(s->planned, s->planned_cap * sizeof *s->planned);
    }
    s->planned[s->n_planned++] = (struct planned){.request = r, .n_tokens = n_tokens};
}

static u32 add_decode_rows(struct sched *s, const struct smodel *m) {
    u32 n;
    struct sreq **list = slist_copy(s, &m->running, &n);
    for (u32 i = 0; i < n; i++)
        if (list[i]->state == REQUEST_DECODE && sroom_reserve(s, list[i], list[i]->n_tokens))
            splanned_add(s, list[i], 1);
    return s->n_planned;
}

/* Ready to compute, its pages open: not one that waits for what another is computing. */
static bool prompt_open(struct sched *s, struct sreq *r) {
    if (r->state != REQUEST_PREFILL)
        return false;
    if (r->follow && r->follow->kv.n_tokens < r->follow_tokens)
        return false;
    r->follow = NULL;
    if (r->every_row && !r->kv.space)
        kv_seq_open(&r->kv, r->model->space, r->tokens, 1, s->now_ns);
    else if (!r->kv.space)
        r->n_cached = kv_seq_open(&r->kv, r->model->space, r->tokens, r->n_tokens, s->now_ns);
    return true;
}

/* A slice ends where a follower wants to go on, while the pages of a window are there. */
static u32 cut_for_followers(const struct sreq *r, u32 n) {
    for (const struct sreq *f = r->next; f; f = f->next)
        if (f->follow == r && f->follow_tokens > r->kv.n_tokens)
            n = MIN(n, f->follow_tokens - r->kv.n_tokens);
    return n;
}

static void add_slices(struct sched *s, const struct smodel *m, u32 n_decode) {
    u32 n, n_open = 0, budget = slice_tokens(s, m, n_decode);
    struct sreq **list = slist_copy(s, &m->running, &n);
    for (u32 i = 0; i < n; i++)
        if (prompt_open(s, list[i]))
            list[n_open++] = list[i];
    if (s->config.slice_force)
        budget = s->config.rows_max - n_decode;
    for (u32 i = 0; i < n_open && budget > 0; i++) {
        struct sreq *r = list[i];
        if (r->state != REQUEST_PREFILL)
            continue; /* parked for an older one */
        u32 rest = r->n_tokens - r->kv.n_tokens;
        u32 share = s->config.slice_force ? s->config.slice_force : DIV_CEIL(budget, n_open - i);
        u32 take = cut_for_followers(r, MIN(MIN(share, rest), budget));
        if (!sroom_reserve(s, r, r->kv.n_tokens + take))
            continue;
        splanned_add(s, r, take);
        budget -= take;
    }
}

static void started(struct sched *s, struct sreq *r) {
    if (r->started)
        return;
    r->started = true;
    struct sched_notice *n = snotice_add(s, SCHED_NOTICE_STARTED, r->id);
    n->n_cached = r->n_cached;
    n->queue_ns = s->now_ns - r->arrived_ns;
    n->load_ns = r->model_ready_ns > r->arrived_ns ? r->model_ready_ns - r->arrived_ns : 0;
}

/* Later reservations may have parked earlier items. */
static void drop_parked(struct sched *s) {
    u32 n = 0;
    for (u32 i = 0; i < s->n_planned; i++)
        if (sreq_runs(s->planned[i].request))
            s->planned[n++] = s->planned[i];
    s->n_planned = n;
}

/* Rows of an item that somebody reads. */
static u32 rows_wanted(const struct sreq *r, u32 end, u32 n_tokens, u32 n_drafts) {
    if (r->model->info.encoder)
        return 0;
    if (r->every_row)
        return n_tokens;
    return end == r->n_tokens + n_drafts ? 1 + n_drafts : 0;
}

static void fill(struct sched *s, struct smodel *m, struct sched_plan *plan) {
    const struct smodel *draft = sdraft_model(s, m);
    if (s->n_planned > s->items_cap) {
        s->items_cap = s->planned_cap;
        s->items = xrealloc(s->items, s->items_cap * sizeof *s->items);
    }
    for (u32 i = 0; i < s->n_planned; i++) {
        struct sreq *r = s->planned[i].request;
        u32 n_drafts = s->planned[i].n_drafts, n = s->planned[i].n_tokens + n_drafts, pos0 = r->kv.n_tokens;
        s->items[i] = (struct sched_item){
            .request_id = r->id,
            .seq = m->info.encoder ? NULL : &r->kv,
            .tokens = r->tokens + pos0,
            .pos0 = pos0,
            .n_tokens = n,
            .n_drafts = n_drafts,
            .n_logits = rows_wanted(r, pos0 + n, n, n_drafts),
            .n_wanted = s->planned[i].n_wanted,
            .text_first = sdraft_text_first(r),
            .num_ctx = r->num_ctx,
        };
        plan->n_rows += n;
        started(s, r);
    }
    plan->kind = SCHED_PLAN_STEP;
    plan->model_id = m->info.model_id;
    plan->draft_id = draft ? draft->info.model_id : 0;
    plan->items = s->items;
    plan->n_items = s->n_planned;
}

bool splan_step(struct sched *s, struct sched_plan *plan) {
    s->round++;
    for (struct smodel *m; (m = next_turn(s));) {
        s->n_planned = 0;
        if (m->info.encoder)
            sinputs_plan(s, m, slice_tokens(s, m, 0));
        else
            add_slices(s, m, add_decode_rows(s, m));
        drop_parked(s);
        sdraft_plan(s, m);
        if (s->n_planned == 0)
            continue;
        fill(s, m, plan);
        check(plan->n_rows <= s->config.rows_max || (m->info.encoder && plan->n_items == 1));
        s->in_step = true;
        s->step_model = m;
        s->step_rows = plan->n_rows;
        s->charged_floor_ns = m->charged_ns;
        return true;
    }
    return false;
}

/* ---------------------------------------------------------------- what a step gave */

void sreq_tokens_fit(struct sreq *r, u32 n) {
    if (r->n_tokens + n <= r->tokens_cap)
        return;
    r->tokens_cap = MAX(r->n_tokens + n, r->tokens_cap + r->tokens_cap / 2);
    r->tokens = xrealloc(r->tokens, r->tokens_cap * sizeof(u32));
}

static void tokens_append(struct sreq *r, const u32 *tokens, u32 n) {
    if (n == 0)
        return; /* tokens may be NULL */
    sreq_tokens_fit(r, n);
    memcpy(r->tokens + r->n_tokens, tokens, n * sizeof(u32));
    r->n_tokens += n;
}

static void shift(struct sched *s, struct sreq *r, const struct sched_result *res) {
    check(res->n_tokens >= 1 && res->n_tokens <= r->num_ctx);
    kv_seq_close(&r->kv, r->tokens, true, s->now_ns);
    r->n_tokens = 0;
    tokens_append(r, res->tokens, res->n_tokens);
    r->tokens_max = MAX(r->tokens_max, r->n_tokens);
    if (r->state == REQUEST_DECODE)
        sreq_move(s, r, REQUEST_PREFILL);
    sfollow_drop(r);
}

static void apply(struct sched *s, const struct planned *p, const struct sched_result *res) {
    struct sreq *r = p->request;
    u32 n_agreed = r->dead ? 0 : res->n_agreed;
    check(res->request_id == r->id && n_agreed <= p->n_drafts);
    bool ended = r->kv.n_tokens + p->n_tokens == r->n_tokens;
    s->n_drafts_total += p->n_drafts;
    s->n_agreed_total += n_agreed;
    s->drafts_lost_ns_total += r->model->cost.per_row_ns * (p->n_drafts - n_agreed);
    if (!r->dead)
        sdraft_learn(r, p->n_drafts, res);
    /* Drafts lie behind the tokens: those that came true are tokens now. */
    r->n_tokens += n_agreed;
    r->kv.n_tokens += p->n_tokens + n_agreed;
    r->n_draft = ended ? 0 : r->n_draft;
    if (r->dead) {
        sreq_end(s, r, r->dead_keep);
        return;
    }
    if (r->model->info.encoder) {
        sinputs_done(r, p->n_tokens);
    } else {
        kv_seq_publish(&r->kv, r->tokens, r->kv.n_tokens, s->now_ns);
        kv_seq_trim(&r->kv);
    }
    switch (res->outcome) {
    case SCHED_MORE:
        check(ended == (res->n_tokens > 0));
        tokens_append(r, res->tokens, res->n_tokens);
        check(r->n_tokens <= r->num_ctx);
        r->tokens_max = MAX(r->tokens_max, r->n_tokens);
        r->run_tokens += n_agreed + res->n_tokens;
        s->tokens_recent += n_agreed + res->n_tokens;
        if (ended)
            sdraft_take(r, res);
        if (ended && r->state == REQUEST_PREFILL && r->n_tokens - r->kv.n_tokens == 1)
            sreq_move(s, r, REQUEST_DECODE);
        break;
    case SCHED_FINISH:
        s->tokens_recent += n_agreed + res->n_tokens;
        sreq_end(s, r, true);
        break;
    case SCHED_SHIFT:
        r->run_tokens += n_agreed + 1;
        s->tokens_recent += n_agreed + 1;
        shift(s, r, res);
        break;
    }
}

void splan_done(struct sched *s, const struct sched_step *step) {
    check(s->in_step && step->n_results == s->n_planned);
    struct smodel *m = s->step_model;
    f64 fade = 1 - MIN((f64)step->duration_ns / RECENT_NS, 1.0);
    s->tokens_recent *= fade;
    s->ns_recent = s->ns_recent * fade + (f64)step->duration_ns;
    s->in_step = false;
    s->n_steps_total++;
    s->n_rows_total += s->step_rows;
    s->steps_ns_total += step->duration_ns;
    scost_add(&m->cost, s->step_rows, step->duration_ns - step->draft_ns);
    sdraft_charge(s, m, step);
    m->charged_ns += (f64)step->duration_ns;
    m->used_ns = s->now_ns;
    for (u32 i = 0; i < s->n_planned; i++)
        apply(s, &s->planned[i], &step->results[i]);
    s->n_planned = 0;
}
