/* store.c - opens a store, reads its manifests and text layers, finds and lists models. The functions keep
 * no state but the path: what another program writes into the store is seen at the next call. */
#include "store/store.h"

#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/log.h"
#include "store/files.h"

/* --- the store --- */

static bool blank_or_quote(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '"' || c == '\''; }

static char *path_default(struct err *err) {
    struct str env = str_trim(str_of(getenv("OLLAMA_MODELS")));
    while (env.n && blank_or_quote(env.p[0]))
        env.p++, env.n--;
    while (env.n && blank_or_quote(env.p[env.n - 1]))
        env.n--;
    char *path = NULL;
    const char *home = getenv("HOME");
    int n = env.n             ? asprintf(&path, "%.*s", STR_FMT(env))
            : home && home[0] ? asprintf(&path, "%s/.ollama/models", home)
                              : -1;
    if (n < 0) {
        err_set(err, ERR_INVALID, "no place for the models: set OLLAMA_MODELS (HOME is not set)");
        return NULL;
    }
    return path;
}

/* As everywhere in the reference's environment: 0, f and false are false, any other text is true. */
static bool env_true(const char *name) {
    struct str v = str_of(getenv(name));
    return v.n && !str_is(v, "0") && !str_eq_nocase(v, STR("f")) && !str_eq_nocase(v, STR("false"));
}

static bool folder_ready(const char *path, const char *name) {
    char *folder;
    if (asprintf(&folder, "%s/%s", path, name) < 0)
        return false;
    struct err err;
    bool ready = folder_make(folder, &err) == OK && faccessat(AT_FDCWD, folder, W_OK | X_OK, AT_EACCESS) == 0;
    free(folder);
    return ready;
}

enum status store_open(const char *path, struct store **out, struct err *err) {
    char *own = path ? xstrdup(path) : path_default(err);
    if (!own || !own[0]) {
        free(own);
        return path ? err_set(err, ERR_INVALID, "the path of the model store is empty") : ERR_INVALID;
    }
    struct store *s = xcalloc(1, sizeof *s);
    s->path = own;
    s->no_prune = env_true("OLLAMA_NOPRUNE");
    check(pthread_mutex_init(&s->lock, NULL) == 0 && pthread_mutex_init(&s->manifests, NULL) == 0);
    s->writable = folder_ready(own, "blobs");
    s->writable = folder_ready(own, "manifests") && s->writable;
    *out = s;
    return OK;
}

void store_close(struct store *s) {
    if (!s)
        return;
    pthread_mutex_destroy(&s->lock);
    pthread_mutex_destroy(&s->manifests);
    free(s->due);
    free(s->path);
    free(s);
}

const char *store_path(const struct store *s) { return s->path; }
bool store_writable(const struct store *s) { return s->writable; }

/* --- blobs --- */

struct str store_blob_path(struct store *s, struct str digest, struct arena *a) {
    if (!digest_valid(digest))
        return STR_NONE;
    return arena_printf(a, "%s/blobs/sha256-%.*s", s->path, 64, digest.p + 7);
}

bool store_has_blob(struct store *s, struct str digest, u64 *bytes) {
    struct arena a;
    struct stat st;
    arena_init(&a, 0);
    struct str path = store_blob_path(s, digest, &a);
    bool there = path.n && stat(path.p, &st) == 0 && S_ISREG(st.st_mode);
    if (there && bytes)
        *bytes = (u64)st.st_size;
    arena_release(&a);
    return there;
}

enum status store_open_blob(struct store *s, struct str digest, int *fd, u64 *bytes, struct err *err) {
    struct arena a;
    arena_init(&a, 0);
    struct str path = store_blob_path(s, digest, &a);
    enum status status =
        path.n ? file_open(path.p, fd, bytes, NULL, err) : err_set(err, ERR_INVALID, "invalid digest format");
    arena_release(&a);
    return status;
}

enum status store_read_blob(struct store *s, struct str digest, struct arena *a, struct str *out,
                            struct err *err) {
    struct str path = store_blob_path(s, digest, a);
    if (!path.n)
        return err_set(err, ERR_INVALID, "invalid digest format");
    return file_read(path.p, a, out, NULL, err);
}

/* --- manifests --- */

static struct str json_text(const json_t *v, struct arena *a) {
    if (!json_is_string(v))
        return STR_NONE;
    return arena_str(a, (struct str){json_string_value(v), json_string_length(v)});
}

static enum status layer_read(const json_t *json, struct arena *a, struct store_layer *layer,
                              struct err *err) {
    json_t *digest = json_object_get(json, "digest"), *size = json_object_get(json, "size");
    struct str text = {json_string_value(digest), json_string_length(digest)};
    if (!json_is_string(digest) || !digest_valid(text))
        return err_set(err, ERR_CORRUPT, "the digest of a layer is missing or no SHA-256");
    if (!json_is_integer(size) || json_integer_value(size) < 0)
        return err_set(err, ERR_CORRUPT, "the size of a layer is missing or negative");
    snprintf(layer->digest, sizeof layer->digest, "sha256:%.64s", text.p + 7);
    layer->size = (u64)json_integer_value(size);
    layer->media_type = json_text(json_object_get(json, "mediaType"), a);
    layer->from = json_text(json_object_get(json, "from"), a);
    return OK;
}

/* What a model's layers hold while they are read. */
struct texts {
    struct store_model *m;
    struct str *licenses; /* [n_licenses], joined at the end */
    u32 n_licenses;
    u64 bytes; /* of all texts */
};

/* Where the text of a layer goes; NULL for a layer that holds none. */
static struct str *text_place(struct texts *t, struct str media_type) {
    if (!str_starts(media_type, STR(MEDIA_IMAGE)))
        return NULL;
    struct str kind = str_slice(media_type, sizeof MEDIA_IMAGE - 1, media_type.n);
    if (str_is(kind, "template") || str_is(kind, "prompt"))
        return &t->m->template_text;
    if (str_is(kind, "system"))
        return &t->m->system;
    if (str_is(kind, "params"))
        return &t->m->params;
    if (str_is(kind, "messages"))
        return &t->m->messages;
    return str_is(kind, "license") ? &t->licenses[t->n_licenses++] : NULL;
}

/* A later layer of the same kind replaces an earlier one, licenses add up. */
static enum status layer_text(struct store *s, const struct store_layer *layer, struct arena *a,
                              struct texts *t, struct err *err) {
    struct str *to = text_place(t, layer->media_type);
    if (!to)
        return OK;
    TRY(store_read_blob(s, str_of(layer->digest), a, to, err));
    t->bytes += to->n;
    if (t->bytes > LIMIT_STORE_TEXT_BYTES)
        return err_set(err, ERR_TOO_LARGE, "the text layers have more than %u bytes", LIMIT_STORE_TEXT_BYTES);
    return OK;
}

static struct str licenses_join(const struct texts *t, struct arena *a) {
    struct buf b = {0};
    for (u32 i = 0; i < t->n_licenses; i++) {
        if (i)
            buf_add_char(&b, '\n');
        buf_add_str(&b, t->licenses[i]);
    }
    struct str joined = b.n ? arena_str(a, buf_str(&b)) : STR_NONE;
    buf_release(&b);
    return joined;
}

static enum status layers_read(struct store *s, const json_t *list, struct arena *a, struct store_model *m,
                               struct err *err) {
    size_t n = json_array_size(list);
    if (n > LIMIT_STORE_LAYERS)
        return err_set(err, ERR_TOO_LARGE, "%zu layers, at most %u are read", n, LIMIT_STORE_LAYERS);
    struct store_layer *layers = ARENA_ARRAY(a, struct store_layer, n);
    struct texts texts = {.m = m, .licenses = ARENA_ARRAY(a, struct str, n)};
    for (size_t i = 0; i < n; i++) {
        TRY(layer_read(json_array_get(list, i), a, &layers[i], err));
        /* Clients read the sum as a signed number. */
        if (add_overflow(m->size, layers[i].size, &m->size) || m->size > INT64_MAX)
            return err_set(err, ERR_CORRUPT, "the sizes of the layers overflow");
        if (m->model_digest.n == 0 && str_is(layers[i].media_type, MEDIA_IMAGE "model"))
            m->model_digest = str_of(layers[i].digest);
        TRY(layer_text(s, &layers[i], a, &texts, err));
    }
    m->license = licenses_join(&texts, a);
    m->layers = layers;
    m->n_layers = (u32)n;
    return OK;
}

static enum status manifest_read(struct store *s, const json_t *root, struct arena *a, struct store_model *m,
                                 struct err *err) {
    if (!json_is_object(root))
        return err_set(err, ERR_CORRUPT, "a manifest is a JSON object");
    json_t *config = json_object_get(root, "config");
    if (json_is_object(config) && json_string_length(json_object_get(config, "digest"))) {
        struct store_layer layer;
        TRY(layer_read(config, a, &layer, err));
        m->size = layer.size;
        memcpy(m->config_digest, layer.digest, sizeof m->config_digest);
        enum status status = store_read_blob(s, str_of(layer.digest), a, &m->config, err);
        if (status != OK && status != ERR_NOT_FOUND)
            return status;
    }
    return layers_read(s, json_object_get(root, "layers"), a, m, err);
}

struct str manifest_path(struct store *s, const struct model_name *n, struct arena *a) {
    return arena_printf(a, "%s/manifests/%s/%s/%s/%s", s->path, n->host, n->namespace_, n->model, n->tag);
}

static enum status model_read(struct store *s, const struct model_name *n, struct arena *a,
                              struct store_model *m, struct err *err) {
    struct str path = manifest_path(s, n, a), text;
    *m = (struct store_model){.name = *n};
    TRY(file_read(path.p, a, &text, &m->modified_ns, err));
    sha256_hex(text, m->digest);
    json_error_t where;
    /* Like the reference, only the first value of the file counts. */
    json_t *root = json_loadb(text.p, text.n, JSON_DISABLE_EOF_CHECK, &where);
    if (!root)
        return err_set(err, ERR_CORRUPT, "%s: line %d: %s", path.p, where.line, where.text);
    struct err inner;
    enum status status = manifest_read(s, root, a, m, &inner);
    json_decref(root);
    return status == OK ? OK : err_set(err, status, "%s: %s", path.p, inner.text);
}

/* --- finding and listing --- */

static bool found_name(struct walk *w) {
    return model_name_from_parts(w->at[0], w->at[1], w->at[2], w->at[3], w->ctx);
}

enum status store_find(struct store *s, const struct model_name *n, struct arena *a, struct store_model *out,
                       struct err *err) {
    struct err first;
    enum status status = model_read(s, n, a, out, &first);
    if (status != ERR_NOT_FOUND)
        return status == OK ? OK : err_set(err, status, "%s", first.text);
    struct model_name spelled;
    struct walk w = {.store = s,
                     .arena = a,
                     .want = {n->host, n->namespace_, n->model, n->tag},
                     .visit = found_name,
                     .ctx = &spelled};
    if (!store_walk(&w) || memcmp(&spelled, n, sizeof spelled) == 0)
        return err_set(err, ERR_NOT_FOUND, "%s", first.text);
    return model_read(s, &spelled, a, out, err);
}

struct listing {
    struct store_model *models;
    u32 n, cap;
};

static bool list_visit(struct walk *w) {
    struct listing *l = w->ctx;
    struct model_name name;
    struct store_model m;
    struct err err;
    if (!model_name_from_parts(w->at[0], w->at[1], w->at[2], w->at[3], &name))
        return false;
    if (model_read(w->store, &name, w->arena, &m, &err) != OK) {
        log_warn("model left out of the list", "error=\"%s\"", err.text);
        return false;
    }
    if (l->n == l->cap) {
        l->cap = l->cap ? l->cap * 2 : 16;
        l->models = xrealloc(l->models, l->cap * sizeof *l->models);
    }
    l->models[l->n++] = m;
    if (l->n < LIMIT_STORE_MODELS && w->arena->used_bytes < LIMIT_STORE_LIST_BYTES)
        return false;
    log_warn("the list of models is cut: there are too many, or their texts are too long", "models=%u", l->n);
    return true;
}

static int newer_first(const void *a, const void *b) {
    const struct store_model *x = a, *y = b;
    if (x->modified_ns != y->modified_ns)
        return x->modified_ns < y->modified_ns ? 1 : -1;
    int order = strcmp(x->name.model, y->name.model);
    return order ? order : strcmp(x->name.tag, y->name.tag);
}

enum status store_list(struct store *s, struct arena *a, struct store_model **out, u32 *n_out,
                       struct err *err) {
    (void)err; /* a store without a readable folder has no models: nothing can fail */
    struct listing l = {0};
    struct walk w = {.store = s, .arena = a, .visit = list_visit, .ctx = &l};
    store_walk(&w);
    if (l.n)
        qsort(l.models, l.n, sizeof *l.models, newer_first);
    *out = ARENA_ARRAY(a, struct store_model, l.n);
    if (l.n)
        memcpy(*out, l.models, l.n * sizeof *l.models);
    *n_out = l.n;
    free(l.models);
    return OK;
}
