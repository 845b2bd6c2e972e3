/* Import: the layout on disk, sharing of bytes, refusal of what is no GGUF, and kill -9 in the middle. */
#include <dirent.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>

#include "fixture.h"

static enum status import(struct fixture *f, const char *file, const char *name, struct err *err) {
    struct model_name n = name_of(name);
    return store_import(f->store, file, &n, err);
}

static struct store_model found(struct fixture *f, const char *name) {
    struct model_name n = name_of(name);
    struct store_model m;
    struct err err;
    assert_int_equal(store_find(f->store, &n, &f->arena, &m, &err), OK);
    return m;
}

/* True if the blob is there, has the size the layer says and the hash its name says. */
static bool blob_whole(struct fixture *f, const struct store_layer *layer) {
    int fd;
    u64 bytes;
    struct err err;
    if (store_open_blob(f->store, str_of(layer->digest), &fd, &bytes, &err) != OK || bytes != layer->size)
        return false;
    u8 *data = xmalloc(bytes), hash[32];
    bool whole = read(fd, data, bytes) == (ssize_t)bytes;
    close(fd);
    assert_int_equal(EVP_Digest(data, bytes, hash, NULL, EVP_sha256(), NULL), 1);
    free(data);
    char hex[65];
    for (int i = 0; i < 32; i++)
        snprintf(hex + 2 * i, 3, "%02x", hash[i]);
    return whole && strcmp(hex, layer->digest + 7) == 0;
}

/* Files of a folder of the store, hidden ones included. */
static int files_in(struct fixture *f, const char *folder) {
    struct str path = arena_printf(&f->arena, "%s/%s", store_path(f->store), folder);
    DIR *d = opendir(path.p);
    assert_non_null(d);
    int n = 0;
    for (struct dirent *e; (e = readdir(d));)
        n += strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0;
    closedir(d);
    return n;
}

/* Goal: what an import writes is what Ollama writes and reads. */
static void layout(void **state) {
    struct fixture *f = *state;
    struct err err;
    struct str file = gguf_file(f, "tiny.gguf", 134515, 1);
    assert_int_equal(import(f, file.p, "Tiny:135m", &err), OK);
    struct store_model m = found(f, "tiny:135M");
    assert_string_equal(
        m.config.p,
        "{\"model_format\":\"gguf\",\"model_family\":\"llama\",\"model_families\":[\"llama\"],"
        "\"model_type\":\"135K\",\"file_type\":\"Q4_1\",\"architecture\":\"amd64\",\"os\":\"linux\"}\n");
    assert_int_equal(m.n_layers, 1);
    assert_true(blob_whole(f, &m.layers[0]));
    struct stat st;
    assert_int_equal(stat(file.p, &st), 0);
    assert_int_equal(m.size, (u64)st.st_size + m.config.n);
    assert_int_equal(stat(store_blob_path(f->store, m.model_digest, &f->arena).p, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0644);
    assert_int_equal(files_in(f, "blobs"), 2);
    struct str path =
        arena_printf(&f->arena, "%s/manifests/registry.ollama.ai/library/Tiny/135m", store_path(f->store));
    FILE *manifest = fopen(path.p, "r");
    assert_non_null(manifest);
    char text[1024];
    text[fread(text, 1, sizeof text - 1, manifest)] = 0;
    fclose(manifest);
    char want[1024];
    char config_hash[65] = {0};
    const char *at = strstr(text, "sha256:");
    assert_non_null(at);
    memcpy(config_hash, at + 7, 64);
    snprintf(
        want, sizeof want,
        "{\"schemaVersion\":2,\"mediaType\":\"application/vnd.docker.distribution.manifest.v2+json\","
        "\"config\":{\"mediaType\":\"application/"
        "vnd.docker.container.image.v1+json\",\"digest\":\"sha256:%s\","
        "\"size\":%zu},\"layers\":[{\"mediaType\":\"application/vnd.ollama.image.model\",\"digest\":\"%s\","
        "\"size\":%llu}]}\n",
        config_hash, m.config.n, m.model_digest.p, (unsigned long long)m.layers[0].size);
    assert_string_equal(text, want);
}

/* Goal: an existing name is replaced, in the spelling that is there; equal bytes are stored once. */
static void replace(void **state) {
    struct fixture *f = *state;
    struct err err;
    struct str one = gguf_file(f, "one.gguf", 100, 1), two = gguf_file(f, "two.gguf", 200, 2);
    assert_int_equal(import(f, one.p, "Model", &err), OK);
    assert_int_equal(import(f, one.p, "other", &err), OK);
    assert_int_equal(files_in(f, "blobs"), 2);
    assert_int_equal(import(f, two.p, "mODEL", &err), OK);
    assert_int_equal(files_in(f, "blobs"), 4);
    assert_string_equal(found(f, "model").name.model, "Model");
    assert_string_not_equal(found(f, "model").model_digest.p, found(f, "other").model_digest.p);
    struct store_model *list;
    u32 n;
    assert_int_equal(store_list(f->store, &f->arena, &list, &n, &err), OK);
    assert_int_equal(n, 2);
}

/* Goal: a file that nobody may write is linked, one that somebody may write is never. */
static void sharing(void **state) {
    struct fixture *f = *state;
    struct err err;
    struct stat file, blob;
    struct str fixed = gguf_file(f, "fixed.gguf", 100, 1), open = gguf_file(f, "open.gguf", 100, 2);
    assert_int_equal(chmod(fixed.p, 0444), 0);
    assert_int_equal(import(f, fixed.p, "fixed", &err), OK);
    assert_int_equal(import(f, open.p, "open", &err), OK);
    assert_int_equal(stat(open.p, &file), 0);
    assert_int_equal(stat(store_blob_path(f->store, found(f, "open").model_digest, &f->arena).p, &blob), 0);
    assert_true(file.st_ino != blob.st_ino);
    assert_int_equal(stat(fixed.p, &file), 0);
    assert_int_equal(stat(store_blob_path(f->store, found(f, "fixed").model_digest, &f->arena).p, &blob), 0);
    /* Linked, or (where the file system can) a clone with its own inode. */
    assert_true(file.st_nlink == 2 ? file.st_ino == blob.st_ino : file.st_nlink == 1);
    struct store_model m = found(f, "fixed");
    assert_true(blob_whole(f, &m.layers[0]));
    /* A blob of the right name but another size is damage and is replaced. */
    struct str path = store_blob_path(f->store, found(f, "open").model_digest, &f->arena);
    assert_int_equal(truncate(path.p, 10), 0);
    assert_int_equal(import(f, open.p, "open", &err), OK);
    m = found(f, "open");
    assert_true(blob_whole(f, &m.layers[0]));
}

/* Goal: what is no GGUF leaves nothing behind and says why. */
static void refused(void **state) {
    struct fixture *f = *state;
    struct err err;
    assert_int_equal(import(f, "/nonexistent/file", "m", &err), ERR_NOT_FOUND);
    assert_int_equal(import(f, f->folder, "m", &err), ERR_CORRUPT);
    assert_int_equal(import(f, "/dev/zero", "m", &err), ERR_CORRUPT);
    text_file(f, "empty", STR(""));
    text_file(f, "text", STR("this is not a model at all"));
    text_file(f, "short", STR("GGUF\3\0\0\0"));
    assert_int_equal(import(f, arena_printf(&f->arena, "%s/empty", f->folder).p, "m", &err), ERR_CORRUPT);
    assert_int_equal(import(f, arena_printf(&f->arena, "%s/text", f->folder).p, "m", &err), ERR_CORRUPT);
    assert_non_null(strstr(err.text, "is no GGUF file"));
    assert_int_equal(import(f, arena_printf(&f->arena, "%s/short", f->folder).p, "m", &err), ERR_CORRUPT);
    struct str cut = gguf_file(f, "cut.gguf", 1000, 1);
    assert_int_equal(truncate(cut.p, 2000), 0);
    assert_int_equal(import(f, cut.p, "m", &err), ERR_CORRUPT);
    assert_non_null(strstr(err.text, "cut.gguf"));
    assert_int_equal(files_in(f, "blobs"), 0);
    assert_int_equal(files_in(f, "manifests"), 0);
}

/* Goal: killed at any moment, an import leaves the store whole: each model listed has all its blobs, with
 * the right bytes. Method: children import two models alternately and are killed after growing delays; the
 * reader looks after each kill, and the last import must succeed. */
static void killed(void **state) {
    struct fixture *f = *state;
    struct err err;
    struct str one = gguf_file(f, "one.gguf", 300000, 1), two = gguf_file(f, "two.gguf", 200000, 2);
    int n_killed = 0;
    for (int round = 0; round < 60; round++) {
        pid_t child = fork();
        if (child == 0) {
            for (int i = 0;; i++)
                if (import(f, i & 1 ? one.p : two.p, "m", &err) != OK)
                    _exit(1);
        }
        struct timespec wait = {0, 200000 + round * 137000};
        nanosleep(&wait, NULL);
        assert_int_equal(kill(child, SIGKILL), 0);
        int how;
        assert_int_equal(waitpid(child, &how, 0), child);
        n_killed += WIFSIGNALED(how) && WTERMSIG(how) == SIGKILL;

        struct arena a;
        arena_init(&a, 0);
        struct store_model *list;
        u32 n;
        assert_int_equal(store_list(f->store, &a, &list, &n, &err), OK);
        for (u32 i = 0; i < n; i++) {
            assert_true(list[i].config.n > 0);
            assert_true(blob_whole(f, &list[i].layers[0]));
        }
        arena_release(&a);
    }
    assert_int_equal(n_killed, 60);
    assert_int_equal(import(f, one.p, "m", &err), OK);
    struct store_model m = found(f, "m");
    assert_true(blob_whole(f, &m.layers[0]));
}

static void human_counts(void **state) {
    struct fixture *f = *state;
    static const struct {
        u64 n;
        const char *text;
    } cases[] = {{0, "0"},
                 {999, "999"},
                 {1000, "1K"},
                 {22400, "22K"},
                 {1000000, "1M"},
                 {134515008, "134.52M"},
                 {137022720, "137.02M"},
                 {270000000, "270M"},
                 {8030261248, "8.0B"},
                 {8000000000, "8B"},
                 {1235814432, "1.2B"}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        assert_string_equal(store_human_count(cases[i].n, &f->arena).p, cases[i].text);
    assert_string_equal(store_file_type_name(0), "F32");
    assert_string_equal(store_file_type_name(15), "Q4_K_M");
    assert_string_equal(store_file_type_name(4), "unknown");
    assert_string_equal(store_file_type_name(4000000000u), "unknown");
}

int main(void) {
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
        T(layout), T(replace), T(sharing), T(refused), T(killed), T(human_counts),
    };
    return cmocka_run_group_tests_name("store_import", tests, NULL, NULL);
}
