/* sched.h - the scheduler: a pure state machine. Events go in, a plan comes out.
 *
 * No I/O, no clock, no threads, no globals: time comes with the events, memory through kv_memory, so the
 * engine and the simulator in the tests drive the very same code. It owns the queue, the running set,
 * the token lists, the KV pages and the memory ledger; it knows nothing of weights, text or sockets.
 *
 * A request's life (the only place that changes the state is sreq_move() in sched.c):
 *
 *   ARRIVE -> QUEUED --prompt ready, model loaded, room--> PREFILL -> DECODE -> gone
 *                ^                                            |          |
 *                +---- PARKED (pages given up; resumes first) <----------+     CANCEL: gone from anywhere
 *
 * A model's life:  KNOWN -> LOADING -> LOADED -> (idle, keep-alive over or room needed) UNLOADING -> KNOWN
 *
 * Rules:
 *  - FIFO per model is the order of admission; a parked request resumes before any new admission, in
 *    arrival order; the oldest running request is never parked for want of pages.
 *  - A request whose prompt isn't tokenized yet lets ready ones of its model pass.
 *  - Requests that share a beginning compute it once: the younger wait until the oldest has got that far.
 *  - A step is one pass of one model: first a row for every decoding request (all of them, always), then
 *    prompt slices of the admitted prompts, shared equally, of at least SLICE_MIN tokens in total, as
 *    many as the step target allows (from measured cost per row). Several models take turns.
 *  - The bound counts every waiting request: queued and parked ones, of all models; not one that is only
 *    being tokenized and can start then, because its model is loaded and has a place free.
 *  - Pages are taken as tokens arrive. Without room: evict cached pages, then park the youngest running
 *    request; a request that could never fit alone is refused on arrival of its prompt.
 *  - Speculation: where a step has no prompt to read, decoding requests take rows for tokens that are only
 *    guessed (drafts), as long as each such row is expected to give more tokens per time than the step does
 *    without it: by the measured cost of a row and by how often this request's guesses came true. So it ends
 *    by itself where steps are bound by compute. A guess never takes a page from anybody.
 *  - A draft model is a model that a request names as the one that may guess for it. It is loaded while its
 *    target runs, if it fits beside all that run in their full length and nobody waits; it pushes nobody out,
 *    goes before anybody is parked for want of pages, and stays no longer than its target. For each item the
 *    plan says how many of its guesses are worth their time: their chance against the measured cost of its
 *    passes and of the rows that verify them.
 *  - When the head of a model's queue has waited max_wait for its model, a resident model admits nobody, its
 *    running requests are parked, it is unloaded. A stay lasts at least max_wait / RESIDENCY_SHARE, and until
 *    its first request has generated MIN_RUN_TOKENS (while its prompts are still being tokenized max_wait);
 *    so with n models waiting the wait is max_wait + n such stays and loads.
 *  - An encoder's step holds whole inputs: each request gets an equal share of the rows in the long run
 *    (deficit round robin); an input that is longer than the step is computed alone.
 *  - The ledger: weights + KV extents + scratch + fixed <= limit, checked before anything is planned. */
#ifndef MINKA_SCHED_H
#define MINKA_SCHED_H

#include "base/limit.h"
#include "kv/kv.h"

struct sched;

struct sched_config {
    u32 queue_max;          /* OLLAMA_MAX_QUEUE: most waiting requests */
    u32 parallel_max;       /* OLLAMA_NUM_PARALLEL: cap on running requests per model; 0 = none */
    u32 loaded_max;         /* OLLAMA_MAX_LOADED_MODELS; 0 = none */
    u64 memory_limit_bytes; /* MINKA_MEMORY */
    u64 fixed_bytes;        /* the engine's own memory, booked for good */
    u64 step_target_ns;     /* 20 ms: target of a step while somebody decodes */
    u64 slice_target_ns;    /* 50 ms: target of a step without decoding rows */
    u64 max_wait_ns;        /* MINKA_MAX_WAIT: longest wait of a queue's head for its model */
    u32 rows_max;    /* most rows of one step (scratch is booked for it), but for an encoder's long input */
    u32 inputs_max;  /* most inputs of one step of an encoder */
    u32 draft_force; /* tests: use up to this many drafts whatever they cost; 0 = off */
    u32 slice_force; /* tests: cut prompts into slices of exactly this many tokens; 0 = off */
    struct kv_memory memory;
};

/* --- events --- */
enum sched_event_kind {
    SCHED_MODEL,    /* model: announced (or announced again) */
    SCHED_FORGET,   /* model_id: its file is gone; queued requests fail */
    SCHED_ARRIVE,   /* request_id, model_id, draft_id, keep_alive_ns, readmitted */
    SCHED_PROMPT,   /* request_id, prompt: rendered and tokenized */
    SCHED_CANCEL,   /* request_id: client gone (status OK), or the engine ended it with an error (else:
                       its pages are not kept) */
    SCHED_LOADED,   /* model_id, status, text */
    SCHED_UNLOADED, /* model_id */
    SCHED_STEP,     /* step: what the planned step gave */
    SCHED_LIMITS,   /* memory_limit_bytes: obeyed at once; who doesn't fit any more is refused after 5 s */
    SCHED_EXPIRE,   /* model_id, keep_alive_ns: keep-alive set without a request (0 = unload when idle) */
    SCHED_TICK,     /* only time */
};

struct sched_model {
    u32 model_id;
    u64 identity;      /* kv_identity */
    u64 weights_bytes; /* booked in full while loaded */
    u64 scratch_bytes; /* for steps of rows_max rows */
    struct kv_layout layout;
    /* An encoder: its requests are lists of inputs, each computed whole, several in a step; without decoding,
     * without pages (the layout has no groups). */
    bool encoder;
    u64 draft_bytes; /* booked beside while it guesses for others: the KV cache that the engine keeps for it */
};

struct sched_prompt {
    const u32 *tokens; /* [n_tokens] copied; n_tokens >= 1; 0 with load_only */
    u32 n_tokens;
    u32 predict_max; /* most tokens to generate behind these, >= 1 */
    u32 num_ctx;     /* n_tokens < num_ctx; the sequence never holds more than num_ctx tokens */
    bool load_only;  /* done when the model is loaded */
    const u32
        *ends; /* [n_ends] encoder: where each input ends in tokens, ascending, the last n_tokens; copied */
    u32 n_ends;
    bool every_row; /* items want all their rows (n_logits = n_tokens), and none may come from the cache */
};

enum sched_outcome {
    SCHED_MORE,   /* go on with the sampled tokens */
    SCHED_FINISH, /* ended (stop, length): keep its pages for the next turn */
    SCHED_SHIFT,  /* context full: `tokens` replace the sequence, prefill anew */
};

struct sched_result { /* one per plan item, same order */
    u64 request_id;
    enum sched_outcome outcome;
    u32 n_agreed; /* the item's drafts that were drawn, before the last draw; 0..n_drafts. The sequence has
                     grown by them, their K and V are good; what the others left behind is overwritten */
    const u32 *tokens; /* MORE, FINISH: [n_tokens] newly accepted behind those (0 for a slice that does not
                          end the prompt); SHIFT: the whole new sequence */
    u32 n_tokens;
    const u32 *draft; /* MORE: [n_draft] guess of what follows; copied */
    u32 n_draft;      /* 0..LIMIT_DRAFT */
    bool drafted;     /* the draft model's guess */
};

struct sched_step {
    u64 duration_ns;
    const struct sched_result *results; /* [n_results] */
    u32 n_results;
    u64 draft_ns;       /* of the duration: the draft model's passes */
    u32 n_draft_passes; /* and how many */
    u32 n_draft_rows;   /* of all passes */
};

struct sched_event {
    enum sched_event_kind kind;
    u64 now_ns;
    u64 request_id;
    u32 model_id;
    u32 draft_id;      /* the model that may guess for it; need not be known; 0 = none */
    i64 keep_alive_ns; /* < 0 = for ever, 0 = unload when idle */
    u64 memory_limit_bytes;
    enum status status;
    const char *text; /* LOADED with a failure: what its clients are told; NULL = a general sentence */
    bool readmitted;  /* ARRIVE: was accepted before an engine crash, the bound does not apply */
    struct sched_model model;
    struct sched_prompt prompt;
    struct sched_step step;
};

/* --- plan --- */
enum sched_plan_kind {
    SCHED_PLAN_IDLE,   /* nothing to do before wake_ns (UINT64_MAX: until an event) */
    SCHED_PLAN_STEP,   /* run items, then report SCHED_STEP */
    SCHED_PLAN_LOAD,   /* load model_id, then report SCHED_LOADED; steps of others may be planned meanwhile */
    SCHED_PLAN_UNLOAD, /* unmap model_id, then report SCHED_UNLOADED */
};

struct sched_item {
    u64 request_id;
    struct kv_seq *seq; /* pages reserved for pos0 + n_tokens */
    const u32 *tokens;  /* [n_tokens] to feed, at pos0 */
    u32 pos0;
    u32 n_tokens;
    u32 n_drafts; /* the last n_drafts of them are only guessed */
    u32 n_logits; /* last rows to sample: 1 + n_drafts when these tokens end the known sequence, else 0; an
                     encoder's items have none and no seq: they are whole inputs */
    u32 n_wanted;    /* guesses of plan.draft_id for what follows this item that are worth making */
    bool text_first; /* what its own text suggests comes true at least as often, and costs nothing */
    u32 num_ctx;
};

/* What the engine must tell a client; drained with every sched_next. */
enum sched_notice_kind {
    SCHED_NOTICE_STARTED,  /* its first slice is planned: n_cached, queue_ns, load_ns */
    SCHED_NOTICE_REJECTED, /* status and text; the request is gone */
    SCHED_NOTICE_READY,    /* load_only: the model is loaded; the request is gone */
    SCHED_NOTICE_WANTED,   /* its model is loaded now: render and tokenize it (prompt not reported yet) */
};

struct sched_notice {
    enum sched_notice_kind kind;
    u64 request_id;
    u32 n_cached;
    u64 queue_ns; /* arrival to now */
    u64 load_ns;  /* of that, waiting for the model */
    enum status status;
    u32 retry_after_s; /* REJECTED with ERR_BUSY: from the measured drain rate, >= 1 */
    char text[256];
};

struct sched_plan {
    enum sched_plan_kind kind;
    u32 model_id;
    u32 draft_id; /* STEP: the loaded draft model of the step's model; 0 = none */
    u64 wake_ns;
    const struct sched_item *items; /* [n_items] valid until the SCHED_STEP */
    u32 n_items;
    u32 n_rows;
    const struct sched_notice *notices; /* [n_notices] valid until the next sched_next */
    u32 n_notices;
};

struct sched_model_state {
    u32 model_id;
    bool loaded, loading;
    u32 n_running, n_waiting;
    i64 expires_ns; /* on the events' clock; INT64_MAX = for ever; 0 = busy or not loaded */
};

struct sched_state {
    u32 n_running; /* prefill or decode */
    u32 n_waiting; /* queued or parked */
    u64 limit_bytes, weights_bytes, kv_bytes, kv_cached_bytes, scratch_bytes;
    u64 n_parked_total, n_rejected_total, n_steps_total;
    u64 n_rows_total, steps_ns_total;   /* of all steps */
    u64 n_drafts_total, n_agreed_total; /* guessed tokens that got a row; those that were drawn */
    u64 drafts_lost_ns_total;           /* what the others cost, by the learned cost of a row */
    u64 n_draft_passes_total, draft_ns_total; /* of draft models */
    f64 tokens_per_s;                   /* generated, over the last seconds of work */
};

struct sched *sched_new(const struct sched_config *c) MUST_USE;
void sched_free(struct sched *s);
/* Never fails: an event for a request or model that is gone is ignored. Allowed at any time, also while a
 * step runs; a cancel of a request in that step takes effect when the step is reported (its result is
 * ignored). */
void sched_event(struct sched *s, const struct sched_event *e);
/* Decides what to do now. Must not be called between a SCHED_PLAN_STEP and its SCHED_STEP. */
void sched_next(struct sched *s, u64 now_ns, struct sched_plan *plan);
void sched_state(const struct sched *s, struct sched_state *out);
bool sched_model_state(const struct sched *s, u32 model_id, struct sched_model_state *out);
/* Requests before this one in its queue, and an estimate of its wait from measured rates (0 = unknown);
 * false if it is not waiting. */
bool sched_position(const struct sched *s, u64 request_id, u32 *position, u32 *eta_ms);
/* The KV space of a model that is loaded (for figures); NULL otherwise. */
const struct kv_space *sched_space(const struct sched *s, u32 model_id);
/* Invariants (design: pages add up, ledger = sum of its parts <= limit, every request in exactly one
 * list, FIFO kept, work conservation). Aborts by check(). After every event in tests, when idle else. */
void sched_check(const struct sched *s);

#endif
