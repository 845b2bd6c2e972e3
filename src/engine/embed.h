/* embed.h - requests that want vectors instead of an answer.
 *
 * A request is a list of inputs. An encoder's scheduler item is a run of whole inputs; a generating model
 * reads them one after another, each as a sequence of its own. Every vector is an event as soon as it is
 * there. */
#ifndef MINKA_EMBED_H
#define MINKA_EMBED_H

#include "engine/requests.h"

/* Tokenizes the inputs and cuts what is too long; on the preparing thread. ERR_INVALID: an input that is
 * empty, too long, or has ids outside the vocabulary. */
enum status embed_prepare(struct request *q, struct err *err) MUST_USE;
struct sched_prompt embed_sched_prompt(const struct request *q);

/* Takes the events: a vector each, and the last one of a request that has all of them. */
typedef void embed_send_fn(void *ctx, const struct gen_event *e);

/* An encoder's step. */
struct embed_item {
    struct request *q;
    u32 pos0, n_tokens; /* in the tokens of all its inputs: whole inputs */
};
void embed_run(struct slot *s, struct team *team, struct model_scratch *scratch,
               const struct embed_item *items, u32 n_items);
/* What the last embed_run gave. Sets the outcomes of results [n_items]. */
void embed_collect(struct slot *s, struct model_scratch *scratch, const struct embed_item *items, u32 n_items,
                   struct sched_result *results, embed_send_fn *send, void *ctx);

/* A generating model's hidden row at a position of the current input. The last one completes the vector: then
 * the next input is the current one and takes the sequence's place in *res, or the request is finished. */
void embed_row(struct request *q, const f32 *hidden, u32 pos, struct sched_result *res, embed_send_fn *send,
               void *ctx);

#endif
