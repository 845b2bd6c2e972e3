/* The compute team. Built with -Db_sanitize=thread the same tests look for races. */
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

#include <cmocka.h>

#include "base/team.h"

#define CHUNKS_MAX 1000u

struct job {
    u32 runs[CHUNKS_MAX];   /* how often each chunk ran; plain memory, so that a missing order shows */
    u32 thread[CHUNKS_MAX];
    u32 input;              /* written by the owner before each region */
};

static void count(void *arg, u32 chunk, u32 thread) {
    struct job *j = arg;
    j->runs[chunk] += j->input;
    j->thread[chunk] = thread;
}

/* Returns how many chunks ran on threads from threads_now on. */
static u32 run_and_check(struct team *t, struct job *j, u32 n_chunks, u32 threads_now) {
    u32 strangers = 0;
    memset(j->runs, 0, sizeof j->runs);
    j->input++;
    team_run(t, count, j, n_chunks);
    for (u32 i = 0; i < CHUNKS_MAX; i++) {
        assert_int_equal(j->runs[i], i < n_chunks ? j->input : 0);
        if (i < n_chunks) {
            assert_true(j->thread[i] < team_threads(t));
            strangers += j->thread[i] >= threads_now;
        }
    }
    return strangers;
}

static void wait_ms(u32 ms) { nanosleep(&(struct timespec){.tv_nsec = ms * 1000000l}, NULL); }

/* Goal: every chunk runs once, its writes are seen, and the owner's are seen by it. */
static void each_chunk_once(void **state) {
    (void)state;
    static struct job j;
    for (u32 threads = 1; threads <= 5; threads++) {
        struct team *t = team_new(threads);
        assert_int_equal(team_threads(t), threads);
        for (u32 round = 0; round < 60; round++)
            assert_int_equal(run_and_check(t, &j, round * 17 % CHUNKS_MAX, threads), 0);
        assert_int_equal(run_and_check(t, &j, 0, threads), 0);
        assert_int_equal(run_and_check(t, &j, CHUNKS_MAX, threads), 0);
        team_free(t);
    }
    team_free(NULL);
}

/* Goal: regions may follow each other at once, with and without sleeping workers between them. */
static void regions_in_a_row(void **state) {
    (void)state;
    static struct job j;
    struct team *t = team_new(3);
    for (u32 round = 0; round < 3000; round++) {
        u32 n = 1 + round % 7;
        for (u32 i = 0; i < n; i++)
            j.runs[i] = 0;
        j.input = round + 1;
        team_run(t, count, &j, n);
        for (u32 i = 0; i < n; i++)
            assert_int_equal(j.runs[i], round + 1);
    }
    for (u32 round = 0; round < 20; round++) {
        wait_ms(round < 10 ? 3 : 0); /* longer than a worker spins */
        assert_int_equal(run_and_check(t, &j, 40, 3), 0);
    }
    team_free(t);
}

struct slow_job {
    u32 runs[32];
    atomic_uint busy[8], shared, running, running_max;
};

static void slow(void *arg, u32 chunk, u32 thread) {
    struct slow_job *j = arg;
    atomic_fetch_add(&j->shared, atomic_fetch_add(&j->busy[thread], 1));
    u32 running = atomic_fetch_add(&j->running, 1) + 1, max = atomic_load(&j->running_max);
    while (running > max && !atomic_compare_exchange_weak(&j->running_max, &max, running))
        ;
    wait_ms(5);
    atomic_fetch_sub(&j->running, 1);
    atomic_fetch_sub(&j->busy[thread], 1);
    j->runs[chunk]++;
}

/* Goal: workers really take part (chunks that only sleep overlap even on one processor), and no two chunks that
 * run at the same time have the same thread number. */
static void workers_take_part(void **state) {
    (void)state;
    struct slow_job j = {0};
    struct team *t = team_new(8);
    team_run(t, slow, &j, 32);
    for (u32 i = 0; i < 32; i++)
        assert_int_equal(j.runs[i], 1);
    assert_int_equal(j.shared, 0);
    assert_true(j.running_max > 1); /* however busy the machine is, 160 ms are enough for one more thread */
    team_free(t);
}

/* Goal: threads above the limit keep out and come back. One that was about to take a chunk when the limit fell
 * may take this one. */
static void limit(void **state) {
    (void)state;
    static struct job j;
    struct team *t = team_new(4);
    for (u32 round = 0; round < 30; round++) {
        u32 n = (const u32[]){1, 4, 2, 99, 0}[round % 5], active = n == 0 ? 1 : n > 4 ? 4 : n;
        team_limit(t, n);
        u32 strangers = 0;
        for (u32 i = 0; i < 10; i++)
            strangers += run_and_check(t, &j, 100, active);
        assert_true(strangers <= 4 - active);
        if (round % 7 == 0)
            wait_ms(2);
    }
    team_free(t);
}

/* Goal: a team that was never used, or sleeps, ends. */
static void ends_at_once(void **state) {
    (void)state;
    for (u32 i = 0; i < 20; i++) {
        struct team *t = team_new(1 + i % 4);
        if (i % 3 == 0)
            wait_ms(2);
        if (i % 2)
            team_limit(t, 1);
        team_free(t);
    }
}

static f64 process_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (f64)t.tv_sec + (f64)t.tv_nsec * 1e-9;
}

static void work(void *arg, u32 chunk, u32 thread) {
    (void)thread;
    u64 *sums = arg, x = chunk + 1;
    for (u32 i = 0; i < 2000; i++)
        x = x * 6364136223846793005u + (x >> 33);
    sums[chunk] = x;
}

/* Processor time of regions as a step has them, the owner alone busy between two. */
static f64 seconds_with(u32 threads) {
    u64 sums[32];
    struct team *t = team_new(threads);
    f64 start = process_seconds();
    for (u32 i = 0; i < 500; i++) {
        team_run(t, work, sums, ARRAY_LEN(sums));
        work(sums, 0, 0);
    }
    f64 seconds = process_seconds() - start;
    team_free(t);
    return seconds;
}

/* Goal: where the system gives a team of four one processor only, its threads don't take the time for waiting from
 * those that have work. Processor time, so that other processes don't matter. */
static void one_processor_for_all(void **state) {
    (void)state;
    cpu_set_t before, one;
    f64 lone = 1e9, team = 1e9;
    assert_int_equal(sched_getaffinity(0, sizeof before, &before), 0);
    CPU_ZERO(&one);
    for (int i = 0; CPU_COUNT(&one) == 0; i++)
        if (CPU_ISSET(i, &before))
            CPU_SET(i, &one);
    assert_int_equal(sched_setaffinity(0, sizeof one, &one), 0);
    for (u32 i = 0; i < 3; i++) {
        lone = MIN(lone, seconds_with(1));
        team = MIN(team, seconds_with(4));
    }
    sched_setaffinity(0, sizeof before, &before);
    print_message("# one thread %.3f s, four on one processor %.3f s\n", lone, team);
    assert_true(team < 1.5 * lone);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_chunk_once), cmocka_unit_test(regions_in_a_row), cmocka_unit_test(workers_take_part),
        cmocka_unit_test(limit),           cmocka_unit_test(ends_at_once),
        cmocka_unit_test(one_processor_for_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
