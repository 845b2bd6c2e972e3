/* weights.h - every tensor of a model, found by name, checked for shape and type, used in place. */
#ifndef MINKA_MODEL_WEIGHTS_H
#define MINKA_MODEL_WEIGHTS_H

#include "base/arena.h"
#include "kern/kern.h"
#include "model/hyper.h"

/* Matrices are [N outputs][K inputs]; vectors NULL where the family or the file has none. */
struct weights_layer {
    const f32 *attn_norm, *attn_norm_bias;           /* [n_embd] */
    const f32 *q_norm, *k_norm;                      /* by the family's kind of QK norm */
    const f32 *attn_post_norm, *attn_post_norm_bias; /* [n_embd] */
    const f32 *ffn_norm, *ffn_norm_bias;             /* [n_embd] */
    const f32 *ffn_post_norm, *ffn_post_norm_bias;   /* [n_embd] */
    struct kern_mat q, k, v; /* [n_heads * head_dim][n_embd], k and v [n_kv_heads * head_dim][n_embd] */
    const f32 *q_bias, *k_bias, *v_bias;
    struct kern_mat o; /* [n_embd][n_heads * head_dim] */
    const f32 *o_bias;
    struct kern_mat gate, up; /* [n_ff][n_embd]; gate.N = 0 if the family has none */
    const f32 *gate_bias, *up_bias;
    struct kern_mat down; /* [n_embd][n_ff] */
    const f32 *down_bias;
};

struct weights {
    struct kern_mat embd; /* [n_vocab][n_embd] */
    const f32 *output_norm, *output_norm_bias;
    struct kern_mat output;            /* [n_vocab][n_embd], maybe the embedding again */
    const f32 *output_bias;            /* [n_vocab] */
    const f32 *rope_usual, *rope_long; /* [n_rot / 2] factors */
    struct weights_layer *layers;      /* [n_layers] */
    /* Encoders: */
    struct kern_mat position_embd;         /* [n_ctx_train][n_embd]; data NULL where the family has none */
    struct kern_mat token_types;           /* [..][n_embd], row 0 is added to every token; maybe NULL */
    const f32 *embd_norm, *embd_norm_bias; /* [n_embd] */
    struct kern_mat cls,
        cls_out; /* [n_embd][n_embd], [n_labels][n_embd] with POOLING_RANK, one of them at least */
    const f32 *cls_bias, *cls_out_bias;
};

/* Wires up out; arrays and the few vectors that are not F32 in the file come from arena. ERR_CORRUPT names
 * the tensor that is missing or has another shape, ERR_UNSUPPORTED the one of a type we do not compute. */
enum status weights_open(const struct gguf *g, const struct hyper *h, struct arena *arena,
                         struct weights *out, struct err *err) MUST_USE;
/* ERR_UNSUPPORTED if any tensor of the file has a type that we do not compute. */
enum status weights_check_types(const struct gguf *g, struct err *err) MUST_USE;

#endif
