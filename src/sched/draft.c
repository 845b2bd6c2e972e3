/* draft.c - which guessed tokens get a row of a step, and how many a draft model shall guess.
 *
 * A step of n rows takes base + n * per_row and gives E tokens. One more row that gives g tokens makes it
 * faster per token if g / per_row > E / (base + n * per_row). The j-th draft of a request gives a token if it
 * and all before it come true: p^j, p being how often this request's guesses came true. While a step is bound
 * by reading the weights a row is cheap, and a fair guess pays; when it is bound by compute, none does. p
 * costs nothing to learn: each draw shows whether the guess that lay there would have come true.
 *
 * The guesses of a draft model cost passes of that model besides, of one row for each request: k guesses for
 * each of n requests take k passes and n * k rows, and give n * (p + ... + p^k) tokens. That k is wanted
 * which gives the most tokens per time; it is 0 where none gives more than going on without. */
#include "sched/internal.h"

/* What is expected of a request that nothing is known of: as if this many guesses had been looked at... */
#define TRIED_FIRST 2.0
/* ...of which so many came true. */
#define AGREED_FIRST 1.0
/* ...and of those of a draft model, that somebody has chosen. */
#define AGREED_FIRST_MODEL 1.5
/* An observation counts half after about 10. */
#define DRAFT_FADE 0.93
/* Of guesses that aren't made nothing is learned; what is known fades, half in about 70 tokens, until they
 * are worth another try: those of a draft model while it isn't asked, those from the text while it is. */
#define UNASKED_FADE 0.99
/* Rows of a step with drafts: one tile of logits. The next row would read the output matrix once more, and
 * from about there on steps are bound by compute. */
#define DRAFT_ROWS_MAX 16u
/* A row must promise this much more than it costs: rows that are sampled cost more than the average row. */
#define DRAFT_MARGIN 1.25

/* ---------------------------------------------------------------- how often guesses come true */

static f64 chance_after(const struct chance *c, f64 agreed_first) {
    return (agreed_first + c->agreed) / (TRIED_FIRST + c->tried);
}

static f64 chance_of(const struct sreq *r, bool drafted) {
    return chance_after(&r->chances[drafted], drafted ? AGREED_FIRST_MODEL : AGREED_FIRST);
}

static void learn(struct chance *c, bool agreed) {
    c->tried = c->tried * DRAFT_FADE + 1;
    c->agreed = c->agreed * DRAFT_FADE + agreed;
}

static void forget(struct chance *c) {
    c->tried *= UNASKED_FADE;
    c->agreed *= UNASKED_FADE;
}

void sdraft_learn(struct sreq *r, u32 n_drafts, const struct sched_result *res) {
    struct chance *c = &r->chances[r->drafted];
    for (u32 i = 0; i < res->n_agreed; i++)
        learn(c, true);
    if (res->n_agreed < n_drafts)
        learn(c, false); /* those behind the first that failed say nothing */
    else if (n_drafts == 0 && r->n_draft > 0 && res->outcome == SCHED_MORE && res->n_tokens > 0)
        learn(c, res->tokens[0] == r->tokens[r->n_tokens]);
}

void sdraft_take(struct sreq *r, const struct sched_result *res) {
    check(res->n_draft <= LIMIT_DRAFT);
    r->n_draft = res->n_draft;
    r->drafted = res->drafted;
    if (r->n_draft == 0)
        return;
    sreq_tokens_fit(r, r->n_draft);
    memcpy(r->tokens + r->n_tokens, res->draft, r->n_draft * sizeof *res->draft);
}

bool sdraft_text_first(const struct sreq *r) {
    /* Unknown: as good as those, and free. */
    return chance_after(&r->chances[false], AGREED_FIRST_MODEL) >= chance_of(r, true);
}

static f64 power(f64 p, u32 n) {
    f64 product = 1;
    while (n-- > 0)
        product *= p;
    return product;
}

/* ---------------------------------------------------------------- drafts of this step */

/* How many of r's drafts may be verified: they fit its length, and pages for them are there or free. */
static u32 drafts_possible(const struct sched *s, struct sreq *r) {
    u32 n = MIN(r->n_draft, r->tokens_max - MIN(r->tokens_max, r->n_tokens + 1));
    if (s->config.draft_force)
        n = MIN(n, s->config.draft_force);
    return n > 0 && kv_seq_reserve(&r->kv, r->n_tokens + n) ? n : 0;
}

/* Rows and expected tokens of the step so far. */
struct step_size {
    u32 n_rows;
    f64 n_expected;
};

/* The draft behind those that p has already. */
static bool add_draft(struct sched *s, const struct scost *c, struct planned *p, struct step_size *size) {
    struct sreq *r = p->request;
    if (r->n_draft <= p->n_drafts)
        return false;
    f64 gain = power(chance_of(r, r->drafted), p->n_drafts + 1);
    bool pays = gain * scost_step_ns(c, size->n_rows) > DRAFT_MARGIN * size->n_expected * c->per_row_ns;
    if (!pays && !s->config.draft_force)
        return false;
    if (p->n_drafts == 0)
        r->n_draft = drafts_possible(s, r);
    if (r->n_draft <= p->n_drafts)
        return false;
    p->n_drafts++;
    size->n_rows++;
    size->n_expected += gain;
    return true;
}

static void add_drafts(struct sched *s, const struct smodel *m) {
    struct step_size size = {s->n_planned, s->n_planned};
    u32 rows_max = s->config.draft_force ? MIN(s->config.rows_max, LIMIT_RUNNING) : DRAFT_ROWS_MAX;
    bool added = m->cost.per_row_ns > 0;
    for (u32 n = 0; added && n < LIMIT_DRAFT; n++) { /* each gets its n-th before anybody gets one more */
        added = false;
        for (u32 i = 0; i < s->n_planned && size.n_rows < rows_max; i++)
            if (s->planned[i].n_drafts == n && add_draft(s, &m->cost, &s->planned[i], &size))
                added = true;
    }
}

/* ---------------------------------------------------------------- guesses for the next step */

const struct smodel *sdraft_model(const struct sched *s, const struct smodel *m) {
    const struct smodel *d = m->draft_id ? smodel_find(s, m->draft_id) : NULL;
    return d && d != m && d->drafts && d->state == MODEL_LOADED && !d->closing && !d->forgotten ? d : NULL;
}

void sdraft_charge(struct sched *s, const struct smodel *m, const struct sched_step *step) {
    s->n_draft_passes_total += step->n_draft_passes;
    s->draft_ns_total += step->draft_ns;
    struct smodel *d = step->n_draft_passes ? smodel_find(s, m->draft_id) : NULL;
    if (!d)
        return;
    scost_add(&d->cost, DIV_CEIL(step->n_draft_rows, step->n_draft_passes),
              step->draft_ns / step->n_draft_passes);
    d->used_ns = s->now_ns;
}

/* A pass of d over n rows; before the first one it is taken to be as much shorter as d is smaller than m. */
static f64 pass_ns(const struct smodel *m, const struct smodel *d, u32 n_rows) {
    if (d->cost.w > 0)
        return scost_step_ns(&d->cost, n_rows);
    return scost_step_ns(&m->cost, n_rows) * (f64)d->info.weights_bytes / (f64)m->info.weights_bytes;
}

static bool may_ask(const struct smodel *m, const struct sreq *r) {
    return r->draft_id == m->draft_id && r->tokens_max - MIN(r->tokens_max, r->n_tokens) > 2;
}

/* Guesses for each of the n that may ask which give the most tokens per time. */
static u32 guesses_worth(const struct sched *s, const struct smodel *m, const struct smodel *d, u32 n) {
    u32 best = 0;
    f64 n_expected = s->n_planned, base_ns = scost_step_ns(&m->cost, s->n_planned);
    f64 each_ns = pass_ns(m, d, n) + DRAFT_MARGIN * n * m->cost.per_row_ns;
    f64 best_rate = n_expected / base_ns;
    for (u32 k = 1; k <= LIMIT_DRAFT && s->n_planned + n * k <= DRAFT_ROWS_MAX; k++) {
        for (u32 i = 0; i < s->n_planned; i++)
            if (may_ask(m, s->planned[i].request))
                n_expected += power(chance_of(s->planned[i].request, true), k);
        f64 rate = n_expected / (base_ns + k * each_ns);
        if (rate > best_rate) {
            best_rate = rate;
            best = k;
        }
    }
    return best;
}

static void want_guesses(struct sched *s, const struct smodel *m, const struct smodel *d) {
    u32 n = 0;
    for (u32 i = 0; i < s->n_planned; i++)
        n += may_ask(m, s->planned[i].request);
    if (n == 0 || m->cost.per_row_ns <= 0)
        return;
    u32 worth = s->config.draft_force ? s->config.draft_force : guesses_worth(s, m, d, n);
    for (u32 i = 0; i < s->n_planned; i++) {
        struct sreq *r = s->planned[i].request;
        if (!may_ask(m, r))
            continue;
        s->planned[i].n_wanted = MIN(worth, r->tokens_max - r->n_tokens - 2);
        if (worth == 0 || r->drafted)
            forget(&r->chances[worth == 0]);
    }
}

void sdraft_plan(struct sched *s, const struct smodel *m) {
    const struct smodel *d = sdraft_model(s, m);
    for (u32 i = 0; i < s->n_planned; i++)
        if (s->planned[i].request->state != REQUEST_DECODE)
            return; /* a prompt fills the step */
    add_drafts(s, m);
    if (d)
        want_guesses(s, m, d);
}

/* ---------------------------------------------------------------- its memory */

/* Beside all that run, in their full length: what helps a few must not park one of many. */
static bool fits_beside_all(const struct sched *s, u64 bytes) {
    u64 kv = 0;
    for (u32 i = 0; i < s->n_models; i++)
        for (const struct sreq *r = s->models[i]->running.first; r; r = r->next)
            kv += kv_plan_extent_bytes(&r->model->info.layout, r->tokens_max);
    kv = MAX(kv, kv_pool_pinned_extent_bytes(s->pool));
    return sledger_booked_bytes(s) + kv + bytes <= s->memory_limit_bytes;
}

/* What it made room for a moment ago may come again. */
static bool left_lately(const struct sched *s, const struct smodel *d) {
    return d->gave_way_ns && s->now_ns - d->gave_way_ns < smodel_residency_ns(s);
}

void sdraft_drop(struct sched *s, const struct smodel *d) {
    for (u32 i = 0; i < s->n_models; i++)
        if (s->models[i]->draft_id == d->info.model_id)
            s->models[i]->draft_id = 0;
}

struct smodel *sdraft_book(struct sched *s) {
    if (s->n_waiting > 0 || s->room_for || smodel_in_transit(s))
        return NULL;
    for (u32 i = 0; i < s->n_models; i++) {
        const struct smodel *m = s->models[i];
        struct smodel *d = m->draft_id && m->running.n > 0 ? smodel_find(s, m->draft_id) : NULL;
        if (!d || d == m || d->drafts || d->forgotten || d->info.encoder || left_lately(s, d))
            continue;
        bool loaded = d->state == MODEL_LOADED;
        if (!fits_beside_all(s, d->info.draft_bytes + (loaded ? 0 : smodel_cost_bytes(d))))
            continue;
        d->drafts = true;
        if (!loaded)
            return d;
        sledger_evict(s, d);
    }
    return NULL;
}

bool sdraft_close(struct sched *s) {
    for (u32 i = 0; i < s->n_models; i++) {
        struct smodel *d = s->models[i];
        if (!d->drafts || d->running.n + d->waiting.n > 0 || d->state == MODEL_LOADING)
            continue;
        if (d->state == MODEL_LOADED && !d->closing)
            smodel_close(s, d);
        return true;
    }
    return false;
}
