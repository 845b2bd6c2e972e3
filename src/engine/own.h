/* own.h - what the files of the engine's loop share; nobody else includes it.
 *
 *   engine.c  messages, models and their loading, the loop
 *   step.c    a step: forward pass, draws, what they mean */
#ifndef MINKA_ENGINE_OWN_H
#define MINKA_ENGINE_OWN_H

#include "base/settings.h"
#include "engine/embed.h"

/* Figures go to the server at most this often while steps run. */
#define STATE_EVERY_NS 100000000ull

struct engine {
    struct wire_conn *conn;
    struct settings settings;
    struct model_config model_config;
    struct team *team;
    struct jobs *prep, *loader;
    struct tokenize_scratch *tokenize_scratch; /* of the prep thread */
    struct sched *sched;
    struct slot *slots[LIMIT_MODELS];
    u32 n_slots;
    struct request_table requests;
    struct request *held; /* arrived while their model's header is being checked, oldest first */
    struct model_scratch *scratch;
    void **sampler_scratch; /* [threads] */
    size_t sampler_scratch_bytes;
    void **masks; /* [threads] tokens that a constrained answer may go on with */
    size_t mask_bytes;
    u64 memory_bytes; /* the ledger's limit */
    u64 state_sent_ns, swept_ns;
    bool state_changed;
};

/* Queues an event for the server. */
void engine_send(struct engine *en, const struct gen_event *e);
/* Frees the request, or leaves that to its preparation job. */
void engine_drop(struct engine *en, struct request *q);
/* Queues the figures for the server. */
void engine_send_state(struct engine *en);
/* NULL: unknown. */
struct slot *engine_slot(struct engine *en, u32 model_id);
/* The file of a loaded model is damaged: its requests end with that, and it goes as soon as nobody uses it.
 */
void engine_fail_model(struct engine *en, struct slot *s);
/* Runs what the scheduler has planned (SCHED_PLAN_STEP) and tells it what became of it. */
void engine_step(struct engine *en, const struct sched_plan *plan);

#endif
