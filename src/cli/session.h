/* session.h - one conversation with one model: what /set changes and what every request carries. */
#ifndef MINKA_CLI_SESSION_H
#define MINKA_CLI_SESSION_H

#include <jansson.h>

#include "cli/term.h"

/* What all commands share. */
struct cli {
    struct settings settings;
    struct http_client *http;
    struct term term;
};

struct session_message {
    const char *role; /* a literal */
    struct buf content;
};

struct session_option {
    char name[32];
    struct buf json; /* the value */
    struct buf text; /* as the user wrote it */
};

struct session {
    struct cli *cli;
    struct buf model;
    struct session_message *messages; /* [n_messages] */
    u32 n_messages;
    struct session_option *options; /* [n_options] */
    u32 n_options;
    struct buf system;     /* set by /set system, for display */
    struct buf format;     /* JSON text, or empty */
    struct buf think;      /* JSON text (true, "high"), or empty = the server's choice */
    bool think_set;        /* the user chose it: loading another model keeps it */
    struct buf keep_alive; /* JSON text, or empty */
    bool wrap, verbose, hide_thinking;
};

void session_release(struct session *s);
void session_message_add(struct session *s, const char *role, struct str content);
void session_message_drop(struct session *s); /* the last one */
void session_clear(struct session *s);        /* all but the system message that /set gave */

/* A parameter of Ollama's table with its values as words. ERR_INVALID: unknown, wrong type. */
enum status session_option_set(struct session *s, struct str name, const struct str *values, u32 n_values,
                               struct err *err) MUST_USE;

/* The member "key": {...} with all parameters; nothing if none is set. */
void session_options_json(const struct session *s, const char *key, struct buf *b);

/* Puts an answer on standard output as it comes, with the spinner before it and, if verbose, the figures
 * behind it on standard error. content (may be NULL) receives the visible text. ERR_CANCELED after Ctrl-C. */
enum status session_chat(struct session *s, struct buf *content, struct err *err) MUST_USE;
enum status session_generate(struct session *s, struct str prompt, struct err *err) MUST_USE;
/* Loads the model with a spinner. */
enum status session_load(struct session *s, struct err *err) MUST_USE;

/* POST /api/show; NULL on failure. The caller decrefs. */
json_t *model_show(struct cli *c, struct str model, bool verbose, struct err *err) MUST_USE;
bool model_can(const json_t *show, const char *capability);
/* think follows the model's capabilities unless the user chose. */
void session_think_infer(struct session *s, const json_t *show);

/* A string member, empty if missing. */
struct str member_text(const json_t *object, const char *key);
/* An integer member, 0 if missing. */
i64 member_number(const json_t *object, const char *key);

#endif
