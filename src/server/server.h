/* server.h - the server process: one event loop with HTTP, the dialects, the store, the journal of open
 * requests and the engine process it starts and watches. It computes nothing and never waits for the engine.
 */
#ifndef MINKA_SERVER_H
#define MINKA_SERVER_H

#include "base/settings.h"

/* Listens, starts the engine, serves until SIGINT or SIGTERM; returns the exit code. */
int server_run(const struct settings *settings);

#endif
