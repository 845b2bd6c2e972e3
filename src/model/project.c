/* project.c - out = input x weights for up to three matrices in one region of the team.
 *
 * The rows of all matrices form one space of tiles of 32, cut into chunks. What is prefetched behind a chunk is what
 * the same thread reads next (team.h). Which thread computes a chunk changes no bit. */
#include "model/internal.h"

/* ---------------------------------------------------------------- rows */

struct rows_region {
    rows_fn *fn;
    void *arg;
    u32 n, per_chunk;
};

static void rows_chunk(void *arg, u32 chunk, u32 thread) {
    const struct rows_region *r = arg;
    (void)thread;
    r->fn(r->arg, chunk * r->per_chunk, MIN(r->n, (chunk + 1) * r->per_chunk));
}

void rows_run(struct team *team, u32 n, rows_fn *fn, void *arg) {
    if (n <= ROWS_INLINE) {
        fn(arg, 0, n);
        return;
    }
    struct rows_region r = {fn, arg, n, MAX(2u, DIV_CEIL(n, 4 * team_threads(team)))};
    team_run(team, rows_chunk, &r, DIV_CEIL(n, r.per_chunk));
}

void rows_at(struct rows *r, u32 n, const f32 *x, void *const mem[2]) {
    u32 d = r->m->h.n_embd;
    r->n = n;
    kern_acts_at(&r->acts[KERN_ACT_F32], KERN_ACT_F32, n, d, x, NULL);
    if (r->m->embd_kinds[0])
        kern_acts_at(&r->acts[KERN_ACT_Q8], KERN_ACT_Q8, n, d, x, mem[0]);
    if (r->m->embd_kinds[1])
        kern_acts_at(&r->acts[KERN_ACT_Q8_256], KERN_ACT_Q8_256, n, d, x, mem[1]);
}

void rows_wide_at(struct rows *r, const struct kern_mat *w, const f32 *x) {
    enum kern_act kind = kern_act_kind(w->type, r->m->config.f32_activations);
    kern_acts_at(&r->wide, kind, r->n, w->K, x, r->wide_mem);
}

static void quantize_wide(void *arg, u32 row0, u32 row1) {
    const struct rows *r = arg;
    r->m->config.kern->quantize(&r->wide, row0, row1, 0, r->wide.K);
}

void rows_quantize_wide(struct rows *r) {
    if (r->wide.kind != KERN_ACT_F32)
        rows_run(r->team, r->n, quantize_wide, r);
}

/* ---------------------------------------------------------------- matrices */

#define TILE_N 32u
#define TILES_256 (256 / TILE_N)
/* A chunk should take about 6 us: dear enough that taking it costs nothing, short enough that a processor
 * lost in mid-region costs little. At 25 GB/s of weights and 600 G operations/s per core: */
#define CHUNK_BYTES (140u << 10)
#define CHUNK_OPS 4000000u

struct region {
    const struct project *p;
    const struct team *team;
    u32 n_chunks, n_tiles;
    u32 n_units, unit; /* chunks are cut every `unit` tiles */
};

static u32 mat_tiles(const struct kern_mat *w) { return DIV_CEIL(w->N, TILE_N); }

static u32 chunk_tile(const struct region *r, u32 chunk) {
    return MIN(r->n_tiles, (u32)((u64)chunk * r->n_units / r->n_chunks) * r->unit);
}

/* Address of the weights at a tile of the space. With a gate, tiles count rows of gate and up at once. */
static const u8 *tile_data(const struct project *p, u32 tile) {
    for (u32 i = 0; i < p->n_mats; i++) {
        u32 n = mat_tiles(p->w[i]);
        if (tile < n)
            return p->w[i]->data + (size_t)tile * TILE_N * p->w[i]->row_bytes;
        tile -= n;
    }
    return NULL;
}

static void run_rows(const struct region *r, u32 mat, u32 n0, u32 n1, const u8 *next, u32 thread) {
    const struct project *p = r->p;
    p->kern->matmul(p->w[mat], n0, n1, p->a[mat], p->out[mat], p->ldo[mat], p->threads[thread].matmul, next);
    if (!p->bias[mat])
        return;
    for (u32 row = 0; row < p->a[mat]->rows; row++)
        p->kern->add_scaled(p->out[mat] + row * p->ldo[mat] + n0, p->bias[mat] + n0, 1, n1 - n0);
}

static void quantize_columns(const struct project *p, u32 n0, u32 n1) {
    if (p->quantized)
        p->kern->quantize(p->quantized, 0, p->quantized->rows, n0, n1);
}

static void run_gated(const struct region *r, u32 tile0, u32 tile1, const u8 *next, u32 thread) {
    const struct project *p = r->p;
    u32 n0 = tile0 * TILE_N, n1 = MIN(tile1 * TILE_N, p->w[0]->N);
    run_rows(r, 0, n0, n1, p->w[1]->data + p->w[1]->row_bytes * n0, thread);
    run_rows(r, 1, n0, n1, next, thread);
    for (u32 row = 0; row < p->a[0]->rows; row++) {
        f32 *gate = p->out[0] + row * p->ldo[0] + n0;
        const f32 *up = p->out[1] + row * p->ldo[1] + n0;
        (p->activation == ACT_SILU ? p->kern->silu_mul : p->kern->gelu_mul)(gate, up, n1 - n0);
    }
    quantize_columns(p, n0, n1);
}

static void finish_rows(const struct project *p, u32 n0, u32 n1) {
    if (!p->plain && p->scale == 1 && p->softcap == 0)
        return;
    for (u32 row = 0; row < p->a[0]->rows; row++) {
        f32 *x = p->out[0] + row * p->ldo[0];
        if (p->plain)
            p->kern->gelu(x + n0, n1 - n0);
        if (p->scale != 1)
            for (u32 i = n0; i < n1; i++)
                x[i] *= p->scale;
        if (p->softcap != 0)
            p->kern->softcap(x + n0, n1 - n0, p->softcap);
    }
}

static void run_tiles(const struct region *r, u32 tile0, u32 tile1, const u8 *next, u32 thread) {
    const struct project *p = r->p;
    u32 first = 0; /* tile where the matrix begins */
    for (u32 i = 0; i < p->n_mats; i++) {
        u32 n = mat_tiles(p->w[i]);
        u32 from = MAX(tile0, first), to = MIN(tile1, first + n);
        first += n;
        if (from >= to)
            continue;
        u32 n0 = (from - (first - n)) * TILE_N, n1 = MIN((to - (first - n)) * TILE_N, p->w[i]->N);
        run_rows(r, i, n0, n1, to == tile1 ? next : p->w[i + 1]->data, thread);
        if (i > 0)
            continue;
        finish_rows(p, n0, n1);
        quantize_columns(p, n0, n1);
    }
}

static void run_chunk(void *arg, u32 chunk, u32 thread) {
    const struct region *r = arg;
    u32 tile0 = chunk_tile(r, chunk), tile1 = chunk_tile(r, chunk + 1);
    const u8 *next = NULL;
    if (chunk + 1 != team_part(r->team, r->n_chunks, thread + 1))
        next = tile_data(r->p, tile1);
    else if (r->p->next)
        next = r->p->next->data + (size_t)team_part(r->team, r->p->next->N, thread) * r->p->next->row_bytes;
    if (r->p->gated)
        run_gated(r, tile0, tile1, next, thread);
    else
        run_tiles(r, tile0, tile1, next, thread);
}

struct project project_new(const struct rows *r, const struct kern_mat *next) {
    return (struct project){.kern = r->m->config.kern, .threads = r->threads, .next = next, .scale = 1};
}

void project_add(struct project *p, const struct kern_mat *w, const struct kern_acts *a, f32 *out,
                 const f32 *bias) {
    p->w[p->n_mats] = w;
    p->a[p->n_mats] = a;
    p->out[p->n_mats] = out;
    p->ldo[p->n_mats] = w->N;
    p->bias[p->n_mats++] = bias;
}

void project_rows(struct project *p, const struct kern_mat *w, const struct rows *r, f32 *out, const f32 *bias) {
    project_add(p, w, &r->acts[kern_act_kind(w->type, r->m->config.f32_activations)], out, bias);
}

void project_run(struct project *p, struct team *team) {
    struct region r = {.p = p, .team = team};
    r.unit = p->quantized && p->quantized->kind == KERN_ACT_Q8_256 ? TILES_256 : 1;
    u32 n_threads = team_threads(team);
    u64 bytes = 0, ops = 0;
    for (u32 i = 0; i < p->n_mats; i++) {
        r.n_tiles += p->gated && i > 0 ? 0 : mat_tiles(p->w[i]);
        bytes += (u64)p->w[i]->row_bytes * p->w[i]->N;
        ops += 2ull * p->w[i]->K * p->w[i]->N * p->a[i]->rows;
    }
    u64 chunks = MAX(bytes / CHUNK_BYTES, ops / CHUNK_OPS) / n_threads * n_threads;
    r.n_units = DIV_CEIL(r.n_tiles, r.unit);
    r.n_chunks = (u32)MIN(MAX(chunks, n_threads), r.n_units);
    team_run(team, run_chunk, &r, r.n_chunks);
}

void project_wide(const struct rows *r, const struct kern_mat *w, f32 *out, const struct kern_mat *next) {
    struct project p = project_new(r, next);
    project_add(&p, w, &r->wide, out, NULL);
    project_run(&p, r->team);
}

/* Whether chunks can quantize their columns: blocks of 256 must not leave some threads without work at the end. */
static bool quantizes(const struct rows *r) {
    u32 n_threads = team_threads(r->team), n_units = r->wide.K / 256;
    if (r->wide.kind != KERN_ACT_Q8_256)
        return r->wide.kind == KERN_ACT_Q8;
    return DIV_CEIL(n_units, n_threads) * n_threads <= n_units + n_units / 16;
}

void project_ffn(struct rows *r, const struct weights_layer *w, f32 *gate, f32 *up) {
    const struct family *f = r->m->h.family;
    struct project p = project_new(r, &w->down);
    p.gated = f->ffn == FFN_GATED;
    p.plain = !p.gated;
    p.activation = f->activation;
    rows_wide_at(r, &w->down, p.gated ? gate : up);
    if (quantizes(r))
        p.quantized = &r->wide;
    if (p.gated)
        project_rows(&p, &w->gate, r, gate, w->gate_bias);
    project_rows(&p, &w->up, r, up, w->up_bias);
    project_run(&p, r->team);
    if (!p.quantized)
        rows_quantize_wide(r);
}
