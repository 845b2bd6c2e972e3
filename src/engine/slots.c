/* slots.c - checking, loading and unloading one model file that arrived as a descriptor. */
#include "engine/slots.h"

#include "base/limit.h"
#include "base/log.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22 /* Linux 5.14; older kernels answer EINVAL */
#endif

/* Populated in slices, so that a huge file does not hold the address space lock for long. */
#define POPULATE_BYTES (32ull << 20)

struct slot *slot_new(const struct wire_model *m, int fd, const struct model_config *config, u32 n_threads,
                      u32 rope_ctx) {
    struct slot *s = xcalloc(1, sizeof *s);
    s->model_id = m->model_id;
    snprintf(s->name, sizeof s->name, "%.*s", STR_FMT(m->name));
    s->digest = load_u64(m->digest);
    s->fd = fd;
    s->config = config;
    s->n_threads = n_threads;
    s->rope_ctx = rope_ctx;
    return s;
}

void slot_free(struct slot *s) {
    if (!s)
        return;
    if (s->state == SLOT_LOADED)
        slot_unload(s);
    close(s->fd);
    free(s);
}

bool slot_same_file(const struct slot *s, int fd) {
    struct stat a, b;
    return fstat(s->fd, &a) == 0 && fstat(fd, &b) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

bool slot_file_deleted(const struct slot *s) {
    struct stat st;
    return fstat(s->fd, &st) == 0 && st.st_nlink == 0;
}

/* Maps the file as it is now; its size may have changed since it was announced. */
static enum status map_file(struct slot *s, struct mapping *map, struct err *err) {
    struct stat st;
    if (fstat(s->fd, &st))
        return err_errno(err, ERR_IO, "cannot read the size of model file of %s", s->name);
    if (st.st_size < 32)
        return err_set(err, ERR_CORRUPT, "model file of %s is empty or cut off (%lld bytes)", s->name,
                       (long long)st.st_size);
    if (s->file_bytes && (u64)st.st_size != s->file_bytes)
        return err_set(err, ERR_CORRUPT, "model file of %s has changed while in use (%llu bytes, now %lld)",
                       s->name, (unsigned long long)s->file_bytes, (long long)st.st_size);
    s->file_bytes = (u64)st.st_size;
    return mapping_open(s->fd, s->file_bytes, map, err);
}

/* Reads every page in now, where a missing one is an error code, instead of later in a step, where it
 * would be lost. */
static enum status populate(const struct slot *s, struct err *err) {
    for (u64 at = 0; at < s->file_bytes; at += POPULATE_BYTES) {
        u64 n = MIN(POPULATE_BYTES, s->file_bytes - at);
        if (madvise((u8 *)(uintptr_t)s->map.data + at, n, MADV_POPULATE_READ) == 0)
            continue;
        if (errno == EINVAL)
            return OK;
        return err_errno(err, ERR_CORRUPT, "model file of %s cannot be read at byte %llu", s->name,
                         (unsigned long long)at);
    }
    return OK;
}

/* The size too: behind the new end of a file its last page reads as zeros without any signal. */
static enum status verify(const struct slot *s, const struct mapping *map, struct err *err) {
    struct stat st;
    if (!mapping_lost(map) && fstat(s->fd, &st) == 0 && (u64)st.st_size == s->file_bytes)
        return OK;
    return err_set(err, ERR_CORRUPT,
                   "model file of %s was cut off or can no longer be read; restore or pull the model again",
                   s->name);
}

/* How large its steps may get: an encoder takes its longest input at once; the mean of a generating model is
 * over all rows. */
static void plan_steps(struct slot *s, const struct model_info *info) {
    s->encoder = info->encoder;
    s->pooling = info->pooling;
    s->n_vector_max = MAX(info->n_embd, info->n_out);
    s->n_rows_max = LIMIT_STEP_ROWS;
    s->n_logits_max = info->pooling == POOLING_MEAN ? LIMIT_STEP_ROWS : LIMIT_RUNNING;
    if (!info->encoder)
        return;
    s->n_rows_max = MAX(LIMIT_STEP_ROWS, MIN(info->n_ctx_train, LIMIT_ENCODER_TOKENS));
    s->n_logits_max = LIMIT_STEP_INPUTS;
}

/* What the ledger and the scheduler must know before the model is loaded. */
static enum status plan_model(struct slot *s, const struct gguf *gguf, struct err *err) {
    struct model_info info;
    struct model *model;
    TRY(model_info_read(gguf, s->config->cache, &info, err));
    TRY(model_open(gguf, s->config, &model, err));
    s->kv = info.kv;
    s->n_ctx_train = info.n_ctx_train;
    s->identity = model_kv_identity(model, s->digest, s->rope_ctx);
    plan_steps(s, &info);
    s->scratch_bytes = model_scratch_bytes(model, s->n_rows_max, s->n_logits_max, s->n_threads);
    /* The header holds the vocabulary; the tokenizer built from it takes about twice its size, and what masks
     * need of it (engine/grammars.h) as much again. */
    u64 header_bytes = s->file_bytes - MIN(info.weights_bytes, s->file_bytes);
    s->weights_bytes = s->file_bytes + model_bytes(model) + 4 * header_bytes;
    model_close(model);
    return OK;
}

static enum status check_file(struct slot *s, struct err *err) {
    struct mapping map;
    struct gguf gguf;
    TRY(map_file(s, &map, err));
    enum status status = gguf_parse(&gguf, map.data, s->file_bytes, err);
    if (status == OK) {
        status = plan_model(s, &gguf, err);
        gguf_release(&gguf);
    }
    if (mapping_lost(&map))
        status = verify(s, &map, err);
    mapping_close(&map);
    return status;
}

static enum status open_template(struct slot *s, struct err *err) {
    struct str source;
    if (!gguf_get_str(&s->gguf, STR("tokenizer.chat_template"), &source) || source.n == 0)
        return OK;
    struct err why;
    if (template_open(source, TEMPLATE_JINJA, &s->chat_template, &why) == OK)
        return OK;
    return err_set(err, ERR_UNSUPPORTED, "the chat template of %s is not understood: %s", s->name, why.text);
}

static enum status open_parts(struct slot *s, struct err *err) {
    TRY(gguf_parse(&s->gguf, s->map.data, s->file_bytes, err));
    s->parsed = true;
    TRY(model_open(&s->gguf, s->config, &s->model, err));
    if (!s->tokenizer)
        TRY(tokenizer_open(&s->gguf, &s->tokenizer, err));
    if (!s->grammars)
        s->grammars = grammars_new(s->tokenizer);
    return open_template(s, err);
}

/* All but the tokenizer. */
static void close_parts(struct slot *s) {
    template_close(s->chat_template);
    draft_model_free(s->draft);
    model_close(s->model);
    if (s->parsed)
        gguf_release(&s->gguf);
    mapping_close(&s->map);
    s->chat_template = NULL;
    s->draft = NULL;
    s->model = NULL;
    s->parsed = false;
}

/* The pages of a file in the cache take as long to map as a large vocabulary takes to build: a thread for
 * each. */
struct populating {
    const struct slot *slot;
    struct err err;
};

static void *populate_main(void *arg) {
    struct populating *p = arg;
    p->err.status = populate(p->slot, &p->err);
    return NULL;
}

static enum status load_file(struct slot *s, struct err *err) {
    struct populating p = {.slot = s};
    pthread_t thread;
    TRY(map_file(s, &s->map, err));
    bool beside = pthread_create(&thread, NULL, populate_main, &p) == 0;
    enum status status = open_parts(s, err);
    if (beside)
        pthread_join(thread, NULL);
    else
        populate_main(&p);
    if (p.err.status != OK) {
        *err = p.err;
        status = p.err.status;
    }
    if (status == OK)
        status = verify(s, &s->map, err);
    if (status != OK)
        close_parts(s);
    return status;
}

static void run_check(struct job *job) {
    struct slot *s = CONTAINER(job, struct slot, job);
    s->job_err = (struct err){0};
    s->job_err.status = check_file(s, &s->job_err);
}

static void run_load(struct job *job) {
    struct slot *s = CONTAINER(job, struct slot, job);
    s->job_err = (struct err){0};
    s->job_err.status = load_file(s, &s->job_err);
}

void slot_check(struct slot *s, struct jobs *loader) {
    s->state = SLOT_CHECKING;
    s->job.run = run_check;
    jobs_push(loader, &s->job);
}

void slot_load(struct slot *s, struct jobs *loader) {
    check(s->state == SLOT_KNOWN);
    s->state = SLOT_LOADING;
    s->error = (struct err){0};
    s->job.run = run_load;
    jobs_push(loader, &s->job);
}

/* Nobody needs it: the model is not loaded, and no request holds it. */
static void tokenizer_drop(struct slot *s) {
    if (s->n_holding > 0)
        return;
    grammars_free(s->grammars);
    s->grammars = NULL;
    tokenizer_close(s->tokenizer);
    s->tokenizer = NULL;
}

void slot_hold_tokenizer(struct slot *s) {
    check(s->state == SLOT_LOADED);
    s->n_holding++;
}

void slot_release_tokenizer(struct slot *s) {
    check(s->n_holding > 0);
    s->n_holding--;
    if (s->state == SLOT_KNOWN)
        tokenizer_drop(s);
}

void slot_job_done(struct slot *s) {
    bool ok = s->job_err.status == OK;
    if (!ok) {
        s->error = s->job_err;
        log_error("model cannot be used", "model=%s error=\"%s\"", s->name, s->error.text);
        tokenizer_drop(s);
    }
    switch (s->state) {
    case SLOT_CHECKING: s->state = ok ? SLOT_KNOWN : SLOT_BROKEN; return;
    case SLOT_LOADING: s->state = ok ? SLOT_LOADED : SLOT_KNOWN; return;
    case SLOT_KNOWN:
    case SLOT_BROKEN:
    case SLOT_LOADED: check(false);
    }
}

enum status slot_verify(struct slot *s) {
    check(s->state == SLOT_LOADED);
    return s->error.status != OK ? s->error.status : verify(s, &s->map, &s->error);
}

void slot_unload(struct slot *s) {
    check(s->state == SLOT_LOADED && s->n_preparing == 0);
    close_parts(s);
    s->state = SLOT_KNOWN;
    tokenizer_drop(s);
}
