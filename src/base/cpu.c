/* cpu.c - CPUID with the register state check, affinity, cgroup quota and memory. */
#include "base/cpu.h"

#include "base/str.h"

#include <cpuid.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

u32 cpu_features(void) {
    u32 a, b, c, d, found = 0;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE) || !(c & bit_AVX))
        return 0;
    bool fma = c & bit_FMA, f16c = c & bit_F16C;
    u32 xcr0, xcr0_high;
    __asm__ volatile("xgetbv" : "=a"(xcr0), "=d"(xcr0_high) : "c"(0));
    bool ymm = (xcr0 & 0x06) == 0x06, zmm = (xcr0 & 0xe6) == 0xe6;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d))
        return 0;
    if (ymm && fma && f16c && (b & bit_AVX2) && (b & bit_BMI2))
        found |= CPU_AVX2;
    bool avx512 = (b & bit_AVX512F) && (b & bit_AVX512BW) && (b & bit_AVX512DQ) && (b & bit_AVX512VL) &&
                  (c & bit_AVX512VBMI) && (c & bit_AVX512VBMI2) && (c & bit_AVX512VNNI);
    if (zmm && avx512 && (found & CPU_AVX2))
        found |= CPU_AVX512;
    u32 sub = a;
    if (sub >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d)) {
        if ((a & (1u << 5)) && (found & CPU_AVX512))
            found |= CPU_BF16;
        if ((a & (1u << 4)) && (found & CPU_AVX2))
            found |= CPU_AVXVNNI;
    }
    return found;
}

/* First line of a small file in out (NUL-terminated); false if it cannot be read. */
static bool read_small(const char *path, char *out, size_t cap) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    ssize_t n = read(fd, out, cap - 1);
    close(fd);
    if (n < 0)
        return false;
    out[n] = 0;
    return true;
}

/* Folder of this process's cgroup below its mount, "" for the root. controller NULL = v2. */
static void cgroup_folder(const char *controller, char *out, size_t cap) {
    char text[4096];
    out[0] = 0;
    if (!read_small("/proc/self/cgroup", text, sizeof text))
        return;
    for (char *line = text, *next; line && *line; line = next) {
        next = strchr(line, '\n');
        if (next)
            *next++ = 0;
        char *names = strchr(line, ':'), *path = names ? strchr(names + 1, ':') : NULL;
        if (!path)
            continue;
        *path++ = 0;
        bool match = controller ? strstr(names + 1, controller) != NULL : names[1] == 0;
        if (match && strcmp(path, "/") != 0)
            snprintf(out, cap, "%s", path);
    }
}

/* Reads file of the cgroup; where the namespace hides the own folder, the mount's root is it. */
static bool cgroup_read(const char *mount, const char *controller, const char *file, char *out, size_t cap) {
    char folder[2048], path[4096];
    cgroup_folder(controller, folder, sizeof folder);
    snprintf(path, sizeof path, "%s%s/%s", mount, folder, file);
    if (read_small(path, out, cap))
        return true;
    snprintf(path, sizeof path, "%s/%s", mount, file);
    return read_small(path, out, cap);
}

static u32 cgroup_quota_cpus(void) {
    char text[128];
    double quota = -1, period = 0;
    if (cgroup_read("/sys/fs/cgroup", NULL, "cpu.max", text, sizeof text)) {
        if (sscanf(text, "%lf %lf", &quota, &period) != 2)
            return UINT32_MAX; /* "max" */
    } else if (cgroup_read("/sys/fs/cgroup/cpu", "cpu", "cpu.cfs_quota_us", text, sizeof text)) {
        quota = atof(text);
        if (cgroup_read("/sys/fs/cgroup/cpu", "cpu", "cpu.cfs_period_us", text, sizeof text))
            period = atof(text);
    }
    if (quota <= 0 || period <= 0)
        return UINT32_MAX;
    double cpus = quota / period;
    return cpus < 1 ? 1 : (u32)(cpus + 0.999);
}

u32 cpu_count_usable(void) {
    cpu_set_t set;
    u32 n = 1;
    if (sched_getaffinity(0, sizeof set, &set) == 0)
        n = (u32)CPU_COUNT(&set);
    return MAX(1u, MIN(n, cgroup_quota_cpus()));
}

static u64 cgroup_memory_limit(void) {
    char text[128];
    u64 limit;
    if (!cgroup_read("/sys/fs/cgroup", NULL, "memory.max", text, sizeof text) &&
        !cgroup_read("/sys/fs/cgroup/memory", "memory", "memory.limit_in_bytes", text, sizeof text))
        return UINT64_MAX;
    return str_to_u64(str_trim(str_of(text)), &limit) ? limit : UINT64_MAX;
}

u64 memory_usable_bytes(void) {
    char text[4096];
    u64 available = UINT64_MAX;
    if (read_small("/proc/meminfo", text, sizeof text)) {
        const char *line = strstr(text, "MemAvailable:");
        unsigned long long kib;
        if (line && sscanf(line, "MemAvailable: %llu kB", &kib) == 1)
            available = (u64)kib * 1024;
    }
    return MIN(available, cgroup_memory_limit());
}

u64 memory_resident_bytes(u64 *file_bytes) {
    char text[256];
    unsigned long long size, resident, shared;
    u64 page = (u64)sysconf(_SC_PAGESIZE);
    *file_bytes = 0;
    if (!read_small("/proc/self/statm", text, sizeof text) ||
        sscanf(text, "%llu %llu %llu", &size, &resident, &shared) != 3)
        return 0;
    *file_bytes = shared * page;
    return resident * page;
}
