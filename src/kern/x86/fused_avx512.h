/* fused_avx512.h - the frame of the fused kernels: 16 weight rows, decoded in registers, times 1..8 activation
 * rows c. The includer defines FINISH_ROW and FINISH_MIN_ROW: what a complete block does to row c's floats.
 * Accumulators are named scalars, because the compiler keeps arrays of them in memory. */
#include "kern/x86/matmul_avx512.h"

#include "kern/x86/decode_x86.h"

#define ROWS(X, ...)                                                                                         \
    X(0, __VA_ARGS__)                                                                                        \
    X(1, __VA_ARGS__)                                                                                        \
    X(2, __VA_ARGS__) X(3, __VA_ARGS__) X(4, __VA_ARGS__) X(5, __VA_ARGS__) X(6, __VA_ARGS__) X(7, __VA_ARGS__)

/* Activation block b of row c. */
#define ACT(c, b) ((const struct kern_act_block *)(const void *)(p##c + 48 * (size_t)(b)))
#define ACT_4(c, b, g) _mm512_set1_epi32((i32)load_u32(ACT(c, b)->q + 4 * (g)))

#define DECLARE_ROW(c, unused)                                                                               \
    const u8 *const p##c UNUSED = (const u8 *)(ch->a + (c)*ch->a_stride);                                    \
    f32 *const out##c UNUSED = ch->out + (c)*ch->ldo;                                                        \
    __m512i I##c UNUSED = _mm512_setzero_si512(), J##c UNUSED = _mm512_setzero_si512();                      \
    __m512 F##c UNUSED = _mm512_setzero_ps();

#define START_ROW(c, A, b, shift)                                                                            \
    if ((c) < C)                                                                                             \
        A##c = (shift) < 0 ? _mm512_setzero_si512()                                                          \
                           : _mm512_slli_epi32(_mm512_set1_epi32(START_SUM(ACT(c, b))), (u32)MAX(shift, 0));
#define START(A, b, shift) ROWS(START_ROW, A, b, shift)

#define START_16_ROW(c, A, b, h, shift)                                                                      \
    if ((c) < C)                                                                                             \
        A##c = _mm512_slli_epi32(_mm512_set1_epi32(ACT(c, b)->n[h]), shift);
#define START_16(A, b, h, shift) ROWS(START_16_ROW, A, b, h, shift)

#define PUT_ROW(c, A, b, g, v)                                                                               \
    if ((c) < C)                                                                                             \
        A##c = _mm512_dpbusd_epi32(A##c, v, ACT_4(c, b, g));
#define PUT(A, b, g, v)                                                                                      \
    {                                                                                                        \
        const __m512i put_ = (v);                                                                            \
        ROWS(PUT_ROW, A, b, g, put_)                                                                         \
    }

#define END(A, b, d)                                                                                         \
    {                                                                                                        \
        const __m512 scale_ = (d);                                                                               \
        ROWS(FINISH_ROW, A, b, scale_)                                                                           \
        PREFETCH_SHARE(pf, share, ch->n_blocks)                                                              \
    }
#define END_MIN(A, b, d, m)                                                                                  \
    {                                                                                                        \
        const __m512 scale_ = (d), min_ = (m);                                                                     \
        ROWS(FINISH_MIN_ROW, A, b, scale_, min_)                                                                   \
        PREFETCH_SHARE(pf, share, ch->n_blocks)                                                              \
    }
#define END_16(A, b, h, d)                                                                                   \
    {                                                                                                        \
        const __m512 scale_ = (d);                                                                               \
        ROWS(FINISH_ROW, A, b, scale_)                                                                           \
        if (h)                                                                                               \
            PREFETCH_SHARE(pf, share, ch->n_blocks)                                                          \
    }

#define LOAD_F_ROW(c, unused)                                                                                \
    if ((c) < C && !ch->first)                                                                               \
        F##c = _mm512_maskz_loadu_ps(ch->mask[0], out##c);
#define STORE_F_ROW(c, unused)                                                                               \
    if ((c) < C)                                                                                             \
        _mm512_mask_storeu_ps(out##c, ch->mask[0], F##c);

#define INSTANCE(X, C)                                                                                       \
    static __attribute__((noinline)) void fused_##X##_##C(const struct chunk *ch) { fused_##X(C, ch); }
