/* draft.c - which guessed tokens get a row of a step.
 *
 * A step of n rows takes base + n * per_row and gives E tokens. One more row that gives g tokens makes it
 * faster per token if g / per_row > E / (base + n * per_row). The j-th draft of a request gives a token if it
 * and all before it come true: p^j, p being how often this request's guesses came true. While a step is bound
 * by reading the weights a row is cheap, and a fair guess pays; when it is bound by compute, none does. p
 * costs nothing to learn: each draw shows whether the guess that lay there would have come true. */
#include "sched/internal.h"

/* What is expected of a request that nothing is known of: as if this many guesses had been looked at... */
#define TRIED_FIRST 2.0
/* ...of which so many came true. */
#define AGREED_FIRST 1.0
/* An observation counts half after about 10. */
#define DRAFT_FADE 0.93
/* Rows of a step with drafts: one tile of logits. The next row would read the output matrix once more, and
 * from about there on steps are bound by compute. */
#define DRAFT_ROWS_MAX 16u
/* A row must promise this much more than it costs: rows that are sampled cost more than the average row. */
#define DRAFT_MARGIN 1.25

static void learn(struct sreq *r, bool agreed) {
    r->drafts_tried = r->drafts_tried * DRAFT_FADE + 1;
    r->drafts_agreed = r->drafts_agreed * DRAFT_FADE + agreed;
}

void sdraft_learn(struct sreq *r, u32 n_drafts, const struct sched_result *res) {
    for (u32 i = 0; i < res->n_agreed; i++)
        learn(r, true);
    if (res->n_agreed < n_drafts)
        learn(r, false); /* those behind the first that failed say nothing */
    else if (n_drafts == 0 && r->n_draft > 0 && res->outcome == SCHED_MORE && res->n_tokens > 0)
        learn(r, res->tokens[0] == r->tokens[r->n_tokens]);
}

void sdraft_take(struct sreq *r, const u32 *draft, u32 n) {
    check(n <= LIMIT_DRAFT);
    r->n_draft = n;
    if (n == 0)
        return;
    sreq_tokens_fit(r, n);
    memcpy(r->tokens + r->n_tokens, draft, n * sizeof *draft);
}

/* Probability that the first n drafts come true. */
static f64 draft_gain(const struct sreq *r, u32 n) {
    f64 p = (AGREED_FIRST + r->drafts_agreed) / (TRIED_FIRST + r->drafts_tried), gain = 1;
    while (n-- > 0)
        gain *= p;
    return gain;
}

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
    f64 gain = draft_gain(r, p->n_drafts + 1);
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

void sdraft_plan(struct sched *s, const struct smodel *m) {
    struct step_size size = {s->n_planned, s->n_planned};
    u32 rows_max = s->config.draft_force ? MIN(s->config.rows_max, LIMIT_RUNNING) : DRAFT_ROWS_MAX;
    for (u32 i = 0; i < s->n_planned; i++)
        if (s->planned[i].request->state != REQUEST_DECODE)
            return; /* a prompt fills the step */
    bool added = m->cost.per_row_ns > 0;
    for (u32 n = 0; added && n < LIMIT_DRAFT; n++) { /* each gets its n-th before anybody gets one more */
        added = false;
        for (u32 i = 0; i < s->n_planned && size.n_rows < rows_max; i++)
            if (s->planned[i].n_drafts == n && add_draft(s, &m->cost, &s->planned[i], &size))
                added = true;
    }
}
