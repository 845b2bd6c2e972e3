#include "golden.h"

#include <unistd.h>

#include "tiny.h"

void golden_path(const char *name, char path[4096]) {
    const char *folder = getenv("MINKA_GOLDEN");
    snprintf(path, 4096, "%s/%s", folder ? folder : "tests/golden/data", name);
}

json_t *golden_load(const char *name) {
    char path[4096];
    json_error_t e;
    golden_path(name, path);
    json_t *j = json_load_file(path, 0, &e);
    if (!j)
        fail_msg("%s: %s", path, e.text);
    return j;
}

f64 *golden_numbers(const json_t *array, u32 *n) {
    *n = (u32)json_array_size(array);
    assert_true(*n > 0);
    f64 *out = xmalloc(*n * sizeof *out);
    for (u32 i = 0; i < *n; i++)
        out[i] = json_number_value(json_array_get(array, i));
    return out;
}

u32 *golden_ids(const json_t *array, u32 *n) {
    *n = (u32)json_array_size(array);
    assert_true(*n > 0);
    u32 *out = xmalloc(*n * sizeof *out);
    for (u32 i = 0; i < *n; i++)
        out[i] = (u32)json_integer_value(json_array_get(array, i));
    return out;
}

u32 *golden_sequence(const json_t *forward, const char *name, u32 *n) {
    return golden_ids(json_object_get(json_object_get(forward, "sequences"), name), n);
}

static char folder[64];

static void made_path(const char *name, char path[4096]) { snprintf(path, 4096, "%s/%s.gguf", folder, name); }

void golden_model(const json_t *forward, const char *name, char path[4096]) {
    const json_t *entry = json_object_get(json_object_get(forward, "models"), name);
    assert_non_null(entry);
    if (json_object_get(entry, "file")) {
        golden_path(json_string_value(json_object_get(entry, "file")), path);
        return;
    }
    if (!folder[0]) {
        snprintf(folder, sizeof folder, "/tmp/minka-golden-XXXXXX");
        assert_non_null(mkdtemp(folder));
    }
    made_path(name, path);
    if (access(path, R_OK) != 0)
        assert_true(tiny_write(name, path));
}

void golden_cleanup(void) {
    char path[4096];
    if (!folder[0])
        return;
    for (u32 i = 0; tiny_name(i); i++) {
        made_path(tiny_name(i), path);
        unlink(path);
    }
    rmdir(folder);
    folder[0] = 0;
}

void golden_open(const char *path, const struct eval_options *o, struct eval_model *out) {
    struct err err;
    if (eval_model_open(path, o, out, &err) != OK)
        fail_msg("%s: %s", path, err.text);
}

struct copy {
    f32 *to;
    u32 n_vocab;
};

static void copy_logits(void *ctx, u32 position, const f32 *logits) {
    struct copy *c = ctx;
    memcpy(c->to + (size_t)position * c->n_vocab, logits, c->n_vocab * sizeof *logits);
}

f32 *golden_run(struct eval_model *e, const u32 *ids, u32 n) {
    struct copy c = {.n_vocab = model_info(e->model)->n_vocab};
    struct err err;
    c.to = xmalloc((size_t)n * c.n_vocab * sizeof *c.to);
    if (eval_model_run(e, ids, n, false, copy_logits, &c, &err) != OK)
        fail_msg("%s", err.text);
    return c.to;
}
