/* sim.c - runs the simulator: `sim` for many seeds, `sim SEED` to replay one and print what happens. */
#include "sim.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static char failed_text[64];
static size_t failed_len;

/* check() aborts: say which seed it was. */
static void on_abort(int signal) {
    ssize_t ignored = write(STDERR_FILENO, failed_text, failed_len);
    (void)ignored;
    (void)signal;
}

static u64 run(u64 seed, bool verbose, struct sim_counts *counts) {
    failed_len = (size_t)snprintf(failed_text, sizeof failed_text, "sim: failed, replay with: sim %llu\n",
                                  (unsigned long long)seed);
    struct sim *w = xcalloc(1, sizeof *w);
    w->seed = w->random = seed;
    w->verbose = verbose;
    w->counts = counts;
    sim_run(w);
    u64 trace = w->trace;
    free(w);
    return trace;
}

static void print(const struct sim_counts *c) {
    printf("requests %llu: finished %llu, busy %llu, no memory %llu, load failed %llu, removed %llu, load "
           "only %llu, "
           "cancelled %llu queued %llu started %llu in a step\n",
           (unsigned long long)c->n_requests, (unsigned long long)c->n_finished,
           (unsigned long long)c->n_rejected_busy, (unsigned long long)c->n_rejected_memory,
           (unsigned long long)c->n_rejected_load, (unsigned long long)c->n_rejected_removed,
           (unsigned long long)c->n_ready, (unsigned long long)c->n_cancel_queued,
           (unsigned long long)c->n_cancel_running, (unsigned long long)c->n_cancel_in_step);
    printf(
        "steps %llu, rows %llu (tokens %llu, found in the cache %llu), parked %llu, shifts %llu, loads %llu, "
        "unloads %llu, overdue looks %llu, crashes %llu, drafts %llu (came true %llu), passes of draft "
        "models %llu (loads %llu, unloads %llu), inputs of "
        "encoders %llu\n",
        (unsigned long long)c->n_steps, (unsigned long long)c->n_rows, (unsigned long long)c->n_rows_needed,
        (unsigned long long)c->n_cached_tokens, (unsigned long long)c->n_parked,
        (unsigned long long)c->n_shifts, (unsigned long long)c->n_loads, (unsigned long long)c->n_unloads,
        (unsigned long long)c->n_overdue, (unsigned long long)c->n_crashes, (unsigned long long)c->n_drafts,
        (unsigned long long)c->n_drafts_agreed, (unsigned long long)c->n_draft_passes,
        (unsigned long long)c->n_draft_loads, (unsigned long long)c->n_draft_unloads,
        (unsigned long long)c->n_inputs);
}

/* Many seeds meet every kind of event, or the simulator tests less than it says. */
static void check_coverage(const struct sim_counts *c) {
    const u64 *each = (const u64 *)c;
    for (size_t i = 0; i < sizeof *c / sizeof(u64); i++)
        check(each[i] > 0);
}

int main(int argc, char **argv) {
    struct sim_counts counts = {0};
    const char *n_text = getenv("SIM_SEEDS");
    u64 n_seeds = n_text ? strtoull(n_text, NULL, 10) : 1000;
    signal(SIGABRT, on_abort);
    if (argc > 1) {
        setvbuf(stdout, NULL, _IOLBF, 0);
        run(strtoull(argv[1], NULL, 10), true, &counts);
        print(&counts);
        return 0;
    }
    for (u64 seed = 1; seed <= n_seeds; seed++) {
        u64 trace = run(seed, false, &counts);
        if (seed % 50 == 0)
            check(trace == run(seed, false, &counts)); /* nothing but the seed decides */
    }
    print(&counts);
    if (n_seeds >= 1000)
        check_coverage(&counts);
    printf("sim: %llu seeds passed\n", (unsigned long long)n_seeds);
    return 0;
}
