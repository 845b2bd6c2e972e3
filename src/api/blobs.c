/* blobs.c - HEAD and POST /api/blobs/:digest: a blob comes in pieces and goes to disk on a pool thread.
 *
 * While one buffer is written the next one fills; when that is full too the connection waits, so an upload
 * takes two buffers of memory whatever its size. What is refused is read to its end first, so that the client
 * sees the answer instead of a broken connection. */
#include <stdio.h>
#include <stdlib.h>

#include "api/call.h"
#include "base/limit.h"

struct upload {
    struct call *call; /* NULL once the client is gone */
    struct api *api;
    uv_loop_t *loop;
    char digest[72];
    u32 code; /* of the answer; 0 = bytes are wanted */
    bool busy, held, ended;
    struct buf filling;
    /* Below: the pool thread's while busy. */
    uv_work_t request;
    struct buf writing;
    bool last;
    struct blob_writer *writer;
    bool created;
    enum status status;
    struct err err;
};

static void upload_free(struct upload *u) {
    if (u->writer)
        blob_drop(u->writer, false);
    u->api->n_uploads--;
    buf_release(&u->filling);
    buf_release(&u->writing);
    free(u);
}

static void answer(struct upload *u) {
    struct call *c = u->call;
    if (u->code >= 400) {
        if (u->code == 503)
            http_add_header(c->http, "Retry-After", STR("1"));
        call_refuse(c, u->code, str_of(u->err.text));
        return;
    }
    c->state = CALL_OVER;
    http_reply(c->http, u->code, NULL, STR_NONE);
}

/* --- on the pool --- */

static enum status write_some(struct upload *u) {
    if (!u->writer)
        TRY(blob_open(u->api->store, str_of(u->digest), false, &u->writer, &u->err));
    if (u->writing.n)
        TRY(blob_write(u->writer, u->writing.p, u->writing.n, &u->err));
    if (!u->last)
        return OK;
    struct blob_writer *w = u->writer;
    u->writer = NULL;
    return blob_commit(w, NULL, &u->created, &u->err);
}

static void run(uv_work_t *request) {
    struct upload *u = request->data;
    u->status = write_some(u);
}

/* --- on the loop --- */

static void after(uv_work_t *request, int canceled);

static void write_start(struct upload *u) {
    struct buf empty = u->writing;
    buf_clear(&empty);
    u->writing = u->filling;
    u->filling = empty;
    u->last = u->ended;
    u->busy = true;
    u->request.data = u;
    check(uv_queue_work(u->loop, &u->request, run, after) == 0);
}

static void after(uv_work_t *request, int canceled) {
    struct upload *u = request->data;
    (void)canceled;
    u->busy = false;
    if (!u->call) {
        upload_free(u);
        return;
    }
    if (u->status != OK)
        u->code = http_code(u->status);
    else if (u->last)
        u->code = u->created ? 201 : 200;
    if (u->code && u->ended)
        answer(u);
    else if (!u->code && (u->filling.n || u->ended))
        write_start(u);
    if (u->held && !u->ended) {
        u->held = false;
        http_body_continue(u->call->http);
    }
}

void upload_begin(struct call *c, struct str digest) {
    struct upload *u = xcalloc(1, sizeof *u);
    u->call = c;
    u->api = c->api;
    u->loop = http_loop(c->http);
    c->upload = u;
    struct str path = store_blob_path(c->api->store, digest, &c->arena);
    if (c->api->n_uploads++ >= LIMIT_UPLOADS) {
        u->code = 503;
        err_set(&u->err, ERR_BUSY, "server busy, please try again.  too many uploads at once");
    } else if (!path.n) {
        u->code = 400;
        err_set(&u->err, ERR_INVALID, "invalid digest format");
    } else if (store_has_blob(c->api->store, digest, NULL)) {
        u->code = 200;
    } else {
        snprintf(u->digest, sizeof u->digest, "sha256:%.64s", digest.p + 7);
    }
}

bool upload_piece(struct call *c, struct str piece) {
    struct upload *u = c->upload;
    if (u->code)
        return true;
    buf_add_str(&u->filling, piece);
    if (!u->busy)
        write_start(u);
    u->held = u->filling.n >= LIMIT_UPLOAD_BYTES;
    return !u->held;
}

void upload_end(struct call *c) {
    struct upload *u = c->upload;
    u->ended = true;
    if (u->busy)
        return;
    if (u->code)
        answer(u);
    else
        write_start(u);
}

void upload_gone(struct call *c) {
    struct upload *u = c->upload;
    u->call = NULL;
    if (!u->busy)
        upload_free(u);
}

void handle_blob_head(struct call *c, struct str digest) {
    struct err err;
    if (!store_blob_path(c->api->store, digest, &c->arena).n) {
        call_refuse(c, 400, STR("invalid digest format"));
    } else if (!store_has_blob(c->api->store, digest, NULL)) {
        err_set(&err, ERR_NOT_FOUND, "blob \"%.*s\" not found", STR_FMT(digest));
        call_refuse(c, 404, str_of(err.text));
    } else {
        c->state = CALL_OVER;
        http_reply(c->http, 200, NULL, STR_NONE);
    }
}
