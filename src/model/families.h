/* families.h - what tells one transformer family from another: a row of facts per architecture name.
 * forward.c, hyper.c and weights.c read the row; no other file knows a family by name.
 * Facts from the implementations of llama.cpp (src/models) and the models' own papers. */
#ifndef MINKA_MODEL_FAMILIES_H
#define MINKA_MODEL_FAMILIES_H

#include "base/str.h"

enum norm_kind { NORM_RMS, NORM_LAYER };

/* Norm of queries and keys before rope. */
enum qk_norm {
    QK_NORM_NONE,
    QK_NORM_HEAD,     /* each head by itself, one weight vector [head_dim] for all */
    QK_NORM_FULL,     /* the whole vector of all heads, weight [heads * head_dim] */
    QK_NORM_PER_HEAD, /* optional tensor; each head by itself, an own weight per head, as norm */
};

/* Which tensors a layer may (CAN) or must (MUST) have. */
enum presence { ABSENT, CAN, MUST };

enum rope_layers {
    ROPE_ALL,
    ROPE_NOT_EVERY_4TH, /* layers 3, 7, 11 ... have no position (smollm3) */
    ROPE_WINDOWED_ONLY, /* only layers with a window, if there are any (cohere2, exaone4) */
    ROPE_NONE,          /* positions are embedded, or bend the scores (bert, jina-bert-v2) */
};

enum ffn_kind {
    FFN_GATED, /* down(act(gate(x)) * up(x)) */
    FFN_PLAIN, /* down(act(up(x))) */
};

enum activation { ACT_SILU, ACT_GELU };

struct family {
    const char *arch; /* general.architecture */
    enum norm_kind norm;
    enum presence norm_bias;
    enum presence attn_norm;  /* norm before attention; ABSENT: the residual itself is read */
    enum presence ffn_norm;   /* CAN: a layer without it reads the input of its attention (parallel) */
    bool parallel;            /* no second norm at all: attention and FFN read the same input */
    enum presence post_norms; /* norms of the results before they join the residual */
    enum presence qkv_bias, o_bias, ffn_bias;
    enum presence output; /* CAN: else token_embd is the head; ABSENT: always */
    bool output_bias;     /* optional bias of the head */
    enum qk_norm qk_norm;
    bool rope_neox; /* rotated pairs are (i, i + n_rot/2), else (2i, 2i + 1) */
    enum rope_layers rope_layers;
    bool rope_switch; /* rope.scaling.finetuned = false turns rope off */
    /* Of every window_period layers the last one is full, the others see a window of keys. 0: no windows,
     * even if the file names one. */
    u32 window_period;
    u32 window_default;     /* 0: full attention if the file names no window */
    f32 rope_base_windowed; /* 0: windowed layers rotate as all others */
    bool window_64_only;    /* windows only in the variant of 64 layers (exaone4) */
    enum ffn_kind ffn;
    enum activation activation;
    bool embd_scale_sqrt; /* embeddings * sqrt(n_embd) */
    bool scales;          /* reads embedding_scale, residual_scale, attention.scale */
    enum presence logit_scale;
    bool logit_divide;     /* logits / logit_scale instead of * */
    bool softcaps;         /* reads attn_logit_softcapping and final_logit_softcapping */
    u32 wide_query_layers; /* the variant of so many layers scales queries by sqrt(n_embd / heads) */
    bool position_scale;   /* reads attention.temperature_scale: queries grow with the position */
    bool encoder;          /* reads whole inputs in both directions and embeds them: encoder.c */
    bool position_embd;    /* adds a learned vector per position */
    bool alibi;            /* scores sink with the distance (ALiBi) */
};

extern const struct family families[];
extern const u32 n_families;

const struct family *family_find(struct str arch); /* NULL if unknown */

#endif
