/* weights.c - one lookup function for matrices and one for vectors; a layer is a list of calls to them. */
#include "model/weights.h"

#include <stdio.h>

#include "base/limit.h"

#define NAME_BYTES 96

struct loader {
    const struct gguf *g;
    const struct hyper *h;
    struct arena *arena;
    struct err *err;
    bool *used;            /* [g->n_tensors] */
    char name[NAME_BYTES]; /* the last tensor asked for */
    u32 layer;             /* UINT32_MAX: not in a layer */
};

static enum status refuse_type(const struct gguf_tensor *t, struct err *err) {
    char list[256] = "";
    size_t n = 0;
    for (u32 type = 0; type < QUANT_TYPES && n < sizeof list - 16; type++)
        if (quant_supported(type))
            n += (size_t)snprintf(list + n, sizeof list - n, "%s%s", n ? ", " : "", quant_name(type));
    return err_set(err, ERR_UNSUPPORTED, "tensor %.*s is %s, which is not supported; supported are %s",
                   STR_FMT(t->name), quant_name(t->type), list);
}

static const struct gguf_tensor *find(struct loader *l, const char *name) {
    if (l->layer == UINT32_MAX)
        snprintf(l->name, sizeof l->name, "%s", name);
    else
        snprintf(l->name, sizeof l->name, "blk.%u.%s", l->layer, name);
    const struct gguf_tensor *t = gguf_tensor_find(l->g, str_of(l->name));
    if (t)
        l->used[t - l->g->tensors] = true;
    return t;
}

static enum status missing(struct loader *l) {
    return err_set(l->err, ERR_CORRUPT, "the file has no tensor %s", l->name);
}

static enum status wrong_shape(struct loader *l, const struct gguf_tensor *t, u64 d0, u64 d1) {
    return err_set(l->err, ERR_CORRUPT, "tensor %s has shape %llu x %llu x %llu x %llu, expected %llu x %llu",
                   l->name, (unsigned long long)t->dims[0], (unsigned long long)t->dims[1],
                   (unsigned long long)t->dims[2], (unsigned long long)t->dims[3], (unsigned long long)d0,
                   (unsigned long long)d1);
}

/* A vector of d0 x d1 values. In place if it is F32 and aligned, else decoded once: vectors are small. */
static enum status vector2(struct loader *l, const char *name, enum presence p, u32 d0, u32 d1,
                           const f32 **out) {
    *out = NULL;
    if (p == ABSENT)
        return OK;
    const struct gguf_tensor *t = find(l, name);
    if (!t)
        return p == CAN ? OK : missing(l);
    if (t->dims[0] != d0 || t->dims[1] != d1 || t->dims[2] != 1 || t->dims[3] != 1)
        return wrong_shape(l, t, d0, d1);
    if (t->type != QUANT_F32 && t->type != QUANT_F16 && t->type != QUANT_BF16)
        return err_set(l->err, ERR_UNSUPPORTED, "tensor %s is %s; a vector must be F32, F16 or BF16", l->name,
                       quant_name(t->type));
    size_t n = (size_t)d0 * d1;
    if (t->type == QUANT_F32 && (uintptr_t)t->data % _Alignof(f32) == 0) {
        *out = (const f32 *)(const void *)t->data;
        return OK;
    }
    f32 *copy = ARENA_ARRAY(l->arena, f32, n);
    quant_decode(t->type, t->data, copy, n);
    *out = copy;
    return OK;
}

static enum status vector(struct loader *l, const char *name, enum presence p, u32 n, const f32 **out) {
    return vector2(l, name, p, n, 1, out);
}

static enum status matrix(struct loader *l, const char *name, enum presence p, u32 N, u32 K,
                          struct kern_mat *out) {
    memset(out, 0, sizeof *out);
    const struct gguf_tensor *t = find(l, name);
    if (!t)
        return p == CAN ? OK : missing(l);
    if (t->dims[0] != K || t->dims[1] != N || t->dims[2] != 1 || t->dims[3] != 1)
        return wrong_shape(l, t, K, N);
    if (!quant_supported(t->type))
        return refuse_type(t, l->err);
    u32 block = quant_block_values(t->type);
    if (K % block != 0 || K % 16 != 0)
        return err_set(l->err, ERR_UNSUPPORTED,
                       "tensor %s of type %s has rows of %u values: no multiple of %u", l->name,
                       quant_name(t->type), K, MAX(block, 16u));
    out->data = t->data;
    out->type = (enum quant_type)t->type;
    out->N = N;
    out->K = K;
    out->row_bytes = quant_row_bytes(t->type, K);
    if ((u64)out->row_bytes * N != t->bytes)
        return err_set(l->err, ERR_CORRUPT, "tensor %s has %llu bytes, expected %llu", l->name,
                       (unsigned long long)t->bytes, (unsigned long long)out->row_bytes * N);
    return OK;
}

/* Rows first..first+n-1 of a matrix, as a matrix. */
static struct kern_mat mat_rows(const struct kern_mat *m, u32 first, u32 n) {
    struct kern_mat out = *m;
    out.data = m->data + m->row_bytes * first;
    out.N = n;
    return out;
}

static enum status open_qkv(struct loader *l, struct weights_layer *w, u32 n_q, u32 n_kv) {
    const struct family *f = l->h->family;
    u32 d = l->h->n_embd;
    if (!find(l, "attn_qkv.weight")) {
        TRY(matrix(l, "attn_q.weight", MUST, n_q, d, &w->q));
        TRY(matrix(l, "attn_k.weight", MUST, n_kv, d, &w->k));
        TRY(matrix(l, "attn_v.weight", MUST, n_kv, d, &w->v));
        TRY(vector(l, "attn_q.bias", f->qkv_bias, n_q, &w->q_bias));
        TRY(vector(l, "attn_k.bias", f->qkv_bias, n_kv, &w->k_bias));
        return vector(l, "attn_v.bias", f->qkv_bias, n_kv, &w->v_bias);
    }
    struct kern_mat all;
    const f32 *bias;
    TRY(matrix(l, "attn_qkv.weight", MUST, n_q + 2 * n_kv, d, &all));
    TRY(vector(l, "attn_qkv.bias", f->qkv_bias, n_q + 2 * n_kv, &bias));
    w->q = mat_rows(&all, 0, n_q);
    w->k = mat_rows(&all, n_q, n_kv);
    w->v = mat_rows(&all, n_q + n_kv, n_kv);
    w->q_bias = bias;
    w->k_bias = bias ? bias + n_q : NULL;
    w->v_bias = bias ? bias + n_q + n_kv : NULL;
    return OK;
}

static enum status open_qk_norm(struct loader *l, struct weights_layer *w, const struct hyper_layer *s) {
    u32 hd = l->h->head_dim;
    switch (l->h->family->qk_norm) {
    case QK_NORM_NONE: return OK;
    case QK_NORM_HEAD:
        TRY(vector(l, "attn_q_norm.weight", MUST, hd, &w->q_norm));
        return vector(l, "attn_k_norm.weight", MUST, hd, &w->k_norm);
    case QK_NORM_FULL:
        TRY(vector(l, "attn_q_norm.weight", MUST, hd * s->n_heads, &w->q_norm));
        return vector(l, "attn_k_norm.weight", MUST, hd * s->n_kv_heads, &w->k_norm);
    case QK_NORM_PER_HEAD:
        TRY(vector2(l, "attn_q_norm.weight", CAN, hd, s->n_heads, &w->q_norm));
        return vector2(l, "attn_k_norm.weight", CAN, hd, s->n_kv_heads, &w->k_norm);
    }
    return OK;
}

/* Families with a gate may store gate and up as the two halves of ffn_up. */
static enum status open_ffn(struct loader *l, struct weights_layer *w, u32 n_ff) {
    const struct family *f = l->h->family;
    u32 d = l->h->n_embd;
    const struct gguf_tensor *gate = find(l, "ffn_gate.weight");
    const struct gguf_tensor *up = find(l, "ffn_up.weight");
    if (f->ffn == FFN_GATED && !gate && up && up->dims[1] == 2 * (u64)n_ff) {
        struct kern_mat both;
        TRY(matrix(l, "ffn_up.weight", MUST, 2 * n_ff, d, &both));
        w->gate = mat_rows(&both, 0, n_ff);
        w->up = mat_rows(&both, n_ff, n_ff);
    } else {
        TRY(matrix(l, "ffn_up.weight", MUST, n_ff, d, &w->up));
        if (f->ffn == FFN_GATED)
            TRY(matrix(l, "ffn_gate.weight", MUST, n_ff, d, &w->gate));
        if (f->ffn == FFN_GATED)
            TRY(vector(l, "ffn_gate.bias", f->ffn_bias, n_ff, &w->gate_bias));
        TRY(vector(l, "ffn_up.bias", f->ffn_bias, n_ff, &w->up_bias));
    }
    TRY(matrix(l, "ffn_down.weight", MUST, d, n_ff, &w->down));
    return vector(l, "ffn_down.bias", f->ffn_bias, d, &w->down_bias);
}

/* Each half of an encoder's layer ends with a norm of the sum. */
static enum status open_encoder_layer(struct loader *l, struct weights_layer *w,
                                      const struct hyper_layer *s) {
    u32 d = l->h->n_embd;
    TRY(vector(l, "attn_output_norm.weight", MUST, d, &w->attn_post_norm));
    TRY(vector(l, "attn_output_norm.bias", MUST, d, &w->attn_post_norm_bias));
    TRY(open_ffn(l, w, s->n_ff));
    TRY(vector(l, "layer_output_norm.weight", MUST, d, &w->ffn_post_norm));
    return vector(l, "layer_output_norm.bias", MUST, d, &w->ffn_post_norm_bias);
}

static enum status open_layer(struct loader *l, struct weights_layer *w, const struct hyper_layer *s) {
    const struct family *f = l->h->family;
    u32 d = l->h->n_embd, hd = l->h->head_dim;
    TRY(vector(l, "attn_norm.weight", f->attn_norm, d, &w->attn_norm));
    TRY(vector(l, "attn_norm.bias", w->attn_norm ? f->norm_bias : ABSENT, d, &w->attn_norm_bias));
    TRY(open_qkv(l, w, s->n_heads * hd, s->n_kv_heads * hd));
    TRY(open_qk_norm(l, w, s));
    TRY(matrix(l, "attn_output.weight", MUST, d, s->n_heads * hd, &w->o));
    TRY(vector(l, "attn_output.bias", f->o_bias, d, &w->o_bias));
    if (f->encoder)
        return open_encoder_layer(l, w, s);
    TRY(vector(l, "post_attention_norm.weight", f->post_norms, d, &w->attn_post_norm));
    TRY(vector(l, "ffn_norm.weight", f->ffn_norm, d, &w->ffn_norm));
    TRY(vector(l, "ffn_norm.bias", w->ffn_norm ? f->norm_bias : ABSENT, d, &w->ffn_norm_bias));
    TRY(open_ffn(l, w, s->n_ff));
    return vector(l, "post_ffw_norm.weight", f->post_norms, d, &w->ffn_post_norm);
}

static enum status open_rank(struct loader *l, struct weights *w) {
    u32 d = l->h->n_embd;
    const struct gguf_tensor *out = find(l, "cls.output.weight");
    TRY(matrix(l, "cls.weight", out ? CAN : MUST, d, d, &w->cls));
    TRY(vector(l, "cls.bias", w->cls.data ? CAN : ABSENT, d, &w->cls_bias));
    if (!out)
        return OK;
    if (out->dims[1] < 1 || out->dims[1] > LIMIT_WIDTH)
        return wrong_shape(l, out, d, 1);
    u32 n_labels = (u32)out->dims[1];
    TRY(matrix(l, "cls.output.weight", MUST, n_labels, d, &w->cls_out));
    return vector(l, "cls.output.bias", CAN, n_labels, &w->cls_out_bias);
}

/* What stands around the layers of an encoder. */
static enum status open_encoder(struct loader *l, struct weights *w) {
    u32 d = l->h->n_embd;
    const struct gguf_tensor *types = find(l, "token_types.weight");
    if (l->h->family->position_embd)
        TRY(matrix(l, "position_embd.weight", MUST, l->h->n_ctx_train, d, &w->position_embd));
    if (types && (types->dims[1] < 1 || types->dims[1] > LIMIT_WIDTH))
        return wrong_shape(l, types, d, 1);
    if (types)
        TRY(matrix(l, "token_types.weight", MUST, (u32)types->dims[1], d, &w->token_types));
    TRY(vector(l, "token_embd_norm.weight", MUST, d, &w->embd_norm));
    TRY(vector(l, "token_embd_norm.bias", MUST, d, &w->embd_norm_bias));
    return l->h->pooling == POOLING_RANK ? open_rank(l, w) : OK;
}

static enum status open_head(struct loader *l, struct weights *w) {
    const struct family *f = l->h->family;
    TRY(vector(l, "output_norm.weight", MUST, l->h->n_embd, &w->output_norm));
    TRY(vector(l, "output_norm.bias", f->norm_bias, l->h->n_embd, &w->output_norm_bias));
    if (f->output != ABSENT)
        TRY(matrix(l, "output.weight", f->output, l->h->n_vocab, l->h->n_embd, &w->output));
    if (!w->output.data)
        w->output = w->embd;
    return vector(l, "output.bias", f->output_bias ? CAN : ABSENT, l->h->n_vocab, &w->output_bias);
}

static enum status open_rope(struct loader *l, struct weights *w) {
    enum presence factors = l->h->rope_scaling == ROPE_SCALING_LONGROPE ? MUST : CAN;
    TRY(vector(l, "rope_freqs.weight", CAN, l->h->n_rot / 2, &w->rope_usual));
    if (!w->rope_usual) {
        TRY(vector(l, "rope_factors_short.weight", factors, l->h->n_rot / 2, &w->rope_usual));
        TRY(vector(l, "rope_factors_long.weight", factors, l->h->n_rot / 2, &w->rope_long));
    }
    for (u32 i = 0; i < l->h->n_rot / 2; i++) {
        f32 a = w->rope_usual ? w->rope_usual[i] : 1, b = w->rope_long ? w->rope_long[i] : 1;
        if (!(a >= 1e-3f && a <= 1e6f && b >= 1e-3f && b <= 1e6f))
            return err_set(l->err, ERR_CORRUPT, "a rope factor of pair %u is not within 0.001 to 1000000", i);
    }
    return OK;
}

/* A tensor that nobody reads means a model that differs from what we compute: a bias, a norm, a layer more.
 */
static enum status check_all_used(struct loader *l) {
    for (u32 i = 0; i < l->g->n_tensors; i++) {
        struct str name = l->g->tensors[i].name;
        bool derived =
            str_ends(name, STR(".attn_rot_embd.freqs")) || str_ends(name, STR(".attn_rot_embd.weight"));
        if (!l->used[i] && !derived)
            return err_set(l->err, ERR_UNSUPPORTED,
                           "tensor %.*s has no place in a model of architecture %s with %u layers",
                           STR_FMT(str_slice(name, 0, 128)), l->h->family->arch, l->h->n_layers);
    }
    return OK;
}

enum status weights_open(const struct gguf *g, const struct hyper *h, struct arena *arena, struct weights *w,
                         struct err *err) {
    struct loader loader = {.g = g, .h = h, .arena = arena, .err = err, .layer = UINT32_MAX}, *l = &loader;
    memset(w, 0, sizeof *w);
    l->used = ARENA_ARRAY(arena, bool, g->n_tensors);
    TRY(matrix(l, "token_embd.weight", MUST, h->n_vocab, h->n_embd, &w->embd));
    TRY(h->family->encoder ? open_encoder(l, w) : open_head(l, w));
    TRY(open_rope(l, w));
    w->layers = ARENA_ARRAY(arena, struct weights_layer, h->n_layers);
    for (u32 i = 0; i < h->n_layers; i++) {
        l->layer = i;
        TRY(open_layer(l, &w->layers[i], &h->layers[i]));
    }
    return check_all_used(l);
}

enum status weights_check_types(const struct gguf *g, struct err *err) {
    for (u32 i = 0; i < g->n_tensors; i++)
        if (!quant_supported(g->tensors[i].type))
            return refuse_type(&g->tensors[i], err);
    return OK;
}
