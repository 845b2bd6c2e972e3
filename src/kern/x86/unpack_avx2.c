/* unpack_avx2.c - 8 rows of bytes to lanes, and decoded. */
#include "kern/x86/matmul_avx2.h"

#define PUT(A, b, g, v) _mm256_store_si256((vi *)(void *)tile->W[8 * (b) + (g)][r], v_xor(v, flip));
#include "kern/x86/unpack_x86.h"

/* 16 bytes of rows at p and p + 4 rows. */
ALWAYS_INLINE vi load_2_rows(const u8 *p, size_t stride) {
    __m128i low = _mm_loadu_si128((const __m128i *)(const void *)p);
    __m128i high = _mm_loadu_si128((const __m128i *)(const void *)(p + 4 * stride));
    return _mm256_inserti128_si256(_mm256_castsi128_si256(low), high, 1);
}

/* 16 bytes of each row. Rows i and i + 4 share a vector, so that no shuffle has to cross its middle. */
ALWAYS_INLINE void transpose_16(const u8 *p, size_t stride, u32 (*T)[8]) {
    vi x0 = load_2_rows(p, stride), x1 = load_2_rows(p + stride, stride);
    vi x2 = load_2_rows(p + 2 * stride, stride), x3 = load_2_rows(p + 3 * stride, stride);
    vi a = _mm256_unpacklo_epi32(x0, x1), b = _mm256_unpackhi_epi32(x0, x1);
    vi c = _mm256_unpacklo_epi32(x2, x3), d = _mm256_unpackhi_epi32(x2, x3);
    _mm256_store_si256((vi *)(void *)T[0], _mm256_unpacklo_epi64(a, c));
    _mm256_store_si256((vi *)(void *)T[1], _mm256_unpackhi_epi64(a, c));
    _mm256_store_si256((vi *)(void *)T[2], _mm256_unpacklo_epi64(b, d));
    _mm256_store_si256((vi *)(void *)T[3], _mm256_unpackhi_epi64(b, d));
}

void avx2_transpose(const u8 *rows, size_t stride, u32 bytes, u32 (*T)[8], struct prefetch *pf) {
    for (; bytes >= 64; bytes -= 64, rows += 64, T += 16) {
        prefetch_early(pf);
        transpose_16(rows, stride, T);
        transpose_16(rows + 16, stride, T + 4);
        transpose_16(rows + 32, stride, T + 8);
        transpose_16(rows + 48, stride, T + 12);
    }
    for (; bytes >= 16; bytes -= 16, rows += 16, T += 4)
        transpose_16(rows, stride, T);
    if (bytes > 0) {
        u8 tail[8][16] = {{0}};
        for (u32 i = 0; i < 8; i++)
            memcpy(tail[i], rows + i * stride, bytes);
        transpose_16(tail[0], sizeof tail[0], T);
    }
}

static void unpack(enum quant_type type, struct tile *tile, u32 n_blocks, u32 r, bool sign) {
    const u32(*T)[8] = (const u32(*)[8])tile->T;
    const vi flip = v_set_8(sign && matmul_bias_shift(type) == 7 ? (i8)0x80 : 0);
    UNPACK_TYPE(type)
}

void avx2_tile_load(const struct kern_mat *w, u32 n, const struct columns *at, struct tile *tile, u32 r,
                    bool sign, struct prefetch *pf) {
    size_t stride;
    const u8 *rows = matmul_chunk_rows(w, n, 8, at, tile->pad[0], sizeof tile->pad[0], &stride);
    if (w->type == QUANT_Q6_K) {
        /* A chunk is one block. Its 210 bytes are no number of dwords; the scale at their end follows as f32. */
        check(at->n == 256);
        avx2_transpose(rows, stride, 208, tile->T, pf);
        __m128i d = _mm_setzero_si128();
#define HALF(i) d = _mm_insert_epi16(d, load_u16(rows + (i)*stride + 208), i);
        HALF(0) HALF(1) HALF(2) HALF(3) HALF(4) HALF(5) HALF(6) HALF(7)
#undef HALF
            _mm256_store_ps((f32 *)(void *)tile->T[52], _mm256_cvtph_ps(d));
    } else {
        avx2_transpose(rows, stride, (u32)(at->to - at->from), tile->T, pf);
    }
    unpack(w->type, tile, at->n / 32, r, sign);
}

/* Low and high halves of the dwords of columns / 2 vectors, as f32. */
static void pairs_decode(bool bf16, const u32 (*T)[8], u32 columns, f32 (*out)[8]) {
    for (u32 i = 0; i < columns / 2; i++) {
        vi pair = v_load(T[i]);
        _mm256_store_ps(out[2 * i], bf16 ? _mm256_castsi256_ps(v_shl(pair, 16)) : f16_low(pair));
        _mm256_store_ps(out[2 * i + 1],
                        bf16 ? _mm256_castsi256_ps(v_and(pair, v_set_32((i32)0xffff0000))) : f16_high(pair));
    }
}

void avx2_float_load(const struct kern_mat *w, u32 n, const struct columns *at, struct tile *tile, u32 r,
                     struct prefetch *pf) {
    u32(*to)[8] = (u32(*)[8])tile->F[r];
    size_t stride;
    if (w->type == QUANT_F32 || w->type == QUANT_F16 || w->type == QUANT_BF16) {
        bool wide = w->type == QUANT_F32;
        const u8 *rows = matmul_chunk_rows(w, n, 8, at, tile->pad[0], sizeof tile->pad[0], &stride);
        avx2_transpose(rows, stride, (u32)(at->to - at->from), wide ? to : tile->T, pf);
        if (!wide)
            pairs_decode(w->type == QUANT_BF16, (const u32(*)[8])tile->T, at->n, tile->F[r]);
        return;
    }
    memset(tile->decoded, 0, sizeof tile->decoded);
    for (u32 row = 0; row < 8 && n + row < w->N; row++)
        quant_decode(w->type, w->data + (n + row) * w->row_bytes + at->from, tile->decoded[row], at->n);
    avx2_transpose((const u8 *)tile->decoded, sizeof tile->decoded[0], at->n * 4, to, pf);
}
