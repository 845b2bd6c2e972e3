/* scratch.c - the memory of a step: one block, laid out by one function that also sizes it, so that what
 * the ledger books is what is allocated. */
#include <stdlib.h>
#include <sys/mman.h>

#include "model/internal.h"

void *scratch_take(u8 *mem, u64 *at, u64 bytes) {
    void *p = mem ? mem + *at : NULL;
    *at += ALIGN_UP(bytes, 64);
    return p;
}

void scratch_plan_thread(struct thread_scratch *t, const struct model *m, u8 *mem, u64 *at) {
    u64 n = (u64)TILE_ROWS * m->group_max;
    u64 o = n * m->h.head_dim * sizeof(f32);
    t->matmul = scratch_take(mem, at, kern_matmul_scratch_bytes());
    t->attend = scratch_take(mem, at, kern_attend_scratch_bytes());
    t->q = scratch_take(mem, at, n * sizeof *t->q);
    t->pos = scratch_take(mem, at, n * sizeof *t->pos);
    t->m = scratch_take(mem, at, n * sizeof(f32));
    t->l = scratch_take(mem, at, n * sizeof(f32));
    t->o = scratch_take(mem, at, o);
    t->run_m = scratch_take(mem, at, n * sizeof(f32));
    t->run_l = scratch_take(mem, at, n * sizeof(f32));
    t->run_o = scratch_take(mem, at, o);
}

void scratch_plan_acts(void *acts[2], void **wide_acts, const struct model *m, u32 n_rows, u32 n_rows_wide,
                       u8 *mem, u64 *at) {
    static const enum kern_act kinds[2] = {KERN_ACT_Q8, KERN_ACT_Q8_256};
    u64 wide_bytes = 0;
    for (u32 i = 0; i < 2; i++) {
        bool read = m->embd_kinds[i];
        acts[i] = scratch_take(mem, at, read ? kern_acts_bytes(kinds[i], n_rows, m->h.n_embd) : 0);
        if (m->wide_K[i])
            wide_bytes = MAX(wide_bytes, kern_acts_bytes(kinds[i], n_rows_wide, m->wide_K[i]));
    }
    *wide_acts = scratch_take(mem, at, wide_bytes);
}

void scratch_plan(struct scratch_plan *p, const struct model *m, u32 n_rows, u32 n_logits, u32 n_threads,
                  u8 *mem) {
    u64 at = 0, rows = n_rows, f = sizeof(f32);
    memset(p, 0, sizeof *p);
    p->n_rows = n_rows;
    p->n_logits = n_logits;
    p->n_threads = n_threads;
    p->tiles = scratch_take(mem, &at, rows * sizeof *p->tiles);
    p->pos = scratch_take(mem, &at, rows * sizeof *p->pos);
    p->wanted = scratch_take(mem, &at, n_logits * sizeof *p->wanted);
    for (u32 i = 0; i < 2; i++)
        p->angles[i] = scratch_take(mem, &at, rows * m->h.n_rot * f);
    p->x = scratch_take(mem, &at, rows * m->h.n_embd * f);
    p->xn = scratch_take(mem, &at, rows * m->h.n_embd * f);
    p->q = scratch_take(mem, &at, rows * m->q_width * f);
    p->k = scratch_take(mem, &at, rows * m->kv_width * f);
    p->v = scratch_take(mem, &at, rows * m->kv_width * f);
    p->attn = scratch_take(mem, &at, rows * m->q_width * f);
    p->gate = scratch_take(mem, &at, rows * m->n_ff * f);
    p->up = scratch_take(mem, &at, rows * m->n_ff * f);
    p->proj = scratch_take(mem, &at, rows * m->h.n_embd * f);
    scratch_plan_acts(p->acts, &p->wide_acts, m, MAX(n_rows, MODEL_LOGITS_TILE), n_rows, mem, &at);
    p->hidden = scratch_take(mem, &at, (u64)n_logits * m->h.n_embd * f);
    p->logits = scratch_take(mem, &at, (u64)MIN(n_logits, MODEL_LOGITS_TILE) * m->h.n_vocab * f);
    p->part_m = scratch_take(mem, &at, PARTIAL_SLOTS * f);
    p->part_l = scratch_take(mem, &at, PARTIAL_SLOTS * f);
    p->part_o = scratch_take(mem, &at, (u64)PARTIAL_SLOTS * m->h.head_dim * f);
    p->fold_m = scratch_take(mem, &at, PARTIAL_SLOTS * f);
    p->fold_l = scratch_take(mem, &at, PARTIAL_SLOTS * f);
    p->fold_o = scratch_take(mem, &at, (u64)PARTIAL_SLOTS * m->h.head_dim * f);
    for (u32 i = 0; i < n_threads; i++)
        scratch_plan_thread(&p->threads[i], m, mem, &at);
    p->bytes = at;
}

u64 model_scratch_bytes(const struct model *m, u32 n_rows, u32 n_logits, u32 n_threads) {
    if (m->info.encoder) {
        struct encoder_plan e;
        encoder_plan(&e, m, n_rows, n_logits, n_threads, NULL);
        return e.bytes;
    }
    struct scratch_plan p;
    scratch_plan(&p, m, n_rows, n_logits, n_threads, NULL);
    return p.bytes;
}

struct model_scratch *model_scratch_new(void) {
    return xcalloc(1, sizeof(struct model_scratch));
}

void model_scratch_free(struct model_scratch *s) {
    if (!s)
        return;
    if (s->mem)
        munmap(s->mem, s->bytes);
    free(s);
}

enum status model_scratch_fit(struct model_scratch *s, const struct model *m, u32 n_rows, u32 n_logits,
                              u32 n_threads, struct err *err) {
    u64 bytes = model_scratch_bytes(m, n_rows, n_logits, n_threads);
    if (bytes <= s->bytes)
        return OK;
    void *mem = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mem == MAP_FAILED)
        return err_errno(err, ERR_NO_MEMORY, "no memory for %llu bytes of scratch",
                         (unsigned long long)bytes);
    /* Activations move constantly through all of it: fewer page faults and TLB misses. Only a hint. */
    madvise(mem, bytes, MADV_HUGEPAGE);
    if (s->mem)
        munmap(s->mem, s->bytes);
    s->mem = mem;
    s->bytes = bytes;
    return OK;
}
