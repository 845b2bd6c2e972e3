/* draft_model.h - guesses of a draft model: a smaller model of the same vocabulary goes on with a request's
 * tokens, always with its likeliest token, for all requests of a step in one batch. As with the guesses of
 * draft.h (from the text alone) nothing but time depends on them.
 *
 * Its KV cache is its own: up to LIMIT_DRAFT_RUNS runs of tokens with their keys and values, in a pool whose
 * limit the ledger has booked (sched_model.draft_bytes). A request takes the run that its tokens go on from,
 * else the one that was used least recently; what the run holds behind the common beginning is overwritten.
 * So nothing has to be told when a request ends, is parked, shifts its context or has its guesses refused,
 * and the next turn of a conversation finds the run of the last one. */
#ifndef MINKA_DRAFT_MODEL_H
#define MINKA_DRAFT_MODEL_H

#include "base/limit.h"
#include "chat/grammar.h"
#include "model/model.h"

struct draft_model;

/* Most bytes that the cache of a model with this layout takes: for LIMIT_DRAFT_TOKENS, or what `most` holds.
 */
u64 draft_model_bytes(const struct kv_layout *l, u64 most);
/* bytes: as booked. num_ctx: chooses the rope variant where a family has two. m must outlive it. */
struct draft_model *draft_model_new(struct model *m, u64 bytes, u32 num_ctx) MUST_USE;
void draft_model_free(struct draft_model *d);
u64 draft_model_mapped_bytes(const struct draft_model *d);

/* A request that wants guesses. */
struct draft_ask {
    const u32 *tokens; /* [n_tokens], n_tokens >= 1 */
    u32 n_tokens;
    u32 n_wanted;                      /* 1..LIMIT_DRAFT */
    const struct tokenizer *tokenizer; /* of the target: no guess is an end token of it */
    const struct grammar_run *grammar; /* that the guesses must follow; NULL: none */
    u32 guesses[LIMIT_DRAFT];
    u32 n_guesses; /* 0: no room, too long, an id that the model does not know, or its prompt is still read */
};

/* What a pass needs of the engine: scratch that fits the draft model, buffers of each thread for n_vocab
 * values. */
struct draft_tools {
    struct team *team;
    struct model_scratch *scratch;
    const struct kern *kern;
    void **sampler_scratch, **masks;
};

struct draft_cost {
    u32 n_passes, n_rows;
};

/* One pass for each further guess. A request that was not seen before has its tokens read first, up to
 * LIMIT_DRAFT_READ of all requests in a call. */
struct draft_cost draft_model_guess(struct draft_model *d, const struct draft_tools *t,
                                    struct draft_ask *asks, u32 n);

#endif
