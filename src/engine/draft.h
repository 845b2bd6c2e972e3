/* draft.h - guesses what a request's tokens go on with: what followed the last time that the same three
 * tokens stood in a row, in the prompt or in the answer ("prompt lookup"). Answers that quote, edit or sum up
 * their prompt repeat long stretches of it. A guess costs nothing but rows of a step (sched/draft.c) and
 * never changes an answer: what was guessed is kept only where the sampler draws the same. */
#ifndef MINKA_DRAFT_H
#define MINKA_DRAFT_H

#include "base/base.h"

struct draft;

/* For sequences of about n_tokens. */
struct draft *draft_new(u32 n_tokens) MUST_USE;
void draft_free(struct draft *d);
/* Guesses what follows tokens[0..n-1], at most max tokens into out; returns how many. The sequence may have
 * grown since the last call; if it has changed otherwise, draft_reset comes first. Allocates nothing. */
u32 draft_guess(struct draft *d, const u32 *tokens, u32 n, u32 max, u32 *out);
void draft_reset(struct draft *d);

#endif
