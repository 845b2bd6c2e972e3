/* httpd.c - the daemon in the loop: start, pump, drain, stop.
 *
 * libmicrohttpd runs without threads on its own epoll descriptor, which is one watch in the libuv loop. It is
 * entered in one place only, pump(), from an idle handle: whoever changes something calls httpd_wake(), so
 * nothing recurses and many stream writes in one turn cost one run. */
#include "http/httpd_own.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

/* Rounds of one pump: libmicrohttpd asks to run again while it has buffered input; others get their turn. */
#define PUMP_ROUNDS 64
/* Held per connection: the header block with its index, and cookies a second time. */
#define CONNECTION_MEMORY_BYTES (LIMIT_HEADER_BYTES * 3 / 2)

static void on_timer(uv_timer_t *t) { httpd_wake(t->data); }

static void pump(struct httpd *d) {
    for (int i = 0; i < PUMP_ROUNDS; i++) {
        d->in_mhd = true;
        MHD_run(d->mhd);
        d->in_mhd = false;
        MHD_UNSIGNED_LONG_LONG ms;
        if (MHD_get_timeout(d->mhd, &ms) != MHD_YES) {
            uv_timer_stop(&d->timer);
            return;
        }
        if (ms > 0) {
            uv_timer_start(&d->timer, on_timer, ms, 0);
            return;
        }
    }
    httpd_wake(d);
}

static void on_soon(uv_idle_t *soon) {
    uv_idle_stop(soon);
    pump(soon->data);
}

void httpd_wake(struct httpd *d) {
    /* An idle handle keeps the loop from sleeping and runs before it polls. */
    if (!d->stopping)
        uv_idle_start(&d->soon, on_soon);
}

static void on_epoll(uv_poll_t *p, int status, int events) {
    (void)status, (void)events;
    httpd_wake(p->data);
}

/* Returns s's length: the path stays raw, we decode it ourselves. */
static size_t keep_raw(void *cls, struct MHD_Connection *c, char *s) {
    (void)cls, (void)c;
    return strlen(s);
}

static void process_prepare(void) {
    signal(SIGPIPE, SIG_IGN);
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur < files.rlim_max) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
}

static void limits_fill(struct httpd_options *o) {
    if (!o->body_bytes_max)
        o->body_bytes_max = LIMIT_BODY_BYTES;
    if (!o->bodies_bytes_max)
        o->bodies_bytes_max = LIMIT_BODIES_BYTES;
    if (!o->header_ms)
        o->header_ms = LIMIT_HEADER_MS;
    if (!o->body_stall_ms)
        o->body_stall_ms = LIMIT_BODY_STALL_MS;
    if (!o->body_stall_bytes)
        o->body_stall_bytes = LIMIT_BODY_STALL_BYTES;
    if (!o->idle_ms)
        o->idle_ms = LIMIT_IDLE_MS;
    if (!o->stream_stall_ms)
        o->stream_stall_ms = LIMIT_STREAM_STALL_MS;
    if (!o->connections_max)
        o->connections_max = LIMIT_CONNECTIONS;
}

static struct MHD_Daemon *daemon_start(struct httpd *d, int fd) {
    return MHD_start_daemon(
        MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME, 0, NULL, NULL, request_access, d, MHD_OPTION_LISTEN_SOCKET,
        (MHD_socket)fd, MHD_OPTION_NOTIFY_CONNECTION, conn_notify, d, MHD_OPTION_NOTIFY_COMPLETED,
        request_completed, d, MHD_OPTION_URI_LOG_CALLBACK, request_uri, d, MHD_OPTION_UNESCAPE_CALLBACK,
        keep_raw, NULL, MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONNECTION_MEMORY_BYTES,
        MHD_OPTION_CONNECTION_LIMIT, (unsigned)d->limit.connections_max, MHD_OPTION_STRICT_FOR_CLIENT, 1,
        MHD_OPTION_END);
}

static void on_handle_closed(uv_handle_t *h) {
    struct httpd *d = h->data;
    if (--d->n_handles_open == 0)
        free(d);
}

enum status httpd_start_with(uv_loop_t *loop, int fd, const struct httpd_handler *h,
                             const struct httpd_options *o, struct httpd **out, struct err *err) {
    process_prepare();
    struct httpd *d = xcalloc(1, sizeof *d);
    d->loop = loop;
    d->handler = *h;
    if (o)
        d->limit = *o;
    limits_fill(&d->limit);
    d->mhd = daemon_start(d, fd);
    if (!d->mhd) {
        enum status s = err_errno(err, ERR_IO, "cannot start the HTTP server");
        close(fd);
        free(d);
        return s;
    }
    int epoll_fd = MHD_get_daemon_info(d->mhd, MHD_DAEMON_INFO_EPOLL_FD)->epoll_fd;
    int failed = uv_poll_init(loop, &d->epoll, epoll_fd);
    if (failed) {
        MHD_stop_daemon(d->mhd);
        free(d);
        return err_set(err, ERR_IO, "cannot watch the HTTP server's sockets: %s", uv_strerror(failed));
    }
    uv_timer_init(loop, &d->timer);
    uv_idle_init(loop, &d->soon);
    d->epoll.data = d->timer.data = d->soon.data = d;
    d->n_handles_open = 3;
    uv_poll_start(&d->epoll, UV_READABLE, on_epoll);
    httpd_wake(d);
    *out = d;
    return OK;
}

enum status httpd_start(uv_loop_t *loop, int fd, const struct httpd_handler *h, struct httpd **out,
                        struct err *err) {
    return httpd_start_with(loop, fd, h, NULL, out, err);
}

void httpd_drain(struct httpd *d) {
    if (d->draining)
        return;
    d->draining = true;
    MHD_socket fd = MHD_quiesce_daemon(d->mhd);
    if (fd != MHD_INVALID_SOCKET)
        close(fd);
    for (struct conn *k = d->conns; k; k = k->next)
        conn_recheck(k);
    httpd_wake(d);
}

u32 httpd_connections(const struct httpd *d) { return (u32)d->n_conns; }

void httpd_stop(struct httpd *d) {
    check(!d->in_mhd);
    httpd_drain(d);
    for (struct conn *k = d->conns, *next; k; k = next) {
        next = k->next;
        if (k->r && (k->r->delivered || k->r->piecewise))
            request_lost(k->r);
        else
            conn_cut(k);
    }
    /* One run takes the resumed connections out of suspension; stopping with one inside would abort. */
    d->stopping = true;
    pump(d);
    MHD_stop_daemon(d->mhd);
    lingers_close(d);
    check(!d->conns);
    uv_close((uv_handle_t *)&d->epoll, on_handle_closed);
    uv_close((uv_handle_t *)&d->timer, on_handle_closed);
    uv_close((uv_handle_t *)&d->soon, on_handle_closed);
}
