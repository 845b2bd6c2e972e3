/* jobs.h - work beside the compute team: one background thread that runs jobs in order and hands them back.
 * The engine has two, one that prepares prompts and one that reads models, so that neither delays a step. */
#ifndef MINKA_JOBS_H
#define MINKA_JOBS_H

#include "base/base.h"

struct job {
    struct job *next;
    void (*run)(struct job *job); /* on the background thread; owns what the job points to meanwhile */
};

struct jobs;

struct jobs *jobs_new(void) MUST_USE; /* starts the thread; dies if it can not */
/* Waits for the running job, forgets the rest, ends the thread. */
void jobs_free(struct jobs *j);
void jobs_push(struct jobs *j, struct job *job);
/* The oldest finished job, or NULL. */
struct job *jobs_take_done(struct jobs *j);
/* Readable while finished jobs wait to be taken. */
int jobs_fd(const struct jobs *j);

#endif
