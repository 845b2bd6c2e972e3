/* inputs.c - steps of encoders: whole inputs, shared by deficit round robin (Shreedhar and Varghese 1995).
 *
 * In each step every request is credited with an equal share of the rows, and takes inputs while its credit
 * pays for them; what is left stays. Who has most credit goes first, so that one with long inputs, who has
 * saved up, finds the step empty. If nobody can pay, the one who is nearest to it goes into debt: a step is
 * never empty while there is work. Credit beyond a step and an input is lost: one whose steps are limited by
 * the number of inputs would gather so much that newcomers would wait for long. */
#include "sched/internal.h"

void sinputs_done(struct sreq *r, u32 n_tokens) {
    while (r->n_inputs_done < r->n_ends && r->ends[r->n_inputs_done] <= r->kv.n_tokens)
        r->n_inputs_done++;
    check(r->n_inputs_done > 0 && r->ends[r->n_inputs_done - 1] == r->kv.n_tokens);
    r->run_tokens += n_tokens;
}

static u32 input_length(const struct sreq *r, u32 input) {
    return r->ends[input] - (input ? r->ends[input - 1] : 0);
}

/* Inputs of r that its credit pays for, as rows; an input that is longer than the budget only into an empty
 * step. */
static u32 take_paid(struct sreq *r, u32 n_rows, u32 budget, u32 inputs_max, u32 *n_inputs) {
    u32 taken = 0;
    for (u32 i = r->n_inputs_done; i < r->n_ends && *n_inputs < inputs_max; i++) {
        u32 n = input_length(r, i);
        if (r->credit < n || (n_rows + taken > 0 && n_rows + taken + n > budget))
            break;
        r->credit -= n;
        taken += n;
        ++*n_inputs;
    }
    return taken;
}

static struct sreq *nearest(struct sreq *const *list, u32 n) {
    struct sreq *best = list[0];
    for (u32 i = 1; i < n; i++)
        if (list[i]->credit - input_length(list[i], list[i]->n_inputs_done) >
            best->credit - input_length(best, best->n_inputs_done))
            best = list[i];
    return best;
}

/* More credit; else who was planned longer ago. */
static bool goes_before(const struct sreq *a, const struct sreq *b) {
    return a->credit != b->credit ? a->credit > b->credit : a->planned_round < b->planned_round;
}

void sinputs_plan(struct sched *s, const struct smodel *m, u32 budget) {
    u32 n, n_rows = 0, n_inputs = 0, first = 0;
    struct sreq **list = slist_copy(s, &m->running, &n);
    if (n == 0)
        return;
    for (u32 i = 0; i < n; i++) {
        list[i]->credit += DIV_CEIL(budget, n);
        if (goes_before(list[i], list[first]))
            first = i;
    }
    for (u32 i = 0; i < n; i++) {
        struct sreq *r = list[(first + i) % n];
        u32 taken = take_paid(r, n_rows, budget, s->config.inputs_max, &n_inputs);
        if (taken) {
            splanned_add(s, r, taken);
            r->planned_round = s->round;
        }
        n_rows += taken;
    }
    for (u32 i = 0; i < n; i++)
        list[i]->credit = MIN(list[i]->credit, (i64)budget + list[i]->input_longest);
    if (n_rows > 0)
        return;
    struct sreq *r = nearest(list, n);
    u32 taken = input_length(r, r->n_inputs_done);
    r->credit -= taken;
    splanned_add(s, r, taken);
}
