/* mapping.c - a table that the signal handler can search without a lock: an entry is taken by its state, and
 * read by the handler only on a thread that uses the mapping, which therefore is not being closed. */
#include "base/mapping.h"

#include "base/limit.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <unistd.h>

static struct entry {
    atomic_bool taken, lost;
    _Atomic uintptr_t start;
    _Atomic u64 bytes; /* whole pages; 0 = no mapping yet */
} entries[LIMIT_MAPPINGS];

/* Zeros in place of the file: no second page of it can fail, and readers on other threads go on. */
static bool replace(struct entry *e) {
    atomic_store(&e->lost, true); /* before any zero can be read */
    void *start = (void *)atomic_load(&e->start);
    return mmap(start, atomic_load(&e->bytes), PROT_READ,
                MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0) != MAP_FAILED;
}

static void on_bus_error(int number, siginfo_t *info, void *context) {
    int saved = errno;
    uintptr_t at = (uintptr_t)info->si_addr;
    (void)context;
    for (u32 i = 0; i < ARRAY_LEN(entries); i++) {
        struct entry *e = &entries[i];
        if (at - atomic_load(&e->start) >= atomic_load(&e->bytes) || !replace(e))
            continue;
        errno = saved;
        return;
    }
    /* Not ours: back from here the same access ends the process. */
    signal(number, SIG_DFL);
}

static void handle_bus_errors(void) {
    struct sigaction action = {.sa_sigaction = on_bus_error, .sa_flags = SA_SIGINFO};
    sigemptyset(&action.sa_mask);
    check(sigaction(SIGBUS, &action, NULL) == 0);
}

static struct entry *take_entry(void) {
    for (u32 i = 0; i < ARRAY_LEN(entries); i++)
        if (!atomic_exchange(&entries[i].taken, true))
            return &entries[i];
    return NULL;
}

enum status mapping_open(int fd, u64 bytes, struct mapping *out, struct err *err) {
    check(bytes > 0);
    struct entry *e = take_entry();
    if (!e)
        return err_set(err, ERR_NO_MEMORY, "more than %u files are mapped at once", LIMIT_MAPPINGS);
    handle_bus_errors();
    void *data = mmap(NULL, bytes, PROT_READ, MAP_SHARED, fd, 0);
    if (data == MAP_FAILED) {
        atomic_store(&e->taken, false);
        return err_errno(err, ERR_NO_MEMORY, "cannot map %llu bytes of a file", (unsigned long long)bytes);
    }
    atomic_store(&e->lost, false);
    atomic_store(&e->start, (uintptr_t)data);
    atomic_store(&e->bytes, ALIGN_UP(bytes, (u64)sysconf(_SC_PAGESIZE)));
    *out = (struct mapping){data, bytes, (u32)(e - entries)};
    return OK;
}

bool mapping_lost(const struct mapping *m) { return atomic_load(&entries[m->entry].lost); }

void mapping_close(struct mapping *m) {
    if (!m->data)
        return;
    struct entry *e = &entries[m->entry];
    void *start = (void *)atomic_load(&e->start);
    u64 bytes = atomic_load(&e->bytes);
    atomic_store(&e->bytes, 0);
    munmap(start, bytes);
    atomic_store(&e->taken, false);
    *m = (struct mapping){0};
}
