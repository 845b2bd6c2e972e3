/* Goal: inside the sandbox nothing can be opened, made, run or reached, and what the engine needs still works.
 * Method: each case runs in a child process that enters the sandbox and tries one call; its exit code tells. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine/sandbox.h"

enum { DENIED = 0, ALLOWED = 1, NO_SANDBOX = 2 };

static int tried(long result) { return result >= 0 ? ALLOWED : errno == EPERM || errno == EACCES ? DENIED : 3; }

static int try_open(void) { return tried(open("/etc/passwd", O_RDONLY)); }
static int try_create(void) { return tried(open("/tmp/minka-sandbox-test", O_CREAT | O_WRONLY, 0600)); }
static int try_openat2(void) { return tried(syscall(SYS_openat2, AT_FDCWD, "/etc/passwd", "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 24)); }
static int try_stat_readlink(void) { char b[8]; return tried(readlink("/proc/self/exe", b, sizeof b)); }
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
static int try_exec_mprotect(void) {
    void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return tried(mprotect(p, 4096, PROT_READ | PROT_EXEC));
}
static int given_fd = -1; /* opened before */
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
static int thread_cannot_open(void);
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

static int in_sandbox(int (*call)(void)) {
    int status;
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        struct err err;
        given_fd = open("/proc/self/exe", O_RDONLY);
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
    static const struct { const char *name; int (*call)(void); } cases[] = {
        {"open", try_open}, {"create", try_create}, {"openat2", try_openat2}, {"readlink", try_stat_readlink},
        {"socket inet", try_socket_inet}, {"socket unix", try_socket_unix}, {"fork", try_fork}, {"clone", try_vfork},
        {"exec", try_exec}, {"kill", try_kill}, {"ptrace", try_ptrace}, {"unlink", try_unlink}, {"mkdir", try_mkdir},
        {"mount", try_mount}, {"bpf", try_bpf}, {"io_uring", try_io_uring}, {"mprotect exec", try_exec_mprotect},
        {"map file exec", try_exec_file_map}, {"open in a thread", thread_cannot_open}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        int got = in_sandbox(cases[i].call);
        if (got != DENIED)
            print_message("%s is not denied (%d)\n", cases[i].name, got);
        assert_int_equal(got, DENIED);
    }
}

static void test_allowed(void **state) {
    (void)state;
    assert_int_equal(in_sandbox(use_thread), ALLOWED);
    assert_int_equal(in_sandbox(use_given_file), ALLOWED);
    assert_int_equal(in_sandbox(use_memory), ALLOWED);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_denied), cmocka_unit_test(test_allowed)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
