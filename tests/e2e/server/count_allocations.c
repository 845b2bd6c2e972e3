/* count_allocations.c - preloaded into a process: counts its allocations where a test can read them, in the
 * first eight bytes of the file COUNT_ALLOCATIONS.PID. */
#include <fcntl.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

void *__libc_malloc(size_t n);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *p, size_t n);

static _Atomic unsigned long long before_start;
static _Atomic unsigned long long *count = &before_start;

__attribute__((constructor)) static void start(void) {
    const char *path = getenv("COUNT_ALLOCATIONS");
    char name[4096];
    if (!path)
        return;
    snprintf(name, sizeof name, "%s.%d", path, (int)getpid());
    int fd = open(name, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || ftruncate(fd, sizeof *count))
        abort();
    void *p = mmap(NULL, sizeof *count, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (p == MAP_FAILED)
        abort();
    close(fd);
    count = p;
}

void *malloc(size_t n) {
    atomic_fetch_add(count, 1);
    return __libc_malloc(n);
}

void *calloc(size_t n, size_t size) {
    atomic_fetch_add(count, 1);
    return __libc_calloc(n, size);
}

void *realloc(void *p, size_t n) {
    atomic_fetch_add(count, 1);
    return __libc_realloc(p, n);
}
