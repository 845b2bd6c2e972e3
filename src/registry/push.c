/* push.c - a model goes out: each blob that the registry lacks by one upload session, then the manifest. A
 * session that breaks is begun anew: what the registry took of it is not known.
 *
 *   HEAD blob: there -> next
 *   POST uploads: 201 mounted from another model -> next, else 202 and where to send
 *   PATCH part... : 202 and where the next one goes, or 307: PUT the part to a storage server
 *   PUT with the digest: the blob is there */
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/limit.h"
#include "base/log.h"
#include "registry/job.h"

#define REPORT_NS 60000000ull
/* The reference's parts: a sixteenth, within these bounds. */
#define PART_BYTES_MIN 100000000ull
#define PART_BYTES_MAX 1000000000ull
/* A registry hashes the whole blob before it answers the last request. */
#define COMMIT_STALL_S 600u

struct upload {
    struct job *job;
    const struct registry_blob *blob;
    int fd;
    struct fetch fetch;
    struct buf location;   /* where the next request goes */
    EVP_MD_CTX *parts_md5; /* over the MD5 sums of the parts: storage servers call that the ETag */
    u32 n_parts;
};

/* The reference's answer to whatever goes wrong is its text; 404 on a path of ours is one of them. */
static enum status answer_check(const struct fetch *f, struct err *err) {
    return f->code >= 200 && f->code < 300 ? OK : fetch_error(f, err);
}

/* Sends f and reports how much of the blob has gone; before: bytes of earlier parts. */
static enum status send_reporting(struct upload *u, struct str url, u64 before, struct err *err) {
    struct client *c = u->job->client;
    struct fetch *f = &u->fetch;
    u64 report_ns = 0, told = UINT64_MAX;
    TRY(fetch_start(c, f, url, err));
    for (;;) {
        while (f->state == FETCH_RUNNING) {
            u64 now = clock_ns();
            if (now >= report_ns && told != f->sent) {
                report_ns = now + REPORT_NS;
                told = f->sent;
                job_say_blob(u->job, "pushing", u->blob, before + told);
            }
            TRY(client_turn(c, 50, err));
        }
        TRY(client_settle(c, f, err));
        if (f->state == FETCH_FINISHED)
            return OK;
    }
}

/* Where the next request goes, seen from the last one. */
static enum status location_take(struct upload *u, struct err *err) {
    struct fetch *f = &u->fetch;
    struct buf *to = f->upload_location.n ? &f->upload_location : &f->location;
    if (to->n == 0)
        return err_set(err, ERR_CORRUPT, "the registry does not say where to send the blob");
    buf_clear(&u->location);
    return fetch_resolve(f, buf_str(to), &u->location, err);
}

static enum status session_begin(struct upload *u, bool *mounted, struct err *err) {
    struct job *j = u->job;
    struct fetch *f = &u->fetch;
    struct str url = job_url(j, "blobs", "uploads/");
    if (u->blob->from.n)
        url = arena_printf(&j->arena, "%.*s?mount=%s&from=%.*s", STR_FMT(url), u->blob->digest,
                           STR_FMT(u->blob->from));
    fetch_release(f);
    f->method = "POST";
    TRY(client_run(j->client, f, url, err));
    TRY(answer_check(f, err));
    *mounted = f->code == 201;
    return *mounted ? OK : location_take(u, err);
}

static enum status part_md5(struct upload *u, u64 from, u64 bytes, struct err *err) {
    char *chunk = xmalloc(1 << 20);
    u8 sum[EVP_MAX_MD_SIZE];
    unsigned n_sum = 0;
    EVP_MD_CTX *md5 = EVP_MD_CTX_new();
    bool ok = md5 && EVP_DigestInit_ex(md5, EVP_md5(), NULL) == 1;
    for (u64 at = 0; ok && at < bytes;) {
        ssize_t got = pread(u->fd, chunk, (size_t)MIN(bytes - at, 1u << 20), (off_t)(from + at));
        ok = got > 0 && EVP_DigestUpdate(md5, chunk, (size_t)got) == 1;
        at += ok ? (u64)got : 0;
    }
    ok = ok && EVP_DigestFinal_ex(md5, sum, &n_sum) == 1 && EVP_DigestUpdate(u->parts_md5, sum, n_sum) == 1;
    EVP_MD_CTX_free(md5);
    free(chunk);
    return ok ? OK : err_set(err, ERR_IO, "cannot read blob %s", u->blob->digest);
}

/* The registry sends the part on to a storage server; the token stays here. */
static enum status part_store(struct upload *u, u64 from, u64 bytes, struct err *err) {
    struct fetch *f = &u->fetch;
    struct buf to = {0}, next = {0};
    if (f->upload_location.n == 0)
        return err_set(err, ERR_CORRUPT, "the registry does not say where the next part goes");
    enum status status = fetch_resolve(f, buf_str(&f->location), &to, err);
    if (status == OK)
        status = fetch_resolve(f, buf_str(&f->upload_location), &next, err);
    if (status == OK) {
        fetch_release(f);
        f->method = "PUT";
        f->body_fd = u->fd;
        f->body_from = from;
        f->body_bytes = bytes;
        f->foreign = f->keep_redirect = true;
        status = send_reporting(u, buf_str(&to), from, err);
    }
    if (status == OK)
        status = answer_check(f, err);
    buf_release(&to);
    buf_release(&u->location);
    u->location = next;
    return status;
}

static enum status part_send(struct upload *u, u64 from, u64 bytes, struct err *err) {
    struct fetch *f = &u->fetch;
    char range[96];
    TRY(part_md5(u, from, bytes, err));
    snprintf(range, sizeof range, "Content-Range: %llu-%llu", (unsigned long long)from,
             (unsigned long long)(from + bytes - (bytes > 0)));
    struct str extra = arena_printf(&u->job->arena, "%s", range);
    fetch_release(f);
    f->method = "PATCH";
    f->content_type = "application/octet-stream";
    f->extra_header = extra.p;
    f->redirects_uploads = true;
    f->body_fd = u->fd;
    f->body_from = from;
    f->body_bytes = bytes;
    u->n_parts++;
    TRY(send_reporting(u, buf_str(&u->location), from, err));
    if (f->code == 307 && f->location.n)
        return part_store(u, from, bytes, err);
    TRY(answer_check(f, err));
    return location_take(u, err);
}

static enum status session_commit(struct upload *u, struct err *err) {
    struct fetch *f = &u->fetch;
    u8 sum[EVP_MAX_MD_SIZE];
    unsigned n = 0;
    check(EVP_DigestFinal_ex(u->parts_md5, sum, &n) == 1);
    bool query = str_find(buf_str(&u->location), STR("?"), 0) != SIZE_MAX;
    buf_printf(&u->location, "%cdigest=%s&etag=", query ? '&' : '?', u->blob->digest);
    for (unsigned i = 0; i < n; i++)
        buf_printf(&u->location, "%02x", sum[i]);
    buf_printf(&u->location, "-%u", u->n_parts);
    fetch_release(f);
    f->method = "PUT";
    f->content_type = "application/octet-stream";
    f->stall_s = COMMIT_STALL_S;
    TRY(client_run(u->job->client, f, buf_str(&u->location), err));
    return answer_check(f, err);
}

/* One session, from its beginning. u->fetch tells afterwards whether another try makes sense. */
static enum status blob_send(struct upload *u, struct err *err) {
    bool mounted;
    u64 bytes = u->blob->bytes, part = MAX(MIN(bytes / 16, PART_BYTES_MAX), PART_BYTES_MIN);
    TRY(session_begin(u, &mounted, err));
    if (mounted)
        return OK;
    u->n_parts = 0;
    check(EVP_DigestInit_ex(u->parts_md5, EVP_md5(), NULL) == 1);
    for (u64 at = 0; at < bytes || u->n_parts == 0; at += part)
        TRY(part_send(u, at, MIN(part, bytes - at), err));
    return session_commit(u, err);
}

static enum status blob_there(struct upload *u, bool *there, struct err *err) {
    struct fetch *f = &u->fetch;
    fetch_release(f);
    f->method = "HEAD";
    TRY(job_run(u->job, f, job_url(u->job, "blobs", u->blob->digest), err));
    *there = f->code >= 200 && f->code < 300;
    return *there || f->code == 404 ? OK : fetch_error(f, err);
}

static enum status blob_push(struct upload *u, struct err *err) {
    bool there;
    TRY(blob_there(u, &there, err));
    for (u32 n = 0; !there; n++) {
        enum status status = blob_send(u, err);
        if (status == OK)
            break;
        bool again = u->fetch.broken || fetch_code_transient(u->fetch.code);
        if (!again || n == LIMIT_REGISTRY_RETRIES || status == ERR_CANCELED)
            return status;
        log_info("an upload broke, it is begun again", "digest=%.19s error=\"%.200s\"", u->blob->digest,
                 err->text);
        TRY(client_wait(u->job->client, job_retry_ms(u->job, n), err));
    }
    job_say_blob(u->job, "pushing", u->blob, u->blob->bytes);
    return OK;
}

static enum status blob_open_push(struct job *j, const struct registry_blob *b, struct err *err) {
    struct upload u = {.job = j, .blob = b, .fd = -1, .parts_md5 = EVP_MD_CTX_new()};
    u64 bytes;
    check(u.parts_md5);
    fetch_init(&u.fetch);
    enum status status = store_open_blob(j->spec->store, str_of(b->digest), &u.fd, &bytes, err);
    if (status == OK && bytes != b->bytes)
        status = err_set(err, ERR_CORRUPT, "blob %s has another size than its manifest says", b->digest);
    if (status == OK)
        status = blob_push(&u, err);
    if (u.fd >= 0)
        close(u.fd);
    fetch_release(&u.fetch);
    buf_release(&u.location);
    EVP_MD_CTX_free(u.parts_md5);
    return status;
}

static enum status manifest_push(struct job *j, struct err *err) {
    struct fetch f;
    fetch_init(&f);
    f.method = "PUT";
    f.content_type = MEDIA_MANIFEST_V2;
    f.body = j->manifest_json;
    f.stall_s = COMMIT_STALL_S;
    enum status status = job_run(j, &f, job_url(j, "manifests", j->name.tag), err);
    if (status == OK)
        status = answer_check(&f, err);
    fetch_release(&f);
    return status;
}

static enum status push_run(struct job *j, struct err *err) {
    struct err inner;
    enum status status = store_read_manifest(j->spec->store, &j->name, &j->arena, &j->manifest_json, &inner);
    if (status == OK)
        status = registry_manifest_parse(j->manifest_json, &j->arena, &j->manifest, &inner);
    if (status != OK) {
        job_say(j, "couldn't retrieve manifest");
        return status == ERR_NOT_FOUND
                   ? err_set(err, status, "model \"%s\" not found", model_name_short(&j->name, &j->arena).p)
                   : err_set(err, status, "%s", inner.text);
    }
    for (u32 i = 0; i < j->manifest.n_blobs; i++)
        TRY(blob_open_push(j, &j->manifest.blobs[i], err));
    job_say(j, "pushing manifest");
    TRY(manifest_push(j, err));
    job_say(j, "success");
    return OK;
}

enum status registry_push(const struct registry_job *spec, struct err *err) {
    struct job j;
    struct transfer_progress first = {.status = STR("retrieving manifest")};
    int hold = -1;
    spec->on_progress(spec->ctx, &first);
    enum status status = job_open(&j, spec, err);
    if (status == OK && store_writable(spec->store))
        status = store_hold(spec->store, &hold, err);
    if (status == OK)
        status = push_run(&j, err);
    if (hold >= 0)
        store_release(spec->store, hold);
    job_close(&j);
    return status;
}
