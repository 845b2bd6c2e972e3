/* hyper.c - reads the keys "<arch>.<name>". Every value is bounded before anything is computed from it. */
#include "model/hyper.h"

#include <math.h>
#include <stdio.h>

#include "base/limit.h"

#define KEY_BYTES 160

struct reader {
    const struct gguf *g;
    struct str arch;
    struct err *err;
    char key[KEY_BYTES]; /* the last one asked for, for messages */
};

static struct str key_of(struct reader *r, const char *name) {
    int n = snprintf(r->key, sizeof r->key, "%.*s.%s", STR_FMT(r->arch), name);
    return (struct str){r->key, (size_t)MIN(n, KEY_BYTES - 1)};
}

static enum status read_u32(struct reader *r, const char *name, bool must, u32 min, u32 max, u32 *out) {
    struct str key = key_of(r, name);
    const struct gguf_kv *kv = gguf_find(r->g, key);
    if (!kv)
        return must ? err_set(r->err, ERR_CORRUPT, "the file has no key %s", r->key) : OK;
    u32 v = 0;
    if (!gguf_get_u32(r->g, key, &v))
        return err_set(r->err, ERR_CORRUPT, "%s is not a whole number", r->key);
    if (v < min || v > max)
        return err_set(r->err, ERR_CORRUPT, "%s is %u, not within %u to %u", r->key, v, min, max);
    *out = v;
    return OK;
}

static enum status read_f64(struct reader *r, const char *name, bool must, f64 min, f64 max, f64 *out) {
    struct str key = key_of(r, name);
    if (!gguf_find(r->g, key))
        return must ? err_set(r->err, ERR_CORRUPT, "the file has no key %s", r->key) : OK;
    f32 v = 0;
    if (!gguf_get_f32(r->g, key, &v))
        return err_set(r->err, ERR_CORRUPT, "%s is not a number", r->key);
    if (!((f64)v >= min && (f64)v <= max))
        return err_set(r->err, ERR_CORRUPT, "%s is %g, not within %g to %g", r->key, (f64)v, min, max);
    *out = v;
    return OK;
}

static enum status read_f32(struct reader *r, const char *name, bool must, f64 min, f64 max, f32 *out) {
    f64 v = *out;
    TRY(read_f64(r, name, must, min, max, &v));
    *out = (f32)v;
    return OK;
}

/* A number for all layers, or an array with one per layer. */
static enum status read_layer_u32(struct reader *r, const char *name, u32 layer, u32 n_layers, u32 max,
                                  bool *found, u32 *out) {
    struct str key = key_of(r, name);
    const struct gguf_kv *kv = gguf_find(r->g, key);
    *found = kv != NULL;
    if (!kv)
        return OK;
    bool good;
    if (kv->type != GGUF_ARRAY)
        good = gguf_get_u32(r->g, key, out);
    else if (kv->n != n_layers)
        return err_set(r->err, ERR_CORRUPT, "%s has %llu values for %u layers", r->key,
                       (unsigned long long)kv->n, n_layers);
    else
        good = gguf_elem_u32(kv, layer, out);
    if (!good)
        return err_set(r->err, ERR_CORRUPT, "%s of layer %u is not a whole number", r->key, layer);
    if (*out < 1 || *out > max)
        return err_set(r->err, ERR_CORRUPT, "%s of layer %u is %u, not within 1 to %u", r->key, layer, *out,
                       max);
    return OK;
}

static enum status read_layers(struct reader *r, struct hyper *h) {
    for (u32 i = 0; i < h->n_layers; i++) {
        struct hyper_layer *l = &h->layers[i];
        bool found;
        TRY(read_layer_u32(r, "attention.head_count", i, h->n_layers, LIMIT_WIDTH / 16, &found, &l->n_heads));
        if (!found)
            return err_set(r->err, ERR_CORRUPT, "the file has no key %s", r->key);
        l->n_kv_heads = l->n_heads;
        TRY(read_layer_u32(r, "attention.head_count_kv", i, h->n_layers, l->n_heads, &found, &l->n_kv_heads));
        if (l->n_heads % l->n_kv_heads != 0)
            return err_set(r->err, ERR_CORRUPT, "layer %u has %u heads, no multiple of its %u KV heads", i,
                           l->n_heads, l->n_kv_heads);
        TRY(read_layer_u32(r, "feed_forward_length", i, h->n_layers, LIMIT_WIDTH, &found, &l->n_ff));
        if (!found)
            return err_set(r->err, ERR_CORRUPT, "the file has no key %s", r->key);
    }
    return OK;
}

static enum status read_heads(struct reader *r, struct hyper *h) {
    u32 n_heads = h->layers[0].n_heads;
    h->head_dim = h->n_embd / n_heads;
    TRY(read_u32(r, "attention.key_length", false, 1, 4096, &h->head_dim));
    u32 value_dim = h->head_dim;
    TRY(read_u32(r, "attention.value_length", false, 1, 4096, &value_dim));
    if (value_dim != h->head_dim)
        return err_set(r->err, ERR_UNSUPPORTED,
                       "keys of %u and values of %u per head: only equal sizes are supported", h->head_dim,
                       value_dim);
    if (h->head_dim == 0 || h->head_dim % 16 != 0 || h->head_dim > 256)
        return err_set(r->err, ERR_UNSUPPORTED, "head size %u: only multiples of 16 up to 256 are supported",
                       h->head_dim);
    h->n_rot = h->head_dim;
    if (h->family->encoder && h->n_ctx_train > LIMIT_NUM_CTX)
        return err_set(r->err, ERR_UNSUPPORTED, "a context of %u tokens: an encoder reads at most %u at once",
                       h->n_ctx_train, LIMIT_NUM_CTX);
    TRY(read_u32(r, "rope.dimension_count", false, 2, h->head_dim, &h->n_rot));
    if (h->n_rot % 2 != 0)
        return err_set(r->err, ERR_CORRUPT, "rope.dimension_count is %u: rotated values come in pairs",
                       h->n_rot);
    for (u32 i = 0; i < h->n_layers; i++)
        if ((u64)h->layers[i].n_heads * h->head_dim > LIMIT_WIDTH)
            return err_set(r->err, ERR_CORRUPT, "layer %u has %u heads of %u values: over the limit of %u", i,
                           h->layers[i].n_heads, h->head_dim, LIMIT_WIDTH);
    return OK;
}

static enum status read_rope(struct reader *r, struct hyper *h) {
    h->rope_base = 10000;
    TRY(read_f64(r, "rope.freq_base", false, 1.0001, 1e12, &h->rope_base));
    h->rope_base_windowed = h->family->rope_base_windowed;
    if (h->family->window_period)
        TRY(read_f64(r, "rope.freq_base_swa", false, 1.0001, 1e12, &h->rope_base_windowed));
    struct str key = key_of(r, "rope.dimension_sections");
    if (gguf_find(r->g, key))
        return err_set(r->err, ERR_UNSUPPORTED, "%s: rope over several axes is not supported", r->key);
    struct str kind = STR("linear");
    key = key_of(r, "rope.scaling.type");
    if (gguf_find(r->g, key) && !gguf_get_str(r->g, key, &kind))
        return err_set(r->err, ERR_CORRUPT, "%s is not a text", r->key);
    if (str_is(kind, "none"))
        h->rope_scaling = ROPE_SCALING_NONE;
    else if (str_is(kind, "linear"))
        h->rope_scaling = ROPE_SCALING_LINEAR;
    else if (str_is(kind, "yarn"))
        h->rope_scaling = ROPE_SCALING_YARN;
    else if (str_is(kind, "longrope"))
        h->rope_scaling = ROPE_SCALING_LONGROPE;
    else
        return err_set(r->err, ERR_UNSUPPORTED,
                       "rope scaling \"%.*s\": supported are none, linear, yarn, longrope", STR_FMT(kind));
    h->rope_factor = 1;
    TRY(read_f64(r, "rope.scale_linear", false, 0, 1e6, &h->rope_factor)); /* the key's old name */
    TRY(read_f64(r, "rope.scaling.factor", false, 0, 1e6, &h->rope_factor));
    if (h->rope_factor == 0 || h->rope_scaling == ROPE_SCALING_NONE)
        h->rope_factor = 1;
    if (h->rope_factor < 1e-3)
        return err_set(r->err, ERR_CORRUPT, "rope.scaling.factor %g is too small", h->rope_factor);
    h->rope_attn_factor = 1;
    TRY(read_f64(r, "rope.scaling.attn_factor", false, 1e-3, 1e3, &h->rope_attn_factor));
    h->rope_ctx_orig = h->n_ctx_train;
    TRY(read_u32(r, "rope.scaling.original_context_length", false, 1, UINT32_MAX / 2, &h->rope_ctx_orig));
    h->yarn_beta_fast = 32;
    h->yarn_beta_slow = 1;
    TRY(read_f64(r, "rope.scaling.yarn_beta_fast", false, 1e-3, 1e6, &h->yarn_beta_fast));
    TRY(read_f64(r, "rope.scaling.yarn_beta_slow", false, 1e-3, 1e6, &h->yarn_beta_slow));
    return read_f64(r, "rope.scaling.yarn_log_multiplier", false, 0, 1e3, &h->yarn_log_multiplier);
}

static enum status read_windows(struct reader *r, struct hyper *h) {
    const struct family *f = h->family;
    u32 window = f->window_default;
    u32 period = f->window_period;
    bool windows = period != 0 && (!f->window_64_only || h->n_layers == 64);
    const struct gguf_kv *pattern = NULL;
    if (windows) {
        TRY(read_u32(r, "attention.sliding_window", false, 0, LIMIT_NUM_CTX, &window));
        windows = window != 0;
        pattern = gguf_find(r->g, key_of(r, "attention.sliding_window_pattern"));
        if (pattern && pattern->type != GGUF_ARRAY) {
            TRY(read_u32(r, "attention.sliding_window_pattern", false, 1, LIMIT_LAYERS, &period));
            pattern = NULL;
        }
        if (pattern && pattern->n < h->n_layers)
            return err_set(r->err, ERR_CORRUPT, "%s has %llu values for %u layers", r->key,
                           (unsigned long long)pattern->n, h->n_layers);
    }
    bool rope = f->rope_layers != ROPE_NONE;
    if (f->rope_switch && gguf_find(r->g, key_of(r, "rope.scaling.finetuned")) &&
        !gguf_get_bool(r->g, key_of(r, "rope.scaling.finetuned"), &rope))
        return err_set(r->err, ERR_CORRUPT, "%s is not true or false", r->key);
    for (u32 i = 0; i < h->n_layers; i++) {
        struct hyper_layer *l = &h->layers[i];
        bool windowed = windows && i % period < period - 1;
        if (windows && pattern && !gguf_elem_bool(pattern, i, &windowed))
            return err_set(r->err, ERR_CORRUPT, "%s has elements that are not true or false", r->key);
        l->window = windowed ? window : 0;
        l->rope =
            rope && (f->rope_layers == ROPE_ALL || (f->rope_layers == ROPE_NOT_EVERY_4TH && i % 4 != 3) ||
                     (f->rope_layers == ROPE_WINDOWED_ONLY && (windowed || !windows)));
    }
    return OK;
}

static enum status read_scales(struct reader *r, struct hyper *h) {
    const struct family *f = h->family;
    h->embd_scale = f->embd_scale_sqrt ? (f32)sqrt((f64)h->n_embd) : 1;
    h->residual_scale = 1;
    u32 query_width = h->head_dim;
    if (f->wide_query_layers && h->n_layers == f->wide_query_layers)
        query_width = MAX(1u, h->n_embd / h->layers[0].n_heads);
    h->attn_scale = (f32)(1 / sqrt((f64)query_width));
    if (f->scales) {
        f32 attn_scale = 0;
        TRY(read_f32(r, "embedding_scale", false, 0, 1e6, &h->embd_scale));
        TRY(read_f32(r, "residual_scale", false, 0, 1e6, &h->residual_scale));
        TRY(read_f32(r, "attention.scale", false, 0, 1e3, &attn_scale));
        if (attn_scale != 0)
            h->attn_scale = attn_scale;
        if (h->embd_scale == 0)
            h->embd_scale = 1;
        if (h->residual_scale == 0)
            h->residual_scale = 1;
    }
    h->logit_scale = 1;
    if (f->logit_scale != ABSENT) {
        TRY(read_f32(r, "logit_scale", f->logit_scale == MUST, 1e-6, 1e6, &h->logit_scale));
        if (f->logit_divide)
            h->logit_scale = 1 / h->logit_scale;
    }
    if (f->softcaps) {
        TRY(read_f32(r, "attn_logit_softcapping", false, 0, 1e6, &h->attn_softcap));
        TRY(read_f32(r, "final_logit_softcapping", false, 0, 1e6, &h->logit_softcap));
    }
    if (f->position_scale)
        TRY(read_f32(r, "attention.temperature_scale", false, 0, 1e3, &h->position_scale));
    return OK;
}

static enum status read_pooling(struct reader *r, struct hyper *h) {
    u32 kind = POOLING_NONE;
    TRY(read_u32(r, "pooling_type", false, 0, POOLING_RANK, &kind));
    h->pooling = (enum pooling)kind;
    if (h->pooling == POOLING_NONE)
        h->pooling = h->family->encoder ? POOLING_MEAN : POOLING_LAST;
    if (!h->family->encoder && (h->pooling == POOLING_RANK || h->pooling == POOLING_CLS))
        return err_set(r->err, ERR_UNSUPPORTED,
                       "%s is %u: a model that generates embeds by its last row or the mean", r->key, kind);
    return OK;
}

/* Rows of the embedding are the vocabulary; the tokenizer's list must agree. */
static enum status read_vocab(struct reader *r, struct hyper *h) {
    const struct gguf_tensor *t = gguf_tensor_find(r->g, STR("token_embd.weight"));
    if (!t)
        return err_set(r->err, ERR_CORRUPT, "the file has no tensor token_embd.weight");
    if (t->n_dims != 2 || t->dims[1] < 1 || t->dims[1] > LIMIT_VOCAB)
        return err_set(r->err, ERR_CORRUPT,
                       "token_embd.weight has no shape of an embedding of 1 to %u tokens", LIMIT_VOCAB);
    h->n_vocab = (u32)t->dims[1];
    const struct gguf_kv *tokens = gguf_find(r->g, STR("tokenizer.ggml.tokens"));
    if (tokens && tokens->n != h->n_vocab)
        return err_set(r->err, ERR_CORRUPT, "tokenizer.ggml.tokens has %llu tokens, token_embd.weight %u",
                       (unsigned long long)tokens->n, h->n_vocab);
    return OK;
}

static enum status refuse_arch(struct str arch, struct err *err) {
    char list[512] = "";
    size_t n = 0;
    for (u32 i = 0; i < n_families && n < sizeof list - 32; i++)
        n += (size_t)snprintf(list + n, sizeof list - n, "%s%s", i ? ", " : "", families[i].arch);
    return err_set(err, ERR_UNSUPPORTED, "architecture \"%.*s\" is not supported; supported are %s",
                   STR_FMT(str_slice(arch, 0, 64)), list);
}

enum status hyper_read(const struct gguf *g, struct arena *arena, struct hyper *out, struct err *err) {
    struct hyper *h = out;
    memset(h, 0, sizeof *h);
    struct reader reader = {.g = g, .err = err}, *r = &reader;
    if (!gguf_get_str(g, STR("general.architecture"), &r->arch))
        return err_set(err, ERR_CORRUPT, "the file has no key general.architecture");
    h->family = family_find(r->arch);
    if (!h->family)
        return refuse_arch(r->arch, err);
    u32 n_experts = 0;
    TRY(read_u32(r, "expert_count", false, 0, UINT32_MAX, &n_experts));
    if (n_experts != 0)
        return err_set(err, ERR_UNSUPPORTED, "%s is %u: models with experts are not supported", r->key,
                       n_experts);
    TRY(read_u32(r, "block_count", true, 1, LIMIT_LAYERS, &h->n_layers));
    TRY(read_u32(r, "embedding_length", true, 16, LIMIT_WIDTH, &h->n_embd));
    TRY(read_u32(r, "context_length", true, 1, UINT32_MAX / 2, &h->n_ctx_train));
    TRY(read_f32(
        r, h->family->norm == NORM_RMS ? "attention.layer_norm_rms_epsilon" : "attention.layer_norm_epsilon",
        true, 1e-30, 1, &h->norm_eps));
    h->layers = ARENA_ARRAY(arena, struct hyper_layer, h->n_layers);
    TRY(read_layers(r, h));
    TRY(read_heads(r, h));
    TRY(read_rope(r, h));
    TRY(read_windows(r, h));
    TRY(read_scales(r, h));
    TRY(read_pooling(r, h));
    return read_vocab(r, h);
}
