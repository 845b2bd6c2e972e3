/* vec_avx2.h - the words of vec_avx512.h with 16 floats in two registers: lanes 0..7 and 8..15. */
#ifndef MINKA_KERN_VEC_AVX2_H
#define MINKA_KERN_VEC_AVX2_H

#include <immintrin.h>

#include "kern/kern_parts.h"

#define INLINE static inline __attribute__((always_inline))
#define TIER(name) avx2_##name

typedef struct { __m256 a, b; } vec;

/* All ones in lanes 0..n-1 of eight; any n. */
INLINE __m256i lanes_below(u32 n) {
    const __m256i iota = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((i32)MIN(n, 8u)), iota);
}
INLINE u32 behind_8(u32 n) { return n > 8 ? n - 8 : 0; }

INLINE vec vec_set(f32 x) { return (vec){_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
INLINE vec vec_load(const f32 *p) { return (vec){_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
INLINE void vec_store(f32 *p, vec v) {
    _mm256_storeu_ps(p, v.a);
    _mm256_storeu_ps(p + 8, v.b);
}
INLINE vec vec_load_n(const f32 *p, u32 n) {
    if (n >= 16)
        return vec_load(p);
    return (vec){_mm256_maskload_ps(p, lanes_below(n)),
                 n > 8 ? _mm256_maskload_ps(p + 8, lanes_below(n - 8)) : _mm256_setzero_ps()};
}
INLINE void vec_store_n(f32 *p, u32 n, vec v) {
    if (n >= 16) {
        vec_store(p, v);
        return;
    }
    _mm256_maskstore_ps(p, lanes_below(n), v.a);
    if (n > 8)
        _mm256_maskstore_ps(p + 8, lanes_below(n - 8), v.b);
}
INLINE vec vec_load_half(const void *p) {
    const __m128i *h = p;
    return (vec){_mm256_cvtph_ps(_mm_loadu_si128(h)), _mm256_cvtph_ps(_mm_loadu_si128(h + 1))};
}
INLINE void vec_store_half(void *p, vec v) {
    __m128i *h = p;
    _mm_storeu_si128(h, _mm256_cvtps_ph(v.a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
    _mm_storeu_si128(h + 1, _mm256_cvtps_ph(v.b, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
INLINE __m256 bf16_to_8(__m256i halves) { return _mm256_castsi256_ps(_mm256_slli_epi32(halves, 16)); }
INLINE vec vec_load_bf16(const void *p) {
    const __m128i *h = p;
    return (vec){bf16_to_8(_mm256_cvtepu16_epi32(_mm_loadu_si128(h))), bf16_to_8(_mm256_cvtepu16_epi32(_mm_loadu_si128(h + 1)))};
}
INLINE vec vec_set_bf16(const void *p) {
    __m256 x = bf16_to_8(_mm256_set1_epi16((i16)load_u16(p)));
    return (vec){x, x};
}
INLINE __m256i bf16_of_8(__m256 v) {
    const __m256i x = _mm256_castps_si256(v), high = _mm256_srli_epi32(x, 16);
    __m256i y = _mm256_add_epi32(_mm256_set1_epi32(0x7fff), _mm256_and_si256(high, _mm256_set1_epi32(1)));
    y = _mm256_srli_epi32(_mm256_add_epi32(x, y), 16);
    __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q));
    return _mm256_blendv_epi8(y, _mm256_or_si256(high, _mm256_set1_epi32(64)), nan);
}
INLINE void vec_store_bf16(void *p, vec v) {
    __m256i x = _mm256_packus_epi32(bf16_of_8(v.a), bf16_of_8(v.b));
    _mm256_storeu_si256((__m256i *)p, _mm256_permute4x64_epi64(x, 0xd8));
}
INLINE __m256 i8_to_8(__m128i bytes) { return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes)); }
INLINE vec vec_load_i8(const void *p) {
    __m128i x = _mm_loadu_si128((const __m128i *)p);
    return (vec){i8_to_8(x), i8_to_8(_mm_srli_si128(x, 8))};
}
INLINE void vec_store_i8(void *p, vec v) {
    __m256i x = _mm256_packs_epi32(_mm256_cvtps_epi32(v.a), _mm256_cvtps_epi32(v.b));
    x = _mm256_permute4x64_epi64(x, 0xd8);
    _mm_storeu_si128((__m128i *)p, _mm_packs_epi16(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1)));
}

INLINE vec vec_add(vec x, vec y) { return (vec){_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)}; }
INLINE vec vec_sub(vec x, vec y) { return (vec){_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)}; }
INLINE vec vec_mul(vec x, vec y) { return (vec){_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)}; }
INLINE vec vec_div(vec x, vec y) { return (vec){_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b)}; }
INLINE vec vec_fma(vec x, vec y, vec z) {
    return (vec){_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)};
}
INLINE vec vec_max(vec x, vec y) { return (vec){_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b)}; }
INLINE vec vec_min(vec x, vec y) { return (vec){_mm256_min_ps(x.a, y.a), _mm256_min_ps(x.b, y.b)}; }
INLINE vec vec_and(vec x, vec y) { return (vec){_mm256_and_ps(x.a, y.a), _mm256_and_ps(x.b, y.b)}; }
INLINE vec vec_abs(vec x) { return (vec){_mm256_andnot_ps(_mm256_set1_ps(-0.0f), x.a), _mm256_andnot_ps(_mm256_set1_ps(-0.0f), x.b)}; }
INLINE vec vec_negate(vec x) {
    return (vec){_mm256_xor_ps(x.a, _mm256_set1_ps(-0.0f)), _mm256_xor_ps(x.b, _mm256_set1_ps(-0.0f))};
}
INLINE vec vec_with_sign(vec x, vec y) {
    vec sign = vec_and(y, vec_set(-0.0f));
    return (vec){_mm256_or_ps(x.a, sign.a), _mm256_or_ps(x.b, sign.b)};
}
INLINE vec vec_where(vec mask, vec yes, vec no) {
    return (vec){_mm256_blendv_ps(no.a, yes.a, mask.a), _mm256_blendv_ps(no.b, yes.b, mask.b)};
}
INLINE vec vec_where_less(vec x, vec y, vec yes, vec no) {
    return vec_where((vec){_mm256_cmp_ps(x.a, y.a, _CMP_LT_OQ), _mm256_cmp_ps(x.b, y.b, _CMP_LT_OQ)}, yes, no);
}
INLINE vec vec_where_nan(vec x, vec yes, vec no) {
    return vec_where((vec){_mm256_cmp_ps(x.a, x.a, _CMP_UNORD_Q), _mm256_cmp_ps(x.b, x.b, _CMP_UNORD_Q)}, yes, no);
}
INLINE vec vec_cut(vec x, u32 from, u32 to, vec other) {
    __m256i a = _mm256_andnot_si256(lanes_below(from), lanes_below(to));
    __m256i b = _mm256_andnot_si256(lanes_below(behind_8(from)), lanes_below(behind_8(to)));
    return vec_where((vec){_mm256_castsi256_ps(a), _mm256_castsi256_ps(b)}, x, other);
}
INLINE u32 vec_at_least(vec x, vec y) {
    return (u32)_mm256_movemask_ps(_mm256_cmp_ps(x.a, y.a, _CMP_GE_OQ)) |
           (u32)_mm256_movemask_ps(_mm256_cmp_ps(x.b, y.b, _CMP_GE_OQ)) << 8;
}
INLINE __m256 scale_8(__m256 p, __m256 t) {
    return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p), _mm256_slli_epi32(_mm256_castps_si256(t), 23)));
}
INLINE vec vec_scale_exp(vec p, vec t, vec n, vec x, vec min) {
    (void)n;
    vec y = vec_where_less(x, min, vec_set(0), (vec){scale_8(p.a, t.a), scale_8(p.b, t.b)});
    return vec_where_nan(x, x, y);
}

INLINE vec vec_first(vec x) { return (vec){_mm256_moveldup_ps(x.a), _mm256_moveldup_ps(x.b)}; }
INLINE vec vec_second(vec x) { return (vec){_mm256_movehdup_ps(x.a), _mm256_movehdup_ps(x.b)}; }
INLINE vec vec_join(vec x, vec y) { return (vec){_mm256_blend_ps(x.a, y.a, 0xaa), _mm256_blend_ps(x.b, y.b, 0xaa)}; }
INLINE __m256 pick_8(vec x, i32 odd) {
    /* Within 128 bits first, then the middle quarters change places. */
    __m256 t = odd ? _mm256_shuffle_ps(x.a, x.b, 0xdd) : _mm256_shuffle_ps(x.a, x.b, 0x88);
    return _mm256_permutevar8x32_ps(t, _mm256_setr_epi32(0, 1, 4, 5, 2, 3, 6, 7));
}
INLINE vec vec_pick(vec x, vec y, i32 odd) { return (vec){pick_8(x, odd), pick_8(y, odd)}; }

INLINE f32 vec_sum(vec v) {
    __m256 a = _mm256_add_ps(v.a, v.b);
    __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    b = _mm_add_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_add_ss(b, _mm_movehdup_ps(b)));
}
INLINE f32 vec_largest(vec v) {
    __m256 a = _mm256_max_ps(v.a, v.b);
    __m128 b = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    b = _mm_max_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_max_ss(b, _mm_movehdup_ps(b)));
}

#endif
