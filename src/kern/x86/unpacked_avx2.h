/* unpacked_avx2.h - a decoded tile of 2 x 8 weight rows times up to 6 activation rows c; the includer says
 * whether vpdpbusd exists (VNNI).
 *
 * Two integer accumulators per activation row fill the registers; the floats wait in L1, a block of 32
 * columns apart. Accumulators are named scalars, because the compiler keeps arrays of them in memory. */
#include "kern/x86/matmul_avx2.h"

/* What a complete block does to the floats, see kern.h. */
enum form { FORM_32, FORM_32_MIN, FORM_256, FORM_256_MIN, FORM_256_HALVES };

#define ROWS(X) X(0) X(1) X(2) X(3) X(4) X(5)
#define ACT(c) ((const struct kern_act_block *)(const void *)(p##c + at))

/* I, J: 32-bit sums of the two vectors of weight rows; S, Q: 16-bit ones. */
#define DECLARE_ROW(c)                                                                                       \
    const u8 *const p##c UNUSED = (const u8 *)(ch->a + (c)*ch->a_stride);                                    \
    vi I##c UNUSED = _mm256_setzero_si256(), J##c UNUSED = I##c, S##c UNUSED = I##c, Q##c UNUSED = I##c;

#define START_ROW(c)                                                                                         \
    if ((c) < C) {                                                                                           \
        i32 n = with_min || sign          ? 0                                                                \
                : form == FORM_32         ? ACT(c)->n[0]                                                     \
                : form == FORM_256_HALVES ? ACT(c)->n[half]                                                  \
                                          : ACT(c)->n[0] + ACT(c)->n[1];                                     \
        I##c = J##c = v_set_32(n * (1 << bias_shift));                                                       \
    }

#if VNNI
#define DOT_ROW(c)                                                                                           \
    if ((c) < C) {                                                                                           \
        vi v = v_set_32((i32)load_u32(ACT(c)->q + 4 * g));                                                   \
        I##c = _mm256_dpbusd_avx_epi32(I##c, w0, v);                                                         \
        J##c = _mm256_dpbusd_avx_epi32(J##c, w1, v);                                                         \
    }
#else
/* Sums in the order written: the compiler would otherwise add all products of a block as a tree, and spill
 * it. */
#define PIN(x) __asm__("" : "+x"(x))
#define DOT_ROW(c)                                                                                           \
    if ((c) < C) {                                                                                           \
        vi v = v_set_32((i32)load_u32(ACT(c)->q + 4 * g));                                                   \
        vi s = _mm256_maddubs_epi16(size0, sign ? _mm256_sign_epi8(v, w0) : v);                              \
        vi q = _mm256_maddubs_epi16(size1, sign ? _mm256_sign_epi8(v, w1) : v);                              \
        S##c = j % narrow == 0 ? s : _mm256_add_epi16(S##c, s);                                              \
        Q##c = j % narrow == 0 ? q : _mm256_add_epi16(Q##c, q);                                              \
        PIN(S##c);                                                                                           \
        PIN(Q##c);                                                                                           \
        if (j % narrow == narrow - 1) {                                                                      \
            I##c = _mm256_add_epi32(I##c, _mm256_madd_epi16(S##c, ones));                                    \
            J##c = _mm256_add_epi32(J##c, _mm256_madd_epi16(Q##c, ones));                                    \
            PIN(I##c);                                                                                       \
            PIN(J##c);                                                                                       \
        }                                                                                                    \
    }
#endif

#define FINISH_ROW(c)                                                                                        \
    if ((c) < C) {                                                                                           \
        vf x = f_load(F[c][0]), y = f_load(F[c][1]), da = _mm256_set1_ps(ACT(c)->d);                         \
        x = _mm256_fmadd_ps(f_of(I##c), wide ? d0 : f_mul(d0, da), x);                                       \
        y = _mm256_fmadd_ps(f_of(J##c), wide ? d1 : f_mul(d1, da), y);                                       \
        if (with_min) {                                                                                      \
            vf s = _mm256_set1_ps(ACT(c)->s);                                                                \
            x = _mm256_fmadd_ps(m0, s, x);                                                                   \
            y = _mm256_fmadd_ps(m1, s, y);                                                                   \
        }                                                                                                    \
        _mm256_store_ps(F[c][0], x);                                                                         \
        _mm256_store_ps(F[c][1], y);                                                                         \
    }
/* After 256 columns: adds the sums over them to the outputs. */
#define ADD_ROW(c)                                                                                           \
    if ((c) < C) {                                                                                           \
        f32 *out = ch->out + (c)*ch->ldo;                                                                    \
        vf x = _mm256_setzero_ps(), y = x, da = _mm256_set1_ps(ACT(c)->d);                                   \
        if (!first) {                                                                                        \
            x = _mm256_loadu_ps(out);                                                                        \
            y = _mm256_loadu_ps(out + 8);                                                                    \
        }                                                                                                    \
        _mm256_storeu_ps(out, _mm256_fmadd_ps(f_load(F[c][0]), da, x));                                      \
        _mm256_storeu_ps(out + 8, _mm256_fmadd_ps(f_load(F[c][1]), da, y));                                  \
        _mm256_store_ps(F[c][0], _mm256_setzero_ps());                                                       \
        _mm256_store_ps(F[c][1], _mm256_setzero_ps());                                                       \
    }

/* narrow: how many products of pairs 16 bits hold; sign: weights are signed bytes. Both mean nothing with
 * VNNI. */
ALWAYS_INLINE void unpacked(const u32 C, const enum form form, const u32 narrow UNUSED, const bool sign,
                            const struct chunk *ch, i32 bias_shift) {
    const bool wide = form >= FORM_256, with_min = form == FORM_32_MIN || form == FORM_256_MIN;
    const u32 halves = form == FORM_256_HALVES ? 2 : 1, dwords = 8 / halves;
    const struct tile *tile = ch->tile;
    const vi ones UNUSED = _mm256_set1_epi16(1);
    _Alignas(32) f32 F[6][2][8];
    struct prefetch *const pf = ch->prefetch;
    u32 share = 0;
    bool first = ch->first;
    for (u32 c = 0; c < C; c++)
        if (wide || first)
            memset(F[c], 0, sizeof F[c]);
        else
            memcpy(F[c], ch->out + c * ch->ldo, sizeof F[c]);
    ROWS(DECLARE_ROW)
    size_t at = 0;
    for (u32 b = 0; b < ch->n_blocks; b++, at += sizeof(struct kern_act_block)) {
        PREFETCH_SHARE(pf, share, ch->n_blocks)
        UNROLL for (u32 half = 0; half < halves; half++) {
            ROWS(START_ROW)
            UNROLL for (u32 j = 0; j < dwords; j++) {
                const u32 g = half * dwords + j;
                vi w0 = v_load(tile->W[8 * b + g][0]), w1 = v_load(tile->W[8 * b + g][1]);
                vi size0 UNUSED = sign ? _mm256_abs_epi8(w0) : w0,
                         size1 UNUSED = sign ? _mm256_abs_epi8(w1) : w1;
                ROWS(DOT_ROW)
            }
            u32 i = b * halves + half;
            vf d0 = f_load(tile->D[i][0]), d1 = f_load(tile->D[i][1]), m0 UNUSED = d0, m1 UNUSED = d1;
            if (with_min) {
                m0 = f_load(tile->M[b][0]);
                m1 = f_load(tile->M[b][1]);
            }
            ROWS(FINISH_ROW)
        }
        if (wide && b % 8 == 7) {
            ROWS(ADD_ROW)
            first = false;
        }
    }
    for (u32 c = 0; !wide && c < C; c++)
        memcpy(ch->out + c * ch->ldo, F[c], sizeof F[c]);
}

#define INSTANCE(form, narrow, sign, C)                                                                      \
    static __attribute__((noinline)) void unpacked_##form##_##narrow##_##C(const struct chunk *c,            \
                                                                           i32 bias_shift) {                 \
        unpacked(C, form, narrow, sign, c, bias_shift);                                                      \
    }
