/* Reading a store: finding, listing, text layers, and everything that can be wrong with one. */
#include <fcntl.h>
#include <sys/wait.h>

#include "base/buf.h"
#include "fixture.h"

#define HEX64(c)                                                                                             \
    c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c  \
        c c c c c c c c c c c c
#define MANIFESTS "models/manifests/registry.ollama.ai/library/"
#define MODEL_LAYER                                                                                          \
    "{\"mediaType\":\"application/vnd.ollama.image.model\",\"digest\":\"sha256:" HEX64("a") "\",\"size\":"   \
                                                                                            "100}"
#define LAYER(kind, c, size)                                                                                 \
    "{\"mediaType\":\"application/vnd.ollama.image." kind                                                    \
    "\",\"digest\":\"sha256:" HEX64(c) "\",\"size\":" size "}"
#define CONFIG                                                                                               \
    "\"config\":{\"mediaType\":\"application/"                                                               \
    "vnd.docker.container.image.v1+json\",\"digest\":\"sha256:" HEX64("c") "\",\"size\":30}"
#define SIMPLE "{\"schemaVersion\":2," CONFIG ",\"layers\":[" MODEL_LAYER "]}"

static enum status find(struct fixture *f, const char *name, struct store_model *m) {
    struct model_name n = name_of(name);
    struct err err;
    return store_find(f->store, &n, &f->arena, m, &err);
}

static void manifest(struct fixture *f, const char *model_tag, const char *json) {
    text_file(f, arena_printf(&f->arena, MANIFESTS "%s", model_tag).p, str_of(json));
}

/* Goal: all fields of a model come from manifest and blobs. Method: a manifest with each kind of layer. */
static void model_fields(void **state) {
    struct fixture *f = *state;
    text_file(f, "models/blobs/sha256-" HEX64("c"), STR("{\"model_family\":\"llama\"}"));
    text_file(f, "models/blobs/sha256-" HEX64("1"), STR("{{ .Prompt }}"));
    text_file(f, "models/blobs/sha256-" HEX64("2"), STR("You are terse."));
    text_file(f, "models/blobs/sha256-" HEX64("3"), STR("{\"temperature\":0.1}"));
    text_file(f, "models/blobs/sha256-" HEX64("4"), STR("[{\"role\":\"user\",\"content\":\"hi\"}]"));
    text_file(f, "models/blobs/sha256-" HEX64("5"), STR("MIT"));
    text_file(f, "models/blobs/sha256-" HEX64("6"), STR("Apache"));
    manifest(f, "m/latest",
             "{\"schemaVersion\":2," CONFIG ",\"layers\":[" MODEL_LAYER
             "," LAYER("template", "1", "13") "," LAYER("system", "2", "14") "," LAYER(
                 "params", "3", "19") "," LAYER("messages", "4",
                                                "33") "," LAYER("license", "5",
                                                                "3") "," LAYER("license", "6",
                                                                               "6") "," LAYER("embed", "7",
                                                                                              "1") "]}");
    struct store_model m;
    assert_int_equal(find(f, "m", &m), OK);
    assert_string_equal(m.config.p, "{\"model_family\":\"llama\"}");
    assert_int_equal(m.size, 30 + 100 + 13 + 14 + 19 + 33 + 3 + 6 + 1);
    assert_int_equal(m.n_layers, 8);
    assert_string_equal(m.model_digest.p, "sha256:" HEX64("a"));
    assert_string_equal(m.template_text.p, "{{ .Prompt }}");
    assert_string_equal(m.system.p, "You are terse.");
    assert_string_equal(m.params.p, "{\"temperature\":0.1}");
    assert_string_equal(m.messages.p, "[{\"role\":\"user\",\"content\":\"hi\"}]");
    assert_string_equal(m.license.p, "MIT\nApache");
    assert_int_equal(strlen(m.digest), 64);
    assert_true(m.modified_ns > 0);
}

/* Goal: the digest is the SHA-256 of the manifest's bytes. Method: a known pair (sha256sum). */
static void manifest_digest(void **state) {
    struct fixture *f = *state;
    manifest(f, "m/latest", "{}");
    struct store_model m;
    assert_int_equal(find(f, "m", &m), OK);
    assert_string_equal(m.digest, "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a");
    assert_int_equal(m.n_layers, 0);
    assert_int_equal(m.model_digest.n, 0);
}

/* Goal: case is ignored in each part, the exact spelling wins, the store's spelling is reported. */
static void lookup_ignores_case(void **state) {
    struct fixture *f = *state;
    manifest(f, "Mixed/Tag", SIMPLE);
    manifest(f, "both/a", SIMPLE);
    manifest(f, "BOTH/A", "{}");
    text_file(f, "models/manifests/HF.co/User/Repo/Q4", STR(SIMPLE));
    struct store_model m;
    assert_int_equal(find(f, "mIXED:tAG", &m), OK);
    assert_string_equal(m.name.model, "Mixed");
    assert_string_equal(m.name.tag, "Tag");
    assert_int_equal(find(f, "hf.CO/uSER/rEPO:q4", &m), OK);
    assert_string_equal(m.name.host, "HF.co");
    assert_int_equal(find(f, "both:a", &m), OK);
    assert_int_equal(m.n_layers, 1);
    assert_int_equal(find(f, "BOTH:A", &m), OK);
    assert_int_equal(m.n_layers, 0);
    assert_int_equal(find(f, "mixed", &m), ERR_NOT_FOUND);
    assert_int_equal(find(f, "nothing", &m), ERR_NOT_FOUND);
}

/* Goal: broken manifests are a status when asked for, and left out of the list. */
static void corrupt_manifests(void **state) {
    struct fixture *f = *state;
    static const char *const broken[] = {
        "",
        "{",
        "[]",
        "null",
        "42",
        "\xff\xfe{}",
        "{\"layers\":[1]}",
        "{\"layers\":[{}]}",
        "{\"layers\":[{\"digest\":\"sha256:../../../../etc/passwd\",\"size\":1}]}",
        "{\"layers\":[{\"digest\":\"md5:" HEX64("a") "\",\"size\":1}]}",
        "{\"layers\":[{\"digest\":\"sha256:" HEX64("g") "\",\"size\":1}]}",
        "{\"layers\":[{\"digest\":\"sha256:" HEX64("a") "\",\"size\":-1}]}",
        "{\"layers\":[{\"digest\":\"sha256:" HEX64("a") "\",\"size\":\"1\"}]}",
        "{\"layers\":[{\"digest\":\"sha256:" HEX64("a") "\"}]}",
        "{\"layers\":[" LAYER("model", "a", "9223372036854775807") "," LAYER("model", "a", "1") "]}",
        "{\"config\":{\"digest\":\"x\",\"size\":1},\"layers\":[]}",
    };
    for (size_t i = 0; i < ARRAY_LEN(broken); i++) {
        manifest(f, "bad/latest", broken[i]);
        struct store_model m;
        if (find(f, "bad", &m) != ERR_CORRUPT)
            fail_msg("not refused: %s", broken[i]);
    }
    manifest(f, "good/latest", SIMPLE "trailing text is not read");
    text_file(f, "models/manifests/registry.ollama.ai/library/good/.hidden.tmp", STR("{}"));
    text_file(f, "models/manifests/stray", STR("{}"));
    text_file(f, "models/manifests/registry.ollama.ai/library/deep/er/one", STR("{}"));
    struct store_model *list;
    u32 n;
    struct err err;
    assert_int_equal(store_list(f->store, &f->arena, &list, &n, &err), OK);
    assert_int_equal(n, 1);
    assert_string_equal(list[0].name.model, "good");
}

/* Goal: many layers of one text cost what they hold, not its square, and their sum is bounded. */
static void many_layers(void **state) {
    struct fixture *f = *state;
    struct store_model m;
    struct buf json = {0};
    text_file(f, "models/blobs/sha256-" HEX64("5"), STR("x"));
    buf_add_str(&json, STR("{\"layers\":["));
    for (int i = 0; i < 60000; i++)
        buf_add_str(&json, i ? STR("," LAYER("license", "5", "1")) : STR(LAYER("license", "5", "1")));
    buf_add_str(&json, STR("]}"));
    manifest(f, "m/latest", buf_cstr(&json));
    size_t before = f->arena.used_bytes;
    assert_int_equal(find(f, "m", &m), OK);
    assert_int_equal(m.license.n, 2 * 60000 - 1);
    assert_true(f->arena.used_bytes - before < 100u << 20);
    buf_release(&json);
    /* Two texts that are each within the limit, together not. */
    char path[256];
    snprintf(path, sizeof path, "%s/models/blobs/sha256-" HEX64("5"), f->folder);
    assert_int_equal(truncate(path, 9 << 20), 0);
    manifest(f, "m/latest", "{\"layers\":[" LAYER("license", "5", "1") "," LAYER("license", "5", "1") "]}");
    assert_int_equal(find(f, "m", &m), ERR_TOO_LARGE);
}

/* Goal: a layer whose blob is gone makes the model "not found" (a pull heals it); a missing config does not.
 */
static void missing_blobs(void **state) {
    struct fixture *f = *state;
    struct store_model m;
    manifest(f, "m/latest", SIMPLE);
    assert_int_equal(find(f, "m", &m), OK);
    assert_int_equal(m.config.n, 0);
    manifest(f, "m/latest", "{\"layers\":[" LAYER("system", "9", "1") "]}");
    assert_int_equal(find(f, "m", &m), ERR_NOT_FOUND);
}

/* Goal: pipes, folders and files without end in place of a file neither hang nor fill the memory. */
static void strange_files(void **state) {
    struct fixture *f = *state;
    struct store_model m;
    manifest(f, "m/latest", SIMPLE);
    char path[256];
    snprintf(path, sizeof path, "%s/" MANIFESTS "m/pipe", f->folder);
    assert_int_equal(mkfifo(path, 0644), 0);
    assert_int_equal(find(f, "m:pipe", &m), ERR_CORRUPT);
    snprintf(path, sizeof path, "%s/" MANIFESTS "m/zero", f->folder);
    assert_int_equal(symlink("/dev/zero", path), 0);
    assert_int_equal(find(f, "m:zero", &m), ERR_CORRUPT);
    snprintf(path, sizeof path, "%s/" MANIFESTS "m/huge", f->folder);
    FILE *file = fopen(path, "w");
    assert_int_equal(ftruncate(fileno(file), 1ll << 40), 0);
    fclose(file);
    assert_int_equal(find(f, "m:huge", &m), ERR_TOO_LARGE);
    snprintf(path, sizeof path, "%s/" MANIFESTS "m/loop", f->folder);
    assert_int_equal(symlink(path, path), 0);
    assert_int_equal(find(f, "m:loop", &m), ERR_IO);
    struct store_model *list;
    u32 n;
    struct err err;
    assert_int_equal(store_list(f->store, &f->arena, &list, &n, &err), OK);
    assert_int_equal(n, 1);
}

/* Goal: newest first. Method: three manifests with set times. */
static void list_order(void **state) {
    struct fixture *f = *state;
    static const char *const tags[] = {"old", "new", "mid"};
    static const time_t times[] = {1000, 3000, 2000};
    for (int i = 0; i < 3; i++) {
        char path[256];
        manifest(f, arena_printf(&f->arena, "m/%s", tags[i]).p, SIMPLE);
        snprintf(path, sizeof path, "%s/" MANIFESTS "m/%s", f->folder, tags[i]);
        struct timespec t[2] = {{times[i], 5}, {times[i], 5}};
        assert_int_equal(utimensat(AT_FDCWD, path, t, 0), 0);
    }
    struct store_model *list;
    u32 n;
    struct err err;
    assert_int_equal(store_list(f->store, &f->arena, &list, &n, &err), OK);
    assert_int_equal(n, 3);
    assert_string_equal(list[0].name.tag, "new");
    assert_string_equal(list[1].name.tag, "mid");
    assert_string_equal(list[2].name.tag, "old");
    assert_int_equal(list[2].modified_ns, 1000000000005);
}

static void blobs(void **state) {
    struct fixture *f = *state;
    text_file(f, "models/blobs/sha256-" HEX64("d"), STR("bytes"));
    int fd;
    u64 n;
    struct err err;
    assert_int_equal(store_open_blob(f->store, STR("sha256:" HEX64("d")), &fd, &n, &err), OK);
    assert_int_equal(n, 5);
    close(fd);
    assert_int_equal(store_open_blob(f->store, STR("sha256:" HEX64("e")), &fd, &n, &err), ERR_NOT_FOUND);
    assert_int_equal(store_open_blob(f->store, STR("sha256:../x"), &fd, &n, &err), ERR_INVALID);
    assert_int_equal(store_blob_path(f->store, STR("sha1:ab"), &f->arena).n, 0);
    struct str text;
    assert_int_equal(store_read_blob(f->store, STR("sha256-" HEX64("d")), &f->arena, &text, &err), OK);
    assert_string_equal(text.p, "bytes");
}

/* Goal: a store that cannot be written, or not even made, is served. Root may write everywhere, so a child
 * gives its rights up; the exit code says which check failed. */
static int read_only_child(struct fixture *f) {
    if (geteuid() == 0 && (setgid(65534) != 0 || setuid(65534) != 0))
        return 1;
    struct store *s;
    struct err err;
    struct store_model m;
    if (store_open(store_path(f->store), &s, &err) != OK)
        return 2;
    if (store_writable(s))
        return 3;
    struct model_name n;
    if (model_name_parse(STR("m"), &n, &err) != OK || store_find(s, &n, &f->arena, &m, &err) != OK)
        return 4;
    if (store_import(s, "/dev/null", &n, &err) != ERR_IO || !strstr(err.text, "OLLAMA_MODELS"))
        return 5;
    store_close(s);
    if (store_open("/proc/none/models", &s, &err) != OK || store_writable(s))
        return 6;
    struct store_model *list;
    u32 n_list = 1;
    if (store_list(s, &f->arena, &list, &n_list, &err) != OK || n_list != 0)
        return 7;
    store_close(s);
    return 0;
}

static void read_only(void **state) {
    struct fixture *f = *state;
    manifest(f, "m/latest", SIMPLE);
    char command[256];
    snprintf(command, sizeof command, "chmod 755 %s && chmod -R a-w,a+rX %s/models", f->folder, f->folder);
    assert_int_equal(system(command), 0);
    pid_t child = fork();
    if (child == 0)
        _exit(read_only_child(f));
    int how;
    assert_int_equal(waitpid(child, &how, 0), child);
    assert_true(WIFEXITED(how));
    assert_int_equal(WEXITSTATUS(how), 0);
}

/* Goal: where the store lies when nobody says. */
static void default_path(void **state) {
    struct fixture *f = *state;
    struct store *s;
    struct err err;
    char want[128], env[256];
    snprintf(want, sizeof want, "%s/env", f->folder);
    snprintf(env, sizeof env, " \"%s\" ", want);
    setenv("OLLAMA_MODELS", env, 1);
    assert_int_equal(store_open(NULL, &s, &err), OK);
    assert_string_equal(store_path(s), want);
    assert_true(store_writable(s));
    store_close(s);
    unsetenv("OLLAMA_MODELS");
    setenv("HOME", f->folder, 1);
    snprintf(want, sizeof want, "%s/.ollama/models", f->folder);
    assert_int_equal(store_open(NULL, &s, &err), OK);
    assert_string_equal(store_path(s), want);
    store_close(s);
    unsetenv("HOME");
    assert_int_equal(store_open(NULL, &s, &err), ERR_INVALID);
    assert_int_equal(store_open("", &s, &err), ERR_INVALID);
}

int main(void) {
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
        T(model_fields), T(manifest_digest), T(lookup_ignores_case), T(corrupt_manifests),
        T(many_layers),  T(missing_blobs),   T(strange_files),       T(list_order),
        T(blobs),        T(read_only),       T(default_path),
    };
    return cmocka_run_group_tests_name("store", tests, NULL, NULL);
}
