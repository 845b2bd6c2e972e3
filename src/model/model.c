/* model.c - opens a model: hyperparameters, weights, frequencies, and where each layer's keys live. */
#include "model/model.h"

#include <stdlib.h>

#include "base/fmath.h"
#include "base/limit.h"
#include "model/internal.h"

/* Layers of one shape and window share a group: their pages live and die together. */
static enum status place_layers(const struct hyper *h, enum kern_cache cache, struct kv_layout *kv,
                                struct model_layer *layers, struct err *err) {
    memset(kv, 0, sizeof *kv);
    for (u32 i = 0; i < h->n_layers; i++) {
        struct kv_group want = {.n_layers = 0,
                                .n_kv_heads = h->layers[i].n_kv_heads,
                                .head_dim = h->head_dim,
                                .elem_bytes = (u32)kern_cache_bytes(cache),
                                .scale_bytes = (u32)kern_cache_scale_bytes(cache, h->head_dim),
                                .window = h->layers[i].window};
        u32 g = 0;
        while (g < kv->n_groups &&
               !(kv->groups[g].n_kv_heads == want.n_kv_heads && kv->groups[g].window == want.window))
            g++;
        if (g == KV_GROUPS_MAX)
            return err_set(err, ERR_UNSUPPORTED, "the layers have more than %u kinds of KV heads and windows",
                           KV_GROUPS_MAX);
        if (g == kv->n_groups)
            kv->groups[kv->n_groups++] = want;
        if (layers) {
            layers[i].group = g;
            layers[i].in_group = kv->groups[g].n_layers;
        }
        kv->groups[g].n_layers++;
    }
    return OK;
}

static enum status count_params(const struct gguf *g, struct model_info *info, struct err *err) {
    for (u32 i = 0; i < g->n_tensors; i++) {
        const struct gguf_tensor *t = &g->tensors[i];
        u64 n = t->dims[0];
        bool over = mul_overflow(n, t->dims[1], &n) || mul_overflow(n, t->dims[2], &n) ||
                    mul_overflow(n, t->dims[3], &n) || add_overflow(info->n_params, n, &info->n_params) ||
                    add_overflow(info->weights_bytes, t->bytes, &info->weights_bytes);
        if (over)
            return err_set(err, ERR_CORRUPT, "tensor %.*s is larger than any memory",
                           STR_FMT(str_slice(t->name, 0, 128)));
    }
    return OK;
}

static enum status fill_info(const struct gguf *g, const struct hyper *h, enum kern_cache cache,
                             struct model_layer *layers, struct model_info *out, struct err *err) {
    memset(out, 0, sizeof *out);
    TRY(weights_check_types(g, err));
    TRY(count_params(g, out, err));
    check(gguf_get_str(g, STR("general.architecture"), &out->arch));
    out->n_layers = h->n_layers;
    out->n_embd = h->n_embd;
    out->head_dim = h->head_dim;
    out->n_vocab = h->n_vocab;
    out->n_ctx_train = h->n_ctx_train;
    for (u32 i = 0; i < h->n_layers; i++) {
        out->n_heads = MAX(out->n_heads, h->layers[i].n_heads);
        out->n_kv_heads = MAX(out->n_kv_heads, h->layers[i].n_kv_heads);
    }
    out->encoder = h->family->encoder;
    out->pooling = h->pooling;
    out->n_out = h->n_embd;
    const struct gguf_tensor *labels = gguf_tensor_find(g, STR("cls.output.weight"));
    if (h->pooling == POOLING_RANK && labels && labels->dims[1] <= LIMIT_WIDTH)
        out->n_out = (u32)labels->dims[1];
    return out->encoder ? OK : place_layers(h, cache, &out->kv, layers, err);
}

enum status model_info_read(const struct gguf *g, enum kern_cache cache, struct model_info *out,
                            struct err *err) {
    struct arena arena;
    struct hyper h;
    arena_init(&arena, 0);
    enum status s = hyper_read(g, &arena, &h, err);
    if (s == OK)
        s = fill_info(g, &h, cache, NULL, out, err);
    arena_release(&arena);
    return s;
}

static void need_format(const struct model *m, const struct kern_mat *w, bool *q8, bool *q8_256) {
    if (!w->data)
        return;
    enum kern_act kind = kern_act_kind(w->type, m->config.f32_activations);
    *q8 |= kind == KERN_ACT_Q8;
    *q8_256 |= kind == KERN_ACT_Q8_256;
}

static void need_wide(struct model *m, const struct kern_mat *w) {
    bool q8 = false, q8_256 = false;
    need_format(m, w, &q8, &q8_256);
    if (q8 || q8_256)
        m->wide_K[q8_256] = MAX(m->wide_K[q8_256], w->K);
}

/* Which layers feed attention and FFN from the same normed input, and in which formats inputs are read. */
static void plan_inputs(struct model *m) {
    need_format(m, &m->w.output, &m->embd_kinds[0], &m->embd_kinds[1]);
    need_format(m, &m->w.cls, &m->embd_kinds[0], &m->embd_kinds[1]);
    need_format(m, &m->w.cls_out, &m->embd_kinds[0], &m->embd_kinds[1]);
    for (u32 i = 0; i < m->h.n_layers; i++) {
        struct model_layer *l = &m->layers[i];
        const struct weights_layer *w = &m->w.layers[i];
        l->parallel = m->h.family->parallel || (m->h.family->ffn_norm == CAN && !w->ffn_norm);
        need_format(m, &w->q, &l->q8, &l->q8_256);
        need_format(m, &w->k, &l->q8, &l->q8_256);
        need_format(m, &w->v, &l->q8, &l->q8_256);
        need_format(m, &w->gate, &l->ffn_q8, &l->ffn_q8_256);
        need_format(m, &w->up, &l->ffn_q8, &l->ffn_q8_256);
        if (l->parallel) {
            l->q8 |= l->ffn_q8;
            l->q8_256 |= l->ffn_q8_256;
        }
        m->embd_kinds[0] |= l->q8 || l->ffn_q8;
        m->embd_kinds[1] |= l->q8_256 || l->ffn_q8_256;
        need_wide(m, &w->o);
        need_wide(m, &w->down);
        const struct hyper_layer *s = &m->h.layers[i];
        m->q_width = MAX(m->q_width, s->n_heads * m->h.head_dim);
        m->kv_width = MAX(m->kv_width, s->n_kv_heads * m->h.head_dim);
        m->n_ff = MAX(m->n_ff, s->n_ff);
        m->group_max = MAX(m->group_max, s->n_heads / s->n_kv_heads);
    }
}

/* Slopes of ALiBi: powers of two of the heads' number, as its paper has them, with a largest bias of 8. */
static void plan_alibi(struct model *m) {
    u32 n_heads = m->info.n_heads, low = 1;
    if (!m->h.family->alibi)
        return;
    while (low * 2 <= n_heads)
        low *= 2;
    m->alibi = ARENA_ARRAY(&m->arena, f32, n_heads);
    for (u32 h = 0; h < n_heads; h++) {
        f64 power = h < low ? 8.0 / low * (h + 1) : 4.0 / low * (2 * (h - low) + 1);
        m->alibi[h] = (f32)fm_exp(-power * 0.6931471805599453);
    }
}

static enum status open_into(struct model *m, const struct gguf *g, struct err *err) {
    TRY(hyper_read(g, &m->arena, &m->h, err));
    m->layers = ARENA_ARRAY(&m->arena, struct model_layer, m->h.n_layers);
    TRY(fill_info(g, &m->h, m->config.cache, m->layers, &m->info, err));
    TRY(weights_open(g, &m->h, &m->arena, &m->w, err));
    ropes_init(&m->ropes, &m->h, m->w.rope_usual, m->w.rope_long, &m->arena);
    plan_inputs(m);
    plan_alibi(m);
    return OK;
}

enum status model_open(const struct gguf *g, const struct model_config *c, struct model **out,
                       struct err *err) {
    struct model *m = xcalloc(1, sizeof *m);
    arena_init(&m->arena, 0);
    m->config = *c;
    enum status s = open_into(m, g, err);
    if (s != OK) {
        model_close(m);
        return s;
    }
    *out = m;
    return OK;
}

void model_close(struct model *m) {
    if (!m)
        return;
    arena_release(&m->arena);
    free(m);
}

const struct model_info *model_info(const struct model *m) { return &m->info; }

u64 model_bytes(const struct model *m) { return sizeof *m + m->arena.used_bytes; }

u64 model_kv_identity(const struct model *m, u64 file_digest, u32 num_ctx) {
    struct {
        u64 digest;
        u32 numerics, cache, f32_activations, lengthy;
        struct kv_layout kv;
    } id;
    memset(&id, 0, sizeof id); /* padding is hashed too */
    id.digest = file_digest;
    id.numerics = NUMERICS_VERSION;
    id.cache = m->config.cache;
    id.f32_activations = m->config.f32_activations;
    id.lengthy = m->ropes.has_long && num_ctx > m->ropes.ctx_orig;
    id.kv = m->info.kv;
    return hash_bytes(&id, sizeof id, 0);
}
