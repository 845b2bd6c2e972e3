/* jobs.c - two lists under one lock; a pipe tells the loop that something is done. */
#include "engine/jobs.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

struct job_list {
    struct job *head, **tail;
};

struct jobs {
    pthread_t thread;
    pthread_mutex_t lock; /* guards todo, done and quit */
    pthread_cond_t more;
    struct job_list todo, done;
    bool quit;
    int done_pipe[2]; /* one byte per finished job */
};

static void list_init(struct job_list *l) {
    l->head = NULL;
    l->tail = &l->head;
}

static void list_push(struct job_list *l, struct job *job) {
    job->next = NULL;
    *l->tail = job;
    l->tail = &job->next;
}

static struct job *list_pop(struct job_list *l) {
    struct job *job = l->head;
    if (job) {
        l->head = job->next;
        if (!l->head)
            l->tail = &l->head;
    }
    return job;
}

static void *jobs_main(void *arg) {
    struct jobs *j = arg;
    pthread_mutex_lock(&j->lock);
    while (!j->quit) {
        struct job *job = list_pop(&j->todo);
        if (!job) {
            pthread_cond_wait(&j->more, &j->lock);
            continue;
        }
        pthread_mutex_unlock(&j->lock);
        job->run(job);
        pthread_mutex_lock(&j->lock);
        list_push(&j->done, job);
        /* A full pipe is readable already, which is all that the byte says. */
        ssize_t ignored UNUSED = write(j->done_pipe[1], "x", 1);
    }
    pthread_mutex_unlock(&j->lock);
    return NULL;
}

struct jobs *jobs_new(void) {
    struct jobs *j = xcalloc(1, sizeof *j);
    list_init(&j->todo);
    list_init(&j->done);
    pthread_mutex_init(&j->lock, NULL);
    pthread_cond_init(&j->more, NULL);
    if (pipe2(j->done_pipe, O_CLOEXEC | O_NONBLOCK) || pthread_create(&j->thread, NULL, jobs_main, j))
        die("cannot start a background thread (the system refuses pipes or threads)");
    return j;
}

void jobs_free(struct jobs *j) {
    if (!j)
        return;
    pthread_mutex_lock(&j->lock);
    j->quit = true;
    pthread_cond_signal(&j->more);
    pthread_mutex_unlock(&j->lock);
    pthread_join(j->thread, NULL);
    close(j->done_pipe[0]);
    close(j->done_pipe[1]);
    pthread_mutex_destroy(&j->lock);
    pthread_cond_destroy(&j->more);
    free(j);
}

void jobs_push(struct jobs *j, struct job *job) {
    pthread_mutex_lock(&j->lock);
    list_push(&j->todo, job);
    pthread_cond_signal(&j->more);
    pthread_mutex_unlock(&j->lock);
}

struct job *jobs_take_done(struct jobs *j) {
    char byte;
    ssize_t ignored UNUSED = read(j->done_pipe[0], &byte, 1);
    pthread_mutex_lock(&j->lock);
    struct job *job = list_pop(&j->done);
    pthread_mutex_unlock(&j->lock);
    return job;
}

int jobs_fd(const struct jobs *j) { return j->done_pipe[0]; }
