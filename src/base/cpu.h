/* cpu.h - what this machine offers: instruction sets, usable processors, memory. Read once by whoever
 * starts; the sandboxed engine gets the figures that change (quota, memory) from the server. */
#ifndef MINKA_CPU_H
#define MINKA_CPU_H

#include "base/base.h"

enum cpu_feature {
    CPU_AVX2 = 1 << 0,   /* AVX2 + FMA + F16C + BMI2, registers saved by the system */
    CPU_AVX512 = 1 << 1, /* F, BW, DQ, VL, VBMI, VNNI, registers saved by the system */
    CPU_BF16 = 1 << 2,   /* AVX512_BF16 */
    CPU_AVXVNNI = 1 << 3 /* 256-bit VNNI without AVX-512 */
};

/* Bits of enum cpu_feature. */
u32 cpu_features(void);
/* Processors this process may use at once: the affinity mask, cut to the cgroup's CPU quota (v2 or
 * v1) rounded up; at least 1. */
u32 cpu_count_usable(void);
/* Bytes this process may use: the smaller of the cgroup's limit and the memory available. */
u64 memory_usable_bytes(void);
/* What the system reports as available: it falls as this process and others take memory. UINT64_MAX = unknown. */
u64 memory_available_bytes(void);
/* Limits of the process's cgroup and those above it, v2 (memory.max, memory.high; cpu.max) or v1, whatever is
 * mounted; UINT64_MAX and INFINITY without one. root: "" (tests: a folder that holds proc/ and sys/). */
u64 cgroup_memory_bytes(const char *root);
f64 cgroup_cpus(const char *root);
/* Resident bytes of this process, and the part of them that is file mappings. 0 if unknown. */
u64 memory_resident_bytes(u64 *file_bytes);

#endif
