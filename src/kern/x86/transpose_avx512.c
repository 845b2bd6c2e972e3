/* transpose_avx512.c - 16 rows of bytes to lanes. */
#include "kern/x86/matmul_avx512.h"

/* o0..o3 = the 4x4 dword transposition of x0..x3 inside each 128-bit lane. */
#define TRANSPOSE_LANES(x0, x1, x2, x3, o0, o1, o2, o3)                                                      \
    {                                                                                                        \
        __m512i a_ = _mm512_unpacklo_epi32(x0, x1), b_ = _mm512_unpackhi_epi32(x0, x1);                      \
        __m512i c_ = _mm512_unpacklo_epi32(x2, x3), d_ = _mm512_unpackhi_epi32(x2, x3);                      \
        o0 = _mm512_unpacklo_epi64(a_, c_);                                                                  \
        o1 = _mm512_unpackhi_epi64(a_, c_);                                                                  \
        o2 = _mm512_unpacklo_epi64(b_, d_);                                                                  \
        o3 = _mm512_unpackhi_epi64(b_, d_);                                                                  \
    }

/* Dwords c, c + 4, c + 8, c + 12: their lanes lie in four vectors of four rows each. */
ALWAYS_INLINE void lanes_store(__m512i r0, __m512i r4, __m512i r8, __m512i r12, u32 (*T)[16]) {
    __m512i a = _mm512_shuffle_i32x4(r0, r4, 0x88), b = _mm512_shuffle_i32x4(r8, r12, 0x88);
    __m512i c = _mm512_shuffle_i32x4(r0, r4, 0xdd), d = _mm512_shuffle_i32x4(r8, r12, 0xdd);
    _mm512_store_si512(T[0], _mm512_shuffle_i32x4(a, b, 0x88));
    _mm512_store_si512(T[8], _mm512_shuffle_i32x4(a, b, 0xdd));
    _mm512_store_si512(T[4], _mm512_shuffle_i32x4(c, d, 0x88));
    _mm512_store_si512(T[12], _mm512_shuffle_i32x4(c, d, 0xdd));
}

/* 64 bytes of each row. */
ALWAYS_INLINE void transpose_64(const u8 *p, size_t stride, u32 (*T)[16]) {
    __m512i t[16];
    UNROLL for (u32 i = 0; i < 16; i += 4) {
        __m512i x0 = _mm512_loadu_si512(p + i * stride), x1 = _mm512_loadu_si512(p + (i + 1) * stride);
        __m512i x2 = _mm512_loadu_si512(p + (i + 2) * stride), x3 = _mm512_loadu_si512(p + (i + 3) * stride);
        TRANSPOSE_LANES(x0, x1, x2, x3, t[i], t[i + 1], t[i + 2], t[i + 3])
    }
    UNROLL for (u32 c = 0; c < 4; c++)
        lanes_store(t[c], t[4 + c], t[8 + c], t[12 + c], T + c);
}

/* 32 bytes of each row: rows i and i + 4 share a vector. */
ALWAYS_INLINE __m512i load_2_rows(const u8 *p, size_t stride) {
    __m256i low = _mm256_loadu_si256((const __m256i *)(const void *)p);
    __m256i high = _mm256_loadu_si256((const __m256i *)(const void *)(p + 4 * stride));
    return _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
}

ALWAYS_INLINE void transpose_32(const u8 *p, size_t stride, u32 (*T)[16]) {
    __m512i t[8];
    UNROLL for (u32 i = 0; i < 8; i += 4) {
        const u8 *q = p + 2 * i * stride;
        __m512i x0 = load_2_rows(q, stride), x1 = load_2_rows(q + stride, stride);
        __m512i x2 = load_2_rows(q + 2 * stride, stride), x3 = load_2_rows(q + 3 * stride, stride);
        TRANSPOSE_LANES(x0, x1, x2, x3, t[i], t[i + 1], t[i + 2], t[i + 3])
    }
    UNROLL for (u32 c = 0; c < 4; c++) {
        _mm512_store_si512(T[c], _mm512_shuffle_i32x4(t[c], t[4 + c], 0x88));
        _mm512_store_si512(T[4 + c], _mm512_shuffle_i32x4(t[c], t[4 + c], 0xdd));
    }
}

/* 16 bytes, or as many as the mask says, of each row: rows i, i + 4, i + 8, i + 12 share a vector. */
ALWAYS_INLINE __m512i load_4_rows(const u8 *p, size_t stride, __mmask16 bytes) {
    __m512i v = _mm512_castsi128_si512(_mm_maskz_loadu_epi8(bytes, p));
    v = _mm512_inserti32x4(v, _mm_maskz_loadu_epi8(bytes, p + 4 * stride), 1);
    v = _mm512_inserti32x4(v, _mm_maskz_loadu_epi8(bytes, p + 8 * stride), 2);
    return _mm512_inserti32x4(v, _mm_maskz_loadu_epi8(bytes, p + 12 * stride), 3);
}

ALWAYS_INLINE void transpose_16(const u8 *p, size_t stride, __mmask16 bytes, u32 (*T)[16]) {
    __m512i x0 = load_4_rows(p, stride, bytes), x1 = load_4_rows(p + stride, stride, bytes);
    __m512i x2 = load_4_rows(p + 2 * stride, stride, bytes), x3 = load_4_rows(p + 3 * stride, stride, bytes);
    __m512i t0, t1, t2, t3;
    TRANSPOSE_LANES(x0, x1, x2, x3, t0, t1, t2, t3)
    _mm512_store_si512(T[0], t0);
    _mm512_store_si512(T[1], t1);
    _mm512_store_si512(T[2], t2);
    _mm512_store_si512(T[3], t3);
}

ALWAYS_INLINE void transpose(const u8 *p, size_t stride, u32 bytes, u32 (*T)[16], struct prefetch *pf) {
    for (; bytes >= 64; bytes -= 64, p += 64, T += 16) {
        prefetch_early(pf);
        transpose_64(p, stride, T);
    }
    if (bytes >= 32) {
        prefetch_early(pf);
        transpose_32(p, stride, T);
        bytes -= 32, p += 32, T += 8;
    }
    if (bytes >= 16) {
        transpose_16(p, stride, 0xffff, T);
        bytes -= 16, p += 16, T += 4;
    }
    if (bytes > 0)
        transpose_16(p, stride, (__mmask16)((1u << bytes) - 1), T);
}

void avx512_transpose(const u8 *rows, size_t stride, u32 bytes, u32 (*T)[16], struct prefetch *pf) {
    transpose(rows, stride, bytes, T, pf);
}

/* The halves at p of 16 rows, as f32. */
ALWAYS_INLINE __m512 halves_load(const u8 *p, size_t stride) {
#define HALF(i) (i16)load_u16(p + (i) * stride)
    return _mm512_cvtph_ps(_mm256_set_epi16(HALF(15), HALF(14), HALF(13), HALF(12), HALF(11), HALF(10), HALF(9),
                                            HALF(8), HALF(7), HALF(6), HALF(5), HALF(4), HALF(3), HALF(2), HALF(1),
                                            HALF(0)));
#undef HALF
}

void avx512_tile_load(enum quant_type type, const u8 *rows, size_t stride, u32 n_values, u32 (*T)[16],
                      struct prefetch *pf) {
    u32 values = quant_block_values(type), bytes = quant_block_bytes(type);
    if (type != QUANT_Q6_K) {
        transpose(rows, stride, n_values / values * bytes, T, pf);
        return;
    }
    /* 210 bytes are no number of dwords: each block is transposed from its own start, its scale follows. */
    for (u32 i = 0; i < n_values / values; i++, rows += bytes, T += 53) {
        transpose(rows, stride, 208, T, pf);
        _mm512_store_ps(T[52], halves_load(rows + 208, stride));
    }
}
