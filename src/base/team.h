/* team.h - the compute team: the threads that share one step's work.
 *
 * A region is n independent chunks, cut into a contiguous part for each thread. A thread takes the chunks of its
 * own part in order (memory is read in one stream per core, and rows stay where they were worked on before), then
 * what is left of the others' parts. Completion counts chunks, not threads: a worker that the system does not run
 * is never waited for. Which thread runs a chunk is chance, so a chunk's result must not depend on it; `thread` only
 * picks scratch.
 *
 * Idle workers spin for about 200 us (longer than a futex wake takes on a virtual machine), then sleep.
 * One thread owns the team and runs regions; regions do not nest. */
#ifndef MINKA_TEAM_H
#define MINKA_TEAM_H

#include "base/base.h"

#define TEAM_THREADS_MAX 64u

struct team;

typedef void team_fn(void *arg, u32 chunk, u32 thread);

/* n_threads in 1..TEAM_THREADS_MAX counts the owner; n_threads - 1 workers are started. */
struct team *team_new(u32 n_threads) MUST_USE;
void team_free(struct team *t);
u32 team_threads(const struct team *t);
/* The first chunk of a thread's part; of thread + 1: where that part ends. For prefetching what comes next. */
u32 team_part(const struct team *t, u32 n_chunks, u32 thread);
/* Calls fn(arg, chunk, thread) once for each chunk in 0..n_chunks-1, thread in 0..team_threads-1;
 * returns when all are done, their writes visible. n_chunks < 2^32 - 2^10. */
void team_run(struct team *t, team_fn *fn, void *arg, u32 n_chunks);
/* Use only the first n_threads from now on (a CPU quota that shrank, a machine that is busy). */
void team_limit(struct team *t, u32 n_threads);

#endif
