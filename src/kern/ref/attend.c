/* attend.c - reference attention: the order of every operation of the tiled kernels, one query at a time. */
#include "kern/kern_parts.h"

#include <math.h>

#include "base/fmath.h"
#include "kern/ref/ref.h"

#define BLOCK 16u      /* keys whose K values lie side by side */
#define PAGE_TOKENS 64u
#define GROUP 32u /* dimensions that share a scale in the Q8 cache */

static f32 cut(f32 v, f32 max) { return v > max ? max : v < -max ? -max : v; }

/* Element i from p on; *scale belongs to a Q8 element. */
static f32 cache_load(enum kern_cache cache, const void *p, size_t i, const u16 *scale) {
    switch (cache) {
    case KERN_CACHE_F16: return f16_to_f32(((const u16 *)p)[i]);
    case KERN_CACHE_F32: return ((const f32 *)p)[i];
    case KERN_CACHE_BF16: return bf16_to_f32(((const u16 *)p)[i]);
    case KERN_CACHE_Q8: return (f32)((const i8 *)p)[i] * bf16_to_f32(*scale);
    }
    check(false);
}

/* Halves hold no more than 65504: beyond it infinity would turn into NaN in the next sum. */
static void cache_store(enum kern_cache cache, void *p, size_t i, f32 v) {
    if (cache == KERN_CACHE_F16)
        ((u16 *)p)[i] = f32_to_f16(cut(v, KERN_F16_MAX));
    else if (cache == KERN_CACHE_BF16)
        ((u16 *)p)[i] = f32_to_bf16(cut(v, KERN_BF16_MAX));
    else
        ((f32 *)p)[i] = v;
}

/* Quantizes one group of the Q8 cache; element i goes to q[i * step]. */
static void q8_store(const f32 *x, u32 n, i8 *q, size_t step, u16 *scale) {
    f32 amax = 0;
    bool finite = true;
    for (u32 i = 0; i < n; i++) {
        finite = finite && fabsf(x[i]) < INFINITY;
        amax = fmaxf(amax, fabsf(x[i]));
    }
    bool zero = !finite || amax < KERN_ACT_AMAX_MIN;
    *scale = !finite ? KERN_BF16_NAN : zero ? 0 : kern_q8_scale(amax);
    f32 inverse = zero ? 0 : 1 / bf16_to_f32(*scale);
    for (u32 i = 0; i < n; i++)
        q[i * step] = zero ? 0 : (i8)lrintf(x[i] * inverse);
}

void ref_kv_store(enum kern_cache cache, u32 head_dim, u32 in_page, const f32 *k, const f32 *v, void *k_slice,
                  void *v_slice) {
    size_t block_bytes = kern_cache_block_bytes(cache, head_dim), in_block = in_page % BLOCK;
    u8 *kb = (u8 *)k_slice + in_page / BLOCK * block_bytes, *vb = (u8 *)v_slice + in_page / BLOCK * block_bytes;
    if (in_block == 0) {
        memset(kb, 0, block_bytes);
        memset(vb, 0, block_bytes);
    }
    if (cache == KERN_CACHE_Q8) {
        u16 *ks = (u16 *)(kb + BLOCK * head_dim), *vs = (u16 *)(vb + BLOCK * head_dim);
        u32 groups = DIV_CEIL(head_dim, GROUP);
        for (u32 g = 0; g < groups; g++) {
            u32 d = g * GROUP, n = MIN(head_dim - d, GROUP);
            q8_store(k + d, n, (i8 *)kb + d * BLOCK + in_block, BLOCK, &ks[g * BLOCK + in_block]);
            q8_store(v + d, n, (i8 *)vb + in_block * head_dim + d, 1, &vs[in_block * groups + g]);
        }
        return;
    }
    for (u32 d = 0; d < head_dim; d++) {
        cache_store(cache, kb, (size_t)d * BLOCK + in_block, k[d]);
        cache_store(cache, vb, in_block * head_dim + d, v[d]);
    }
}

static const u8 *block_at(const struct kern_attend *a, const void *const *slices, u32 j) {
    return (const u8 *)slices[j / PAGE_TOKENS] + j % PAGE_TOKENS / BLOCK * kern_cache_block_bytes(a->cache, a->head_dim);
}

static f32 load_k(const struct kern_attend *a, u32 j, u32 d) {
    const u8 *block = block_at(a, a->k, j);
    const u16 *scales = (const u16 *)(const void *)(block + BLOCK * a->head_dim);
    return cache_load(a->cache, block, (size_t)d * BLOCK + j % BLOCK, &scales[d / GROUP * BLOCK + j % BLOCK]);
}

static f32 load_v(const struct kern_attend *a, u32 j, u32 d) {
    const u8 *block = block_at(a, a->v, j);
    const u16 *scales = (const u16 *)(const void *)(block + BLOCK * a->head_dim);
    return cache_load(a->cache, block, (size_t)(j % BLOCK) * a->head_dim + d,
                      &scales[j % BLOCK * DIV_CEIL(a->head_dim, GROUP) + d / GROUP]);
}

static f32 score(const struct kern_attend *a, const f32 *q, u32 j) {
    f32 acc = 0;
    for (u32 d = 0; d < a->head_dim; d++)
        acc = fmaf(q[d], load_k(a, j, d), acc);
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
            acc = fmaf(p[j], load_v(a, j, d), acc);
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
