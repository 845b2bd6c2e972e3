/* conn.c - a connection: who is gone, who is too slow.
 *
 * One watch per connection on the same descriptor that libmicrohttpd uses, but in libuv's own epoll, reports
 * RDHUP, HUP and ERR: a close, a reset and a half-close. It is level-triggered, so it is stopped at the first
 * report. What the report means depends on what the connection is doing (on_recheck). */
#include "http/httpd_own.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define RECHECK_MS 50

struct lingerer {
    struct httpd *d;
    struct lingerer *next, *prev;
    uv_poll_t poll;
    uv_timer_t timer;
    int fd;
    u32 n_handles_open;
    u64 left_bytes;
};

struct conn *conn_of(struct MHD_Connection *c) {
    return MHD_get_connection_info(c, MHD_CONNECTION_INFO_SOCKET_CONTEXT)->socket_context;
}

void conn_cut(struct conn *k) {
    shutdown(k->fd, SHUT_RDWR);
    httpd_wake(k->d);
}

/* --- disconnects --- */

/* The client sends nothing more (or the server drains). A request in the handler's hands is lost with its
 * client. An answer on its way is still sent: the client may have closed only its own side. Otherwise what
 * the client has sent is read to its end; if there is nothing left, libmicrohttpd is told, because it does
 * not notice itself when the end came right behind data. */
static void on_recheck(uv_timer_t *t) {
    struct conn *k = t->data;
    struct http_request *r = k->r;
    if (r && k->hup && request_open(r)) {
        request_lost(r);
        return;
    }
    int unread = 0;
    bool busy = (r && (r->delivered || r->suspended || !k->hup)) ||
                (ioctl(k->fd, FIONREAD, &unread) == 0 && unread > 0);
    k->n_quiet = busy ? 0 : k->n_quiet + 1;
    /* Twice, because a pipelined request may lie in libmicrohttpd's buffer between two runs. */
    if (k->n_quiet >= 2)
        conn_cut(k);
    else
        uv_timer_start(&k->recheck, on_recheck, RECHECK_MS, 0);
}

void conn_recheck(struct conn *k) {
    k->n_quiet = 0;
    uv_timer_start(&k->recheck, on_recheck, 0, 0);
}

static void on_disconnect(uv_poll_t *watch, int status, int events) {
    (void)status, (void)events;
    struct conn *k = watch->data;
    uv_poll_stop(watch);
    k->hup = true;
    if (k->r && request_open(k->r))
        request_lost(k->r);
    else
        conn_recheck(k);
}

/* --- deadlines --- */

/* The library has no answer for a request that it does not have yet. Nothing else has been written for it. A
 * connection without a request line may be one that a client keeps ready: it is closed without a word. */
static void answer_late(const struct conn *k) {
    static const char text[] =
        "HTTP/1.1 408 Request Timeout\r\nContent-Type: application/json; charset=utf-8\r\n"
        "Content-Length: 46\r\nConnection: close\r\n\r\n"
        "{\"error\":\"the request did not arrive in time\"}";
    if (k->r && !k->r->delivered && !k->r->answered)
        (void)!send(k->fd, text, sizeof text - 1, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static void on_deadline(uv_timer_t *t) {
    struct conn *k = t->data;
    struct http_request *r = k->r;
    /* A suspended body waits for us, not for the client. */
    bool moves = r && r->begun && r->body_bytes - k->body_mark >= k->d->limit.body_stall_bytes;
    if (moves || (r && r->begun && r->suspended)) {
        k->body_mark = r->body_bytes;
        conn_deadline_set(k, k->d->limit.body_stall_ms);
        return;
    }
    answer_late(k);
    conn_cut(k);
}

void conn_deadline_set(struct conn *k, u32 ms) {
    if (ms)
        uv_timer_start(&k->deadline, on_deadline, ms, 0);
    else
        uv_timer_stop(&k->deadline);
}

void conn_idle(struct conn *k) {
    struct httpd *d = k->d;
    bool scarce = d->n_conns > d->limit.connections_max / 2;
    conn_deadline_set(k, scarce ? MIN(d->limit.header_ms, d->limit.idle_ms) : d->limit.idle_ms);
    if (k->hup || d->draining)
        conn_recheck(k);
}

/* --- life --- */

static void peer_format(struct conn *k) {
    const struct sockaddr *a =
        MHD_get_connection_info(k->mhd, MHD_CONNECTION_INFO_CLIENT_ADDRESS)->client_addr;
    snprintf(k->peer, sizeof k->peer, "unix");
    if (a && a->sa_family == AF_INET) {
        inet_ntop(AF_INET, &((const struct sockaddr_in *)(const void *)a)->sin_addr, k->peer, sizeof k->peer);
    } else if (a && a->sa_family == AF_INET6) {
        const struct in6_addr *six = &((const struct sockaddr_in6 *)(const void *)a)->sin6_addr;
        if (IN6_IS_ADDR_V4MAPPED(six))
            inet_ntop(AF_INET, six->s6_addr + 12, k->peer, sizeof k->peer);
        else
            inet_ntop(AF_INET6, six, k->peer, sizeof k->peer);
    }
}

static struct conn *conn_new(struct httpd *d, struct MHD_Connection *c) {
    struct conn *k = xcalloc(1, sizeof *k);
    k->d = d;
    k->mhd = c;
    k->fd = MHD_get_connection_info(c, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
    k->linger_fd = -1;
    peer_format(k);
    k->next = d->conns;
    if (k->next)
        k->next->prev = k;
    d->conns = k;
    d->n_conns++;

    uv_timer_init(d->loop, &k->deadline);
    uv_timer_init(d->loop, &k->recheck);
    k->watch.data = k->deadline.data = k->recheck.data = k;
    k->n_handles_open = 2;
    if (uv_poll_init(d->loop, &k->watch, k->fd) == 0) {
        k->n_handles_open++;
        uv_poll_start(&k->watch, UV_DISCONNECT, on_disconnect);
    } else {
        /* Out of epoll watches: nobody would see this client leave. */
        k->watch.data = NULL;
        conn_cut(k);
    }
    conn_deadline_set(k, d->limit.header_ms);
    return k;
}

static void on_conn_handle_closed(uv_handle_t *h) {
    struct conn *k = h->data;
    if (--k->n_handles_open == 0)
        free(k);
}

static void linger_start(struct httpd *d, int fd);

/* The descriptor is still open here, so the watch leaves libuv's epoll before the number is used again. */
static void conn_close(struct conn *k) {
    struct httpd *d = k->d;
    if (k->next)
        k->next->prev = k->prev;
    if (k->prev)
        k->prev->next = k->next;
    else
        d->conns = k->next;
    /* At its limit the library stops listening, and looks again only when it is run. */
    if (d->n_conns-- == d->limit.connections_max)
        httpd_wake(d);
    if (k->linger_fd >= 0)
        linger_start(d, k->linger_fd);
    if (k->watch.data)
        uv_close((uv_handle_t *)&k->watch, on_conn_handle_closed);
    uv_close((uv_handle_t *)&k->deadline, on_conn_handle_closed);
    uv_close((uv_handle_t *)&k->recheck, on_conn_handle_closed);
}

void conn_notify(void *cls, struct MHD_Connection *c, void **socket_context,
                 enum MHD_ConnectionNotificationCode code) {
    if (code == MHD_CONNECTION_NOTIFY_STARTED) {
        *socket_context = conn_new(cls, c);
    } else {
        conn_close(*socket_context);
        *socket_context = NULL;
    }
}

/* --- lingering close: closing a socket with unread input sends a reset, which may overtake the answer --- */

static void on_linger_handle_closed(uv_handle_t *h) {
    struct lingerer *l = h->data;
    if (--l->n_handles_open)
        return;
    close(l->fd);
    free(l);
}

static void linger_close(struct lingerer *l) {
    struct httpd *d = l->d;
    if (l->next)
        l->next->prev = l->prev;
    if (l->prev)
        l->prev->next = l->next;
    else
        d->lingers = l->next;
    d->n_lingers--;
    uv_close((uv_handle_t *)&l->poll, on_linger_handle_closed);
    uv_close((uv_handle_t *)&l->timer, on_linger_handle_closed);
}

static void on_linger_timer(uv_timer_t *t) { linger_close(t->data); }

static void on_linger_readable(uv_poll_t *p, int status, int events) {
    (void)events;
    struct lingerer *l = p->data;
    char waste[16384];
    ssize_t n = status < 0 ? 0 : recv(l->fd, waste, sizeof waste, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0 || (u64)n >= l->left_bytes) {
        linger_close(l);
        return;
    }
    l->left_bytes -= (u64)n;
}

static void linger_start(struct httpd *d, int fd) {
    struct lingerer *l = xcalloc(1, sizeof *l);
    if (d->stopping || uv_poll_init(d->loop, &l->poll, fd) != 0) {
        close(fd);
        free(l);
        return;
    }
    l->d = d;
    l->fd = fd;
    l->left_bytes = 2 * (u64)d->limit.body_bytes_max;
    uv_timer_init(d->loop, &l->timer);
    l->poll.data = l->timer.data = l;
    l->n_handles_open = 2;
    l->next = d->lingers;
    if (l->next)
        l->next->prev = l;
    d->lingers = l;
    d->n_lingers++;
    uv_poll_start(&l->poll, UV_READABLE | UV_DISCONNECT, on_linger_readable);
    uv_timer_start(&l->timer, on_linger_timer, LIMIT_LINGER_MS, 0);
}

void conn_linger(struct conn *k) {
    if (k->linger_fd < 0 && k->d->n_lingers < LIMIT_LINGERING)
        k->linger_fd = fcntl(k->fd, F_DUPFD_CLOEXEC, 3);
}

void lingers_close(struct httpd *d) {
    while (d->lingers)
        linger_close(d->lingers);
}
