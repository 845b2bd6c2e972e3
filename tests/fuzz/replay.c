/* replay.c - runs a fuzz target over files instead of over mutations: every file of the folders given.
 * A missing folder is an empty one (regression/NAME exists only once something has crashed), but at least
 * one file must be found. The bytes lie in a heap block of their exact size, so that ASan sees a read
 * behind the end. */
#include <dirent.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void file_replay(const char *path) {
    FILE *f = fopen(path, "rb");
    struct stat st;
    if (!f || fstat(fileno(f), &st) != 0) {
        fprintf(stderr, "%s: %s\n", path, strerror(errno));
        exit(1);
    }
    size_t size = (size_t)st.st_size;
    uint8_t *data = malloc(size ? size : 1);
    if (!data || fread(data, 1, size, f) != size) {
        fprintf(stderr, "%s: could not be read\n", path);
        exit(1);
    }
    fclose(f);
    LLVMFuzzerTestOneInput(data, size);
    free(data);
}

static int folder_replay(const char *folder) {
    struct dirent **names;
    int n = scandir(folder, &names, NULL, alphasort), n_files = 0;
    for (int i = 0; i < n; i++) {
        char path[4096];
        snprintf(path, sizeof path, "%s/%s", folder, names[i]->d_name);
        if (names[i]->d_name[0] != '.') {
            file_replay(path);
            n_files++;
        }
        free(names[i]);
    }
    if (n >= 0)
        free(names);
    return n_files;
}

int main(int argc, char **argv) {
    int n_files = 0;
    for (int i = 1; i < argc; i++)
        n_files += folder_replay(argv[i]);
    printf("%d files replayed\n", n_files);
    return n_files > 0 ? 0 : 1;
}
