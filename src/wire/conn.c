/* conn.c - frames on a non-blocking Unix stream socket.
 *
 * Outgoing: messages of one frame are appended to `out` at once, so that all events of a step leave in one
 * write. Longer ones wait in `bulk` and add one frame each whenever `out` has drained; messages of a
 * stream that is in bulk go there too, which keeps the order within a stream.
 * Incoming: bytes gather in `in`; frames of unfinished messages are collected per stream. */
#include "wire/wire.h"

#include "base/limit.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define FLAG_LAST 1u
#define FDS_MAX 64u
#define READ_BYTES (256u * 1024u)

struct bulk {
    struct bulk *next;
    enum wire_type type;
    u64 stream_id;
    struct buf payload;
    size_t at;
};

struct partial {
    struct partial *next;
    enum wire_type type;
    u64 stream_id;
    struct buf payload;
};

struct wire_conn {
    int fd;
    struct buf out;
    u64 out_base; /* stream offset of out.p[0] */
    struct bulk *bulk;
    struct { u64 at; int fd; } out_fds[FDS_MAX]; /* descriptor to send with the byte at this offset */
    u32 n_out_fds;
    struct buf in;
    size_t in_at; /* bytes of in that wire_next has taken */
    struct partial *partials;
    size_t partial_bytes;
    int in_fds[FDS_MAX]; /* received, not yet given to a MODEL */
    u32 n_in_fds;
    bool eof;
    struct buf scratch;
};

struct wire_conn *wire_conn_new(int fd) {
    struct wire_conn *c = xcalloc(1, sizeof *c);
    c->fd = fd;
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    return c;
}

void wire_conn_free(struct wire_conn *c) {
    if (!c)
        return;
    for (struct bulk *b = c->bulk, *next; b; b = next) {
        next = b->next;
        buf_release(&b->payload);
        free(b);
    }
    for (struct partial *p = c->partials, *next; p; p = next) {
        next = p->next;
        buf_release(&p->payload);
        free(p);
    }
    for (u32 i = 0; i < c->n_out_fds; i++)
        close(c->out_fds[i].fd);
    for (u32 i = 0; i < c->n_in_fds; i++)
        close(c->in_fds[i]);
    buf_release(&c->out);
    buf_release(&c->in);
    buf_release(&c->scratch);
    close(c->fd);
    free(c);
}

int wire_conn_fd(const struct wire_conn *c) { return c->fd; }

/* --- sending --- */

static void add_frame(struct wire_conn *c, enum wire_type type, u64 stream_id, struct str payload, bool last) {
    struct { u32 bytes; u16 type, flags; u64 stream_id; } header = {
        u32_of(payload.n), (u16)type, last ? FLAG_LAST : 0, stream_id};
    _Static_assert(sizeof header == WIRE_HEADER_BYTES, "header has no padding");
    buf_add(&c->out, &header, sizeof header);
    buf_add_str(&c->out, payload);
}

static bool stream_in_bulk(const struct wire_conn *c, u64 stream_id) {
    for (const struct bulk *b = c->bulk; b; b = b->next)
        if (b->stream_id == stream_id)
            return true;
    return false;
}

static void add_bulk(struct wire_conn *c, enum wire_type type, u64 stream_id) {
    struct bulk *b = xcalloc(1, sizeof *b), **end = &c->bulk;
    b->type = type;
    b->stream_id = stream_id;
    b->payload = c->scratch;
    c->scratch = (struct buf){0};
    while (*end)
        end = &(*end)->next;
    *end = b;
}

void wire_send(struct wire_conn *c, const struct wire_message *m, int fd) {
    buf_clear(&c->scratch);
    wire_encode(&c->scratch, m);
    bool long_one = c->scratch.n > WIRE_PAYLOAD_MAX || (c->bulk && stream_in_bulk(c, m->stream_id));
    if (fd >= 0) {
        check(!long_one && c->n_out_fds < FDS_MAX);
        c->out_fds[c->n_out_fds].at = c->out_base + c->out.n;
        c->out_fds[c->n_out_fds++].fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    }
    if (long_one)
        add_bulk(c, m->type, m->stream_id);
    else
        add_frame(c, m->type, m->stream_id, buf_str(&c->scratch), true);
}

/* One frame of the first bulk message of every stream. */
static void refill(struct wire_conn *c) {
    for (struct bulk **at = &c->bulk; *at;) {
        struct bulk *b = *at;
        bool earlier = false; /* an unfinished message of the same stream is in front */
        for (struct bulk *o = c->bulk; o != b; o = o->next)
            earlier |= o->stream_id == b->stream_id;
        if (earlier) {
            at = &b->next;
            continue;
        }
        size_t n = MIN(b->payload.n - b->at, (size_t)WIRE_PAYLOAD_MAX);
        bool last = b->at + n == b->payload.n;
        add_frame(c, b->type, b->stream_id, str_slice(buf_str(&b->payload), b->at, b->at + n), last);
        b->at += n;
        if (last) {
            *at = b->next;
            buf_release(&b->payload);
            free(b);
        } else {
            at = &b->next;
        }
    }
}

static ssize_t send_some(struct wire_conn *c) {
    union { struct cmsghdr align; char bytes[CMSG_SPACE(sizeof(int))]; } control = {0};
    struct iovec iov = {c->out.p, c->out.n};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    if (c->n_out_fds && c->out_fds[0].at == c->out_base) {
        msg.msg_control = control.bytes;
        msg.msg_controllen = sizeof control.bytes;
        struct cmsghdr *h = CMSG_FIRSTHDR(&msg);
        h->cmsg_level = SOL_SOCKET;
        h->cmsg_type = SCM_RIGHTS;
        h->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(h), &c->out_fds[0].fd, sizeof(int));
    }
    u32 next_fd = msg.msg_control ? 1 : 0;
    if (c->n_out_fds > next_fd)
        iov.iov_len = MIN(iov.iov_len, (size_t)(c->out_fds[next_fd].at - c->out_base));
    ssize_t n = sendmsg(c->fd, &msg, MSG_NOSIGNAL);
    if (n > 0 && msg.msg_control) {
        close(c->out_fds[0].fd);
        memmove(c->out_fds, c->out_fds + 1, sizeof c->out_fds[0] * --c->n_out_fds);
    }
    return n;
}

enum status wire_flush(struct wire_conn *c, struct err *err) {
    for (;;) {
        if (c->out.n == 0 && c->bulk)
            refill(c);
        if (c->out.n == 0)
            return OK;
        ssize_t n = send_some(c);
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            return OK;
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_errno(err, ERR_IO, "cannot write to the other process");
        buf_consume(&c->out, (size_t)n);
        c->out_base += (u64)n;
    }
}

bool wire_wants_write(const struct wire_conn *c) { return c->out.n || c->bulk; }

size_t wire_queued_bytes(const struct wire_conn *c) {
    size_t n = c->out.n;
    for (const struct bulk *b = c->bulk; b; b = b->next)
        n += b->payload.n - b->at;
    return n;
}

/* --- receiving --- */

/* Takes over the descriptors of a message; false if there are more than we can hold. */
static bool take_fds(struct wire_conn *c, struct msghdr *msg) {
    bool room = !(msg->msg_flags & MSG_CTRUNC);
    for (struct cmsghdr *h = CMSG_FIRSTHDR(msg); h; h = CMSG_NXTHDR(msg, h)) {
        if (h->cmsg_level != SOL_SOCKET || h->cmsg_type != SCM_RIGHTS)
            continue;
        size_t n = (h->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < n; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(h) + i * sizeof fd, sizeof fd);
            if (c->n_in_fds < FDS_MAX) {
                c->in_fds[c->n_in_fds++] = fd;
            } else {
                close(fd);
                room = false;
            }
        }
    }
    return room;
}

enum status wire_read(struct wire_conn *c, struct err *err) {
    if (c->in_at) {
        buf_consume(&c->in, c->in_at);
        c->in_at = 0;
    }
    for (;;) {
        union { struct cmsghdr align; char bytes[CMSG_SPACE(16 * sizeof(int))]; } control;
        buf_reserve(&c->in, READ_BYTES);
        struct iovec iov = {c->in.p + c->in.n, READ_BYTES};
        struct msghdr msg = {
            .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof control.bytes};
        ssize_t n = recvmsg(c->fd, &msg, MSG_CMSG_CLOEXEC);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            return OK;
        if (n < 0)
            return err_errno(err, ERR_IO, "cannot read from the other process");
        if (!take_fds(c, &msg))
            return err_set(err, ERR_CORRUPT, "too many descriptors arrived");
        if (n == 0) {
            c->eof = true;
            return OK;
        }
        c->in.n += (size_t)n;
        if ((size_t)n < READ_BYTES || c->in.n > LIMIT_WIRE_MESSAGE_BYTES)
            return OK;
    }
}

/* Adds a frame to its unfinished message; returns that message when the frame is the last. */
static enum status add_partial(struct wire_conn *c, enum wire_type type, u64 stream_id, struct str payload, bool last,
                               struct partial **done, struct err *err) {
    struct partial **at = &c->partials;
    while (*at && (*at)->stream_id != stream_id)
        at = &(*at)->next;
    struct partial *p = *at;
    if (p && p->type != type)
        return err_set(err, ERR_CORRUPT, "wire frames of two messages are mixed in stream %llu",
                       (unsigned long long)stream_id);
    if (!p) {
        p = xcalloc(1, sizeof *p);
        p->type = type;
        p->stream_id = stream_id;
        *at = p;
    }
    if (p->payload.n + payload.n > LIMIT_WIRE_MESSAGE_BYTES || c->partial_bytes + payload.n > 4ull * LIMIT_WIRE_MESSAGE_BYTES)
        return err_set(err, ERR_CORRUPT, "a wire message is over its limit of %u bytes", LIMIT_WIRE_MESSAGE_BYTES);
    buf_add_str(&p->payload, payload);
    c->partial_bytes += payload.n;
    if (!last)
        return OK;
    *at = p->next;
    c->partial_bytes -= p->payload.n;
    *done = p;
    return OK;
}

static enum status take_model_fd(struct wire_conn *c, int *fd, struct err *err) {
    if (c->n_in_fds == 0)
        return err_set(err, ERR_CORRUPT, "a model message came without its descriptor");
    *fd = c->in_fds[0];
    memmove(c->in_fds, c->in_fds + 1, sizeof c->in_fds[0] * --c->n_in_fds);
    return OK;
}

enum status wire_next(struct wire_conn *c, struct arena *arena, struct wire_message *out, int *fd, bool *got,
                      struct err *err) {
    *got = false;
    *fd = -1;
    for (;;) {
        struct str left = str_slice(buf_str(&c->in), c->in_at, SIZE_MAX);
        if (left.n < WIRE_HEADER_BYTES)
            break;
        u32 bytes = load_u32(left.p);
        enum wire_type type = (enum wire_type)load_u16(left.p + 4);
        u32 flags = load_u16(left.p + 6);
        u64 stream_id = load_u64(left.p + 8);
        if (bytes > WIRE_PAYLOAD_MAX || flags > FLAG_LAST)
            return err_set(err, ERR_CORRUPT, "a wire frame of %u bytes, flags %u is no frame", bytes, flags);
        if (left.n - WIRE_HEADER_BYTES < bytes)
            break;
        struct str payload = str_slice(left, WIRE_HEADER_BYTES, WIRE_HEADER_BYTES + bytes);
        c->in_at += WIRE_HEADER_BYTES + bytes;
        struct partial *done = NULL;
        bool single = (flags & FLAG_LAST) && !c->partials;
        if (!single) {
            TRY(add_partial(c, type, stream_id, payload, flags & FLAG_LAST, &done, err));
            if (!done)
                continue;
            payload = buf_str(&done->payload);
        }
        enum status status = wire_decode(payload, type, stream_id, arena, out, err);
        if (done) {
            buf_release(&done->payload);
            free(done);
        }
        TRY(status);
        if (type == WIRE_MODEL)
            TRY(take_model_fd(c, fd, err));
        *got = true;
        return OK;
    }
    if (c->eof)
        return err_set(err, ERR_IO, "the other process has closed the connection");
    return OK;
}
