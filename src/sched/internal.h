/* internal.h - what the files of the scheduler share. Names begin with s where other folders have the same
 * noun: an sreq is a request as the scheduler sees it (tokens and pages), an smodel a model (bytes and
 * times).
 *
 *   sched.c   events, sreq_move, the order of decisions     models.c  loading, unloading, keep-alive
 *   queue.c   requests, notices, the bound, positions          ledger.c  memory: who has booked what
 *   admit.c   who may start, single flight                     room.c    pages: evict, park, refuse
 *   plan.c    steps: whose turn, rows, slices, results         cost.c    learned cost of a step, rates
 *   draft.c   which guessed tokens are worth a row     inputs.c  steps of encoders
 *   check.c   invariants */
#ifndef MINKA_SCHED_INTERNAL_H
#define MINKA_SCHED_INTERNAL_H

#include "base/limit.h"
#include "sched/sched.h"

/* Prefill always progresses by at least this many tokens a step. */
#define SLICE_MIN 16u
/* A loaded model that others wait for stays at least max_wait / RESIDENCY_SHARE. */
#define RESIDENCY_SHARE 8u
/* A resumed request generates this many tokens before it may be parked again, if another one can be. */
#define MIN_RUN_TOKENS 16u
/* Pages for this many tokens beyond the prompt must be free when a request is admitted beside others. */
#define ADMIT_MARGIN_TOKENS 64u
/* The system refused memory that the ledger has: tried again this often, for this long. */
#define REFUSED_RETRY_NS ((u64)20000000)
#define REFUSED_MAX_NS ((u64)5000000000)

/* A limit that fell refuses nobody for so long: what no longer fits gives up its memory and waits, because a
 * reading of free memory can dip. */
#define LIMIT_GRACE_NS ((u64)5000000000)

#define NS_PER_S 1000000000u

/* --- cost.c --- */
#define RATE_N 32u
/* When the last things happened, for "how many a second". */
struct srate {
    u64 at_ns[RATE_N];
    u32 n, next;
};
void srate_add(struct srate *r, u64 now_ns);
f64 srate_per_s(const struct srate *r, u64 now_ns); /* 0 = nothing known */

/* A step of n rows takes base + n * per_row: least squares over what was measured, old ones fading. */
struct scost {
    f64 w, x, y, xx, xy;     /* decayed sums of 1, rows, ns, rows^2, rows * ns */
    f64 base_ns, per_row_ns; /* 0 = nothing measured */
};
void scost_add(struct scost *c, u32 n_rows, u64 duration_ns);
f64 scost_step_ns(const struct scost *c, u32 n_rows);
/* Rows of a step that lasts at most target_ns; SLICE_MIN if nothing is known. */
u32 scost_rows_within(const struct scost *c, f64 target_ns);
/* Fewest rows that cost at most 1.1 times the best per row. */
u32 scost_rows_efficient(const struct scost *c);

/* --- requests --- */
enum request_state { REQUEST_QUEUED, REQUEST_PARKED, REQUEST_PREFILL, REQUEST_DECODE, REQUEST_GONE };

struct sreq {
    u64 id;
    u64 arrival; /* 1, 2, ...: age */
    struct smodel *model;
    enum request_state state;
    struct sreq *prev, *next; /* in the model's waiting or running list */
    struct sreq *hash_next;

    i64 keep_alive_ns;
    bool readmitted;
    bool prompt_ready;
    bool wanted; /* WANTED was said */
    bool load_only;
    bool started;   /* STARTED was said */
    bool dead;      /* cancelled while its step runs */
    bool dead_keep; /* its pages are good */
    u64 arrived_ns;
    u64 waiting_ns;     /* since when it waits: arrival or parking */
    u64 model_ready_ns; /* its model was loaded first; 0 = not yet */

    u32 *tokens; /* [n_tokens], then [n_draft] guessed ones */
    u32 n_tokens, tokens_cap;
    u32 n_draft;
    bool drafted; /* by the draft model */
    u32 draft_id; /* its draft model; 0 = none */
    struct chance {
        f64 tried, agreed; /* faded counts: how often guesses come true */
    } chances[2];          /* of those from its text, of those of the draft model */
    u32 tokens_max;        /* it never gets longer: min(num_ctx, prompt + predict_max) */
    u32 num_ctx;
    u32 *ends; /* [n_ends] encoder: of its inputs */
    u32 n_ends, n_inputs_done, input_longest;
    i64 credit;        /* encoder: rows that it may still take */
    u64 planned_round; /* encoder: when it last had a place in a step */
    bool every_row;    /* no prefix comes from the tree */
    struct kv_seq kv;  /* empty until the first slice; an encoder's only counts */
    u32 n_cached;      /* of the last opening */

    struct sreq *follow; /* running, computes a beginning that is this one's too */
    u32 follow_tokens;   /* up to there, whole pages */
    u32 n_restarts_at;   /* n_tokens when its pages were given up for compaction */
    u64 refused_ns;      /* since when the system has no memory for it; 0 = it has */
    bool resumed;        /* was parked; run_tokens counts since then */
    u32 run_tokens;

    /* sched_check: the order of what happened. */
    u64 ready_order, admitted_order;
};

/* Requests by age; in a waiting list parked ones come first. */
struct slist {
    struct sreq *first, *last;
    u32 n;
};

enum model_state { MODEL_KNOWN, MODEL_LOADING, MODEL_LOADED, MODEL_UNLOADING };

struct smodel {
    struct sched_model info, info_next;
    bool has_next; /* announced anew while loaded: holds from the next load on */
    bool forgotten;
    bool closing; /* to be unloaded to make room: admits nobody */
    bool chosen;  /* make_room: on the list of those to close */
    bool drafts;  /* guesses for others: draft_bytes are booked */
    u64 gave_way_ns; /* when it last made room */
    u32 draft_id; /* while loaded: who guesses for it, as the last that was admitted said; 0 = nobody */
    enum model_state state;
    struct kv_space *space; /* from the first load on; its cached pages outlive an unload that makes room */
    struct slist waiting, running;
    i64 keep_alive_ns;
    u64 idle_ns;     /* since when it is idle, if it is */
    u64 loaded_ns;   /* last LOADED */
    u64 lead_id;     /* the first request admitted since: the stay is for it; 0 = none yet */
    u64 unloaded_ns; /* last UNLOADED */
    u64 used_ns;     /* last end of a step or of the loading */
    f64 charged_ns;  /* compute time, the measure of turns */
    u64 round;       /* splan_step: last round in which it had its turn */
    struct scost cost;
    struct srate drain; /* requests that left its queue by starting */
};

/* --- the scheduler --- */
struct planned {
    struct sreq *request;
    u32 n_tokens; /* without drafts */
    u32 n_drafts;
    u32 n_wanted; /* guesses of the draft model behind it */
};

struct sched {
    struct sched_config config;
    u64 memory_limit_bytes;
    u64 now_ns;
    struct kv_pool *pool;

    struct smodel **models; /* [n_models] */
    u32 n_models, models_cap;
    struct sreq **table; /* [table_cap] hash by id */
    u32 table_cap, n_requests;
    u32 n_waiting, n_running;
    u64 arrivals, order;

    struct smodel *room_for; /* room is being made for it */
    bool tight; /* the oldest gave up all its pages to lay them side by side: nobody may scatter them again */
    u64 refused_ns;         /* when the system last had no memory: nobody is admitted for a moment */
    u64 limit_fell_ns;      /* when the limit last began to fall; 0 = never */
    u64 limit_before_bytes; /* what it was then */
    bool over;              /* the limit fell below what is booked; on the way down */

    bool in_step;
    struct smodel *step_model;
    u32 step_rows;
    u64 round;
    f64 charged_floor_ns;    /* a model that was idle starts from here, it has no claim on the past */
    u64 n_changes;           /* of requests' states: whether another look may give another plan */
    struct planned *planned; /* [n_planned] */
    u32 n_planned, planned_cap;
    struct sched_item *items;
    u32 items_cap;
    struct sreq **scratch; /* [scratch_cap] copies of lists that change while they are walked */
    u32 scratch_cap;
    struct sched_notice *notices, *notices_out;
    u32 n_notices, notices_cap, notices_out_cap;

    struct srate drain;    /* requests that left the queue, in whatever way */
    u32 n_refused_waiting; /* refused since then: who comes back finds them in front */
    u64 n_parked_total, n_rejected_total, n_steps_total;
    u64 n_rows_total, steps_ns_total, n_drafts_total, n_agreed_total;
    u64 n_draft_passes_total, draft_ns_total;
    f64 drafts_lost_ns_total;
    f64 tokens_recent, ns_recent;
};

/* --- sched.c --- */
/* Room for n more tokens behind those it has. */
void sreq_tokens_fit(struct sreq *r, u32 n);
/* The only place that changes a request's state and its list. */
void sreq_move(struct sched *s, struct sreq *r, enum request_state to);
/* Ends it: pages closed (kept in the tree or not), memory freed. Not for requests of a running step. */
void sreq_end(struct sched *s, struct sreq *r, bool keep_pages);
static inline bool sreq_runs(const struct sreq *r) {
    return r->state == REQUEST_PREFILL || r->state == REQUEST_DECODE;
}
static inline bool sreq_waits(const struct sreq *r) {
    return r->state == REQUEST_QUEUED || r->state == REQUEST_PARKED;
}
static inline bool sreq_older(const struct sreq *a, const struct sreq *b) { return a->arrival < b->arrival; }

/* --- queue.c --- */
void slist_insert(struct slist *l, struct sreq *r);
void slist_remove(struct slist *l, struct sreq *r);
struct sreq *sreq_find(const struct sched *s, u64 id);
void sreq_forget(struct sched *s, struct sreq *r); /* from the table; frees it */
void squeue_arrive(struct sched *s, const struct sched_event *e);
void squeue_prompt(struct sched *s, const struct sched_event *e);
struct sched_notice *snotice_add(struct sched *s, enum sched_notice_kind kind, u64 request_id);
/* Tells the client and ends the request. */
void sreq_reject(struct sched *s, struct sreq *r, enum status status, const char *fmt, ...) PRINTF(4, 5);
/* Asks for the prompts that are missing of requests whose model is loaded. */
void squeue_want_prompts(struct sched *s);
/* Its model is loaded: the end of a load_only request. */
void sreq_model_ready(struct sched *s, struct sreq *r);
/* Oldest and youngest running request of all models; NULL if nothing runs. */
struct sreq *sreq_oldest_running(const struct sched *s);
struct sreq *sreq_youngest_running(const struct sched *s);
/* The list's requests in scratch, so that the list may change. Valid until the next call. */
struct sreq **slist_copy(struct sched *s, const struct slist *l, u32 *n);

/* --- admit.c --- */
void sadmit_all(struct sched *s);
/* Most running requests of one model. */
u32 sadmit_running_max(const struct sched *s);
/* The running request whose computing r should wait for, or none. */
void sfollow_find(struct sreq *r);
/* owner doesn't compute any more: its followers look anew. */
void sfollow_drop(const struct sreq *owner);
/* Bytes of pages that running requests will still take for what they hold as tokens. */
u64 sledger_promised_bytes(const struct sched *s);
/* The request can't fit even alone, in its full length: rejects it and returns true. */
bool sreq_refuse_too_large(struct sched *s, struct sreq *r);

/* --- ledger.c --- */
static inline u64 smodel_cost_bytes(const struct smodel *m) {
    return m->info.weights_bytes + m->info.scratch_bytes + (m->drafts ? m->info.draft_bytes : 0);
}
static inline bool smodel_booked(const struct smodel *m) { return m->state != MODEL_KNOWN; }
u64 sledger_booked_bytes(const struct sched *s); /* fixed and models, without KV */
/* Takes a new limit. */
void sledger_limit(struct sched *s, u64 bytes);
/* The limit by which requests are refused: a fall counts after LIMIT_GRACE_NS. */
u64 sledger_refusal_limit_bytes(const struct sched *s);
/* What m leaves of a limit for KV if it is alone. */
u64 sledger_alone_bytes(const struct sched *s, const struct smodel *m, u64 limit_bytes);
/* Sets the pool's limit to what the models leave. Call after every change of either. */
void sledger_update(struct sched *s);
/* Whether c can be loaded: now with nothing freed but cached pages; or once all models
 * that are closing are gone. */
enum ledger_when { LEDGER_NOW, LEDGER_AFTER_CLOSING };
bool sledger_fits(const struct sched *s, const struct smodel *c, enum ledger_when when);
/* The models' limit for pages fell by what is booked now: evicts what is over it; it is known to suffice. */
void sledger_evict(struct sched *s, const struct smodel *spare);
/* Evicts, parks, unloads and refuses until what is held fits the limit, or has to wait for an unload. */
void sledger_shrink(struct sched *s);

/* --- room.c --- */
/* Pages for n_tokens of r, whatever has to go for it. false: r doesn't run in this step (it was parked,
 * refused, or waits for memory); then r may be gone. */
bool sroom_reserve(struct sched *s, struct sreq *r, u32 n_tokens);
void sreq_park(struct sched *s, struct sreq *r);
/* Nothing else runs and r's pages for n_tokens don't fit: unloads others, or gives all its pages up and
 * computes them anew side by side, or refuses it. false: it has to wait (an unload, the system); true:
 * something changed, r may be gone. */
bool sroom_last_resort(struct sched *s, struct sreq *r, u32 n_tokens);

/* --- inputs.c --- */
/* Plans whole inputs of m's requests, about budget rows. */
void sinputs_plan(struct sched *s, const struct smodel *m, u32 budget);
/* n_tokens of r's inputs are done. */
void sinputs_done(struct sreq *r, u32 n_tokens);
void splanned_add(struct sched *s, struct sreq *r, u32 n_tokens);

/* --- draft.c --- */
/* Adds drafts to the planned rows if all of them decode, and says how many guesses m's draft model shall make. */
void sdraft_plan(struct sched *s, const struct smodel *m);
/* The model that guesses for m, loaded; NULL if there is none now. */
const struct smodel *sdraft_model(const struct sched *s, const struct smodel *m);
/* Books the draft model of a model that runs, if there is room; the model if it has to be loaded for it. */
struct smodel *sdraft_book(struct sched *s);
/* d could not be loaded: nobody asks it before a request names it again. */
void sdraft_drop(struct sched *s, const struct smodel *d);
/* Pages are short: closes a draft model that nobody uses otherwise. true: one goes. */
bool sdraft_close(struct sched *s);
/* Looks which guesses came true; before the result's tokens take their place. */
void sdraft_learn(struct sreq *r, u32 n_drafts, const struct sched_result *res);
/* Keeps a guess of what follows r's tokens. */
void sdraft_take(struct sreq *r, const struct sched_result *res);
/* Guesses from r's text come true at least as often as those of its draft model. */
bool sdraft_text_first(const struct sreq *r);
/* Learns what passes of m's draft model cost. */
void sdraft_charge(struct sched *s, const struct smodel *m, const struct sched_step *step);

/* --- models.c --- */
struct smodel *smodel_find(const struct sched *s, u32 model_id);
void smodel_announce(struct sched *s, const struct sched_model *info);
void smodel_forget(struct sched *s, u32 model_id);
void smodel_loaded(struct sched *s, const struct sched_event *e);
void smodel_unloaded(struct sched *s, u32 model_id);
void smodel_expire(struct sched *s, u32 model_id, i64 keep_alive_ns);
/* Decides about one load or unload; true if plan holds it. */
bool smodel_plan(struct sched *s, struct sched_plan *plan);
/* The least that it stays or stays away. */
u64 smodel_residency_ns(const struct sched *s);
/* Marks m to be unloaded and parks what runs in it. */
void smodel_close(struct sched *s, struct smodel *m);
/* A loaded model without running requests, least recently used, not `but`, not closing; NULL if none.
 * idle: only those that nobody waits for either. */
struct smodel *smodel_to_unload(const struct sched *s, const struct smodel *but, bool idle);
bool smodel_idle(const struct smodel *m);
/* Not before the models that it guesses for. */
i64 smodel_expires_ns(const struct sched *s, const struct smodel *m);
/* Earliest time at which a decision about models is due. */
u64 smodel_wake_ns(const struct sched *s);
bool smodel_in_transit(const struct sched *s); /* one is being loaded or unloaded, or is about to be */

/* --- plan.c --- */
bool splan_step(struct sched *s, struct sched_plan *plan);
void splan_done(struct sched *s, const struct sched_step *step);

#endif
