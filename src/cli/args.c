/* args.c - flags and arguments. */
#include "cli/args.h"

#include <stdlib.h>

#define NONE UINT32_MAX

static u32 flag_find(const struct args *a, const char *name, size_t n) {
    for (u32 i = 0; i < a->n_flags; i++)
        if (strlen(a->flags[i].name) == n && !memcmp(a->flags[i].name, name, n))
            return a->flags[i].same_as ? flag_find(a, a->flags[i].same_as, strlen(a->flags[i].same_as)) : i;
    return NONE;
}

static bool truth_ok(const char *v) {
    static const char *const words[] = {"1", "t", "T", "true",  "TRUE",  "True",
                                        "0", "f", "F", "false", "FALSE", "False"};
    for (size_t i = 0; i < ARRAY_LEN(words); i++)
        if (!strcmp(v, words[i]))
            return true;
    return false;
}

/* text is behind the dashes; next is the following argument or NULL. *used_next: it was the value. */
static enum status long_flag(struct args *a, const char *text, const char *next, bool *used_next,
                             struct err *err) {
    const char *equals = strchr(text, '=');
    size_t n = equals ? (size_t)(equals - text) : strlen(text);
    if (n == 4 && !memcmp(text, "help", 4)) {
        a->help = true;
        return OK;
    }
    u32 i = flag_find(a, text, n);
    if (i == NONE)
        return err_set(err, ERR_INVALID, "unknown flag: --%.*s", (int)n, text);
    const char *value = equals ? equals + 1 : "true";
    if (!equals && a->flags[i].kind == FLAG_TEXT) {
        if (!next)
            return err_set(err, ERR_INVALID, "flag needs an argument: --%s", text);
        value = next;
        *used_next = true;
    }
    if (a->flags[i].kind == FLAG_BOOL && !truth_ok(value))
        return err_set(err, ERR_INVALID, "invalid argument \"%s\" for \"--%s\" flag: write true or false",
                       value, a->flags[i].name);
    a->set[i] = true;
    a->values[i] = value;
    return OK;
}

/* Letters of flags, of which the last may take a value: -f FILE, -fFILE, -f=FILE. */
static enum status letters(struct args *a, const char *text, const char *next, bool *used_next,
                           struct err *err) {
    for (const char *c = text; *c; c++) {
        if (*c == 'h') {
            a->help = true;
            continue;
        }
        u32 i = 0;
        while (i < a->n_flags && a->flags[i].letter != *c)
            i++;
        if (i == a->n_flags)
            return err_set(err, ERR_INVALID, "unknown shorthand flag: '%c' in -%s", *c, text);
        a->set[i] = true;
        a->values[i] = "true";
        if (a->flags[i].kind == FLAG_BOOL)
            continue;
        *used_next = c[1] == 0;
        if (!c[1] && !next)
            return err_set(err, ERR_INVALID, "flag needs an argument: '%c' in -%s", *c, text);
        a->values[i] = c[1] == '=' ? c + 2 : c[1] ? c + 1 : next;
        return OK;
    }
    return OK;
}

enum status args_parse(struct args *a, const struct flag *flags, u32 n_flags, int argc, char **argv,
                       struct err *err) {
    check(n_flags <= ARGS_FLAGS_MAX);
    *a = (struct args){.flags = flags, .n_flags = n_flags};
    a->rest = xcalloc((size_t)argc, sizeof *a->rest);
    bool only_rest = false;
    for (int i = 0; i < argc; i++) {
        const char *text = argv[i];
        if (only_rest || text[0] != '-' || !text[1]) {
            a->rest[a->n_rest++] = text;
        } else if (!strcmp(text, "--")) {
            only_rest = true;
        } else if (text[1] != '-') {
            bool used_next = false;
            TRY(letters(a, text + 1, i + 1 < argc ? argv[i + 1] : NULL, &used_next, err));
            i += used_next;
        } else {
            bool used_next = false;
            TRY(long_flag(a, text + 2, i + 1 < argc ? argv[i + 1] : NULL, &used_next, err));
            i += used_next;
        }
    }
    return OK;
}

void args_release(struct args *a) {
    free(a->rest);
    a->rest = NULL;
}

const char *args_text(const struct args *a, const char *name) {
    u32 i = flag_find(a, name, strlen(name));
    check(i != NONE);
    return a->values[i];
}

bool args_bool(const struct args *a, const char *name) {
    const char *v = args_text(a, name);
    return v && (v[0] == '1' || v[0] == 't' || v[0] == 'T');
}
