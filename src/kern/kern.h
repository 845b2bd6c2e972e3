/* kern.h - the contract of the compute kernels. Three tables implement it: ref/ (plain C, never tuned,
 * the definition), x86/ avx2 (avxvnni: the same with another matmul) and avx512. kern_open picks one; MINKA_KERNELS forces one.
 *
 * Rules that hold for every kernel and that the tests check bit for bit:
 *  - All tables give the same bits for the same inputs.
 *  - Batch invariance: the float operations that make one output element happen in the same order
 *    whatever the number of rows in the call, the slicing, the thread or the neighbours.
 *  - Floats are combined by explicit fma where the formula says fma(), and by separate * and + where
 *    it does not (-ffp-contract=off). exp, sin, cos, pow are ours (base/fmath.h), never the C library's.
 *  - A kernel works on one thread, allocates nothing, writes nothing outside its outputs and scratch.
 *  - No NaN is made from finite inputs; NaN or Inf in the input spoil only their own row.
 *  - Rows never read behind the end of a mapped tensor. */
#ifndef MINKA_KERN_H
#define MINKA_KERN_H

#include "base/base.h"
#include "gguf/quant.h" /* enum quant_type: the weight formats and their block layouts */

/* Bumped with any change of float order in a kernel or in model/; part of kv_identity. A golden hash of
 * logits in the tests fails the build if somebody forgets. */
#define NUMERICS_VERSION 1u

/* ---------------------------------------------------------------- activations for matmul
 *
 * Integer weight types multiply int8 activations. One row of K activations is quantized once per region
 * and shared by all weights that read it (q|k|v, gate|up), in blocks of 32 (Q8) or 256 (Q8_256) values:
 *   d = amax / 127,  q = round_to_nearest_even(x * (127 / amax)), amax the largest |x| of the block;
 *   127 / amax is one f32 division. amax < 2^-120 (where that quotient overflows): d = 0, q = 0.
 *   A value that is NaN or infinite: d = NaN, q = 0, so that it spoils its own row and no other.
 * The format is fixed by the weight type (kern_act_kind), never by load: Q8 for the types with blocks of
 * 32, Q8_256 for the K-quants and IQ4_XS. F32, F16 and BF16 weights multiply the f32 row itself. */
#define KERN_ACT_BLOCK 32u

enum kern_act { KERN_ACT_F32, KERN_ACT_Q8, KERN_ACT_Q8_256 };

/* 32 quantized activations with all that a kernel needs of them, so that it walks one pointer per row. */
struct kern_act_block {
    f32 d;    /* scale of the values; Q8_256: of the 256 values that the block belongs to, in each of them */
    f32 s;    /* Q8: d * sum of q (one multiplication); Q8_256: the sum of q */
    i32 n[2]; /* minus the sum of q[0..15] and of q[16..31]; Q8: n[0] minus the whole sum, n[1] 0 */
    i8 q[KERN_ACT_BLOCK];
};

/* One activation matrix of rows x K in one format; planned by kern_acts_bytes, laid out by kern_acts_at. */
struct kern_acts {
    enum kern_act kind;
    u32 K;                         /* columns, a multiple of 32; for F32 of 16 (there are models with 176) */
    u32 rows;
    const f32 *x;                  /* [rows][K] */
    struct kern_act_block *blocks; /* Q8*: [rows][K/32]; Q8_256: K is a multiple of 256 */
};

/* Activation format in which type's matmul reads its input. force_f32: all types read F32. */
enum kern_act kern_act_kind(enum quant_type type, bool force_f32);
/* Bytes for the arrays of a matrix of this format (0 for F32: the row itself is used). */
size_t kern_acts_bytes(enum kern_act kind, u32 rows, u32 K);
/* Points a's arrays into mem (64-byte aligned, kern_acts_bytes large). */
void kern_acts_at(struct kern_acts *a, enum kern_act kind, u32 rows, u32 K, const f32 *x, void *mem);

/* ---------------------------------------------------------------- weights, in place */
struct kern_mat {
    const u8 *data;       /* rows in the file's own layout, any alignment the file has */
    enum quant_type type;
    u32 N;                /* rows = outputs */
    u32 K;                /* columns = inputs; a multiple of the type's block size, for F32, F16, BF16 of 16 */
    size_t row_bytes;     /* = quant_row_bytes(type, K) */
};

/* ---------------------------------------------------------------- attention
 *
 * The cache of one layer and one KV head, seen through a page table. A page holds KV_PAGE_TOKENS = 64
 * positions; inside a page each (layer, head) has
 *   K as [64/16 key blocks][head_dim][16 keys]    (16 scores per vector, no reduction)
 *   V as [64 keys][head_dim]
 * in the element type of the cache. Q8 elements are i8 with a scale per key and 32 dimensions (the last ones may be 16);
 * the scales of 16 keys follow their elements, so that a block of 16 keys is
 *   K [head_dim][16 keys] i8, [groups][16 keys] bf16;  V [16 keys][head_dim] i8, [16 keys][groups] bf16
 * with groups = ceil(head_dim / 32). An element is q * d, which is exact in f32:
 *   d = amax / 127 rounded up to a bf16, q = round_to_nearest_even(x * (1 / d)); amax < 2^-120: d = 0, q = 0;
 *   a value that is NaN or infinite makes d of its group NaN and q 0.
 * Attention walks absolute positions in chunks of KERN_CHUNK keys:
 *   s[j]  = scale * dot(q, k[j])     dot: acc = fma(q[i], k[j][i], acc), i = 0..head_dim-1, from 0
 *   s[j]  = softcap * tanh(s[j] / softcap) if softcap > 0
 *   s[j]  = fma(-slope, |at - j|, s[j]) with slopes (ALiBi);  masked positions: p[j] = 0
 *   m     = max over the chunk's visible keys,  p[j] = exp(s[j] - m)
 *   l     = sum of p in the lane order of ref/attend.c,  o[i] = fma(p[j], v[j][i], o[i]) over j ascending
 * and partial results (m, l, o) are folded in ascending chunk order. Keys of the current slice are read
 * from the cache, rounded by it, like all others. Masked keys take part in nothing: their K and V may hold any
 * bits. m and o are never -0, so that folding the first chunk into nothing gives its own bits. NaN scores don't
 * take part in the max, but make l and o of their own query NaN. */
#define KERN_CHUNK 256u

enum kern_cache { KERN_CACHE_F16, KERN_CACHE_F32, KERN_CACHE_BF16, KERN_CACHE_Q8 };
#define KERN_CACHE_TYPES 4u

struct kern_attend {
    enum kern_cache cache;
    u32 head_dim;            /* a multiple of 16, <= 256 */
    u32 n_queries;           /* query rows that share this KV head: (heads per KV head) x (rows of one sequence) */
    const f32 *const *q;     /* [n_queries] -> f32[head_dim], rope applied */
    const u32 *pos;          /* [n_queries] absolute position of each query's row; an encoder, whose rows see all
                                keys, gives the last one */
    const f32 *slope;        /* [n_queries] ALiBi: scores sink by slope per key of distance; NULL = none */
    const u32 *at;           /* [n_queries] with slope: the position that the distance is counted from, < 2^24 */
    u32 window;              /* keys p with pos - window < p <= pos are visible; 0 = all p <= pos */
    u32 chunk;               /* which chunk of KERN_CHUNK keys, by absolute position */
    const void *const *k;    /* [KERN_CHUNK/64] page slices of this head, NULL where not held */
    const void *const *v;
    const struct kern_attend *next; /* the call that this thread will probably make next, for prefetching; or NULL. Read
                                are only its cache, head_dim, first and last pos, window, chunk, k and v */
    f32 scale;
    f32 softcap;             /* 0 = off */
    f32 *m;                  /* out [n_queries]; -inf if no key of the chunk is visible */
    f32 *l;                  /* out [n_queries] */
    f32 *o;                  /* out [n_queries][head_dim], not normalised; 0 if nothing is visible */
};

/* ---------------------------------------------------------------- the table */
/* Values of a row of logits that share a maximum. */
#define KERN_MAXIMA 64u

struct kern {
    const char *name; /* "ref", "avx2", "avxvnni", "avx512" */

    /* Quantizes columns k0..k1-1 (multiples of 32; Q8_256: of 256) of a->x, rows row0..row1-1, into a's blocks. */
    void (*quantize)(const struct kern_acts *a, u32 row0, u32 row1, u32 k0, u32 k1);

    /* out[m][n] = sum over k of act[m][k] * w[n][k], for m in 0..a->rows-1 and n in n0..n1-1; out is
     * [rows][ldo], indexed by the absolute n. n0 is a multiple of 32, n1 too unless it is w->N.
     * Per output, walking the K axis in ascending blocks (block = 32 values; 16 for Q6_K):
     *   Q8:     acc = fma((f32)isum, dw * d, acc);  types with a minimum m: then acc = fma(m, s, acc)
     *   Q8_256: t = 0 per 256 values; t = fma((f32)isum, dw, t); minimum: t = fma(m, s, t);
     *           after each 256: acc = fma(t, d, acc)
     *   F32:    acc = fma(w[k], x[k], acc), w decoded exactly to f32
     * where acc starts at 0, isum is the exact integer sum of (weight - offset) * q over the block, dw the
     * block's scale and m its minimum (the K-quants' is negative: -dmin * min) decoded as quant.h says. scratch: kern_matmul_scratch_bytes(), 64-byte aligned, one per thread.
     * next (may be NULL): the bytes that this thread will read after this call, for prefetching. */
    void (*matmul)(const struct kern_mat *w, u32 n0, u32 n1, const struct kern_acts *a, f32 *out, size_t ldo,
                   void *scratch, const u8 *next);

    /* One token's embedding: row `row` of w, decoded to f32[K]. */
    void (*embed)(const struct kern_mat *w, u32 row, f32 *out);

    /* y = (x * (1/sqrt(mean(x^2) + eps))) * w; the sum of squares is taken in f32 over 16 lanes by
     * fma, lane = k % 16, then folded pairwise (8,4,2,1). w NULL = 1. x and y may be the same. n >= 1, eps > 0
     * (a row of zeros with eps = 0 would give NaN). */
    void (*rmsnorm)(const f32 *x, const f32 *w, f32 eps, u32 n, f32 *y);
    /* y = ((x - mean) * (1/sqrt(var + eps))) * w + b, var = mean((x - mean)^2); sums as in rmsnorm. w, b may be
     * NULL. x and y may be the same. */
    void (*layernorm)(const f32 *x, const f32 *w, const f32 *b, f32 eps, u32 n, f32 *y);
    /* y[i] += x[i] * scale (one fma). */
    void (*add_scaled)(f32 *y, const f32 *x, f32 scale, u32 n);
    /* gate[i] = act(gate[i]) * up[i];  silu(x) = x / (1 + exp(-x)),
     * gelu(x) = x / (1 + exp(-(x * fma(x * x, c3, c1)))), which is the tanh form with one exp (c1, c3: kern_parts.h) */
    void (*silu_mul)(f32 *gate, const f32 *up, u32 n);
    void (*gelu_mul)(f32 *gate, const f32 *up, u32 n);
    void (*gelu)(f32 *x, u32 n);
    /* Rotates n_heads heads of x (stride head_dim) in place: pairs (2i, 2i+1), or (i, i + n_rot/2) if
     * neox; cos_sin is [n_rot/2][2] for this row's position. Dimensions from n_rot on are left. n_rot is even.
     *   x0' = fma(x0, c, -(x1 * s));  x1' = fma(x0, s, x1 * c) */
    void (*rope)(f32 *x, u32 n_heads, u32 head_dim, u32 n_rot, bool neox, const f32 *cos_sin);

    /* Writes one position of one KV head into its page slice: `in_page` 0..63, k and v f32[head_dim].
     * At in_page % 16 == 0 the rest of that 16-key block is zeroed first (a stale NaN must not meet a
     * zero weight, and old data are another client's). Halves are rounded to nearest even and cut to +-65504,
     * bf16 to its largest number. */
    void (*kv_store)(enum kern_cache cache, u32 head_dim, u32 in_page, const f32 *k, const f32 *v, void *k_slice,
                     void *v_slice);
    /* One chunk of attention, see struct kern_attend. scratch: kern_attend_scratch_bytes(). */
    void (*attend)(const struct kern_attend *a, void *scratch);
    /* Folds chunk c's (m2, l2, o2) into (m, l, o): the running pair starts as m = -inf, l = 0, o = 0.
     * m2 = -inf changes nothing. Else
     *   mm = max(m, m2); a = exp(m - mm); b = exp(m2 - mm); l = fma(l, a, l2 * b); o = fma(o, a, o2 * b) */
    void (*attend_fold)(f32 *m, f32 *l, f32 *o, f32 m2, f32 l2, const f32 *o2, u32 head_dim);
    /* out[i] = o[i] / l */
    void (*attend_finish)(const f32 *o, f32 l, u32 head_dim, f32 *out);

    /* x[i] = softcap * tanh(x[i] / softcap) */
    void (*softcap)(f32 *x, u32 n, f32 softcap);
    /* Largest value and log(sum(exp(x - max))), so that log p(i) = x[i] - max - lse. Fixed blocks of 4096 values
     * are each summed in 16 lanes and folded pairwise in f32; blocks are added in order in f64. -inf values are
     * allowed (both results are -inf if there are only such); max ignores NaN and is never -0. */
    void (*logsumexp)(const f32 *x, u32 n, f32 *max, f64 *lse);
    /* Appends the indices of all x[i] >= threshold to out (ascending), at most cap; returns how many
     * there are in all (may be > cap). For top-k without sorting. */
    u32 (*above)(const f32 *x, u32 n, f32 threshold, u32 *out, u32 cap);
    /* out [DIV_CEIL(n, KERN_MAXIMA)]: the largest of each KERN_MAXIMA values, -inf if there are only NaN; of zeros
     * either one. One pass that later searches start from. */
    void (*maxima)(const f32 *x, u32 n, f32 *out);
};

/* name NULL or "": the fastest this processor runs; else "ref", "avx2", "avxvnni" or "avx512", ERR_UNSUPPORTED with
 * a message if the processor lacks it. The table is static. */
enum status kern_open(const char *name, const struct kern **out, struct err *err) MUST_USE;
size_t kern_matmul_scratch_bytes(void);
size_t kern_attend_scratch_bytes(void);
/* "f16" (also NULL and ""), "f32", "bf16" or "q8_0"; ERR_UNSUPPORTED with a message for another name. */
enum status kern_cache_by_name(const char *name, enum kern_cache *out, struct err *err) MUST_USE;
/* Bytes of an element of the cache; of the scales of one position of one head beside its elements (K or V alone). */
static inline size_t kern_cache_bytes(enum kern_cache cache) {
    return cache == KERN_CACHE_Q8 ? 1 : cache == KERN_CACHE_F32 ? 4 : 2;
}
static inline size_t kern_cache_scale_bytes(enum kern_cache cache, u32 head_dim) {
    return cache == KERN_CACHE_Q8 ? 2 * DIV_CEIL((size_t)head_dim, 32) : 0;
}
/* Bytes of 16 positions of one head, K or V; four of them are a page slice. */
static inline size_t kern_cache_block_bytes(enum kern_cache cache, u32 head_dim) {
    return 16 * (kern_cache_bytes(cache) * head_dim + kern_cache_scale_bytes(cache, head_dim));
}

extern const struct kern kern_ref;
extern const struct kern kern_avx2;   /* run only where cpu_features() has CPU_AVX2 */
extern const struct kern kern_avxvnni; /* kern_avx2 with another matmul: CPU_AVXVNNI */
extern const struct kern kern_avx512; /* run only where cpu_features() has CPU_AVX512 */

#endif
