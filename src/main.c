/* main.c - the subcommands; the only file that knows all parts. */
#include "base/log.h"
#include "base/settings.h"
#include "cli/cli.h"
#include "cli/eval.h"
#include "cli/import.h"
#include "engine/engine.h"
#include "server/server.h"

#include <stdlib.h>

/* The descriptor on which the server hands the engine its socket. */
#define ENGINE_FD 3

static void read_settings(struct settings *s, const char *who) {
    struct err err;
    log_init(LOG_INFO, who);
    if (settings_read(s, &err) != OK)
        die("%s", err.text);
    log_init(s->debug == 2 ? LOG_TRACE : s->debug == 1 ? LOG_DEBUG : LOG_INFO, who);
}

static int serve(int argc, char **argv) {
    struct settings settings;
    if (argc > 2)
        return cli_main(argc, argv); /* prints the help of serve, or what is wrong */
    read_settings(&settings, NULL);
    return server_run(&settings);
}

int main(int argc, char **argv) {
    struct str command = str_of(argc > 1 ? argv[1] : NULL);
    if (str_is(command, "serve") || str_is(command, "start"))
        return serve(argc, argv);
    if (str_is(command, "engine")) {
        struct settings settings;
        read_settings(&settings, "engine");
        return engine_run(ENGINE_FD, &settings);
    }
    if (str_is(command, "eval"))
        return eval_main(argc - 1, argv + 1);
    if (str_is(command, "import"))
        return import_main(argc - 1, argv + 1);
    return cli_main(argc, argv);
}
