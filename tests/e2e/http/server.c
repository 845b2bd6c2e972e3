/* server.c - a small server over httpd.h for the acceptance test: routes that answer at once, later, in a
 * stream, endlessly. It prints an event per line with the monotonic time in ms, which the client script
 * reads: port N | body ID PATH | gone ID 0|1 | slow ID | drained | stopped It checks itself that on_gone
 * comes once for each on_body. */
#include <arpa/inet.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/clock.h"
#include "http/httpd.h"

struct job {
    struct http_request *r;
    struct job *next, *prev;
    uv_timer_t timer;
    u32 id;
    u64 n, ms, bytes; /* lines or bytes to send, pause between, size of a line */
    u64 sent;
    void (*tick)(struct job *j);
    struct buf pieces; /* what on_piece was given, for /pieces */
    bool on_hold;
};

/* Our own allocations, counted by the linker's --wrap. */
static u64 n_allocations;
void *__real_malloc(size_t size);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t size);
void *__wrap_malloc(size_t size) { return n_allocations++, __real_malloc(size); }
void *__wrap_calloc(size_t n, size_t size) { return n_allocations++, __real_calloc(n, size); }
void *__wrap_realloc(void *p, size_t size) { return n_allocations++, __real_realloc(p, size); }

static uv_loop_t *loop;
static struct httpd *server;
static struct job *jobs;
static u32 n_jobs, n_ids;
static bool stopped;

static void event(const char *fmt, ...) PRINTF(1, 2);
static void event(const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    printf("%.1f ", (f64)clock_ns() / 1e6);
    vprintf(fmt, ap);
    putchar('\n');
    va_end(ap);
    fflush(stdout);
}

static u64 query_u64(const struct http_request *r, const char *key, u64 otherwise) {
    struct str q = http_query(r);
    char text[64];
    snprintf(text, sizeof text, "%s=", key);
    size_t at = str_find(q, str_of(text), 0);
    if (at == SIZE_MAX)
        return otherwise;
    size_t from = at + strlen(text), to = str_find(q, STR("&"), from);
    u64 v;
    return str_to_u64(str_slice(q, from, MIN(to, q.n)), &v) ? v : otherwise;
}

/* --- what a job does at each tick of its timer --- */

static void tick_reply(struct job *j) { http_reply(j->r, 200, "application/json", STR("{\"slow\":true}")); }

static bool line_write(struct job *j) {
    char line[4096];
    int head = snprintf(line, sizeof line, "{\"i\":%llu}", (unsigned long long)j->sent);
    size_t n = MAX((size_t)head + 1, MIN((size_t)j->bytes, sizeof line));
    memset(line + head, ' ', n - (size_t)head);
    line[n - 1] = '\n';
    j->sent++;
    return http_stream_write(j->r, (struct str){line, n});
}

static void tick_stream(struct job *j) {
    if (j->sent < j->n)
        check(line_write(j));
    if (j->sent < j->n)
        return;
    uv_timer_stop(&j->timer);
    http_stream_end(j->r);
}

/* Writes without looking until the reader is too slow. */
static void tick_flood(struct job *j) {
    for (int i = 0; i < 100; i++)
        if (!line_write(j)) {
            event("slow %u %zu", j->id, http_stream_unsent(j->r));
            uv_timer_stop(&j->timer);
            http_stream_abort(j->r);
            return;
        }
}

/* Writes n bytes in all, never more than 64 KiB ahead of the reader. */
static void tick_fill(struct job *j) {
    static char block[16384];
    memset(block, 'x', sizeof block);
    while (j->sent < j->n && http_stream_unsent(j->r) < 65536) {
        size_t n = (size_t)MIN(j->n - j->sent, (u64)sizeof block);
        check(http_stream_write(j->r, (struct str){block, n}));
        j->sent += n;
    }
    if (j->sent == j->n) {
        uv_timer_stop(&j->timer);
        http_stream_end(j->r);
    }
}

static void tick_abort(struct job *j) {
    check(line_write(j));
    if (j->sent < j->n)
        return;
    uv_timer_stop(&j->timer);
    http_stream_abort(j->r);
}

static void on_tick(uv_timer_t *t) {
    struct job *j = t->data;
    j->tick(j);
}

/* --- requests --- */

static void job_later(struct job *j, void (*tick)(struct job *), u64 first_ms, u64 again_ms) {
    j->tick = tick;
    uv_timer_start(&j->timer, on_tick, first_ms, again_ms);
}

static void reply_echo(struct http_request *r, struct str body) {
    struct buf b = {0};
    json_open(&b, '{');
    json_key(&b, "method");
    json_str(&b, http_method(r));
    json_key(&b, "path");
    json_str(&b, http_path(r));
    json_key(&b, "query");
    json_str(&b, http_query(r));
    json_key(&b, "peer");
    json_str(&b, str_of(http_peer(r)));
    json_key(&b, "x_test");
    json_str(&b, http_header(r, "x-test"));
    json_key(&b, "bytes");
    json_u64(&b, body.n);
    json_key(&b, "hash");
    json_u64(&b, hash_bytes(body.p, body.n, 0) & 0xffffffff);
    json_key(&b, "head");
    json_str(&b, str_slice(body, 0, 64));
    json_close(&b, '}');
    http_add_header(r, "X-Echo", STR("yes"));
    http_add_header(r, "X-Split", STR("a\r\nX-Evil: 1"));
    http_add_header(r, "bad name", STR("a"));
    http_reply(r, 200, "application/json", buf_str(&b));
    buf_release(&b);
}

static void reply_stats(struct http_request *r) {
    struct rusage use;
    getrusage(RUSAGE_SELF, &use);
    struct buf b = {0};
    buf_printf(&b, "{\"open\":%u,\"allocations\":%llu,\"cpu_us\":%llu}", n_jobs - 1,
               (unsigned long long)n_allocations,
               (unsigned long long)(use.ru_utime.tv_sec + use.ru_stime.tv_sec) * 1000000 +
                   (unsigned long long)(use.ru_utime.tv_usec + use.ru_stime.tv_usec));
    http_reply(r, 200, "application/json", buf_str(&b));
    buf_release(&b);
}

static struct job *job_new(struct http_request *r) {
    struct job *j = xcalloc(1, sizeof *j);
    *j = (struct job){.r = r, .next = jobs, .id = n_ids++};
    if (jobs)
        jobs->prev = j;
    jobs = j;
    n_jobs++;
    uv_timer_init(loop, &j->timer);
    j->timer.data = j;
    check(http_data(r) == NULL);
    http_set_data(r, j);
    check(clock_ns() - http_arrival_ns(r) < 100000000000u);
    j->n = query_u64(r, "n", 10);
    j->ms = MAX(query_u64(r, "ms", 10), 1u);
    j->bytes = query_u64(r, "bytes", 0);
    return j;
}

/* --- /pieces: every bytes-th byte the body waits for ms --- */

static void tick_continue(struct job *j) {
    check(j->on_hold);
    j->on_hold = false;
    http_body_continue(j->r);
}

static bool on_begin(void *ctx, struct http_request *r) {
    (void)ctx;
    if (!str_is(http_path(r), "/pieces"))
        return false;
    event("begin %u", job_new(r)->id);
    return true;
}

static bool on_piece(void *ctx, struct http_request *r, struct str piece) {
    (void)ctx;
    struct job *j = http_data(r);
    check(j && j->r == r && !j->on_hold && piece.n > 0);
    u64 before = j->pieces.n;
    buf_add_str(&j->pieces, piece);
    if (!j->bytes || before / j->bytes == j->pieces.n / j->bytes)
        return true;
    j->on_hold = true;
    job_later(j, tick_continue, j->ms, 0);
    return false;
}

static void on_body(void *ctx, struct http_request *r, struct str body) {
    (void)ctx;
    struct job *j = http_data(r);
    check(!j || (body.n == 0 && !j->on_hold));
    if (j)
        body = buf_str(&j->pieces);
    else
        j = job_new(r);
    struct str path = http_path(r);
    event("body %u %.*s", j->id, STR_FMT(path));
    if (str_is(path, "/v")) {
        http_reply(r, 200, "application/json", STR("{\"version\":\"1\"}"));
    } else if (str_is(path, "/stats")) {
        reply_stats(r);
    } else if (str_is(path, "/slow")) {
        job_later(j, tick_reply, j->ms, 0);
    } else if (str_is(path, "/stream")) {
        http_stream_begin(r, 200, "application/x-ndjson");
        job_later(j, tick_stream, j->ms, j->ms);
    } else if (str_is(path, "/burst")) {
        http_stream_begin(r, 200, "application/x-ndjson");
        for (u64 i = 0; i < j->n; i++)
            check(line_write(j));
        http_stream_end(r);
        check(http_stream_write(r, STR("behind the end")));
    } else if (str_is(path, "/flood")) {
        http_stream_begin(r, 200, "application/x-ndjson");
        job_later(j, tick_flood, 1, 1);
    } else if (str_is(path, "/fill")) {
        http_stream_begin(r, 200, "application/octet-stream");
        job_later(j, tick_fill, 0, 1);
    } else if (str_is(path, "/abort")) {
        http_stream_begin(r, 200, "application/x-ndjson");
        job_later(j, tick_abort, j->ms, j->ms);
    } else if (str_is(path, "/cut")) {
        http_stream_abort(r);
    } else {
        reply_echo(r, body);
    }
}

static void on_timer_closed(uv_handle_t *h) {
    struct job *j = h->data;
    buf_release(&j->pieces);
    free(j);
}

static void on_gone(void *ctx, struct http_request *r, bool gone) {
    (void)ctx;
    struct job *j = http_data(r);
    check(j && j->r == r);
    j->r = NULL;
    event("gone %u %d", j->id, gone);
    if (j->next)
        j->next->prev = j->prev;
    if (j->prev)
        j->prev->next = j->next;
    else
        jobs = j->next;
    n_jobs--;
    uv_close((uv_handle_t *)&j->timer, on_timer_closed);
}

/* --- start and end --- */

static int listen_unix(const char *path) {
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    snprintf(a.sun_path, sizeof a.sun_path, "%s", path);
    if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof a) || listen(fd, 128))
        die("cannot listen on %s", path);
    return fd;
}

static int listen_tcp(u32 *port) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof a;
    if (fd < 0 || bind(fd, (struct sockaddr *)&a, n) || listen(fd, 1024) ||
        getsockname(fd, (struct sockaddr *)&a, &n))
        die("cannot listen");
    *port = ntohs(a.sin_port);
    return fd;
}

static void on_signal(uv_signal_t *s, int number) {
    if (number == SIGUSR1) {
        httpd_drain(server);
        event("drained");
        return;
    }
    if (stopped)
        return;
    stopped = true;
    httpd_stop(server);
    check(n_jobs == 0);
    event("stopped");
    uv_signal_t *both = s->data;
    uv_close((uv_handle_t *)&both[0], NULL);
    uv_close((uv_handle_t *)&both[1], NULL);
}

/* server [unix:PATH] [key=value]... */
int main(int argc, char **argv) {
    static uv_loop_t the_loop;
    static uv_signal_t signals[2];
    struct httpd_options o = {0};
    const char *path = NULL;
    for (int i = 1; i < argc; i++) {
        char *value = strchr(argv[i], '=');
        u64 v = value ? strtoull(value + 1, NULL, 10) : 0;
        if (!strncmp(argv[i], "unix:", 5))
            path = argv[i] + 5;
        else if (!strncmp(argv[i], "body=", 5))
            o.body_bytes_max = v;
        else if (!strncmp(argv[i], "bodies=", 7))
            o.bodies_bytes_max = v;
        else if (!strncmp(argv[i], "header=", 7))
            o.header_ms = (u32)v;
        else if (!strncmp(argv[i], "stall=", 6))
            o.body_stall_ms = (u32)v;
        else if (!strncmp(argv[i], "moving=", 7))
            o.body_stall_bytes = (u32)v;
        else if (!strncmp(argv[i], "idle=", 5))
            o.idle_ms = (u32)v;
        else if (!strncmp(argv[i], "stream=", 7))
            o.stream_stall_ms = (u32)v;
        else if (!strncmp(argv[i], "connections=", 12))
            o.connections_max = (u32)v;
        else
            die("unknown argument %s", argv[i]);
    }
    loop = &the_loop;
    uv_loop_init(loop);
    struct httpd_handler h = {on_begin, on_piece, on_body, on_gone, NULL};
    struct err err;
    u32 port = 0;
    if (httpd_start_with(loop, path ? listen_unix(path) : listen_tcp(&port), &h, &o, &server, &err) != OK)
        die("%s", err.text);
    for (int i = 0; i < 2; i++) {
        uv_signal_init(loop, &signals[i]);
        signals[i].data = signals;
        uv_signal_start(&signals[i], on_signal, i ? SIGUSR1 : SIGTERM);
    }
    event("port %u", port);
    uv_run(loop, UV_RUN_DEFAULT);
    return uv_loop_close(loop) == 0 ? 0 : 1;
}
