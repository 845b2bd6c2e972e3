/* commands.h - one function per command, and the REPL; all report failures through err, cli.c prints them. */
#ifndef MINKA_CLI_COMMANDS_H
#define MINKA_CLI_COMMANDS_H

#include <stdio.h>

#include "cli/args.h"
#include "cli/session.h"

enum status command_run(struct cli *c, const struct args *a, struct err *err) MUST_USE;
enum status command_list(struct cli *c, const struct args *a, struct err *err) MUST_USE;
enum status command_ps(struct cli *c, const struct args *a, struct err *err) MUST_USE;
enum status command_stop(struct cli *c, const struct args *a, struct err *err) MUST_USE;
enum status command_pull(struct cli *c, const struct args *a, struct err *err) MUST_USE;
enum status command_push(struct cli *c, const struct args *a, struct err *err) MUST_USE;
enum status command_create(struct cli *c, const struct args *a, struct err *err) MUST_USE;
enum status command_cp(struct cli *c, const struct args *a, struct err *err) MUST_USE;
enum status command_rm(struct cli *c, const struct args *a, struct err *err) MUST_USE;
enum status command_show(struct cli *c, const struct args *a, struct err *err) MUST_USE;

/* Pulls with bars; after Ctrl-C (ERR_CANCELED) says how to go on. */
enum status model_pull(struct cli *c, struct str model, bool insecure, struct err *err) MUST_USE;
/* A request whose answer is lines of progress, which the bars show; the last must be "success". */
struct bars;
enum status progress_stream(struct cli *c, struct bars *bars, const char *path, struct str body,
                            struct err *err) MUST_USE;
/* The table of /api/tags on standard output, names that begin with prefix. */
enum status models_list(struct cli *c, struct str prefix, struct err *err) MUST_USE;
/* The sections of `minka show`. */
void show_print(const json_t *show, bool verbose, FILE *out);

/* Conversation on the terminal until Ctrl-D or /bye. */
enum status repl_run(struct session *s, struct err *err) MUST_USE;
/* A line that begins with '/'. *leave: /bye. Multi-line system text is started by setting *system_open. */
struct repl_state {
    struct session *s;
    bool leave;
    bool system_open; /* lines go to `text` until """ closes them, then become the system message */
    bool history;
    struct buf text;
};
enum status repl_command(struct repl_state *r, struct str line, struct err *err) MUST_USE;
void repl_system_set(struct repl_state *r); /* r->text becomes the system message */

#endif
