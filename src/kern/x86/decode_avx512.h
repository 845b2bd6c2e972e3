/* decode_avx512.h - the decoder of each weight format, as a macro over a transposed tile.
 *
 * DECODE_X(T, b) decodes 16 rows of the format's smallest unit of whole dwords, which starts at block
 * (of 32 columns) b of the chunk; UNIT_X is its length in blocks, DWORDS_X in dwords. It names what it finds
 * through sinks that the including file defines, so that the fused path multiplies what the unpacked path stores:
 *   START(A, b, shift)    a block begins; its weights are offset by 2^shift (shift < 0: by 0)
 *   PUT(A, b, g, v)       v = columns 4g..4g+3 of block b in each lane's bytes, unsigned
 *   END(A, b, d)          the block is complete, its scale is d
 *   END_MIN(A, b, d, m)   the same with a minimum
 *   START_16, END_16(A, b, h, ...)  the same for half h of a block with a scale per 16 columns
 * A is I or J: blocks that are decoded at the same time have different ones. */
#ifndef MINKA_DECODE_AVX512_H
#define MINKA_DECODE_AVX512_H

#include "kern/x86/matmul_avx512.h"

#define LOAD(p) _mm512_load_si512((const void *)(p))

/* The f16 in the low / high half of each dword. */
ALWAYS_INLINE __m512 f16_low(__m512i x) { return _mm512_cvtph_ps(_mm512_cvtepi32_epi16(x)); }
ALWAYS_INLINE __m512 f16_high(__m512i x) { return _mm512_cvtph_ps(_mm512_cvtepi32_epi16(_mm512_srli_epi32(x, 16))); }
/* Halves in the middle of two dwords: what begins 2 bytes behind a's start. */
ALWAYS_INLINE __m512i dword_between(__m512i a, __m512i b) { return _mm512_shrdi_epi32(a, b, 16); }
ALWAYS_INLINE __m512i nibble_low(__m512i x) { return _mm512_and_si512(x, _mm512_set1_epi8(15)); }
ALWAYS_INLINE __m512i nibble_high(__m512i x) { return nibble_low(_mm512_srli_epi32(x, 4)); }
/* (a & mask) | x */
ALWAYS_INLINE __m512i and_or(__m512i a, __m512i mask, __m512i x) { return _mm512_ternarylogic_epi32(a, mask, x, 0xea); }

/* Bits 4g..4g+3 of each dword, as bit 4 of its bytes 0..3: the fifth bits of columns 4g.. of a Q5 block. */
ALWAYS_INLINE __m512i fifth_bits(__m512i high, u32 g) {
    /* A qword holds two rows' dwords; each byte's shift is its column's bit - 4, modulo 64. */
    u64 shifts = (0x2322212003020100ull + 0x0101010101010101ull * (4 * g + 60)) & 0x3f3f3f3f3f3f3f3full;
    return _mm512_and_si512(_mm512_multishift_epi64_epi8(_mm512_set1_epi64((i64)shifts), high), _mm512_set1_epi8(16));
}

/* IQ4's table + 128, by nibble. */
ALWAYS_INLINE __m512i iq4_value(__m512i nibbles) {
    const __m128i table = _mm_setr_epi8(1, 24, 45, 63, 79, 93, 106, 118, (char)129, (char)141, (char)153, (char)166,
                                        (char)181, (char)197, (char)217, (char)241);
    return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(table), nibbles);
}

#define UNIT_Q4_1 1
#define DWORDS_Q4_1 5
#define DECODE_Q4_1(T, b)                                                                                    \
    {                                                                                                        \
        START(I, b, -1)                                                                                      \
        UNROLL for (u32 t = 0; t < 4; t++) {                                                                 \
            __m512i q_ = LOAD((T)[1 + t]);                                                                   \
            PUT(I, b, t, nibble_low(q_))                                                                     \
            PUT(I, b, t + 4, nibble_high(q_))                                                                \
        }                                                                                                    \
        __m512i dm_ = LOAD((T)[0]);                                                                          \
        END_MIN(I, b, f16_low(dm_), f16_high(dm_))                                                           \
    }

#define UNIT_Q5_1 1
#define DWORDS_Q5_1 6
#define DECODE_Q5_1(T, b)                                                                                    \
    {                                                                                                        \
        START(I, b, -1)                                                                                      \
        __m512i high_ = LOAD((T)[1]);                                                                        \
        UNROLL for (u32 t = 0; t < 4; t++) {                                                                 \
            __m512i q_ = LOAD((T)[2 + t]);                                                                   \
            PUT(I, b, t, _mm512_or_si512(nibble_low(q_), fifth_bits(high_, t)))                              \
            PUT(I, b, t + 4, _mm512_or_si512(nibble_high(q_), fifth_bits(high_, t + 4)))                     \
        }                                                                                                    \
        __m512i dm_ = LOAD((T)[0]);                                                                          \
        END_MIN(I, b, f16_low(dm_), f16_high(dm_))                                                           \
    }

/* The formats of 18, 22 and 34 bytes come in pairs of blocks. If a chunk ends with half a pair, the second
 * one's decoder is left out (`both`). */
#define DECODE_NIBBLES(T, b, both, shift, value)                                                             \
    {                                                                                                        \
        START(I, b, shift)                                                                                   \
        __m512i at_ = LOAD((T)[0]), dword0_ = at_;                                                                \
        UNROLL for (u32 t = 0; t < 4; t++) {                                                                 \
            __m512i next_ = LOAD((T)[t + 1]), q_ = dword_between(at_, next_);                                \
            at_ = next_;                                                                                     \
            PUT(I, b, t, value(nibble_low(q_)))                                                              \
            PUT(I, b, t + 4, value(nibble_high(q_)))                                                         \
        }                                                                                                    \
        END(I, b, f16_low(dword0_))                                                                               \
        if (both) {                                                                                          \
            START(I, b + 1, shift)                                                                           \
            UNROLL for (u32 t = 0; t < 4; t++) {                                                             \
                __m512i q_ = LOAD((T)[5 + t]);                                                               \
                PUT(I, b + 1, t, value(nibble_low(q_)))                                                      \
                PUT(I, b + 1, t + 4, value(nibble_high(q_)))                                                 \
            }                                                                                                \
            END(I, b + 1, f16_high(at_))                                                                     \
        }                                                                                                    \
    }

#define UNIT_Q4_0 2
#define DWORDS_Q4_0 9
#define DECODE_Q4_0(T, b, both) DECODE_NIBBLES(T, b, both, 3, )

#define UNIT_IQ4_NL 2
#define DWORDS_IQ4_NL 9
#define DECODE_IQ4_NL(T, b, both) DECODE_NIBBLES(T, b, both, 7, iq4_value)

#define UNIT_Q5_0 2
#define DWORDS_Q5_0 11
#define DECODE_Q5_0(T, b, both)                                                                              \
    {                                                                                                        \
        START(I, b, 4)                                                                                       \
        __m512i dword0_ = LOAD((T)[0]), at_ = LOAD((T)[1]), high_ = dword_between(dword0_, at_);                       \
        UNROLL for (u32 t = 0; t < 4; t++) {                                                                 \
            __m512i next_ = LOAD((T)[t + 2]), q_ = dword_between(at_, next_);                                \
            at_ = next_;                                                                                     \
            PUT(I, b, t, _mm512_or_si512(nibble_low(q_), fifth_bits(high_, t)))                              \
            PUT(I, b, t + 4, _mm512_or_si512(nibble_high(q_), fifth_bits(high_, t + 4)))                     \
        }                                                                                                    \
        END(I, b, f16_low(dword0_))                                                                               \
        if (both) {                                                                                          \
            START(I, b + 1, 4)                                                                               \
            high_ = LOAD((T)[6]);                                                                            \
            UNROLL for (u32 t = 0; t < 4; t++) {                                                             \
                __m512i q_ = LOAD((T)[7 + t]);                                                               \
                PUT(I, b + 1, t, _mm512_or_si512(nibble_low(q_), fifth_bits(high_, t)))                      \
                PUT(I, b + 1, t + 4, _mm512_or_si512(nibble_high(q_), fifth_bits(high_, t + 4)))             \
            }                                                                                                \
            END(I, b + 1, f16_high(at_))                                                                     \
        }                                                                                                    \
    }

#define UNIT_Q8_0 2
#define DWORDS_Q8_0 17
#define DECODE_Q8_0(T, b, both)                                                                              \
    {                                                                                                        \
        const __m512i sign_ = _mm512_set1_epi8((char)0x80);                                                  \
        START(I, b, 7)                                                                                       \
        __m512i at_ = LOAD((T)[0]), dword0_ = at_;                                                                \
        UNROLL for (u32 t = 0; t < 8; t++) {                                                                 \
            __m512i next_ = LOAD((T)[t + 1]);                                                                \
            PUT(I, b, t, _mm512_xor_si512(dword_between(at_, next_), sign_))                                 \
            at_ = next_;                                                                                     \
        }                                                                                                    \
        END(I, b, f16_low(dword0_))                                                                               \
        if (both) {                                                                                          \
            START(I, b + 1, 7)                                                                               \
            UNROLL for (u32 t = 0; t < 8; t++)                                                               \
                PUT(I, b + 1, t, _mm512_xor_si512(LOAD((T)[9 + t]), sign_))                                  \
            END(I, b + 1, f16_high(at_))                                                                     \
        }                                                                                                    \
    }

/* The eight 6-bit scales and minima of a Q4_K or Q5_K block, four per dword. */
struct k45_scales {
    __m512i scale[2], min[2];
    __m512 d, dmin; /* dmin negative */
};

ALWAYS_INLINE void k45_scales_load(const u32 (*T)[16], struct k45_scales *s) {
    const __m512i low6 = _mm512_set1_epi8(0x3f), high2 = _mm512_set1_epi8(0x30);
    __m512i x = LOAD(T[0]), s0 = LOAD(T[1]), s1 = LOAD(T[2]), s2 = LOAD(T[3]);
    s->d = f16_low(x);
    s->dmin = _mm512_xor_ps(f16_high(x), _mm512_set1_ps(-0.0f));
    s->scale[0] = _mm512_and_si512(s0, low6);
    s->min[0] = _mm512_and_si512(s1, low6);
    s->scale[1] = and_or(_mm512_srli_epi32(s0, 2), high2, nibble_low(s2));
    s->min[1] = and_or(_mm512_srli_epi32(s1, 2), high2, nibble_high(s2));
}

/* Byte j of each dword as f32, times d. */
#define BYTE_SCALED(x, j, d) _mm512_mul_ps(d, _mm512_cvtepi32_ps(byte_of(x, j)))
ALWAYS_INLINE __m512i byte_of(__m512i x, u32 j) {
    return j == 3 ? _mm512_srli_epi32(x, 24)
                  : _mm512_and_si512(_mm512_srli_epi32(x, 8 * j), _mm512_set1_epi32(255));
}

/* Low nibbles are block b + 2j, high nibbles b + 2j + 1; bit i of Q5_K's high bytes belongs to block b + i. */
#define DECODE_K45(T, b, first, five)                                                                        \
    {                                                                                                        \
        struct k45_scales s_;                                                                                \
        k45_scales_load(T, &s_);                                                                             \
        UNROLL for (u32 j = 0; j < 4; j++) {                                                                 \
            START(I, (b) + 2 * j, -1)                                                                        \
            START(J, (b) + 2 * j + 1, -1)                                                                    \
            UNROLL for (u32 t = 0; t < 8; t++) {                                                             \
                __m512i q_ = LOAD((T)[(first) + 8 * j + t]), low_ = nibble_low(q_), high_ = nibble_high(q_); \
                if (five) {                                                                                  \
                    const __m512i bit_ = _mm512_set1_epi8(16);                                               \
                    __m512i h_ = LOAD((T)[4 + t]);                                                           \
                    low_ = and_or(j < 2 ? _mm512_slli_epi32(h_, 4 - 2 * j) : _mm512_srli_epi32(h_, 2 * j - 4), \
                                  bit_, low_);                                                               \
                    high_ = and_or(j < 2 ? _mm512_slli_epi32(h_, 3 - 2 * j) : _mm512_srli_epi32(h_, 2 * j - 3), \
                                   bit_, high_);                                                             \
                }                                                                                            \
                PUT(I, (b) + 2 * j, t, low_)                                                                 \
                PUT(J, (b) + 2 * j + 1, t, high_)                                                            \
            }                                                                                                \
            __m512i sc_ = s_.scale[j / 2], mn_ = s_.min[j / 2];                                          \
            END_MIN(I, (b) + 2 * j, BYTE_SCALED(sc_, 2 * j % 4, s_.d), BYTE_SCALED(mn_, 2 * j % 4, s_.dmin)) \
            END_MIN(J, (b) + 2 * j + 1, BYTE_SCALED(sc_, 2 * j % 4 + 1, s_.d),                            \
                    BYTE_SCALED(mn_, 2 * j % 4 + 1, s_.dmin))                                               \
        }                                                                                                    \
    }

#define UNIT_Q4_K 8
#define DWORDS_Q4_K 36
#define DECODE_Q4_K(T, b) DECODE_K45(T, b, 4, false)

#define UNIT_Q5_K 8
#define DWORDS_Q5_K 44
#define DECODE_Q5_K(T, b) DECODE_K45(T, b, 12, true)

/* Per 128 columns 64 bytes of low nibbles (the second 64 columns in the high ones) and 32 of high bits, two
 * per column. The 16 scales lie in dwords 48..51, d (already f32) in 52. */
#define UNIT_Q6_K 8
#define DWORDS_Q6_K 53
ALWAYS_INLINE __m512i q6k_value(const u32 (*T)[16], u32 block, u32 t) {
    u32 n = block / 4, j = block % 4;
    const __m512i bits = _mm512_set1_epi8(0x30);
    __m512i low = LOAD(T[16 * n + 8 * (j % 2) + t]), high = LOAD(T[32 + 8 * n + t]);
    low = j < 2 ? nibble_low(low) : nibble_high(low);
    high = j < 2 ? _mm512_slli_epi32(high, 4 - 2 * j) : j == 2 ? high : _mm512_srli_epi32(high, 2);
    return and_or(high, bits, low);
}

ALWAYS_INLINE __m512 q6k_scale(const u32 (*T)[16], u32 i) {
    __m512i s = LOAD(T[48 + i / 4]);
    s = _mm512_srai_epi32(i % 4 == 3 ? s : _mm512_slli_epi32(s, 24 - 8 * (i % 4)), 24);
    return _mm512_mul_ps(_mm512_load_ps((const f32 *)(const void *)T[52]), _mm512_cvtepi32_ps(s));
}

#define DECODE_Q6_K(T, b)                                                                                    \
    UNROLL for (u32 j = 0; j < 16; j++) {                                                                    \
        START_16(I, (b) + j / 2, j % 2, 5)                                                                   \
        UNROLL for (u32 t = 0; t < 4; t++)                                                                   \
            PUT(I, (b) + j / 2, 4 * (j % 2) + t, q6k_value(T, j / 2, 4 * (j % 2) + t))                       \
        END_16(I, (b) + j / 2, j % 2, q6k_scale(T, j))                                                       \
    }

/* d | 2-bit highs of the scales, 4-bit lows of the scales, nibbles. */
#define UNIT_IQ4_XS 8
#define DWORDS_IQ4_XS 34
ALWAYS_INLINE __m512 iq4xs_scale(const u32 (*T)[16], u32 j) {
    __m512i x = LOAD(T[0]), low = _mm512_srli_epi32(LOAD(T[1]), 4 * j), high = _mm512_srli_epi32(x, 16 + 2 * j);
    low = _mm512_and_si512(low, _mm512_set1_epi32(15));
    high = _mm512_slli_epi32(_mm512_and_si512(high, _mm512_set1_epi32(3)), 4);
    __m512i scale = _mm512_sub_epi32(_mm512_or_si512(low, high), _mm512_set1_epi32(32));
    return _mm512_mul_ps(f16_low(x), _mm512_cvtepi32_ps(scale));
}

#define DECODE_IQ4_XS(T, b)                                                                                  \
    UNROLL for (u32 j = 0; j < 8; j++) {                                                                     \
        START(I, (b) + j, 7)                                                                                 \
        UNROLL for (u32 t = 0; t < 4; t++) {                                                                 \
            __m512i q_ = LOAD((T)[2 + 4 * j + t]);                                                           \
            PUT(I, (b) + j, t, iq4_value(nibble_low(q_)))                                                    \
            PUT(I, (b) + j, t + 4, iq4_value(nibble_high(q_)))                                               \
        }                                                                                                    \
        END(I, (b) + j, iq4xs_scale(T, j))                                                                   \
    }

#endif
