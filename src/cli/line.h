/* line.h - lines from a terminal with editing and history (libedit). */
#ifndef MINKA_CLI_LINE_H
#define MINKA_CLI_LINE_H

#include "base/str.h"

struct line_editor;

enum line_end {
    LINE_READ,      /* a line, Enter */
    LINE_MORE,      /* a line, Ctrl-J, or a line end inside pasted text: the message goes on */
    LINE_INTERRUPT, /* Ctrl-C; the line is what stood there */
    LINE_EOF,       /* Ctrl-D on an empty line, or the terminal is gone */
};

/* placeholder is shown in grey while the line is empty; NULL or a plain terminal: none. history_path holds
 * the last LIMIT_HISTORY_LINES lines, one per line; NULL: kept in memory only. */
enum status line_editor_open(const char *placeholder, const char *history_path, bool plain,
                             struct line_editor **out, struct err *err) MUST_USE;
/* Restores the terminal. */
void line_editor_close(struct line_editor *l);
/* Reads a line; *text is without its end, valid until the next call. With placeholder only where asked. */
enum line_end line_read(struct line_editor *l, const char *prompt, bool placeholder, struct str *text);
/* Remembers a line and writes the history file; a failure to write is not reported. */
void line_remember(struct line_editor *l, struct str text);

#endif
