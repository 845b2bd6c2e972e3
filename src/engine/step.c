/* step.c - a step: one forward pass over the planned rows, then draws, tile by tile of logits. */
#include "engine/own.h"

#include "base/clock.h"
#include "base/limit.h"

/* An item of the step from which tokens are drawn. */
struct drawing {
    struct request *q;
    const struct sched_item *item;
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
        engine_send(en, &e);
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
        engine_send(en, &e);
    for (u32 i = 0; request_more(q, i, &e); i++)
        engine_send(en, &e);
    if (res->outcome == SCHED_FINISH) {
        request_done_event(q, reason, now, &e);
        engine_send(en, &e);
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
static void send_embedded(void *ctx, const struct gen_event *e) { engine_send(ctx, e); }

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
    d->item = it;
    d->settled = false;
    for (u32 i = 0; i < it->n_logits; i++) {
        rows[i].d = d;
        rows[i].pos = it->pos0 + it->n_tokens - it->n_logits + i;
        rows[i].guess = i < it->n_drafts ? &guesses[i] : NULL;
    }
    return it->n_logits;
}

/* Reports a step; requests that it finished go. */
static void step_done(struct engine *en, u64 start_ns, struct sched_step step) {
    struct sched_event e = {.kind = SCHED_STEP, .now_ns = clock_ns(), .step = step};
    e.step.duration_ns = e.now_ns - start_ns;
    sched_event(en->sched, &e);
    for (u32 i = 0; i < step.n_results; i++)
        if (step.results[i].outcome == SCHED_FINISH)
            engine_drop(en, request_find(&en->requests, step.results[i].request_id));
    if (e.now_ns - en->state_sent_ns > STATE_EVERY_NS)
        engine_send_state(en);
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
        engine_fail_model(en, s);
    step_done(en, start, (struct sched_step){.results = results, .n_results = plan->n_items});
}

/* Rows from first on that are handled together: all drawn from, or all embedded. */
static u32 rows_alike(const struct sampled *rows, u32 first, u32 n_rows) {
    u32 n = 1;
    while (first + n < n_rows && n < MODEL_LOGITS_TILE && embeds(rows[first + n].d) == embeds(rows[first].d))
        n++;
    return n;
}

/* --- guesses of what follows --- */

/* From each request's own text; asks the draft model for those that it shall guess for. Returns for how many.
 */
static u32 guess_from_text(struct drawing *drawings, u32 n, struct draft_ask *asks, struct drawing **asking) {
    u32 n_asks = 0;
    for (u32 i = 0; i < n; i++) {
        struct drawing *d = &drawings[i];
        struct sched_result *res = d->result;
        if (res->outcome != SCHED_MORE)
            continue;
        res->draft = d->draft;
        res->n_draft = request_guess(d->q, d->draft);
        u32 n_wanted = MIN(d->item->n_wanted, d->q->r->draft_max);
        if (n_wanted == 0 || (res->n_draft > 0 && d->item->text_first))
            continue;
        asks[n_asks] = (struct draft_ask){.tokens = d->q->tokens.ids,
                                          .n_tokens = d->q->tokens.n,
                                          .n_wanted = n_wanted,
                                          .tokenizer = d->q->slot->tokenizer,
                                          .grammar = d->q->constraint.grammar ? &d->q->constraint.run : NULL};
        asking[n_asks++] = d;
    }
    return n_asks;
}

/* The draft model's file is damaged: its own requests fail, those that it guesses for go on without it. */
static void fail_draft(struct engine *en, struct slot *s) {
    engine_fail_model(en, s);
    sched_event(en->sched,
                &(struct sched_event){.kind = SCHED_FORGET, .now_ns = clock_ns(), .model_id = s->model_id});
}

/* The passes of the draft model. What was drawn is sent before: nobody waits for guesses. */
static void guess_with(struct engine *en, struct slot *s, struct draft_ask *asks, u32 n,
                       struct drawing *const *asking, struct sched_step *step) {
    struct draft_tools t = {en->team, en->scratch, en->model_config.kern, en->sampler_scratch, en->masks};
    check(s && s->state == SLOT_LOADED);
    struct err ignored; /* a connection that is lost is found by the loop */
    if (wire_flush(en->conn, &ignored) != OK)
        return;
    u64 start = clock_ns();
    if (!s->draft)
        s->draft = draft_model_new(s->model, s->draft_bytes, s->rope_ctx);
    struct draft_cost cost = draft_model_guess(s->draft, &t, asks, n);
    step->draft_ns = clock_ns() - start;
    step->n_draft_passes = cost.n_passes;
    step->n_draft_rows = cost.n_rows;
    if (slot_verify(s) != OK) {
        fail_draft(en, s);
        return;
    }
    for (u32 i = 0; i < n; i++) {
        struct sched_result *res = asking[i]->result;
        if (asks[i].n_guesses == 0)
            continue;
        memcpy(asking[i]->draft, asks[i].guesses, asks[i].n_guesses * sizeof(u32));
        res->n_draft = asks[i].n_guesses;
        res->drafted = true;
    }
}

static void guess(struct engine *en, u32 draft_id, struct drawing *drawings, u32 n, struct sched_step *step) {
    static struct draft_ask asks[LIMIT_RUNNING];
    static struct drawing *asking[LIMIT_RUNNING];
    if (en->settings.speculation == SPECULATION_OFF)
        return;
    u32 n_asks = guess_from_text(drawings, n, asks, asking);
    if (n_asks > 0)
        guess_with(en, engine_slot(en, draft_id), asks, n_asks, asking, step);
}

void engine_step(struct engine *en, const struct sched_plan *plan) {
    static struct model_span spans[LIMIT_STEP_ROWS];
    static struct sched_result results[LIMIT_STEP_ROWS];
    static struct drawing drawings[LIMIT_RUNNING];
    static struct sampled rows[LIMIT_STEP_ROWS];
    struct slot *s = engine_slot(en, plan->model_id);
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
    struct sched_step step = {.results = results, .n_results = plan->n_items};
    if (intact == OK)
        guess(en, plan->draft_id, drawings, n_drawings, &step);
    else
        engine_fail_model(en, s);
    step_done(en, start, step);
}
