/* files.c - small files, hashes, atomic writes. */
#include "store/files.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

enum status file_open(const char *path, int *fd, u64 *bytes, i64 *modified_ns, struct err *err) {
    /* Without O_NONBLOCK, opening a pipe would wait for a writer. */
    *fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (*fd < 0)
        return err_errno(err, errno == ENOENT || errno == ENOTDIR ? ERR_NOT_FOUND : ERR_IO, "open %s", path);
    struct stat st;
    if (fstat(*fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        close(*fd);
        *fd = -1;
        return err_set(err, ERR_CORRUPT, "%s is not a regular file", path);
    }
    *bytes = (u64)st.st_size;
    if (modified_ns)
        *modified_ns = (i64)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec;
    return OK;
}

static enum status fd_read(int fd, char *p, size_t n, const char *path, struct err *err) {
    for (size_t at = 0; at < n;) {
        ssize_t got = pread(fd, p + at, n - at, (off_t)at);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return err_errno(err, ERR_IO, "read %s", path);
        if (got == 0)
            return err_set(err, ERR_IO, "read %s: the file became shorter", path);
        at += (size_t)got;
    }
    return OK;
}

enum status file_read(const char *path, struct arena *a, struct str *out, i64 *modified_ns, struct err *err) {
    int fd;
    u64 bytes;
    TRY(file_open(path, &fd, &bytes, modified_ns, err));
    enum status status = OK;
    char *p = NULL;
    if (bytes > LIMIT_STORE_TEXT_BYTES)
        status = err_set(err, ERR_TOO_LARGE, "%s has %llu bytes, at most %u are read", path,
                         (unsigned long long)bytes, LIMIT_STORE_TEXT_BYTES);
    else if (!(p = arena_try_alloc(a, (size_t)bytes + 1)))
        status = err_set(err, ERR_NO_MEMORY, "no memory for %s", path);
    else
        status = fd_read(fd, p, (size_t)bytes, path, err);
    close(fd);
    if (status != OK)
        return status;
    p[bytes] = 0;
    *out = (struct str){p, (size_t)bytes};
    return OK;
}

enum status folder_make(const char *path, struct err *err) {
    char *copy = xstrdup(path);
    enum status status = OK;
    for (char *at = copy + 1;; at++) {
        if (*at != '/' && *at)
            continue;
        char kept = *at;
        *at = 0;
        if (mkdir(copy, 0755) != 0 && errno != EEXIST) {
            status = err_errno(err, ERR_IO, "make folder %s", copy);
            break;
        }
        *at = kept;
        if (!kept)
            break;
    }
    free(copy);
    return status;
}

enum status folder_sync(const char *path, struct err *err) {
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return err_errno(err, ERR_IO, "open folder %s", path);
    /* Some network file systems cannot sync a folder; the rename is as safe there as they make it. */
    int failed = fsync(fd) != 0 && errno != EINVAL;
    close(fd);
    return failed ? err_errno(err, ERR_IO, "sync folder %s", path) : OK;
}

enum status fd_write(int fd, const void *p, size_t n, struct err *err) {
    const char *from = p;
    while (n) {
        ssize_t put = write(fd, from, n);
        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0)
            return err_errno(err, ERR_IO, "write to the model store");
        from += put;
        n -= (size_t)put;
    }
    return OK;
}

struct str str_folder(struct str path, struct arena *a) {
    const char *slash = memrchr(path.p, '/', path.n);
    check(slash);
    return arena_str(a, str_slice(path, 0, (size_t)(slash - path.p)));
}

struct str temp_path(struct str path, struct arena *a) {
    u64 random;
    check(getrandom(&random, sizeof random, 0) == (ssize_t)sizeof random);
    struct str folder = str_folder(path, a);
    return arena_printf(a, "%s/.%016llx.tmp", folder.p, (unsigned long long)random);
}

static enum status file_write_temp(const char *temp, struct str bytes, struct err *err) {
    int fd = open(temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (fd < 0)
        return err_errno(err, ERR_IO, "create %s", temp);
    enum status status = fd_write(fd, bytes.p, bytes.n, err);
    if (status == OK && (fchmod(fd, 0644) != 0 || fsync(fd) != 0))
        status = err_errno(err, ERR_IO, "write %s", temp);
    close(fd);
    return status;
}

enum status file_write(const char *path, struct str bytes, struct err *err) {
    struct arena a;
    arena_init(&a, 0);
    struct str temp = temp_path(str_of(path), &a);
    enum status status = file_write_temp(temp.p, bytes, err);
    if (status == OK && rename(temp.p, path) != 0)
        status = err_errno(err, ERR_IO, "rename %s to %s", temp.p, path);
    if (status != OK)
        unlink(temp.p);
    else
        status = folder_sync(str_folder(str_of(path), &a).p, err);
    arena_release(&a);
    return status;
}

void hex_write(const u8 hash[32], char hex[65]) {
    for (int i = 0; i < 32; i++)
        snprintf(hex + 2 * i, 3, "%02x", hash[i]);
}

void sha256_hex(struct str bytes, char hex[65]) {
    u8 hash[32];
    check(EVP_Digest(bytes.p, bytes.n, hash, NULL, EVP_sha256(), NULL) == 1);
    hex_write(hash, hex);
}

bool digest_valid(struct str s) {
    if (s.n != 71 || memcmp(s.p, "sha256", 6) != 0 || (s.p[6] != ':' && s.p[6] != '-'))
        return false;
    for (size_t i = 7; i < s.n; i++) {
        char c = s.p[i];
        if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F')))
            return false;
    }
    return true;
}
