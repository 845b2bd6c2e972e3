/* repl.c - the conversation on a terminal. */
#include "cli/commands.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "cli/line.h"

/* ~/.ollama/history, shared with Ollama; the folder is made if it is missing. */
static void history_path(const struct settings *s, struct buf *out) {
    const char *home = getenv("HOME");
    if (s->no_history || !home || !*home)
        return;
    buf_printf(out, "%s/.ollama", home);
    mkdir(buf_cstr(out), 0755);
    buf_printf(out, "/history");
}

/* Tells a failure and goes on: the conversation outlives a busy, restarting or confused server. */
static void failure_show(const struct session *s, enum status status, const struct err *err) {
    char url[512];
    settings_url(&s->cli->settings, url, sizeof url);
    printf("error: %s\n", err->text);
    if (status == ERR_IO && http_client_status(s->cli->http) == 0)
        printf("Is the server running at %s? 'minka serve' starts it.\n", url);
}

/* Sends the message in r->text. One that failed is taken back; one whose answer was stopped stays with the
 * part that came, so that the conversation can go on from there. */
static void message_send(struct repl_state *r, struct err *err) {
    struct session *s = r->s;
    struct buf content = {0};
    session_message_add(s, "user", buf_str(&r->text));
    buf_clear(&r->text);
    interrupt_taken();
    enum status status = session_chat(s, &content, err);
    if (status == OK || (status == ERR_CANCELED && content.n))
        session_message_add(s, "assistant", buf_str(&content));
    else
        session_message_drop(s);
    buf_release(&content);
    interrupt_taken();
    if (status == ERR_CANCELED) {
        fputs("\n\n", stdout);
    } else if (status != OK) {
        failure_show(s, status, err);
        putchar('\n');
    }
}

/* Takes """ off the end; true if it was there. */
static bool fence_cut(struct str *line) {
    if (!str_ends(*line, STR("\"\"\"")))
        return false;
    line->n -= 3;
    return true;
}

/* One line inside a multi-line text. Returns whether the text is complete. */
static bool multiline_take(struct repl_state *r, struct str line) {
    bool closed = fence_cut(&line);
    buf_add_str(&r->text, line);
    if (!closed)
        buf_add_char(&r->text, '\n');
    return closed;
}

/* A whole line. *open: a multi-line text goes on; *send: r->text is a message to send. */
static enum status line_take(struct repl_state *r, struct str line, bool more, bool *open, bool *send,
                             struct err *err) {
    *send = false;
    if (*open) {
        *open = !multiline_take(r, line);
        if (*open)
            return OK;
        *send = !r->system_open;
        if (r->system_open)
            repl_system_set(r);
        return OK;
    }
    if (r->text.n == 0 && str_starts(line, STR("\"\"\""))) {
        *open = !multiline_take(r, str_slice(line, 3, line.n));
        *send = !*open;
        return OK;
    }
    if (!more && r->text.n == 0 && str_starts(line, STR("/"))) {
        enum status status = repl_command(r, line, err);
        *open = r->system_open;
        return status;
    }
    buf_add_str(&r->text, line);
    if (more)
        buf_add_char(&r->text, '\n');
    *send = !more;
    return OK;
}

static void repl_loop(struct repl_state *r, struct line_editor *l, struct err *err) {
    bool open = false, more = false;
    while (!r->leave) {
        struct str line;
        bool fresh = !open && !more;
        enum line_end end = line_read(l, fresh ? ">>> " : "... ", fresh, &line);
        if (end == LINE_EOF) {
            putchar('\n');
            return;
        }
        if (end == LINE_INTERRUPT) {
            fputs(line.n || !fresh ? "\n" : "\n\nUse Ctrl + d or /bye to exit.\n", stdout);
            buf_clear(&r->text);
            open = more = r->system_open = false;
            continue;
        }
        if (r->history)
            line_remember(l, line);
        more = end == LINE_MORE;
        bool send;
        enum status status = line_take(r, line, more, &open, &send, err);
        if (status != OK)
            failure_show(r->s, status, err);
        if (send && str_trim(buf_str(&r->text)).n)
            message_send(r, err);
        else if (send)
            buf_clear(&r->text);
    }
}

enum status repl_run(struct session *s, struct err *err) {
    struct repl_state r = {.s = s, .history = true};
    struct line_editor *l;
    struct buf path = {0};
    history_path(&s->cli->settings, &path);
    r.history = path.n > 0;
    enum status status = line_editor_open("Send a message (/? for help)", path.n ? buf_cstr(&path) : NULL,
                                          s->cli->term.plain, &l, err);
    buf_release(&path);
    if (status != OK)
        return status;
    repl_loop(&r, l, err);
    line_editor_close(l);
    buf_release(&r.text);
    return OK;
}
