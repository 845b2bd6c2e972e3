/* internal.h - what model.c, scratch.c, project.c, attention.c, forward.c and encoder.c share: the opened model and
 * the scratch of a step. */
#ifndef MINKA_MODEL_INTERNAL_H
#define MINKA_MODEL_INTERNAL_H

#include "base/arena.h"
#include "model/hyper.h"
#include "model/model.h"
#include "model/rope.h"
#include "model/weights.h"

/* Rows of one sequence whose positions lie in one block of 16: what one attention item computes and one
 * thread stores (a block of 16 keys in the cache is written by one thread only). */
#define TILE_ROWS 16u
/* Results (m, l, o) of chunks that wait to be folded, when chunks of one row are spread over threads. */
#define PARTIAL_SLOTS 2048u

struct model_layer {
    u32 group; /* of the KV layout */
    u32 in_group;
    bool parallel;           /* the FFN reads the normed input of attention */
    bool q8, q8_256;         /* formats in which q, k, v read their input (gate and up too, if parallel) */
    bool ffn_q8, ffn_q8_256; /* gate, up */
};

struct model {
    struct arena arena;
    struct model_config config;
    struct model_info info;
    struct hyper h;
    struct weights w;
    struct ropes ropes;
    struct model_layer *layers;  /* [n_layers] */
    u32 q_width, kv_width, n_ff; /* most over all layers */
    u32 group_max;               /* most query heads per KV head */
    bool embd_kinds[2];          /* whether inputs of n_embd values are read as Q8, as Q8_256 */
    f32 *alibi;                  /* [n_heads] slopes; NULL where the family has none */
    u32 wide_K[2];               /* widest input of o and down that is read as Q8, as Q8_256; 0 = none */
};

struct tile {
    u32 span;
    u32 row; /* index in the step's rows */
    u32 n;   /* 1..TILE_ROWS */
    u32 pos; /* of its first row */
};

/* One thread's own memory, and what one attention item needs. */
struct thread_scratch {
    void *matmul;
    void *attend;
    const f32 **q;  /* [TILE_ROWS * group_max] */
    u32 *pos;       /* the same */
    f32 *m, *l, *o; /* one chunk's results; o [..][head_dim] */
    f32 *run_m, *run_l, *run_o;
};

/* Where everything lies in a scratch for so many rows; one function lays it out and sizes it. */
struct scratch_plan {
    u32 n_rows, n_logits, n_threads;
    u64 bytes;
    struct tile *tiles;            /* [n_rows] at most */
    u32 *pos;                      /* [n_rows] */
    u32 *wanted;                   /* [n_logits] row of each wanted position */
    f32 *angles[2];                /* [n_rows][n_rot] usual or long, windowed */
    f32 *x;                        /* [n_rows][n_embd] residual */
    f32 *xn;                       /* [n_rows][n_embd] normed */
    f32 *q, *k, *v;                /* [n_rows][width] */
    f32 *attn;                     /* [n_rows][q_width] */
    f32 *gate, *up;                /* [n_rows][n_ff] */
    f32 *proj;                     /* [n_rows][n_embd] */
    void *acts[2];                 /* inputs of n_embd values, Q8 and Q8_256 */
    void *wide_acts;               /* inputs of q_width or n_ff values */
    f32 *hidden;                   /* [n_logits][n_embd] */
    f32 *logits;                   /* [MODEL_LOGITS_TILE][n_vocab] */
    f32 *part_m, *part_l, *part_o; /* [PARTIAL_SLOTS], o [..][head_dim] */
    f32 *fold_m, *fold_l, *fold_o; /* running results of the rows whose chunks are spread */
    struct thread_scratch threads[TEAM_THREADS_MAX];
};

/* Where everything lies for an encoder; slice = the rows that are computed at a time. */
struct encoder_plan {
    u32 n_rows, n_inputs, n_threads;
    u64 bytes;
    struct encoder_tile *tiles;   /* [n_rows] at most */
    struct encoder_input *inputs; /* [n_inputs] */
    f32 *x;                       /* [n_rows][n_embd] the residual of all rows */
    f32 *k, *v;                   /* of one layer, in blocks of 16 keys; see encoder.c */
    f32 *angles;                  /* [n_rows][n_rot] */
    f32 *q, *ks, *vs, *attn;      /* [slice][width] */
    f32 *gate, *up;               /* [slice][n_ff] */
    f32 *proj;                    /* [slice][n_embd] */
    void *acts[2];                /* inputs of n_embd values, Q8 and Q8_256 */
    void *wide_acts;
    f32 *slope; /* [threads][TILE_ROWS * group_max] */
    u32 *at;    /* the same */
    struct thread_scratch threads[TEAM_THREADS_MAX];
};

struct model_scratch {
    u8 *mem;
    u64 bytes;
    struct scratch_plan plan;
    u32 n_wanted; /* rows in plan.hidden, once the last layer is done */
    struct encoder_plan encoder;
};

/* Lays out at mem (64-byte aligned; NULL: only sizes). */
void scratch_plan(struct scratch_plan *p, const struct model *m, u32 n_rows, u32 n_logits, u32 n_threads,
                  u8 *mem);

/* The same for an encoder. */
void encoder_plan(struct encoder_plan *p, const struct model *m, u32 n_rows, u32 n_inputs, u32 n_threads,
                  u8 *mem);
/* The next `bytes` of mem (NULL: only counts them in *at), 64-byte aligned. */
void *scratch_take(u8 *mem, u64 *at, u64 bytes);
void scratch_plan_thread(struct thread_scratch *t, const struct model *m, u8 *mem, u64 *at);
/* Room for quantized inputs: n_rows of n_embd values as Q8 and Q8_256, n_rows_wide of the widest other one. */
void scratch_plan_acts(void *acts[2], void **wide_acts, const struct model *m, u32 n_rows, u32 n_rows_wide,
                       u8 *mem, u64 *at);

/* --- project.c: what the decoder and the encoder do with rows and matrices --- */
/* fn(arg, row0, row1) for rows 0..n-1, spread over the team, or inline where a region would cost more than it
 * shares. */
#define ROWS_INLINE 3u
typedef void rows_fn(void *arg, u32 row0, u32 row1);
void rows_run(struct team *team, u32 n, rows_fn *fn, void *arg);

/* The rows that are computed together, as inputs of matrices. */
struct rows {
    const struct model *m;
    struct team *team;
    struct thread_scratch *threads;
    u32 n;
    struct kern_acts acts[3]; /* by enum kern_act: n_embd values in each format that weights read */
    struct kern_acts wide;    /* attention's result, then the FFN's */
    void *wide_mem;
};
/* n rows x [n][n_embd], quantized at the places that scratch_plan_acts gave. */
void rows_at(struct rows *r, u32 n, const f32 *x, void *const mem[2]);
/* r->wide becomes x [r->n][w->K] in the format that w reads, not yet quantized. */
void rows_wide_at(struct rows *r, const struct kern_mat *w, const f32 *x);
void rows_quantize_wide(struct rows *r);

/* One region of matrix multiplications. */
struct project {
    const struct kern *kern;
    u32 n_mats; /* 1..3; gate|up: 2 with act */
    const struct kern_mat *w[3];
    const struct kern_acts *a[3]; /* the input in the format that w reads */
    f32 *out[3];
    size_t ldo[3];
    const struct kern_mat *next; /* first matrix of the next region, for prefetching; NULL = none */
    /* What follows on the columns that a chunk has made: */
    const f32 *bias[3];
    bool
        gated; /* w[0] is the gate of w[1] and has its shape: out[0] = act(out[0]) * out[1], chunk by chunk */
    bool plain; /* w[0] is an up without gate: out[0] = gelu(out[0]) */
    enum activation activation;
    f32 scale, softcap;                /* of out[0]; 1 and 0 = off */
    const struct kern_acts *quantized; /* out[0] is quantized into it; NULL = not */
    struct thread_scratch *threads;
};
struct project project_new(const struct rows *r, const struct kern_mat *next);
/* One more matrix: out [rows][w->N] = a x w + bias (NULL: none). */
void project_add(struct project *p, const struct kern_mat *w, const struct kern_acts *a, f32 *out,
                 const f32 *bias);
/* The same with the rows' n_embd values as input. */
void project_rows(struct project *p, const struct kern_mat *w, const struct rows *r, f32 *out, const f32 *bias);
void project_run(struct project *p, struct team *team);
/* out = r->wide x w */
void project_wide(const struct rows *r, const struct kern_mat *w, f32 *out, const struct kern_mat *next);
/* r->wide = what the layer's down matrix reads, computed in gate and up, [r->n][n_ff] both. */
void project_ffn(struct rows *r, const struct weights_layer *w, f32 *gate, f32 *up);

/* --- attention.c --- */
/* Attention of one layer over all tiles: plan->q (rope applied) -> plan->attn, both [n_rows][n_heads *
 * head_dim]. K and V of all rows are in the cache. */
struct attention {
    const struct model *m;
    struct scratch_plan *plan;
    const struct model_span *spans;
    u32 layer;
    u32 n_tiles;
    const struct kern_acts *quantized; /* the result is quantized into it; NULL = not */
};
/* Whether items, which make the columns of one KV head's queries, can quantize them into `into`. */
bool attention_quantizes(const struct attention *a, const struct kern_acts *into);
void attention_run(const struct attention *a, struct team *team);

#endif
