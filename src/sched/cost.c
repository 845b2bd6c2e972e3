/* cost.c - what steps cost, learned from their measured times; and rates. */
#include "sched/internal.h"

/* An observation counts half after about 35 steps. */
#define COST_FADE 0.98
/* Until steps of different sizes were seen, the base is taken for the cost of this many rows: one row
 * reads all weights, as many as eight do in about twice the time. */
#define COST_BASE_ROWS 8.0
/* Weight of that assumption against one observation. */
#define COST_PRIOR 0.1
/* A step that was interrupted (page faults, a busy machine) counts at most this many times its estimate. */
#define COST_OUTLIER 4.0
/* The last tenth of efficiency is not worth longer steps. */
#define COST_SLACK 0.1

void scost_add(struct scost *c, u32 n_rows, u64 duration_ns) {
    f64 x = n_rows, y = (f64)duration_ns;
    if (c->w > 4 && y > COST_OUTLIER * scost_step_ns(c, n_rows))
        y = COST_OUTLIER * scost_step_ns(c, n_rows);
    c->w = c->w * COST_FADE + 1;
    c->x = c->x * COST_FADE + x;
    c->y = c->y * COST_FADE + y;
    c->xx = c->xx * COST_FADE + x * x;
    c->xy = c->xy * COST_FADE + x * y;
    /* Least squares with one more term, COST_PRIOR * (base - COST_BASE_ROWS * per_row)^2. */
    f64 k = COST_BASE_ROWS, a = c->w + COST_PRIOR, b = c->x - COST_PRIOR * k, d = c->xx + COST_PRIOR * k * k;
    f64 det = a * d - b * b;
    c->base_ns = (c->y * d - c->xy * b) / det;
    c->per_row_ns = (c->xy * a - c->y * b) / det;
    if (c->per_row_ns <= 0 || c->base_ns < 0) {
        c->per_row_ns = c->y / (c->x + k * c->w);
        c->base_ns = k * c->per_row_ns;
    }
}

f64 scost_step_ns(const struct scost *c, u32 n_rows) { return c->base_ns + c->per_row_ns * n_rows; }

static u32 rows_of(f64 n) { return n < 1 ? 0 : n > LIMIT_STEP_ROWS ? LIMIT_STEP_ROWS : (u32)n; }

u32 scost_rows_within(const struct scost *c, f64 target_ns) {
    return c->per_row_ns > 0 ? rows_of((target_ns - c->base_ns) / c->per_row_ns) : SLICE_MIN;
}

u32 scost_rows_efficient(const struct scost *c) {
    return c->per_row_ns > 0 ? rows_of(c->base_ns / c->per_row_ns / COST_SLACK) : SLICE_MIN;
}

/* ---------------------------------------------------------------- rates */

void srate_add(struct srate *r, u64 now_ns) {
    r->at_ns[r->next] = now_ns;
    r->next = (r->next + 1) % RATE_N;
    r->n = MIN(r->n + 1, RATE_N);
}

/* Events since the oldest one remembered; time without events counts, so a queue that stands still slows. */
f64 srate_per_s(const struct srate *r, u64 now_ns) {
    if (r->n == 0)
        return 0;
    u64 oldest = r->at_ns[(r->next + RATE_N - r->n) % RATE_N];
    f64 seconds = (f64)(now_ns - oldest) / NS_PER_S;
    u32 gaps = MAX(r->n - 1, 1u);
    return seconds > 0 ? gaps / seconds : 0;
}
