/* term.h - what the terminal can do, the interrupt key, the spinner, and text that wraps at words. */
#ifndef MINKA_CLI_TERM_H
#define MINKA_CLI_TERM_H

#include "base/buf.h"
#include "http/client.h"

struct term {
    bool in, out, err; /* standard input, output, error are terminals */
    bool plain;        /* no escape sequences: NO_COLOR is set, or TERM is dumb or missing */
};

struct term term_look(void);
/* Columns of standard output; 80 if unknown. */
u32 term_columns(void);
/* Rows of standard error; 24 if unknown. */
u32 term_rows(void);

/* Sequences, empty where the terminal is plain. */
const char *term_grey(const struct term *t);
const char *term_bold(const struct term *t);
const char *term_reset(const struct term *t);

/* --- Ctrl-C --- */
/* From now on an interrupt ends the transfer of c and is remembered. */
void interrupt_catch(struct http_client *c);
/* Whether one came since the last call. */
bool interrupt_taken(void);
/* The same without forgetting it. */
bool interrupt_pending(void);

/* --- spinner: on standard error, only on a terminal, only until the first text --- */
struct spinner {
    bool on;
    u32 frame;
};
void spinner_start(struct spinner *s, const struct term *t);
void spinner_tick(struct spinner *s);
/* Removes it; harmless if it is not there. */
void spinner_stop(struct spinner *s);

/* --- text of the model --- */
/* Writes text as it arrives. On a terminal, control characters other than line ends and tabs are shown as
 * U+FFFD (the text must not command the terminal), and with wrap a word that reaches the right margin is
 * taken back and put on the next line. Elsewhere the bytes go out as they are. */
struct text_out {
    bool terminal, wrap;
    u32 column;
    struct buf word; /* since the last blank, in case it has to move */
};
void text_out_write(struct text_out *o, struct str text);
void text_out_restart(struct text_out *o); /* at the left margin again */
void text_out_release(struct text_out *o);

#endif
