/* team.c - a 64-bit ticket generation:24 | n_chunks:20 | next:20 is published per region; taking a
 * chunk is one fetch_add. A late fetch_add on a finished ticket only runs past n_chunks, and one that
 * lands on a newer ticket takes a valid chunk of that one, because the function is read afterwards. */
#include "base/team.h"

#include <immintrin.h>
#include <linux/futex.h>
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#define FIELD_BITS 20
#define FIELD_MASK ((1u << FIELD_BITS) - 1)
/* About 200 us of pauses: longer than a futex wake takes on a virtual machine (about 50 us), so that
 * the gaps between the regions of a step never put a worker to sleep. */
#define SPIN_PAUSES 20000u
/* A worker without work offers its processor to others after this long (the gap between two regions is shorter),
 * and then again and again. If there are none that costs a fraction of a microsecond; if the owner itself is waiting
 * for this processor, or the last chunk's thread, the region would stand still until the worker sleeps. */
#define PATIENT_PAUSES 1500u
#define YIELD_PAUSES 128u
/* The owner waits this long for the last chunks before it offers its processor to their threads. */
#define OWNER_PAUSES 1500u

/* Each group of fields on a cache line pair of its own: idle workers read the first and the last all the time. */
struct team {
    _Alignas(128) _Atomic u64 ticket;
    team_fn *fn; /* of the current region; written before the ticket is published */
    void *arg;
    u64 generation;
    _Alignas(128) atomic_uint n_done;
    _Alignas(128) atomic_uint n_sleeping; /* active workers that wait for wake_count to change */
    atomic_uint wake_count;               /* futex word */
    atomic_uint n_active;                 /* workers with an index at or above it keep out */
    atomic_bool quit;
    u32 n_threads;
    struct worker {
        struct team *team;
        pthread_t thread;
        u32 index;
    } workers[TEAM_THREADS_MAX];
};

static u32 ticket_count(u64 t) { return (u32)(t >> FIELD_BITS) & FIELD_MASK; }
static u32 ticket_next(u64 t) { return (u32)t & FIELD_MASK; }

static bool has_chunk(struct team *t) {
    u64 ticket = atomic_load(&t->ticket);
    return ticket_next(ticket) < ticket_count(ticket);
}

static bool run_one(struct team *t, u32 thread) {
    if (!has_chunk(t))
        return false;
    u64 ticket = atomic_fetch_add(&t->ticket, 1);
    if (ticket_next(ticket) >= ticket_count(ticket))
        return false;
    t->fn(t->arg, ticket_next(ticket), thread);
    atomic_fetch_add_explicit(&t->n_done, 1, memory_order_release);
    return true;
}

static long futex(atomic_uint *word, int op, u32 value) {
    return syscall(SYS_futex, word, op, value, NULL, NULL, 0);
}

static bool is_active(struct team *t, const struct worker *w) { return w->index < atomic_load(&t->n_active); }

/* Each looks again after it has read wake_count or raised n_sleeping: what the owner changed before that look is
 * seen by it, and a change behind it finds us counted, or raises wake_count so that the wait returns at once. */
static void sleep_until_work(struct team *t) {
    u32 seen = atomic_load(&t->wake_count);
    atomic_fetch_add(&t->n_sleeping, 1);
    if (!has_chunk(t) && !atomic_load(&t->quit))
        futex(&t->wake_count, FUTEX_WAIT_PRIVATE, seen);
    atomic_fetch_sub(&t->n_sleeping, 1);
}

/* Not counted as sleeping, so that regions of the others make no system calls. */
static void sleep_until_active(struct team *t, const struct worker *w) {
    u32 seen = atomic_load(&t->wake_count);
    if (!is_active(t, w) && !atomic_load(&t->quit))
        futex(&t->wake_count, FUTEX_WAIT_PRIVATE, seen);
}

static void *worker_main(void *arg) {
    struct worker *w = arg;
    struct team *t = w->team;
    u32 idle = 0;
    while (!atomic_load_explicit(&t->quit, memory_order_relaxed)) {
        if (!is_active(t, w)) {
            sleep_until_active(t, w);
        } else if (run_one(t, w->index)) {
            idle = 0;
        } else if (++idle > SPIN_PAUSES) {
            sleep_until_work(t);
            idle = 0;
        } else if (idle > PATIENT_PAUSES && idle % YIELD_PAUSES == 0) {
            sched_yield();
        } else {
            _mm_pause();
        }
    }
    return NULL;
}

static void wake_all(struct team *t) {
    atomic_fetch_add(&t->wake_count, 1);
    futex(&t->wake_count, FUTEX_WAKE_PRIVATE, INT_MAX);
}

struct team *team_new(u32 n_threads) {
    check(n_threads >= 1 && n_threads <= TEAM_THREADS_MAX);
    struct team *t = aligned_alloc(128, ALIGN_UP(sizeof *t, 128));
    if (!t)
        die("out of memory for the compute team");
    memset(t, 0, sizeof *t);
    t->n_threads = n_threads;
    atomic_store(&t->n_active, n_threads);
    for (u32 i = 1; i < n_threads; i++) {
        t->workers[i] = (struct worker){.team = t, .index = i};
        if (pthread_create(&t->workers[i].thread, NULL, worker_main, &t->workers[i]) != 0)
            die("cannot start compute thread %u of %u", i, n_threads);
    }
    return t;
}

void team_free(struct team *t) {
    if (!t)
        return;
    atomic_store(&t->quit, true);
    wake_all(t);
    for (u32 i = 1; i < t->n_threads; i++)
        pthread_join(t->workers[i].thread, NULL);
    free(t);
}

u32 team_threads(const struct team *t) { return t->n_threads; }

void team_limit(struct team *t, u32 n_threads) {
    atomic_store(&t->n_active, MAX(1u, MIN(n_threads, t->n_threads)));
    wake_all(t);
}

void team_run(struct team *t, team_fn *fn, void *arg, u32 n_chunks) {
    check(n_chunks < FIELD_MASK - TEAM_THREADS_MAX);
    if (n_chunks == 0)
        return;
    if (n_chunks == 1 || atomic_load_explicit(&t->n_active, memory_order_relaxed) == 1) {
        for (u32 i = 0; i < n_chunks; i++)
            fn(arg, i, 0);
        return;
    }
    t->fn = fn;
    t->arg = arg;
    atomic_store_explicit(&t->n_done, 0, memory_order_relaxed);
    t->generation++;
    atomic_store(&t->ticket, t->generation << (2 * FIELD_BITS) | (u64)n_chunks << FIELD_BITS);
    if (atomic_load(&t->n_sleeping))
        wake_all(t);
    while (run_one(t, 0))
        ;
    for (u32 pauses = 0; atomic_load_explicit(&t->n_done, memory_order_acquire) < n_chunks; pauses++) {
        if (pauses < OWNER_PAUSES)
            _mm_pause();
        else
            sched_yield();
    }
}
