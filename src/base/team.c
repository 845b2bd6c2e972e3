/* team.c - every part of a region has a ticket end:32 | next:32; taking a chunk is one fetch_add on it. A late
 * fetch_add on a finished region's ticket only runs past its end, and one that lands on a newer ticket takes a valid
 * chunk of that region, because the function is read afterwards. A line that moves between processors costs about 100
 * ns, so there are few: a part with all that its thread must know, and one sum per worker that took chunks. */
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

/* One thread's part of the current region. All is written before the ticket but the generation, which is last: its
 * thread watches that while it is idle. */
struct part {
    _Alignas(128) _Atomic u64 ticket;
    team_fn *fn;
    void *arg;
    atomic_uint generation; /* counts regions */
};

/* Each group of fields on a cache line pair of its own: one that all read, one that workers write, the owner's. */
struct team {
    u32 n_threads;
    atomic_uint n_active; /* workers with an index at or above it keep out */
    atomic_bool quit;
    _Alignas(128) _Atomic u64 n_done; /* chunks that workers have done, in all regions */
    _Alignas(128) u64 n_owed;         /* what n_done is when the current region is done */
    atomic_uint n_sleeping;           /* active workers that wait for wake_count to change */
    atomic_uint wake_count;           /* futex word */
    struct worker {
        struct team *team;
        pthread_t thread;
        u32 index;
    } workers[TEAM_THREADS_MAX];
    struct part parts[TEAM_THREADS_MAX];
};

static u32 ticket_end(u64 ticket) { return (u32)(ticket >> 32); }
static u32 ticket_next(u64 ticket) { return (u32)ticket; }

/* Runs the chunks of a part that nobody has taken; returns how many those were. */
static u32 run_part(struct part *p, u32 thread) {
    for (u32 n = 0;; n++) {
        u64 ticket = atomic_load_explicit(&p->ticket, memory_order_relaxed);
        if (ticket_next(ticket) < ticket_end(ticket))
            ticket = atomic_fetch_add_explicit(&p->ticket, 1, memory_order_acquire);
        if (ticket_next(ticket) >= ticket_end(ticket))
            return n;
        p->fn(p->arg, ticket_next(ticket), thread);
    }
}

static long futex(atomic_uint *word, int op, u32 value) {
    return syscall(SYS_futex, word, op, value, NULL, NULL, 0);
}

static bool is_active(struct team *t, const struct worker *w) { return w->index < atomic_load(&t->n_active); }

/* Each looks again after it has read wake_count or raised n_sleeping: what the owner changed before that look is
 * seen by it, and a change behind it finds us counted, or raises wake_count so that the wait returns at once. */
static void sleep_until_work(struct team *t, const struct part *own, u32 generation) {
    u32 seen = atomic_load(&t->wake_count);
    atomic_fetch_add(&t->n_sleeping, 1);
    if (atomic_load(&own->generation) == generation && !atomic_load(&t->quit))
        futex(&t->wake_count, FUTEX_WAIT_PRIVATE, seen);
    atomic_fetch_sub(&t->n_sleeping, 1);
}

/* Not counted as sleeping, so that regions of the others make no system calls. */
static void sleep_until_active(struct team *t, const struct worker *w) {
    u32 seen = atomic_load(&t->wake_count);
    if (!is_active(t, w) && !atomic_load(&t->quit))
        futex(&t->wake_count, FUTEX_WAIT_PRIVATE, seen);
}

/* The worker's own part, then what is left of the others. */
static void run_parts(struct team *t, u32 worker) {
    for (u32 i = 0; i < t->n_threads; i++) {
        u32 n = run_part(&t->parts[(worker + i) % t->n_threads], worker);
        if (n)
            atomic_fetch_add_explicit(&t->n_done, n, memory_order_release);
    }
}

static void *worker_main(void *arg) {
    struct worker *w = arg;
    struct team *t = w->team;
    const struct part *own = &t->parts[w->index];
    u32 idle = 0, seen = 0;
    while (!atomic_load_explicit(&t->quit, memory_order_relaxed)) {
        u32 generation = atomic_load_explicit(&own->generation, memory_order_acquire);
        if (!is_active(t, w)) {
            sleep_until_active(t, w);
        } else if (generation != seen) {
            seen = generation;
            idle = 0;
            run_parts(t, w->index);
        } else if (++idle > SPIN_PAUSES) {
            sleep_until_work(t, own, seen);
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

u32 team_part(const struct team *t, u32 n_chunks, u32 thread) { return (u32)((u64)thread * n_chunks / t->n_threads); }

void team_run(struct team *t, team_fn *fn, void *arg, u32 n_chunks) {
    check(n_chunks < UINT32_MAX - TEAM_THREADS_MAX);
    if (n_chunks == 0)
        return;
    if (n_chunks == 1 || atomic_load_explicit(&t->n_active, memory_order_relaxed) == 1) {
        for (u32 i = 0; i < n_chunks; i++)
            fn(arg, i, 0);
        return;
    }
    u32 generation = atomic_load_explicit(&t->parts[0].generation, memory_order_relaxed) + 1;
    for (u32 i = 0; i < t->n_threads; i++) {
        struct part *p = &t->parts[i];
        p->fn = fn;
        p->arg = arg;
        u64 begin = team_part(t, n_chunks, i), end = team_part(t, n_chunks, i + 1);
        atomic_store_explicit(&p->ticket, end << 32 | begin, memory_order_release);
        atomic_store_explicit(&p->generation, generation, memory_order_release);
    }
    /* Adding nothing orders this look behind the stores: who counts itself later sees the new generation. */
    if (atomic_fetch_add(&t->n_sleeping, 0))
        wake_all(t);
    t->n_owed += n_chunks;
    for (u32 i = 0; i < t->n_threads; i++)
        t->n_owed -= run_part(&t->parts[i], 0);
    for (u32 pauses = 0; atomic_load_explicit(&t->n_done, memory_order_acquire) != t->n_owed; pauses++) {
        if (pauses < OWNER_PAUSES)
            _mm_pause();
        else
            sched_yield();
    }
}
