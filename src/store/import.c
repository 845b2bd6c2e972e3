/* import.c - a GGUF file becomes a model: blob, config, manifest, in this order, each whole or not there.
 *
 * The blob is an unnamed file (O_TMPFILE) until its bytes are synced and its hash is known: a process
 * killed half way leaves nothing behind. A manifest is written only when everything it names is there. */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "store/files.h"

/* Copied and hashed at a time: large enough for the disk, small enough for the cache. */
#define COPY_BYTES (1u << 20)

const char *store_file_type_name(u32 t) {
    static const char *const names[] = {
        [0] = "F32",      [1] = "F16",      [2] = "Q4_0",       [3] = "Q4_1",    [7] = "Q8_0",
        [8] = "Q5_0",     [9] = "Q5_1",     [10] = "Q2_K",      [11] = "Q3_K_S", [12] = "Q3_K_M",
        [13] = "Q3_K_L",  [14] = "Q4_K_S",  [15] = "Q4_K_M",    [16] = "Q5_K_S", [17] = "Q5_K_M",
        [18] = "Q6_K",    [19] = "IQ2_XXS", [20] = "IQ2_XS",    [21] = "Q2_K_S", [22] = "IQ3_XS",
        [23] = "IQ3_XXS", [24] = "IQ1_S",   [25] = "IQ4_NL",    [26] = "IQ3_S",  [27] = "IQ3_M",
        [28] = "IQ2_S",   [29] = "IQ2_M",   [30] = "IQ4_XS",    [31] = "IQ1_M",  [32] = "BF16",
        [36] = "TQ1_0",   [37] = "TQ2_0",   [38] = "MXFP4_MOE", [39] = "NVFP4",  [40] = "Q1_0"};
    return t < ARRAY_LEN(names) && names[t] ? names[t] : "unknown";
}

struct str store_human_count(u64 n, struct arena *a) {
    static const struct {
        u64 unit;
        char letter;
        int decimals;
    } scale[] = {{1000000000, 'B', 1}, {1000000, 'M', 2}, {1000, 'K', 0}};
    for (u32 i = 0; i < ARRAY_LEN(scale); i++)
        if (n >= scale[i].unit)
            return arena_printf(a, "%.*f%c", n % scale[i].unit ? scale[i].decimals : 0,
                                (f64)n / (f64)scale[i].unit, scale[i].letter);
    return arena_printf(a, "%llu", (unsigned long long)n);
}

/* --- the bytes --- */

struct import {
    struct store *store;
    struct arena arena;
    const char *source_path;
    int source, blob; /* descriptors; blob -1 when the source itself is linked */
    u64 bytes;
    char hash[65];
    struct str temp; /* name of the blob while it is written, if it had to have one */
    struct gguf_facts facts;
};

/* Reads fd from its beginning, hashes, and writes to `to` if that is >= 0. */
static enum status bytes_hash(struct import *im, int fd, int to, struct err *err) {
    EVP_MD_CTX *sha = EVP_MD_CTX_new();
    check(sha && EVP_DigestInit_ex(sha, EVP_sha256(), NULL) == 1);
    char *chunk = xmalloc(COPY_BYTES);
    enum status status = OK;
    u64 at = 0;
    for (;;) {
        ssize_t got = pread(fd, chunk, COPY_BYTES, (off_t)at);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            status = err_errno(err, ERR_IO, "read %s", im->source_path);
        if (got <= 0)
            break;
        check(EVP_DigestUpdate(sha, chunk, (size_t)got) == 1);
        if (to >= 0 && (status = fd_write(to, chunk, (size_t)got, err)) != OK)
            break;
        at += (u64)got;
    }
    u8 hash[32];
    check(EVP_DigestFinal_ex(sha, hash, NULL) == 1);
    hex_write(hash, im->hash);
    im->bytes = at;
    EVP_MD_CTX_free(sha);
    free(chunk);
    return status;
}

/* Our own file, which nobody may write and everybody may read, on the store's file system. */
static bool source_linkable(struct import *im) {
    struct stat file, folder;
    struct str path = arena_printf(&im->arena, "%s/blobs", im->store->path);
    return fstat(im->source, &file) == 0 && stat(path.p, &folder) == 0 && file.st_dev == folder.st_dev &&
           file.st_uid == geteuid() && (file.st_mode & 0222) == 0 && (file.st_mode & 0444) == 0444;
}

static enum status bytes_take(struct import *im, struct err *err) {
    TRY(blob_file_create(im->store, &im->arena, &im->blob, &im->temp, err));
    if (ioctl(im->blob, FICLONE, im->source) == 0)
        return bytes_hash(im, im->blob, -1, err);
    if (source_linkable(im)) {
        close(im->blob);
        im->blob = -1;
        if (im->temp.n)
            unlink(im->temp.p);
        im->temp = STR_NONE;
        return bytes_hash(im, im->source, -1, err);
    }
    return bytes_hash(im, im->source, im->blob, err);
}

static enum status blob_name(struct import *im, struct err *err) {
    int fd = im->blob >= 0 ? im->blob : im->source;
    bool created;
    return blob_file_name(im->store, &im->arena, fd, &im->temp, im->hash, im->bytes, &created, err);
}

/* --- the rest --- */

static enum status facts_read(struct import *im, struct err *err) {
    int fd = im->blob >= 0 ? im->blob : im->source;
    return store_gguf_facts(fd, im->bytes, im->source_path, &im->arena, &im->facts, err);
}

static enum status manifest_write(struct import *im, const struct model_name *n, struct err *err) {
    struct buf text = {0};
    struct store_config c = {.format = STR("gguf"),
                             .family = im->facts.arch,
                             .families = &im->facts.arch,
                             .n_families = 1,
                             .type = im->facts.type,
                             .file_type = im->facts.file_type};
    struct store_layer config = {STR(MEDIA_CONFIG)}, model = {STR(MEDIA_IMAGE "model"), .size = im->bytes};
    snprintf(model.digest, sizeof model.digest, "sha256:%s", im->hash);
    store_config_json(&text, &c);
    enum status status = store_put_blob(im->store, buf_str(&text), &config, NULL, err);
    buf_clear(&text);
    store_manifest_json(&text, &config, &model, 1);
    if (status == OK)
        status = store_put_manifest(im->store, n, buf_str(&text), NULL, err);
    buf_release(&text);
    return status;
}

/* Fails at once on what is plainly no GGUF, before gigabytes are copied. */
static enum status source_open(struct import *im, struct err *err) {
    TRY(file_open(im->source_path, &im->source, &im->bytes, NULL, err));
    char magic[4] = {0};
    if (pread(im->source, magic, 4, 0) != 4 || memcmp(magic, "GGUF", 4) != 0)
        return err_set(err, ERR_CORRUPT, "%s is no GGUF file", im->source_path);
    return OK;
}

static enum status import_run(struct import *im, const struct model_name *n, struct err *err) {
    TRY(source_open(im, err));
    TRY(bytes_take(im, err));
    TRY(facts_read(im, err));
    TRY(blob_name(im, err));
    return manifest_write(im, n, err);
}

enum status store_import(struct store *s, const char *gguf_path, const struct model_name *n,
                         struct err *err) {
    int hold;
    TRY(store_hold(s, &hold, err));
    struct import im = {.store = s, .source_path = gguf_path, .source = -1, .blob = -1};
    arena_init(&im.arena, 0);
    enum status status = import_run(&im, n, err);
    if (im.temp.n)
        unlink(im.temp.p);
    if (im.source >= 0)
        close(im.source);
    if (im.blob >= 0)
        close(im.blob);
    arena_release(&im.arena);
    store_release(s, hold);
    return status;
}
