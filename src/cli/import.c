/* import.c - a GGUF file into the store. */
#include "cli/import.h"

#include "base/settings.h"
#include "store/store.h"

#include <stdio.h>

/* "Qwen2.5-0.5B-Q4_K_M.gguf" -> "Qwen2.5-0.5B-Q4_K_M". */
static struct str name_of_file(const char *path) {
    struct str s = str_of(path);
    for (size_t at; (at = str_find(s, STR("/"), 0)) != SIZE_MAX;)
        s = str_slice(s, at + 1, s.n);
    return str_ends(s, STR(".gguf")) ? str_slice(s, 0, s.n - 5) : s;
}

static enum status import(const char *path, struct str text, struct err *err) {
    struct settings settings;
    struct store *store;
    struct model_name name;
    struct arena arena;
    TRY(settings_read(&settings, err));
    TRY(model_name_parse(text, &name, err));
    TRY(store_open(settings.models, &store, err));
    enum status status = store_import(store, path, &name, err);
    if (status == OK) {
        arena_init(&arena, 0);
        printf("imported '%s' as '%.*s'\n", path, STR_FMT(model_name_short(&name, &arena)));
        arena_release(&arena);
    }
    store_close(store);
    return status;
}

int import_main(int argc, char **argv) {
    struct err err;
    if (argc < 2 || argc > 3 || argv[1][0] == '-') {
        bool help = argc == 2 && (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h"));
        fputs("Adds a GGUF file to the model store.\n\nUsage:\n  minka import FILE.gguf [NAME]\n", help ? stdout : stderr);
        return help ? 0 : 1;
    }
    if (import(argv[1], argc == 3 ? str_of(argv[2]) : name_of_file(argv[1]), &err) == OK)
        return 0;
    fprintf(stderr, "Error: %s\n", err.text);
    return 1;
}
