/* write.c - manifests: who may rely on blobs while one is made, writing, copying, deleting.
 *
 * The hold is an advisory lock on the folder blobs/: shared for those who build models, exclusive for the one
 * who removes blobs. Each holder opens the folder anew, so threads count like processes. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/buf.h"
#include "store/files.h"

enum status store_check_writable(const struct store *s, struct err *err) {
    if (s->writable)
        return OK;
    return err_set(err, ERR_IO,
                   "the model store %s cannot be written; set OLLAMA_MODELS to a folder of yours", s->path);
}

int blobs_lock(struct store *s, int operation) {
    struct arena a;
    arena_init(&a, 0);
    int fd = open(arena_printf(&a, "%s/blobs", s->path).p, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    arena_release(&a);
    if (fd < 0)
        return -1;
    int failed;
    do
        failed = flock(fd, operation);
    while (failed && errno == EINTR);
    if (failed) {
        close(fd);
        return -1;
    }
    return fd;
}

enum status store_hold(struct store *s, int *hold, struct err *err) {
    TRY(store_check_writable(s, err));
    *hold = blobs_lock(s, LOCK_SH);
    /* Where a file system has no locks nobody can take the exclusive one either: nothing is removed there. */
    if (*hold < 0 && errno != EOPNOTSUPP && errno != ENOLCK && errno != EINVAL && errno != ENOSYS)
        return err_errno(err, ERR_IO, "lock %s/blobs", s->path);
    return OK;
}

void store_release(struct store *s, int hold) {
    if (hold >= 0)
        close(hold);
    due_remove(s);
}

/* --- names --- */

struct spelling {
    const struct model_name *asked;
    struct model_name *name;
    bool exact[4], folded[4];
};

static bool spell_visit(struct walk *w) {
    struct spelling *sp = w->ctx;
    struct model_name there;
    if (!model_name_from_parts(w->at[0], w->at[1], w->at[2], w->at[3], &there))
        return false;
    const struct model_name *n = sp->asked;
    const char *asked[4] = {n->host, n->namespace_, n->model, n->tag};
    char *part[4] = {sp->name->host, sp->name->namespace_, sp->name->model, sp->name->tag};
    for (u32 i = 0; i < 4; i++) {
        bool exact = strcmp(asked[i], w->at[i]) == 0;
        if (!exact && (sp->exact[i] || sp->folded[i] || !str_eq_nocase(str_of(asked[i]), str_of(w->at[i]))))
            continue;
        memcpy(part[i], w->at[i], strlen(w->at[i])); /* the same length in another case */
        sp->exact[i] |= exact;
        sp->folded[i] = true;
    }
    return false;
}

static bool found_visit(struct walk *w) {
    return model_name_from_parts(w->at[0], w->at[1], w->at[2], w->at[3], w->ctx);
}

void store_spell(struct store *s, const struct model_name *n, struct model_name *out) {
    struct arena a;
    struct model_name whole = {0};
    arena_init(&a, 0);
    *out = *n;
    struct walk one = {.store = s,
                       .arena = &a,
                       .want = {n->host, n->namespace_, n->model, n->tag},
                       .visit = found_visit,
                       .ctx = &whole};
    struct spelling sp = {.asked = n, .name = out};
    struct walk all = {.store = s, .arena = &a, .visit = spell_visit, .ctx = &sp};
    if (access(manifest_path(s, n, &a).p, F_OK) != 0) {
        if (store_walk(&one))
            *out = whole;
        else
            store_walk(&all);
    }
    arena_release(&a);
}

/* --- manifests --- */

static void layer_json(struct buf *b, const struct store_layer *layer) {
    json_open(b, '{');
    json_key(b, "mediaType"), json_str(b, layer->media_type);
    json_key(b, "digest"), json_str(b, str_of(layer->digest));
    json_key(b, "size"), json_u64(b, layer->size);
    if (layer->from.n)
        json_key(b, "from"), json_str(b, layer->from);
    json_close(b, '}');
}

void store_manifest_json(struct buf *b, const struct store_layer *config, const struct store_layer *layers,
                         u32 n_layers) {
    json_open(b, '{');
    json_key(b, "schemaVersion"), json_u64(b, 2);
    json_key(b, "mediaType"), json_str(b, STR(MEDIA_MANIFEST));
    json_key(b, "config"), layer_json(b, config);
    json_key(b, "layers"), json_open(b, '[');
    for (u32 i = 0; i < n_layers; i++)
        layer_json(b, &layers[i]);
    json_close(b, ']');
    json_close(b, '}');
    buf_add_char(b, '\n');
}

enum status store_read_manifest(struct store *s, const struct model_name *n, struct arena *a, struct str *out,
                                struct err *err) {
    struct model_name spelled;
    store_spell(s, n, &spelled);
    return file_read(manifest_path(s, &spelled, a).p, a, out, NULL, err);
}

static enum status manifest_put(struct store *s, const struct model_name *n, struct str json, struct arena *a,
                                u32 *n_unused, struct err *err) {
    struct str path = manifest_path(s, n, a), old = STR_NONE;
    struct refs before = {0}, after = {0};
    struct err none;
    if (file_read(path.p, a, &old, NULL, &none) == OK)
        (void)refs_add(&before, old);
    enum status status = folder_make(str_folder(path, a).p, err);
    if (status == OK)
        status = file_write(path.p, json, err);
    if (status == OK && !s->no_prune && refs_add(&after, json))
        *n_unused = due_add(s, &before, &after);
    refs_release(&before);
    refs_release(&after);
    return status;
}

enum status store_put_manifest(struct store *s, const struct model_name *n, struct str json, u32 *n_unused,
                               struct err *err) {
    struct model_name spelled;
    struct arena a;
    u32 n_due = 0;
    TRY(store_check_writable(s, err));
    arena_init(&a, 0);
    pthread_mutex_lock(&s->manifests);
    store_spell(s, n, &spelled);
    enum status status = manifest_put(s, &spelled, json, &a, &n_due, err);
    pthread_mutex_unlock(&s->manifests);
    arena_release(&a);
    if (n_unused)
        *n_unused = n_due;
    return status;
}

enum status store_copy(struct store *s, const struct model_name *from, const struct model_name *to,
                       struct err *err) {
    struct model_name source, target;
    struct arena a;
    struct str json;
    int hold;
    TRY(store_hold(s, &hold, err));
    arena_init(&a, 0);
    store_spell(s, from, &source);
    store_spell(s, to, &target);
    enum status status = file_read(manifest_path(s, &source, &a).p, &a, &json, NULL, err);
    if (status == OK && memcmp(&source, &target, sizeof source) != 0)
        status = store_put_manifest(s, &target, json, NULL, err);
    arena_release(&a);
    store_release(s, hold);
    return status;
}

static enum status manifest_delete(struct store *s, const struct model_name *n, struct arena *a,
                                   struct err *err) {
    struct model_name spelled;
    struct refs gone = {0};
    struct str json = STR_NONE;
    store_spell(s, n, &spelled);
    struct str path = manifest_path(s, &spelled, a);
    enum status status = file_read(path.p, a, &json, NULL, err);
    if (status == ERR_NOT_FOUND)
        return status;
    if (unlink(path.p) != 0)
        return err_errno(err, errno == ENOENT ? ERR_NOT_FOUND : ERR_IO, "remove %s", path.p);
    /* Before the blobs go: after a power cut the manifest must not be back without them. */
    status = folder_sync(str_folder(path, a).p, err);
    /* A manifest that could not be read names nothing; its blobs go at the next start. */
    if (status == OK && refs_add(&gone, json))
        due_add(s, &gone, NULL);
    refs_release(&gone);
    return status;
}

enum status store_delete(struct store *s, const struct model_name *n, struct err *err) {
    struct arena a;
    TRY(store_check_writable(s, err));
    arena_init(&a, 0);
    pthread_mutex_lock(&s->manifests);
    enum status status = manifest_delete(s, n, &a, err);
    pthread_mutex_unlock(&s->manifests);
    arena_release(&a);
    due_remove(s);
    return status;
}
