/* project.c - out = input x weights for up to three matrices in one region of the team.
 *
 * The rows of all matrices form one space of tiles of 32, cut into chunks. What is prefetched behind a chunk is what
 * the same thread reads next (team.h). Which thread computes a chunk changes no bit. */
#include "model/internal.h"

#define TILE_N 32u
/* A chunk should take about 6 us: dear enough that taking it costs nothing, short enough that a processor
 * lost in mid-region costs little. At 25 GB/s of weights and 600 G operations/s per core: */
#define CHUNK_BYTES (140u << 10)
#define CHUNK_OPS 4000000u

struct region {
    const struct project *p;
    const struct team *team;
    u32 n_chunks, n_tiles;
};

static u32 mat_tiles(const struct kern_mat *w) { return DIV_CEIL(w->N, TILE_N); }

static u32 chunk_tile(const struct region *r, u32 chunk) {
    return (u32)((u64)chunk * r->n_tiles / r->n_chunks);
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
        if (i == 0)
            finish_rows(p, n0, n1);
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

void project_acts(const struct model *m, u32 n_rows, void *const mem[2], struct kern_acts acts[2]) {
    if (m->embd_kinds[0])
        kern_acts_at(&acts[0], KERN_ACT_Q8, n_rows, m->h.n_embd, NULL, mem[0]);
    if (m->embd_kinds[1])
        kern_acts_at(&acts[1], KERN_ACT_Q8_256, n_rows, m->h.n_embd, NULL, mem[1]);
}

const struct kern_acts *project_input(const struct model *m, const struct kern_mat *w,
                                      const struct kern_acts acts[2], const f32 *x, u32 n_rows,
                                      struct kern_acts *f32_acts) {
    enum kern_act kind = kern_act_kind(w->type, m->config.f32_activations);
    if (kind != KERN_ACT_F32)
        return &acts[kind == KERN_ACT_Q8 ? 0 : 1];
    kern_acts_at(f32_acts, KERN_ACT_F32, n_rows, w->K, x, NULL);
    return f32_acts;
}

void project_add(struct project *p, const struct kern_mat *w, const struct kern_acts *a, f32 *out,
                 const f32 *bias) {
    p->w[p->n_mats] = w;
    p->a[p->n_mats] = a;
    p->out[p->n_mats] = out;
    p->ldo[p->n_mats] = w->N;
    p->bias[p->n_mats++] = bias;
}

void project_run(struct project *p, struct team *team) {
    struct region r = {.p = p, .team = team};
    u32 n_threads = team_threads(team);
    u64 bytes = 0, ops = 0;
    for (u32 i = 0; i < p->n_mats; i++) {
        r.n_tiles += p->gated && i > 0 ? 0 : mat_tiles(p->w[i]);
        bytes += (u64)p->w[i]->row_bytes * p->w[i]->N;
        ops += 2ull * p->w[i]->K * p->w[i]->N * p->a[i]->rows;
    }
    u64 chunks = MAX(bytes / CHUNK_BYTES, ops / CHUNK_OPS) / n_threads * n_threads;
    r.n_chunks = (u32)MIN(MAX(chunks, n_threads), r.n_tiles);
    team_run(team, run_chunk, &r, r.n_chunks);
}
