/* requests.c - the life of one request between the wire and the scheduler. */
#include "engine/requests.h"

#include <stdlib.h>

struct request *request_new(struct arena *arena, const struct wire_generate *g) {
    struct request *q = xcalloc(1, sizeof *q);
    struct gen_request *r;
    q->arena = *arena;
    r = ARENA_NEW(&q->arena, struct gen_request);
    *r = g->request;
    q->r = r;
    q->id = r->id;
    q->keep_alive_ns = g->keep_alive_ns;
    return q;
}

void request_free(struct request *q) {
    check(!q->preparing);
    chat_prompt_release(&q->prompt);
    token_list_release(&q->tokens);
    token_list_release(&q->all);
    sampler_free(q->sampler);
    stream_free(q->stream);
    buf_release(&q->text);
    arena_release(&q->arena);
    free(q);
}

/* The request's own template, where it brings one: Go, as the API defines it. */
static enum status own_template(struct request *q, struct chat_template **out) {
    *out = NULL;
    if (q->r->chat_template.n == 0)
        return OK;
    return template_open(q->r->chat_template, TEMPLATE_GO, out, &q->error);
}

static void run_prepare(struct job *job) {
    struct request *q = CONTAINER(job, struct request, job);
    struct chat_template *own;
    q->error = (struct err){0};
    q->error.status = own_template(q, &own);
    if (q->error.status != OK)
        return;
    struct chat_model m = {q->slot->tokenizer, own ? own : q->slot->chat_template};
    q->error.status = chat_render(&m, q->tokenize_scratch, q->r, &q->arena, &q->prompt, &q->error);
    template_close(own);
}

void request_prepare(struct request *q, struct slot *slot, struct jobs *prep, struct tokenize_scratch *s) {
    check(!q->preparing && slot->state == SLOT_LOADED);
    q->preparing = true;
    q->tokenize_scratch = s;
    q->job.run = run_prepare;
    slot->n_preparing++;
    jobs_push(prep, &q->job);
}

enum status request_prepared(struct request *q, struct err *err) {
    const struct gen_request *r = q->r;
    q->preparing = false;
    q->slot->n_preparing--;
    if (q->error.status != OK) {
        *err = q->error;
        return q->error.status;
    }
    if (q->prompt.ids.n == 0 && !r->render_only)
        return err_set(err, ERR_INVALID, "the prompt is empty");
    q->counts.n_prompt = q->prompt.ids.n;
    q->counts.n_dropped = q->prompt.n_dropped;
    q->tokens = q->prompt.ids;
    q->prompt.ids = (struct token_list){0};
    q->sampler = sampler_new(&r->sampling, tokenizer_n_vocab(q->slot->tokenizer));
    q->stream = stream_new(q->slot->tokenizer, r->stop, r->n_stop, false);
    for (u32 i = 0; i < q->tokens.n; i++)
        sampler_accept(q->sampler, q->tokens.ids[i]);
    if (r->want_context)
        for (u32 i = 0; i < q->tokens.n; i++)
            token_list_add(&q->all, q->tokens.ids[i]);
    for (u32 i = 0; i < r->n_resume; i++) {
        struct sampler_pick pick = {.token = r->resume[i]};
        struct gen_event ignored;
        enum gen_done_reason reason;
        if (request_token(q, &pick, &ignored, &reason) == SCHED_FINISH)
            return err_set(err, ERR_INTERNAL, "an answer that had ended was resumed");
    }
    return OK;
}

struct sched_prompt request_sched_prompt(const struct request *q) {
    return (struct sched_prompt){
        .tokens = q->tokens.ids,
        .n_tokens = q->tokens.n,
        .predict_max = q->r->num_predict - MIN(q->n_output, q->r->num_predict),
        .num_ctx = q->r->num_ctx,
        .n_resumed = q->r->n_resume,
        .load_only = q->r->load_only,
    };
}

/* num_keep (+ BOS) tokens stay in front, then the newest half of the rest: a new sequence. */
static void shift_context(struct request *q) {
    struct token_list *t = &q->tokens;
    u32 bos = tokenizer_adds_bos(q->slot->tokenizer);
    u32 keep = MIN(q->r->num_keep + bos, t->n / 2);
    u32 drop = MAX((t->n - keep) / 2, 1u);
    memmove(t->ids + keep, t->ids + keep + drop, sizeof *t->ids * (t->n - keep - drop));
    t->n -= drop;
}

/* Turns a pick and its alternatives into neutral logprobs in the arena-free storage of this thread. */
static void event_logprobs(struct request *q, const struct sampler_pick *pick, struct gen_event *e) {
    static struct gen_logprob top[ARRAY_LEN(pick->top)];
    static struct gen_logprobs entry;
    const struct tokenizer *t = q->slot->tokenizer;
    for (u32 i = 0; i < pick->n_top; i++)
        top[i] = (struct gen_logprob){pick->top[i].token, pick->top[i].logprob,
                                      tokenizer_bytes_of(t, pick->top[i].token, true)};
    entry.chosen = (struct gen_logprob){pick->token, pick->logprob, tokenizer_bytes_of(t, pick->token, true)};
    entry.top = top;
    entry.n_top = pick->n_top;
    e->logprobs = &entry;
    e->n_logprobs = 1;
}

enum sched_outcome request_token(struct request *q, const struct sampler_pick *pick, struct gen_event *e,
                                 enum gen_done_reason *reason) {
    const struct gen_request *r = q->r;
    bool end = tokenizer_is_end(q->slot->tokenizer, pick->token), stopped = false;
    buf_clear(&q->text);
    q->n_output++;
    if (!end) {
        token_list_add(&q->tokens, pick->token);
        if (r->want_context)
            token_list_add(&q->all, pick->token);
        sampler_accept(q->sampler, pick->token);
        stopped = stream_push(q->stream, pick->token, &q->text);
    }
    bool full = q->tokens.n >= r->num_ctx;
    bool spent = q->n_output >= r->num_predict;
    bool over = end || stopped || spent || (full && !r->shift);
    if (over && !stopped)
        stream_finish(q->stream, &q->text);
    /* The id of an end token is no part of the answer's text, but of what a resumption replays. */
    *e = (struct gen_event){.request_id = q->id,
                            .kind = GEN_TEXT,
                            .text = buf_str(&q->text),
                            .ids = end ? NULL : &q->tokens.ids[q->tokens.n - 1],
                            .n_ids = end ? 0 : 1};
    if (r->logprobs && !end)
        event_logprobs(q, pick, e);
    if (over) {
        *reason = end || stopped ? GEN_STOP : GEN_LENGTH;
        return SCHED_FINISH;
    }
    if (!full)
        return SCHED_MORE;
    shift_context(q);
    e->ids = &q->tokens.ids[q->tokens.n - 1];
    return SCHED_SHIFT;
}

void request_done_event(struct request *q, enum gen_done_reason reason, u64 now_ns, struct gen_event *e) {
    q->counts.n_output = q->n_output;
    if (q->started_ns && q->first_token_ns) {
        q->counts.prompt_ns = q->first_token_ns - q->started_ns;
        q->counts.output_ns = now_ns - q->first_token_ns;
    }
    *e = (struct gen_event){.request_id = q->id,
                            .kind = GEN_DONE,
                            .text = q->r->render_only ? buf_str(&q->prompt.rendered) : STR_NONE,
                            .reason = reason,
                            .counts = q->counts,
                            .context = q->all.ids,
                            .n_context = q->r->want_context ? q->all.n : 0,
                            .logits_hash = q->hash};
}

static struct request **chain_of(struct request_table *t, u64 id) {
    return &t->chains[id % ARRAY_LEN(t->chains)];
}

struct request *request_find(const struct request_table *t, u64 id) {
    struct request *q = t->chains[id % ARRAY_LEN(t->chains)];
    while (q && q->id != id)
        q = q->next;
    return q;
}

void request_add(struct request_table *t, struct request *q) {
    struct request **chain = chain_of(t, q->id);
    q->next = *chain;
    *chain = q;
    t->n++;
}

void request_remove(struct request_table *t, struct request *q) {
    struct request **at = chain_of(t, q->id);
    while (*at != q)
        at = &(*at)->next;
    *at = q->next;
    t->n--;
}
