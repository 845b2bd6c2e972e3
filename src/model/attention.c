/* attention.c - spreads the attention of a step over the team.
 *
 * An item is (tile, KV head): up to 16 rows of one sequence with all query heads that share the KV head.
 * It walks the chunks of 256 keys and folds each into its running result. Where items are too few for the
 * team (one sequence decodes with a long context) the chunks of an item are computed side by side, in waves
 * that fit the partial slots, and folded afterwards: in the same order, so with the same bits. */
#include "model/internal.h"

#define CHUNK_PAGES (KERN_CHUNK / KV_PAGE_TOKENS)

struct walk {
    const struct attention *a;
    const struct model_layer *layer;
    const struct hyper_layer *shape;
    u32 group_size; /* query heads per KV head */
    u32 n_kv;       /* items per tile */
    u32 n_items;
    u32 c0, c1;     /* wave: chunks c0..c1-1 */
    u32 item_slots; /* partial slots of one item and chunk */
    u32 threads;
};

struct item {
    u32 tile, kv_head, n_queries;
    u32 c0, c1; /* chunks that some row sees */
};

static struct item item_at(const struct walk *w, u32 i) {
    struct item it = {.tile = i / w->n_kv, .kv_head = i % w->n_kv};
    const struct tile *t = &w->a->plan->tiles[it.tile];
    u32 window = w->shape->window;
    it.n_queries = t->n * w->group_size;
    it.c0 = window && t->pos >= window ? (t->pos - window + 1) / KERN_CHUNK : 0;
    it.c1 = (t->pos + t->n - 1) / KERN_CHUNK + 1;
    return it;
}

/* The K or V slice of this layer and head in a page of the sequence; NULL where no page is held. */
static const void *page_slice(const struct walk *w, const struct item *it, u32 page, bool value) {
    const struct attention *a = w->a;
    const struct kv_seq *seq = a->spans[a->plan->tiles[it->tile].span].seq;
    const struct kv_table *table = &seq->tables[w->layer->group];
    const struct kv_group *group = &a->m->info.kv.groups[w->layer->group];
    const u8 *p = page < table->n_pages ? table->pages[page] : NULL;
    return p ? p + kv_slice_offset(group, w->layer->in_group, it->kv_head, value) : NULL;
}

struct pages {
    const void *k[CHUNK_PAGES], *v[CHUNK_PAGES];
};

/* One chunk of an item without its queries and results; the slices go into p. */
static struct kern_attend chunk_of(const struct walk *w, const struct item *it, u32 chunk, struct pages *p) {
    const struct model *model = w->a->m;
    for (u32 i = 0; i < CHUNK_PAGES; i++) {
        p->k[i] = page_slice(w, it, chunk * CHUNK_PAGES + i, false);
        p->v[i] = page_slice(w, it, chunk * CHUNK_PAGES + i, true);
    }
    return (struct kern_attend){
        .cache = model->config.cache,
        .head_dim = model->h.head_dim,
        .window = w->shape->window,
        .chunk = chunk,
        .k = p->k,
        .v = p->v,
        .scale = model->h.attn_scale,
        .softcap = model->h.attn_softcap,
    };
}

/* next_item (n_items or more: none), next_chunk (or the first that it sees, if that is later): what this thread will
 * probably read afterwards, for prefetching. */
static void attend_chunk(const struct walk *w, const struct item *it, u32 chunk, u32 next_item, u32 next_chunk,
                         struct thread_scratch *ts, f32 *m, f32 *l, f32 *o) {
    const struct scratch_plan *plan = w->a->plan;
    const struct tile *t = &plan->tiles[it->tile];
    u32 hd = w->a->m->h.head_dim, width = w->shape->n_heads * hd;
    struct pages pages, next_pages;
    u32 next_ends[2];
    struct kern_attend a = chunk_of(w, it, chunk, &pages), next;
    for (u32 i = 0; i < it->n_queries; i++) {
        u32 row = t->row + i / w->group_size, head = it->kv_head * w->group_size + i % w->group_size;
        ts->q[i] = plan->q + (size_t)row * width + head * hd;
        ts->pos[i] = plan->pos[row];
    }
    if (next_item < w->n_items) {
        struct item next_it = item_at(w, next_item);
        const struct tile *next_t = &plan->tiles[next_it.tile];
        next_ends[0] = next_t->pos;
        next_ends[1] = next_t->pos + next_t->n - 1;
        next = chunk_of(w, &next_it, MAX(next_chunk, next_it.c0), &next_pages);
        next.n_queries = 2;
        next.pos = next_ends;
        a.next = &next;
    }
    a.n_queries = it->n_queries;
    a.q = ts->q;
    a.pos = ts->pos;
    a.m = m;
    a.l = l;
    a.o = o;
    w->a->m->config.kern->attend(&a, ts->attend);
}

static void fold_chunk(const struct walk *w, u32 n_queries, f32 *m, f32 *l, f32 *o, const f32 *m2,
                       const f32 *l2, const f32 *o2) {
    u32 hd = w->a->m->h.head_dim;
    for (u32 i = 0; i < n_queries; i++)
        w->a->m->config.kern->attend_fold(&m[i], &l[i], o + (size_t)i * hd, m2[i], l2[i], o2 + (size_t)i * hd,
                                          hd);
}

static void finish_item(const struct walk *w, const struct item *it, const f32 *l, const f32 *o) {
    const struct model *model = w->a->m;
    const struct tile *t = &w->a->plan->tiles[it->tile];
    u32 hd = model->h.head_dim, width = w->shape->n_heads * hd;
    for (u32 i = 0; i < it->n_queries; i++) {
        u32 row = t->row + i / w->group_size, head = it->kv_head * w->group_size + i % w->group_size;
        model->config.kern->attend_finish(o + (size_t)i * hd, l[i], hd,
                                          w->a->plan->attn + (size_t)row * width + head * hd);
    }
    u32 columns = w->group_size * hd;
    if (w->a->quantized)
        model->config.kern->quantize(w->a->quantized, t->row, t->row + t->n, it->kv_head * columns,
                                     (it->kv_head + 1) * columns);
}

/* The whole item on one thread. Folding chunk c0 into the empty result (m = -inf, l = 0, o = 0) gives its own
 * bits, so it starts as the running result. */
static void walk_item(void *arg, u32 i, u32 thread) {
    const struct walk *w = arg;
    struct thread_scratch *ts = &w->a->plan->threads[thread];
    struct item it = item_at(w, i);
    for (u32 c = it.c0; c < it.c1; c++) {
        bool first = c == it.c0, last = c + 1 == it.c1;
        attend_chunk(w, &it, c, last ? i + 1 : i, last ? 0 : c + 1, ts, first ? ts->run_m : ts->m,
                     first ? ts->run_l : ts->l, first ? ts->run_o : ts->o);
        if (!first)
            fold_chunk(w, it.n_queries, ts->run_m, ts->run_l, ts->run_o, ts->m, ts->l, ts->o);
    }
    finish_item(w, &it, ts->run_l, ts->run_o);
}

static size_t slot_of(const struct walk *w, u32 i, u32 chunk) {
    return ((size_t)i * (w->c1 - w->c0) + (chunk - w->c0)) * w->item_slots;
}

static void wave_chunk(void *arg, u32 index, u32 thread) {
    const struct walk *w = arg;
    struct scratch_plan *plan = w->a->plan;
    u32 n = w->c1 - w->c0, i = index / n, chunk = w->c0 + index % n;
    struct item it = item_at(w, i);
    size_t s = slot_of(w, i, chunk);
    if (chunk >= it.c0 && chunk < it.c1)
        attend_chunk(w, &it, chunk, (index + 1) / n, w->c0 + (index + 1) % n, &plan->threads[thread],
                     plan->part_m + s, plan->part_l + s, plan->part_o + s * w->a->m->h.head_dim);
}

static void wave_fold(void *arg, u32 i, u32 thread) {
    const struct walk *w = arg;
    (void)thread;
    struct scratch_plan *plan = w->a->plan;
    u32 hd = w->a->m->h.head_dim;
    struct item it = item_at(w, i);
    size_t f = (size_t)i * w->item_slots;
    for (u32 c = MAX(w->c0, it.c0); c < MIN(w->c1, it.c1); c++) {
        size_t s = slot_of(w, i, c);
        if (c == it.c0) {
            memcpy(plan->fold_m + f, plan->part_m + s, it.n_queries * sizeof(f32));
            memcpy(plan->fold_l + f, plan->part_l + s, it.n_queries * sizeof(f32));
            memcpy(plan->fold_o + f * hd, plan->part_o + s * hd, (size_t)it.n_queries * hd * sizeof(f32));
        } else {
            fold_chunk(w, it.n_queries, plan->fold_m + f, plan->fold_l + f, plan->fold_o + f * hd,
                       plan->part_m + s, plan->part_l + s, plan->part_o + s * hd);
        }
    }
    if (w->c1 >= it.c1 && w->c0 < it.c1)
        finish_item(w, &it, plan->fold_l + f, plan->fold_o + f * hd);
}

bool attention_quantizes(const struct attention *a, const struct kern_acts *into) {
    const struct hyper_layer *shape = &a->m->h.layers[a->layer];
    u32 columns = shape->n_heads / shape->n_kv_heads * a->m->h.head_dim;
    return (into->kind == KERN_ACT_Q8 && columns % 32 == 0) || (into->kind == KERN_ACT_Q8_256 && columns % 256 == 0);
}

void attention_run(const struct attention *a, struct team *team) {
    struct walk w = {.a = a,
                     .layer = &a->m->layers[a->layer],
                     .shape = &a->m->h.layers[a->layer],
                     .threads = team_threads(team)};
    w.n_kv = w.shape->n_kv_heads;
    w.group_size = w.shape->n_heads / w.n_kv;
    w.n_items = a->n_tiles * w.n_kv;
    u32 rows_max = 0, first = UINT32_MAX, last = 0;
    for (u32 t = 0; t < a->n_tiles; t++) {
        struct item it = item_at(&w, t * w.n_kv);
        rows_max = MAX(rows_max, a->plan->tiles[t].n);
        first = MIN(first, it.c0);
        last = MAX(last, it.c1);
    }
    w.item_slots = rows_max * w.group_size;
    if (w.threads == 1 || w.n_items >= 4 * w.threads || last - first == 1 ||
        (u64)w.n_items * w.item_slots > PARTIAL_SLOTS) {
        team_run(team, walk_item, &w, w.n_items);
        return;
    }
    u32 wave = PARTIAL_SLOTS / (w.n_items * w.item_slots);
    for (w.c0 = first; w.c0 < last; w.c0 = w.c1) {
        w.c1 = MIN(last, w.c0 + wave);
        team_run(team, wave_chunk, &w, w.n_items * (w.c1 - w.c0));
        team_run(team, wave_fold, &w, w.n_items);
    }
}
