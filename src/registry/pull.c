/* pull.c - a model comes in. A few blobs move at once, each over one stream into a writer of the store:
 *
 *   NEW --somebody has it--> WAIT --again--> NEW
 *    | open the writer
 *   HASH what is there
 *    +--> RUN --all bytes, right digest--> DONE
 *          |  broken, 5xx, stalled
 *          +--> WAIT (2^n s) --again--> RUN from where it was */
#include <stdio.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "base/clock.h"
#include "base/limit.h"
#include "base/log.h"
#include "registry/inflight.h"
#include "registry/job.h"

#define REPORT_NS 60000000ull
/* Look again whether another pull has finished a blob. */
#define WAIT_OTHER_NS 200000000ull
/* Of a part that is hashed again, at a time: about 30 ms. */
#define HASH_BYTES (32u << 20)
/* A stream that got this much since its last break may break as often again. */
#define PROGRESS_BYTES (1u << 20)

enum slot_state { SLOT_FREE, SLOT_NEW, SLOT_HASH, SLOT_RUN, SLOT_WAIT };

struct slot {
    struct pull *pull;
    enum slot_state state;
    const struct registry_blob *blob;
    struct inflight *inflight;
    struct blob_writer *writer;
    struct fetch fetch;
    bool begun;     /* the answer's first bytes are here */
    bool fresh;     /* started from zero: a wrong digest is the registry's */
    u64 skip;       /* bytes of the answer that are on disk already */
    u64 have, told; /* bytes; UINT64_MAX: nothing told yet */
    u64 wake_ns;
    u32 n_tries;
    u64 tried_at; /* bytes at the last break */
};

struct pull {
    struct job job;
    struct slot slots[LIMIT_REGISTRY_STREAMS];
    u32 next_blob, n_done;
    u64 report_ns;
};

/* --- manifest --- */

static enum status manifest_get(struct pull *p, struct err *err) {
    struct job *j = &p->job;
    struct fetch f;
    fetch_init(&f);
    f.accept = MEDIA_MANIFEST_V2;
    f.answer_bytes_max = LIMIT_REGISTRY_MANIFEST_BYTES;
    enum status status = job_run(j, &f, job_url(j, "manifests", j->name.tag), err);
    if (status == OK && f.code != 200)
        status = fetch_error(&f, err);
    if (status == OK) {
        j->manifest_json = arena_str(&j->arena, buf_str(&f.answer));
        status = registry_manifest_parse(j->manifest_json, &j->arena, &j->manifest, err);
    }
    fetch_release(&f);
    return status;
}

/* Bytes of a blob that the disk holds, whole or as the part that an earlier pull left. */
static u64 bytes_there(struct pull *p, const struct registry_blob *b) {
    struct store *s = p->job.spec->store;
    struct stat part;
    u64 has;
    if (store_has_blob(s, str_of(b->digest), &has) && has == b->bytes)
        return has;
    struct str path = store_blob_path(s, str_of(b->digest), &p->job.arena);
    path = arena_printf(&p->job.arena, "%.*s-part", STR_FMT(path));
    return stat(path.p, &part) == 0 && part.st_size > 0 ? MIN((u64)part.st_size, b->bytes) : 0;
}

static enum status room_check(struct pull *p, struct err *err) {
    const struct registry_manifest *m = &p->job.manifest;
    struct store *s = p->job.spec->store;
    u64 missing = m->bytes;
    for (u32 i = 0; i < m->n_blobs; i++)
        missing -= bytes_there(p, &m->blobs[i]);
    struct statvfs fs;
    u64 room;
    if (statvfs(store_path(s), &fs) != 0 || mul_overflow(fs.f_bavail, fs.f_frsize, &room) || missing <= room)
        return OK;
    return err_set(err, ERR_IO,
                   "not enough room in %s: the model needs %llu MB, %llu MB are free; nothing was downloaded",
                   store_path(s), (unsigned long long)DIV_CEIL(missing, 1000000ull),
                   (unsigned long long)(room / 1000000));
}

/* --- one blob --- */

static void slot_told(struct slot *s) {
    s->told = s->have;
    job_say_blob(&s->pull->job, "pulling", s->blob, s->have);
}

static void slot_end(struct slot *s, bool keep) {
    fetch_release(&s->fetch);
    if (s->writer)
        blob_drop(s->writer, keep);
    inflight_drop(s->inflight);
    s->writer = NULL;
    s->inflight = NULL;
    s->state = SLOT_FREE;
}

static void slot_done(struct slot *s) {
    s->have = s->blob->bytes;
    slot_told(s);
    slot_end(s, true);
    s->pull->n_done++;
}

static void slot_wait(struct slot *s, u64 ns, enum slot_state then) {
    s->wake_ns = clock_ns() + ns;
    s->state = then;
}

/* The first bytes of an answer: where they belong in the blob. */
static enum status answer_place(struct slot *s, struct err *err) {
    const struct fetch *f = &s->fetch;
    u64 at = s->have, bytes = s->blob->bytes;
    s->begun = true;
    s->skip = 0;
    if (f->code == 206) {
        if (f->range_start != (i64)at || (f->range_total >= 0 && f->range_total != (i64)bytes))
            return err_set(err, ERR_CORRUPT, "the registry sends another range than asked for");
        return OK;
    }
    if (f->length >= 0 && (u64)f->length != bytes)
        return err_set(err, ERR_CORRUPT, "the registry has %lld bytes for a blob of %llu",
                       (long long)f->length, (unsigned long long)bytes);
    s->skip = at; /* it does not know ranges: the whole blob comes again */
    return OK;
}

static bool on_data(void *ctx, const void *p, size_t n) {
    struct slot *s = ctx;
    struct err *err = &s->fetch.refused;
    if (!s->begun && answer_place(s, err) != OK)
        return false;
    size_t skip = (size_t)MIN(s->skip, n);
    s->skip -= skip;
    n -= skip;
    if (n > s->blob->bytes - s->have) {
        err_set(err, ERR_CORRUPT, "the registry sends more than the %llu bytes of blob %.12s",
                (unsigned long long)s->blob->bytes, s->blob->digest + 7);
        return false;
    }
    if (n && blob_write(s->writer, (const char *)p + skip, n, err) != OK)
        return false;
    s->have += n;
    inflight_progress(s->inflight, s->have);
    return true;
}

/* The text names both digests as the reference does. */
static enum status mismatch(const struct slot *s, const struct err *inner, struct err *err) {
    struct str text = str_of(inner->text);
    size_t got = str_find(text, STR("got \""), 0);
    struct str digest = got == SIZE_MAX ? STR_NONE : str_slice(text, got + 5, got + 5 + 71);
    return err_set(err, ERR_CORRUPT, "digest mismatch, file must be downloaded again: want %s, got %.*s",
                   s->blob->digest, STR_FMT(digest));
}

static enum status slot_open(struct slot *s, struct err *err);

static enum status slot_finish(struct slot *s, struct err *err) {
    struct err inner;
    struct blob_writer *w = s->writer;
    bool fresh = s->fresh;
    s->writer = NULL;
    enum status status = blob_commit(w, NULL, NULL, &inner);
    if (status == OK) {
        slot_done(s);
        return OK;
    }
    if (status != ERR_INVALID) {
        if (err)
            *err = inner;
        return status;
    }
    if (fresh)
        return mismatch(s, &inner, err);
    /* The beginning came from an earlier time: perhaps it was damaged. Once more from zero. */
    log_warn("a resumed blob has the wrong digest, it is downloaded again", "digest=%s", s->blob->digest);
    fetch_release(&s->fetch);
    inflight_drop(s->inflight);
    s->inflight = NULL;
    return slot_open(s, err);
}

static enum status slot_ask(struct slot *s, struct err *err) {
    struct job *j = &s->pull->job;
    struct str url = job_url(j, "blobs", s->blob->digest);
    fetch_release(&s->fetch);
    s->fetch.on_data = on_data;
    s->fetch.ctx = s;
    s->fetch.range_from = s->have;
    s->begun = false;
    s->skip = 0;
    s->state = SLOT_RUN;
    return fetch_start(j->client, &s->fetch, url, err);
}

static enum status slot_hash(struct slot *s, struct err *err);

/* Finds out what is there of the blob. */
static enum status slot_open(struct slot *s, struct err *err) {
    struct store *store = s->pull->job.spec->store;
    struct str digest = str_of(s->blob->digest);
    u64 has;
    if (store_has_blob(store, digest, &has) && has == s->blob->bytes) {
        store_touch_blob(store, digest);
        slot_done(s);
        return OK;
    }
    s->inflight = inflight_take(store_path(store), s->blob->digest, &has);
    if (!s->inflight) {
        s->have = MIN(has, s->blob->bytes);
        slot_wait(s, WAIT_OTHER_NS, SLOT_NEW);
        return OK;
    }
    TRY(blob_open_part(store, digest, true, &s->writer, err));
    s->state = SLOT_HASH;
    return slot_hash(s, err);
}

/* Hashes what an earlier pull left, a little at a time: other blobs move meanwhile, and a cancel is seen. */
static enum status slot_hash(struct slot *s, struct err *err) {
    bool whole;
    TRY(blob_read_part(s->writer, HASH_BYTES, &whole, err));
    if (blob_bytes(s->writer) > s->blob->bytes) {
        TRY(blob_restart(s->writer, err));
        whole = true;
    }
    s->have = s->tried_at = blob_bytes(s->writer);
    s->fresh = s->have == 0;
    inflight_progress(s->inflight, s->have);
    if (!whole)
        return OK;
    return s->have == s->blob->bytes ? slot_finish(s, err) : slot_ask(s, err);
}

static enum status slot_retry(struct slot *s, struct err *err) {
    if (s->have >= s->tried_at + PROGRESS_BYTES)
        s->n_tries = 0;
    s->tried_at = s->have;
    if (s->n_tries >= LIMIT_REGISTRY_RETRIES) {
        struct err last = *err;
        return err_set(err, ERR_IO, "max retries exceeded: %.900s", last.text);
    }
    u64 ms = job_retry_ms(&s->pull->job, s->n_tries++);
    log_info("a download broke, it will go on", "digest=%.19s bytes=%llu pause_ms=%llu error=\"%.200s\"",
             s->blob->digest, (unsigned long long)s->have, (unsigned long long)ms, err->text);
    fetch_release(&s->fetch);
    slot_wait(s, ms * 1000000, SLOT_WAIT);
    return OK;
}

static enum status slot_answered(struct slot *s, struct err *err) {
    struct fetch *f = &s->fetch;
    enum status status = client_settle(s->pull->job.client, f, err);
    if (status != OK)
        return f->broken ? slot_retry(s, err) : status;
    if (f->state == FETCH_RUNNING) /* on its way to another place */
        return OK;
    if (f->code == 416 && s->have) {
        TRY(blob_restart(s->writer, err));
        s->have = s->tried_at = 0;
        s->fresh = true;
        return slot_ask(s, err);
    }
    if (f->code != 200 && f->code != 206) {
        status = fetch_error(f, err);
        return fetch_code_transient(f->code) ? slot_retry(s, err) : status;
    }
    if (s->have == s->blob->bytes)
        return slot_finish(s, err);
    err_set(err, ERR_IO, "unexpected EOF");
    return slot_retry(s, err);
}

static enum status slot_step(struct slot *s, struct err *err) {
    switch (s->state) {
    case SLOT_FREE: {
        struct pull *p = s->pull;
        if (p->next_blob == p->job.manifest.n_blobs)
            return OK;
        s->blob = &p->job.manifest.blobs[p->next_blob++];
        s->have = 0;
        s->told = UINT64_MAX;
        s->n_tries = 0;
        return slot_open(s, err);
    }
    case SLOT_NEW: return clock_ns() >= s->wake_ns ? slot_open(s, err) : OK;
    case SLOT_HASH: return slot_hash(s, err);
    case SLOT_WAIT: return clock_ns() >= s->wake_ns ? slot_ask(s, err) : OK;
    case SLOT_RUN: return s->fetch.state == FETCH_FINISHED ? slot_answered(s, err) : OK;
    }
    return OK;
}

/* --- all blobs --- */

static void report(struct pull *p) {
    u64 now = clock_ns();
    if (now < p->report_ns)
        return;
    p->report_ns = now + REPORT_NS;
    for (u32 i = 0; i < LIMIT_REGISTRY_STREAMS; i++)
        if (p->slots[i].state != SLOT_FREE && p->slots[i].told != p->slots[i].have)
            slot_told(&p->slots[i]);
}

static bool hashing(const struct pull *p) {
    for (u32 i = 0; i < LIMIT_REGISTRY_STREAMS; i++)
        if (p->slots[i].state == SLOT_HASH)
            return true;
    return false;
}

static enum status blobs_get(struct pull *p, struct err *err) {
    while (p->n_done < p->job.manifest.n_blobs) {
        u32 n_done = p->n_done;
        for (u32 i = 0; i < LIMIT_REGISTRY_STREAMS; i++)
            TRY(slot_step(&p->slots[i], err));
        report(p);
        TRY(client_turn(p->job.client, p->n_done == n_done && !hashing(p) ? 50 : 0, err));
    }
    return OK;
}

static enum status pull_run(struct pull *p, struct err *err) {
    struct job *j = &p->job;
    struct err inner;
    job_say(j, "pulling manifest");
    enum status status = manifest_get(p, &inner);
    if (status == ERR_CANCELED)
        return err_set(err, status, "context canceled");
    if (status != OK)
        return err_set(err, status, "pull model manifest: %.900s", inner.text);
    TRY(room_check(p, err));
    TRY(blobs_get(p, err));
    job_say(j, "verifying sha256 digest");
    job_say(j, "writing manifest");
    u32 n_unused = 0;
    TRY(store_put_manifest(j->spec->store, &j->name, j->manifest_json, &n_unused, err));
    if (n_unused)
        job_say(j, "removing unused layers");
    job_say(j, "success");
    return OK;
}

enum status registry_pull(const struct registry_job *spec, struct err *err) {
    struct pull p = {0};
    int hold = -1;
    for (u32 i = 0; i < LIMIT_REGISTRY_STREAMS; i++) {
        p.slots[i].pull = &p;
        fetch_init(&p.slots[i].fetch);
    }
    enum status status = job_open(&p.job, spec, err);
    if (status == OK && (status = store_hold(spec->store, &hold, err)) == OK) {
        status = pull_run(&p, err);
        for (u32 i = 0; i < LIMIT_REGISTRY_STREAMS; i++)
            slot_end(&p.slots[i], true);
        store_release(spec->store, hold);
    }
    job_close(&p.job);
    return status;
}
