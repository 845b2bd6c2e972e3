/* blob.c - a blob while it is written: bytes in, hashed on the way, named when the hash is known.
 *
 * A file without a name (O_TMPFILE) vanishes with a killed process. A resumable blob has a name of its own
 * and an advisory lock on it, so that two processes never append to the same file. */
#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store/files.h"

/* Read at a time when a part is hashed again. */
#define CHUNK_BYTES (1u << 20)

struct blob_writer {
    struct store *store;
    struct arena arena;
    int fd;
    struct str temp; /* the file's name; empty if it has none */
    bool part;       /* temp is a "-part" file */
    char want[65];   /* hex; empty if unknown */
    u64 bytes;
    EVP_MD_CTX *sha;
};

/* --- files --- */

enum status blob_file_create(struct store *s, struct arena *a, int *fd, struct str *temp, struct err *err) {
    struct str folder = arena_printf(a, "%s/blobs", s->path);
    *temp = STR_NONE;
    *fd = open(folder.p, O_TMPFILE | O_RDWR | O_CLOEXEC, 0644);
    if (*fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR || errno == ENOENT)) {
        struct str name = temp_path(arena_printf(a, "%s/x", folder.p), a);
        *fd = open(name.p, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
        if (*fd >= 0)
            *temp = name;
    }
    if (*fd < 0 || fchmod(*fd, 0644) != 0)
        return err_errno(err, ERR_IO, "create a file in %s", folder.p);
    return OK;
}

/* Gives the open file fd the name path; an unnamed file through /proc, as linkat's manual shows. */
static int fd_link(int fd, const char *path) {
    char self[64];
    snprintf(self, sizeof self, "/proc/self/fd/%d", fd);
    return linkat(AT_FDCWD, self, AT_FDCWD, path, AT_SYMLINK_FOLLOW);
}

enum status blob_file_name(struct store *s, struct arena *a, int fd, struct str *temp, const char *hex,
                           u64 bytes, bool *created, struct err *err) {
    struct str path = arena_printf(a, "%s/blobs/sha256-%s", s->path, hex);
    struct stat old;
    *created = false;
    if (fsync(fd) != 0)
        return err_errno(err, ERR_IO, "sync %s", path.p);
    if (stat(path.p, &old) == 0 && S_ISREG(old.st_mode) && (u64)old.st_size == bytes) {
        (void)utimensat(AT_FDCWD, path.p, NULL, 0);
        if (temp->n)
            unlink(temp->p);
        *temp = STR_NONE;
        return OK;
    }
    if (temp->n == 0) {
        struct str name = temp_path(path, a);
        if (fd_link(fd, name.p) != 0)
            return err_errno(err, ERR_IO, "name the new blob %s (is /proc mounted?)", path.p);
        *temp = name;
    }
    if (rename(temp->p, path.p) != 0)
        return err_errno(err, ERR_IO, "rename to %s", path.p);
    *temp = STR_NONE;
    *created = true;
    return folder_sync(arena_printf(a, "%s/blobs", s->path).p, err);
}

/* --- parts --- */

/* Opens and locks the part; false if somebody else has it, or it cannot be. The lock counts only if the name
 * still means this file: its owner may have finished between the opening and the lock. */
static bool part_open(struct blob_writer *w) {
    struct stat own, named;
    struct str path = arena_printf(&w->arena, "%s/blobs/sha256-%s-part", w->store->path, w->want);
    int fd = open(path.p, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (fd < 0)
        return false;
    if (flock(fd, LOCK_EX | LOCK_NB) == 0 && fstat(fd, &own) == 0 && stat(path.p, &named) == 0 &&
        own.st_ino == named.st_ino && own.st_dev == named.st_dev && S_ISREG(own.st_mode) &&
        fchmod(fd, 0644) == 0) {
        w->fd = fd;
        w->temp = path;
        w->part = true;
        return true;
    }
    close(fd);
    return false;
}

/* Hashes from the file's position to its end, or until at least `stop` bytes are hashed in all; *whole (may
 * be NULL): the end was seen. */
static enum status hash_rest(struct blob_writer *w, u64 stop, bool *whole,
                             bool (*progress)(void *ctx, u64 bytes), void *ctx, struct err *err) {
    char *chunk = xmalloc(CHUNK_BYTES);
    enum status status = OK;
    while (w->bytes < stop) {
        ssize_t got = read(w->fd, chunk, CHUNK_BYTES);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            status = err_errno(err, ERR_IO, "read %s", w->temp.p);
        if (whole)
            *whole = got == 0;
        if (got <= 0)
            break;
        check(EVP_DigestUpdate(w->sha, chunk, (size_t)got) == 1);
        w->bytes += (u64)got;
        if (progress && !progress(ctx, w->bytes)) {
            status = err_set(err, ERR_CANCELED, "canceled");
            break;
        }
    }
    free(chunk);
    return status;
}

/* --- files outside of the store --- */

enum status store_file_digest(const char *path, char digest[72], u64 *bytes,
                              bool (*progress)(void *ctx, u64 bytes), void *ctx, struct err *err) {
    struct blob_writer w = {.temp = str_of(path)};
    u64 size;
    TRY(file_open(path, &w.fd, &size, NULL, err));
    w.sha = EVP_MD_CTX_new();
    check(w.sha && EVP_DigestInit_ex(w.sha, EVP_sha256(), NULL) == 1);
    enum status status = hash_rest(&w, UINT64_MAX, NULL, progress, ctx, err);
    u8 hash[32];
    char hex[65];
    check(EVP_DigestFinal_ex(w.sha, hash, NULL) == 1);
    hex_write(hash, hex);
    snprintf(digest, 72, "sha256:%s", hex);
    *bytes = w.bytes;
    EVP_MD_CTX_free(w.sha);
    close(w.fd);
    return status;
}

enum status store_read_text(const char *path, struct arena *a, struct str *out, struct err *err) {
    return file_read(path, a, out, NULL, err);
}

/* --- the writer --- */

static void writer_free(struct blob_writer *w) {
    if (w->fd >= 0)
        close(w->fd);
    EVP_MD_CTX_free(w->sha);
    arena_release(&w->arena);
    free(w);
}

enum status blob_open_part(struct store *s, struct str digest, bool resumable, struct blob_writer **out,
                           struct err *err) {
    if (digest.n && !digest_valid(digest))
        return err_set(err, ERR_INVALID, "invalid digest format");
    TRY(store_check_writable(s, err));
    struct blob_writer *w = xcalloc(1, sizeof *w);
    arena_init(&w->arena, 0);
    w->store = s;
    w->fd = -1;
    w->sha = EVP_MD_CTX_new();
    check(w->sha && EVP_DigestInit_ex(w->sha, EVP_sha256(), NULL) == 1);
    if (digest.n)
        memcpy(w->want, digest.p + 7, 64);
    enum status status =
        digest.n && resumable && part_open(w) ? OK : blob_file_create(s, &w->arena, &w->fd, &w->temp, err);
    if (status != OK) {
        blob_drop(w, true);
        return status;
    }
    *out = w;
    return OK;
}

enum status blob_read_part(struct blob_writer *w, u64 n_max, bool *whole, struct err *err) {
    *whole = !w->part;
    return w->part ? hash_rest(w, w->bytes + n_max, whole, NULL, NULL, err) : OK;
}

enum status blob_open(struct store *s, struct str digest, bool resumable, struct blob_writer **out,
                      struct err *err) {
    bool whole = false;
    TRY(blob_open_part(s, digest, resumable, out, err));
    while (!whole) {
        enum status status = blob_read_part(*out, CHUNK_BYTES, &whole, err);
        if (status != OK) {
            blob_drop(*out, true);
            return status;
        }
    }
    return OK;
}

u64 blob_bytes(const struct blob_writer *w) { return w->bytes; }

enum status blob_write(struct blob_writer *w, const void *p, size_t n, struct err *err) {
    TRY(fd_write(w->fd, p, n, err));
    check(EVP_DigestUpdate(w->sha, p, n) == 1);
    w->bytes += n;
    return OK;
}

enum status blob_restart(struct blob_writer *w, struct err *err) {
    if (ftruncate(w->fd, 0) != 0 || lseek(w->fd, 0, SEEK_SET) != 0)
        return err_errno(err, ERR_IO, "empty %s", w->temp.n ? w->temp.p : "a new blob");
    check(EVP_DigestInit_ex(w->sha, EVP_sha256(), NULL) == 1);
    w->bytes = 0;
    return OK;
}

enum status blob_commit(struct blob_writer *w, char digest[72], bool *created, struct err *err) {
    u8 hash[32];
    char hex[65];
    bool made = false;
    check(EVP_DigestFinal_ex(w->sha, hash, NULL) == 1);
    hex_write(hash, hex);
    if (w->want[0] && memcmp(hex, w->want, 64) != 0) {
        err_set(err, ERR_INVALID, "digest mismatch, expected \"sha256:%s\", got \"sha256:%s\"", w->want, hex);
        blob_drop(w, false);
        return ERR_INVALID;
    }
    if (digest)
        snprintf(digest, 72, "sha256:%s", hex);
    enum status status = blob_file_name(w->store, &w->arena, w->fd, &w->temp, hex, w->bytes, &made, err);
    if (created)
        *created = made;
    blob_drop(w, true);
    return status;
}

void blob_drop(struct blob_writer *w, bool keep) {
    if (w->temp.n && !(w->part && keep && w->bytes))
        unlink(w->temp.p);
    writer_free(w);
}

enum status store_put_blob(struct store *s, struct str bytes, struct store_layer *layer, bool *created,
                           struct err *err) {
    struct blob_writer *w;
    TRY(blob_open(s, STR_NONE, false, &w, err));
    enum status status = blob_write(w, bytes.p, bytes.n, err);
    if (status != OK) {
        blob_drop(w, false);
        return status;
    }
    layer->size = bytes.n;
    return blob_commit(w, layer->digest, created, err);
}

void store_touch_blob(struct store *s, struct str digest) {
    struct arena a;
    arena_init(&a, 0);
    struct str path = store_blob_path(s, digest, &a);
    if (path.n)
        (void)utimensat(AT_FDCWD, path.p, NULL, 0);
    arena_release(&a);
}
