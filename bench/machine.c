/* machine.c - see machine.h. */
#include "machine.h"

#include <immintrin.h>

#define CHAINS 12

/* vpdpbusd on 512 bits: 64 multiplies and adds. */
__attribute__((target("avx512f,avx512vnni"))) static f64 dot_avx512(u32 n) {
    __m512i w = _mm512_set1_epi8(3), v = _mm512_set1_epi8(5);
    __m512i a = w, b = w, c = w, d = w, e = w, f = w, g = w, h = w, i = w, j = w, k = w, l = w;
    for (u32 at = 0; at < n; at++) {
        __asm__ volatile("vpdpbusd %12, %13, %0; vpdpbusd %12, %13, %1; vpdpbusd %12, %13, %2; vpdpbusd %12, %13, %3;"
                         "vpdpbusd %12, %13, %4; vpdpbusd %12, %13, %5; vpdpbusd %12, %13, %6; vpdpbusd %12, %13, %7;"
                         "vpdpbusd %12, %13, %8; vpdpbusd %12, %13, %9; vpdpbusd %12, %13, %10; vpdpbusd %12, %13, %11"
                         : "+v"(a), "+v"(b), "+v"(c), "+v"(d), "+v"(e), "+v"(f), "+v"(g), "+v"(h), "+v"(i), "+v"(j),
                           "+v"(k), "+v"(l)
                         : "v"(w), "v"(v));
    }
    a = _mm512_add_epi32(_mm512_add_epi32(_mm512_add_epi32(a, b), _mm512_add_epi32(c, d)), _mm512_add_epi32(e, f));
    g = _mm512_add_epi32(_mm512_add_epi32(_mm512_add_epi32(g, h), _mm512_add_epi32(i, j)), _mm512_add_epi32(k, l));
    return (f64)_mm512_reduce_add_epi32(_mm512_add_epi32(a, g));
}

/* vpmaddubsw and the vpaddw that collects it, on 256 bits: 32 multiplies and adds. */
__attribute__((target("avx2"))) static f64 dot_avx2(u32 n) {
    __m256i w = _mm256_set1_epi8(3), v = _mm256_set1_epi8(5), t, u;
    __m256i a = w, b = w, c = w, d = w, e = w, f = w, g = w, h = w, i = w, j = w, k = w, l = w;
#define STEP(x, y) "vpmaddubsw %14, %15, %12; vpmaddubsw %14, %15, %13; vpaddw %12, %" x ", %" x "; vpaddw %13, %" y ", %" y ";"
    for (u32 at = 0; at < n; at++) {
        __asm__ volatile(STEP("0", "1") STEP("2", "3") STEP("4", "5") STEP("6", "7") STEP("8", "9") STEP("10", "11")
                         : "+x"(a), "+x"(b), "+x"(c), "+x"(d), "+x"(e), "+x"(f), "+x"(g), "+x"(h), "+x"(i), "+x"(j),
                           "+x"(k), "+x"(l), "=&x"(t), "=&x"(u)
                         : "x"(w), "x"(v));
    }
    a = _mm256_add_epi32(_mm256_add_epi32(_mm256_add_epi32(a, b), _mm256_add_epi32(c, d)), _mm256_add_epi32(e, f));
    g = _mm256_add_epi32(_mm256_add_epi32(_mm256_add_epi32(g, h), _mm256_add_epi32(i, j)), _mm256_add_epi32(k, l));
    return (f64)_mm256_extract_epi32(_mm256_add_epi32(a, g), 0);
}

/* vpdpbusd on 256 bits: 32 multiplies and adds. */
__attribute__((target("avx2,avxvnni"))) static f64 dot_avxvnni(u32 n) {
    __m256i w = _mm256_set1_epi8(3), v = _mm256_set1_epi8(5);
    __m256i a = w, b = w, c = w, d = w, e = w, f = w, g = w, h = w, i = w, j = w, k = w, l = w;
    for (u32 at = 0; at < n; at++) {
        __asm__ volatile("%{vex%} vpdpbusd %12, %13, %0; %{vex%} vpdpbusd %12, %13, %1; %{vex%} vpdpbusd %12, %13, %2;"
                         "%{vex%} vpdpbusd %12, %13, %3; %{vex%} vpdpbusd %12, %13, %4; %{vex%} vpdpbusd %12, %13, %5;"
                         "%{vex%} vpdpbusd %12, %13, %6; %{vex%} vpdpbusd %12, %13, %7; %{vex%} vpdpbusd %12, %13, %8;"
                         "%{vex%} vpdpbusd %12, %13, %9; %{vex%} vpdpbusd %12, %13, %10; %{vex%} vpdpbusd %12, %13, %11"
                         : "+x"(a), "+x"(b), "+x"(c), "+x"(d), "+x"(e), "+x"(f), "+x"(g), "+x"(h), "+x"(i), "+x"(j),
                           "+x"(k), "+x"(l)
                         : "x"(w), "x"(v));
    }
    a = _mm256_add_epi32(_mm256_add_epi32(_mm256_add_epi32(a, b), _mm256_add_epi32(c, d)), _mm256_add_epi32(e, f));
    g = _mm256_add_epi32(_mm256_add_epi32(_mm256_add_epi32(g, h), _mm256_add_epi32(i, j)), _mm256_add_epi32(k, l));
    return (f64)_mm256_extract_epi32(_mm256_add_epi32(a, g), 0);
}

static bool is(const char *tier, const char *name) { return strcmp(tier, name) == 0; }

f64 machine_dot(const char *tier, u32 n) {
    return is(tier, "avx512") ? dot_avx512(n) : is(tier, "avxvnni") ? dot_avxvnni(n) : is(tier, "avx2") ? dot_avx2(n) : 0;
}

f64 machine_dot_ops(const char *tier, u32 n) {
    return is(tier, "ref") ? 0 : 2.0 * (is(tier, "avx512") ? 64 : 32) * CHAINS * n;
}

/* vfmadd on 16 or 8 floats. */
#define FMA(x) "vfmadd231ps %12, %13, %" x ";"
#define FMAS FMA("0") FMA("1") FMA("2") FMA("3") FMA("4") FMA("5") FMA("6") FMA("7") FMA("8") FMA("9") FMA("10") FMA("11")

__attribute__((target("avx512f"))) static f64 fma_avx512(u32 n) {
    __m512 w = _mm512_set1_ps(0.5f), v = _mm512_set1_ps(0.25f);
    __m512 a = w, b = w, c = w, d = w, e = w, f = w, g = w, h = w, i = w, j = w, k = w, l = w;
    for (u32 at = 0; at < n; at++)
        __asm__ volatile(FMAS
                         : "+v"(a), "+v"(b), "+v"(c), "+v"(d), "+v"(e), "+v"(f), "+v"(g), "+v"(h), "+v"(i), "+v"(j),
                           "+v"(k), "+v"(l)
                         : "v"(w), "v"(v));
    a = a + b + c + d + e + f + g + h + i + j + k + l;
    return (f64)_mm512_reduce_add_ps(a);
}

__attribute__((target("avx2,fma"))) static f64 fma_avx2(u32 n) {
    __m256 w = _mm256_set1_ps(0.5f), v = _mm256_set1_ps(0.25f);
    __m256 a = w, b = w, c = w, d = w, e = w, f = w, g = w, h = w, i = w, j = w, k = w, l = w;
    for (u32 at = 0; at < n; at++)
        __asm__ volatile(FMAS
                         : "+x"(a), "+x"(b), "+x"(c), "+x"(d), "+x"(e), "+x"(f), "+x"(g), "+x"(h), "+x"(i), "+x"(j),
                           "+x"(k), "+x"(l)
                         : "x"(w), "x"(v));
    a = a + b + c + d + e + f + g + h + i + j + k + l;
    return (f64)_mm256_cvtss_f32(a);
}

f64 machine_fma(const char *tier, u32 n) {
    return is(tier, "avx512") ? fma_avx512(n) : is(tier, "avx2") || is(tier, "avxvnni") ? fma_avx2(n) : 0;
}

f64 machine_fma_ops(const char *tier, u32 n) {
    return is(tier, "avx512") ? 2.0 * 16 * CHAINS * n : is(tier, "avx2") || is(tier, "avxvnni") ? 2.0 * 8 * CHAINS * n : 0;
}

__attribute__((target("avx512f"))) static f64 read_avx512(const u8 *p, size_t n) {
    __m512i a = _mm512_setzero_si512(), b = a, c = a, d = a;
    for (size_t i = 0; i + 256 <= n; i += 256) {
        a = _mm512_xor_si512(a, _mm512_loadu_si512(p + i));
        b = _mm512_xor_si512(b, _mm512_loadu_si512(p + i + 64));
        c = _mm512_xor_si512(c, _mm512_loadu_si512(p + i + 128));
        d = _mm512_xor_si512(d, _mm512_loadu_si512(p + i + 192));
    }
    return (f64)_mm512_reduce_or_epi32(_mm512_or_si512(_mm512_or_si512(a, b), _mm512_or_si512(c, d)));
}

__attribute__((target("avx2"))) static f64 read_avx2(const u8 *p, size_t n) {
    __m256i a = _mm256_setzero_si256(), b = a, c = a, d = a;
    for (size_t i = 0; i + 128 <= n; i += 128) {
        a = _mm256_xor_si256(a, _mm256_loadu_si256((const __m256i *)(const void *)(p + i)));
        b = _mm256_xor_si256(b, _mm256_loadu_si256((const __m256i *)(const void *)(p + i + 32)));
        c = _mm256_xor_si256(c, _mm256_loadu_si256((const __m256i *)(const void *)(p + i + 64)));
        d = _mm256_xor_si256(d, _mm256_loadu_si256((const __m256i *)(const void *)(p + i + 96)));
    }
    return (f64)_mm256_extract_epi32(_mm256_xor_si256(_mm256_xor_si256(a, b), _mm256_xor_si256(c, d)), 0);
}

static f64 read_any(const u8 *p, size_t n) {
    u64 s[8] = {0};
    for (size_t i = 0; i + 64 <= n; i += 64)
        for (u32 j = 0; j < 8; j++)
            s[j] += load_u64(p + i + 8 * j);
    return (f64)(s[0] + s[1] + s[2] + s[3] + s[4] + s[5] + s[6] + s[7]);
}

f64 machine_read(const char *tier, const u8 *p, size_t n) {
    return is(tier, "avx512") ? read_avx512(p, n) : is(tier, "ref") ? read_any(p, n) : read_avx2(p, n);
}
