/* slots.h - the models that the engine knows: checked once when announced, mapped and opened when loaded.
 * The slow parts (reading the header, the tokenizer, populating the mapping) run as jobs. */
#ifndef MINKA_SLOTS_H
#define MINKA_SLOTS_H

#include "base/mapping.h"
#include "chat/template.h"
#include "engine/draft_model.h"
#include "engine/grammars.h"
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
    struct err error; /* BROKEN; of the last load that failed; LOADED: the file is damaged, slot_verify */

    /* from the check on */
    u64 weights_bytes; /* what the ledger books while loaded: the file and what is built from its header */
    u64 scratch_bytes;
    u64 draft_bytes; /* ... beside that while it guesses for others */
    u64 identity;
    struct kv_layout kv;
    u32 n_ctx_train;
    bool encoder;
    enum pooling pooling;
    u32 n_vector_max;        /* values of an embedding, while it is pooled too */
    u32 n_rows_max;          /* of a step; scratch_bytes is for these */
    u32 n_logits_max;        /* wanted rows of a step; an encoder: inputs */

    /* while loaded */
    struct mapping map;
    struct gguf gguf;
    bool parsed; /* gguf is valid */
    struct model *model;
    struct draft_model *draft;           /* from its first guess for others on */
    struct tokenizer *tokenizer;         /* also while unloaded, as long as a parked request holds it */
    struct grammars *grammars;           /* of the tokenizer, as long as it */
    u32 n_holding;                       /* requests whose text and masks point into the tokenizer */
    struct chat_template *chat_template; /* NULL: the file has none */
    u32 n_preparing;                     /* prompt jobs that use the tokenizer now */
    u32 num_ctx;                         /* of the request that started last */

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
bool slot_same_file(const struct slot *s, int fd);
/* The file has no name any more: only our descriptor keeps its bytes on the disk. */
bool slot_file_deleted(const struct slot *s);
/* Start the job; slot_job_done moves the state when it comes back. */
void slot_check(struct slot *s, struct jobs *loader);
void slot_load(struct slot *s, struct jobs *loader);
void slot_job_done(struct slot *s);
/* After each use of a loaded model, before its result is: ERR_CORRUPT, and s->error says why, if the file was
 * cut off or could not be read since it was loaded. Then what has just been computed is worthless. */
enum status slot_verify(struct slot *s) MUST_USE;
/* A request keeps the tokenizer for longer than its model is loaded: it may be parked meanwhile. */
void slot_hold_tokenizer(struct slot *s);
void slot_release_tokenizer(struct slot *s);
/* Unmaps; LOADED -> KNOWN. */
void slot_unload(struct slot *s);

#endif
