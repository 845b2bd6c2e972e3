/* unpacked_avx2.c - a decoded tile of 8 weight rows times 1..4 activation rows.
 *
 * 4 float, 4 wide and 4 narrow accumulators, a weight vector, a broadcast and the ones: 15 of 16 registers.
 * Accumulators are named scalars, because the compiler keeps arrays of them in memory. */
#include "kern/x86/matmul_avx2.h"

/* What a complete block does to the floats, see kern.h. */
enum form { FORM_32, FORM_32_MIN, FORM_256, FORM_256_MIN, FORM_256_HALVES };

#define ROWS(X) X(0) X(1) X(2) X(3)
#define ACT(c) ((const struct kern_act_block *)(const void *)(p##c + at))

/* S: narrow sums, I: wide ones, F: floats. */
#define DECLARE_ROW(c)                                                                                       \
    const u8 *const p##c UNUSED = (const u8 *)(ch->a + (c)*ch->a_stride);                                    \
    f32 *const out##c UNUSED = ch->out + (c)*ch->ldo;                                                        \
    vi S##c UNUSED = _mm256_setzero_si256(), I##c UNUSED = S##c;                                             \
    vf F##c UNUSED = _mm256_setzero_ps();
#define LOAD_ROW(c)                                                                                          \
    if ((c) < C)                                                                                             \
        F##c = _mm256_loadu_ps(out##c);
#define STORE_ROW(c)                                                                                         \
    if ((c) < C)                                                                                             \
        _mm256_storeu_ps(out##c, F##c);

#define START_ROW(c)                                                                                         \
    if ((c) < C) {                                                                                           \
        i32 n = with_min || sign      ? 0                                                                    \
                : form == FORM_32           ? ACT(c)->n[0]                                                   \
                : form == FORM_256_HALVES   ? ACT(c)->n[half]                                                \
                                            : ACT(c)->n[0] + ACT(c)->n[1];                                   \
        I##c = v_set_32(n * (1 << bias_shift));                                                              \
    }
#define DOT_ROW(c)                                                                                           \
    if ((c) < C) {                                                                                           \
        vi v = v_set_32((i32)load_u32(ACT(c)->q + 4 * g));                                                   \
        vi pairs = sign ? _mm256_maddubs_epi16(size, _mm256_sign_epi8(v, w)) : _mm256_maddubs_epi16(w, v);   \
        S##c = j % narrow == 0 ? pairs : _mm256_add_epi16(S##c, pairs);                                      \
    }
#define WIDEN_ROW(c)                                                                                         \
    if ((c) < C)                                                                                             \
        I##c = _mm256_add_epi32(I##c, _mm256_madd_epi16(S##c, ones));

#define FINISH_ROW(c)                                                                                        \
    if ((c) < C) {                                                                                           \
        vf x = f_of(I##c);                                                                                   \
        if (wide)                                                                                            \
            F##c = _mm256_fmadd_ps(x, d, F##c);                                                              \
        else                                                                                                 \
            F##c = _mm256_fmadd_ps(x, f_mul(d, _mm256_set1_ps(ACT(c)->d)), F##c);                            \
        if (with_min)                                                                                        \
            F##c = _mm256_fmadd_ps(m, _mm256_set1_ps(ACT(c)->s), F##c);                                      \
    }
/* After 256 columns: adds the sums over them to the outputs, which wait in memory. */
#define ADD_ROW(c)                                                                                           \
    if ((c) < C) {                                                                                           \
        vf x = first ? _mm256_setzero_ps() : _mm256_loadu_ps(out##c);                                        \
        _mm256_storeu_ps(out##c, _mm256_fmadd_ps(F##c, _mm256_set1_ps(ACT(c)->d), x));                       \
        F##c = _mm256_setzero_ps();                                                                          \
    }

/* narrow: how many products of pairs 16 bits hold; sign: weights are signed bytes. */
ALWAYS_INLINE void unpacked(const u32 C, const enum form form, const u32 narrow, const bool sign, const struct chunk *ch,
                            i32 bias_shift) {
    const bool wide = form >= FORM_256, with_min = form == FORM_32_MIN || form == FORM_256_MIN;
    const u32 halves = form == FORM_256_HALVES ? 2 : 1, dwords = 8 / halves;
    const struct tile *tile = ch->tile;
    const vi ones = _mm256_set1_epi16(1);
    struct prefetch pf = ch->prefetch;
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
            ROWS(START_ROW)
            UNROLL for (u32 j = 0; j < dwords; j++) {
                const u32 g = half * dwords + j;
                vi w = v_load(tile->W[8 * b + g]), size UNUSED = sign ? _mm256_abs_epi8(w) : w;
                ROWS(DOT_ROW)
                if (j % narrow == narrow - 1) {
                    ROWS(WIDEN_ROW)
                }
            }
            vf d = f_load(tile->D[b * halves + half]), m UNUSED = with_min ? f_load(tile->M[b]) : d;
            ROWS(FINISH_ROW)
        }
        if (wide && b % 8 == 7) {
            ROWS(ADD_ROW)
            first = false;
        }
    }
    if (!wide) {
        ROWS(STORE_ROW)
    }
}

#define INSTANCE(form, narrow, sign, C)                                                                      \
    static __attribute__((noinline)) void unpacked_##form##_##narrow##_##C(const struct chunk *c, i32 bias_shift) { \
        unpacked(C, form, narrow, sign, c, bias_shift);                                                      \
    }
#define INSTANCES(form, narrow, sign)                                                                        \
    INSTANCE(form, narrow, sign, 1) INSTANCE(form, narrow, sign, 2) INSTANCE(form, narrow, sign, 3) INSTANCE(form, narrow, sign, 4)
INSTANCES(FORM_32, 8, false)
INSTANCES(FORM_32, 4, false)
INSTANCES(FORM_32, 1, true)
INSTANCES(FORM_32_MIN, 8, false)
INSTANCES(FORM_32_MIN, 4, false)
INSTANCES(FORM_256, 1, true)
INSTANCES(FORM_256_MIN, 8, false)
INSTANCES(FORM_256_MIN, 4, false)
INSTANCES(FORM_256_HALVES, 2, false)

#define DISPATCH(form, narrow)                                                                               \
    switch (c->rows) {                                                                                       \
    case 1: unpacked_##form##_##narrow##_1(c, bias_shift); break;                                            \
    case 2: unpacked_##form##_##narrow##_2(c, bias_shift); break;                                            \
    case 3: unpacked_##form##_##narrow##_3(c, bias_shift); break;                                            \
    default: unpacked_##form##_##narrow##_4(c, bias_shift); break;                                           \
    }                                                                                                        \
    break;

void avx2_unpacked(enum quant_type type, const struct chunk *c) {
    i32 bias_shift = MAX(matmul_bias_shift(type), 0);
    switch ((int)type) {
    case QUANT_Q4_0: DISPATCH(FORM_32, 8)
    case QUANT_Q5_0: DISPATCH(FORM_32, 4)
    case QUANT_Q8_0:
    case QUANT_IQ4_NL: DISPATCH(FORM_32, 1)
    case QUANT_Q4_1: DISPATCH(FORM_32_MIN, 8)
    case QUANT_Q5_1: DISPATCH(FORM_32_MIN, 4)
    case QUANT_Q4_K: DISPATCH(FORM_256_MIN, 8)
    case QUANT_Q5_K: DISPATCH(FORM_256_MIN, 4)
    case QUANT_Q6_K: DISPATCH(FORM_256_HALVES, 2)
    case QUANT_IQ4_XS: DISPATCH(FORM_256, 1)
    }
}
