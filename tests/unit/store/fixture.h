/* fixture.h - a store in a temporary folder, and small GGUF files to put into it. */
#ifndef MINKA_TEST_STORE_FIXTURE_H
#define MINKA_TEST_STORE_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "gguf/gguf.h"
#include "store/store.h"

struct fixture {
    char folder[64]; /* everything below is removed at the end */
    struct store *store;
    struct arena arena;
};

static inline void fixture_open(struct fixture *f) {
    struct err err;
    snprintf(f->folder, sizeof f->folder, "/tmp/minka-store-XXXXXX");
    assert_non_null(mkdtemp(f->folder));
    char path[128];
    snprintf(path, sizeof path, "%s/models", f->folder);
    assert_int_equal(store_open(path, &f->store, &err), OK);
    arena_init(&f->arena, 0);
}

static inline void fixture_close(struct fixture *f) {
    char command[256];
    store_close(f->store);
    arena_release(&f->arena);
    snprintf(command, sizeof command, "chmod -R u+w %s; rm -rf %s", f->folder, f->folder);
    assert_int_equal(system(command), 0);
}

/* For cmocka: *state is the fixture. */
static inline int fixture_setup(void **state) {
    struct fixture *f = xcalloc(1, sizeof *f);
    fixture_open(f);
    *state = f;
    return 0;
}

static inline int fixture_teardown(void **state) {
    fixture_close(*state);
    free(*state);
    return 0;
}

static inline struct model_name name_of(const char *text) {
    struct model_name n;
    struct err err;
    assert_int_equal(model_name_parse(str_of(text), &n, &err), OK);
    return n;
}

/* A valid GGUF of one tensor with n float values, which are drawn from the seed. */
static inline struct str gguf_file(struct fixture *f, const char *file, u64 n, u64 seed) {
    struct str path = arena_printf(&f->arena, "%s/%s", f->folder, file);
    f32 *values = ARENA_ARRAY(&f->arena, f32, n);
    for (u64 i = 0; i < n; i++)
        values[i] = (f32)(hash_bytes(&i, sizeof i, seed) % 1000);
    struct gguf_writer *w = gguf_writer_new();
    gguf_put_str(w, "general.architecture", STR("llama"));
    gguf_put_str(w, "general.name", STR("Tiny"));
    gguf_put_u32(w, "general.file_type", 3);
    gguf_put_u32(w, "llama.context_length", 2048);
    gguf_put_tensor(w, STR("token_embd.weight"), 0, 1, &n, values);
    struct err err;
    assert_int_equal(gguf_write(w, path.p, &err), OK);
    gguf_writer_free(w);
    return path;
}

static inline void text_file(struct fixture *f, const char *below, struct str text) {
    struct str path = arena_printf(&f->arena, "%s/%s", f->folder, below);
    for (char *at = (char *)path.p + 1; *at; at++)
        if (*at == '/') {
            *at = 0;
            mkdir(path.p, 0755);
            *at = '/';
        }
    FILE *file = fopen(path.p, "w");
    assert_non_null(file);
    assert_int_equal(fwrite(text.p, 1, text.n, file), text.n);
    assert_int_equal(fclose(file), 0);
}

#endif
