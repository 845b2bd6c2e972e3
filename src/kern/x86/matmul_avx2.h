/* matmul_avx2.h - private to the AVX2 matmul.
 *
 * 8 weight rows are the lanes (see matmul_x86.h). Of 2 x 8 rows a chunk of columns is transposed, decoded to
 * scratch once and multiplied by groups of activation rows. Processors with AVX-VNNI have vpdpbusd for it.
 * Without it a dot product is maddubs: unsigned weight bytes times signed activations, pairs added to 16
 * bits. The sums stay exact because they never leave 16 bits: weights up to  15 (Q4): 8 products of pairs, 8
 * * 2 * 15 * 127 = 30480 weights up to  31 (Q5): 4,                   4 * 2 * 31 * 127 = 31496 weights up to
 * 63 (Q6): 2,                   2 * 2 * 63 * 127 = 32004 8-bit weights: 1 of |w| times the activation with
 * w's sign, 2 * 128 * 127 = 32512 after which they are widened and added in 32 bits. */
#ifndef MINKA_MATMUL_AVX2_H
#define MINKA_MATMUL_AVX2_H

#include "kern/x86/lanes_avx2.h"

#define AVX2_CHUNK_K 256u /* columns of a chunk, a rest up to a quarter more is taken along */
#define AVX2_CHUNK_K_MAX 320u
#define AVX2_CHUNK_BYTES_MAX (AVX2_CHUNK_K_MAX / 32 * 34) /* Q8_0 is the widest type */
#define AVX2_FLOAT_K 128u                                 /* of the float path; a block if that is longer */
#define AVX2_FLOAT_K_MAX 256u
/* Activation rows of a group: what fits into 16 registers, measured. */
#define AVX2_ROWS_MAX 4u
#define AVXVNNI_ROWS_MAX 6u
#define AVX2_FLOAT_ROWS_MAX 6u

/* One thread's scratch. */
struct tile {
    u32 T[ALIGN_UP(AVX2_CHUNK_BYTES_MAX / 4, 8)][8]; /* transposed bytes: [dword of the chunk][row] */
    union {
        struct {
            u8 W[AVX2_CHUNK_K_MAX / 4][2][32]; /* 4 columns of 8 rows per vector */
            f32 D[AVX2_CHUNK_K_MAX / 16][2][8];
            f32 M[AVX2_CHUNK_K_MAX / 32][2][8];
        };
        struct {
            f32 F[2][AVX2_FLOAT_K_MAX][8];    /* the float path's weights, half r first */
            f32 decoded[8][AVX2_FLOAT_K_MAX]; /* rows on their way there */
        };
    };
    u8 pad[8]
          [ALIGN_UP(MAX(AVX2_CHUNK_BYTES_MAX, AVX2_FLOAT_K * 5), 64)]; /* last rows, padded with zeros to 8 */
    f32 out[AVXVNNI_ROWS_MAX][2][8]; /* results of a tile that is not full */
};
_Static_assert(sizeof(struct tile) <= KERN_MATMUL_SCRATCH_BYTES, "the tile fits the scratch");

/* One chunk of 16 weight rows and a group of activation rows. */
struct chunk {
    const struct tile *tile;
    u32 n_blocks;                   /* of 32 columns */
    const struct kern_act_block *a; /* of the first activation row, at the chunk's first column */
    size_t a_stride;                /* blocks per activation row */
    const f32 *x;                   /* the float path's activations, in the place of a */
    size_t x_stride;
    u32 rows; /* 1..the kernel's ROWS_MAX */
    f32 *out; /* of the first activation row, 16 floats each */
    size_t ldo;
    bool first; /* the accumulators start at 0, else at what out holds */
    struct prefetch *prefetch;
};

/* Transposes `bytes` bytes of 8 rows: T[i][r] = dword i of row r, the last padded with zeros; nothing behind
 * is read. T is written in whole groups of 4 dwords. */
void avx2_transpose(const u8 *rows, size_t stride, u32 bytes, u32 (*T)[8], struct prefetch *pf);
/* Transposes and decodes columns at of 8 rows to half r of W, D and M. Weights are unsigned (w + offset);
 * 8-bit ones signed if `sign`. */
void avx2_tile_load(const struct kern_mat *w, u32 n, const struct columns *at, struct tile *tile, u32 r,
                    bool sign, struct prefetch *pf);
/* Multiplies the decoded tile by up to AVX2_ROWS_MAX or AVXVNNI_ROWS_MAX rows. */
void avx2_unpacked(enum quant_type type, const struct chunk *c);
void avxvnni_unpacked(enum quant_type type, const struct chunk *c);
/* The same for weights decoded to f32. */
void avx2_float_load(const struct kern_mat *w, u32 n, const struct columns *at, struct tile *tile, u32 r,
                     struct prefetch *pf);
void avx2_floats(enum quant_type type, const struct chunk *c);

#endif
