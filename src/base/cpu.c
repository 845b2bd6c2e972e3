/* cpu.c - CPUID with the register state check, affinity, cgroup quota and memory. */
#include "base/cpu.h"

#include "base/str.h"

#include <cpuid.h>
#include <fcntl.h>
#include <math.h>
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

/* The text of a small file in out (NUL-terminated); false if it cannot be read. */
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

/* --- cgroups --- */

/* Version 2 has one tree, version 1 one per controller. */
struct cgroup {
    const char *root, *mount;
    const char *controller; /* NULL = version 2 */
    char folder[2048];      /* of this process, below the mount; "" = the mount itself */
};

/* Whether the list of a line ("4:cpu,cpuacct:/a", "0::/a") names the controller. */
static bool is_of(const char *list, const char *controller) {
    size_t n = controller ? strlen(controller) : 0;
    if (!controller)
        return list[0] == 0;
    for (const char *at = list; at; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL)
        if (strncmp(at, controller, n) == 0 && (at[n] == ',' || at[n] == 0))
            return true;
    return false;
}

static void cgroup_find(struct cgroup *g, const char *root, const char *mount, const char *controller) {
    char path[4096], text[4096];
    *g = (struct cgroup){root, mount, controller, ""};
    snprintf(path, sizeof path, "%s/proc/self/cgroup", root);
    if (!read_small(path, text, sizeof text))
        return;
    for (char *line = text, *next; line && *line; line = next) {
        next = strchr(line, '\n');
        if (next)
            *next++ = 0;
        char *names = strchr(line, ':'), *folder = names ? strchr(names + 1, ':') : NULL;
        if (!folder)
            continue;
        *folder++ = 0;
        if (is_of(names + 1, controller) && strcmp(folder, "/") != 0)
            snprintf(g->folder, sizeof g->folder, "%s", folder);
    }
}

/* Reads a file of the group, then of each one above it; false at the end. A namespace may hide the lower
 * ones: what cannot be read is passed over. */
static bool cgroup_next(struct cgroup *g, bool *started, const char *file, char *out, size_t cap) {
    char path[8192];
    for (;;) {
        if (*started) {
            char *slash = strrchr(g->folder, '/');
            if (!slash)
                return false;
            *slash = 0;
        }
        *started = true;
        snprintf(path, sizeof path, "%s%s%s/%s", g->root, g->mount, g->folder, file);
        if (read_small(path, out, cap))
            return true;
    }
}

static f64 quota_v2(const char *root) {
    struct cgroup g;
    char text[128];
    bool started = false;
    f64 least = INFINITY, quota, period;
    cgroup_find(&g, root, "/sys/fs/cgroup", NULL);
    while (cgroup_next(&g, &started, "cpu.max", text, sizeof text))
        if (sscanf(text, "%lf %lf", &quota, &period) == 2 && quota > 0 && period > 0) /* else "max" */
            least = MIN(least, quota / period);
    return least;
}

static f64 quota_v1(const char *root) {
    struct cgroup g;
    char text[128], path[8192];
    bool started = false;
    f64 least = INFINITY;
    cgroup_find(&g, root, "/sys/fs/cgroup/cpu", "cpu");
    while (cgroup_next(&g, &started, "cpu.cfs_quota_us", text, sizeof text)) {
        f64 quota = atof(text); /* -1 = none */
        snprintf(path, sizeof path, "%s%s%s/cpu.cfs_period_us", root, g.mount, g.folder);
        f64 period = read_small(path, text, sizeof text) ? atof(text) : 0;
        if (quota > 0 && period > 0)
            least = MIN(least, quota / period);
    }
    return least;
}

f64 cgroup_cpus(const char *root) { return MIN(quota_v2(root), quota_v1(root)); }

static u64 least_bytes(const char *root, const char *mount, const char *controller, const char *file) {
    struct cgroup g;
    char text[128];
    bool started = false;
    u64 least = UINT64_MAX, bytes;
    cgroup_find(&g, root, mount, controller);
    while (cgroup_next(&g, &started, file, text, sizeof text))
        if (str_to_u64(str_trim(str_of(text)), &bytes)) /* else "max" */
            least = MIN(least, bytes);
    return least;
}

u64 cgroup_memory_bytes(const char *root) {
    u64 v2 = MIN(least_bytes(root, "/sys/fs/cgroup", NULL, "memory.max"),
                 least_bytes(root, "/sys/fs/cgroup", NULL, "memory.high"));
    return MIN(v2, least_bytes(root, "/sys/fs/cgroup/memory", "memory", "memory.limit_in_bytes"));
}

/* --- this process --- */

u32 cpu_count_usable(void) {
    cpu_set_t set;
    u32 n = 1;
    if (sched_getaffinity(0, sizeof set, &set) == 0)
        n = (u32)CPU_COUNT(&set);
    f64 quota = cgroup_cpus("");
    return quota < n ? MAX(1u, (u32)ceil(quota)) : MAX(1u, n);
}

u64 memory_available_bytes(void) {
    char text[4096];
    unsigned long long kib;
    if (!read_small("/proc/meminfo", text, sizeof text))
        return UINT64_MAX;
    const char *line = strstr(text, "MemAvailable:");
    return line && sscanf(line, "MemAvailable: %llu kB", &kib) == 1 ? (u64)kib * 1024 : UINT64_MAX;
}

u64 memory_usable_bytes(void) { return MIN(memory_available_bytes(), cgroup_memory_bytes("")); }

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
