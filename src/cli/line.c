/* line.c - libedit with its own reader of characters, which adds what the library lacks: the placeholder,
 * bracketed paste, Ctrl-J, and an interrupt that comes back to the caller.
 *
 * The history file is plain lines, as Ollama writes it, not libedit's format. */
#include "cli/line.h"

#include <errno.h>
#include <fcntl.h>
#include <histedit.h>
#include <locale.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include <wchar.h>

#include "base/limit.h"
#include "cli/human.h"
#include "cli/term.h"

/* An escape sequence follows its first byte at once; a lone Escape key does not. */
#define ESCAPE_MS 30

struct line_editor {
    EditLine *el;
    History *history;
    const char *placeholder, *prompt;
    char *path;
    bool plain;
    bool hint; /* show the placeholder on this line */
    bool hint_shown;
    bool pasting; /* between the marks of a bracketed paste */
    bool more;    /* the line ended without Enter */
    bool interrupt;
    u8 ahead[8]; /* bytes read too early */
    u32 n_ahead;
    struct buf text, kept; /* the line; lines of the history, '\n' behind each */
};

static volatile sig_atomic_t resized;
static void on_resize(int number) { resized = number; }

/* --- characters --- */

static bool line_empty(struct line_editor *l) {
    const LineInfoW *now = el_wline(l->el);
    return now->lastchar == now->buffer;
}

static void hint_show(struct line_editor *l) {
    if (!l->hint || l->plain || !line_empty(l) || term_columns() < 40)
        return;
    printf("\033[38;5;245m%s\033[0m\033[%uD", l->placeholder, str_columns(str_of(l->placeholder)));
    fflush(stdout);
    l->hint_shown = true;
}

static void hint_hide(struct line_editor *l) {
    if (!l->hint_shown)
        return;
    fputs("\033[K", stdout);
    fflush(stdout);
    l->hint_shown = false;
}

/* Waits for input with the signals that end the wait let in only meanwhile: one that came just before is seen
 * first, and none is lost between that look and the wait. */
static void input_wait(void) {
    struct pollfd p = {.fd = STDIN_FILENO, .events = POLLIN};
    sigset_t ours, before;
    sigemptyset(&ours);
    sigaddset(&ours, SIGINT);
    sigaddset(&ours, SIGWINCH);
    sigprocmask(SIG_BLOCK, &ours, &before);
    if (!interrupt_pending() && !resized)
        ppoll(&p, 1, NULL, &before);
    sigprocmask(SIG_SETMASK, &before, NULL);
}

/* The next byte, or -1: end, error, interrupt. */
static int byte_next(struct line_editor *l) {
    if (l->n_ahead) {
        u8 c = l->ahead[0];
        memmove(l->ahead, l->ahead + 1, --l->n_ahead);
        return c;
    }
    for (;;) {
        input_wait();
        if (interrupt_taken()) {
            l->interrupt = true;
            return -1;
        }
        if (resized) {
            resized = 0;
            el_resize(l->el);
            continue;
        }
        u8 c;
        ssize_t n = read(STDIN_FILENO, &c, 1);
        if (n == 1)
            return c;
        if (n == 0 || errno != EINTR)
            return -1;
    }
}

static bool byte_soon(void) {
    struct pollfd p = {.fd = STDIN_FILENO, .events = POLLIN};
    return poll(&p, 1, ESCAPE_MS) == 1;
}

/* Behind an Escape: whether the marks of a bracketed paste follow, which are taken out of the input. */
static bool paste_mark(struct line_editor *l) {
    static const char start[] = "[200~", end[] = "[201~";
    u8 got[5];
    u32 n = 0;
    while (n < 5 && (l->n_ahead || byte_soon())) {
        int c = byte_next(l);
        if (c < 0)
            break;
        got[n++] = (u8)c;
        if (memcmp(got, start, n) && memcmp(got, end, n))
            break;
    }
    if (n == 5 && (!memcmp(got, start, 5) || !memcmp(got, end, 5))) {
        l->pasting = got[3] == '0';
        return true;
    }
    memmove(l->ahead + n, l->ahead, l->n_ahead);
    memcpy(l->ahead, got, n);
    l->n_ahead += n;
    return false;
}

/* The rest of a UTF-8 character whose first byte is c. */
static wchar_t char_rest(struct line_editor *l, u8 c) {
    char bytes[4] = {(char)c};
    u32 n = c >= 0xf0 ? 4 : c >= 0xe0 ? 3 : c >= 0xc0 ? 2 : 1, code_point;
    for (u32 i = 1; i < n; i++) {
        int next = byte_next(l);
        if (next < 0)
            return 0xfffd;
        bytes[i] = (char)next;
    }
    return utf8_decode((struct str){bytes, n}, 0, &code_point) == n ? (wchar_t)code_point : 0xfffd;
}

/* libedit's source of characters: 1 and a character, 0 at the end, -1 on error. */
static int on_char(EditLine *el, wchar_t *out) {
    struct line_editor *l;
    el_get(el, EL_CLIENTDATA, (void **)&l);
    int c;
    hint_show(l);
    do {
        c = byte_next(l);
        hint_hide(l);
        if (c < 0) {
            errno = l->interrupt ? EINTR : 0;
            return l->interrupt ? -1 : 0;
        }
    } while (c == 0x1b && paste_mark(l));
    if (c == 0x04 && line_empty(l)) {
        errno = 0;
        return 0; /* libedit would write ^D first */
    }
    if (c == '\r' || c == '\n') {
        /* Enter is CR (ICRNL is off), Ctrl-J and lines of a file are LF. */
        l->more = l->pasting || c == '\n';
        *out = '\n';
    } else if (l->pasting && c < 0x20) {
        *out = ' ';
    } else {
        *out = c < 0x80 ? (wchar_t)c : char_rest(l, (u8)c);
    }
    return 1;
}

static char *on_prompt(EditLine *el) {
    struct line_editor *l;
    el_get(el, EL_CLIENTDATA, (void **)&l);
    return (char *)l->prompt;
}

/* --- history --- */

static void history_write(struct line_editor *l) {
    struct buf path = {0};
    buf_printf(&path, "%s.%d", l->path, (int)getpid());
    int fd = open(buf_cstr(&path), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd >= 0) {
        bool whole = write(fd, l->kept.p, l->kept.n) == (ssize_t)l->kept.n;
        whole &= close(fd) == 0;
        if (!whole || rename(path.p, l->path) != 0)
            unlink(path.p);
    }
    buf_release(&path);
}

/* Cuts to the newest lines. */
static void history_trim(struct line_editor *l) {
    u32 lines = 0;
    for (size_t at = l->kept.n; at > 0; at--)
        if (l->kept.p[at - 1] == '\n' && ++lines > LIMIT_HISTORY_LINES) {
            buf_consume(&l->kept, at);
            return;
        }
}

static void history_add(struct line_editor *l, struct str line) {
    HistEvent event;
    struct buf text = {0};
    buf_add_str(&text, line);
    history(l->history, &event, H_ENTER, buf_cstr(&text));
    buf_release(&text);
    buf_add_str(&l->kept, line);
    buf_add_char(&l->kept, '\n');
    history_trim(l);
}

static void history_read(struct line_editor *l) {
    FILE *f = fopen(l->path, "re");
    char *line = NULL;
    size_t cap = 0;
    ssize_t n;
    if (!f)
        return;
    while ((n = getline(&line, &cap, f)) > 0) {
        struct str text = str_trim((struct str){line, (size_t)n});
        if (text.n)
            history_add(l, text);
    }
    free(line);
    fclose(f);
}

void line_remember(struct line_editor *l, struct str text) {
    text = str_trim(text);
    if (text.n == 0)
        return;
    history_add(l, text);
    if (l->path)
        history_write(l);
}

/* --- life --- */

static void keys_bind(EditLine *el) {
    static const char *const binds[][2] = {
        {"\\e[3~", "ed-delete-next-char"}, {"\\e[1~", "ed-move-to-beg"},  {"\\e[4~", "ed-move-to-end"},
        {"\\e[H", "ed-move-to-beg"},       {"\\e[F", "ed-move-to-end"},   {"\\eOH", "ed-move-to-beg"},
        {"\\eOF", "ed-move-to-end"},       {"^W", "ed-delete-prev-word"}, {"^U", "vi-kill-line-prev"},
        {"\\e[1;5C", "em-next-word"},      {"\\e[1;5D", "ed-prev-word"}};
    for (size_t i = 0; i < ARRAY_LEN(binds); i++)
        el_set(el, EL_BIND, binds[i][0], binds[i][1], NULL);
    /* Enter stays CR, so that it differs from Ctrl-J. The same between lines, without echo: what is typed
     * while an answer runs must not get into it, and is there for the next line. */
    el_set(el, EL_SETTY, "-d", "-icrnl", "-inlcr", NULL);
    el_set(el, EL_SETTY, "-x", "-icanon", "-echo", "-icrnl", "-inlcr", NULL);
}

static void locale_set(void) {
    if (!setlocale(LC_CTYPE, "") || MB_CUR_MAX == 1)
        setlocale(LC_CTYPE, "C.UTF-8");
}

enum status line_editor_open(const char *placeholder, const char *history_path, bool plain,
                             struct line_editor **out, struct err *err) {
    locale_set();
    struct line_editor *l = xcalloc(1, sizeof *l);
    HistEvent event;
    l->placeholder = placeholder;
    l->plain = plain || !placeholder;
    l->prompt = "";
    l->el = el_init("minka", stdin, stdout, stderr);
    l->history = history_init();
    if (!l->el || !l->history) {
        line_editor_close(l);
        return err_set(err, ERR_IO, "cannot edit lines on this terminal (TERM=%s)",
                       getenv("TERM") ? getenv("TERM") : "");
    }
    el_set(l->el, EL_CLIENTDATA, l);
    el_set(l->el, EL_PROMPT, on_prompt);
    el_set(l->el, EL_EDITOR, "emacs");
    el_set(l->el, EL_GETCFN, on_char);
    el_set(l->el, EL_HIST, history, l->history);
    history(l->history, &event, H_SETSIZE, (int)LIMIT_HISTORY_LINES);
    history(l->history, &event, H_SETUNIQUE, 1);
    keys_bind(l->el);
    if (history_path) {
        l->path = xstrdup(history_path);
        history_read(l);
    }
    struct sigaction act = {.sa_handler = on_resize};
    sigemptyset(&act.sa_mask);
    sigaction(SIGWINCH, &act, NULL);
    if (!plain)
        fputs("\033[?2004h", stdout);
    *out = l;
    return OK;
}

void line_editor_close(struct line_editor *l) {
    if (!l->plain) {
        fputs("\033[?2004l", stdout);
        fflush(stdout);
    }
    if (l->el)
        el_end(l->el);
    if (l->history)
        history_end(l->history);
    free(l->path);
    buf_release(&l->text);
    buf_release(&l->kept);
    free(l);
}

enum line_end line_read(struct line_editor *l, const char *prompt, bool placeholder, struct str *text) {
    l->prompt = prompt;
    l->hint = placeholder && l->placeholder;
    l->more = l->interrupt = false;
    int n = 0;
    const char *line = el_gets(l->el, &n);
    buf_clear(&l->text);
    if (line && n > 0)
        buf_add(&l->text, line, (size_t)n - (line[n - 1] == '\n'));
    *text = buf_str(&l->text);
    if (l->interrupt) {
        const LineInfo *now = el_line(l->el);
        buf_clear(&l->text);
        buf_add(&l->text, now->buffer, (size_t)(now->lastchar - now->buffer));
        *text = buf_str(&l->text);
        el_reset(l->el);
        return LINE_INTERRUPT;
    }
    if (!line || n <= 0)
        return LINE_EOF;
    return l->more ? LINE_MORE : LINE_READ;
}
