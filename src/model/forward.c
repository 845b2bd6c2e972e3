/* forward.c - the forward pass: one walk over the layers that reads the family's row.
 *
 * A layer is a sequence of stages; a stage is one region of the team over rows, tiles or chunks of weights:
 *   rows       norm the residual, quantize it                          (before_attention)
 *   weights    q | k | v
 *   tiles      biases, QK norm, rope, K and V into the cache           (store_tile)
 *   items      attention, and its result quantized
 *   weights    o
 *   rows       join the residual, norm, quantize                       (after_attention)
 *   weights    gate | up with the activation, and its result quantized
 *   weights    down
 *   rows       join the residual (and before_attention of the next layer)
 * Where a result's blocks of 256 do not fit what an item or a chunk makes, a stage over rows quantizes it. */
#include "base/fmath.h"
#include "model/internal.h"

struct step {
    struct model *m;
    const struct kern *kern;
    struct team *team;
    struct model_scratch *s;
    struct scratch_plan *p;
    const struct model_span *spans;
    u32 n_tiles;
    u32 layer;
    struct rows rows; /* in the last layer only the wanted ones */
};

static void run_rows(struct step *st, rows_fn *fn) { rows_run(st->team, st->rows.n, fn, st); }

/* --- row stages --- */
static const struct weights_layer *layer_of(const struct step *st) { return &st->m->w.layers[st->layer]; }

static void norm_row(const struct step *st, const f32 *x, const f32 *w, const f32 *b, u32 n, f32 *y) {
    if (st->m->h.family->norm == NORM_RMS)
        st->kern->rmsnorm(x, w, st->m->h.norm_eps, n, y);
    else
        st->kern->layernorm(x, w, b, st->m->h.norm_eps, n, y);
}

static void enter_formats(struct step *st, bool q8, bool q8_256, u32 row0, u32 row1) {
    u32 d = st->m->h.n_embd;
    if (q8)
        st->kern->quantize(&st->rows.acts[KERN_ACT_Q8], row0, row1, 0, d);
    if (q8_256)
        st->kern->quantize(&st->rows.acts[KERN_ACT_Q8_256], row0, row1, 0, d);
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
    enter_formats(st, q8, q8_256, row0, row1);
}

static void before_attention(void *arg, u32 row0, u32 row1) {
    struct step *st = arg;
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

static void after_attention(void *arg, u32 row0, u32 row1) {
    struct step *st = arg;
    const struct weights_layer *w = layer_of(st);
    const struct model_layer *l = &st->m->layers[st->layer];
    join_rows(st, w->o_bias, w->attn_post_norm, row0, row1);
    if (!l->parallel)
        enter_rows(st, w->ffn_norm, w->ffn_norm_bias, l->ffn_q8, l->ffn_q8_256, row0, row1);
}

static void after_ffn(void *arg, u32 row0, u32 row1) {
    struct step *st = arg;
    const struct weights_layer *w = layer_of(st);
    join_rows(st, w->down_bias, w->ffn_post_norm, row0, row1);
}

static void after_ffn_before_attention(void *arg, u32 row0, u32 row1) {
    struct step *st = arg;
    after_ffn(st, row0, row1);
    const struct weights_layer *w = layer_of(st) + 1;
    const struct model_layer *l = &st->m->layers[st->layer + 1];
    enter_rows(st, w->attn_norm, w->attn_norm_bias, l->q8, l->q8_256, row0, row1);
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

static void embed_rows(void *arg, u32 row0, u32 row1) {
    struct step *st = arg;
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
    st->s->n_wanted = wanted;
    rows_at(&st->rows, row, p->xn, p->acts);
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
    if (st->rows.n > ROWS_INLINE)
        team_run(st->team, store_tile, st, st->n_tiles);
    else
        for (u32 i = 0; i < st->n_tiles; i++)
            store_tile(st, i, 0);
}

/* --- weight stages --- */
static void project_qkv(struct step *st) {
    const struct weights_layer *w = layer_of(st);
    struct project p = project_new(&st->rows, &w->o);
    project_rows(&p, &w->q, &st->rows, st->p->q, w->q_bias);
    project_rows(&p, &w->k, &st->rows, st->p->k, w->k_bias);
    project_rows(&p, &w->v, &st->rows, st->p->v, w->v_bias);
    project_run(&p, st->team);
}

/* Only wanted rows go on: the others were needed for their K and V. Row i moves to a row not above its own, so that
 * copying forward is safe. */
static void keep_wanted(struct step *st) {
    u32 d = st->m->h.n_embd, width = st->m->h.layers[st->layer].n_heads * st->m->h.head_dim,
        n = st->s->n_wanted;
    for (u32 i = 0; i < n; i++) {
        u32 r = st->p->wanted[i];
        memmove(st->p->x + (size_t)i * d, st->p->x + (size_t)r * d, d * sizeof(f32));
        memmove(st->p->xn + (size_t)i * d, st->p->xn + (size_t)r * d, d * sizeof(f32));
        memmove(st->p->attn + (size_t)i * width, st->p->attn + (size_t)r * width, width * sizeof(f32));
    }
    rows_at(&st->rows, n, st->p->xn, st->p->acts);
    const struct model_layer *l = &st->m->layers[st->layer];
    if (l->parallel)
        enter_formats(st, l->ffn_q8, l->ffn_q8_256, 0, n);
}

/* Attention's result in the format that o reads. False if no row goes on. */
static bool attend(struct step *st) {
    const struct kern_mat *o = &layer_of(st)->o;
    bool last = st->layer + 1 == st->m->h.n_layers;
    if (last && st->s->n_wanted == 0)
        return false;
    bool keep = last && st->s->n_wanted != st->rows.n;
    struct attention a = {
        .m = st->m, .plan = st->p, .spans = st->spans, .layer = st->layer, .n_tiles = st->n_tiles};
    rows_wide_at(&st->rows, o, st->p->attn);
    if (!keep && attention_quantizes(&a, &st->rows.wide))
        a.quantized = &st->rows.wide;
    attention_run(&a, st->team);
    if (keep) {
        keep_wanted(st);
        rows_wide_at(&st->rows, o, st->p->attn);
    }
    if (!a.quantized)
        rows_quantize_wide(&st->rows);
    return true;
}

static void run_layer(struct step *st, u32 layer1) {
    const struct weights_layer *w = layer_of(st);
    const struct kern_mat *after = st->layer + 1 == st->m->h.n_layers ? &st->m->w.output : &w[1].q;
    project_qkv(st);
    store_tiles(st);
    if (!attend(st))
        return;
    project_wide(&st->rows, &w->o, st->p->proj, w->gate.data ? &w->gate : &w->up);
    run_rows(st, after_attention);
    project_ffn(&st->rows, w, st->p->gate, st->p->up);
    project_wide(&st->rows, &w->down, st->p->proj, after);
    run_rows(st, st->layer + 1 < layer1 ? after_ffn_before_attention : after_ffn);
}

static void final_norm(void *arg, u32 row0, u32 row1) {
    const struct step *st = arg;
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
    struct step st = {.m = m,
                      .kern = m->config.kern,
                      .team = team,
                      .s = s,
                      .p = &s->plan,
                      .spans = spans,
                      .rows = {.m = m, .team = team, .threads = s->plan.threads, .wide_mem = s->plan.wide_acts}};
    lay_out_rows(&st, n_spans);
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
    const struct kern_mat *w = &m->w.output;
    f32 *hidden = s->plan.hidden + (size_t)first * m->h.n_embd;
    struct rows r = {.m = m, .team = team, .threads = s->plan.threads};
    rows_at(&r, n, hidden, s->plan.acts);
    enum kern_act kind = kern_act_kind(w->type, m->config.f32_activations);
    if (kind != KERN_ACT_F32)
        m->config.kern->quantize(&r.acts[kind], 0, n, 0, m->h.n_embd);
    struct project p = project_new(&r, &m->w.layers[0].q);
    project_rows(&p, w, &r, s->plan.logits, m->w.output_bias);
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
