/* sampler.h - from logits to a token, for one sequence.
 *
 * The random number is Philox4x32-10 of (seed, position), position = tokens generated before this one:
 * a draw depends on nothing else, so that slicing, parking, speculation or a restart change nothing.
 * Order: penalties, then (temperature <= 0: argmax, lowest id wins ties) top_k, typical_p, top_p, min_p,
 * temperature, draw. Ties in sorting are broken by the lower id.
 * State is what was accepted, so that snapshot and rollback are a length. */
#ifndef MINKA_SAMPLER_H
#define MINKA_SAMPLER_H

#include "gen/gen.h"
#include "kern/kern.h"

struct sampler;

/* Copies p. n_vocab bounds every token id. */
struct sampler *sampler_new(const struct gen_sampling *p, u32 n_vocab) MUST_USE;
void sampler_free(struct sampler *s);
/* A token that penalties look back on: the prompt's (before sampling) and each accepted one. */
void sampler_accept(struct sampler *s, u32 token);
/* Length of the accepted history; sampler_rollback returns to it (to a length not above the current). */
u32 sampler_snapshot(const struct sampler *s);
void sampler_rollback(struct sampler *s, u32 snapshot);

struct sampler_pick {
    u32 token;
    f32 logprob; /* under the untouched logits (before penalties and temperature) */
    u32 n_top;
    struct {
        u32 token;
        f32 logprob;
    } top[20]; /* best first, untouched logits */
};

/* Chooses a token. logits [n_vocab] are not changed. position: see above. mask (may be NULL): bit t of
 * mask[t / 32] allows token t; at least one bit is set. n_top 0..20 alternatives in out; want_logprob
 * false skips that work. scratch: sampler_scratch_bytes(n_vocab), any thread. Does not accept. */
void sampler_pick(struct sampler *s, const struct kern *k, const f32 *logits, u32 position, const u32 *mask,
                  u32 n_top, bool want_logprob, void *scratch, struct sampler_pick *out);
size_t sampler_scratch_bytes(u32 n_vocab);

#endif
