/* clock.h - the only place that asks the system for the time. */
#ifndef MINKA_CLOCK_H
#define MINKA_CLOCK_H

#include <time.h>

#include "base/base.h"

/* Monotonic nanoseconds; only differences mean anything. */
static inline u64 clock_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (u64)t.tv_sec * 1000000000u + (u64)t.tv_nsec;
}

/* Wall clock, nanoseconds since 1970 UTC. */
static inline i64 clock_wall_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (i64)t.tv_sec * 1000000000 + t.tv_nsec;
}

#endif
