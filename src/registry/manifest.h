/* manifest.h - a manifest as it comes from a registry: hostile until read here. */
#ifndef MINKA_REGISTRY_MANIFEST_H
#define MINKA_REGISTRY_MANIFEST_H

#include "base/arena.h"

struct registry_blob {
    char digest[72]; /* "sha256:<64 hex, lower case>" */
    u64 bytes;
    struct str from; /* "namespace/model" that the layer came with; empty if not said or not valid */
};

struct registry_manifest {
    const struct registry_blob *blobs; /* [n_blobs] layers in order, then the config; each digest once */
    u32 n_blobs;
    u64 bytes; /* of all of them */
};

/* ERR_CORRUPT: no manifest; digests that are none, sizes that are negative or differ for one digest.
 * ERR_TOO_LARGE: over LIMIT_REGISTRY_MANIFEST_BYTES, _LAYERS, _BLOB_BYTES. */
enum status registry_manifest_parse(struct str json, struct arena *a, struct registry_manifest *out,
                                    struct err *err) MUST_USE;

#endif
