/* slots.h - the models that the engine knows: checked once when announced, mapped and opened when loaded.
 * The slow parts (reading the header, the tokenizer, populating the mapping) run as jobs. */
#ifndef MINKA_SLOTS_H
#define MINKA_SLOTS_H

#include "chat/template.h"
#include "engine/jobs.h"
#include "model/model.h"
#include "tokenize/tokenize.h"
#include "wire/wire.h"

enum slot_state {
    SLOT_CHECKING, /* header job runs */
    SLOT_KNOWN,    /* info is valid */
    SLOT_BROKEN,   /* error says why; every request for it fails with that */
    SLOT_LOADING,  /* load job runs */
    SLOT_LOADED,
};

struct slot {
    u32 model_id;
    char name[256];
    u64 digest; /* first bytes of the file's SHA-256 */
    int fd;
    u64 file_bytes;
    const struct model_config *config;
    enum slot_state state;
    struct err error; /* BROKEN, or of the last load that failed */

    /* from the check on */
    u64 weights_bytes; /* what the ledger books while loaded: the file and what is built from its header */
    u64 scratch_bytes;
    u64 identity;
    struct kv_layout kv;
    u32 n_ctx_train;

    /* while loaded */
    void *map;
    struct gguf gguf;
    struct model *model;
    struct tokenizer *tokenizer;
    struct chat_template *chat_template; /* NULL: the file has none */
    u32 n_preparing;                     /* prompt jobs that use the tokenizer now */

    struct job job; /* check or load */
    struct err job_err;
    u32 n_threads; /* for the scratch plan */
    u32 rope_ctx;  /* context length that chooses the rope variant of families that have two: one per process,
                      so that all sequences of a model can share pages */
};

/* Takes fd. */
struct slot *slot_new(const struct wire_model *m, int fd, const struct model_config *config, u32 n_threads,
                      u32 rope_ctx) MUST_USE;
void slot_free(struct slot *s); /* not while a job runs */
/* Start the job; slot_job_done moves the state when it comes back. */
void slot_check(struct slot *s, struct jobs *loader);
void slot_load(struct slot *s, struct jobs *loader);
void slot_job_done(struct slot *s);
/* Unmaps; LOADED -> KNOWN. */
void slot_unload(struct slot *s);

#endif
