/* files.h - what the store's parts share: reading small files, hashes, and writes that are whole or not
 * there. */
#ifndef MINKA_STORE_FILES_H
#define MINKA_STORE_FILES_H

#include <pthread.h>

#include "base/arena.h"
#include "base/limit.h"
#include "store/store.h"

#define MEDIA_CONFIG "application/vnd.docker.container.image.v1+json"
#define MEDIA_MANIFEST "application/vnd.docker.distribution.manifest.v2+json"
#define MEDIA_IMAGE "application/vnd.ollama.image."

struct store {
    char *path;
    bool writable, no_prune;
    /* Held from reading a manifest to replacing or removing it, so that two who replace one another both
     * note what they took away. Taken before `lock`. */
    pthread_mutex_t manifests;
    pthread_mutex_t lock;  /* over what follows, and held while blobs are removed */
    struct digest_hex *due; /* [n_due] blobs to remove when nobody holds the store */
    u32 n_due, cap_due;
};

/* The 64 digits of a digest as its file name has them. */
struct digest_hex {
    char text[64];
};

#define DIGEST_TEXT_BYTES 72 /* "sha256:" + 64 hex + NUL */

/* Opens a regular file for reading; a pipe or device in its place is ERR_CORRUPT. */
enum status file_open(const char *path, int *fd, u64 *bytes, i64 *modified_ns, struct err *err) MUST_USE;
/* Reads a file of at most LIMIT_STORE_TEXT_BYTES. modified_ns may be NULL. */
enum status file_read(const char *path, struct arena *a, struct str *out, i64 *modified_ns,
                      struct err *err) MUST_USE;
/* Makes a folder and its parents, 0755. */
enum status folder_make(const char *path, struct err *err) MUST_USE;
/* Syncs a folder's entries. */
enum status folder_sync(const char *path, struct err *err) MUST_USE;
/* Writes a file beside path, syncs it and renames it to path. */
enum status file_write(const char *path, struct str bytes, struct err *err) MUST_USE;
/* write(2) until all is written. */
enum status fd_write(int fd, const void *p, size_t n, struct err *err) MUST_USE;
/* The part of a path before its last '/', in the arena. */
struct str str_folder(struct str path, struct arena *a);
/* A name in the folder of path that no file has: "<folder>/.<random>.tmp", made in the arena. */
struct str temp_path(struct str path, struct arena *a);

/* "<store>/manifests/<host>/<namespace>/<model>/<tag>". */
struct str manifest_path(struct store *s, const struct model_name *n, struct arena *a);

/* A walk over the manifests, folders in order of their names, hidden ones left out. */
struct walk {
    struct store *store;
    struct arena *arena;
    const char *want[4]; /* host, namespace, model, tag; NULL = every one */
    const char *at[4];   /* the names on the way here */
    bool failed;         /* a folder could not be read */
    /* Returns true to end the walk. */
    bool (*visit)(struct walk *w);
    void *ctx;
};
/* True if a visit ended the walk. */
bool store_walk(struct walk *w);

/* A file in blobs/ for bytes whose hash is not known yet. Without a name where the system can: then *temp
 * stays empty and a killed process leaves nothing. */
enum status blob_file_create(struct store *s, struct arena *a, int *fd, struct str *temp, struct err *err);
/* Syncs fd, which holds `bytes` bytes of this hash, and gives it the blob's name. *temp is its name so far;
 * empty for a file without one. A blob that is there already stays, unless its size shows that it is damaged:
 * *created says which. */
enum status blob_file_name(struct store *s, struct arena *a, int fd, struct str *temp, const char *hex,
                           u64 bytes, bool *created, struct err *err);

/* ERR_IO with what to do about it. */
enum status store_check_writable(const struct store *s, struct err *err) MUST_USE;
/* flock(2) of the folder blobs/ on a descriptor of its own; -1 and errno if it fails. */
int blobs_lock(struct store *s, int operation);

/* --- which blobs manifests name (prune.c) --- */
struct refs {
    struct digest_hex *items; /* [n] */
    u32 n, cap;
};
/* Adds what a manifest names, config and layers. False if it is broken or names too much: then nothing is
 * known about its blobs. */
bool refs_add(struct refs *r, struct str json);
void refs_release(struct refs *r);
/* Notes the blobs of `gone` that are not in `kept` (may be NULL) for removal; returns how many. */
u32 due_add(struct store *s, const struct refs *gone, const struct refs *kept);
/* Removes what is due and in no manifest, and empty folders; later, if somebody holds the store. */
void due_remove(struct store *s);

void sha256_hex(struct str bytes, char hex[65]);
/* 32 bytes as 64 digits and a NUL. */
void hex_write(const u8 hash[32], char hex[65]);
/* True if s is "sha256:" or "sha256-" and 64 hex digits. */
bool digest_valid(struct str s);

#endif
