/* bars.h - what a pull or push looks like: one line per step, a bar for each blob. On a terminal they are
 * drawn anew as they change; elsewhere each step is one line, and a blob one for every tenth of it. On
 * standard error, as everything that is no result. */
#ifndef MINKA_CLI_BARS_H
#define MINKA_CLI_BARS_H

#include <stdio.h>

#include "base/str.h"

#define BARS_STATUS_BYTES 96
#define BARS_RATE_SECONDS 10u

struct bar {
    char status[BARS_STATUS_BYTES];
    u64 total, completed;  /* total 0: a step without a bar */
    u64 start_ns, stop_ns; /* stop_ns 0: goes on */
    u32 tenths;            /* printed so far, without a terminal */
    /* the last seconds: rate = what came since the oldest of them */
    struct {
        u64 ns, completed;
    } marks[BARS_RATE_SECONDS];
    u32 n_marks;
};

struct bars {
    FILE *out;
    bool redraw;       /* a terminal that can */
    struct bar *items; /* [n] */
    u32 n, n_drawn;    /* lines on the screen above the cursor */
    u64 drawn_ns;
    u32 frame;
};

void bars_start(struct bars *b, FILE *out, bool redraw);
/* A line of progress. now_ns: clock_ns(). */
void bars_update(struct bars *b, struct str status, u64 total, u64 completed, u64 now_ns);
/* Draws what changed, at most ten times a second. */
void bars_tick(struct bars *b, u64 now_ns);
/* Draws for the last time and leaves the lines where they are. */
void bars_stop(struct bars *b, u64 now_ns);

/* The text of one line, without line end; columns of the terminal. */
void bar_text(const struct bar *b, u64 now_ns, u32 columns, char *out, size_t cap);

#endif
