/* prune.c - removes blobs that no manifest names.
 *
 * Removal happens under the exclusive lock of blobs/ and after all manifests were read under it, so nobody
 * who holds the store loses a blob. What cannot be decided stays: a folder that cannot be read, a lock
 * that somebody has, more digests than the limit. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "store/files.h"

#define SECOND_NS 1000000000ll

/* --- sets of digests --- */

static int digest_order(const void *a, const void *b) { return memcmp(a, b, sizeof(struct digest_hex)); }

static bool refs_put(struct refs *r, const json_t *layer) {
    const json_t *v = json_object_get(layer, "digest");
    struct str s = {json_string_value(v), json_string_length(v)};
    if (!json_is_string(v) || s.n == 0)
        return true;
    if (!digest_valid(s) || r->n == LIMIT_STORE_REFS)
        return false;
    if (r->n == r->cap) {
        r->cap = MAX(64u, r->cap * 2);
        r->items = xrealloc(r->items, r->cap * sizeof *r->items);
    }
    memcpy(r->items[r->n++].text, s.p + 7, sizeof r->items->text);
    return true;
}

bool refs_add(struct refs *r, struct str json) {
    json_error_t where;
    json_t *root = json_loadb(json.p, json.n, JSON_DISABLE_EOF_CHECK, &where), *layer;
    size_t i;
    bool ok = json_is_object(root) && refs_put(r, json_object_get(root, "config"));
    json_array_foreach(json_object_get(root, "layers"), i, layer) ok = ok && refs_put(r, layer);
    json_decref(root);
    return ok;
}

void refs_release(struct refs *r) {
    free(r->items);
    *r = (struct refs){0};
}

static void refs_sort(struct refs *r) {
    if (r->n)
        qsort(r->items, r->n, sizeof *r->items, digest_order);
}

static bool refs_has(const struct refs *sorted, const struct digest_hex *d) {
    return sorted->n && bsearch(d, sorted->items, sorted->n, sizeof *d, digest_order);
}

/* --- all manifests --- */

struct gather {
    struct refs refs;
    u32 n_broken;
};

static bool gather_visit(struct walk *w) {
    struct gather *g = w->ctx;
    struct model_name name;
    struct arena a; /* of its own, so that memory is bounded by the largest manifest */
    struct str json;
    struct err err;
    if (!model_name_from_parts(w->at[0], w->at[1], w->at[2], w->at[3], &name))
        return false;
    arena_init(&a, 0);
    enum status status = file_read(manifest_path(w->store, &name, &a).p, &a, &json, NULL, &err);
    if (status == OK && !refs_add(&g->refs, json)) {
        g->n_broken++;
        w->failed |= g->refs.n == LIMIT_STORE_REFS;
    } else if (status != OK && status != ERR_CORRUPT && status != ERR_NOT_FOUND) {
        w->failed = true;
    }
    arena_release(&a);
    return w->failed;
}

/* False if some manifest may name what is not in g. */
static bool gather_all(struct store *s, struct gather *g) {
    struct arena a;
    arena_init(&a, 0);
    struct walk w = {.store = s, .arena = &a, .visit = gather_visit, .ctx = g};
    store_walk(&w);
    arena_release(&a);
    refs_sort(&g->refs);
    return !w.failed;
}

/* rmdir refuses a folder that is not empty. */
static void folders_remove_empty(const char *path, u32 level) {
    DIR *d = opendir(path);
    if (!d)
        return;
    for (struct dirent *e; level < 4 && (e = readdir(d));) {
        char *deeper;
        if (e->d_name[0] == '.' || asprintf(&deeper, "%s/%s", path, e->d_name) < 0)
            continue;
        folders_remove_empty(deeper, level + 1);
        free(deeper);
    }
    closedir(d);
    if (level > 0)
        (void)rmdir(path);
}

static void manifest_folders_clean(struct store *s) {
    struct arena a;
    arena_init(&a, 0);
    folders_remove_empty(arena_printf(&a, "%s/manifests", s->path).p, 0);
    arena_release(&a);
}

/* --- what is due --- */

u32 due_add(struct store *s, const struct refs *gone, const struct refs *kept) {
    u32 n = 0;
    pthread_mutex_lock(&s->lock);
    for (u32 i = 0; i < gone->n; i++) {
        bool stays = false;
        for (u32 k = 0; kept && k < kept->n && !stays; k++)
            stays = digest_order(&gone->items[i], &kept->items[k]) == 0;
        if (stays || s->n_due == LIMIT_STORE_REFS)
            continue;
        if (s->n_due == s->cap_due) {
            s->cap_due = MAX(16u, s->cap_due * 2);
            s->due = xrealloc(s->due, s->cap_due * sizeof *s->due);
        }
        s->due[s->n_due++] = gone->items[i];
        n++;
    }
    pthread_mutex_unlock(&s->lock);
    return n;
}

static void due_unlink(struct store *s, const struct refs *used) {
    struct arena a;
    arena_init(&a, 0);
    for (u32 i = 0; i < s->n_due; i++) {
        if (refs_has(used, &s->due[i]))
            continue;
        struct str path = arena_printf(&a, "%s/blobs/sha256-%.64s", s->path, s->due[i].text);
        if (unlink(path.p) != 0 && errno != ENOENT)
            log_warn("a blob that is not used any more cannot be removed", "path=%s error=\"%s\"", path.p,
                     strerror(errno));
        arena_reset(&a);
    }
    arena_release(&a);
    s->n_due = 0;
}

void due_remove(struct store *s) {
    pthread_mutex_lock(&s->lock);
    int lock = s->n_due ? blobs_lock(s, LOCK_EX | LOCK_NB) : -1;
    if (lock >= 0) {
        struct gather g = {0};
        if (gather_all(s, &g))
            due_unlink(s, &g.refs);
        else
            log_warn("unused blobs stay: the manifests cannot all be read", "store=%s", s->path);
        refs_release(&g.refs);
        manifest_folders_clean(s);
        close(lock);
    }
    pthread_mutex_unlock(&s->lock);
}

/* --- at start --- */

struct pruning {
    struct store *store;
    struct arena arena;
    const struct refs *used;
    i64 now_ns;
    u32 n_blobs, n_removed;
};

/* True if nobody writes this part. */
static bool part_idle(const char *path) {
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    bool idle = fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0;
    if (fd >= 0)
        close(fd);
    return idle;
}

/* "sha256:<hex>" was the name of a blob in early versions of the layout. */
static struct str name_modernize(struct pruning *p, struct str path, struct str name) {
    if (!str_starts(name, STR("sha256:")) || !digest_valid(name))
        return path;
    struct str to = arena_printf(&p->arena, "%s/blobs/sha256-%.64s", p->store->path, name.p + 7);
    struct stat st;
    return stat(to.p, &st) != 0 && rename(path.p, to.p) == 0 ? to : path;
}

/* Whether a file of blobs/ is nobody's, given its age. Names that no version of the layout uses are left
 * alone. */
static bool file_unused(struct pruning *p, struct str path, struct str name, i64 age_ns) {
    if (age_ns < LIMIT_STORE_UNUSED_S * SECOND_NS)
        return false;
    if (digest_valid(name)) {
        struct digest_hex d;
        memcpy(d.text, name.p + 7, sizeof d.text);
        p->n_blobs++;
        return !refs_has(p->used, &d);
    }
    if (str_starts(name, STR("sha256-")) && str_ends(name, STR("-part")))
        return age_ns >= LIMIT_STORE_PART_S * SECOND_NS && part_idle(path.p);
    return str_starts(name, STR("sha256-")) || (str_starts(name, STR(".")) && str_ends(name, STR(".tmp")));
}

static void file_prune(struct pruning *p, const char *text) {
    struct str name = str_of(text);
    struct str path = arena_printf(&p->arena, "%s/blobs/%s", p->store->path, text);
    struct stat st;
    path = name_modernize(p, path, name);
    if (lstat(path.p, &st) != 0 || !S_ISREG(st.st_mode))
        return;
    i64 age_ns = p->now_ns - ((i64)st.st_mtim.tv_sec * SECOND_NS + st.st_mtim.tv_nsec);
    if (!file_unused(p, path, name, age_ns))
        return;
    if (unlink(path.p) == 0)
        p->n_removed++;
    else
        log_warn("a blob that is not used any more cannot be removed", "path=%s error=\"%s\"", path.p,
                 strerror(errno));
}

static void blobs_prune(struct store *s, const struct refs *used) {
    struct pruning p = {.store = s, .used = used, .now_ns = clock_wall_ns()};
    arena_init(&p.arena, 0);
    DIR *d = opendir(arena_printf(&p.arena, "%s/blobs", s->path).p);
    for (struct dirent *e; d && (e = readdir(d));) {
        arena_reset(&p.arena);
        file_prune(&p, e->d_name);
    }
    if (d)
        closedir(d);
    arena_release(&p.arena);
    log_info("blobs without a model are removed", "looked_at=%u removed=%u", p.n_blobs, p.n_removed);
}

void store_prune(struct store *s) {
    if (!s->writable || s->no_prune)
        return;
    pthread_mutex_lock(&s->lock);
    int lock = blobs_lock(s, LOCK_EX | LOCK_NB);
    struct gather g = {0};
    if (lock < 0) {
        log_info("no blobs are removed: another process builds a model in this store", "store=%s", s->path);
    } else if (!gather_all(s, &g) || g.n_broken) {
        log_warn("no blobs are removed: a manifest cannot be read; delete or pull that model again",
                 "store=%s broken=%u", s->path, g.n_broken);
    } else {
        blobs_prune(s, &g.refs);
        manifest_folders_clean(s);
    }
    refs_release(&g.refs);
    if (lock >= 0)
        close(lock);
    pthread_mutex_unlock(&s->lock);
}
