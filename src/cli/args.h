/* args.h - flags and arguments of a command, in the manner of Go's command lines: --name value, --name=value,
 * -x, flags and arguments mixed, "--" ends the flags. */
#ifndef MINKA_CLI_ARGS_H
#define MINKA_CLI_ARGS_H

#include "base/base.h"

enum flag_kind {
    FLAG_BOOL,     /* --x, --x=false */
    FLAG_TEXT,     /* --x VALUE, --x=VALUE */
    FLAG_OPTIONAL, /* --x (value "true"), --x=VALUE */
};

struct flag {
    const char *name; /* without dashes */
    char letter;      /* 0 = none */
    enum flag_kind kind;
    const char *value_name; /* "string", "int": for the help text */
    const char *help;
    const char *same_as; /* another flag that this one is a second name of, or NULL */
};

#define ARGS_FLAGS_MAX 20u

struct args {
    const struct flag *flags; /* [n_flags] */
    u32 n_flags;
    bool set[ARGS_FLAGS_MAX];
    const char *values[ARGS_FLAGS_MAX]; /* NULL unless set */
    const char **rest;                  /* [n_rest] the arguments; owned */
    u32 n_rest;
    bool help; /* -h or --help */
};

/* argv[0..argc) behind the command. Texts stay in argv. */
enum status args_parse(struct args *a, const struct flag *flags, u32 n_flags, int argc, char **argv,
                       struct err *err) MUST_USE;
void args_release(struct args *a);
/* The flag's value; NULL if it was not given. name must be one of the flags. */
const char *args_text(const struct args *a, const char *name);
/* For FLAG_BOOL: false if not given. */
bool args_bool(const struct args *a, const char *name);

#endif
