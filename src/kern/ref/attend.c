/* attend.c - reference attention: the order of every operation of the tiled kernels, one query at a time. */
#include "kern/kern_parts.h"

#include <math.h>

#include "base/fmath.h"
#include "kern/ref/ref.h"

#define BLOCK 16u      /* keys whose K values lie side by side */
#define PAGE_TOKENS 64u

static f32 cache_load(enum kern_cache cache, const void *p, size_t i) {
    return cache == KERN_CACHE_F16 ? f16_to_f32(((const u16 *)p)[i]) : ((const f32 *)p)[i];
}

/* Halves hold no more than 65504: beyond it infinity would turn into NaN in the next sum. */
static void cache_store(enum kern_cache cache, void *p, size_t i, f32 v) {
    if (cache == KERN_CACHE_F16)
        ((u16 *)p)[i] = f32_to_f16(v > KERN_F16_MAX ? KERN_F16_MAX : v < -KERN_F16_MAX ? -KERN_F16_MAX : v);
    else
        ((f32 *)p)[i] = v;
}

void ref_kv_store(enum kern_cache cache, u32 head_dim, u32 in_page, const f32 *k, const f32 *v, void *k_slice,
                  void *v_slice) {
    size_t bytes = kern_cache_bytes(cache), block_bytes = bytes * BLOCK * head_dim, block = in_page / BLOCK;
    if (in_page % BLOCK == 0) {
        memset((u8 *)k_slice + block * block_bytes, 0, block_bytes);
        memset((u8 *)v_slice + block * block_bytes, 0, block_bytes);
    }
    for (u32 d = 0; d < head_dim; d++) {
        cache_store(cache, k_slice, (block * head_dim + d) * BLOCK + in_page % BLOCK, k[d]);
        cache_store(cache, v_slice, (size_t)in_page * head_dim + d, v[d]);
    }
}

static f32 score(const struct kern_attend *a, const f32 *q, u32 j) {
    const void *page = a->k[j / PAGE_TOKENS];
    size_t block = j % PAGE_TOKENS / BLOCK;
    f32 acc = 0;
    for (u32 d = 0; d < a->head_dim; d++)
        acc = fmaf(q[d], cache_load(a->cache, page, (block * a->head_dim + d) * BLOCK + j % BLOCK), acc);
    f32 s = a->scale * acc;
    return a->softcap > 0 ? a->softcap * fm_tanhf(s / a->softcap) : s;
}

/* ALiBi (Press et al. 2021), symmetric as encoders use it. */
static f32 sink(const struct kern_attend *a, u32 query, u32 j, f32 s) {
    f32 key = (f32)(a->chunk * KERN_CHUNK + j), at = (f32)a->at[query];
    return fmaf(-a->slope[query], fabsf(key - at), s);
}

static void attend_query(const struct kern_attend *a, u32 query) {
    f32 p[KERN_CHUNK], lane[BLOCK] = {0}, *o = a->o + (size_t)query * a->head_dim;
    u32 from, to;
    kern_visible(a, query, &from, &to);
    f32 m = -INFINITY;
    for (u32 j = from; j < to; j++) {
        p[j] = score(a, a->q[query], j);
        if (a->slope)
            p[j] = sink(a, query, j, p[j]);
        m = p[j] > m ? p[j] : m;
    }
    m = m + 0.0f; /* -0 becomes 0, whichever came first */
    for (u32 j = from; j < to; j++) {
        p[j] = fm_expf(p[j] - m);
        lane[j % BLOCK] = lane[j % BLOCK] + p[j];
    }
    for (u32 d = 0; d < a->head_dim; d++) {
        f32 acc = 0;
        for (u32 j = from; j < to; j++)
            acc = fmaf(p[j], cache_load(a->cache, a->v[j / PAGE_TOKENS], (size_t)(j % PAGE_TOKENS) * a->head_dim + d), acc);
        o[d] = acc + 0.0f;
    }
    a->m[query] = m;
    a->l[query] = lanes_sum(lane);
}

void ref_attend(const struct kern_attend *a, void *scratch) {
    (void)scratch;
    for (u32 i = 0; i < a->n_queries; i++)
        attend_query(a, i);
}

void ref_attend_fold(f32 *m, f32 *l, f32 *o, f32 m2, f32 l2, const f32 *o2, u32 head_dim) {
    if (m2 == -INFINITY)
        return;
    f32 mm = *m > m2 ? *m : m2;
    f32 a = fm_expf(*m - mm), b = fm_expf(m2 - mm);
    *m = mm;
    *l = fmaf(*l, a, l2 * b);
    for (u32 i = 0; i < head_dim; i++)
        o[i] = fmaf(o[i], a, o2[i] * b);
}

void ref_attend_finish(const f32 *o, f32 l, u32 head_dim, f32 *out) {
    for (u32 i = 0; i < head_dim; i++)
        out[i] = o[i] / l;
}
