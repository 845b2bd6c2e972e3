/* Goal: the limits of cgroups are read from both versions, from the process's own group and from those above
 * it. Method: trees of files as the kernel shows them, below a folder of our own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "base/cpu.h"

static char root[64];

static int root_make(void **state) {
    (void)state;
    snprintf(root, sizeof root, "/tmp/minka-cgroup-XXXXXX");
    return mkdtemp(root) ? 0 : -1;
}

static int root_drop(void **state) {
    char command[128];
    (void)state;
    snprintf(command, sizeof command, "rm -r '%s'", root);
    return system(command);
}

/* Writes a file below the root with the folders that it needs. */
static void put(const char *name, const char *text) {
    char path[512];
    snprintf(path, sizeof path, "%s%s", root, name);
    for (char *slash = path + strlen(root) + 1; (slash = strchr(slash, '/')); slash++) {
        *slash = 0;
        mkdir(path, 0700);
        *slash = '/';
    }
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static void test_nothing(void **state) {
    (void)state;
    assert_true(cgroup_memory_bytes(root) == UINT64_MAX);
    assert_true(isinf(cgroup_cpus(root)));
    put("/proc/self/cgroup", "garbage\n:\n::\n0:\n");
    assert_true(cgroup_memory_bytes(root) == UINT64_MAX);
}

static void test_v2(void **state) {
    (void)state;
    put("/proc/self/cgroup", "0::/system.slice/minka.service\n");
    put("/sys/fs/cgroup/system.slice/minka.service/memory.max", "max\n");
    put("/sys/fs/cgroup/system.slice/minka.service/memory.high", "max\n");
    put("/sys/fs/cgroup/system.slice/minka.service/cpu.max", "max 100000\n");
    assert_true(cgroup_memory_bytes(root) == UINT64_MAX);
    assert_true(isinf(cgroup_cpus(root)));
    put("/sys/fs/cgroup/system.slice/minka.service/memory.max", "8589934592\n");
    put("/sys/fs/cgroup/system.slice/minka.service/cpu.max", "250000 100000\n");
    assert_true(cgroup_memory_bytes(root) == 8ull << 30);
    assert_true(cgroup_cpus(root) == 2.5);
    put("/sys/fs/cgroup/system.slice/minka.service/memory.high", "4294967296\n");
    assert_true(cgroup_memory_bytes(root) == 4ull << 30);
    put("/sys/fs/cgroup/system.slice/memory.max", "1073741824\n"); /* of the slice above */
    put("/sys/fs/cgroup/system.slice/cpu.max", "50000 100000\n");
    assert_true(cgroup_memory_bytes(root) == 1ull << 30);
    assert_true(cgroup_cpus(root) == 0.5);
}

/* In a container the mount shows the own group as its root, whatever /proc says. */
static void test_namespace(void **state) {
    (void)state;
    put("/proc/self/cgroup", "0::/../../docker/0123456789abcdef\n");
    put("/sys/fs/cgroup/memory.max", "536870912\n");
    put("/sys/fs/cgroup/cpu.max", "100000 100000\n");
    assert_true(cgroup_memory_bytes(root) == 512ull << 20);
    assert_true(cgroup_cpus(root) == 1.0);
    put("/proc/self/cgroup", "0::/\n");
    assert_true(cgroup_memory_bytes(root) == 512ull << 20);
}

static void test_v1(void **state) {
    (void)state;
    put("/proc/self/cgroup", "9:name=systemd:/x\n5:cpuset:/wrong\n4:memory:/a/b\n3:cpuacct,cpu:/c\n0::/\n");
    put("/sys/fs/cgroup/memory/a/b/memory.limit_in_bytes", "9223372036854771712\n"); /* the kernel's "none" */
    assert_true(cgroup_memory_bytes(root) == 9223372036854771712ull);
    put("/sys/fs/cgroup/memory/a/b/memory.limit_in_bytes", "2147483648\n");
    put("/sys/fs/cgroup/memory/wrong/memory.limit_in_bytes", "1\n");
    assert_true(cgroup_memory_bytes(root) == 2ull << 30);
    put("/sys/fs/cgroup/memory/a/memory.limit_in_bytes", "1073741824\n");
    assert_true(cgroup_memory_bytes(root) == 1ull << 30);
    put("/sys/fs/cgroup/cpu/c/cpu.cfs_quota_us", "-1\n");
    put("/sys/fs/cgroup/cpu/c/cpu.cfs_period_us", "100000\n");
    assert_true(isinf(cgroup_cpus(root)));
    put("/sys/fs/cgroup/cpu/c/cpu.cfs_quota_us", "150000\n");
    assert_true(cgroup_cpus(root) == 1.5);
}

/* Goal: what is read of this very machine is plausible. */
static void test_this_machine(void **state) {
    (void)state;
    assert_true(cpu_count_usable() >= 1);
    assert_true(memory_usable_bytes() > 1 << 20 && memory_usable_bytes() <= memory_available_bytes());
    u64 files, resident = memory_resident_bytes(&files);
    assert_true(resident > 0 && files <= resident);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_nothing, root_make, root_drop),
        cmocka_unit_test_setup_teardown(test_v2, root_make, root_drop),
        cmocka_unit_test_setup_teardown(test_namespace, root_make, root_drop),
        cmocka_unit_test_setup_teardown(test_v1, root_make, root_drop),
        cmocka_unit_test(test_this_machine),
    };
    return cmocka_run_group_tests_name("base_cpu", tests, NULL, NULL);
}
