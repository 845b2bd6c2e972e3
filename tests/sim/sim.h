/* sim.h - a simulated engine around the real scheduler: fake clock, fake memory, fake model, one seed.
 *
 * The fake model computes, for each position, a word from the word before it (read through the page tables)
 * and the token; the next token is a function of the last word. So a request's output is right only if
 * every page that it read was right; and it is known beforehand by computing it alone.
 *
 *   sim_options.c  what a seed means            sim_world.c   events, the engine's loop, crashes
 *   sim_request.c  prompts, outputs, KV words   sim_promise.c what must hold after every event and plan */
#ifndef MINKA_SIM_H
#define MINKA_SIM_H

#include "fake_memory.h"
#include "sched/internal.h"

#define SIM_MODELS_MAX 5u
#define SIM_REQUESTS_MAX 64u
#define SIM_TOKENS_MAX 640u
#define SIM_EVENTS_MAX 1024u
#define SIM_BASES 4u
#define SIM_MS ((u64)1000000)
#define SIM_MIB ((u64)1 << 20)

/* Everything a seed decides; the rest is drawn from the same random numbers as it happens. */
struct sim_options {
    u32 n_models, n_requests;
    u64 span_ns;       /* arrivals are spread over this */
    u32 burst_percent; /* arrivals at the same moment as the one before */
    u32 cancel_percent;
    u32 load_only_percent;
    u32 slow_prompt_percent; /* prompts that take long to tokenize */
    u64 load_ns_max;
    u32 load_fail_percent;
    u32 map_fail_percent;
    u32 n_limit_changes;
    u32 n_crashes;
    u32 n_forgets;
    u32 n_expires;
    u32 same_percent; /* prompts that begin as others do */
    u32 num_ctx_max;
    u32 draft_percent, draft_right_percent; /* steps that guess; guessed tokens that are right */
    u32 draft_model_percent;                /* requests that have a draft model */
    bool short_keep_alive;
    struct sched_config config;
};

struct sim_model {
    struct sched_model info;
    u64 base_ns, per_row_ns;
    bool mapped;    /* between its LOAD and its UNLOADED */
    bool loaded;    /* between LOADED and UNLOAD */
    bool forgotten; /* and not announced again */
    /* Kept by the simulator itself: nobody may unload it for its age before last_use + keep_alive_min. */
    u64 last_use_ns;
    i64 keep_alive_min_ns; /* shortest of all that were said since it was loaded; < 0 = for ever */
};

enum sim_end { SIM_OPEN, SIM_FINISHED, SIM_REJECTED, SIM_READY, SIM_CANCELLED };

struct sim_request {
    u64 id;
    u32 model, draft_id;
    u64 arrival_ns, cancel_ns, prompt_delay_ns;
    i64 keep_alive_ns;
    bool load_only, shifts;
    bool every_row; /* wants all its rows: nothing may come from the cache */
    u32 prompt[SIM_TOKENS_MAX], n_prompt, num_ctx, predict_max;
    u32 ends[SIM_TOKENS_MAX], n_ends; /* of an encoder's: the prompt is a list of inputs, each gives one token */
    /* Alone: what must come out. */
    u32 expected[SIM_TOKENS_MAX], n_expected;
    /* So far. */
    bool arrived, wanted, prompt_sent, started;
    enum sim_end end;
    u32 tokens[SIM_TOKENS_MAX], n_tokens; /* the sequence now */
    u64 words[SIM_TOKENS_MAX];            /* [n_tokens] of the sequence now, computed alone */
    u32 output[SIM_TOKENS_MAX], n_output;
    u64 limit_min_bytes; /* lowest limit since it arrived */
};

enum sim_event_kind {
    SIM_ARRIVE,
    SIM_PROMPT,
    SIM_CANCEL,
    SIM_LOADED,
    SIM_UNLOADED,
    SIM_STEP,
    SIM_LIMIT,
    SIM_EXPIRE,
    SIM_FORGET,
    SIM_ANNOUNCE,
    SIM_CRASH,
};

struct sim_event {
    u64 at_ns, order;
    enum sim_event_kind kind;
    u32 index; /* request or model */
    u32 epoch; /* of the engine that will hear it; 0 = any */
    u64 value;
};

struct sim_counts {
    u64 n_requests, n_finished, n_rejected_busy, n_rejected_memory, n_rejected_load, n_rejected_removed,
        n_ready;
    u64 n_cancel_queued, n_cancel_running, n_cancel_in_step;
    u64 n_inputs; /* of encoders, computed */
    u64 n_steps, n_rows, n_rows_needed, n_cached_tokens, n_parked, n_shifts, n_loads, n_unloads;
    u64 n_crashes, n_overdue;
    u64 n_drafts, n_drafts_agreed;
    u64 n_draft_passes, n_draft_loads, n_draft_unloads; /* of draft models; loads for nothing else */
};

struct sim {
    u64 seed, random, now_ns, trace;
    bool verbose;
    struct sim_options o;
    struct sched *sched;
    struct fake_memory memory;
    u64 limit_bytes, limit_changed_ns;
    struct sim_model models[SIM_MODELS_MAX];
    struct sim_request requests[SIM_REQUESTS_MAX];
    u32 bases[SIM_BASES][SIM_TOKENS_MAX];
    struct sim_event events[SIM_EVENTS_MAX]; /* [n_events] heap by time, then order */
    u32 n_events;
    u64 event_order;
    u32 epoch; /* engines so far */
    /* The step that runs. */
    bool in_step;
    struct sched_item items[LIMIT_RUNNING];
    u32 n_items, step_model;
    u64 step_ns, draft_ns;
    u32 n_draft_passes, n_draft_rows;
    u64 longest_step_ns, longest_load_ns;
    /* Tests of the tests: breaks something on purpose, once; called before each plan. */
    bool (*fault)(struct sim *w);
    bool fault_done;
    bool neglected; /* sim_promise: an overdue model was not made room for in the last plan */
    struct sim_counts *counts;
};

/* --- sim_options.c --- */
void sim_draw(struct sim *w);

/* --- sim_request.c --- */
/* Fills the prompt and what must come out of it. */
void sim_request_draw(struct sim *w, struct sim_request *r);
/* Runs one item: reads and writes its pages; fills the result. tokens: room for SIM_TOKENS_MAX. */
void sim_item_run(struct sim *w, struct sim_request *r, const struct sched_item *item,
                  struct sched_result *res, u32 *tokens);

/* --- sim_world.c --- */
void sim_run(struct sim *w);
/* The model was used, and this keep-alive was said. */
void sim_model_used(struct sim *w, u32 model, i64 keep_alive_ns);
void sim_event_add(struct sim *w, u64 at_ns, enum sim_event_kind kind, u32 index, u64 value);

/* --- sim_promise.c --- */
void sim_promise_event(struct sim *w);
void sim_promise_arrival(struct sim *w, const struct sim_request *r, u32 n_waiting_before, bool readmitted);
/* oldest_id: the oldest running request before the plan was made; 0 = none. */
void sim_promise_plan(struct sim *w, const struct sched_plan *plan, u64 oldest_id);
void sim_promise_rejection(struct sim *w, struct sim_request *r, const struct sched_notice *n);
void sim_promise_unload(struct sim *w, u32 model);
void sim_promise_end(struct sim *w);

#define sim_say(w, ...)                                                                                      \
    do {                                                                                                     \
        if ((w)->verbose)                                                                                    \
            sim_print((w), __VA_ARGS__);                                                                     \
    } while (0)
void sim_print(const struct sim *w, const char *fmt, ...) PRINTF(2, 3);

#endif
