/* log.c - formats a line in a stack buffer and writes it with one call. */
#include "base/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static struct {
    enum log_level level;
    const char *who;
    bool journal;
} sink = {LOG_INFO, NULL, false};

void log_init(enum log_level level, const char *who) {
    sink.level = level;
    sink.who = who;
    sink.journal = getenv("JOURNAL_STREAM") != NULL;
}

bool log_enabled(enum log_level level) { return level >= sink.level; }

static const char *const level_name[] = {"TRACE", "DEBUG", "INFO", "WARN", "ERROR"};
static const int level_priority[] = {7, 7, 6, 4, 3}; /* syslog numbers */

void log_line(enum log_level level, const char *msg, const char *fmt, ...) {
    if (!log_enabled(level))
        return;
    char line[2048];
    size_t cap = sizeof line - 1, n = 0;
    if (sink.journal) {
        n += (size_t)snprintf(line, cap, "<%d>", level_priority[level]);
    } else {
        struct timespec now;
        struct tm tm;
        clock_gettime(CLOCK_REALTIME, &now);
        gmtime_r(&now.tv_sec, &tm);
        n += strftime(line, cap, "time=%Y-%m-%dT%H:%M:%S", &tm);
        n += (size_t)snprintf(line + n, cap - n, ".%03ldZ ", now.tv_nsec / 1000000);
    }
    n += (size_t)snprintf(line + n, cap - n, "level=%s msg=\"%s\"", level_name[level], msg);
    if (sink.who && n < cap)
        n += (size_t)snprintf(line + n, cap - n, " who=%s", sink.who);
    n = MIN(n, cap);
    if (fmt[0] && n + 1 < cap) {
        line[n++] = ' ';
        va_list ap;
        va_start(ap, fmt);
        n += (size_t)vsnprintf(line + n, cap - n, fmt, ap);
        va_end(ap);
    }
    n = MIN(n, cap - 1);
    line[n++] = '\n';
    ssize_t ignored UNUSED = write(STDERR_FILENO, line, n);
}
