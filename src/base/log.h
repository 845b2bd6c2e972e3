/* log.h - one line per event on standard error, in the slog text form that Ollama's users grep:
 *   time=2026-01-02T03:04:05.678Z level=INFO msg="listening" addr=127.0.0.1:11434
 * Under journald (JOURNAL_STREAM is set) the time is left out and a <N> priority is put in front. */
#ifndef MINKA_LOG_H
#define MINKA_LOG_H

#include "base/base.h"

enum log_level { LOG_TRACE, LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };

/* Lines below level are dropped. who ("server", "engine") is added as a field; a static string. */
void log_init(enum log_level level, const char *who);
bool log_enabled(enum log_level level);
/* msg is a plain text; fmt holds the "key=value" fields, or "" for none. Thread-safe, one write. */
void log_line(enum log_level level, const char *msg, const char *fmt, ...) PRINTF(3, 4);

#define log_debug(msg, ...) log_line(LOG_DEBUG, msg, __VA_ARGS__)
#define log_info(msg, ...) log_line(LOG_INFO, msg, __VA_ARGS__)
#define log_warn(msg, ...) log_line(LOG_WARN, msg, __VA_ARGS__)
#define log_error(msg, ...) log_line(LOG_ERROR, msg, __VA_ARGS__)

#endif
