/* model.h - a loaded model: weights in place, one transformer forward pass for all families.
 *
 * A family is a row of the table in families.c (norm kind and place, rope kind, biases, QK norm, window
 * pattern, soft caps, activation, scales); forward.c reads the row, it knows no names. Everything is
 * checked when the model is opened: the file is hostile. After that nothing here fails.
 *
 * Layer l of the llama family, the base of all others:
 *   h  = x + attn_output( attend( rope(q(norm(x))), rope(k(norm(x))), v(norm(x)) ) )
 *   x' = h + ffn_down( silu(ffn_gate(norm(h))) * ffn_up(norm(h)) )
 * and logits = output( norm(x_last) ). */
#ifndef MINKA_MODEL_H
#define MINKA_MODEL_H

#include "base/base.h"
#include "base/team.h"
#include "gguf/gguf.h"
#include "kern/kern.h"
#include "kv/kv.h"
#include "model/hyper.h"

struct model;

struct model_config {
    const struct kern *kern;
    enum kern_cache cache; /* KV element type; F16 as served */
    bool f32_activations;  /* eval and tests: no activation is quantized */
};

/* What a file says, read without touching weight data. Strings live in the gguf. */
struct model_info {
    struct str arch;
    u32 n_layers;
    u32 n_embd;
    u32 n_heads; /* most over all layers */
    u32 n_kv_heads;
    u32 head_dim;
    u32 n_vocab;
    u32 n_ctx_train;
    u64 n_params;      /* elements of all tensors */
    u64 weights_bytes; /* tensor data in the file */
    struct kv_layout kv;
    bool encoder; /* embeds whole inputs, does not generate */
    enum pooling pooling;
    u32 n_out; /* values of an embedding: n_embd, or the labels of a classifier */
};

/* Reads architecture and hyperparameters. ERR_UNSUPPORTED names the architecture or tensor type that is
 * not supported; ERR_CORRUPT the key or tensor that is wrong. */
enum status model_info_read(const struct gguf *g, enum kern_cache cache, struct model_info *out,
                            struct err *err) MUST_USE;
/* Checks every tensor's name, shape and type and wires up the weights. g and its mapping must outlive the
 * model. Reads no weight data but small vectors (rope factors). */
enum status model_open(const struct gguf *g, const struct model_config *c, struct model **out,
                       struct err *err) MUST_USE;
void model_close(struct model *m);
const struct model_info *model_info(const struct model *m);
/* Anonymous memory that the opened model holds beside the mapping. */
u64 model_bytes(const struct model *m);
/* Part of kv_identity that this model contributes: numerics, layout, cache type, rope variant. */
u64 model_kv_identity(const struct model *m, u64 file_digest, u32 num_ctx);

/* --- a step --- */
/* Consecutive positions of one sequence: pages for pos0 + n are reserved. tokens[0] is at pos0. */
struct model_span {
    const struct kv_seq *seq;
    const u32 *tokens; /* [n] */
    u32 pos0;
    u32 n;
    u32 n_logits; /* the last n_logits rows (0..n) are wanted for sampling */
    u32 num_ctx;  /* chooses the rope variant where a family has two */
};

struct model_scratch; /* activations of one step; reused by all steps of all models */

/* Bytes of scratch for steps of at most n_rows rows and n_logits sampled rows (an encoder: inputs): the
 * ledger books it and the allocator takes it. */
u64 model_scratch_bytes(const struct model *m, u32 n_rows, u32 n_logits, u32 n_threads);
struct model_scratch *model_scratch_new(void) MUST_USE;
void model_scratch_free(struct model_scratch *s);
/* Grows the scratch to fit m, never in the middle of a step: what it held is gone. ERR_NO_MEMORY if the
 * system has none. */
enum status model_scratch_fit(struct model_scratch *s, const struct model *m, u32 n_rows, u32 n_logits,
                              u32 n_threads, struct err *err) MUST_USE;

/* One pass over all spans: writes K and V of every row, keeps the final hidden row of every wanted
 * position in s, in span order. layer0..layer1-1 are computed (layer1 0 = to the last): a step may
 * stop between layers, its activations stay in s until the next call of the same step. */
void model_forward(struct model *m, struct team *team, struct model_scratch *s,
                   const struct model_span *spans, u32 n_spans, u32 layer0, u32 layer1);
/* Logits of wanted rows first..first+n-1 (n <= MODEL_LOGITS_TILE) into the scratch's tile; returns it,
 * [n][n_vocab], valid until the next call. */
#define MODEL_LOGITS_TILE 16u
f32 *model_logits(struct model *m, struct team *team, struct model_scratch *s, u32 first, u32 n);
/* The hidden row behind the final norm of wanted row i, [n_embd]: what a generating model embeds with. Valid
 * until the next step. */
const f32 *model_hidden(const struct model *m, const struct model_scratch *s, u32 i);
/* Hash over the raw bits of a row of logits, folded into seed: the determinism tests compare it. */
u64 model_logits_hash(const f32 *logits, u32 n_vocab, u64 seed);

/* --- encoders --- */
/* One whole input: every token attends to all of them. */
struct model_input {
    const u32 *tokens; /* [n] */
    u32 n;             /* 1..n_ctx_train */
};

/* One pass over the inputs; their rows stay in s until its next use. Memory grows with the rows, not with
 * their square: keys and values of one layer, and activations for MODEL_ENCODE_ROWS rows at a time. The bits
 * of an input's rows depend on it alone. */
#define MODEL_ENCODE_ROWS 512u
void model_encode(struct model *m, struct team *team, struct model_scratch *s,
                  const struct model_input *inputs, u32 n_inputs);
/* Pools the rows of input i of the last model_encode into out: [n_embd]; POOLING_RANK, only where the file
 * says so: [n_out]. */
void model_pool(const struct model *m, struct model_scratch *s, u32 i, enum pooling pooling, f32 *out);
/* The rows themselves, [n][n_embd]. */
const f32 *model_encoded_rows(const struct model *m, const struct model_scratch *s, u32 i);

/* Pooling by the mean, row by row in ascending order, however the rows are cut into steps: sum starts at 0.
 */
void model_mean_add(const struct model *m, f32 *sum, const f32 *row);
void model_mean_finish(const struct model *m, f32 *sum, u32 n_rows);

#endif
