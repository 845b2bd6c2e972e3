/* cli.c - the table of commands, their help, and how a failure is told. */
#include "cli/cli.h"

#include <stdio.h>

#include "cli/commands.h"

struct command {
    const char *name, *alias, *usage, *summary;
    const struct flag *flags;
    u32 n_flags, n_min, n_max;
    enum status (*run)(struct cli *c, const struct args *a, struct err *err); /* NULL: not here */
};

static const struct flag run_flags[] = {
    {"dimensions", 0, FLAG_TEXT, "int",
     "Truncate output embeddings to specified dimension (embedding models only)", NULL},
    {"format", 0, FLAG_TEXT, "string", "Response format (e.g. json)", NULL},
    {"hidethinking", 0, FLAG_BOOL, "", "Hide thinking output (if provided)", NULL},
    {"insecure", 0, FLAG_BOOL, "", "Use an insecure registry", NULL},
    {"keepalive", 0, FLAG_TEXT, "string", "Duration to keep a model loaded (e.g. 5m)", NULL},
    {"nowordwrap", 0, FLAG_BOOL, "", "Don't wrap words to the next line automatically", NULL},
    {"num-ctx", 0, FLAG_TEXT, "int", "Context size in tokens", NULL},
    {"context-size", 0, FLAG_TEXT, "int", "The same as --num-ctx", "num-ctx"},
    {"think", 0, FLAG_OPTIONAL, "string",
     "Enable thinking mode: true/false or high/medium/low for supported models", NULL},
    {"truncate", 0, FLAG_BOOL, "",
     "For embedding models: truncate inputs exceeding context length (default: true)", NULL},
    {"verbose", 0, FLAG_BOOL, "", "Show timings for response", NULL},
};

static const struct flag show_flags[] = {
    {"license", 0, FLAG_BOOL, "", "Show license of a model", NULL},
    {"modelfile", 0, FLAG_BOOL, "", "Show Modelfile of a model", NULL},
    {"parameters", 0, FLAG_BOOL, "", "Show parameters of a model", NULL},
    {"system", 0, FLAG_BOOL, "", "Show system message of a model", NULL},
    {"template", 0, FLAG_BOOL, "", "Show template of a model", NULL},
    {"verbose", 'v', FLAG_BOOL, "", "Show detailed model information", NULL},
};

static const struct flag create_flags[] = {
    {"draft-quantize", 0, FLAG_TEXT, "string", "Quantize a draft model (not supported by minka)", NULL},
    {"experimental", 0, FLAG_BOOL, "", "Create from safetensors (not supported by minka)", NULL},
    {"file", 'f', FLAG_TEXT, "string", "Name of the Modelfile (default \"Modelfile\")", NULL},
    {"quantize", 'q', FLAG_TEXT, "string",
     "Quantize to this level; minka takes only files that have it already", NULL},
};

static const struct flag transfer_flags[] = {
    {"insecure", 0, FLAG_BOOL, "", "Use an insecure registry", NULL},
};

static const struct command commands[] = {
    {"serve", "start", "serve", "Start the server", NULL, 0, 0, 0, NULL},
    {"run", NULL, "run MODEL|FILE.gguf [PROMPT]", "Run a model", run_flags, ARRAY_LEN(run_flags), 1,
     UINT32_MAX, command_run},
    {"create", NULL, "create MODEL", "Create a model", create_flags, ARRAY_LEN(create_flags), 1, 1,
     command_create},
    {"stop", NULL, "stop MODEL", "Stop a running model", NULL, 0, 1, 1, command_stop},
    {"show", NULL, "show MODEL", "Show information for a model", show_flags, ARRAY_LEN(show_flags), 1, 1,
     command_show},
    {"pull", NULL, "pull MODEL", "Pull a model from a registry", transfer_flags, ARRAY_LEN(transfer_flags), 1,
     1, command_pull},
    {"push", NULL, "push MODEL", "Push a model to a registry", transfer_flags, ARRAY_LEN(transfer_flags), 1,
     1, command_push},
    {"list", "ls", "list [PREFIX]", "List models", NULL, 0, 0, 1, command_list},
    {"ps", NULL, "ps [PREFIX]", "List running models", NULL, 0, 0, 1, command_ps},
    {"cp", NULL, "cp SOURCE DESTINATION", "Copy a model", NULL, 0, 2, 2, command_cp},
    {"rm", NULL, "rm MODEL [MODEL...]", "Remove a model", NULL, 0, 1, UINT32_MAX, command_rm},
    {"import", NULL, "import FILE.gguf [NAME]", "Add a model file to the store", NULL, 0, 0, 0, NULL},
    {"eval", NULL, "eval WHAT FILE", "Look inside a model file", NULL, 0, 0, 0, NULL},
};

/* Commands of Ollama that need routes this version lacks. */
static const char *const missing[] = {"signin", "signout", "login", "logout", "launch"};

static const struct command *command_find(const char *name) {
    for (size_t i = 0; i < ARRAY_LEN(commands); i++)
        if (!strcmp(commands[i].name, name) || (commands[i].alias && !strcmp(commands[i].alias, name)))
            return &commands[i];
    return NULL;
}

/* --- help --- */

static void help_root(FILE *out) {
    fputs("Large language model server\n\nUsage:\n  minka [command]\n\nAvailable Commands:\n", out);
    for (size_t i = 0; i < ARRAY_LEN(commands); i++)
        fprintf(out, "  %-10s  %s\n", commands[i].name, commands[i].summary);
    fputs("  help        Help about any command\n\n"
          "Flags:\n  -h, --help      help for minka\n  -v, --version   Show version information\n\n"
          "Use \"minka [command] --help\" for more information about a command.\n",
          out);
}

static void help_command(const struct command *c, FILE *out) {
    fprintf(out, "%s\n\nUsage:\n  minka %s%s\n", c->summary, c->usage, c->n_flags ? " [flags]" : "");
    if (c->alias)
        fprintf(out, "\nAliases:\n  %s, %s\n", c->name, c->alias);
    fputs("\nFlags:\n", out);
    for (u32 i = 0; i < c->n_flags; i++) {
        const struct flag *f = &c->flags[i];
        char left[64], letter[8] = "    ";
        if (f->letter)
            snprintf(letter, sizeof letter, "-%c, ", f->letter);
        snprintf(left, sizeof left, "%s--%s%s%s", letter, f->name, f->value_name[0] ? " " : "",
                 f->value_name);
        fprintf(out, "  %-26s   %s\n", left, f->help);
    }
    fprintf(out, "  %-26s   help for %s\n", "-h, --help", c->name);
    fputs("\nEnvironment Variables:\n"
          "  OLLAMA_HOST          The server: host:port or unix:/path (default 127.0.0.1:11434)\n",
          out);
    if (c->run == command_run)
        fputs("  OLLAMA_NOHISTORY     Do not preserve readline history\n"
              "  OLLAMA_MODELS        The store that FILE.gguf is imported into\n"
              "  NO_COLOR             No colours, no redrawing\n",
              out);
}

static int help(int argc, char **argv) {
    const struct command *c = argc > 2 ? command_find(argv[2]) : NULL;
    if (argc > 2 && !c) {
        fprintf(stderr, "Unknown help topic '%s'\n", argv[2]);
        return 1;
    }
    if (c)
        help_command(c, stdout);
    else
        help_root(stdout);
    return 0;
}

/* --- version --- */

static int version(void) {
    static struct settings settings;
    struct http_client *http = NULL;
    struct buf answer = {0};
    struct err err;
    json_t *root = NULL;
    if (settings_read(&settings, &err) == OK && http_client_open(&settings, &http, &err) == OK &&
        http_client_call(http, "GET", "/api/version", STR_NONE, &answer, &err) == OK)
        root = json_loadb(answer.p ? answer.p : "", answer.n, 0, NULL);
    struct str server = member_text(root, "version");
    if (server.n)
        printf("minka version is %.*s\n", STR_FMT(server));
    else
        puts("Warning: could not connect to a running minka instance");
    if (!str_is(server, MINKA_VERSION))
        printf("%s %s\n", server.n ? "Warning: client version is" : "client version is", MINKA_VERSION);
    json_decref(root);
    buf_release(&answer);
    http_client_close(http);
    return 0;
}

/* --- running a command --- */

static enum status count_check(const struct command *c, u32 n, struct err *err) {
    if (n < c->n_min && c->n_max != c->n_min)
        return err_set(err, ERR_INVALID, "requires at least %u arg(s), only received %u", c->n_min, n);
    if ((n < c->n_min || n > c->n_max) && c->n_max == c->n_min)
        return err_set(err, ERR_INVALID, "accepts %u arg(s), received %u", c->n_min, n);
    if (n > c->n_max)
        return err_set(err, ERR_INVALID, "accepts at most %u arg(s), received %u", c->n_max, n);
    return OK;
}

/* Whether the server answers at all, before anything is read or imported. */
static enum status reach(struct cli *c, struct err *err) {
    struct buf nothing = {0};
    char url[512];
    enum status status = http_client_call(c->http, "HEAD", "/", STR_NONE, &nothing, err);
    buf_release(&nothing);
    if (status != ERR_IO || http_client_status(c->http) != 0)
        return status == ERR_CANCELED ? status : OK;
    settings_url(&c->settings, url, sizeof url);
    return err_set(err, ERR_IO, "could not connect to minka server at %s, run 'minka serve' to start it",
                   url);
}

static enum status command_start(const struct command *command, const struct args *a, struct err *err) {
    static struct cli c; /* static, because texts of the settings live as long as the process */
    c.term = term_look();
    TRY(count_check(command, a->n_rest, err));
    check(command->run != NULL);
    TRY(settings_read(&c.settings, err));
    TRY(http_client_open(&c.settings, &c.http, err));
    interrupt_catch(c.http);
    enum status status = reach(&c, err);
    if (status == OK)
        status = command->run(&c, a, err);
    if (fflush(stdout) != 0 && status == OK)
        status = err_errno(err, ERR_IO, "cannot write to standard output");
    http_client_close(c.http);
    return status;
}

static int fail(enum status status, const struct err *err) {
    if (status == OK)
        return 0;
    if (status == ERR_CANCELED) {
        fputc('\n', stderr);
        return 130;
    }
    fprintf(stderr, "Error: %s\n", err->text);
    return 1;
}

static int unknown(const char *name) {
    for (size_t i = 0; i < ARRAY_LEN(missing); i++)
        if (!strcmp(missing[i], name)) {
            fprintf(
                stderr,
                "Error: 'minka %s' is not supported by this version; 'minka run FILE.gguf' or 'minka import' "
                "adds a model\n",
                name);
            return 1;
        }
    fprintf(stderr, "Error: unknown %s \"%s\" for \"minka\"\n", name[0] == '-' ? "flag" : "command", name);
    return 1;
}

int cli_main(int argc, char **argv) {
    const char *name = argc > 1 ? argv[1] : "help";
    if (!strcmp(name, "help") || !strcmp(name, "--help") || !strcmp(name, "-h"))
        return help(argc, argv);
    if (!strcmp(name, "--version") || !strcmp(name, "-v"))
        return version();
    const struct command *command = command_find(name);
    if (!command)
        return unknown(name);
    struct args a;
    struct err err = {0};
    enum status status = args_parse(&a, command->flags, command->n_flags, argc - 2, argv + 2, &err);
    if (status == OK && a.help) {
        help_command(command, stdout);
    } else if (status == OK) {
        status = command_start(command, &a, &err);
    }
    args_release(&a);
    return fail(status, &err);
}
