/* Goal: messages arrive whole and in the order of their stream, small ones overtake large ones of other streams,
 * descriptors arrive with their message, and a broken or closed other end is a status.
 * Method: a socket pair, both ends in this process; the raw end writes what no wire_conn would. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "wire/wire.h"

struct ends { struct wire_conn *a, *b; };

static struct ends make_ends(void) {
    int pair[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    return (struct ends){wire_conn_new(pair[0]), wire_conn_new(pair[1])};
}

/* A raw end to write by hand, and a connection that reads it. */
static struct wire_conn *make_raw(int *raw) {
    int pair[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    *raw = pair[0];
    return wire_conn_new(pair[1]);
}

static void free_ends(struct ends e) {
    wire_conn_free(e.a);
    wire_conn_free(e.b);
}

static struct wire_message text_message(u64 stream, struct str text) {
    return (struct wire_message){.type = WIRE_EVENT, .stream_id = stream,
                                 .event = {.request_id = stream, .kind = GEN_TEXT, .text = text}};
}

/* Alternates flush and read until nothing moves; collects up to cap messages. */
static u32 pump(struct ends e, struct arena *arena, struct wire_message *out, int *fds, u32 cap) {
    struct err err;
    u32 n = 0;
    for (u32 turn = 0; turn < 10000 && (wire_wants_write(e.a) || turn < 2); turn++) {
        bool got = true;
        assert_int_equal(wire_flush(e.a, &err), OK);
        assert_int_equal(wire_read(e.b, &err), OK);
        while (got) {
            assert_true(n < cap);
            assert_int_equal(wire_next(e.b, arena, &out[n], &fds[n], &got, &err), OK);
            n += got;
        }
    }
    return n;
}

static void test_small_overtakes_large(void **state) {
    (void)state;
    struct ends e = make_ends();
    struct arena arena;
    struct wire_message got[8];
    int fds[8];
    struct str large = {xcalloc(1, 5000000), 5000000};
    struct wire_message m1 = text_message(1, large), m2 = text_message(2, STR("small")), m3 = text_message(1, STR("after"));
    arena_init(&arena, 0);
    wire_send(e.a, &m1, -1);
    wire_send(e.a, &m2, -1);
    wire_send(e.a, &m3, -1); /* same stream as the large one: may not overtake it */
    assert_true(wire_queued_bytes(e.a) > 5000000);
    assert_int_equal(pump(e, &arena, got, fds, 8), 3);
    assert_int_equal(got[0].stream_id, 2);
    assert_int_equal(got[1].stream_id, 1);
    assert_int_equal(got[1].event.text.n, 5000000);
    assert_true(str_is(got[2].event.text, "after"));
    assert_int_equal(wire_queued_bytes(e.a), 0);
    free((void *)(uintptr_t)large.p);
    arena_release(&arena);
    free_ends(e);
}

static void test_descriptors_travel(void **state) {
    (void)state;
    struct ends e = make_ends();
    struct arena arena;
    struct wire_message got[8];
    int fds[8], pipes[2][2];
    struct wire_message text = text_message(3, STR("between"));
    arena_init(&arena, 0);
    for (u32 i = 0; i < 2; i++) {
        struct wire_message m = {.type = WIRE_MODEL, .model = {.model_id = i, .name = STR("m")}};
        assert_int_equal(pipe(pipes[i]), 0);
        wire_send(e.a, &m, pipes[i][1]);
        wire_send(e.a, &text, -1);
        close(pipes[i][1]); /* wire_send has its own */
    }
    assert_int_equal(pump(e, &arena, got, fds, 8), 4);
    for (u32 i = 0; i < 2; i++) {
        char byte = (char)('a' + i), back = 0;
        assert_int_equal(got[2 * i].type, WIRE_MODEL);
        assert_int_equal(got[2 * i].model.model_id, i);
        assert_true(fds[2 * i] >= 0 && fds[2 * i + 1] == -1);
        assert_int_equal(write(fds[2 * i], &byte, 1), 1);
        assert_int_equal(read(pipes[i][0], &back, 1), 1);
        assert_int_equal(back, byte);
        close(fds[2 * i]);
        close(pipes[i][0]);
    }
    arena_release(&arena);
    free_ends(e);
}

static enum status read_raw(const void *bytes, size_t n, bool close_it) {
    int raw, fd;
    struct wire_conn *c = make_raw(&raw);
    struct arena arena;
    struct wire_message m;
    struct err err;
    bool got;
    arena_init(&arena, 0);
    assert_int_equal(write(raw, bytes, n), (ssize_t)n);
    if (close_it)
        close(raw);
    for (u32 i = 0; i < 2; i++) /* the end of file is seen by the read after the last bytes */
        assert_int_equal(wire_read(c, &err), OK);
    enum status status = wire_next(c, &arena, &m, &fd, &got, &err);
    if (status == OK)
        assert_false(got);
    if (!close_it)
        close(raw);
    arena_release(&arena);
    wire_conn_free(c);
    return status;
}

static void test_broken_streams(void **state) {
    (void)state;
    static const u8 huge[16] = {0xff, 0xff, 0xff, 0x7f, WIRE_CANCEL, 0, 1, 0};
    static const u8 flags[16] = {0, 0, 0, 0, WIRE_CANCEL, 0, 8, 0};
    static const u8 type[16] = {0, 0, 0, 0, 77, 0, 1, 0};
    static const u8 no_fd[16 + 48] = {48, 0, 0, 0, WIRE_MODEL, 0, 1, 0};
    /* two unfinished frames of one stream with different types */
    static const u8 mixed[32] = {0, 0, 0, 0, WIRE_GENERATE, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0,
                                 0, 0, 0, 0, WIRE_CANCEL,   0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0};
    assert_int_equal(read_raw(huge, sizeof huge, false), ERR_CORRUPT);
    assert_int_equal(read_raw(flags, sizeof flags, false), ERR_CORRUPT);
    assert_int_equal(read_raw(type, sizeof type, false), ERR_CORRUPT);
    assert_int_equal(read_raw(no_fd, sizeof no_fd, false), ERR_CORRUPT);
    assert_int_equal(read_raw(mixed, sizeof mixed, false), ERR_CORRUPT);
    assert_int_equal(read_raw(huge, 7, false), OK);      /* half a header: more may come */
    assert_int_equal(read_raw(huge, 7, true), ERR_IO);   /* nothing comes any more */
}

static void test_writing_to_a_dead_end(void **state) {
    (void)state;
    struct ends e = make_ends();
    struct err err;
    struct wire_message m = text_message(1, STR("x"));
    wire_conn_free(e.b);
    wire_send(e.a, &m, -1);
    assert_int_equal(wire_flush(e.a, &err), ERR_IO);
    wire_conn_free(e.a);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_small_overtakes_large),
        cmocka_unit_test(test_descriptors_travel),
        cmocka_unit_test(test_broken_streams),
        cmocka_unit_test(test_writing_to_a_dead_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
