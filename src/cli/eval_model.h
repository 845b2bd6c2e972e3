/* eval_model.h - a model file opened for looking inside, on the engine's own path: mapped weights, pages of
 * the KV pool, model_forward in slices. For `minka eval`, tools and tests; one sequence at a time. */
#ifndef MINKA_CLI_EVAL_MODEL_H
#define MINKA_CLI_EVAL_MODEL_H

#include "gguf/gguf.h"
#include "model/model.h"

struct eval_options {
    const struct kern *kern; /* NULL: kern_open's choice */
    u32 n_threads;           /* 0: all usable processors */
    enum kern_cache cache;
    bool f32_activations;
    u32 num_ctx; /* 0: 4096 */
    u32 slice;   /* rows per step; 0: 64, what the scheduler gives prompts beside decoding rows */
};

struct eval_model {
    struct eval_options options; /* resolved */
    struct gguf gguf;
    struct model *model;
    struct team *team;
    struct model_scratch *scratch;
    struct kv_pool *pool;
    struct kv_space *space;
    void *map; /* the file; NULL if the caller owns the bytes */
    size_t map_bytes;
};

/* The file's mapping only: for vocabulary and templates. Release with eval_model_close. */
enum status eval_file_open(const char *path, struct eval_model *out, struct err *err) MUST_USE;
enum status eval_model_open(const char *path, const struct eval_options *o, struct eval_model *out,
                            struct err *err) MUST_USE;
/* The same for a file that lies in memory (data outlives it). */
enum status eval_model_open_memory(const void *data, size_t bytes, const struct eval_options *o,
                                   struct eval_model *out, struct err *err) MUST_USE;
void eval_model_close(struct eval_model *e);

/* Called in order of positions; logits [n_vocab] are valid during the call. */
typedef void eval_logits_fn(void *ctx, u32 position, const f32 *logits);
/* Computes tokens[n] as one sequence from position 0, and calls fn for every position, or for the last one
 * only. ERR_INVALID: no tokens, a token outside the vocabulary, more tokens than num_ctx. */
enum status eval_model_run(struct eval_model *e, const u32 *tokens, u32 n, bool last_only, eval_logits_fn *fn,
                           void *ctx, struct err *err) MUST_USE;

#endif
