/* listen.c - sockets and the systemd protocols, both a few lines each. */
#include "server/listen.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define BACKLOG 1024
#define SYSTEMD_FIRST_FD 3

static bool is_loopback(const struct sockaddr *a) {
    if (a->sa_family == AF_INET)
        return (ntohl(((const struct sockaddr_in *)(const void *)a)->sin_addr.s_addr) >> 24) == 127;
    if (a->sa_family == AF_INET6)
        return IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)(const void *)a)->sin6_addr);
    return a->sa_family == AF_UNIX;
}

static int bind_and_listen(const struct sockaddr *a, socklen_t n) {
    int one = 1, fd = socket(a->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, a, n) == 0 && listen(fd, BACKLOG) == 0)
        return fd;
    int saved = errno;
    close(fd);
    errno = saved;
    return -1;
}

/* Asks whoever listens there for "/"; true if the answer is that of Ollama (or minka). */
static bool speaks_ollama(const struct sockaddr *a, socklen_t n) {
    static const char request[] = "GET / HTTP/1.0\r\nHost: localhost\r\n\r\n";
    char answer[2048];
    size_t have = 0;
    struct timeval limit = {.tv_sec = 1};
    int fd = socket(a->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return false;
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    if (connect(fd, a, n) == 0 && send(fd, request, sizeof request - 1, MSG_NOSIGNAL) > 0) {
        ssize_t got;
        while (have < sizeof answer && (got = recv(fd, answer + have, sizeof answer - have, 0)) > 0)
            have += (size_t)got;
    }
    close(fd);
    return str_find((struct str){answer, have}, STR("Ollama is running"), 0) != SIZE_MAX;
}

/* The next free port above, for the advice; 0 if none of the next hundred is. */
static u16 free_port_after(const struct sockaddr *a, socklen_t n, u16 port) {
    struct sockaddr_storage copy;
    memcpy(&copy, a, n);
    for (u32 p = port + 1u; p <= 65535 && p <= port + 100u; p++) {
        if (copy.ss_family == AF_INET)
            ((struct sockaddr_in *)(void *)&copy)->sin_port = htons((u16)p);
        else
            ((struct sockaddr_in6 *)(void *)&copy)->sin6_port = htons((u16)p);
        int fd = bind_and_listen((struct sockaddr *)&copy, n);
        if (fd >= 0) {
            close(fd);
            return (u16)p;
        }
    }
    return 0;
}

static enum status explain(const struct settings *s, const struct addrinfo *a, const char *url,
                           struct err *err) {
    if (errno == EADDRINUSE) {
        bool ollama = speaks_ollama(a->ai_addr, a->ai_addrlen);
        u16 port = free_port_after(a->ai_addr, a->ai_addrlen, s->port);
        const char *who = ollama ? "Ollama or another minka is listening there"
                                 : "another program, not Ollama, is listening there";
        return err_set(err, ERR_IO,
                       "%s is in use: %s. Stop it, or start minka beside it: OLLAMA_HOST=%s:%u minka serve",
                       url, who, s->host, port ? port : s->port + 1u);
    }
    if (errno == EACCES)
        return err_set(err, ERR_IO,
                       "cannot listen on %s: ports below 1024 need privileges; use OLLAMA_HOST=%s:11434", url,
                       s->host);
    return err_errno(err, ERR_IO, "cannot listen on %s", url);
}

static enum status open_unix(const struct settings *s, struct listener *out, struct err *err) {
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    struct stat st;
    snprintf(a.sun_path, sizeof a.sun_path, "%s", s->unix_path);
    /* A socket that nobody answers on is left over from a server that died. */
    int probe = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool alive = probe >= 0 && connect(probe, (struct sockaddr *)&a, sizeof a) == 0;
    if (probe >= 0)
        close(probe);
    if (alive)
        return err_set(err, ERR_IO, "%s is in use by a running server", out->url);
    if (lstat(s->unix_path, &st) == 0 && S_ISSOCK(st.st_mode))
        unlink(s->unix_path);
    out->fd = bind_and_listen((struct sockaddr *)&a, sizeof a);
    if (out->fd < 0)
        return err_errno(err, ERR_IO, "cannot listen on %s", out->url);
    snprintf(out->unix_path, sizeof out->unix_path, "%s", s->unix_path);
    return OK;
}

void listener_forget(struct listener *l) {
    if (l->unix_path[0])
        unlink(l->unix_path);
    l->unix_path[0] = 0;
}

/* sd_listen_fds(3): one socket on descriptor 3, meant for this process. */
static bool inherited(struct listener *out) {
    const char *pid = getenv("LISTEN_PID"), *fds = getenv("LISTEN_FDS");
    struct sockaddr_storage a;
    socklen_t n = sizeof a;
    u64 for_pid, n_fds;
    if (!str_to_u64(str_of(pid), &for_pid) || !str_to_u64(str_of(fds), &n_fds) || for_pid != (u64)getpid() ||
        n_fds < 1)
        return false;
    if (getsockname(SYSTEMD_FIRST_FD, (struct sockaddr *)&a, &n))
        return false;
    fcntl(SYSTEMD_FIRST_FD, F_SETFD, FD_CLOEXEC);
    fcntl(SYSTEMD_FIRST_FD, F_SETFL, fcntl(SYSTEMD_FIRST_FD, F_GETFL) | O_NONBLOCK);
    out->fd = SYSTEMD_FIRST_FD;
    out->loopback = is_loopback((struct sockaddr *)&a);
    return true;
}

enum status listener_open(const struct settings *s, struct listener *out, struct err *err) {
    char port[8];
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE}, *list;
    *out = (struct listener){.fd = -1, .loopback = true};
    settings_url(s, out->url, sizeof out->url);
    if (inherited(out))
        return OK;
    if (s->unix_path[0])
        return open_unix(s, out, err);
    snprintf(port, sizeof port, "%u", s->port);
    int failed = getaddrinfo(s->host[0] ? s->host : NULL, port, &hints, &list);
    if (failed)
        return err_set(err, ERR_INVALID, "cannot resolve the host of OLLAMA_HOST \"%s\": %s", s->host,
                       gai_strerror(failed));
    out->fd = bind_and_listen(list->ai_addr, list->ai_addrlen);
    out->loopback = is_loopback(list->ai_addr);
    enum status status = out->fd >= 0 ? OK : explain(s, list, out->url, err);
    freeaddrinfo(list);
    return status;
}

void notify_systemd(const char *state) {
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    if (!path || strlen(path) >= sizeof a.sun_path)
        return;
    snprintf(a.sun_path, sizeof a.sun_path, "%s", path);
    socklen_t n = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path));
    if (a.sun_path[0] == '@')
        a.sun_path[0] = 0; /* abstract name */
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return;
    sendto(fd, state, strlen(state), MSG_NOSIGNAL, (struct sockaddr *)&a, n);
    close(fd);
}
