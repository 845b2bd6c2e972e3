/* encoder.c - the forward pass of encoders: BERT and its kin, read in both directions.
 *
 * The rows are the embedding (token + type + position), normed. A layer, whose norms stand behind the sums:
 *   h  = norm( x + attn_output( attend( q(x), k(x), v(x) ) ) )
 *   x' = norm( h + ffn(h) )
 *
 * An input is attended to as a whole, so all its keys of a layer must be there before its first query. To
 * keep the memory of long inputs small, a layer is two walks over slices of MODEL_ENCODE_ROWS rows: keys and
 * values of all slices first, then slice by slice the queries and everything behind them. Keys and values are
 * held for one layer only, as f32, in the layout of kern.h without its page borders: of an input with n rows,
 * padded to a multiple of 16, the slice of a head holds [n/16][head_dim][16] keys or [n][head_dim] values.
 * Steps that fit one slice project q, k and v together. No bit depends on any of this. */
#include "base/fmath.h"
#include "base/limit.h"
#include "model/internal.h"

#define CHUNK_PAGES (KERN_CHUNK / KV_PAGE_TOKENS)
#define BLOCK_KEYS 16u

struct encoder_tile {
    u32 input;
    u32 row; /* index in all rows */
    u32 n;   /* 1..TILE_ROWS */
    u32 pos; /* of its first row in the input */
};

struct encoder_input {
    u32 row;      /* its first */
    u32 n;        /* rows */
    u32 n_padded; /* to whole blocks of keys */
    u64 padded0;  /* padded rows of the inputs before it */
};

struct encode {
    struct model *m;
    const struct kern *kern;
    struct team *team;
    struct encoder_plan *p;
    const struct model_input *inputs;
    u32 layer;
    u32 tile0, tile1; /* of the slice */
    u32 row0;         /* of the slice */
    struct rows rows; /* of the slice */
};

/* ---------------------------------------------------------------- memory */

/* Inputs begin a new block of keys: at worst each has one row in a block of 16. A whole page behind the last
 * one, because kernels read blocks that they mask. */
static u64 key_rows(u32 n_rows, u32 n_inputs) {
    return n_rows + (u64)(BLOCK_KEYS - 1) * MIN(n_rows, n_inputs);
}

void encoder_plan(struct encoder_plan *p, const struct model *m, u32 n_rows, u32 n_inputs, u32 n_threads,
                  u8 *mem) {
    u64 at = 0, f = sizeof(f32), slice = MIN(n_rows, MODEL_ENCODE_ROWS);
    u64 keys = key_rows(n_rows, n_inputs) * m->kv_width + KV_PAGE_TOKENS * m->h.head_dim;
    u64 queries = (u64)n_threads * TILE_ROWS * m->group_max;
    memset(p, 0, sizeof *p);
    p->n_rows = n_rows;
    p->n_inputs = n_inputs;
    p->n_threads = n_threads;
    p->tiles = scratch_take(mem, &at, n_rows * sizeof *p->tiles);
    p->inputs = scratch_take(mem, &at, n_inputs * sizeof *p->inputs);
    p->x = scratch_take(mem, &at, (u64)n_rows * m->h.n_embd * f);
    p->k = scratch_take(mem, &at, keys * f);
    p->v = scratch_take(mem, &at, keys * f);
    p->angles = scratch_take(mem, &at, m->h.layers[0].rope ? (u64)n_rows * m->h.n_rot * f : 0);
    p->q = scratch_take(mem, &at, slice * m->q_width * f);
    p->ks = scratch_take(mem, &at, slice * m->kv_width * f);
    p->vs = scratch_take(mem, &at, slice * m->kv_width * f);
    p->attn = scratch_take(mem, &at, slice * m->q_width * f);
    p->gate = scratch_take(mem, &at, slice * m->n_ff * f);
    p->up = scratch_take(mem, &at, slice * m->n_ff * f);
    p->proj = scratch_take(mem, &at, slice * m->h.n_embd * f);
    scratch_plan_acts(p->acts, &p->wide_acts, m, (u32)slice, (u32)slice, mem, &at);
    p->slope = scratch_take(mem, &at, m->alibi ? queries * f : 0);
    p->at = scratch_take(mem, &at, m->alibi ? queries * sizeof *p->at : 0);
    for (u32 i = 0; i < n_threads; i++)
        scratch_plan_thread(&p->threads[i], m, mem, &at);
    p->bytes = at;
}

/* ---------------------------------------------------------------- regions over the rows of a slice */

static void run_rows(struct encode *e, rows_fn *fn) { rows_run(e->team, e->rows.n, fn, e); }

static const struct weights_layer *layer_of(const struct encode *e) { return &e->m->w.layers[e->layer]; }

/* Row r of the slice. */
static f32 *x_row(const struct encode *e, u32 r) { return e->p->x + (size_t)(e->row0 + r) * e->m->h.n_embd; }

static void norm_row(const struct encode *e, f32 *x, const f32 *w, const f32 *b) {
    e->kern->layernorm(x, w, b, e->m->h.norm_eps, e->m->h.n_embd, x);
}

static void quantize_input(void *arg, u32 row0, u32 row1) {
    struct encode *e = arg;
    for (u32 kind = KERN_ACT_Q8; kind <= KERN_ACT_Q8_256; kind++)
        if (e->m->embd_kinds[kind == KERN_ACT_Q8_256])
            e->kern->quantize(&e->rows.acts[kind], row0, row1, 0, e->m->h.n_embd);
}

/* residual = norm(residual + projection + bias), and its formats for the weights behind it */
static void join_rows(struct encode *e, const f32 *bias, const f32 *w, const f32 *b, u32 row0, u32 row1) {
    u32 d = e->m->h.n_embd;
    for (u32 r = row0; r < row1; r++) {
        f32 *proj = e->p->proj + (size_t)r * d;
        if (bias)
            e->kern->add_scaled(proj, bias, 1, d);
        e->kern->add_scaled(x_row(e, r), proj, 1, d);
        norm_row(e, x_row(e, r), w, b);
    }
    quantize_input(e, row0, row1);
}

static void after_attention(void *arg, u32 row0, u32 row1) {
    struct encode *e = arg;
    const struct weights_layer *w = layer_of(e);
    join_rows(e, w->o_bias, w->attn_post_norm, w->attn_post_norm_bias, row0, row1);
}

static void after_ffn(void *arg, u32 row0, u32 row1) {
    struct encode *e = arg;
    const struct weights_layer *w = layer_of(e);
    join_rows(e, w->down_bias, w->ffn_post_norm, w->ffn_post_norm_bias, row0, row1);
}

/* ---------------------------------------------------------------- start */

static void embed_tile(const struct encode *e, const struct encoder_tile *t) {
    const struct model *m = e->m;
    u32 d = m->h.n_embd;
    for (u32 i = 0; i < t->n; i++) {
        u32 r = t->row + i - e->row0;
        f32 *x = x_row(e, r), *more = e->p->proj + (size_t)r * d;
        e->kern->embed(&m->w.embd, e->inputs[t->input].tokens[t->pos + i], x);
        if (m->w.token_types.data) {
            e->kern->embed(&m->w.token_types, 0, more);
            e->kern->add_scaled(x, more, 1, d);
        }
        if (m->w.position_embd.data) {
            e->kern->embed(&m->w.position_embd, t->pos + i, more);
            e->kern->add_scaled(x, more, 1, d);
        }
        norm_row(e, x, m->w.embd_norm, m->w.embd_norm_bias);
        if (m->h.layers[0].rope)
            rope_angles(&m->ropes.r[ROPE_USUAL], t->pos + i,
                        e->p->angles + (size_t)(t->row + i) * m->h.n_rot);
    }
}

static void embed_chunk(void *arg, u32 i, u32 thread) {
    const struct encode *e = arg;
    (void)thread;
    embed_tile(e, &e->p->tiles[e->tile0 + i]);
}

/* Rows, tiles and places for the keys of all inputs; returns the number of tiles. */
static u32 lay_out(const struct encode *e, u32 n_inputs) {
    struct encoder_plan *p = e->p;
    u32 row = 0, n_tiles = 0;
    u64 padded = 0;
    for (u32 i = 0; i < n_inputs; i++) {
        u32 n = e->inputs[i].n;
        p->inputs[i] = (struct encoder_input){row, n, (u32)ALIGN_UP(n, BLOCK_KEYS), padded};
        padded += p->inputs[i].n_padded;
        for (u32 pos = 0; pos < n; pos += TILE_ROWS) {
            u32 rows = MIN(n - pos, TILE_ROWS);
            p->tiles[n_tiles++] = (struct encoder_tile){.input = i, .row = row, .n = rows, .pos = pos};
            row += rows;
        }
    }
    return n_tiles;
}

static u32 check_inputs(const struct model *m, const struct model_input *inputs, u32 n_inputs) {
    u32 n_rows = 0;
    for (u32 i = 0; i < n_inputs; i++) {
        check(inputs[i].n >= 1 && inputs[i].n <= m->h.n_ctx_train);
        for (u32 k = 0; k < inputs[i].n; k++)
            check(inputs[i].tokens[k] < m->h.n_vocab);
        n_rows += inputs[i].n;
    }
    check(n_rows >= 1);
    return n_rows;
}

/* The tiles from tile0 on that fit a slice; false behind the last. */
static bool next_slice(struct encode *e, u32 tile0, u32 n_tiles) {
    const struct encoder_tile *t = e->p->tiles;
    if (tile0 == n_tiles)
        return false;
    e->tile0 = e->tile1 = tile0;
    e->row0 = t[tile0].row;
    u32 n_rows = 0;
    while (e->tile1 < n_tiles && n_rows + t[e->tile1].n <= MODEL_ENCODE_ROWS)
        n_rows += t[e->tile1++].n;
    rows_at(&e->rows, n_rows, x_row(e, 0), e->p->acts);
    return true;
}

/* ---------------------------------------------------------------- weights */

static void project_heads(struct encode *e, bool q, bool kv) {
    const struct weights_layer *w = layer_of(e);
    struct project p = project_new(&e->rows, kv && !q ? &w->q : &w->o);
    if (q)
        project_rows(&p, &w->q, &e->rows, e->p->q, w->q_bias);
    if (kv) {
        project_rows(&p, &w->k, &e->rows, e->p->ks, w->k_bias);
        project_rows(&p, &w->v, &e->rows, e->p->vs, w->v_bias);
    }
    project_run(&p, e->team);
}

/* ---------------------------------------------------------------- attention */

/* The keys of a head of an input, or its values. */
static f32 *head_slice(const struct encode *e, f32 *all, u32 input, u32 head) {
    const struct encoder_input *in = &e->p->inputs[input];
    u32 hd = e->m->h.head_dim, n_heads = e->m->h.layers[e->layer].n_kv_heads;
    return all + (in->padded0 * n_heads + (u64)head * in->n_padded) * hd;
}

static void rope_row(const struct encode *e, f32 *x, u32 n_heads, u32 row) {
    const struct model *m = e->m;
    if (m->h.layers[e->layer].rope)
        e->kern->rope(x, n_heads, m->h.head_dim, m->h.n_rot, m->h.family->rope_neox,
                      e->p->angles + (size_t)row * m->h.n_rot);
}

/* Keys and values of a tile into their places. */
static void store_tile(void *arg, u32 i, u32 thread) {
    const struct encode *e = arg;
    (void)thread;
    const struct encoder_tile *t = &e->p->tiles[e->tile0 + i];
    u32 hd = e->m->h.head_dim, n_heads = e->m->h.layers[e->layer].n_kv_heads;
    for (u32 r = 0; r < t->n; r++) {
        u32 pos = t->pos + r, page = pos / KV_PAGE_TOKENS;
        f32 *k = e->p->ks + (size_t)(t->row + r - e->row0) * n_heads * hd;
        const f32 *v = e->p->vs + (size_t)(t->row + r - e->row0) * n_heads * hd;
        rope_row(e, k, n_heads, t->row + r);
        for (u32 h = 0; h < n_heads; h++)
            e->kern->kv_store(KERN_CACHE_F32, hd, pos % KV_PAGE_TOKENS, k + h * hd, v + h * hd,
                              head_slice(e, e->p->k, t->input, h) + (size_t)page * KV_PAGE_TOKENS * hd,
                              head_slice(e, e->p->v, t->input, h) + (size_t)page * KV_PAGE_TOKENS * hd);
    }
}

static void rope_queries(void *arg, u32 row0, u32 row1) {
    struct encode *e = arg;
    u32 n_heads = e->m->h.layers[e->layer].n_heads;
    for (u32 r = row0; r < row1; r++)
        rope_row(e, e->p->q + (size_t)r * n_heads * e->m->h.head_dim, n_heads, e->row0 + r);
}

/* What one (tile, KV head) computes. */
struct item {
    const struct encoder_tile *tile;
    u32 head, group; /* KV head; query heads that share it */
    u32 n_queries, n_keys;
    struct thread_scratch *ts;
    const f32 *k, *v;
    const f32 *slope;
    const u32 *at;
};

static void item_chunk(const struct encode *e, const struct item *it, u32 chunk, f32 *m, f32 *l, f32 *o) {
    u32 hd = e->m->h.head_dim;
    const void *k[CHUNK_PAGES] = {0}, *v[CHUNK_PAGES] = {0};
    for (u32 i = 0; i < CHUNK_PAGES; i++) {
        u32 key = chunk * KERN_CHUNK + i * KV_PAGE_TOKENS;
        if (key >= it->n_keys)
            break;
        k[i] = it->k + (size_t)key * hd;
        v[i] = it->v + (size_t)key * hd;
    }
    struct kern_attend a = {
        .cache = KERN_CACHE_F32,
        .head_dim = hd,
        .n_queries = it->n_queries,
        .q = it->ts->q,
        .pos = it->ts->pos,
        .slope = it->slope,
        .at = it->at,
        .chunk = chunk,
        .k = k,
        .v = v,
        .scale = e->m->h.attn_scale,
        .m = m,
        .l = l,
        .o = o,
    };
    e->kern->attend(&a, it->ts->attend);
}

/* Points the item's queries at their rows: all of them see every key. */
static void item_queries(const struct encode *e, struct item *it, u32 thread) {
    const struct hyper_layer *s = &e->m->h.layers[e->layer];
    u32 hd = e->m->h.head_dim;
    f32 *slope = e->m->alibi ? e->p->slope + (size_t)thread * TILE_ROWS * e->m->group_max : NULL;
    u32 *at = e->m->alibi ? e->p->at + (size_t)thread * TILE_ROWS * e->m->group_max : NULL;
    for (u32 i = 0; i < it->n_queries; i++) {
        u32 row = it->tile->row - e->row0 + i / it->group, head = it->head * it->group + i % it->group;
        it->ts->q[i] = e->p->q + ((size_t)row * s->n_heads + head) * hd;
        it->ts->pos[i] = it->n_keys - 1;
        if (slope) {
            slope[i] = e->m->alibi[head];
            at[i] = it->tile->pos + i / it->group;
        }
    }
    it->slope = slope;
    it->at = at;
}

/* Items of one head follow each other, so that its keys stay near. */
static void attend_item(void *arg, u32 index, u32 thread) {
    const struct encode *e = arg;
    const struct hyper_layer *s = &e->m->h.layers[e->layer];
    u32 n_tiles = e->tile1 - e->tile0, hd = e->m->h.head_dim;
    const struct encoder_tile *t = &e->p->tiles[e->tile0 + index % n_tiles];
    struct item it = {.tile = t,
                      .head = index / n_tiles,
                      .group = s->n_heads / s->n_kv_heads,
                      .n_queries = t->n * (s->n_heads / s->n_kv_heads),
                      .n_keys = e->p->inputs[t->input].n,
                      .ts = &e->p->threads[thread]};
    struct thread_scratch *ts = it.ts;
    it.k = head_slice(e, e->p->k, t->input, it.head);
    it.v = head_slice(e, e->p->v, t->input, it.head);
    item_queries(e, &it, thread);
    item_chunk(e, &it, 0, ts->run_m, ts->run_l, ts->run_o);
    for (u32 c = 1; c < DIV_CEIL(it.n_keys, KERN_CHUNK); c++) {
        item_chunk(e, &it, c, ts->m, ts->l, ts->o);
        for (u32 i = 0; i < it.n_queries; i++)
            e->kern->attend_fold(&ts->run_m[i], &ts->run_l[i], ts->run_o + (size_t)i * hd, ts->m[i], ts->l[i],
                                 ts->o + (size_t)i * hd, hd);
    }
    for (u32 i = 0; i < it.n_queries; i++) {
        u32 row = t->row - e->row0 + i / it.group, head = it.head * it.group + i % it.group;
        e->kern->attend_finish(ts->run_o + (size_t)i * hd, ts->run_l[i], hd,
                               e->p->attn + ((size_t)row * s->n_heads + head) * hd);
    }
}

/* ---------------------------------------------------------------- layers */

static void run_layer(struct encode *e, u32 n_tiles) {
    const struct weights_layer *w = layer_of(e);
    const struct weights_layer *after = e->layer + 1 < e->m->h.n_layers ? w + 1 : e->m->w.layers;
    const struct hyper_layer *s = &e->m->h.layers[e->layer];
    bool one = e->p->n_rows <= MODEL_ENCODE_ROWS;
    for (u32 t = 0; next_slice(e, t, n_tiles); t = e->tile1) {
        if (!one)
            run_rows(e, quantize_input);
        project_heads(e, one, true);
        team_run(e->team, store_tile, e, e->tile1 - e->tile0);
    }
    for (u32 t = 0; next_slice(e, t, n_tiles); t = e->tile1) {
        if (!one) {
            run_rows(e, quantize_input);
            project_heads(e, true, false);
        }
        if (s->rope)
            run_rows(e, rope_queries);
        team_run(e->team, attend_item, e, (e->tile1 - e->tile0) * s->n_kv_heads);
        rows_wide_at(&e->rows, &w->o, e->p->attn);
        rows_quantize_wide(&e->rows);
        project_wide(&e->rows, &w->o, e->p->proj, w->gate.data ? &w->gate : &w->up);
        run_rows(e, after_attention);
        project_ffn(&e->rows, w, e->p->gate, e->p->up);
        project_wide(&e->rows, &w->down, e->p->proj, &after->q);
        run_rows(e, after_ffn);
    }
}

void model_encode(struct model *m, struct team *team, struct model_scratch *s,
                  const struct model_input *inputs, u32 n_inputs) {
    check(m->info.encoder && n_inputs >= 1);
    u32 n_rows = check_inputs(m, inputs, n_inputs);
    encoder_plan(&s->encoder, m, n_rows, n_inputs, team_threads(team), s->mem);
    check(s->encoder.bytes <= s->bytes);
    struct encoder_plan *p = &s->encoder;
    struct encode e = {.m = m,
                       .kern = m->config.kern,
                       .team = team,
                       .p = p,
                       .inputs = inputs,
                       .rows = {.m = m, .team = team, .threads = p->threads, .wide_mem = p->wide_acts}};
    u32 n_tiles = lay_out(&e, n_inputs);
    for (u32 t = 0; next_slice(&e, t, n_tiles); t = e.tile1) {
        team_run(team, embed_chunk, &e, e.tile1 - e.tile0);
        run_rows(&e, quantize_input);
    }
    for (e.layer = 0; e.layer < m->h.n_layers; e.layer++)
        run_layer(&e, n_tiles);
}

/* ---------------------------------------------------------------- results */

const f32 *model_encoded_rows(const struct model *m, const struct model_scratch *s, u32 i) {
    check(m->info.encoder && i < s->encoder.n_inputs);
    return s->encoder.x + (size_t)s->encoder.inputs[i].row * m->h.n_embd;
}

void model_mean_add(const struct model *m, f32 *sum, const f32 *row) {
    m->config.kern->add_scaled(sum, row, 1, m->h.n_embd);
}

void model_mean_finish(const struct model *m, f32 *sum, u32 n_rows) {
    f32 share = 1.0f / (f32)n_rows;
    for (u32 i = 0; i < m->h.n_embd; i++)
        sum[i] *= share;
}

/* out = w x + bias, on this thread. */
static void apply_matrix(const struct model *m, struct encoder_plan *p, const struct kern_mat *w,
                         const f32 *bias, const f32 *x, f32 *out) {
    enum kern_act kind = kern_act_kind(w->type, m->config.f32_activations);
    struct kern_acts a;
    kern_acts_at(&a, kind, 1, w->K, x, p->acts[kind == KERN_ACT_Q8_256]);
    if (kind != KERN_ACT_F32)
        m->config.kern->quantize(&a, 0, 1, 0, w->K);
    m->config.kern->matmul(w, 0, w->N, &a, out, w->N, p->threads[0].matmul, NULL);
    if (bias)
        m->config.kern->add_scaled(out, bias, 1, w->N);
}

/* Scores of a classifier behind the first row: cls_out(tanh(cls(x))), of which one half may be missing. */
static void pool_rank(const struct model *m, struct model_scratch *s, const f32 *x, f32 *out) {
    struct encoder_plan *p = &s->encoder;
    const struct weights *w = &m->w;
    f32 *hidden = w->cls_out.data ? p->proj : out;
    if (w->cls.data) {
        apply_matrix(m, p, &w->cls, w->cls_bias, x, hidden);
        for (u32 i = 0; i < m->h.n_embd; i++)
            hidden[i] = fm_tanhf(hidden[i]);
        x = hidden;
    }
    if (w->cls_out.data)
        apply_matrix(m, p, &w->cls_out, w->cls_out_bias, x, out);
}

void model_pool(const struct model *m, struct model_scratch *s, u32 i, enum pooling pooling, f32 *out) {
    const f32 *x = model_encoded_rows(m, s, i);
    u32 d = m->h.n_embd, n = s->encoder.inputs[i].n;
    switch (pooling) {
    case POOLING_NONE: check(false);
    case POOLING_MEAN:
        memset(out, 0, d * sizeof *out);
        for (u32 r = 0; r < n; r++)
            model_mean_add(m, out, x + (size_t)r * d);
        model_mean_finish(m, out, n);
        return;
    case POOLING_CLS: memcpy(out, x, d * sizeof *out); return;
    case POOLING_LAST: memcpy(out, x + (size_t)(n - 1) * d, d * sizeof *out); return;
    case POOLING_RANK:
        check(m->h.pooling == POOLING_RANK);
        pool_rank(m, s, x, out);
        return;
    }
}
