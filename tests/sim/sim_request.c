/* sim_request.c - the fake model: what it computes, and what therefore must come out. */
#include "sim.h"

static u64 word_next(u64 before, u32 token) { return hash_bytes(&token, sizeof token, before); }
/* A group's pages hold their own words. */
static u64 word_in_group(u64 word, u32 group) { return word + group; }

#define TOKEN_END 99u

static u32 token_of(u64 word) { return word % 61 == 0 ? TOKEN_END : (u32)(word >> 8) % 6; }

/* The sequence is full: its first few tokens and the newest half of the rest. */
static u32 shift_tokens(const u32 *tokens, u32 n, u32 *out) {
    u32 keep = MIN(n / 8, 5u), half = (n - keep) / 2;
    memmove(out, tokens, keep * sizeof(u32));
    memmove(out + keep, tokens + n - half, half * sizeof(u32));
    return keep + half;
}

static u64 word_of(const u32 *tokens, u32 n) {
    u64 word = 0;
    for (u32 i = 0; i < n; i++)
        word = word_next(word, tokens[i]);
    return word;
}

static void token_push(struct sim_request *r, u32 token) {
    r->words[r->n_tokens] = word_next(r->n_tokens ? r->words[r->n_tokens - 1] : 0, token);
    r->tokens[r->n_tokens++] = token;
}

static void tokens_set(struct sim_request *r, const u32 *tokens, u32 n) {
    r->n_tokens = 0;
    for (u32 i = 0; i < n; i++)
        token_push(r, tokens[i]);
}

/* Whether the request ends with n_output tokens of which the last is token, its sequence being n long. */
static bool ends(const struct sim_request *r, u32 token, u32 n_output, u32 n) {
    return token == TOKEN_END || n_output >= r->predict_max || (n > r->num_ctx && !r->shifts);
}

static void compute_alone(struct sim_request *r) {
    u32 tokens[SIM_TOKENS_MAX + 1], n = r->n_prompt;
    memcpy(tokens, r->prompt, n * sizeof(u32));
    for (r->n_expected = 0;;) {
        u32 token = token_of(word_of(tokens, n));
        r->expected[r->n_expected++] = token;
        tokens[n++] = token;
        if (ends(r, token, r->n_expected, n))
            return;
        if (n > r->num_ctx)
            n = shift_tokens(tokens, n, tokens);
    }
}

/* Cuts the prompt into inputs. What an input gives depends on its own tokens alone. */
static void draw_inputs(struct sim *w, struct sim_request *r) {
    u32 longest = 1 + random_below(&w->random, random_percent(&w->random, 70) ? 20 : SIM_TOKENS_MAX);
    r->n_ends = r->n_expected = 0;
    r->num_ctx = r->n_prompt + 1;
    r->predict_max = 1;
    for (u32 at = 0; at < r->n_prompt;) {
        u32 n = 1 + random_below(&w->random, longest);
        n = MIN(n, r->n_prompt - at);
        r->expected[r->n_expected++] = token_of(word_of(r->prompt + at, n));
        r->ends[r->n_ends++] = at += n;
    }
}

void sim_request_draw(struct sim *w, struct sim_request *r) {
    u32 ctx_min = 40;
    r->num_ctx = ctx_min + random_below(&w->random, w->o.num_ctx_max - ctx_min);
    r->n_prompt = 1 + random_below(&w->random, r->num_ctx - 1);
    r->predict_max = 1 + random_below(&w->random, random_percent(&w->random, 50) ? 20 : 200);
    r->shifts = random_percent(&w->random, 40);
    u32 same = random_percent(&w->random, w->o.same_percent) ? random_below(&w->random, SIM_TOKENS_MAX) : 0;
    const u32 *base = w->bases[random_below(&w->random, SIM_BASES)];
    for (u32 i = 0; i < r->n_prompt; i++)
        r->prompt[i] = i < same ? base[i] : random_below(&w->random, 6);
    tokens_set(r, r->prompt, r->n_prompt);
    r->every_row = random_percent(&w->random, 10);
    if (w->models[r->model].info.encoder)
        draw_inputs(w, r);
    else
        compute_alone(r);
}

/* ---------------------------------------------------------------- a step's item */

static u64 *words_at(struct sim *w, const struct kv_seq *q, u32 group, u32 pos) {
    return &fake_memory_words(&w->memory, q->tables[group].pages[pos / KV_PAGE_TOKENS])[pos % KV_PAGE_TOKENS];
}

/* Every position that the item's rows see holds what this sequence's own tokens give. */
static void check_context(struct sim *w, const struct sim_request *r, const struct sched_item *item) {
    const struct kv_layout *l = &w->models[r->model].info.layout;
    for (u32 g = 0; g < l->n_groups; g++) {
        u32 window = l->groups[g].window, from = 0;
        if (window && item->pos0 >= window)
            from = item->pos0 - window + 1;
        for (u32 p = from; p < item->pos0; p++)
            check(*words_at(w, item->seq, g, p) == word_in_group(r->words[p], g));
    }
}

static void compute_rows(struct sim *w, const struct sim_request *r, const struct sched_item *item) {
    const struct kv_layout *l = &w->models[r->model].info.layout;
    for (u32 g = 0; g < l->n_groups; g++)
        for (u32 i = 0; i < item->n_tokens; i++) {
            u32 p = item->pos0 + i;
            u64 before = p && l->groups[g].window != 1 ? *words_at(w, item->seq, g, p - 1) - g : 0;
            *words_at(w, item->seq, g, p) = word_in_group(word_next(before, item->tokens[i]), g);
        }
}

/* A guess of what follows, right here and there. */
static u32 draft_make(struct sim *w, const struct sim_request *r, u32 *draft) {
    u32 n = random_below(&w->random, LIMIT_DRAFT + 1);
    if (!random_percent(&w->random, w->o.draft_percent))
        return 0;
    for (u32 i = 0; i < n; i++) {
        u32 at = r->n_output + i;
        bool right = at < r->n_expected && random_percent(&w->random, w->o.draft_right_percent);
        draft[i] = right ? r->expected[at] : random_below(&w->random, 6);
    }
    return n;
}

/* Draws one token behind the sequence; what it means goes to res. */
static void draw(struct sim *w, struct sim_request *r, u32 token, struct sched_result *res, u32 *tokens) {
    r->output[r->n_output++] = token;
    tokens[0] = token;
    res->n_tokens = 1;
    if (ends(r, token, r->n_output, r->n_tokens + 1)) {
        res->outcome = SCHED_FINISH;
    } else if (r->n_tokens == r->num_ctx) {
        u32 full[SIM_TOKENS_MAX + 1];
        memcpy(full, r->tokens, r->n_tokens * sizeof(u32));
        full[r->n_tokens] = token;
        res->outcome = SCHED_SHIFT;
        res->n_tokens = shift_tokens(full, r->n_tokens + 1, tokens);
        tokens_set(r, tokens, res->n_tokens);
        w->counts->n_shifts++;
    } else {
        token_push(r, token);
    }
}

/* Whole inputs, from the first that is not done. */
static void inputs_run(struct sim *w, struct sim_request *r, const struct sched_item *item,
                       struct sched_result *res) {
    u32 at = item->pos0, first = r->n_output;
    check(item->seq == NULL && item->n_logits == 0 && item->n_drafts == 0 && item->n_tokens > 0);
    check(at == (first ? r->ends[first - 1] : 0));
    check(memcmp(item->tokens, r->tokens + at, item->n_tokens * sizeof(u32)) == 0);
    for (u32 i = first; at < item->pos0 + item->n_tokens; i++) {
        check(i < r->n_ends);
        r->output[r->n_output++] = token_of(word_of(item->tokens + (at - item->pos0), r->ends[i] - at));
        at = r->ends[i];
    }
    check(at == item->pos0 + item->n_tokens); /* none is cut */
    w->counts->n_inputs += r->n_output - first;
    *res = (struct sched_result){.request_id = r->id,
                                 .outcome = r->n_output == r->n_ends ? SCHED_FINISH : SCHED_MORE};
}

void sim_item_run(struct sim *w, struct sim_request *r, const struct sched_item *item,
                  struct sched_result *res, u32 *tokens) {
    if (w->models[r->model].info.encoder) {
        inputs_run(w, r, item, res);
        return;
    }
    u32 n_known = item->n_tokens - item->n_drafts, end = item->pos0 + n_known;
    u32 n_draws = end == r->n_tokens ? 1 + item->n_drafts : 0;
    check(n_known > 0 && n_known <= item->n_tokens && end <= r->n_tokens && r->n_tokens <= r->num_ctx);
    check(item->n_logits == (r->every_row ? item->n_tokens : n_draws));
    check(end + item->n_drafts <= r->num_ctx);
    check(item->seq->n_tokens == item->pos0);
    check(memcmp(item->tokens, r->tokens + item->pos0, n_known * sizeof(u32)) == 0);
    check_context(w, r, item);
    compute_rows(w, r, item);
    *res = (struct sched_result){.request_id = r->id, .outcome = SCHED_MORE, .tokens = tokens};
    if (!n_draws)
        return;
    for (u32 i = 0; i < n_draws; i++) {
        u32 token = token_of(*words_at(w, item->seq, 0, end - 1 + i));
        res->n_agreed = i;
        draw(w, r, token, res, tokens);
        if (res->outcome != SCHED_MORE || i == item->n_drafts || token != item->tokens[n_known + i])
            break;
    }
    w->counts->n_drafts += item->n_drafts;
    w->counts->n_drafts_agreed += res->n_agreed;
    if (res->outcome != SCHED_MORE)
        return;
    res->draft = tokens + 1;
    res->n_draft = draft_make(w, r, tokens + 1);
    res->drafted = item->n_wanted > 0 && random_percent(&w->random, 50);
}
