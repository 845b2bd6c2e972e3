/* store.h - the model store in Ollama's layout: names, manifests, blobs. Reading, and writing by import.
 *
 *   blobs/sha256-<64 hex>                       content, 0644
 *   manifests/<host>/<namespace>/<model>/<tag>  JSON, no extension
 *
 * Every write goes to a temporary file beside its place, is synced, then renamed: a store is whole after
 * kill -9 at any moment. A store that cannot be written is served read-only. Nothing is ever pruned. */
#ifndef MINKA_STORE_H
#define MINKA_STORE_H

#include "base/arena.h"
#include "base/str.h"

struct store;

/* path NULL: OLLAMA_MODELS (blanks and quotes around it are cut), else ~/.ollama/models. Creates the folders
 * if it can; a folder that cannot be created or written is not an error (store_writable says so). */
enum status store_open(const char *path, struct store **out, struct err *err) MUST_USE;
void store_close(struct store *s);
const char *store_path(const struct store *s);
bool store_writable(const struct store *s);

/* --- names: [scheme://][host/][namespace/]model[:tag], rules in api-reference section 4 --- */
struct model_name {
    char host[352], namespace_[82], model[82], tag[82];
};
/* ERR_INVALID "invalid model name". Defaults filled in. */
enum status model_name_parse(struct str text, struct model_name *out, struct err *err) MUST_USE;
/* "llama3.2:latest": without default host and namespace. */
struct str model_name_short(const struct model_name *n, struct arena *a);
struct str model_name_full(const struct model_name *n, struct arena *a);
/* The four parts as folders of the store spell them; false if one is not valid. */
bool model_name_from_parts(const char *host, const char *space, const char *model, const char *tag,
                           struct model_name *out);

struct store_layer {
    struct str media_type; /* whole, "application/vnd.ollama.image.model" */
    char digest[72];       /* "sha256:<64 hex>" */
    u64 size;
};

/* Everything about one model but the weights; strings in the arena given. */
struct store_model {
    struct model_name name;
    char digest[65];                  /* hex SHA-256 of the manifest file: what list and ps show */
    u64 size;                         /* sum of config and layers */
    i64 modified_ns;                  /* manifest's mtime, Unix */
    struct str config;                /* config blob, JSON text; empty if missing */
    const struct store_layer *layers; /* [n_layers] */
    u32 n_layers;
    struct str model_digest;  /* of the first model layer, "sha256:..."; empty if none */
    struct str template_text; /* empty = none; template, system, params, license, messages layers */
    struct str system;
    struct str params;   /* JSON object text */
    struct str messages; /* JSON array text */
    struct str license;
};

/* Finds a name; case is ignored, the exact spelling wins. out->name is as the store spells it. ERR_NOT_FOUND
 * (also when a text layer's blob is missing) leaves the text to the caller's dialect. */
enum status store_find(struct store *s, const struct model_name *n, struct arena *a, struct store_model *out,
                       struct err *err) MUST_USE;
/* All models, newest first; broken manifests are skipped and logged. */
enum status store_list(struct store *s, struct arena *a, struct store_model **out, u32 *n_out,
                       struct err *err) MUST_USE;
/* Opens a blob for reading ("sha256:<hex>"); the caller owns the descriptor. */
enum status store_open_blob(struct store *s, struct str digest, int *fd, u64 *bytes,
                            struct err *err) MUST_USE;
/* Whole text of a small blob; ERR_TOO_LARGE over LIMIT_STORE_TEXT_BYTES. */
enum status store_read_blob(struct store *s, struct str digest, struct arena *a, struct str *out,
                            struct err *err) MUST_USE;
/* Path of a blob, NUL behind it; empty for a digest that is none. */
struct str store_blob_path(struct store *s, struct str digest, struct arena *a);

/* Imports a GGUF file under a name: verifies that it is one, hashes it into blobs/ and writes config and
 * manifest. The bytes are shared with the file where the system can (reflink; a hard link only if nobody
 * may write the file, since a change through the other name would break the blob), else copied. An
 * existing name is replaced. Runs on the calling thread, as long as reading the file takes. */
enum status store_import(struct store *s, const char *gguf_path, const struct model_name *n,
                         struct err *err) MUST_USE;

/* "Q4_K_M" for a number of general.file_type; "unknown". */
const char *store_file_type_name(u32 file_type);
/* A count as the reference prints it: 134.52M, 8.0B, 22K; whole numbers without decimals. */
struct str store_human_count(u64 n, struct arena *a);

#endif
