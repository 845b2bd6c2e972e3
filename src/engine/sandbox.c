/* sandbox.c - Landlock by raw system calls (the C library has no wrappers, old headers lack constants) and
 * a seccomp allow list. */
#include "engine/sandbox.h"

#include <errno.h>
#include <linux/landlock.h>
#include <sched.h>
#include <seccomp.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

/* All file system rights of Landlock ABI 1 and those added since; masked by what the kernel reports. */
#define LANDLOCK_FS_ABI1 ((1ull << 13) - 1)
#define LANDLOCK_FS_REFER (1ull << 13)
#define LANDLOCK_FS_TRUNCATE (1ull << 14)
#define LANDLOCK_FS_IOCTL_DEV (1ull << 15)

/* A kernel without Landlock is no error: seccomp denies opening as well. */
static enum status landlock_enter(struct err *err) {
    long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
    if (abi < 1)
        return OK;
    struct {
        u64 handled_access_fs;
    } attr = {LANDLOCK_FS_ABI1};
    attr.handled_access_fs |= abi >= 2 ? LANDLOCK_FS_REFER : 0;
    attr.handled_access_fs |= abi >= 3 ? LANDLOCK_FS_TRUNCATE : 0;
    attr.handled_access_fs |= abi >= 5 ? LANDLOCK_FS_IOCTL_DEV : 0;
    int fd = (int)syscall(SYS_landlock_create_ruleset, &attr, sizeof attr, 0);
    if (fd < 0)
        return err_errno(err, ERR_IO, "cannot create the Landlock rules");
    long failed = syscall(SYS_landlock_restrict_self, fd, 0);
    close(fd);
    return failed ? err_errno(err, ERR_IO, "cannot enter Landlock") : OK;
}

/* What the engine does after start: the socket, memory, threads, waiting, the clock, ending. */
static const int allowed[] = {
    SCMP_SYS(read),           SCMP_SYS(write),
    SCMP_SYS(readv),          SCMP_SYS(writev),
    SCMP_SYS(recvmsg),        SCMP_SYS(sendmsg),
    SCMP_SYS(pipe2),          SCMP_SYS(poll),
    SCMP_SYS(ppoll),          SCMP_SYS(fcntl),
    SCMP_SYS(close),          SCMP_SYS(fstat),
    SCMP_SYS(newfstatat),     SCMP_SYS(lseek),
    SCMP_SYS(munmap),         SCMP_SYS(madvise),
    SCMP_SYS(mremap),         SCMP_SYS(brk),
    SCMP_SYS(mincore),        SCMP_SYS(futex),
    SCMP_SYS(sched_yield),    SCMP_SYS(sched_getaffinity),
    SCMP_SYS(clock_gettime),  SCMP_SYS(clock_nanosleep),
    SCMP_SYS(nanosleep),      SCMP_SYS(gettimeofday),
    SCMP_SYS(getpid),         SCMP_SYS(gettid),
    SCMP_SYS(getrandom),      SCMP_SYS(rt_sigaction),
    SCMP_SYS(rt_sigprocmask), SCMP_SYS(rt_sigreturn),
    SCMP_SYS(sigaltstack),    SCMP_SYS(set_robust_list),
    SCMP_SYS(rseq),           SCMP_SYS(restart_syscall),
    SCMP_SYS(tgkill),         SCMP_SYS(exit),
    SCMP_SYS(exit_group),     SCMP_SYS(sysinfo),
    SCMP_SYS(getrusage),      SCMP_SYS(membarrier),
};

static int add_rules(scmp_filter_ctx filter) {
    int failed = 0;
    for (size_t i = 0; i < ARRAY_LEN(allowed); i++)
        failed |= seccomp_rule_add(filter, SCMP_ACT_ALLOW, allowed[i], 0);
    /* Threads share the address space; anything else would be a new process. glibc tries clone3 first and
     * falls back to clone, whose flags a filter can see, when it is told that clone3 does not exist. */
    failed |= seccomp_rule_add(filter, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);
    failed |= seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(clone), 1,
                               SCMP_A0(SCMP_CMP_MASKED_EQ, CLONE_VM | CLONE_THREAD, CLONE_VM | CLONE_THREAD));
    /* Executable only if anonymous: a mapped file can not become code. */
    failed |= seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(mmap), 1,
                               SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
    failed |= seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(mmap), 2,
                               SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, PROT_EXEC),
                               SCMP_A3(SCMP_CMP_MASKED_EQ, MAP_ANONYMOUS, MAP_ANONYMOUS));
    failed |= seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(mprotect), 1,
                               SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
    failed |= seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(prctl), 1, SCMP_A0(SCMP_CMP_EQ, PR_SET_NAME));
    /* PR_SET_VMA names anonymous memory; glibc and sanitizers use it, it touches nothing else. */
    failed |= seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(prctl), 1, SCMP_A0(SCMP_CMP_EQ, 0x53564d41));
    return failed;
}

enum status sandbox_enter(struct err *err) {
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        return err_errno(err, ERR_IO, "cannot give up new privileges");
    TRY(landlock_enter(err));
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ERRNO(EPERM));
    if (!filter)
        return err_set(err, ERR_NO_MEMORY, "no memory for the system call filter");
    int failed = add_rules(filter);
    if (!failed)
        failed = seccomp_load(filter);
    seccomp_release(filter);
    if (failed)
        return err_set(err, ERR_UNSUPPORTED, "cannot load the system call filter: %s",
                       strerror(failed < 0 ? -failed : failed));
    return OK;
}
