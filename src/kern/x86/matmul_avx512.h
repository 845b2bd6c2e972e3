/* matmul_avx512.h - private to the AVX-512 matmul.
 *
 * 16 weight rows are the lanes (see matmul_x86.h). Two paths share the transposition and the decoders:
 *   fused    up to 6 or 8 activation rows: 16 weight rows, decoded in registers, bound by memory
 *   unpacked more of them: 2 x 16 weight rows are decoded to scratch once and multiplied by groups of up to 6
 *            activation rows, bound by the dot product units */
#ifndef MINKA_MATMUL_AVX512_H
#define MINKA_MATMUL_AVX512_H

#include "kern/x86/lanes_avx512.h"

/* Columns of a chunk: all fields of 32 rows stay in L1. Multiples of 256, with a rest up to a quarter more
 * taken along, so that rows of 576 or 640 need no second chunk. */
#define FUSED_K 512u
/* Q8_0: longer ones leave too little of L1 to what is fetched ahead, which matters most for one activation row. */
#define FUSED_K_WIDE_ONE 256u
#define FUSED_K_WIDE 320u
#define UNPACKED_K 512u
#define UNPACKED_K_FEW 256u /* for few rows of wide types, where the next chunk must fit beside this one */
#define CHUNK_K_MAX 640u
#define FUSED32_ROWS_MAX 8u
#define FUSED256_ROWS_MAX 6u /* two blocks at a time and a sum over 256 columns: more rows spill */
#define UNPACKED_ROWS_MAX 6u
/* A block of 32 in the widest type (Q8_0) is 34 bytes. */
#define CHUNK_BYTES_MAX (CHUNK_K_MAX / 32 * 34)
/* Columns of a chunk of the float path; a block if that is longer. */
#define FLOAT_K 96u
#define FLOAT_K_MAX 256u

/* One thread's scratch. */
struct tile {
    u32 T[ALIGN_UP(CHUNK_BYTES_MAX / 4, 16)][16]; /* transposed bytes: [dword of the chunk][row] */
    union {
        struct {
            u8 W[CHUNK_K_MAX / 4][2][64];   /* weights + offset, 4 columns of 16 rows per vector */
            f32 D[CHUNK_K_MAX / 16][2][16]; /* scales, a block each */
            f32 M[CHUNK_K_MAX / 32][2][16]; /* minima */
        };
        struct {
            f32 F[2][FLOAT_K_MAX][16];    /* the float path's weights, half r first */
            f32 decoded[16][FLOAT_K_MAX]; /* rows of a quantized type on their way there */
        };
    };
    u8 pad[16][ALIGN_UP(CHUNK_BYTES_MAX, 64)]; /* the last rows of a matrix, padded with zero rows to 16 */
};
_Static_assert(sizeof(struct tile) <= KERN_MATMUL_SCRATCH_BYTES, "the tile fits the scratch");

/* Transposes `bytes` bytes of 16 rows that lie `stride` apart: T[i][r] = dword i of row r. The last dword is
 * padded with zeros; nothing behind the bytes is read. Fetches the early lines of pf. */
void avx512_transpose(const u8 *rows, size_t stride, u32 bytes, u32 (*T)[16], struct prefetch *pf);
/* Transposes n_values columns of 16 rows of a type, as its decoder in decode_x86.h wants it, and fetches. */
void avx512_tile_load(enum quant_type type, const u8 *rows, size_t stride, u32 n_values, u32 (*T)[16],
                      struct prefetch *pf);

/* One chunk of a matmul of 16 rows (fused) or 32 (unpacked). */
struct chunk {
    struct tile *tile;
    u32 n_blocks;                    /* of 32 columns */
    const struct kern_act_block *a;  /* of the first activation row, at the chunk's first column */
    size_t a_stride;                 /* blocks per activation row */
    u32 rows;                        /* activation rows */
    f32 *out;                        /* of the first activation row, at the tile's first weight row */
    size_t ldo;
    __mmask16 mask[2];               /* weight rows that exist */
    bool first;                      /* the accumulators start at 0, else at what out holds */
    struct prefetch *prefetch;       /* what to fetch meanwhile */
};

/* Multiplies the transposed tile by 1..FUSED32_ROWS_MAX or FUSED256_ROWS_MAX activation rows. */
void avx512_fused32(enum quant_type type, const struct chunk *c);
void avx512_fused256(enum quant_type type, const struct chunk *c);
/* Decodes the transposed tile into half r of W, D and M. */
void avx512_unpack(enum quant_type type, struct tile *tile, u32 n_blocks, u32 r);
/* Multiplies the unpacked tile by 3..UNPACKED_ROWS_MAX activation rows. */
void avx512_unpacked(enum quant_type type, const struct chunk *c);

/* Which of the 16 rows from row n on lie before row n1. */
static inline __mmask16 rows_mask(u32 n, u32 n1) {
    return n + 16 <= n1 ? 0xffff : n < n1 ? (__mmask16)((1u << (n1 - n)) - 1) : 0;
}
/* F32 activations, weights of every type. */
void avx512_matmul_f32(const struct kern_mat *w, u32 n0, u32 n1, const struct kern_acts *a, f32 *out, size_t ldo,
                       struct tile *tile, const u8 *next);

#endif
