/* requests.c - the life of one request between the wire and the scheduler. */
#include "engine/embed.h"

#include <stdlib.h>

#include "base/limit.h"
#include "chat/answer.h"

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
    draft_free(q->draft);
    stream_free(q->stream);
    constraint_close(&q->constraint);
    if (q->stream)
        slot_release_tokenizer(q->slot);
    output_free(q->output);
    token_list_release(&q->tags);
    token_list_release(&q->embed.tokens);
    buf_release(&q->text);
    arena_release(&q->arena);
    free(q);
}

/* --- preparation, on a thread of its own --- */

/* Does the prompt end with the opening tag of thoughts, white space aside? */
static bool begins_with_thought(const struct request *q, const struct template_style *style) {
    struct str text = buf_str(&q->prompt.rendered);
    while (text.n && str_trim(str_slice(text, text.n - 1, text.n)).n == 0)
        text.n--;
    return q->r->form == GEN_FORM_CHAT && style->can.thinking && str_ends(text, style->think_open);
}

/* Tags may be made of control tokens, which are hidden otherwise. */
static void add_tag(struct request *q, struct str tag) {
    struct token_list ids = {0};
    const struct tokenizer *t = q->slot->tokenizer;
    tokenize(t, q->tokenize_scratch, tag, (struct tokenize_options){.parse_special = true}, &ids);
    for (u32 i = 0; i < ids.n; i++)
        if (tokenizer_is_control(t, ids.ids[i]))
            token_list_add(&q->tags, ids.ids[i]);
    token_list_release(&ids);
}

/* What splits the answer, where the template says that there may be something to split. */
static enum status prepare_output(struct request *q, const struct template_style *style, struct err *err) {
    const struct gen_request *r = q->r;
    bool tools = r->tools.n && r->tool_choice != GEN_TOOLS_NONE;
    if (r->form != GEN_FORM_CHAT || !(tools || style->can.thinking))
        return OK;
    if (tools)
        TRY(chat_tools_read(r->tools, &q->arena, &q->tools, err));
    const u32 *ids = q->prompt.ids.ids;
    struct output_config c = {
        .style = style,
        .tools = q->tools.n ? &q->tools : NULL,
        .think = style->can.thinking,
        .think_hidden = r->think == GEN_THINK_OFF,
        .think_begun = begins_with_thought(q, style),
        .calls_max = r->single_call                         ? 1
                     : r->tool_choice == GEN_TOOLS_REQUIRED ? LIMIT_CALLS_DEMANDED
                                                            : 0,
        .id_seed = hash_bytes(ids, q->prompt.ids.n * sizeof *ids, r->sampling.seed),
    };
    q->output = output_new(&c);
    const struct str tags[] = {style->think_open, style->think_close, style->call_open, style->call_close,
                               style->call_other, STR("[ARGS]"),      STR("[CALL_ID]")};
    for (u32 i = c.think ? 0 : 2; i < (c.tools ? ARRAY_LEN(tags) : 2); i++)
        add_tag(q, tags[i]);
    return OK;
}

/* The grammar of the answer, if the request asks for one. */
static enum status prepare_constraint(struct request *q, const struct template_style *style,
                                      struct err *err) {
    const struct gen_request *r = q->r;
    const struct answer_config c = {r, q->slot->tokenizer, style, &q->tools, begins_with_thought(q, style)};
    const struct grammar_part *part;
    TRY(answer_grammar(&c, &q->arena, &part, err));
    return r->render_only || !part ? OK : constraint_open(&q->constraint, q->slot->grammars, part, err);
}

/* t: the request's template or the model's, NULL: none. */
static enum status prepare_with(struct request *q, const struct chat_template *t, struct err *err) {
    static const struct template_style plain;
    const struct template_style *style = t ? template_style(t) : &plain;
    struct chat_model m = {q->slot->tokenizer, t};
    TRY(chat_render(&m, q->tokenize_scratch, q->r, &q->arena, &q->prompt, err));
    TRY(prepare_output(q, style, err));
    return prepare_constraint(q, style, err);
}

/* A model's TEMPLATE layer comes with each request and is compiled anew: that takes 6 us for one of 1 kB. */
static enum status prepare(struct request *q, struct err *err) {
    struct chat_template *own;
    if (q->r->form == GEN_FORM_EMBED)
        return embed_prepare(q, err);
    if (q->slot->encoder)
        return err_set(err, ERR_INVALID, "\"%s\" does not support generate", q->slot->name);
    if (q->r->chat_template.n == 0)
        return prepare_with(q, q->slot->chat_template, err);
    TRY(template_open(q->r->chat_template, TEMPLATE_GO, &own, err));
    enum status status = prepare_with(q, own, err);
    template_close(own);
    return status;
}

static void run_prepare(struct job *job) {
    struct request *q = CONTAINER(job, struct request, job);
    q->error = (struct err){0};
    q->error.status = prepare(q, &q->error);
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
    if (r->form == GEN_FORM_EMBED)
        return OK;
    if (q->prompt.ids.n == 0 && !r->render_only)
        return err_set(err, ERR_INVALID, "the prompt is empty");
    q->counts.n_prompt = q->prompt.ids.n;
    q->counts.n_dropped = q->prompt.n_dropped;
    q->tokens = q->prompt.ids;
    q->prompt.ids = (struct token_list){0};
    q->sampler = sampler_new(&r->sampling, tokenizer_n_vocab(q->slot->tokenizer));
    slot_hold_tokenizer(q->slot);
    if (r->draft_max)
        q->draft = draft_new(q->tokens.n + MIN(r->num_predict, r->num_ctx));
    q->stream = stream_new(q->slot->tokenizer, r->stop, r->n_stop, false);
    stream_show(q->stream, q->tags.ids, q->tags.n);
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
    if (q->r->form == GEN_FORM_EMBED)
        return embed_sched_prompt(q);
    return (struct sched_prompt){
        .tokens = q->tokens.ids,
        .n_tokens = q->tokens.n,
        .predict_max = q->r->num_predict - MIN(q->n_output, q->r->num_predict),
        .num_ctx = q->r->num_ctx,
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
    if (q->draft)
        draft_reset(q->draft);
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

/* Piece i of what the current token released. */
static void event_piece(const struct request *q, u32 i, struct gen_event *e) {
    static const enum gen_event_kind kinds[] = {GEN_TEXT, GEN_THINK, GEN_TOOL};
    struct output_piece p = output_piece_at(q->output, i);
    e->kind = kinds[p.kind];
    e->text = p.text;
    e->tool = p.call;
}

bool request_more(const struct request *q, u32 i, struct gen_event *e) {
    if (!q->output || i + 1 >= output_n_pieces(q->output))
        return false;
    *e = (struct gen_event){.request_id = q->id};
    event_piece(q, i + 1, e);
    return true;
}

/* Text, and what it is. */
static void event_text(struct request *q, bool over, struct gen_event *e) {
    e->text = buf_str(&q->text);
    if (!q->output)
        return;
    output_push(q->output, e->text, over);
    e->text = STR_NONE;
    if (output_n_pieces(q->output))
        event_piece(q, 0, e);
}

enum sched_outcome request_token(struct request *q, const struct sampler_pick *pick, struct gen_event *e,
                                 enum gen_done_reason *reason) {
    const struct gen_request *r = q->r;
    bool end = tokenizer_is_end(q->slot->tokenizer, pick->token);
    bool stopped = false, complete = constraint_token(&q->constraint, pick->token);
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
    bool over = end || stopped || complete || spent || (full && !r->shift);
    if (over && !stopped)
        stream_finish(q->stream, &q->text);
    /* The id of an end token is no part of the answer's text, but of what a resumption replays. */
    *e = (struct gen_event){.request_id = q->id,
                            .kind = GEN_TEXT,
                            .ids = end ? NULL : &q->tokens.ids[q->tokens.n - 1],
                            .n_ids = end ? 0 : 1};
    event_text(q, over, e);
    if (q->output && output_full(q->output))
        over = stopped = true; /* whatever the model would say behind the last call */
    if (r->logprobs && !end)
        event_logprobs(q, pick, e);
    if (over) {
        *reason = end || stopped || complete ? GEN_STOP : GEN_LENGTH;
        return SCHED_FINISH;
    }
    if (!full)
        return SCHED_MORE;
    shift_context(q);
    e->ids = &q->tokens.ids[q->tokens.n - 1];
    return SCHED_SHIFT;
}

u32 request_guess(struct request *q, u32 *out) {
    u32 n = q->draft
                ? draft_guess(q->draft, q->tokens.ids, q->tokens.n, MIN(q->r->draft_max, LIMIT_DRAFT), out)
                : 0;
    struct grammar_run run = {0};
    u32 n_kept = 0;
    if (n > 0 && q->constraint.grammar)
        grammar_run_copy(&q->constraint.run, &run);
    /* Nothing follows an end, and what the grammar forbids is not drawn. */
    while (n_kept < n && !tokenizer_is_end(q->slot->tokenizer, out[n_kept]) &&
           (!run.g || grammar_run_accept(&run, out[n_kept])))
        n_kept++;
    grammar_run_release(&run);
    return n_kept;
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
