/* Goal: inside the sandbox nothing can be opened, made, run or reached, and what the engine needs still
 * works. Method: each case runs in a child process that enters the sandbox and tries one call; its exit code
 * tells. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "base/mapping.h"
#include "engine/sandbox.h"

enum { DENIED = 0, ALLOWED = 1, NO_SANDBOX = 2 };

static int given_fd = -1, given_socket = -1; /* opened before */

static int tried(long result) {
    return result >= 0 ? ALLOWED : errno == EPERM || errno == EACCES ? DENIED : 3;
}

static int try_open(void) { return tried(open("/etc/passwd", O_RDONLY)); }
static int try_create(void) { return tried(open("/tmp/minka-sandbox-test", O_CREAT | O_WRONLY, 0600)); }
static int try_openat2(void) {
    return tried(syscall(SYS_openat2, AT_FDCWD, "/etc/passwd",
                         "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 24));
}
static int try_stat_readlink(void) {
    char b[8];
    return tried(readlink("/proc/self/exe", b, sizeof b));
}
static int try_socket_inet(void) { return tried(socket(AF_INET, SOCK_STREAM, 0)); }
static int try_socket_unix(void) { return tried(socket(AF_UNIX, SOCK_STREAM, 0)); }
static int try_fork(void) { return tried(syscall(SYS_fork)); }
static int try_vfork(void) { return tried(syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0)); }
static int try_exec(void) { return tried(execl("/bin/true", "true", NULL)); }
static int try_kill(void) { return tried(kill(getppid(), 0)); }
static int try_ptrace(void) { return tried(ptrace(PTRACE_ATTACH, getppid(), NULL, NULL)); }
static int try_unlink(void) { return tried(unlink("/tmp/minka-no-such-file")); }
static int try_mkdir(void) { return tried(mkdir("/tmp/minka-no-such-folder", 0700)); }
static int try_mount(void) { return tried(syscall(SYS_mount, "none", "/", "tmpfs", 0, NULL)); }
static int try_bpf(void) { return tried(syscall(SYS_bpf, 0, NULL, 0)); }
static int try_io_uring(void) { return tried(syscall(SYS_io_uring_setup, 8, NULL)); }
static int try_open_by_handle(void) { return tried(syscall(SYS_open_by_handle_at, AT_FDCWD, NULL, 0)); }
static int try_memfd(void) { return tried(syscall(SYS_memfd_create, "x", 0)); }
static int try_connect(void) {
    struct sockaddr a = {.sa_family = AF_UNIX};
    return tried(connect(given_socket, &a, sizeof a));
}
static int try_sendto(void) {
    struct sockaddr a = {.sa_family = AF_UNIX};
    return tried(sendto(given_socket, "x", 1, 0, &a, sizeof a));
}
static int try_bind(void) {
    struct sockaddr a = {.sa_family = AF_UNIX};
    return tried(bind(given_socket, &a, sizeof a));
}
static int try_accept(void) { return tried(accept(given_socket, NULL, NULL)); }
static int try_socketpair(void) {
    int pair[2];
    return tried(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
}
static int try_clone_process(void) { return tried(syscall(SYS_clone, CLONE_VM | SIGCHLD, 0, 0, 0, 0)); }
/* The kernel's answer to a system call that does not exist, so that the C library falls back. */
static int try_clone3(void) {
    long result = syscall(SYS_clone3, NULL, 0);
    return result >= 0 ? ALLOWED : errno == ENOSYS ? DENIED : 3;
}
static int try_execveat(void) {
    return tried(syscall(SYS_execveat, given_fd, "", NULL, NULL, AT_EMPTY_PATH));
}
static int try_kill_self(void) { return tried(kill(getpid(), 0)); }
static int try_pidfd(void) { return tried(syscall(SYS_pidfd_open, getppid(), 0)); }
static int try_read_process(void) {
    char byte;
    struct iovec v = {&byte, 1};
    return tried(process_vm_readv(getppid(), &v, 1, &v, 1, 0));
}
static int try_write_process(void) {
    char byte = 0;
    struct iovec v = {&byte, 1};
    return tried(process_vm_writev(getppid(), &v, 1, &v, 1, 0));
}
static int try_trace_me(void) { return tried(ptrace(PTRACE_TRACEME, 0, NULL, NULL)); }
static int try_truncate(void) { return tried(truncate("/tmp/minka-no-such-file", 0)); }
static int try_ftruncate(void) { return tried(ftruncate(given_fd, 0)); }
static int try_rename(void) { return tried(rename("/tmp/minka-a", "/tmp/minka-b")); }
static int try_link(void) { return tried(link("/proc/self/exe", "/tmp/minka-b")); }
static int try_chmod(void) { return tried(chmod("/tmp/minka-no-such-file", 0)); }
static int try_fchmod(void) { return tried(fchmod(given_fd, 0777)); }
static int try_chdir(void) { return tried(chdir("/")); }
static int try_chroot(void) { return tried(chroot("/")); }
static int try_list(void) {
    char block[1024];
    return tried(syscall(SYS_getdents64, given_fd, block, sizeof block));
}
static int try_setuid(void) { return tried(setuid(0)); }
static int try_setrlimit(void) { return tried(setrlimit(RLIMIT_NOFILE, &(struct rlimit){1, 1})); }
static int try_unshare(void) { return tried(unshare(CLONE_NEWUSER)); }
static int try_setns(void) { return tried(setns(given_fd, 0)); }
static int try_keyctl(void) { return tried(syscall(SYS_keyctl, 0, 0, 0, 0, 0)); }
static int try_perf(void) { return tried(syscall(SYS_perf_event_open, NULL, 0, -1, -1, 0)); }
static int try_userfaultfd(void) { return tried(syscall(SYS_userfaultfd, 0)); }
static int try_seccomp(void) { return tried(syscall(SYS_seccomp, 0, 0, NULL)); }
static int try_dumpable(void) { return tried(prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)); }
static int try_ioctl(void) { return tried(ioctl(given_fd, TCGETS, NULL)); }
static int try_module(void) { return tried(syscall(SYS_init_module, NULL, 0, "")); }
static int try_reboot(void) { return tried(syscall(SYS_reboot, 0, 0, 0, NULL)); }
static int try_uname_set(void) { return tried(sethostname("x", 1)); }
static int try_clock_set(void) { return tried(clock_settime(CLOCK_REALTIME, &(struct timespec){0})); }
static int try_shm(void) { return tried(shmget(IPC_PRIVATE, 4096, IPC_CREAT | 0600)); }
static int try_exec_mprotect(void) {
    void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return tried(mprotect(p, 4096, PROT_READ | PROT_EXEC));
}
static int try_exec_file_map(void) {
    void *p = mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, given_fd, 0);
    return p == MAP_FAILED ? tried(-1) : ALLOWED;
}

static void *thread_main(void *arg) { return arg; }
static int use_thread(void) {
    pthread_t t;
    void *back = NULL;
    if (pthread_create(&t, NULL, thread_main, &back) || pthread_join(t, &back))
        return DENIED;
    return back == &back ? ALLOWED : DENIED;
}
static int use_given_file(void) {
    void *p = mmap(NULL, 4096, PROT_READ, MAP_SHARED, given_fd, 0);
    return p != MAP_FAILED && *(volatile u8 *)p == 0x7f ? ALLOWED : DENIED;
}
static int use_memory(void) {
    char *p = malloc(64u << 20);
    memset(p, 1, 64u << 20);
    free(p);
    void *jit = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return jit != MAP_FAILED ? ALLOWED : DENIED;
}
static int use_pipe_and_clock(void) {
    int ends[2];
    char byte = 0;
    struct timespec t = {0, 1000};
    if (pipe2(ends, O_CLOEXEC) || write(ends[1], "x", 1) != 1)
        return DENIED;
    struct pollfd p = {.fd = ends[0], .events = POLLIN};
    bool good = poll(&p, 1, 1000) == 1 && read(ends[0], &byte, 1) == 1 &&
                clock_gettime(CLOCK_MONOTONIC, &t) == 0 &&
                nanosleep(&(struct timespec){0, 1000}, NULL) == 0 && sched_yield() == 0;
    return good && close(ends[0]) == 0 ? ALLOWED : DENIED;
}
/* The handler of base/mapping.h: installed and used from inside. */
static int use_lost_file(void) {
    struct mapping m;
    struct err err;
    struct stat st;
    if (fstat(given_fd, &st) || mapping_open(given_fd, (u64)st.st_size + (1 << 20), &m, &err) != OK)
        return DENIED;
    u8 first = *(const volatile u8 *)m.data, last = ((const volatile u8 *)m.data)[m.bytes - 1];
    return first == 0x7f && last == 0 && mapping_lost(&m) ? ALLOWED : DENIED;
}
static void *open_in_thread(void *arg) {
    *(int *)arg = try_open();
    return NULL;
}
static int thread_cannot_open(void) {
    pthread_t t;
    int result = ALLOWED;
    if (pthread_create(&t, NULL, open_in_thread, &result) || pthread_join(t, NULL))
        return ALLOWED;
    return result;
}

/* As on a kernel that does not have it: seccomp alone must deny the same. */
static void hide_landlock(void) {
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);
    if (!filter || seccomp_rule_add(filter, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(landlock_create_ruleset), 0) ||
        seccomp_load(filter))
        _exit(NO_SANDBOX);
    seccomp_release(filter);
}

static int in_sandbox(int (*call)(void), bool landlock) {
    int status;
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        struct err err;
        given_fd = open("/proc/self/exe", O_RDONLY);
        given_socket = socket(AF_UNIX, SOCK_DGRAM, 0);
        if (!landlock)
            hide_landlock();
        if (sandbox_enter(&err) != OK)
            _exit(NO_SANDBOX);
        _exit(call());
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void test_denied(void **state) {
    (void)state;
    static const struct {
        const char *name;
        int (*call)(void);
    } cases[] = {{"open", try_open},
                 {"create", try_create},
                 {"openat2", try_openat2},
                 {"readlink", try_stat_readlink},
                 {"socket inet", try_socket_inet},
                 {"socket unix", try_socket_unix},
                 {"fork", try_fork},
                 {"clone", try_vfork},
                 {"exec", try_exec},
                 {"kill", try_kill},
                 {"ptrace", try_ptrace},
                 {"unlink", try_unlink},
                 {"mkdir", try_mkdir},
                 {"mount", try_mount},
                 {"bpf", try_bpf},
                 {"io_uring", try_io_uring},
                 {"mprotect exec", try_exec_mprotect},
                 {"map file exec", try_exec_file_map},
                 {"open in a thread", thread_cannot_open},
                 {"open by handle", try_open_by_handle},
                 {"memfd", try_memfd},
                 {"connect", try_connect},
                 {"sendto", try_sendto},
                 {"bind", try_bind},
                 {"accept", try_accept},
                 {"socketpair", try_socketpair},
                 {"clone of a process", try_clone_process},
                 {"clone3", try_clone3},
                 {"execveat", try_execveat},
                 {"kill itself", try_kill_self},
                 {"pidfd", try_pidfd},
                 {"read a process", try_read_process},
                 {"write a process", try_write_process},
                 {"trace me", try_trace_me},
                 {"truncate", try_truncate},
                 {"ftruncate", try_ftruncate},
                 {"rename", try_rename},
                 {"link", try_link},
                 {"chmod", try_chmod},
                 {"fchmod", try_fchmod},
                 {"chdir", try_chdir},
                 {"chroot", try_chroot},
                 {"list", try_list},
                 {"setuid", try_setuid},
                 {"setrlimit", try_setrlimit},
                 {"unshare", try_unshare},
                 {"setns", try_setns},
                 {"keyctl", try_keyctl},
                 {"perf", try_perf},
                 {"userfaultfd", try_userfaultfd},
                 {"seccomp", try_seccomp},
                 {"dumpable", try_dumpable},
                 {"ioctl", try_ioctl},
                 {"module", try_module},
                 {"reboot", try_reboot},
                 {"hostname", try_uname_set},
                 {"clock", try_clock_set},
                 {"shared memory", try_shm}};
    for (size_t i = 0; i < 2 * ARRAY_LEN(cases); i++) {
        bool landlock = i % 2;
        int got = in_sandbox(cases[i / 2].call, landlock);
        if (got != DENIED)
            print_error("%s is not denied (%d) with landlock=%d\n", cases[i / 2].name, got, landlock);
        assert_int_equal(got, DENIED);
    }
}

static void test_allowed(void **state) {
    (void)state;
    for (int landlock = 0; landlock < 2; landlock++) {
        assert_int_equal(in_sandbox(use_thread, landlock), ALLOWED);
        assert_int_equal(in_sandbox(use_given_file, landlock), ALLOWED);
        assert_int_equal(in_sandbox(use_memory, landlock), ALLOWED);
        assert_int_equal(in_sandbox(use_pipe_and_clock, landlock), ALLOWED);
        assert_int_equal(in_sandbox(use_lost_file, landlock), ALLOWED);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_denied), cmocka_unit_test(test_allowed)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
