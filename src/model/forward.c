/* forward.c - the forward pass: one walk over the layers that reads the family's row.
 *
 * A layer is a sequence of stages; a stage is one region of the team over rows, tiles or chunks of weights:
 *   rows       norm the residual, quantize it                          (before_attention)
 *   weights    q | k | v
 *   tiles      biases, QK norm, rope, K and V into the cache           (store_tile)
 *   items      attention
 *   rows       quantize the result
 *   weights    o
 *   rows       join the residual, norm, quantize                       (after_attention)
 *   weights    gate | up with the activation
 *   rows       quantize
 *   weights    down
 *   rows       join the residual (and before_attention of the next layer)
 * With few rows the row stages run inline: a region would cost more than it shares. */
#include "base/fmath.h"
#include "model/internal.h"

struct step {
    struct model *m;
    const struct kern *kern;
    struct team *team;
    struct model_scratch *s;
    struct scratch_plan *p;
    const struct model_span *spans;
    u32 n_rows; /* rows still computed; in the last layer only the wanted ones go on */
    u32 n_tiles;
    u32 layer;
    struct kern_acts acts[2]; /* the normed input of n_embd values, Q8 and Q8_256 */
    struct kern_acts wide;    /* attention's result or the FFN's */
    void (*rows_fn)(struct step *st, u32 row0, u32 row1);
    u32 rows_per_chunk;
};

/* --- regions over rows --- */
static void rows_chunk(void *arg, u32 chunk, u32 thread) {
    struct step *st = arg;
    (void)thread;
    st->rows_fn(st, chunk * st->rows_per_chunk, MIN(st->n_rows, (chunk + 1) * st->rows_per_chunk));
}

#define ROWS_INLINE 3u
static void run_rows(struct step *st, void (*fn)(struct step *st, u32 row0, u32 row1)) {
    if (st->n_rows <= ROWS_INLINE) {
        fn(st, 0, st->n_rows);
        return;
    }
    st->rows_fn = fn;
    st->rows_per_chunk = MAX(2u, DIV_CEIL(st->n_rows, 4 * team_threads(st->team)));
    team_run(st->team, rows_chunk, st, DIV_CEIL(st->n_rows, st->rows_per_chunk));
}

/* --- row stages --- */
static const struct weights_layer *layer_of(const struct step *st) { return &st->m->w.layers[st->layer]; }

static void norm_row(const struct step *st, const f32 *x, const f32 *w, const f32 *b, u32 n, f32 *y) {
    if (st->m->h.family->norm == NORM_RMS)
        st->kern->rmsnorm(x, w, st->m->h.norm_eps, n, y);
    else
        st->kern->layernorm(x, w, b, st->m->h.norm_eps, n, y);
}

/* Norms the residual (w NULL: takes it as it is) and quantizes it into the wanted formats. */
static void enter_rows(struct step *st, const f32 *w, const f32 *b, bool q8, bool q8_256, u32 row0,
                       u32 row1) {
    u32 d = st->m->h.n_embd;
    for (u32 r = row0; r < row1; r++) {
        if (w)
            norm_row(st, st->p->x + (size_t)r * d, w, b, d, st->p->xn + (size_t)r * d);
        else
            memcpy(st->p->xn + (size_t)r * d, st->p->x + (size_t)r * d, d * sizeof(f32));
    }
    if (q8)
        st->kern->quantize(&st->acts[0], st->p->xn, d, row0, row1);
    if (q8_256)
        st->kern->quantize(&st->acts[1], st->p->xn, d, row0, row1);
}

static void before_attention(struct step *st, u32 row0, u32 row1) {
    const struct weights_layer *w = layer_of(st);
    const struct model_layer *l = &st->m->layers[st->layer];
    enter_rows(st, w->attn_norm, w->attn_norm_bias, l->q8, l->q8_256, row0, row1);
}

/* residual += scale * post_norm(projection + bias) */
static void join_rows(struct step *st, const f32 *bias, const f32 *post_norm, u32 row0, u32 row1) {
    u32 d = st->m->h.n_embd;
    for (u32 r = row0; r < row1; r++) {
        f32 *proj = st->p->proj + (size_t)r * d;
        if (bias)
            st->kern->add_scaled(proj, bias, 1, d);
        if (post_norm)
            norm_row(st, proj, post_norm, NULL, d, proj);
        st->kern->add_scaled(st->p->x + (size_t)r * d, proj, st->m->h.residual_scale, d);
    }
}

static void after_attention(struct step *st, u32 row0, u32 row1) {
    const struct weights_layer *w = layer_of(st);
    const struct model_layer *l = &st->m->layers[st->layer];
    join_rows(st, w->o_bias, w->attn_post_norm, row0, row1);
    if (!l->parallel)
        enter_rows(st, w->ffn_norm, w->ffn_norm_bias, l->ffn_q8, l->ffn_q8_256, row0, row1);
}

static void after_ffn(struct step *st, u32 row0, u32 row1) {
    const struct weights_layer *w = layer_of(st);
    join_rows(st, w->down_bias, w->ffn_post_norm, row0, row1);
}

static void after_ffn_before_attention(struct step *st, u32 row0, u32 row1) {
    after_ffn(st, row0, row1);
    const struct weights_layer *w = layer_of(st) + 1;
    const struct model_layer *l = &st->m->layers[st->layer + 1];
    enter_rows(st, w->attn_norm, w->attn_norm_bias, l->q8, l->q8_256, row0, row1);
}

static void quantize_attention(struct step *st, u32 row0, u32 row1) {
    st->kern->quantize(&st->wide, st->p->attn, st->wide.K, row0, row1);
}

static void quantize_ffn(struct step *st, u32 row0, u32 row1) {
    const f32 *x = st->m->h.family->ffn == FFN_GATED ? st->p->gate : st->p->up;
    st->kern->quantize(&st->wide, x, st->wide.K, row0, row1);
}

/* --- start of a step --- */
static u32 span_of_row(const struct step *st, u32 row, u32 *in_span) {
    u32 span = 0;
    for (; row >= st->spans[span].n; span++)
        row -= st->spans[span].n;
    *in_span = row;
    return span;
}

static void scale_row(f32 *x, f32 scale, u32 n) {
    for (u32 i = 0; scale != 1 && i < n; i++)
        x[i] *= scale;
}

static void embed_rows(struct step *st, u32 row0, u32 row1) {
    const struct model *m = st->m;
    u32 d = m->h.n_embd, in_span, span = span_of_row(st, row0, &in_span);
    for (u32 r = row0; r < row1; r++, in_span++) {
        for (; in_span >= st->spans[span].n; span++)
            in_span = 0;
        const struct model_span *sp = &st->spans[span];
        f32 *x = st->p->x + (size_t)r * d;
        st->kern->embed(&m->w.embd, sp->tokens[in_span], x);
        scale_row(x, m->h.embd_scale, d);
        bool lengthy = m->ropes.has_long && sp->num_ctx > m->ropes.ctx_orig;
        rope_angles(&m->ropes.r[lengthy ? ROPE_LONG : ROPE_USUAL], st->p->pos[r],
                    st->p->angles[0] + (size_t)r * m->h.n_rot);
        if (m->ropes.has_windowed)
            rope_angles(&m->ropes.r[ROPE_WINDOWED], st->p->pos[r], st->p->angles[1] + (size_t)r * m->h.n_rot);
    }
}

/* Positions, tiles and wanted rows of the spans. A tile ends where a block of 16 positions ends. */
static void lay_out_rows(struct step *st, u32 n_spans) {
    struct scratch_plan *p = st->p;
    u32 row = 0, wanted = 0;
    st->n_tiles = 0;
    for (u32 s = 0; s < n_spans; s++) {
        const struct model_span *sp = &st->spans[s];
        for (u32 i = 0; i < sp->n;) {
            u32 pos = sp->pos0 + i, n = MIN(sp->n - i, TILE_ROWS - pos % TILE_ROWS);
            p->tiles[st->n_tiles++] = (struct tile){.span = s, .row = row, .n = n, .pos = pos};
            for (u32 j = 0; j < n; j++, i++, row++) {
                p->pos[row] = pos + j;
                if (i >= sp->n - sp->n_logits)
                    p->wanted[wanted++] = row;
            }
        }
    }
    st->n_rows = row;
    st->s->n_wanted = wanted;
}

static void check_spans(const struct model *m, const struct model_span *spans, u32 n_spans, u32 *n_rows,
                        u32 *n_logits) {
    *n_rows = *n_logits = 0;
    for (u32 s = 0; s < n_spans; s++) {
        const struct model_span *sp = &spans[s];
        check(sp->n >= 1 && sp->n_logits <= sp->n);
        for (u32 g = 0; g < m->info.kv.n_groups; g++)
            check((u64)sp->seq->tables[g].n_pages * KV_PAGE_TOKENS >= (u64)sp->pos0 + sp->n);
        for (u32 i = 0; i < sp->n; i++)
            check(sp->tokens[i] < m->h.n_vocab);
        *n_rows += sp->n;
        *n_logits += sp->n_logits;
    }
    check(*n_rows >= 1);
}

/* --- q, k, v into place --- */
static void norm_heads(const struct step *st, f32 *x, const f32 *w, u32 n_heads) {
    u32 hd = st->m->h.head_dim;
    switch (st->m->h.family->qk_norm) {
    case QK_NORM_NONE: break;
    case QK_NORM_FULL: norm_row(st, x, w, NULL, n_heads * hd, x); break;
    case QK_NORM_HEAD:
        for (u32 h = 0; h < n_heads; h++)
            norm_row(st, x + h * hd, w, NULL, hd, x + h * hd);
        break;
    case QK_NORM_PER_HEAD:
        for (u32 h = 0; w && h < n_heads; h++)
            norm_row(st, x + h * hd, w + h * hd, NULL, hd, x + h * hd);
        break;
    }
}

/* Queries of far positions are sharpened (Llama 4, Ministral 3): log(floor(pos / original) + 1) * s + 1. */
static f32 position_scale(const struct hyper *h, u32 pos) {
    if (h->position_scale == 0)
        return 1;
    return (f32)(fm_log((f64)(pos / h->rope_ctx_orig) + 1) * (f64)h->position_scale + 1);
}

static void store_row(const struct step *st, const struct kv_seq *seq, u32 row, u32 pos) {
    const struct model *m = st->m;
    const struct weights_layer *w = layer_of(st);
    const struct hyper_layer *shape = &m->h.layers[st->layer];
    const struct model_layer *l = &m->layers[st->layer];
    const struct kv_group *group = &m->info.kv.groups[l->group];
    u32 hd = m->h.head_dim;
    f32 *q = st->p->q + (size_t)row * shape->n_heads * hd;
    f32 *k = st->p->k + (size_t)row * shape->n_kv_heads * hd;
    const f32 *v = st->p->v + (size_t)row * shape->n_kv_heads * hd;
    norm_heads(st, q, w->q_norm, shape->n_heads);
    norm_heads(st, k, w->k_norm, shape->n_kv_heads);
    if (shape->rope) {
        bool windowed = shape->window && m->ropes.has_windowed;
        const f32 *angles = st->p->angles[windowed] + (size_t)row * m->h.n_rot;
        st->kern->rope(q, shape->n_heads, hd, m->h.n_rot, m->h.family->rope_neox, angles);
        st->kern->rope(k, shape->n_kv_heads, hd, m->h.n_rot, m->h.family->rope_neox, angles);
    }
    scale_row(q, position_scale(&m->h, pos), shape->n_heads * hd);
    u8 *page = seq->tables[l->group].pages[pos / KV_PAGE_TOKENS];
    for (u32 h = 0; h < shape->n_kv_heads; h++)
        st->kern->kv_store(m->config.cache, hd, pos % KV_PAGE_TOKENS, k + h * hd, v + h * hd,
                           page + kv_slice_offset(group, l->in_group, h, false),
                           page + kv_slice_offset(group, l->in_group, h, true));
}

static void store_tile(void *arg, u32 i, u32 thread) {
    const struct step *st = arg;
    (void)thread;
    const struct tile *t = &st->p->tiles[i];
    for (u32 r = 0; r < t->n; r++)
        store_row(st, st->spans[t->span].seq, t->row + r, t->pos + r);
}

static void store_tiles(struct step *st) {
    if (st->n_rows > ROWS_INLINE)
        team_run(st->team, store_tile, st, st->n_tiles);
    else
        for (u32 i = 0; i < st->n_tiles; i++)
            store_tile(st, i, 0);
}

/* --- weight stages --- */
/* The input of n_embd values in the format that w reads. */
static const struct kern_acts *input_for(struct step *st, const struct kern_mat *w,
                                         struct kern_acts *f32_acts) {
    return project_input(st->m, w, st->acts, st->p->xn, st->n_rows, f32_acts);
}

static void set_acts(struct step *st) { project_acts(st->m, st->n_rows, st->p->acts, st->acts); }

static struct project project_new(struct step *st, const struct kern_mat *next) {
    return (struct project){.kern = st->kern, .threads = st->p->threads, .next = next, .scale = 1};
}

static void project_qkv(struct step *st) {
    const struct weights_layer *w = layer_of(st);
    struct project p = project_new(st, &w->o);
    struct kern_acts f;
    project_add(&p, &w->q, input_for(st, &w->q, &f), st->p->q, w->q_bias);
    project_add(&p, &w->k, input_for(st, &w->k, &f), st->p->k, w->k_bias);
    project_add(&p, &w->v, input_for(st, &w->v, &f), st->p->v, w->v_bias);
    project_run(&p, st->team);
}

/* x [n_rows][w->K] through w into proj, quantized by quantize if w reads integers. */
static void project_wide(struct step *st, const struct kern_mat *w, const f32 *x,
                         void (*quantize)(struct step *, u32, u32), const struct kern_mat *next) {
    enum kern_act kind = kern_act_kind(w->type, st->m->config.f32_activations);
    kern_acts_at(&st->wide, kind, st->n_rows, w->K, x, st->p->wide_acts);
    if (kind != KERN_ACT_F32)
        run_rows(st, quantize);
    struct project p = project_new(st, next);
    project_add(&p, w, &st->wide, st->p->proj, NULL);
    project_run(&p, st->team);
}

static void project_ffn(struct step *st, const struct kern_mat *next) {
    const struct weights_layer *w = layer_of(st);
    bool gated = st->m->h.family->ffn == FFN_GATED;
    struct project p = project_new(st, &w->down);
    struct kern_acts f;
    p.gated = gated;
    p.plain = !gated;
    p.activation = st->m->h.family->activation;
    if (gated)
        project_add(&p, &w->gate, input_for(st, &w->gate, &f), st->p->gate, w->gate_bias);
    project_add(&p, &w->up, input_for(st, &w->up, &f), st->p->up, w->up_bias);
    project_run(&p, st->team);
    project_wide(st, &w->down, gated ? st->p->gate : st->p->up, quantize_ffn, next);
}

/* In the last layer only wanted rows go on: the others were needed for their K and V. Row i moves to a row
 * not above its own, so that copying forward is safe. False if nothing is wanted. */
static bool keep_wanted(struct step *st) {
    u32 d = st->m->h.n_embd, width = st->m->h.layers[st->layer].n_heads * st->m->h.head_dim,
        n = st->s->n_wanted;
    if (n == st->n_rows)
        return true;
    for (u32 i = 0; i < n; i++) {
        u32 r = st->p->wanted[i];
        memmove(st->p->x + (size_t)i * d, st->p->x + (size_t)r * d, d * sizeof(f32));
        memmove(st->p->xn + (size_t)i * d, st->p->xn + (size_t)r * d, d * sizeof(f32));
        memmove(st->p->attn + (size_t)i * width, st->p->attn + (size_t)r * width, width * sizeof(f32));
    }
    st->n_rows = n;
    set_acts(st);
    const struct model_layer *l = &st->m->layers[st->layer];
    if (l->parallel && l->ffn_q8)
        st->kern->quantize(&st->acts[0], st->p->xn, d, 0, n);
    if (l->parallel && l->ffn_q8_256)
        st->kern->quantize(&st->acts[1], st->p->xn, d, 0, n);
    return n != 0;
}

static void run_layer(struct step *st, u32 layer1) {
    const struct model *m = st->m;
    const struct weights_layer *w = layer_of(st);
    bool last = st->layer + 1 == m->h.n_layers;
    const struct kern_mat *after = last ? &m->w.output : &w[1].q;
    project_qkv(st);
    store_tiles(st);
    struct attention a = {
        .m = m, .plan = st->p, .spans = st->spans, .layer = st->layer, .n_tiles = st->n_tiles};
    if (last && st->s->n_wanted == 0)
        return;
    attention_run(&a, st->team);
    if (last && !keep_wanted(st))
        return;
    project_wide(st, &w->o, st->p->attn, quantize_attention, w->gate.data ? &w->gate : &w->up);
    run_rows(st, after_attention);
    project_ffn(st, after);
    run_rows(st, st->layer + 1 < layer1 ? after_ffn_before_attention : after_ffn);
}

static void final_norm(struct step *st, u32 row0, u32 row1) {
    u32 d = st->m->h.n_embd;
    for (u32 r = row0; r < row1; r++)
        norm_row(st, st->p->x + (size_t)r * d, st->m->w.output_norm, st->m->w.output_norm_bias, d,
                 st->p->hidden + (size_t)r * d);
}

void model_forward(struct model *m, struct team *team, struct model_scratch *s,
                   const struct model_span *spans, u32 n_spans, u32 layer0, u32 layer1) {
    if (layer1 == 0)
        layer1 = m->h.n_layers;
    check(layer0 < layer1 && layer1 <= m->h.n_layers);
    u32 n_rows, n_logits;
    check_spans(m, spans, n_spans, &n_rows, &n_logits);
    scratch_plan(&s->plan, m, n_rows, n_logits, team_threads(team), s->mem);
    check(s->plan.bytes <= s->bytes);
    struct step st = {.m = m, .kern = m->config.kern, .team = team, .s = s, .p = &s->plan, .spans = spans};
    lay_out_rows(&st, n_spans);
    set_acts(&st);
    if (layer0 == 0)
        run_rows(&st, embed_rows);
    st.layer = layer0;
    run_rows(&st, before_attention);
    for (; st.layer < layer1; st.layer++)
        run_layer(&st, layer1);
    if (layer1 == m->h.n_layers && s->n_wanted)
        run_rows(&st, final_norm);
}

f32 *model_logits(struct model *m, struct team *team, struct model_scratch *s, u32 first, u32 n) {
    check(n >= 1 && n <= MODEL_LOGITS_TILE && first + n <= s->n_wanted);
    struct step st = {.m = m, .kern = m->config.kern, .team = team, .s = s, .p = &s->plan, .n_rows = n};
    const struct kern_mat *w = &m->w.output;
    u32 d = m->h.n_embd;
    f32 *hidden = s->plan.hidden + (size_t)first * d;
    enum kern_act kind = kern_act_kind(w->type, m->config.f32_activations);
    struct kern_acts acts;
    kern_acts_at(&acts, kind, n, d, hidden, s->plan.acts[kind == KERN_ACT_Q8_256]);
    if (kind != KERN_ACT_F32)
        st.kern->quantize(&acts, hidden, d, 0, n);
    struct project p = project_new(&st, &m->w.layers[0].q);
    project_add(&p, w, &acts, s->plan.logits, m->w.output_bias);
    p.scale = m->h.logit_scale;
    p.softcap = m->h.logit_softcap;
    project_run(&p, team);
    return s->plan.logits;
}

const f32 *model_hidden(const struct model *m, const struct model_scratch *s, u32 i) {
    check(i < s->n_wanted);
    return s->plan.hidden + (size_t)i * m->h.n_embd;
}

u64 model_logits_hash(const f32 *logits, u32 n_vocab, u64 seed) {
    return hash_bytes(logits, n_vocab * sizeof *logits, seed);
}
