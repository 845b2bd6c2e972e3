/* files.h - what the store's parts share: reading small files, hashes, and writes that are whole or not
 * there. */
#ifndef MINKA_STORE_FILES_H
#define MINKA_STORE_FILES_H

#include "base/arena.h"
#include "base/limit.h"
#include "store/store.h"

#define MEDIA_CONFIG "application/vnd.docker.container.image.v1+json"
#define MEDIA_MANIFEST "application/vnd.docker.distribution.manifest.v2+json"
#define MEDIA_IMAGE "application/vnd.ollama.image."

struct store {
    char *path;
    bool writable;
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
/* A name in the folder of path that no file has: "<folder>/.<random>.tmp", made in the arena. */
struct str temp_path(struct str path, struct arena *a);

void sha256_hex(struct str bytes, char hex[65]);
/* 32 bytes as 64 digits and a NUL. */
void hex_write(const u8 hash[32], char hex[65]);
/* True if s is "sha256:" or "sha256-" and 64 hex digits. */
bool digest_valid(struct str s);

#endif
