/* requests.h - one request inside the engine: prompt preparation, what a sampled token means, events.
 * The scheduler knows when it runs; this knows what it says. */
#ifndef MINKA_REQUESTS_H
#define MINKA_REQUESTS_H

#include "chat/chat.h"
#include "chat/output.h"
#include "engine/constraint.h"
#include "engine/draft.h"
#include "engine/slots.h"
#include "model/sampler.h"
#include "sched/sched.h"
#include "tokenize/stream.h"

/* Of a request that wants vectors (embed.h). */
struct embed {
    struct token_list tokens; /* of all inputs, one behind the other */
    u32 *ends;                /* [n_inputs] where each ends */
    u32 n_done;               /* inputs whose vectors are sent */
    u32 n_summed;             /* mean of a generating model: rows of the current input that are in vector */
    f32 *vector;
};

struct request {
    u64 id;
    struct request *next; /* in its hash chain */
    struct slot *slot;
    struct arena arena; /* everything of the request, r too */
    const struct gen_request *r;
    i64 keep_alive_ns;

    struct job job;                            /* preparation; runs at most once */
    struct tokenize_scratch *tokenize_scratch; /* the preparing thread's */
    bool preparing;
    bool gone;        /* cancelled while preparing: freed when the job comes back */
    struct err error; /* of the preparation */
    struct chat_prompt prompt;
    struct chat_tools tools;
    struct output *output; /* NULL: all text is visible text */
    struct token_list tags; /* control tokens that output wants to see */

    struct embed embed;

    struct sampler *sampler;
    struct stream *stream;
    struct constraint constraint;
    struct token_list tokens; /* the sequence as the scheduler knows it */
    struct draft *draft;      /* NULL: nothing is guessed */
    struct token_list all;    /* prompt and answer, for the old `context` field */
    struct buf text;          /* released by the current token */
    u32 n_output;             /* = the position of the next draw */
    u64 hash;                 /* over the logits of all sampled positions */
    struct gen_counts counts;
    u64 started_ns, first_token_ns;
    bool done; /* its last event is sent; it goes when the step is reported */
};

/* Takes what the arena holds; the arena belongs to the request from now on. */
struct request *request_new(struct arena *arena, const struct wire_generate *g) MUST_USE;
void request_free(struct request *q); /* not while preparing */
/* Queues the rendering and tokenizing; the slot is loaded and stays so until request_prepared. */
void request_prepare(struct request *q, struct slot *slot, struct jobs *prep, struct tokenize_scratch *s);
/* The job is back: OK, or why there is no prompt. Builds sampler and stream, replays a resumed answer. */
enum status request_prepared(struct request *q, struct err *err) MUST_USE;
/* What the scheduler needs to know. */
struct sched_prompt request_sched_prompt(const struct request *q);

/* A token was drawn for the next position: appends it, fills the event (TEXT, THINK or TOOL; valid until the next
 * call) and says what follows. One token may release more than one event can say: request_more gives the others,
 * i from 0, until it returns false. On SCHED_FINISH *reason is set and the event holds the last text. On SCHED_SHIFT
 * q->tokens is the new sequence. */
enum sched_outcome request_token(struct request *q, const struct sampler_pick *pick, struct gen_event *e,
                                 enum gen_done_reason *reason);
/* A guess of what follows q->tokens, for the scheduler: at most LIMIT_DRAFT tokens into out. */
u32 request_guess(struct request *q, u32 *out);
bool request_more(const struct request *q, u32 i, struct gen_event *e);
/* The final event; counts are completed. */
void request_done_event(struct request *q, enum gen_done_reason reason, u64 now_ns, struct gen_event *e);

/* --- all requests of the engine, by id --- */
struct request_table {
    struct request *chains[1024];
    u32 n;
};
struct request *request_find(const struct request_table *t, u64 id);
void request_add(struct request_table *t, struct request *q);
void request_remove(struct request_table *t, struct request *q);

#endif
