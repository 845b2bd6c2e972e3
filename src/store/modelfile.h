/* modelfile.h - Modelfiles: the text that describes a model, read and printed.
 *
 * Grammar (that of the reference): lines "COMMAND value"; '#' begins a comment where a command could stand.
 * Commands are known in any case and come in any order. A value is the rest of its line, or stands between
 * quotes or triple quotes and may then span lines; there are no escapes. PARAMETER's value begins with the
 * parameter's name, MESSAGE's with the role. A byte order mark is understood, UTF-16 with one too; broken
 * UTF-8 becomes U+FFFD, control characters other than tabs and line ends are dropped. */
#ifndef MINKA_STORE_MODELFILE_H
#define MINKA_STORE_MODELFILE_H

#include "base/arena.h"
#include "base/buf.h"

enum modelfile_command {
    MODELFILE_FROM,
    MODELFILE_LICENSE,
    MODELFILE_TEMPLATE,
    MODELFILE_SYSTEM,
    MODELFILE_ADAPTER,
    MODELFILE_DRAFT,
    MODELFILE_RENDERER,
    MODELFILE_PARSER,
    MODELFILE_PARAMETER,
    MODELFILE_MESSAGE,
    MODELFILE_REQUIRES,
};

struct modelfile_line {
    enum modelfile_command command;
    struct str key; /* PARAMETER: the name; MESSAGE: the role; else empty */
    struct str value;
};

struct modelfile {
    struct modelfile_line *lines; /* [n], in the file's order */
    u32 n;
};

/* Strings live in the arena. ERR_INVALID with the reference's text: "(line 3): command must be one of ...",
 * "(line 3): message role must be one of ...", "no FROM line", "unexpected EOF"; ERR_TOO_LARGE over
 * LIMIT_STORE_TEXT_BYTES. */
enum status modelfile_parse(struct str text, struct arena *a, struct modelfile *out, struct err *err) MUST_USE;
/* One line with its line end. What modelfile_parse reads from it is the same line, unless the value holds
 * control characters, or a line of it ends in three quotes. */
void modelfile_print(struct buf *b, const struct modelfile_line *line);

#endif
