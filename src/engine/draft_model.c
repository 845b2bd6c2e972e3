/* draft_model.c - runs of tokens with their KV, and the passes that lengthen them. */
#include "engine/draft_model.h"

#include <stdlib.h>

#include "model/sampler.h"

struct run {
    struct kv_seq seq;        /* seq.n_tokens positions are computed */
    struct token_list tokens; /* [seq.n_tokens] and maybe more */
    u64 used;
    bool taken; /* by a request of this call */
};

struct draft_model {
    struct model *model;
    const struct model_info *info;
    u32 num_ctx;
    struct kv_pool *pool;
    struct kv_space *space;
    struct run runs[LIMIT_DRAFT_RUNS];
    u64 now;
    struct sampler *sampler; /* greedy */
    u32 n_vocab;             /* of it: the ids that both vocabularies have */
};

/* A request of this call. */
struct lane {
    struct draft_ask *ask;
    struct run *run;
    u32 n_feed; /* tokens of the next pass */
    bool draws; /* the next pass ends its tokens */
    struct grammar_run grammar;
};

u64 draft_model_bytes(const struct kv_layout *l, u64 most) {
    u64 least = kv_plan_extent_bytes(l, 1);
    return MAX(least, MIN(most, kv_plan_extent_bytes(l, LIMIT_DRAFT_TOKENS)));
}

struct draft_model *draft_model_new(struct model *m, u64 bytes, u32 num_ctx) {
    struct draft_model *d = xcalloc(1, sizeof *d);
    d->model = m;
    d->info = model_info(m);
    d->num_ctx = num_ctx;
    d->pool = kv_pool_new(kv_memory_anonymous);
    kv_pool_limit(d->pool, bytes);
    d->space = kv_space_new(d->pool, &d->info->kv, 0);
    return d;
}

static void run_drop(struct run *r) {
    kv_seq_close(&r->seq, r->tokens.ids, false, 0);
    r->tokens.n = 0;
    r->used = 0;
}

void draft_model_free(struct draft_model *d) {
    if (!d)
        return;
    for (u32 i = 0; i < LIMIT_DRAFT_RUNS; i++) {
        run_drop(&d->runs[i]);
        token_list_release(&d->runs[i].tokens);
    }
    kv_space_free(d->space);
    kv_pool_free(d->pool);
    sampler_free(d->sampler);
    free(d);
}

u64 draft_model_mapped_bytes(const struct draft_model *d) { return d ? kv_pool_mapped_bytes(d->pool) : 0; }

/* --- runs --- */

/* Tokens of the run that the request has too; its last one is computed in any case. */
static u32 common_tokens(const struct run *r, const struct draft_ask *a) {
    u32 most = MIN(r->seq.n_tokens, a->n_tokens - 1), n = 0;
    while (n < most && r->tokens.ids[n] == a->tokens[n])
        n++;
    return n;
}

/* All of the run but guesses that were not drawn. */
static bool goes_on_from(const struct run *r, const struct draft_ask *a) {
    u32 n = r->seq.n_tokens, sure = n - MIN(n, LIMIT_DRAFT);
    return n > 0 && sure < a->n_tokens && memcmp(r->tokens.ids, a->tokens, sure * sizeof(u32)) == 0;
}

/* The one that was used least recently, of all or of those that hold pages; NULL: all are taken. */
static struct run *run_oldest(struct draft_model *d, bool with_pages) {
    struct run *best = NULL;
    for (u32 i = 0; i < LIMIT_DRAFT_RUNS; i++) {
        struct run *r = &d->runs[i];
        if (!r->taken && (r->seq.space || !with_pages) && (!best || r->used < best->used))
            best = r;
    }
    return best;
}

/* NULL: all are taken. */
static struct run *run_for(struct draft_model *d, const struct draft_ask *a) {
    struct run *best = NULL;
    u32 most = 0;
    for (u32 i = 0; i < LIMIT_DRAFT_RUNS; i++) {
        struct run *r = &d->runs[i];
        if (r->taken || !goes_on_from(r, a))
            continue;
        u32 n = common_tokens(r, a);
        if (n > most)
            best = r;
        most = MAX(n, most);
    }
    return best ? best : run_oldest(d, false);
}

/* Pages for all that the request's run may hold, also those of runs that nobody uses now. */
static bool run_reserve(struct draft_model *d, struct run *r, u32 n_tokens) {
    if (kv_plan_extent_bytes(&d->info->kv, n_tokens) > kv_pool_limit_bytes(d->pool))
        return false;
    while (!kv_seq_reserve(&r->seq, n_tokens)) {
        struct run *other = run_oldest(d, true);
        if (!other)
            return false;
        run_drop(other);
    }
    return true;
}

static bool ids_known(const struct draft_model *d, const u32 *ids, u32 n) {
    u32 n_vocab = d->info->n_vocab, most = 0;
    for (u32 i = 0; i < n; i++)
        most = MAX(most, ids[i]);
    return most < n_vocab;
}

/* False: the request gets no guesses. */
static bool lane_open(struct draft_model *d, struct draft_ask *a, u32 *n_read, struct lane *l) {
    u32 n = a->n_tokens + a->n_wanted;
    struct run *r = n <= d->info->n_ctx_train ? run_for(d, a) : NULL;
    if (!r)
        return false;
    if (!r->seq.space)
        kv_seq_open(&r->seq, d->space, a->tokens, 1, 0);
    r->seq.n_tokens = r->tokens.n = common_tokens(r, a);
    r->taken = true;
    r->used = ++d->now;
    u32 left = a->n_tokens - r->seq.n_tokens;
    *l = (struct lane){.ask = a, .run = r, .n_feed = MIN(left, *n_read)};
    l->draws = l->n_feed == left;
    if (l->n_feed == 0 || !ids_known(d, a->tokens + r->seq.n_tokens, l->n_feed) || !run_reserve(d, r, n))
        return false;
    *n_read -= l->n_feed;
    if (a->grammar)
        grammar_run_copy(a->grammar, &l->grammar);
    return true;
}

/* --- passes --- */

struct pick_work {
    struct draft_model *d;
    const struct draft_tools *t;
    struct lane **lanes;
    const f32 *logits;
};

/* The likeliest token of one lane that is allowed; l->draws: it may have another one. */
static void pick(void *arg, u32 i, u32 thread) {
    const struct pick_work *w = arg;
    struct lane *l = w->lanes[i];
    struct draft_ask *a = l->ask;
    struct sampler_pick p;
    struct err ignored;
    u32 *mask = l->grammar.g ? w->t->masks[thread] : NULL;
    l->draws = false;
    if (mask && grammar_run_mask(&l->grammar, mask, &ignored) != OK)
        return;
    sampler_pick(w->d->sampler, w->t->kern, w->logits + (size_t)i * w->d->info->n_vocab, 0, mask, 0, false,
                 w->t->sampler_scratch[thread], &p);
    if (tokenizer_is_end(a->tokenizer, p.token) || (mask && !grammar_run_accept(&l->grammar, p.token)))
        return;
    a->guesses[a->n_guesses++] = p.token;
    l->draws = a->n_guesses < a->n_wanted && !(mask && grammar_run_over(&l->grammar));
}

/* One pass over all lanes that have tokens to feed; leaves those with tokens for another one. */
static u32 pass(struct draft_model *d, const struct draft_tools *t, struct lane *lanes, u32 n_lanes) {
    struct model_span spans[LIMIT_DRAFT_RUNS];
    struct lane *drawing[LIMIT_DRAFT_RUNS];
    u32 n_spans = 0, n_rows = 0, n_drawing = 0;
    for (u32 i = 0; i < n_lanes; i++) {
        struct lane *l = &lanes[i];
        struct kv_seq *seq = &l->run->seq;
        struct draft_ask *a = l->ask;
        if (l->n_feed == 0)
            continue;
        const u32 *tokens = a->n_guesses ? &a->guesses[a->n_guesses - 1] : a->tokens + seq->n_tokens;
        for (u32 k = 0; k < l->n_feed; k++)
            token_list_add(&l->run->tokens, tokens[k]);
        spans[n_spans++] = (struct model_span){seq, tokens, seq->n_tokens, l->n_feed, l->draws, d->num_ctx};
        n_rows += l->n_feed;
        if (l->draws)
            drawing[n_drawing++] = l;
    }
    if (n_spans == 0)
        return 0;
    model_forward(d->model, t->team, t->scratch, spans, n_spans, 0, 0);
    for (u32 first = 0, n; first < n_drawing; first += n) {
        n = MIN(n_drawing - first, MODEL_LOGITS_TILE);
        struct pick_work w = {d, t, drawing + first, model_logits(d->model, t->team, t->scratch, first, n)};
        team_run(t->team, pick, &w, n);
    }
    for (u32 i = 0; i < n_lanes; i++) {
        lanes[i].run->seq.n_tokens += lanes[i].n_feed;
        lanes[i].n_feed = lanes[i].draws;
    }
    return n_rows;
}

struct draft_cost draft_model_guess(struct draft_model *d, const struct draft_tools *t,
                                    struct draft_ask *asks, u32 n) {
    struct lane lanes[LIMIT_DRAFT_RUNS];
    struct draft_cost cost = {0};
    u32 n_lanes = 0, n_read = LIMIT_DRAFT_READ;
    for (u32 i = 0; i < LIMIT_DRAFT_RUNS; i++)
        d->runs[i].taken = false;
    for (u32 i = 0; i < n; i++) {
        asks[i].n_guesses = 0;
        u32 n_vocab = MIN(d->info->n_vocab, tokenizer_n_vocab(asks[i].tokenizer));
        if (n_vocab != d->n_vocab) {
            sampler_free(d->sampler);
            d->sampler = sampler_new(&(struct gen_sampling){.repeat_penalty = 1}, n_vocab);
            d->n_vocab = n_vocab;
        }
        if (n_lanes < LIMIT_DRAFT_RUNS && lane_open(d, &asks[i], &n_read, &lanes[n_lanes]))
            n_lanes++;
    }
    for (u32 n_rows; (n_rows = pass(d, t, lanes, n_lanes)) > 0;) {
        cost.n_passes++;
        cost.n_rows += n_rows;
    }
    for (u32 i = 0; i < n_lanes; i++)
        grammar_run_release(&lanes[i].grammar);
    return cost;
}
