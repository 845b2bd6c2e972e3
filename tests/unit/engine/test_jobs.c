/* Goal: jobs run once, in order, on another thread; each comes back once, and the descriptor is readable
 * while one waits. Method: jobs that note their number and thread; more than a pipe holds bytes, taken late.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <poll.h>
#include <pthread.h>
#include <stdlib.h>

#include "engine/jobs.h"

struct counted {
    struct job job;
    u32 number, at; /* at: how many had run before */
    pthread_t thread;
};

static u32 n_run;

static void run_counted(struct job *job) {
    struct counted *c = CONTAINER(job, struct counted, job);
    c->at = n_run++; /* one background thread, read after the job came back */
    c->thread = pthread_self();
}

static bool readable(const struct jobs *j, int ms) {
    struct pollfd p = {.fd = jobs_fd(j), .events = POLLIN};
    return poll(&p, 1, ms) == 1;
}

static void test_in_order_each_once(void **state) {
    (void)state;
    enum { N = 100000 };
    struct jobs *j = jobs_new();
    struct counted *all = xcalloc(N, sizeof *all);
    u32 next = 0;
    n_run = 0;
    assert_null(jobs_take_done(j));
    assert_false(readable(j, 0));
    for (u32 i = 0; i < N; i++) {
        all[i].number = i;
        all[i].job.run = run_counted;
        jobs_push(j, &all[i].job);
    }
    while (next < N) {
        assert_true(readable(j, 20000));
        for (struct job *job; (job = jobs_take_done(j)); next++) {
            struct counted *c = CONTAINER(job, struct counted, job);
            assert_int_equal(c->number, next);
            assert_int_equal(c->at, next);
            assert_false(pthread_equal(c->thread, pthread_self()));
        }
    }
    assert_int_equal(n_run, N);
    while (readable(j, 0)) /* bytes left over wake the loop in vain, but not for ever */
        assert_null(jobs_take_done(j));
    jobs_free(j);
    free(all);
}

static void test_free_with_jobs_waiting(void **state) {
    (void)state;
    struct counted all[50] = {0};
    struct jobs *j = jobs_new();
    n_run = 0;
    for (u32 i = 0; i < ARRAY_LEN(all); i++) {
        all[i].job.run = run_counted;
        jobs_push(j, &all[i].job);
    }
    jobs_free(j); /* nothing runs afterwards */
    assert_true(n_run <= ARRAY_LEN(all));
    jobs_free(NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_in_order_each_once),
        cmocka_unit_test(test_free_with_jobs_waiting),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
