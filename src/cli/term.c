/* term.c - terminal output. */
#include "cli/term.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "cli/human.h"

struct term term_look(void) {
    const char *name = getenv("TERM"), *no_color = getenv("NO_COLOR");
    return (struct term){
        .in = isatty(STDIN_FILENO),
        .out = isatty(STDOUT_FILENO),
        .err = isatty(STDERR_FILENO),
        .plain = (no_color && *no_color) || !name || !*name || !strcmp(name, "dumb"),
    };
}

u32 term_columns(void) {
    struct winsize size;
    return ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col ? size.ws_col : 80;
}

u32 term_rows(void) {
    struct winsize size;
    return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_row > 1 ? size.ws_row : 24;
}

const char *term_grey(const struct term *t) { return t->out && !t->plain ? "\033[38;5;245m" : ""; }
const char *term_bold(const struct term *t) { return t->out && !t->plain ? "\033[1m" : ""; }
const char *term_reset(const struct term *t) { return t->out && !t->plain ? "\033[0m" : ""; }

/* --- Ctrl-C --- */

static volatile sig_atomic_t interrupted;
static struct http_client *interrupt_client;

static void on_interrupt(int number) {
    (void)number;
    interrupted = 1;
    http_client_cancel(interrupt_client);
}

void interrupt_catch(struct http_client *c) {
    interrupt_client = c;
    /* Without SA_RESTART: reading a line ends, too. */
    struct sigaction act = {.sa_handler = on_interrupt};
    sigemptyset(&act.sa_mask);
    sigaction(SIGINT, &act, NULL);
}

bool interrupt_pending(void) { return interrupted; }

bool interrupt_taken(void) {
    bool was = interrupted;
    interrupted = 0;
    return was;
}

/* --- spinner --- */

void spinner_start(struct spinner *s, const struct term *t) {
    *s = (struct spinner){.on = t->err && !t->plain};
    if (s->on) {
        fputs("\033[?25l", stderr);
        spinner_tick(s);
    }
}

void spinner_tick(struct spinner *s) {
    static const char *const frames[] = {"⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"};
    if (!s->on)
        return;
    fprintf(stderr, "\r%s ", frames[s->frame++ % ARRAY_LEN(frames)]);
    fflush(stderr);
}

void spinner_stop(struct spinner *s) {
    if (!s->on)
        return;
    s->on = false;
    fputs("\r\033[K\033[?25h", stderr);
    fflush(stderr);
}

/* --- text --- */

/* Columns left free at the right, so that a word in progress rarely has to move. */
#define MARGIN 5

static void put(struct str s) { fwrite(s.p, 1, s.n, stdout); }

/* The character does not fit: its word moves to the next line, or is cut where it is longer than a line. */
static void line_break(struct text_out *o, u32 width) {
    u32 moved = str_columns(buf_str(&o->word));
    if (moved == 0 || moved + MARGIN >= width) {
        putchar('\n');
        buf_clear(&o->word);
        o->column = 0;
        return;
    }
    printf("\033[%uD\033[K\n", moved);
    put(buf_str(&o->word));
    o->column = moved;
}

static void wrapped_char(struct text_out *o, struct str c, u32 code_point, u32 width) {
    if (code_point == '\n') {
        putchar('\n');
        text_out_restart(o);
        return;
    }
    u32 columns = code_point == '\t' ? 8 - o->column % 8 : char_columns(code_point);
    bool blank = code_point == ' ' || code_point == '\t';
    if (o->column + columns > width) {
        if (blank) {
            putchar('\n');
            text_out_restart(o);
            return;
        }
        line_break(o, width);
    }
    put(c);
    o->column += columns;
    /* Lines may break before and behind wide characters. */
    if (blank || columns >= 2)
        buf_clear(&o->word);
    else
        buf_add_str(&o->word, c);
}

void text_out_write(struct text_out *o, struct str text) {
    if (!o->terminal) {
        put(text);
        return;
    }
    u32 columns = term_columns(), width = columns > MARGIN ? columns - MARGIN : 0;
    bool wrap = o->wrap && columns >= 10;
    for (size_t at = 0; at < text.n;) {
        u32 code_point, n = utf8_decode(text, at, &code_point);
        struct str c = {text.p + at, n};
        bool control = code_point < 0x20 || (code_point >= 0x7f && code_point < 0xa0);
        at += n ? n : 1;
        if (code_point == '\r' && n)
            continue;
        if (n == 0 || (control && code_point != '\n' && code_point != '\t')) {
            c = STR("\xef\xbf\xbd");
            code_point = 0xfffd;
        }
        if (wrap)
            wrapped_char(o, c, code_point, width);
        else
            put(c);
    }
}

void text_out_restart(struct text_out *o) {
    o->column = 0;
    buf_clear(&o->word);
}

void text_out_release(struct text_out *o) { buf_release(&o->word); }
