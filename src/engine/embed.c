/* embed.c - from inputs to tokens, and from rows to vectors. */
#include "engine/embed.h"

#include "base/clock.h"
#include "base/limit.h"

/* ---------------------------------------------------------------- preparation */

/* Takes the middle out of tokens start..n-1: special tokens around the text stay. */
static enum status cut_input(struct token_list *t, u32 start, u32 limit, u32 head, u32 tail,
                             struct err *err) {
    if (limit <= head + tail)
        return err_set(err, ERR_INVALID, "input after truncation exceeds maximum context length");
    u32 keep = start + limit - tail;
    memmove(t->ids + keep, t->ids + t->n - tail, tail * sizeof *t->ids);
    t->n = start + limit;
    return OK;
}

static enum status add_ids(struct request *q, const struct gen_input *in, struct err *err) {
    u32 n_vocab = tokenizer_n_vocab(q->slot->tokenizer);
    for (u32 i = 0; i < in->n_ids; i++) {
        if (in->ids[i] >= n_vocab)
            return err_set(err, ERR_INVALID, "token %u is outside the vocabulary of %u", in->ids[i], n_vocab);
        token_list_add(&q->embed.tokens, in->ids[i]);
    }
    return OK;
}

/* Most tokens of one input. */
static u32 input_limit(const struct request *q) {
    u32 n = MIN(q->r->num_ctx, q->slot->n_ctx_train);
    return q->slot->encoder ? MIN(n, LIMIT_ENCODER_TOKENS) : n;
}

static enum status add_input(struct request *q, u32 index, const struct tokenize_options *o, u32 n_special,
                             struct err *err) {
    const struct gen_input *in = &q->r->inputs[index];
    struct token_list *t = &q->embed.tokens;
    u32 start = t->n, limit = input_limit(q);
    if (in->n_ids)
        TRY(add_ids(q, in, err));
    else
        tokenize(q->slot->tokenizer, q->tokenize_scratch, in->text, *o, t);
    if (t->n == start)
        return err_set(err, ERR_INVALID, "input %u is empty", index);
    if (t->n - start > limit) {
        u32 head = n_special && tokenizer_adds_bos(q->slot->tokenizer), tail = n_special - head;
        if (!q->r->truncate)
            return err_set(err, ERR_INVALID, "the input length exceeds the context length");
        q->counts.n_dropped += t->n - start - limit;
        TRY(cut_input(t, start, limit, in->n_ids ? 0 : head, in->n_ids ? 0 : tail, err));
    }
    q->embed.ends[index] = t->n;
    return OK;
}

enum status embed_prepare(struct request *q, struct err *err) {
    struct tokenize_options o = {.parse_special = true, .add_special = true};
    struct token_list special = {0};
    u32 n = q->r->n_inputs;
    if (n == 0)
        return err_set(err, ERR_INVALID, "there is no input");
    tokenize(q->slot->tokenizer, q->tokenize_scratch, STR_NONE, o, &special);
    u32 n_special = special.n;
    token_list_release(&special);
    q->embed.ends = ARENA_ARRAY(&q->arena, u32, n);
    for (u32 i = 0; i < n; i++)
        TRY(add_input(q, i, &o, n_special, err));
    q->embed.vector = ARENA_ARRAY(&q->arena, f32, q->slot->n_vector_max);
    q->counts.n_prompt = q->embed.tokens.n;
    return OK;
}

/* The tokens of input i. */
static const u32 *input_tokens(const struct request *q, u32 i, u32 *n) {
    u32 start = i ? q->embed.ends[i - 1] : 0;
    *n = q->embed.ends[i] - start;
    return q->embed.tokens.ids + start;
}

struct sched_prompt embed_sched_prompt(const struct request *q) {
    const struct embed *m = &q->embed;
    if (q->slot->encoder)
        return (struct sched_prompt){.tokens = m->tokens.ids,
                                     .n_tokens = m->tokens.n,
                                     .predict_max = 1,
                                     .num_ctx = m->tokens.n + 1,
                                     .ends = m->ends,
                                     .n_ends = q->r->n_inputs};
    struct sched_prompt p = {.predict_max = 1, .every_row = q->slot->pooling == POOLING_MEAN};
    u32 longest = 0;
    for (u32 i = 0; i < q->r->n_inputs; i++) {
        u32 n;
        input_tokens(q, i, &n);
        longest = MAX(longest, n);
    }
    p.tokens = input_tokens(q, m->n_done, &p.n_tokens);
    p.predict_max += longest - p.n_tokens;
    p.num_ctx = longest + 1;
    return p;
}

/* The current input has its vector. */
static void send_vector(struct request *q, u32 n_vector, struct sched_result *res, embed_send_fn *send,
                        void *ctx) {
    struct gen_event e = {.request_id = q->id,
                          .kind = GEN_VECTOR,
                          .input = q->embed.n_done++,
                          .vector = q->embed.vector,
                          .n_vector = n_vector};
    send(ctx, &e);
    if (q->embed.n_done < q->r->n_inputs)
        return;
    res->outcome = SCHED_FINISH;
    q->first_token_ns = clock_ns();
    request_done_event(q, GEN_STOP, q->first_token_ns, &e);
    send(ctx, &e);
    q->done = true;
}

/* ---------------------------------------------------------------- encoders */

/* Inputs of an item: from the first that is not done to where its tokens end. */
static u32 item_inputs(const struct embed_item *it) {
    u32 n = 0, end = it->pos0 + it->n_tokens, first = it->q->embed.n_done;
    check(it->pos0 == (first ? it->q->embed.ends[first - 1] : 0));
    while (first + n < it->q->r->n_inputs && it->q->embed.ends[first + n] <= end)
        n++;
    check(n > 0 && it->q->embed.ends[first + n - 1] == end);
    return n;
}

void embed_run(struct slot *s, struct team *team, struct model_scratch *scratch,
               const struct embed_item *items, u32 n_items) {
    struct model_input inputs[LIMIT_STEP_INPUTS];
    u32 n = 0;
    for (u32 i = 0; i < n_items; i++) {
        u32 count = item_inputs(&items[i]), first = items[i].q->embed.n_done;
        check(n + count <= LIMIT_STEP_INPUTS);
        for (u32 k = 0; k < count; k++, n++)
            inputs[n].tokens = input_tokens(items[i].q, first + k, &inputs[n].n);
    }
    model_encode(s->model, team, scratch, inputs, n);
}

void embed_collect(struct slot *s, struct model_scratch *scratch, const struct embed_item *items, u32 n_items,
                   struct sched_result *results, embed_send_fn *send, void *ctx) {
    u32 at = 0;
    for (u32 i = 0; i < n_items; i++)
        for (u32 count = item_inputs(&items[i]); count; count--, at++) {
            model_pool(s->model, scratch, at, s->pooling, items[i].q->embed.vector);
            send_vector(items[i].q, model_info(s->model)->n_out, &results[i], send, ctx);
        }
}

/* ---------------------------------------------------------------- generating models */

void embed_row(struct request *q, const f32 *hidden, u32 pos, struct sched_result *res, embed_send_fn *send,
               void *ctx) {
    struct embed *m = &q->embed;
    const struct model *model = q->slot->model;
    u32 n, n_embd = model_info(model)->n_embd;
    input_tokens(q, m->n_done, &n);
    /* A request that was parked comes by the same rows again. */
    if (q->slot->pooling == POOLING_MEAN && pos == m->n_summed) {
        if (pos == 0)
            memset(m->vector, 0, n_embd * sizeof *m->vector);
        model_mean_add(model, m->vector, hidden);
        m->n_summed++;
    }
    if (pos + 1 < n)
        return;
    if (q->slot->pooling == POOLING_MEAN)
        model_mean_finish(model, m->vector, n);
    else
        memcpy(m->vector, hidden, n_embd * sizeof *m->vector);
    m->n_summed = 0;
    send_vector(q, n_embd, res, send, ctx);
    if (res->outcome == SCHED_FINISH)
        return;
    res->outcome = SCHED_SHIFT;
    res->tokens = input_tokens(q, m->n_done, &res->n_tokens);
}
