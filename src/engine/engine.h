/* engine.h - the engine process: the only place that computes. One loop: read messages, feed the scheduler,
 * run the step it plans, send the events. It holds nothing that can't be rebuilt from the server's journal.
 */
#ifndef MINKA_ENGINE_H
#define MINKA_ENGINE_H

#include "base/settings.h"

/* Serves the connection on fd until the other end closes it; returns the exit code. Enters the sandbox
 * first: must be called with one thread. */
int engine_run(int fd, const struct settings *settings);

#endif
