/* Writing: blobs that survive a kill, manifests, copies, deletion, and what is removed when. */
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>

#include "base/buf.h"
#include "fixture.h"

static int files_in(struct fixture *f, const char *folder) {
    struct str path = arena_printf(&f->arena, "%s/%s", store_path(f->store), folder);
    DIR *d = opendir(path.p);
    int n = 0;
    for (struct dirent *e; d && (e = readdir(d));)
        n += strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0;
    if (d)
        closedir(d);
    return n;
}

static void import(struct fixture *f, const char *name, u64 seed) {
    struct err err;
    struct model_name n = name_of(name);
    struct str file = gguf_file(f, "import.gguf", 1000, seed);
    assert_int_equal(store_import(f->store, file.p, &n, &err), OK);
}

static bool has_model(struct fixture *f, const char *name, struct store_model *m) {
    struct model_name n = name_of(name);
    struct err err;
    return store_find(f->store, &n, &f->arena, m, &err) == OK;
}

static enum status delete (struct fixture *f, const char *name) {
    struct model_name n = name_of(name); struct err err; return store_delete(f->store, &n, &err);
}

static enum status copy(struct fixture *f, const char *from, const char *to) {
    struct model_name a = name_of(from), b = name_of(to);
    struct err err;
    return store_copy(f->store, &a, &b, &err);
}

/* Makes a file look as old as `hours`. */
static void age(struct fixture *f, const char *name, int hours) {
    struct str path = arena_printf(&f->arena, "%s/blobs/%s", store_path(f->store), name);
    struct timespec t[2];
    clock_gettime(CLOCK_REALTIME, &t[0]);
    t[0].tv_sec -= hours * 3600;
    t[1] = t[0];
    assert_int_equal(utimensat(AT_FDCWD, path.p, t, 0), 0);
}

#define HELLO "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"

/* Goal: bytes in, blob out; the hash is what sha256sum says; a second one is not made. */
static void blob_basic(void **state) {
    struct fixture *f = *state;
    struct err err;
    struct blob_writer *w;
    char digest[72];
    bool created;
    u64 bytes;
    assert_int_equal(blob_open(f->store, STR("sha256:zz"), false, &w, &err), ERR_INVALID);
    assert_string_equal(err.text, "invalid digest format");
    for (int round = 0; round < 4; round++) {
        assert_int_equal(blob_open(f->store, round & 1 ? STR(HELLO) : STR_NONE, round > 1, &w, &err), OK);
        assert_int_equal(blob_write(w, "gone", 4, &err), OK);
        assert_int_equal(blob_restart(w, &err), OK);
        assert_int_equal(blob_write(w, "hel", 3, &err), OK);
        assert_int_equal(blob_write(w, "lo", 2, &err), OK);
        assert_int_equal(blob_bytes(w), 5);
        assert_int_equal(blob_commit(w, digest, &created, &err), OK);
        assert_string_equal(digest, HELLO);
        assert_int_equal(created, round == 0);
        assert_true(store_has_blob(f->store, STR(HELLO), &bytes));
        assert_int_equal(bytes, 5);
        assert_int_equal(files_in(f, "blobs"), 1);
    }
    struct str text;
    assert_int_equal(store_read_blob(f->store, STR(HELLO), &f->arena, &text, &err), OK);
    assert_true(str_is(text, "hello"));
}

/* Goal: wrong bytes never get the name, and do not stay. */
static void blob_mismatch(void **state) {
    struct fixture *f = *state;
    struct err err;
    struct blob_writer *w;
    for (int resumable = 0; resumable < 2; resumable++) {
        assert_int_equal(blob_open(f->store, STR(HELLO), resumable, &w, &err), OK);
        assert_int_equal(blob_write(w, "hellO", 5, &err), OK);
        assert_int_equal(blob_commit(w, NULL, NULL, &err), ERR_INVALID);
        assert_string_equal(err.text,
                            "digest mismatch, expected \"" HELLO "\", got "
                            "\"sha256:04a6f55face2f46be8c23f627d539827615851e10751b63ec59db6d2c706b770\"");
        assert_false(store_has_blob(f->store, STR(HELLO), NULL));
        assert_int_equal(files_in(f, "blobs"), 0);
    }
}

/* Goal: what was written is there again, without a second write; while one writer has the part, another one
 * starts from zero and both end well; what is dropped with keep = false is gone. */
static void blob_resume(void **state) {
    struct fixture *f = *state;
    struct err err;
    struct blob_writer *w, *second;
    bool created;
    assert_int_equal(blob_open(f->store, STR(HELLO), true, &w, &err), OK);
    assert_int_equal(blob_write(w, "hel", 3, &err), OK);
    blob_drop(w, true);
    assert_int_equal(files_in(f, "blobs"), 1);
    assert_int_equal(blob_open(f->store, STR(HELLO), true, &w, &err), OK);
    assert_int_equal(blob_bytes(w), 3);
    assert_int_equal(blob_open(f->store, STR(HELLO), true, &second, &err), OK);
    assert_int_equal(blob_bytes(second), 0);
    assert_int_equal(blob_write(second, "hello", 5, &err), OK);
    assert_int_equal(blob_commit(second, NULL, &created, &err), OK);
    assert_true(created);
    assert_int_equal(blob_write(w, "lo", 2, &err), OK);
    assert_int_equal(blob_commit(w, NULL, &created, &err), OK);
    assert_false(created);
    assert_int_equal(files_in(f, "blobs"), 1);

    assert_int_equal(blob_open(f->store, STR(HELLO), true, &w, &err), OK);
    assert_int_equal(blob_write(w, "hel", 3, &err), OK);
    blob_drop(w, false);
    assert_int_equal(files_in(f, "blobs"), 1);
}

/* Goal: killed at any moment, a download goes on from where it was and ends with the right bytes. Method:
 * a child appends slowly and is killed after growing delays until it gets to the end. */
static void blob_killed(void **state) {
    struct fixture *f = *state;
    struct err err;
    enum { N = 200000, STEP = 700 };
    u8 *data = xmalloc(N);
    for (u32 i = 0; i < N; i++)
        data[i] = (u8)(i * 2654435761u >> 24);
    struct blob_writer *w;
    struct store_layer layer;
    char want[72];
    assert_int_equal(store_put_blob(f->store, (struct str){(char *)data, N}, &layer, NULL, &err), OK);
    snprintf(want, sizeof want, "%s", layer.digest);
    assert_int_equal(unlink(store_blob_path(f->store, str_of(want), &f->arena).p), 0);
    u64 last = 0;
    int n_killed = 0, n_grown = 0;
    for (int round = 0; round < 400 && !store_has_blob(f->store, str_of(want), NULL); round++) {
        pid_t child = fork();
        if (child == 0) {
            if (blob_open(f->store, str_of(want), true, &w, &err) != OK || blob_bytes(w) < last)
                _exit(2);
            for (u64 at = blob_bytes(w); at < N; at += STEP) {
                if (blob_write(w, data + at, MIN((u64)STEP, N - at), &err) != OK)
                    _exit(3);
                usleep(50);
            }
            _exit(blob_commit(w, NULL, NULL, &err) == OK ? 0 : 4);
        }
        struct timespec wait = {0, 500000 + round * 211000 % 4000000};
        nanosleep(&wait, NULL);
        kill(child, SIGKILL);
        int how;
        assert_int_equal(waitpid(child, &how, 0), child);
        assert_true(WIFSIGNALED(how) || WEXITSTATUS(how) == 0);
        n_killed += WIFSIGNALED(how);
        if (store_has_blob(f->store, str_of(want), NULL))
            break;
        assert_int_equal(blob_open(f->store, str_of(want), true, &w, &err), OK);
        assert_true(blob_bytes(w) >= last);
        n_grown += blob_bytes(w) > last;
        last = blob_bytes(w);
        blob_drop(w, true);
    }
    struct str text;
    assert_true(n_killed > 3 && n_grown > 1);
    assert_int_equal(store_read_blob(f->store, str_of(want), &f->arena, &text, &err), OK);
    assert_true(text.n == N && memcmp(text.p, data, N) == 0);
    assert_int_equal(files_in(f, "blobs"), 1);
    free(data);
}

/* Goal: cp and rm as the reference: shared blobs stay until the last name goes, empty folders go. */
static void copy_delete(void **state) {
    struct fixture *f = *state;
    struct store_model a, b;
    import(f, "Alpha:one", 1);
    assert_int_equal(copy(f, "nothing", "b"), ERR_NOT_FOUND);
    assert_int_equal(copy(f, "alpha:ONE", "me/beta"), OK);
    assert_int_equal(copy(f, "alpha:one", "ALPHA:one"), OK);
    assert_true(has_model(f, "alpha:one", &a) && has_model(f, "me/beta", &b));
    assert_string_equal(a.digest, b.digest);
    assert_int_equal(copy(f, "me/beta", "BETA2:two"), OK);
    assert_int_equal(delete (f, "alpha:two"), ERR_NOT_FOUND);
    assert_int_equal(delete (f, "ALPHA:One"), OK);
    assert_int_equal(delete (f, "alpha:one"), ERR_NOT_FOUND);
    assert_int_equal(files_in(f, "blobs"), 2);
    assert_int_equal(files_in(f, "manifests/registry.ollama.ai/library"), 1);
    assert_int_equal(delete (f, "beta2:two"), OK);
    assert_int_equal(files_in(f, "blobs"), 2);
    assert_int_equal(delete (f, "me/beta"), OK);
    assert_int_equal(files_in(f, "blobs"), 0);
    assert_int_equal(files_in(f, "manifests"), 0);
}

/* Goal: while somebody holds the store no blob goes; afterwards what was due goes, and a model that came to
 * use it in between keeps it. Also across processes. */
static void held(void **state) {
    struct fixture *f = *state;
    struct err err;
    struct store_model m;
    struct str json;
    int hold, other;
    import(f, "m", 1);
    import(f, "n", 2);
    struct model_name name = name_of("m");
    assert_int_equal(store_read_manifest(f->store, &name, &f->arena, &json, &err), OK);
    assert_int_equal(store_hold(f->store, &hold, &err), OK);
    assert_int_equal(store_hold(f->store, &other, &err), OK);
    assert_int_equal(delete (f, "m"), OK);
    assert_int_equal(delete (f, "n"), OK);
    assert_false(has_model(f, "m", &m));
    assert_int_equal(files_in(f, "blobs"), 3); /* their configs are one */
    store_release(f->store, other);
    assert_int_equal(files_in(f, "blobs"), 3);
    name = name_of("again");
    assert_int_equal(store_put_manifest(f->store, &name, json, NULL, &err), OK);
    store_release(f->store, hold);
    assert_true(has_model(f, "again", &m));
    assert_int_equal(files_in(f, "blobs"), 2);

    int ready[2], quit[2];
    char byte = 0;
    assert_int_equal(pipe(ready), 0);
    assert_int_equal(pipe(quit), 0);
    pid_t child = fork();
    if (child == 0) {
        struct store *s;
        close(quit[1]);
        if (store_open(store_path(f->store), &s, &err) != OK || store_hold(s, &hold, &err) != OK)
            _exit(1);
        (void)!write(ready[1], &byte, 1);
        (void)!read(quit[0], &byte, 1);
        _exit(0);
    }
    assert_int_equal(read(ready[0], &byte, 1), 1);
    assert_int_equal(delete (f, "again"), OK);
    assert_int_equal(files_in(f, "blobs"), 2);
    close(quit[1]);
    assert_int_equal(waitpid(child, NULL, 0), child);
    import(f, "x", 3);
    assert_int_equal(files_in(f, "blobs"), 2);
    close(ready[0]), close(ready[1]), close(quit[0]);
}

/* Goal: a replaced manifest's blobs go, those it shares with the new one stay. */
static void replaced(void **state) {
    struct fixture *f = *state;
    struct err err;
    struct store_model m;
    struct model_name name = name_of("m");
    int hold;
    u32 n_unused;
    import(f, "m", 1);
    assert_true(has_model(f, "m", &m));
    struct store_layer extra = {STR("application/vnd.ollama.image.system")},
                       config = {STR("application/vnd.docker.container.image.v1+json")};
    snprintf(config.digest, sizeof config.digest, "%s", m.config_digest);
    config.size = m.config.n;
    assert_int_equal(store_hold(f->store, &hold, &err), OK);
    assert_int_equal(store_put_blob(f->store, STR("Be brief."), &extra, NULL, &err), OK);
    struct buf b = {0};
    store_manifest_json(&b, &config, &extra, 1);
    assert_int_equal(store_put_manifest(f->store, &name, buf_str(&b), &n_unused, &err), OK);
    assert_int_equal(n_unused, 1);
    assert_int_equal(files_in(f, "blobs"), 3);
    store_release(f->store, hold);
    assert_int_equal(files_in(f, "blobs"), 2);
    assert_true(has_model(f, "m", &m));
    assert_true(str_is(m.system, "Be brief."));
    buf_release(&b);
}

/* Goal: what a start removes and what it leaves, each kind of file; nothing next to a broken manifest. */
static void prune(void **state) {
    struct fixture *f = *state;
    static const char hex[] = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
    static const struct {
        const char *name;
        int hours;
        bool stays;
    } files[] = {{"sha256-1%.63s", 2, false},
                 {"sha256-2%.63s", 0, true},
                 {"sha256-3%.63s-partial", 2, false},
                 {"sha256-3%.63s-partial-0", 2, false},
                 {"sha256-4%.63s-part", 100, true},
                 {"sha256-5%.63s-part", 200, false},
                 {".6%.15s.tmp", 2, false},
                 {".7%.15s.tmp", 0, true},
                 {"README%.0s", 99, true},
                 {"sha256-123%.0s", 2, false}};
    import(f, "m", 1);
    char name[128];
    for (int pass = 0; pass < 2; pass++) {
        for (size_t i = 0; i < ARRAY_LEN(files); i++) {
            snprintf(name, sizeof name, files[i].name, hex);
            text_file(f, arena_printf(&f->arena, "models/blobs/%s", name).p, STR("x"));
            age(f, name, files[i].hours);
        }
        struct store_model m;
        assert_true(has_model(f, "m", &m));
        age(f, arena_printf(&f->arena, "sha256-%s", m.model_digest.p + 7).p, 99);
        text_file(f, "models/blobs/sha256:3cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824",
                  STR("old"));
        text_file(f, "models/manifests/h/n/gone/.x", STR(""));
        unlink(arena_printf(&f->arena, "%s/manifests/h/n/gone/.x", store_path(f->store)).p);
        const char *broken = "models/manifests/registry.ollama.ai/library/broken/latest";
        if (pass == 0)
            text_file(f, broken, STR("{\"layers\": ["));
        else
            unlink(arena_printf(&f->arena, "%s/%s", f->folder, broken).p);
        store_prune(f->store);
        for (size_t i = 0; i < ARRAY_LEN(files); i++) {
            snprintf(name, sizeof name, files[i].name, hex);
            struct str path = arena_printf(&f->arena, "%s/blobs/%s", store_path(f->store), name);
            assert_int_equal(access(path.p, F_OK) == 0, pass == 0 || files[i].stays);
        }
        assert_true(has_model(f, "m", &m));
        assert_true(store_has_blob(f->store, m.model_digest, NULL));
    }
    assert_true(store_has_blob(
        f->store, STR("sha256:3cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"), NULL));
    assert_int_equal(files_in(f, "manifests"), 1);
    assert_int_equal(files_in(f, "manifests/registry.ollama.ai/library"), 1);
}

/* Goal: OLLAMA_NOPRUNE leaves replaced blobs and leftovers, but rm still removes what it removes. */
static void no_prune(void **state) {
    struct fixture *f = *state;
    struct err err;
    setenv("OLLAMA_NOPRUNE", "1", 1);
    struct store *kept = f->store;
    assert_int_equal(store_open(store_path(kept), &f->store, &err), OK);
    unsetenv("OLLAMA_NOPRUNE");
    import(f, "m", 1);
    import(f, "m", 2);
    assert_int_equal(files_in(f, "blobs"), 3);
    struct store_model m;
    assert_true(has_model(f, "m", &m));
    text_file(f, "models/blobs/.0123456789abcdef.tmp", STR("x"));
    age(f, ".0123456789abcdef.tmp", 9);
    store_prune(f->store);
    assert_int_equal(files_in(f, "blobs"), 4);
    assert_int_equal(delete (f, "m"), OK);
    assert_int_equal(files_in(f, "blobs"), 2);
    store_close(f->store);
    f->store = kept;
}

/* Goal: each part of a new name takes the spelling that is there, the exact one first. */
static void spelling(void **state) {
    struct fixture *f = *state;
    import(f, "Me/Model:Tag", 1);
    import(f, "me/model:tag2", 1); /* lands below Me/Model */
    text_file(f, "models/manifests/registry.ollama.ai/exact/model/x", STR("{}"));
    static const struct {
        const char *asked, *spelled;
    } cases[] = {{"ME/MODEL:TAG", "Me/Model:Tag"},     {"me/model:TAG2", "Me/Model:tag2"},
                 {"me/model:new", "Me/model:new"},     {"ME/other", "Me/other:latest"},
                 {"new/MODEL:TAG2", "new/Model:tag2"}, {"exact/model:X", "exact/model:x"},
                 {"exact/MODEL:y", "exact/Model:y"},   {"none", "none:latest"}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct model_name n = name_of(cases[i].asked), out;
        store_spell(f->store, &n, &out);
        assert_string_equal(model_name_short(&out, &f->arena).p, cases[i].spelled);
    }
}

/* Goal: killed at any moment, copying, replacing and deleting leave every listed model with its blobs. */
static void killed(void **state) {
    struct fixture *f = *state;
    struct err err;
    import(f, "stays", 1);
    for (int round = 0; round < 60; round++) {
        pid_t child = fork();
        if (child == 0) {
            struct model_name m = name_of("m");
            struct str file = gguf_file(f, "child.gguf", 1000, 7);
            for (;;)
                if (store_import(f->store, file.p, &m, &err) != OK || copy(f, "m", "copy") != OK ||
                    delete (f, "m") != OK || delete (f, "copy") != OK)
                    _exit(1);
        }
        struct timespec wait = {0, 300000 + round * 137000};
        nanosleep(&wait, NULL);
        assert_int_equal(kill(child, SIGKILL), 0);
        int how;
        assert_int_equal(waitpid(child, &how, 0), child);
        assert_true(WIFSIGNALED(how));
        struct store_model *list;
        u32 n;
        assert_int_equal(store_list(f->store, &f->arena, &list, &n, &err), OK);
        assert_true(n >= 1);
        for (u32 i = 0; i < n; i++)
            assert_true(list[i].config.n > 0 && store_has_blob(f->store, list[i].model_digest, NULL));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
        T(blob_basic), T(blob_mismatch), T(blob_resume), T(blob_killed), T(copy_delete), T(held),
        T(replaced),   T(prune),         T(no_prune),    T(spelling),    T(killed),
    };
    return cmocka_run_group_tests_name("store_write", tests, NULL, NULL);
}
