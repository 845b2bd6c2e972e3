/* The client against a thread that sends scripted bytes, in pieces, so that lines and headers are cut at any
 * place; and its reading of failures. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "http/client.h"

struct peer {
    int listen_fd;
    pthread_t thread;
    const char *answer;
    size_t n, piece; /* sent piece bytes at a time */
    bool stays;      /* keeps the connection open after the answer, until the client leaves */
};

static void *peer_run(void *arg) {
    struct peer *p = arg;
    int fd = accept(p->listen_fd, NULL, NULL);
    char waste[4096];
    (void)!recv(fd, waste, sizeof waste, 0);
    for (size_t at = 0; at < p->n; at += p->piece) {
        (void)!send(fd, p->answer + at, MIN(p->piece, p->n - at), MSG_NOSIGNAL);
        if (p->piece < p->n)
            usleep(1000);
    }
    while (p->stays && recv(fd, waste, sizeof waste, 0) > 0)
        ;
    close(fd);
    return NULL;
}

static struct http_client *peer_start(struct peer *p, const char *answer, size_t piece) {
    struct settings s = {.host = "127.0.0.1"};
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof a;
    struct http_client *c;
    bool stays = p->stays;
    *p = (struct peer){.answer = answer, .n = strlen(answer), .piece = piece, .stays = stays};
    p->listen_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(p->listen_fd, (struct sockaddr *)&a, n), 0);
    assert_int_equal(listen(p->listen_fd, 1), 0);
    assert_int_equal(getsockname(p->listen_fd, (struct sockaddr *)&a, &n), 0);
    s.port = ntohs(a.sin_port);
    assert_int_equal(pthread_create(&p->thread, NULL, peer_run, p), 0);
    assert_int_equal(http_client_open(&s, &c, NULL), OK);
    return c;
}

static void peer_stop(struct peer *p, struct http_client *c) {
    http_client_close(c);
    pthread_join(p->thread, NULL);
    close(p->listen_fd);
}

/* --- lines --- */

struct lines {
    struct buf text; /* each line and a '|' */
    u32 n, stop_at, ticks;
    struct http_client *cancel;
};

static bool on_line(void *ctx, struct str line) {
    struct lines *l = ctx;
    buf_add_str(&l->text, line);
    buf_add_char(&l->text, '|');
    return ++l->n != l->stop_at;
}

static void on_tick(void *ctx) {
    struct lines *l = ctx;
    l->ticks++;
    if (l->cancel)
        http_client_cancel(l->cancel);
}

static enum status lines_get(const char *answer, size_t piece, struct lines *l, struct err *err) {
    struct peer p = {0};
    struct http_client *c = peer_start(&p, answer, piece);
    struct http_sink sink = {.on_line = on_line, .ctx = l};
    enum status status = http_client_stream(c, "POST", "/x", STR("{}"), &sink, err);
    peer_stop(&p, c);
    return status;
}

static void lines_in_pieces(void **state) {
    (void)state;
    static const char chunked[] =
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        "8\r\n{\"a\":1}\n\r\n3\r\n{\"b\r\n5\r\n\":2}\n\r\nb\r\n\n\r\n{\"c\":3}\n\r\n4\r\nlast\r\n0\r\n\r\n";
    static const char plain[] =
        "HTTP/1.1 200 OK\r\nContent-Length: 30\r\n\r\n{\"a\":1}\n{\"b\":2}\n\n\r\n{\"c\":3}\nlas";
    for (size_t piece = 1; piece < 40; piece += 3) {
        struct lines l = {0};
        assert_int_equal(lines_get(chunked, piece, &l, NULL), OK);
        assert_string_equal(buf_cstr(&l.text), "{\"a\":1}|{\"b\":2}|{\"c\":3}|last|");
        buf_release(&l.text);
    }
    struct lines l = {0};
    assert_int_equal(lines_get(plain, 1000, &l, NULL), OK);
    assert_string_equal(buf_cstr(&l.text), "{\"a\":1}|{\"b\":2}|{\"c\":3}|las|");
    buf_release(&l.text);
}

static void callback_stops(void **state) {
    (void)state;
    struct lines l = {.stop_at = 2};
    struct err err;
    assert_int_equal(lines_get("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\na\nb\nc\n", 1000, &l, &err),
                     ERR_CANCELED);
    assert_string_equal(buf_cstr(&l.text), "a|b|");
    buf_release(&l.text);
}

static void cut_answers(void **state) {
    (void)state;
    static const char *const answers[] = {
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\na\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\na\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        "HTTP/1.1 200",
        "nonsense\r\n\r\n",
        "",
    };
    for (size_t i = 0; i < ARRAY_LEN(answers); i++) {
        struct lines l = {0};
        struct err err = {0};
        if (lines_get(answers[i], 1000, &l, &err) != ERR_IO || !err.text[0])
            fail_msg("answer %zu: %s %s", i, status_name(err.status), err.text);
        buf_release(&l.text);
    }
}

/* --- cancel --- */

static void cancel_in_transfer(void **state) {
    (void)state;
    struct peer p = {.stays = true};
    struct http_client *c = peer_start(&p, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\na\n", 1000);
    struct lines l = {.cancel = c};
    struct http_sink sink = {.on_line = on_line, .on_tick = on_tick, .ctx = &l};
    http_client_cancel(c); /* nothing runs: no effect on what follows */
    u64 began = clock_ns();
    assert_int_equal(http_client_stream(c, "POST", "/x", STR("{}"), &sink, NULL), ERR_CANCELED);
    assert_int_equal(l.n, 1);
    assert_int_equal(l.ticks, 1);
    assert_true(clock_ns() - began < 2000000000);
    peer_stop(&p, c); /* joins: the peer saw the connection close */
    buf_release(&l.text);
}

/* --- failures --- */

static void refusals(void **state) {
    (void)state;
    static const struct {
        const char *status, *body, *text;
        enum status expect;
    } cases[] = {
        {"404 Not Found", "{\"error\":\"model 'x' not found\"}", "model 'x' not found", ERR_NOT_FOUND},
        {"400 Bad", "{\"error\":{\"message\":\"wrong\",\"type\":\"t\"}}", "wrong", ERR_INVALID},
        {"503 Busy", "{\"error\":\"later\"}\n", "later", ERR_BUSY},
        {"413 Large", "too much", "too much", ERR_TOO_LARGE},
        {"501 No", "{\"error\":5}", "{\"error\":5}", ERR_UNSUPPORTED},
        {"504 Slow", "", "the server answered with HTTP status 504", ERR_TIMEOUT},
        {"500 Oh", "[1", "[1", ERR_INTERNAL},
        {"499 Gone", "{\"error\":\"\"}", "{\"error\":\"\"}", ERR_CANCELED},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char answer[512];
        struct lines l = {0};
        struct err err = {0};
        snprintf(answer, sizeof answer, "HTTP/1.1 %s\r\nContent-Length: %zu\r\n\r\n%s", cases[i].status,
                 strlen(cases[i].body), cases[i].body);
        assert_int_equal(lines_get(answer, 7, &l, &err), cases[i].expect);
        assert_int_equal(l.n, 0);
        if (i != 7)
            assert_string_equal(err.text, cases[i].text);
    }
}

static void unreachable(void **state) {
    (void)state;
    struct settings s = {.host = "127.0.0.1", .port = 1};
    struct http_client *c;
    struct buf answer = {0};
    struct err err = {0};
    assert_int_equal(http_client_open(&s, &c, NULL), OK);
    assert_int_equal(http_client_call(c, "GET", "/", STR_NONE, &answer, &err), ERR_IO);
    assert_int_equal(http_client_status(c), 0);
    assert_true(err.text[0] != 0);
    http_client_close(c);
    buf_release(&answer);
}

static void whole_answer(void **state) {
    (void)state;
    struct peer p = {0};
    struct http_client *c = peer_start(&p, "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nab\n\ncd\n", 2);
    struct buf answer = {0};
    buf_add(&answer, "old", 3);
    assert_int_equal(http_client_call(c, "GET", "/", STR_NONE, &answer, NULL), OK);
    assert_string_equal(buf_cstr(&answer), "ab\n\ncd\n");
    assert_int_equal(http_client_status(c), 200);
    peer_stop(&p, c);
    buf_release(&answer);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_in_pieces),    cmocka_unit_test(callback_stops), cmocka_unit_test(cut_answers),
        cmocka_unit_test(cancel_in_transfer), cmocka_unit_test(refusals),       cmocka_unit_test(unreachable),
        cmocka_unit_test(whole_answer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
