/* walk.c - the four levels of folders below manifests/. */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "store/files.h"

static int dir_entry_visible(const struct dirent *e) { return e->d_name[0] != '.'; }

static bool folder_walk(struct walk *w, const char *path, u32 level) {
    struct dirent **names;
    int n = scandir(path, &names, dir_entry_visible, alphasort);
    bool done = false;
    if (n < 0 && errno != ENOENT && errno != ENOTDIR)
        w->failed = true;
    for (int i = 0; i < n && !done; i++) {
        const char *name = names[i]->d_name;
        if (w->want[level] && !str_eq_nocase(str_of(name), str_of(w->want[level])))
            continue;
        w->at[level] = name;
        if (level == 3) {
            done = w->visit(w);
            continue;
        }
        char *deeper;
        if (asprintf(&deeper, "%s/%s", path, name) < 0)
            break;
        done = folder_walk(w, deeper, level + 1);
        free(deeper);
    }
    for (int i = 0; i < n; i++)
        free(names[i]);
    if (n >= 0)
        free(names);
    return done;
}

bool store_walk(struct walk *w) {
    struct str path = arena_printf(w->arena, "%s/manifests", w->store->path);
    return folder_walk(w, path.p, 0);
}
