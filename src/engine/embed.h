/* embed.h - requests that want vectors instead of an answer.
 *
 * A request is a list of inputs. An encoder's scheduler item is a run of whole inputs; a generating model reads
 * them one after another, each as a sequence of its own. Every vector is an event as soon as it is there. */
#ifndef MINKA_EMBED_H
#define MINKA_EMBED_H

#include "engine/requests.h"

/* Tokenizes the inputs and cuts what is too long; on the preparing thread. ERR_INVALID: an input that is empty, too
 * long, or has ids outside the vocabulary. */
enum status embed_prepare(struct request *q, struct err *err) MUST_USE;
struct sched_prompt embed_sched_prompt(const struct request *q);

/* An encoder's step: runs the items and sends their vectors. results: [n_items]. */
typedef void embed_send_fn(void *ctx, struct request *q, const struct gen_event *e);
struct embed_item {
    struct request *q;
    u32 pos0, n_tokens; /* in the tokens of all its inputs */
};
void embed_run(struct slot *s, struct team *team, struct model_scratch *scratch, const struct embed_item *items,
               u32 n_items);
/* Vectors of the items of the last embed_run, in their order. */
void embed_collect(struct slot *s, struct model_scratch *scratch, const struct embed_item *items, u32 n_items,
                   embed_send_fn *send, void *ctx);

/* A generating model's hidden row at a position of the current input. True if the input is complete: e is its
 * vector (valid until the next row) and the next input is the current one. */
bool embed_row(struct request *q, const f32 *hidden, u32 pos, struct gen_event *e);
/* All inputs have their vectors. */
static inline bool embed_done(const struct request *q) { return q->embed.n_done == q->r->n_inputs; }
/* The tokens of input i. */
const u32 *embed_input(const struct request *q, u32 i, u32 *n);

#endif
