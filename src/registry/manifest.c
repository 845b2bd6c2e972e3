/* manifest.c - reads with jansson, whose own bound of 2048 levels keeps its recursion far below a thread's
 * stack; memory is bounded by the size of the text. */
#include "registry/manifest.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/limit.h"

/* Only a hint for uploads; what could not stand in a URL is left out. */
static struct str from_read(const json_t *json, struct arena *a) {
    struct str s = {json_string_value(json), json_string_length(json)};
    if (s.n > 200)
        return STR_NONE;
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        if (!((c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z') || (c && strchr("._-/", c))))
            return STR_NONE;
    }
    return s.n ? arena_str(a, s) : STR_NONE;
}

static enum status blob_read(const json_t *json, struct arena *a, struct registry_blob *out,
                             struct err *err) {
    const json_t *digest = json_object_get(json, "digest"), *size = json_object_get(json, "size");
    const char *text = json_string_value(digest);
    if (!text || json_string_length(digest) != 71 || memcmp(text, "sha256:", 7) != 0)
        return err_set(err, ERR_CORRUPT, "the manifest has a layer without a SHA-256 digest");
    for (size_t i = 7; i < 71; i++)
        if (!((text[i] >= '0' && text[i] <= '9') || (text[i] >= 'a' && text[i] <= 'f')))
            return err_set(err, ERR_CORRUPT, "the manifest has a layer without a SHA-256 digest");
    if (!json_is_integer(size) || json_integer_value(size) < 0)
        return err_set(err, ERR_CORRUPT, "the manifest has a layer without a size");
    memcpy(out->digest, text, 72);
    out->from = from_read(json_object_get(json, "from"), a);
    out->bytes = (u64)json_integer_value(size);
    if (out->bytes > LIMIT_REGISTRY_BLOB_BYTES)
        return err_set(err, ERR_TOO_LARGE, "the manifest has a layer of %llu bytes",
                       (unsigned long long)out->bytes);
    return OK;
}

static int digest_order(const void *a, const void *b) {
    const struct registry_blob *const *x = a, *const *y = b;
    int order = strcmp((*x)->digest, (*y)->digest);
    return order ? order : (*x < *y ? -1 : *x > *y);
}

/* Drops what comes a second time: sorted pointers find it, the first one stays in its place. */
static enum status once(struct registry_blob *blobs, u32 *n, struct arena *a, struct err *err) {
    struct registry_blob **sorted = ARENA_ARRAY(a, struct registry_blob *, *n + 1);
    for (u32 i = 0; i < *n; i++)
        sorted[i] = &blobs[i];
    if (*n)
        qsort(sorted, *n, sizeof(struct registry_blob *), digest_order);
    struct registry_blob *first = NULL;
    for (u32 i = 0; i < *n; i++) {
        if (!first || strcmp(first->digest, sorted[i]->digest) != 0) {
            first = sorted[i];
            continue;
        }
        if (first->bytes != sorted[i]->bytes)
            return err_set(err, ERR_CORRUPT, "the manifest gives two sizes for %s", first->digest);
        sorted[i]->digest[0] = 0;
    }
    u32 kept = 0;
    for (u32 i = 0; i < *n; i++)
        if (blobs[i].digest[0])
            blobs[kept++] = blobs[i];
    *n = kept;
    return OK;
}

static enum status manifest_read(const json_t *root, struct arena *a, struct registry_manifest *out,
                                 struct err *err) {
    const json_t *layers = json_object_get(root, "layers"), *config = json_object_get(root, "config");
    if (!json_is_array(layers))
        return err_set(err, ERR_CORRUPT, "the registry's answer is no manifest of a model");
    size_t n = json_array_size(layers);
    if (n > LIMIT_REGISTRY_LAYERS)
        return err_set(err, ERR_TOO_LARGE, "the manifest has %zu layers, at most %u are taken", n,
                       LIMIT_REGISTRY_LAYERS);
    struct registry_blob *blobs = ARENA_ARRAY(a, struct registry_blob, n + 1);
    u32 n_blobs = 0;
    for (; n_blobs < n; n_blobs++)
        TRY(blob_read(json_array_get(layers, n_blobs), a, &blobs[n_blobs], err));
    if (json_is_object(config) && json_string_length(json_object_get(config, "digest")))
        TRY(blob_read(config, a, &blobs[n_blobs++], err));
    if (n_blobs == 0)
        return err_set(err, ERR_CORRUPT, "the manifest has no layers");
    TRY(once(blobs, &n_blobs, a, err));
    for (u32 i = 0; i < n_blobs; i++)
        out->bytes += blobs[i].bytes; /* layers times blob bytes fit */
    out->blobs = blobs;
    out->n_blobs = n_blobs;
    return OK;
}

enum status registry_manifest_parse(struct str json, struct arena *a, struct registry_manifest *out,
                                    struct err *err) {
    *out = (struct registry_manifest){0};
    if (json.n > LIMIT_REGISTRY_MANIFEST_BYTES)
        return err_set(err, ERR_TOO_LARGE, "the manifest is larger than %u MiB",
                       LIMIT_REGISTRY_MANIFEST_BYTES >> 20);
    json_t *root = json_loadb(json.p ? json.p : "", json.n, 0, NULL);
    if (!json_is_object(root)) {
        json_decref(root);
        return err_set(err, ERR_CORRUPT, "the registry's answer is no manifest of a model");
    }
    enum status status = manifest_read(root, a, out, err);
    json_decref(root);
    return status;
}
