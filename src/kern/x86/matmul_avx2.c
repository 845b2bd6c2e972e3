/* matmul_avx2.c - walks a slice of a matrix: tiles of 8 weight rows, chunks of columns, groups of activation rows.
 * See matmul_avx2.h. */
#include "kern/x86/matmul_avx2.h"

#include "kern/x86/decode_x86.h"

#include <math.h>

/* Activation rows that pass over a tile before the next tile is decoded are kept below half of L2. */
#define ACTS_BYTES_MAX (256u << 10)

/* --- transposition --- */

/* 32 bytes of each row: 8 x 8 dwords. */
ALWAYS_INLINE void transpose_8x8(vi r0, vi r1, vi r2, vi r3, vi r4, vi r5, vi r6, vi r7, u32 (*T)[8]) {
#define QUAD(a, b, c, d, o)                                                                                  \
    vi o##0, o##1, o##2, o##3;                                                                               \
    {                                                                                                        \
        vi x_ = _mm256_unpacklo_epi32(a, b), y_ = _mm256_unpackhi_epi32(a, b);                               \
        vi z_ = _mm256_unpacklo_epi32(c, d), w_ = _mm256_unpackhi_epi32(c, d);                               \
        o##0 = _mm256_unpacklo_epi64(x_, z_);                                                                \
        o##1 = _mm256_unpackhi_epi64(x_, z_);                                                                \
        o##2 = _mm256_unpacklo_epi64(y_, w_);                                                                \
        o##3 = _mm256_unpackhi_epi64(y_, w_);                                                                \
    }
    QUAD(r0, r1, r2, r3, s)
    QUAD(r4, r5, r6, r7, t)
#undef QUAD
#define PAIR(i)                                                                                              \
    _mm256_store_si256((vi *)(void *)T[i], _mm256_permute2x128_si256(s##i, t##i, 0x20));                     \
    _mm256_store_si256((vi *)(void *)T[i + 4], _mm256_permute2x128_si256(s##i, t##i, 0x31));
    PAIR(0) PAIR(1) PAIR(2) PAIR(3)
#undef PAIR
}

void avx2_transpose(const u8 *rows, size_t stride, u32 bytes, u32 (*T)[8]) {
    _Alignas(32) u8 tail[8][32];
#define ROW(i) _mm256_loadu_si256((const vi *)(const void *)(rows + (i) * stride))
    for (; bytes >= 32; bytes -= 32, rows += 32, T += 8)
        transpose_8x8(ROW(0), ROW(1), ROW(2), ROW(3), ROW(4), ROW(5), ROW(6), ROW(7), T);
#undef ROW
    if (bytes == 0)
        return;
    memset(tail, 0, sizeof tail);
    for (u32 i = 0; i < 8; i++)
        memcpy(tail[i], rows + i * stride, bytes);
#define ROW(i) v_load(tail[i])
    transpose_8x8(ROW(0), ROW(1), ROW(2), ROW(3), ROW(4), ROW(5), ROW(6), ROW(7), T);
#undef ROW
}

/* A chunk of 8 rows as the decoders want it. Q6_K's 210 bytes are no number of dwords: each block is transposed
 * from its own start, its scale follows as f32. */
static void tile_load(enum quant_type type, const u8 *rows, size_t stride, u32 n_values, u32 (*T)[8]) {
    u32 values = quant_block_values(type), bytes = quant_block_bytes(type);
    if (type != QUANT_Q6_K) {
        avx2_transpose(rows, stride, n_values / values * bytes, T);
        return;
    }
    for (u32 i = 0; i < n_values / values; i++, rows += bytes, T += 53) {
        avx2_transpose(rows, stride, 208, T);
        _Alignas(16) u16 d[8];
        for (u32 r = 0; r < 8; r++)
            d[r] = load_u16(rows + r * stride + 208);
        _mm256_store_ps((f32 *)(void *)T[52], _mm256_cvtph_ps(_mm_load_si128((const __m128i *)(const void *)d)));
    }
}

/* --- decoding; 8-bit weights are stored signed --- */

#define START(A, b, shift)
#define START_16(A, b, h, shift)
#define PUT(A, b, g, v) _mm256_store_si256((vi *)(void *)tile->W[8 * (b) + (g)], v_xor(v, flip));
#define END(A, b, d) _mm256_store_ps(tile->D[b], d);
#define END_MIN(A, b, d, m)                                                                                  \
    _mm256_store_ps(tile->D[b], d);                                                                          \
    _mm256_store_ps(tile->M[b], m);
#define END_16(A, b, h, d) _mm256_store_ps(tile->D[2 * (b) + (h)], d);

#define UNPACK(X)                                                                                            \
    for (u32 b = 0; b < n_blocks; b += UNIT_##X, T += DWORDS_##X)                                            \
        DECODE_##X(T, b)                                                                                     \
    break;
#define UNPACK_PAIRS(X)                                                                                      \
    for (u32 b = 0; b < n_blocks; b += UNIT_##X, T += DWORDS_##X)                                            \
        DECODE_##X(T, b, b + 1 < n_blocks)                                                                   \
    break;

static void unpack(enum quant_type type, struct tile *tile, u32 n_blocks) {
    const u32(*T)[8] = (const u32(*)[8])tile->T;
    const vi flip = v_set_8(matmul_bias_shift(type) == 7 ? (i8)0x80 : 0);
    switch ((int)type) {
    case QUANT_Q4_0: UNPACK_PAIRS(Q4_0)
    case QUANT_Q4_1: UNPACK(Q4_1)
    case QUANT_Q5_0: UNPACK_PAIRS(Q5_0)
    case QUANT_Q5_1: UNPACK(Q5_1)
    case QUANT_Q8_0: UNPACK_PAIRS(Q8_0)
    case QUANT_IQ4_NL: UNPACK_PAIRS(IQ4_NL)
    case QUANT_Q4_K: UNPACK(Q4_K)
    case QUANT_Q5_K: UNPACK(Q5_K)
    case QUANT_Q6_K: UNPACK(Q6_K)
    case QUANT_IQ4_XS: UNPACK(IQ4_XS)
    }
}

/* --- the walk --- */

/* Runs one group of rows; a tile whose last rows lie behind n1 goes through the scratch's own output. */
static void group_run(void (*run)(enum quant_type, const struct chunk *), enum quant_type type, struct chunk *c, f32 *out,
                      size_t ldo, u32 n_valid) {
    if (n_valid >= 8) {
        c->out = out;
        c->ldo = ldo;
        run(type, c);
        return;
    }
    c->out = c->tile->out[0];
    c->ldo = 8;
    for (u32 i = 0; !c->first && i < c->rows; i++)
        memcpy(c->tile->out[i], out + i * ldo, n_valid * sizeof(f32));
    run(type, c);
    for (u32 i = 0; i < c->rows; i++)
        memcpy(out + i * ldo, c->tile->out[i], n_valid * sizeof(f32));
}

static void matmul_rows(const struct walk *k, u32 n0, u32 n1, const struct kern_acts *a, u32 row0, u32 row1, f32 *out, size_t ldo,
                        struct tile *tile) {
    const struct kern_mat *w = k->w;
    struct chunk c = {.tile = tile, .a_stride = a->K / 32};
    struct columns at;
    for (u32 n = n0; n < n1; n += 8)
        for (u32 k0 = 0; k0 < w->K; k0 += at.n) {
            size_t stride;
            at = columns_at(w, k0, AVX2_CHUNK_K);
            matmul_prefetch_plan(k, w->data + n * w->row_bytes, 8, &at, tile->prefetch, &c.prefetch);
            const u8 *rows = matmul_chunk_rows(w, n, 8, &at, tile->pad[0], sizeof tile->pad[0], &stride);
            tile_load(w->type, rows, stride, at.n, tile->T);
            c.n_blocks = at.n / 32;
            c.first = k0 == 0;
            unpack(w->type, tile, c.n_blocks);
            u32 n_groups = DIV_CEIL(row1 - row0, AVX2_ROWS_MAX);
            for (u32 i = 0, row = row0; i < n_groups; i++, row += c.rows) {
                c.rows = (row1 - row) / (n_groups - i);
                c.a = a->blocks + row * c.a_stride + k0 / 32;
                group_run(avx2_unpacked, w->type, &c, out + row * ldo + n, ldo, n1 - n);
                c.prefetch.n = 0;
            }
        }
}

void avx2_matmul(const struct kern_mat *w, u32 n0, u32 n1, const struct kern_acts *a, f32 *out, size_t ldo, void *scratch,
                 const u8 *next) {
    check(a->K == w->K && n1 <= w->N && quant_supported(w->type));
    check(a->kind == KERN_ACT_F32 || a->kind == kern_act_kind(w->type, false));
    struct tile *tile = scratch;
    struct walk k = {.w = w, .end = w->data + n1 * w->row_bytes, .next = next};
    if (a->kind == KERN_ACT_F32) {
        avx2_matmul_f32(&k, n0, n1, a, out, ldo, tile);
        return;
    }
    u32 rows_max = MAX(ACTS_BYTES_MAX / (a->K / 32 * 48), 16u), n_passes = DIV_CEIL(a->rows, rows_max);
    for (u32 i = 0, row = 0; i < n_passes; i++) {
        u32 rows = (a->rows - row) / (n_passes - i);
        matmul_rows(&k, n0, n1, a, row, row + rows, out, ldo, tile);
        row += rows;
    }
}

/* --- f32 activations: one fma per column in ascending order --- */

#define ROWS(X) X(0) X(1) X(2) X(3)
#define DECLARE_FLOAT(c)                                                                                     \
    const f32 *const x##c UNUSED = x + (c)*x_stride;                                                         \
    vf F##c UNUSED = (c) < C && !first ? _mm256_loadu_ps(out + (c)*ldo) : _mm256_setzero_ps();
#define FMA_FLOAT(c)                                                                                         \
    if ((c) < C)                                                                                             \
        F##c = _mm256_fmadd_ps(v, _mm256_set1_ps(x##c[i]), F##c);
#define STORE_FLOAT(c)                                                                                       \
    if ((c) < C)                                                                                             \
        _mm256_storeu_ps(out + (c)*ldo, F##c);

ALWAYS_INLINE void floats(const u32 C, const struct tile *tile, u32 n, const f32 *x, size_t x_stride, bool first, f32 *out,
                          size_t ldo) {
    ROWS(DECLARE_FLOAT)
    for (u32 i = 0; i < n; i++) {
        vf v = f_load(tile->F[i]);
        ROWS(FMA_FLOAT)
    }
    ROWS(STORE_FLOAT)
}

static void floats_any(u32 rows, const struct tile *tile, u32 n, const f32 *x, size_t x_stride, bool first, f32 *out, size_t ldo) {
    switch (rows) {
    case 1: floats(1, tile, n, x, x_stride, first, out, ldo); break;
    case 2: floats(2, tile, n, x, x_stride, first, out, ldo); break;
    case 3: floats(3, tile, n, x, x_stride, first, out, ldo); break;
    default: floats(4, tile, n, x, x_stride, first, out, ldo); break;
    }
}

/* Columns c of 8 rows from row n on, decoded to f32, one row per lane. */
static void float_rows_load(const struct kern_mat *w, u32 n, const struct columns *c, struct tile *tile) {
    size_t stride;
    const u8 *rows = matmul_chunk_rows(w, n, 8, c, tile->pad[0], sizeof tile->pad[0], &stride);
    if (w->type == QUANT_F32) {
        avx2_transpose(rows, stride, c->n * 4, (u32(*)[8])tile->F);
        return;
    }
    for (u32 r = 0; r < 8; r++) {
        if (w->type != QUANT_F16) {
            quant_decode(w->type, rows + r * stride, tile->decoded[r], c->n);
            continue;
        }
        for (u32 i = 0; i < c->n; i += 8) { /* K is a multiple of 16 */
            __m128i h = _mm_loadu_si128((const __m128i *)(const void *)(rows + r * stride + 2 * i));
            _mm256_storeu_ps(tile->decoded[r] + i, _mm256_cvtph_ps(h));
        }
    }
    avx2_transpose((const u8 *)tile->decoded, sizeof tile->decoded[0], c->n * 4, (u32(*)[8])tile->F);
}

void avx2_matmul_f32(const struct walk *k, u32 n0, u32 n1, const struct kern_acts *a, f32 *out, size_t ldo, struct tile *tile) {
    const struct kern_mat *w = k->w;
    u32 most = quant_block_values(w->type) == 256 ? 256 : 128;
    struct columns at;
    for (u32 n = n0; n < n1; n += 8)
        for (u32 k0 = 0; k0 < w->K; k0 += at.n) {
            at = columns_at(w, k0, most);
            float_rows_load(w, n, &at, tile);
            u32 valid = MIN(n1 - n, 8u);
            for (u32 row = 0, rows; row < a->rows; row += rows) {
                rows = MIN(a->rows - row, AVX2_ROWS_MAX);
                const f32 *x = a->x + (size_t)row * a->K + k0;
                f32 *to = out + row * ldo + n;
                if (valid == 8) {
                    floats_any(rows, tile, at.n, x, a->K, k0 == 0, to, ldo);
                    continue;
                }
                for (u32 i = 0; k0 && i < rows; i++)
                    memcpy(tile->out[i], to + i * ldo, valid * sizeof(f32));
                floats_any(rows, tile, at.n, x, a->K, k0 == 0, tile->out[0], 8);
                for (u32 i = 0; i < rows; i++)
                    memcpy(to + i * ldo, tile->out[i], valid * sizeof(f32));
            }
        }
}

/* --- activations to int8 --- */

/* Largest magnitude of n (a multiple of 32) values; infinite or NaN if one of them is. */
static f32 group_amax(const f32 *x, u32 n) {
    const vi magnitude = v_set_32(0x7fffffff);
    vi m = _mm256_setzero_si256();
    /* As integers, so that a NaN is larger than everything. */
    for (u32 i = 0; i < n; i += 8)
        m = _mm256_max_epu32(m, v_and(_mm256_loadu_si256((const vi *)(const void *)(x + i)), magnitude));
    _Alignas(32) u32 lanes[8];
    _mm256_store_si256((vi *)(void *)lanes, m);
    u32 bits = 0;
    for (u32 i = 0; i < 8; i++)
        bits = MAX(bits, lanes[i]);
    f32 amax;
    memcpy(&amax, &bits, sizeof amax);
    return amax;
}

static i32 sum_8(vi x) {
    __m128i s = _mm_add_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1)));
}

/* 16 values to bytes; returns their sum. */
static i32 quantize_16(const f32 *x, vf inverse, bool zero, i8 *q) {
    vi a = _mm256_cvtps_epi32(f_mul(_mm256_loadu_ps(x), inverse)), b = _mm256_cvtps_epi32(f_mul(_mm256_loadu_ps(x + 8), inverse));
    if (zero)
        a = b = _mm256_setzero_si256();
    vi words = _mm256_permute4x64_epi64(_mm256_packs_epi32(a, b), 0xd8);
    __m128i bytes = _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
    _mm_storeu_si128((__m128i *)(void *)q, bytes);
    return sum_8(_mm256_add_epi32(a, b));
}

static void group_quantize(const f32 *x, u32 n, struct kern_act_block *blocks) {
    f32 amax = group_amax(x, n);
    bool finite = amax < INFINITY, zero = !finite || amax < KERN_ACT_AMAX_MIN;
    f32 d = !finite ? NAN : zero ? 0 : amax / 127;
    const vf inverse = _mm256_set1_ps(zero ? 0 : 127 / amax);
    for (u32 b = 0; b < n / 32; b++) {
        i32 s0 = quantize_16(x + 32 * b, inverse, zero, blocks[b].q), s1 = quantize_16(x + 32 * b + 16, inverse, zero, blocks[b].q + 16);
        blocks[b].d = d;
        blocks[b].s = n == 32 ? d * (f32)(s0 + s1) : (f32)(s0 + s1);
        blocks[b].n[0] = n == 32 ? -(s0 + s1) : -s0;
        blocks[b].n[1] = n == 32 ? 0 : -s1;
    }
}

void avx2_quantize(const struct kern_acts *a, const f32 *x, size_t ldx, u32 row0, u32 row1) {
    u32 n = a->kind == KERN_ACT_Q8 ? 32 : 256;
    for (u32 row = row0; row < row1; row++)
        for (u32 k = 0; k < a->K; k += n)
            group_quantize(x + row * ldx + k, n, a->blocks + ((size_t)row * a->K + k) / 32);
}
