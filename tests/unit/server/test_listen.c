/* Goal: the listening socket: loopback or not, an address that is taken and by whom, Unix sockets left over,
 * in use and in the place of a file, systemd's variables. Method: real sockets of this process on free ports.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "server/listen.h"

static struct settings at(const char *host, u16 port) {
    struct settings s = {.port = port};
    snprintf(s.host, sizeof s.host, "%s", host);
    return s;
}

static u16 port_of(int fd) {
    struct sockaddr_in a;
    socklen_t n = sizeof a;
    assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &n), 0);
    return ntohs(a.sin_port);
}

static void test_addresses(void **state) {
    (void)state;
    struct listener l;
    struct err err;
    struct settings s = at("127.0.0.1", 0);
    assert_int_equal(listener_open(&s, &l, &err), OK);
    assert_true(l.loopback);
    assert_true(fcntl(l.fd, F_GETFL) & O_NONBLOCK);
    assert_true(fcntl(l.fd, F_GETFD) & FD_CLOEXEC);
    listener_forget(&l); /* no file: nothing to do */
    close(l.fd);
    s = at("0.0.0.0", 0);
    assert_int_equal(listener_open(&s, &l, &err), OK);
    assert_false(l.loopback);
    close(l.fd);
    s = at("no.such.host.invalid", 1);
    assert_int_equal(listener_open(&s, &l, &err), ERR_INVALID);
    assert_non_null(strstr(err.text, "OLLAMA_HOST"));
}

static void test_taken_port_gives_another(void **state) {
    (void)state;
    struct listener l, second, beside;
    struct err err;
    struct settings s = at("127.0.0.1", 0);
    unsigned other;
    assert_int_equal(listener_open(&s, &l, &err), OK);
    s.port = port_of(l.fd);
    assert_int_equal(listener_open(&s, &second, &err), ERR_IO); /* nobody answers: within a second */
    assert_non_null(strstr(err.text, "not Ollama"));
    const char *advice = strstr(err.text, "OLLAMA_HOST=127.0.0.1:");
    assert_non_null(advice);
    assert_int_equal(sscanf(advice, "OLLAMA_HOST=127.0.0.1:%u", &other), 1);
    s.port = (u16)other;
    assert_int_equal(listener_open(&s, &beside, &err), OK);
    close(l.fd);
    close(beside.fd);
}

static void test_unix_socket(void **state) {
    (void)state;
    char folder[] = "/tmp/minka-listen-XXXXXX";
    struct settings s = {0};
    struct listener l, second;
    struct stat st;
    struct err err;
    assert_non_null(mkdtemp(folder));
    snprintf(s.unix_path, sizeof s.unix_path, "%s/s", folder);
    assert_int_equal(listener_open(&s, &l, &err), OK);
    assert_true(l.loopback);
    assert_int_equal(listener_open(&s, &second, &err), ERR_IO); /* in use */
    assert_non_null(strstr(err.text, "in use"));
    close(l.fd);
    assert_int_equal(listener_open(&s, &second, &err), OK); /* left over */
    listener_forget(&second);
    close(second.fd);
    assert_int_equal(stat(s.unix_path, &st), -1);
    int fd = open(s.unix_path, O_CREAT | O_WRONLY, 0600); /* a file of somebody is not removed */
    close(fd);
    assert_int_equal(listener_open(&s, &second, &err), ERR_IO);
    assert_int_equal(stat(s.unix_path, &st), 0);
    unlink(s.unix_path);
    rmdir(folder);
}

static void test_sockets_for_another_process_are_left(void **state) {
    (void)state;
    struct settings s = at("127.0.0.1", 0);
    struct listener l;
    struct err err;
    static const char *const pairs[][2] = {{"1", "1"}, {"x", "1"}, {"", ""}, {NULL, "0"}};
    char pid[16];
    snprintf(pid, sizeof pid, "%d", (int)getpid());
    for (u32 i = 0; i < ARRAY_LEN(pairs); i++) {
        setenv("LISTEN_PID", pairs[i][0] ? pairs[i][0] : pid, 1);
        setenv("LISTEN_FDS", pairs[i][1], 1);
        assert_int_equal(listener_open(&s, &l, &err), OK);
        assert_true(port_of(l.fd) != 0);
        close(l.fd);
    }
    unsetenv("LISTEN_PID");
    unsetenv("LISTEN_FDS");
}

static void test_notification(void **state) {
    (void)state;
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    char name[64], got[32] = {0};
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    notify_systemd("READY=1"); /* nobody to tell */
    snprintf(name, sizeof name, "@minka-listen-%d", (int)getpid());
    memcpy(a.sun_path + 1, name + 1, strlen(name) - 1);
    socklen_t n = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(name));
    assert_int_equal(bind(fd, (struct sockaddr *)&a, n), 0);
    setenv("NOTIFY_SOCKET", name, 1);
    notify_systemd("READY=1");
    assert_int_equal(recv(fd, got, sizeof got - 1, MSG_DONTWAIT), 7);
    assert_string_equal(got, "READY=1");
    setenv("NOTIFY_SOCKET", "/no/such/socket", 1);
    notify_systemd("STOPPING=1");
    unsetenv("NOTIFY_SOCKET");
    close(fd);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_addresses),    cmocka_unit_test(test_taken_port_gives_another),
        cmocka_unit_test(test_unix_socket),  cmocka_unit_test(test_sockets_for_another_process_are_left),
        cmocka_unit_test(test_notification),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
