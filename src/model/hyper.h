/* hyper.h - the hyperparameters of a file, read once and checked: the file is hostile. */
#ifndef MINKA_MODEL_HYPER_H
#define MINKA_MODEL_HYPER_H

#include "base/arena.h"
#include "gguf/gguf.h"
#include "model/families.h"

enum rope_scaling { ROPE_SCALING_NONE, ROPE_SCALING_LINEAR, ROPE_SCALING_YARN, ROPE_SCALING_LONGROPE };

/* How the rows of an input become one vector; numbers as in the files. */
enum pooling { POOLING_NONE, POOLING_MEAN, POOLING_CLS, POOLING_LAST, POOLING_RANK };

struct hyper_layer {
    u32 n_heads;    /* query heads */
    u32 n_kv_heads; /* divides n_heads */
    u32 n_ff;
    u32 window; /* 0 = full attention */
    bool rope;
};

struct hyper {
    const struct family *family;
    u32 n_layers;
    u32 n_embd;
    u32 n_vocab;
    u32 n_ctx_train;
    u32 head_dim;
    u32 n_rot; /* rotated values per head, even, <= head_dim */
    f32 norm_eps;
    struct hyper_layer *layers; /* [n_layers] */

    enum rope_scaling rope_scaling;
    f64 rope_base;
    f64 rope_base_windowed; /* of layers with a window; 0 = as rope_base with all scaling */
    f64 rope_factor;        /* context stretched by; 1 = not */
    f64 rope_attn_factor;   /* cos and sin are multiplied by it */
    f64 yarn_beta_fast, yarn_beta_slow, yarn_log_multiplier;
    u32 rope_ctx_orig; /* context before stretching */

    f32 embd_scale, residual_scale, logit_scale; /* 1 = off */
    f32 attn_scale;                              /* of q k */
    f32 attn_softcap, logit_softcap;             /* 0 = off */
    f32 position_scale;                          /* 0 = off */
    enum pooling pooling; /* never NONE: without a key encoders take the mean, others the last row */
};

/* Reads into out; layers come from arena. ERR_UNSUPPORTED: an architecture, or a part of one, that we do
 * not have. ERR_CORRUPT: a key that is missing or out of bounds. */
enum status hyper_read(const struct gguf *g, struct arena *arena, struct hyper *out,
                       struct err *err) MUST_USE;

#endif
