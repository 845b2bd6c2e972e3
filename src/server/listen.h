/* listen.h - the listening socket: an address, a Unix socket, or one that systemd hands over. */
#ifndef MINKA_LISTEN_H
#define MINKA_LISTEN_H

#include "base/settings.h"

struct listener {
    int fd;
    bool loopback;       /* reachable from this machine only */
    char url[512];       /* for messages */
    char unix_path[108]; /* the socket file that this process made; empty: none */
};

/* Binds and listens (non-blocking). If the address is taken the message says by whom, as far as one GET
 * tells, and gives the OLLAMA_HOST= line that helps. */
enum status listener_open(const struct settings *s, struct listener *out, struct err *err) MUST_USE;
/* Removes the socket file, if there is one; the descriptor is not ours any more. */
void listener_forget(struct listener *l);
/* Tells systemd (Type=notify) that the service is ready, or stopping; nothing without NOTIFY_SOCKET. */
void notify_systemd(const char *state);

#endif
