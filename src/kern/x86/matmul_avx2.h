/* matmul_avx2.h - private to the AVX2 matmul.
 *
 * 8 weight rows are the lanes (see matmul_x86.h). A chunk of columns is transposed, decoded to scratch once and
 * multiplied by groups of up to 4 activation rows. Without VNNI a dot product is maddubs: unsigned weight
 * bytes times signed activations, pairs added to 16 bits. Sums stay exact because they never leave 16 bits:
 *   weights up to  15 (Q4): 8 products of pairs, 8 * 2 * 15 * 127 = 30480
 *   weights up to  31 (Q5): 4,                   4 * 2 * 31 * 127 = 31496
 *   weights up to  63 (Q6): 2,                   2 * 2 * 63 * 127 = 32004
 *   8-bit weights: 1 of |w| times the activation with w's sign, 2 * 128 * 127 = 32512
 * after which they are widened and added in 32 bits. */
#ifndef MINKA_MATMUL_AVX2_H
#define MINKA_MATMUL_AVX2_H

#include "kern/x86/lanes_avx2.h"

#define AVX2_CHUNK_K 256u /* columns of a chunk, a rest up to a quarter more is taken along */
#define AVX2_CHUNK_K_MAX 320u
#define AVX2_CHUNK_BYTES_MAX (AVX2_CHUNK_K_MAX / 32 * 34) /* Q8_0 is the widest type */
#define AVX2_FLOAT_K_MAX 256u
#define AVX2_ROWS_MAX 4u

/* One thread's scratch. */
struct tile {
    u32 T[ALIGN_UP(AVX2_CHUNK_BYTES_MAX / 4, 8) + 8][8]; /* transposed bytes: [dword of the chunk][row] */
    union {
        struct {
            u8 W[AVX2_CHUNK_K_MAX / 4][32]; /* weights + offset, 4 columns of 8 rows per vector; 8-bit ones signed */
            f32 D[AVX2_CHUNK_K_MAX / 16][8];
            f32 M[AVX2_CHUNK_K_MAX / 32][8];
        };
        struct {
            f32 F[AVX2_FLOAT_K_MAX][8];       /* the float path's weights */
            f32 decoded[8][AVX2_FLOAT_K_MAX]; /* rows on their way there */
        };
    };
    u8 pad[8][ALIGN_UP(MAX(AVX2_CHUNK_BYTES_MAX, AVX2_FLOAT_K_MAX * 4), 64)]; /* last rows, padded to 8 */
    const u8 *prefetch[2 * (AVX2_FLOAT_K_MAX * 4 / 64 + 2)];
    f32 out[AVX2_ROWS_MAX][8]; /* results of a tile that is not full */
};
_Static_assert(sizeof(struct tile) <= KERN_MATMUL_SCRATCH_BYTES, "the tile fits the scratch");

/* One chunk of 8 weight rows and a group of activation rows. */
struct chunk {
    struct tile *tile;
    u32 n_blocks;                   /* of 32 columns */
    const struct kern_act_block *a; /* of the first activation row, at the chunk's first column */
    size_t a_stride;                /* blocks per activation row */
    u32 rows;                       /* 1..AVX2_ROWS_MAX */
    f32 *out;                       /* of the first activation row, 8 floats each */
    size_t ldo;
    bool first; /* the accumulators start at 0, else at what out holds */
    struct prefetch prefetch;
};

/* Multiplies the decoded tile. */
void avx2_unpacked(enum quant_type type, const struct chunk *c);
/* F32 activations, weights of every type. */
void avx2_matmul_f32(const struct walk *k, u32 n0, u32 n1, const struct kern_acts *a, f32 *out, size_t ldo, struct tile *tile);
/* Transposes `bytes` bytes (a multiple of 2) of 8 rows: T[i][r] = dword i of row r; nothing behind is read. */
void avx2_transpose(const u8 *rows, size_t stride, u32 bytes, u32 (*T)[8]);

#endif
