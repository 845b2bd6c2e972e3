/* unpacked_avx512.c - the unpacked tile of 2 x 16 weight rows times 3..6 activation rows c.
 *
 * Per block 12 integer accumulators, 2 weight vectors and a broadcast are live, and 12 float accumulators:
 * 27 of 32 registers. Two weight vectors by 5 or 6 rows is the measured optimum: one weight vector is bound by
 * loads, 8 rows spill. Accumulators are named scalars, because the compiler keeps arrays of them in memory. */
#include "kern/x86/matmul_avx512.h"

/* What a complete block does to the floats, see kern.h. */
enum form { FORM_32, FORM_32_MIN, FORM_256, FORM_256_MIN, FORM_256_HALVES };

#define ROWS(X) X(0) X(1) X(2) X(3) X(4) X(5)

#define ACT(c) ((const struct kern_act_block *)(const void *)(p##c + at))

/* I and J are the integer sums of the two vectors of weight rows, F and G their floats. */
#define DECLARE_ROW(c)                                                                                       \
    const u8 *const p##c UNUSED = (const u8 *)(ch->a + (c)*ch->a_stride);                                    \
    f32 *const out##c UNUSED = ch->out + (c)*ch->ldo;                                                        \
    __m512i I##c UNUSED = _mm512_setzero_si512(), J##c UNUSED = _mm512_setzero_si512();                      \
    __m512 F##c UNUSED = _mm512_setzero_ps(), G##c UNUSED = _mm512_setzero_ps();

#define LOAD_ROW(c)                                                                                          \
    if ((c) < C) {                                                                                           \
        F##c = _mm512_maskz_loadu_ps(ch->mask[0], out##c);                                                   \
        G##c = _mm512_maskz_loadu_ps(ch->mask[1], out##c + 16);                                              \
    }
#define STORE_ROW(c)                                                                                         \
    if ((c) < C) {                                                                                           \
        _mm512_mask_storeu_ps(out##c, ch->mask[0], F##c);                                                    \
        _mm512_mask_storeu_ps(out##c + 16, ch->mask[1], G##c);                                               \
    }

#define START_ROW(c)                                                                                         \
    if ((c) < C) {                                                                                           \
        if (with_min) {                                                                                      \
            I##c = J##c = _mm512_setzero_si512();                                                            \
        } else {                                                                                             \
            i32 n = form == FORM_32           ? ACT(c)->n[0]                                                 \
                    : form == FORM_256_HALVES ? ACT(c)->n[half]                                              \
                                              : ACT(c)->n[0] + ACT(c)->n[1];                                 \
            I##c = J##c = _mm512_sll_epi32(_mm512_set1_epi32(n), shift);                                     \
        }                                                                                                    \
    }

#define DOT_ROW(c)                                                                                           \
    if ((c) < C) {                                                                                           \
        __m512i v = _mm512_set1_epi32((i32)load_u32(ACT(c)->q + 4 * g));                                     \
        I##c = _mm512_dpbusd_epi32(I##c, w0, v);                                                             \
        J##c = _mm512_dpbusd_epi32(J##c, w1, v);                                                             \
    }

#define FINISH_ROW(c)                                                                                        \
    if ((c) < C) {                                                                                           \
        __m512 x = _mm512_cvtepi32_ps(I##c), y = _mm512_cvtepi32_ps(J##c);                                   \
        if (wide) {                                                                                          \
            F##c = _mm512_fmadd_ps(x, d0, F##c);                                                             \
            G##c = _mm512_fmadd_ps(y, d1, G##c);                                                             \
        } else {                                                                                             \
            __m512 da = _mm512_set1_ps(ACT(c)->d);                                                           \
            F##c = _mm512_fmadd_ps(x, _mm512_mul_ps(d0, da), F##c);                                          \
            G##c = _mm512_fmadd_ps(y, _mm512_mul_ps(d1, da), G##c);                                          \
        }                                                                                                    \
        if (with_min) {                                                                                      \
            __m512 s = _mm512_set1_ps(ACT(c)->s);                                                            \
            F##c = _mm512_fmadd_ps(m0, s, F##c);                                                             \
            G##c = _mm512_fmadd_ps(m1, s, G##c);                                                             \
        }                                                                                                    \
    }

/* After 256 columns: adds the sums over them to the outputs, which wait in memory. */
#define ADD_ROW(c)                                                                                           \
    if ((c) < C) {                                                                                           \
        __m512 x = _mm512_setzero_ps(), y = x, da = _mm512_set1_ps(ACT(c)->d);                               \
        if (!first) {                                                                                        \
            x = _mm512_maskz_loadu_ps(ch->mask[0], out##c);                                                  \
            y = _mm512_maskz_loadu_ps(ch->mask[1], out##c + 16);                                             \
        }                                                                                                    \
        F##c = _mm512_fmadd_ps(F##c, da, x);                                                                 \
        G##c = _mm512_fmadd_ps(G##c, da, y);                                                                 \
    }
#define CLEAR_ROW(c) F##c = G##c = _mm512_setzero_ps();

ALWAYS_INLINE void unpacked(const u32 C, const enum form form, const struct chunk *ch, u32 bias_shift) {
    const bool wide = form >= FORM_256, with_min = form == FORM_32_MIN || form == FORM_256_MIN;
    const u32 halves = form == FORM_256_HALVES ? 2 : 1, dwords = 8 / halves;
    const struct tile *tile = ch->tile;
    const __m128i shift UNUSED = _mm_cvtsi32_si128((i32)bias_shift);
    struct prefetch *const pf = ch->prefetch;
    u32 share = 0;
    bool first = ch->first;
    ROWS(DECLARE_ROW)
    if (!wide && !first) {
        ROWS(LOAD_ROW)
    }
    size_t at = 0;
    for (u32 b = 0; b < ch->n_blocks; b++, at += sizeof(struct kern_act_block)) {
        PREFETCH_SHARE(pf, share, ch->n_blocks)
        UNROLL for (u32 half = 0; half < halves; half++) {
            u32 i = b * halves + half;
            ROWS(START_ROW)
            UNROLL for (u32 j = 0; j < dwords; j++) {
                const u32 g = half * dwords + j;
                __m512i w0 = _mm512_load_si512(tile->W[8 * b + g][0]), w1 = _mm512_load_si512(tile->W[8 * b + g][1]);
                ROWS(DOT_ROW)
            }
            __m512 d0 = _mm512_load_ps(tile->D[i][0]), d1 = _mm512_load_ps(tile->D[i][1]), m0 = d0, m1 = d1;
            if (with_min) {
                m0 = _mm512_load_ps(tile->M[b][0]);
                m1 = _mm512_load_ps(tile->M[b][1]);
            }
            ROWS(FINISH_ROW)
        }
        if (wide && b % 8 == 7) {
            ROWS(ADD_ROW)
            ROWS(STORE_ROW)
            ROWS(CLEAR_ROW)
            first = false;
        }
    }
    if (!wide) {
        ROWS(STORE_ROW)
    }
}

#define INSTANCE(form, C)                                                                                    \
    static __attribute__((noinline)) void unpacked_##form##_##C(const struct chunk *c, u32 bias_shift) {     \
        unpacked(C, form, c, bias_shift);                                                                    \
    }
#define INSTANCES(form) INSTANCE(form, 3) INSTANCE(form, 4) INSTANCE(form, 5) INSTANCE(form, 6)
INSTANCES(FORM_32)
INSTANCES(FORM_32_MIN)
INSTANCES(FORM_256)
INSTANCES(FORM_256_MIN)
INSTANCES(FORM_256_HALVES)

#define DISPATCH(form)                                                                                       \
    switch (c->rows) {                                                                                       \
    case 3: unpacked_##form##_3(c, bias_shift); break;                                                       \
    case 4: unpacked_##form##_4(c, bias_shift); break;                                                       \
    case 5: unpacked_##form##_5(c, bias_shift); break;                                                       \
    default: unpacked_##form##_6(c, bias_shift); break;                                                      \
    }                                                                                                        \
    break;

void avx512_unpacked(enum quant_type type, const struct chunk *c) {
    u32 bias_shift = (u32)MAX(matmul_bias_shift(type), 0);
    switch ((int)type) {
    case QUANT_Q4_0:
    case QUANT_Q5_0:
    case QUANT_Q8_0:
    case QUANT_IQ4_NL: DISPATCH(FORM_32)
    case QUANT_Q4_1:
    case QUANT_Q5_1: DISPATCH(FORM_32_MIN)
    case QUANT_Q4_K:
    case QUANT_Q5_K: DISPATCH(FORM_256_MIN)
    case QUANT_Q6_K: DISPATCH(FORM_256_HALVES)
    case QUANT_IQ4_XS: DISPATCH(FORM_256)
    }
}
