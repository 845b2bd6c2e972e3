/* kern_parts.h - the functions behind the three tables, one set per tier: ref_X (ref/), avx2_X and avx512_X
 * (x86/), with X a member of struct kern, whose contract is in kern.h. Private to src/kern and its tests.
 * A tier that has no version of its own of some kernel uses ref_X in its table: all tiers give the same bits. */
#ifndef MINKA_KERN_PARTS_H
#define MINKA_KERN_PARTS_H

#include "kern/kern.h"

/* Most query rows that attention works on at once. Scratch holds a tile's query rows and its scores,
 * KERN_CHUNK floats each. */
#define KERN_ATTEND_TILE 8u

/* Below this largest value of a block its activations count as 0: 127 / amax would overflow. */
#define KERN_ACT_AMAX_MIN 0x1p-120f
/* Room for the tiles that the widest tier unpacks; each tier asserts that its own fit. */
#define KERN_MATMUL_SCRATCH_BYTES (80u << 10)

/* gelu(x) = x * sigmoid(x * (C1 + C3 x^2)): 2 sqrt(2/pi) and that times 0.044715. */
#define KERN_GELU_C1 1.5957691216f
#define KERN_GELU_C3 0.0713548162726f
/* Largest half. */
#define KERN_F16_MAX 65504.0f
/* Largest bf16. */
#define KERN_BF16_MAX 0x1.fep127f
/* Values of a row of logits that are summed in f32 before f64 takes over. */
#define KERN_VOCAB_BLOCK 4096u

/* The keys of chunk a->chunk that a query sees: from <= j < to, counted in the chunk; from == to if none. */
static inline void kern_visible(const struct kern_attend *a, u32 query, u32 *from, u32 *to) {
    u64 first = (u64)a->chunk * KERN_CHUNK, end = (u64)a->pos[query] + 1;
    u64 begin = a->window && end > a->window ? end - a->window : 0;
    u64 high = MIN(MAX(end, first) - first, (u64)KERN_CHUNK);
    u64 low = MIN(MAX(begin, first) - first, high);
    *from = (u32)low;
    *to = (u32)high;
    if (*from == *to)
        *from = *to = 0;
}

/* Scale of a group of the Q8 cache: amax / 127 rounded up to a bf16. amax is finite and at least KERN_ACT_AMAX_MIN. */
static inline u16 kern_q8_scale(f32 amax) {
    u32 bits;
    f32 d = amax / 127;
    memcpy(&bits, &d, sizeof bits);
    return (u16)((bits + 0xffff) >> 16);
}
#define KERN_BF16_NAN 0x7fc0u

#define KERN_DECLARE(tier)                                                                                   \
    void tier##_quantize(const struct kern_acts *a, u32 row0, u32 row1, u32 k0, u32 k1);                     \
    void tier##_matmul(const struct kern_mat *w, u32 n0, u32 n1, const struct kern_acts *a, f32 *out,        \
                       size_t ldo, void *scratch, const u8 *next);                                           \
    void tier##_embed(const struct kern_mat *w, u32 row, f32 *out);                                          \
    void tier##_rmsnorm(const f32 *x, const f32 *w, f32 eps, u32 n, f32 *y);                                 \
    void tier##_layernorm(const f32 *x, const f32 *w, const f32 *b, f32 eps, u32 n, f32 *y);                 \
    void tier##_add_scaled(f32 *y, const f32 *x, f32 scale, u32 n);                                          \
    void tier##_silu_mul(f32 *gate, const f32 *up, u32 n);                                                   \
    void tier##_gelu_mul(f32 *gate, const f32 *up, u32 n);                                                   \
    void tier##_gelu(f32 *x, u32 n);                                                                         \
    void tier##_rope(f32 *x, u32 n_heads, u32 head_dim, u32 n_rot, bool neox, const f32 *cos_sin);           \
    void tier##_kv_store(enum kern_cache cache, u32 head_dim, u32 in_page, const f32 *k, const f32 *v,       \
                         void *k_slice, void *v_slice);                                                      \
    void tier##_attend(const struct kern_attend *a, void *scratch);                                          \
    void tier##_attend_fold(f32 *m, f32 *l, f32 *o, f32 m2, f32 l2, const f32 *o2, u32 head_dim);            \
    void tier##_attend_finish(const f32 *o, f32 l, u32 head_dim, f32 *out);                                  \
    void tier##_softcap(f32 *x, u32 n, f32 softcap);                                                         \
    void tier##_logsumexp(const f32 *x, u32 n, f32 *max, f64 *lse);                                          \
    u32 tier##_above(const f32 *x, u32 n, f32 threshold, u32 *out, u32 cap);                                 \
    void tier##_maxima(const f32 *x, u32 n, f32 *out);

KERN_DECLARE(ref)
KERN_DECLARE(avx2)
KERN_DECLARE(avx512)

/* The avx2 tier's matmul for processors that have AVX-VNNI but no AVX-512. */
void avxvnni_matmul(const struct kern_mat *w, u32 n0, u32 n1, const struct kern_acts *a, f32 *out, size_t ldo,
                    void *scratch, const u8 *next);

#endif
