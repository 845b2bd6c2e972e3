/* decode_x86.h - the decoder of each weight format, as a macro over a transposed tile; for every vector width.
 * The includer has included lanes_avx512.h or lanes_avx2.h.
 *
 * DECODE_X(T, b) decodes the rows of the format's smallest unit of whole dwords, which starts at block
 * (of 32 columns) b of the chunk; UNIT_X is its length in blocks, DWORDS_X in dwords. It names what it finds
 * through sinks that the includer defines, so that the fused path multiplies what the unpacked path stores:
 *   START(A, b, shift)    a block begins; its weights are offset by 2^shift (shift < 0: by 0)
 *   PUT(A, b, g, v)       v = columns 4g..4g+3 of block b in each lane's bytes, unsigned
 *   END(A, b, d)          the block is complete, its scale is d
 *   END_MIN(A, b, d, m)   the same with a minimum
 *   START_16, END_16(A, b, h, ...)  the same for half h of a block with a scale per 16 columns
 * A is I or J: blocks that are decoded at the same time have different ones. */
#ifndef MINKA_DECODE_X86_H
#define MINKA_DECODE_X86_H

#include "kern/x86/matmul_x86.h"

#define LOAD(p) v_load(p)

ALWAYS_INLINE vi nibble_low(vi x) { return v_and(x, v_set_8(15)); }
ALWAYS_INLINE vi nibble_high(vi x) { return nibble_low(v_shr(x, 4)); }

#define UNIT_Q4_1 1
#define DWORDS_Q4_1 5
#define DECODE_Q4_1(T, b)                                                                                    \
    {                                                                                                        \
        START(I, b, -1)                                                                                      \
        UNROLL for (u32 t = 0; t < 4; t++) {                                                                 \
            vi q_ = LOAD((T)[1 + t]);                                                                   \
            PUT(I, b, t, nibble_low(q_))                                                                     \
            PUT(I, b, t + 4, nibble_high(q_))                                                                \
        }                                                                                                    \
        vi dm_ = LOAD((T)[0]);                                                                          \
        END_MIN(I, b, f16_low(dm_), f16_high(dm_))                                                           \
    }

#define UNIT_Q5_1 1
#define DWORDS_Q5_1 6
#define DECODE_Q5_1(T, b)                                                                                    \
    {                                                                                                        \
        START(I, b, -1)                                                                                      \
        vi high_ = LOAD((T)[1]);                                                                        \
        UNROLL for (u32 t = 0; t < 4; t++) {                                                                 \
            vi q_ = LOAD((T)[2 + t]);                                                                   \
            PUT(I, b, t, v_or(nibble_low(q_), fifth_bits(high_, t)))                              \
            PUT(I, b, t + 4, v_or(nibble_high(q_), fifth_bits(high_, t + 4)))                     \
        }                                                                                                    \
        vi dm_ = LOAD((T)[0]);                                                                          \
        END_MIN(I, b, f16_low(dm_), f16_high(dm_))                                                           \
    }

/* The formats of 18, 22 and 34 bytes come in pairs of blocks. If a chunk ends with half a pair, the second
 * one's decoder is left out (`both`). */
#define DECODE_NIBBLES(T, b, both, shift, value)                                                             \
    {                                                                                                        \
        START(I, b, shift)                                                                                   \
        vi at_ = LOAD((T)[0]), dword0_ = at_;                                                                \
        UNROLL for (u32 t = 0; t < 4; t++) {                                                                 \
            vi next_ = LOAD((T)[t + 1]), q_ = dword_between(at_, next_);                                \
            at_ = next_;                                                                                     \
            PUT(I, b, t, value(nibble_low(q_)))                                                              \
            PUT(I, b, t + 4, value(nibble_high(q_)))                                                         \
        }                                                                                                    \
        END(I, b, f16_low(dword0_))                                                                               \
        if (both) {                                                                                          \
            START(I, b + 1, shift)                                                                           \
            UNROLL for (u32 t = 0; t < 4; t++) {                                                             \
                vi q_ = LOAD((T)[5 + t]);                                                               \
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
        vi dword0_ = LOAD((T)[0]), at_ = LOAD((T)[1]), high_ = dword_between(dword0_, at_);                       \
        UNROLL for (u32 t = 0; t < 4; t++) {                                                                 \
            vi next_ = LOAD((T)[t + 2]), q_ = dword_between(at_, next_);                                \
            at_ = next_;                                                                                     \
            PUT(I, b, t, v_or(nibble_low(q_), fifth_bits(high_, t)))                              \
            PUT(I, b, t + 4, v_or(nibble_high(q_), fifth_bits(high_, t + 4)))                     \
        }                                                                                                    \
        END(I, b, f16_low(dword0_))                                                                               \
        if (both) {                                                                                          \
            START(I, b + 1, 4)                                                                               \
            high_ = LOAD((T)[6]);                                                                            \
            UNROLL for (u32 t = 0; t < 4; t++) {                                                             \
                vi q_ = LOAD((T)[7 + t]);                                                               \
                PUT(I, b + 1, t, v_or(nibble_low(q_), fifth_bits(high_, t)))                      \
                PUT(I, b + 1, t + 4, v_or(nibble_high(q_), fifth_bits(high_, t + 4)))             \
            }                                                                                                \
            END(I, b + 1, f16_high(at_))                                                                     \
        }                                                                                                    \
    }

#define UNIT_Q8_0 2
#define DWORDS_Q8_0 17
#define DECODE_Q8_0(T, b, both)                                                                              \
    {                                                                                                        \
        const vi sign_ = v_set_8((char)0x80);                                                  \
        START(I, b, 7)                                                                                       \
        vi at_ = LOAD((T)[0]), dword0_ = at_;                                                                \
        UNROLL for (u32 t = 0; t < 8; t++) {                                                                 \
            vi next_ = LOAD((T)[t + 1]);                                                                \
            PUT(I, b, t, v_xor(dword_between(at_, next_), sign_))                                 \
            at_ = next_;                                                                                     \
        }                                                                                                    \
        END(I, b, f16_low(dword0_))                                                                               \
        if (both) {                                                                                          \
            START(I, b + 1, 7)                                                                               \
            UNROLL for (u32 t = 0; t < 8; t++)                                                               \
                PUT(I, b + 1, t, v_xor(LOAD((T)[9 + t]), sign_))                                  \
            END(I, b + 1, f16_high(at_))                                                                     \
        }                                                                                                    \
    }

/* The eight 6-bit scales and minima of a Q4_K or Q5_K block, four per dword. */
struct k45_scales {
    vi scale[2], min[2];
    vf d, dmin; /* dmin negative */
};

ALWAYS_INLINE void k45_scales_load(const u32 (*T)[LANES], struct k45_scales *s) {
    const vi low6 = v_set_8(0x3f), high2 = v_set_8(0x30);
    vi x = LOAD(T[0]), s0 = LOAD(T[1]), s1 = LOAD(T[2]), s2 = LOAD(T[3]);
    s->d = f16_low(x);
    s->dmin = f_negate(f16_high(x));
    s->scale[0] = v_and(s0, low6);
    s->min[0] = v_and(s1, low6);
    s->scale[1] = and_or(v_shr(s0, 2), high2, nibble_low(s2));
    s->min[1] = and_or(v_shr(s1, 2), high2, nibble_high(s2));
}

/* Byte j of each dword as f32, times d. */
#define BYTE_SCALED(x, j, d) f_mul(d, f_of(byte_of(x, j)))
ALWAYS_INLINE vi byte_of(vi x, u32 j) {
    return j == 3 ? v_shr(x, 24)
                  : v_and(v_shr(x, 8 * j), v_set_32(255));
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
                vi q_ = LOAD((T)[(first) + 8 * j + t]), low_ = nibble_low(q_), high_ = nibble_high(q_); \
                if (five) {                                                                                  \
                    const vi bit_ = v_set_8(16);                                               \
                    vi h_ = LOAD((T)[4 + t]);                                                           \
                    low_ = and_or(j < 2 ? v_shl(h_, 4 - 2 * j) : v_shr(h_, 2 * j - 4), \
                                  bit_, low_);                                                               \
                    high_ = and_or(j < 2 ? v_shl(h_, 3 - 2 * j) : v_shr(h_, 2 * j - 3), \
                                   bit_, high_);                                                             \
                }                                                                                            \
                PUT(I, (b) + 2 * j, t, low_)                                                                 \
                PUT(J, (b) + 2 * j + 1, t, high_)                                                            \
            }                                                                                                \
            vi sc_ = s_.scale[j / 2], mn_ = s_.min[j / 2];                                          \
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
ALWAYS_INLINE vi q6k_value(const u32 (*T)[LANES], u32 block, u32 t) {
    u32 n = block / 4, j = block % 4;
    const vi bits = v_set_8(0x30);
    vi low = LOAD(T[16 * n + 8 * (j % 2) + t]), high = LOAD(T[32 + 8 * n + t]);
    low = j < 2 ? nibble_low(low) : nibble_high(low);
    high = j < 2 ? v_shl(high, 4 - 2 * j) : j == 2 ? high : v_shr(high, 2);
    return and_or(high, bits, low);
}

ALWAYS_INLINE vf q6k_scale(const u32 (*T)[LANES], u32 i) {
    vi s = LOAD(T[48 + i / 4]);
    s = v_sar(i % 4 == 3 ? s : v_shl(s, 24 - 8 * (i % 4)), 24);
    return f_mul(f_load((const f32 *)(const void *)T[52]), f_of(s));
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
ALWAYS_INLINE vf iq4xs_scale(const u32 (*T)[LANES], u32 j) {
    vi x = LOAD(T[0]), low = v_shr(LOAD(T[1]), 4 * j), high = v_shr(x, 16 + 2 * j);
    low = v_and(low, v_set_32(15));
    high = v_shl(v_and(high, v_set_32(3)), 4);
    vi scale = v_sub(v_or(low, high), v_set_32(32));
    return f_mul(f16_low(x), f_of(scale));
}

#define DECODE_IQ4_XS(T, b)                                                                                  \
    UNROLL for (u32 j = 0; j < 8; j++) {                                                                     \
        START(I, (b) + j, 7)                                                                                 \
        UNROLL for (u32 t = 0; t < 4; t++) {                                                                 \
            vi q_ = LOAD((T)[2 + 4 * j + t]);                                                           \
            PUT(I, (b) + j, t, iq4_value(nibble_low(q_)))                                                    \
            PUT(I, (b) + j, t + 4, iq4_value(nibble_high(q_)))                                               \
        }                                                                                                    \
        END(I, (b) + j, iq4xs_scale(T, j))                                                                   \
    }

#endif
