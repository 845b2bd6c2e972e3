/* work.h - work of a call that takes long (files, hashes, networks): it runs on the loop's thread pool, tells
 * its progress in lines, and ends the call on the loop's thread.
 *
 *   work_start -> run (pool thread) --work_line*--> done (loop, unless the client is gone) -> release
 */
#ifndef MINKA_API_WORK_H
#define MINKA_API_WORK_H

#include "api/call.h"

struct work;

struct work_kind {
    /* On a pool thread; ctx belongs to it until it returns. Looks at work_cancelled now and then. */
    enum status (*run)(struct work *w, void *ctx, struct err *err);
    /* On the loop's thread, once, if the call still lives: answers it. NULL: work_done. */
    void (*done)(struct call *c, void *ctx, enum status status, const struct err *err);
    /* On the loop's thread, always last. */
    void (*release)(void *ctx);
};

/* The call is working from now on. */
void work_start(struct call *c, const struct work_kind *kind, void *ctx);
/* True once the client is gone or the server stops. Any thread. */
bool work_cancelled(const struct work *w);
/* From run: an object for the client ("{...}", copied). A stream gets each as a line, otherwise the last one
 * is the reply. */
void work_line(struct work *w, struct str json);
/* The same for {"status":"<text>"}. */
void work_status(struct work *w, const char *fmt, ...) PRINTF(2, 3);
/* The usual end: an error in its place; else the end of the stream, or the last line as the reply. The code of
 * an error is that of c->refused_code or its status. */
void work_done(struct call *c, void *ctx, enum status status, const struct err *err);
/* For call.c: the client is gone. */
void work_abandon(struct work *w);

#endif
