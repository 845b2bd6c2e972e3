/* kern_test.h - what the kernel tests share: random numbers, memory with guards, comparison bit by bit, and
 * the tiers that this processor runs. */
#ifndef MINKA_KERN_TEST_H
#define MINKA_KERN_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/cpu.h"
#include "kern/kern.h"

/* xorshift64*; equal seeds give equal tests everywhere. */
static inline u64 rng_next(u64 *state) {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * 0x2545f4914f6cdd1dull;
}
static inline u32 rng_below(u64 *state, u32 n) { return (u32)((rng_next(state) >> 32) * n >> 32); }
static inline f32 rng_f32(u64 *state, f32 low, f32 high) {
    return low + (high - low) * (f32)(rng_next(state) >> 40) * 0x1p-24f;
}
static inline void rng_fill(u64 *state, f32 *x, size_t n, f32 low, f32 high) {
    for (size_t i = 0; i < n; i++)
        x[i] = rng_f32(state, low, high);
}

/* Memory between two guards, filled with a pattern that is NaN as float and as half. Starts 64-byte aligned
 * plus `off` bytes. */
#define GUARD_BYTES 256u
#define GUARD_PATTERN 0xff
static inline void *guard_alloc(size_t n, size_t off) {
    size_t all = 64 + GUARD_BYTES + off + n + GUARD_BYTES;
    u8 *raw = aligned_alloc(64, ALIGN_UP(all, 64));
    assert_non_null(raw);
    memset(raw, GUARD_PATTERN, ALIGN_UP(all, 64));
    size_t start = 64 + GUARD_BYTES + off;
    memcpy(raw, &start, sizeof start);
    memcpy(raw + sizeof start, &n, sizeof n);
    memcpy(raw + start - 32, &raw, sizeof raw); /* found again by guard_free */
    return raw + start;
}
/* Fails the test if something was written around the memory. */
static inline void guard_free(void *p) {
    u8 *raw;
    size_t start, n;
    memcpy(&raw, (u8 *)p - 32, sizeof raw);
    memcpy(&start, raw, sizeof start);
    memcpy(&n, raw + sizeof start, sizeof n);
    for (size_t i = 64; i < start - 32; i++)
        assert_int_equal(raw[i], GUARD_PATTERN);
    for (size_t i = start - 24; i < start; i++)
        assert_int_equal(raw[i], GUARD_PATTERN);
    for (size_t i = start + n; i < start + n + GUARD_BYTES; i++)
        assert_int_equal(raw[i], GUARD_PATTERN);
    free(raw);
}

/* A NaN whose low bits are not zero: arithmetic on the bits of floats must not make a number of it. */
static inline f32 nan_with(u32 payload) {
    u32 bits = 0x7fc00000u | payload;
    f32 v;
    memcpy(&v, &bits, sizeof v);
    return v;
}

/* Same bits, or both NaN (which NaN is nobody's business). */
static inline bool f32_same(f32 a, f32 b) { return memcmp(&a, &b, sizeof a) == 0 || (a != a && b != b); }
static inline bool f64_same(f64 a, f64 b) { return memcmp(&a, &b, sizeof a) == 0 || (a != a && b != b); }
static inline void assert_same(const char *what, const f32 *got, const f32 *want, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (!f32_same(got[i], want[i]))
            fail_msg("%s: [%zu] is %a, should be %a", what, i, (f64)got[i], (f64)want[i]);
}

/* The tiers to hold against kern_ref; missing ones are named. */
static inline u32 tiers_here(const struct kern *out[2]) {
    u32 n = 0, has = cpu_features();
    if (has & CPU_AVX2)
        out[n++] = &kern_avx2;
    else
        printf("# SKIPPED: this processor has no AVX2, those kernels are not tested\n");
    if (has & CPU_AVX512)
        out[n++] = &kern_avx512;
    else
        printf("# SKIPPED: this processor has no AVX-512, those kernels are not tested\n");
    return n;
}

#endif
