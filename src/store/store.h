/* store.h - the model store in Ollama's layout: names, manifests, blobs.
 *
 *   blobs/sha256-<64 hex>                       content, 0644
 *   blobs/sha256-<64 hex>-part                  the beginning of one that is on its way
 *   manifests/<host>/<namespace>/<model>/<tag>  JSON, no extension
 *
 * Every write goes to a temporary file beside its place, is synced, then renamed; a manifest is written when
 * everything it names is there, and goes before what it names: a store is whole after kill -9 at any moment.
 * A store that cannot be written is served read-only.
 *
 * All functions may be called from several threads at once, and several processes may share a store. What
 * writes, hashes or copies blocks: not for an event loop's thread. */
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
    struct str from; /* short name of the model it was taken from; empty = none */
};

/* Everything about one model but the weights; strings in the arena given. */
struct store_model {
    struct model_name name;
    char digest[65];                  /* hex SHA-256 of the manifest file: what list and ps show */
    u64 size;                         /* sum of config and layers */
    i64 modified_ns;                  /* manifest's mtime, Unix */
    char config_digest[72];           /* empty if the manifest names none */
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

/* SHA-256 of any file, "sha256:<hex>". progress (may be NULL) is called about every MiB; false ends it with
 * ERR_CANCELED. */
enum status store_file_digest(const char *path, char digest[72], u64 *bytes,
                              bool (*progress)(void *ctx, u64 bytes), void *ctx, struct err *err) MUST_USE;
/* A file of at most LIMIT_STORE_TEXT_BYTES, a Modelfile for instance. */
enum status store_read_text(const char *path, struct arena *a, struct str *out, struct err *err) MUST_USE;
bool store_has_blob(struct store *s, struct str digest, u64 *bytes); /* bytes may be NULL */

/* --- writing blobs --- */
struct blob_writer;
/* Begins a blob. digest: what it has to be, or empty if that is not known. With `resumable` (and a digest)
 * the bytes are kept in "sha256-<hex>-part" through a kill and are there again at the next opening, hashed on
 * the way; blob_bytes() says how many. If somebody else is at that file, or without `resumable`, the bytes
 * start from zero in a file without a name. ERR_INVALID "invalid digest format"; ERR_IO. */
enum status blob_open(struct store *s, struct str digest, bool resumable, struct blob_writer **out,
                      struct err *err) MUST_USE;
u64 blob_bytes(const struct blob_writer *w);
/* The same in steps, because hashing a large part takes seconds: after blob_open_part come calls of
 * blob_read_part, each over about n_max more bytes, until *whole; no other call before. */
enum status blob_open_part(struct store *s, struct str digest, bool resumable, struct blob_writer **out,
                           struct err *err) MUST_USE;
enum status blob_read_part(struct blob_writer *w, u64 n_max, bool *whole, struct err *err) MUST_USE;
/* Appends. After a failure only blob_drop. */
enum status blob_write(struct blob_writer *w, const void *p, size_t n, struct err *err) MUST_USE;
/* Back to zero bytes, for a source that cannot continue. */
enum status blob_restart(struct blob_writer *w, struct err *err) MUST_USE;
/* Checks the hash, syncs, gives the bytes their name; w is gone afterwards, also on failure. digest (may be
 * NULL) receives "sha256:<hex>"; *created (may be NULL) is false if the store had the blob already.
 * ERR_INVALID `digest mismatch, expected "sha256:..", got "sha256:.."`: the bytes are deleted. */
enum status blob_commit(struct blob_writer *w, char digest[72], bool *created, struct err *err) MUST_USE;
/* Ends without a blob. The bytes of a resumable one stay for the next opening if keep is set. */
void blob_drop(struct blob_writer *w, bool keep);
/* A small blob at once. layer->media_type is left alone. */
enum status store_put_blob(struct store *s, struct str bytes, struct store_layer *layer, bool *created,
                           struct err *err) MUST_USE;
/* A file that nobody has a manifest for is removed after an hour; this counts as a use of it. */
void store_touch_blob(struct store *s, struct str digest);

/* --- writing manifests ---
 * Whoever builds a model holds the store from the moment it relies on a blob being there until the manifest
 * is written: as long as anyone does, in any process, no blob is removed. */
enum status store_hold(struct store *s, int *hold, struct err *err) MUST_USE;
/* The last one out removes what became due meanwhile. */
void store_release(struct store *s, int hold);

/* The name as the store would spell it: each part that some model already has, in that spelling. */
void store_spell(struct store *s, const struct model_name *n, struct model_name *out);
/* Writes a manifest, byte for byte, under store_spell(n). Blobs that only the replaced manifest named are
 * removed as soon as nobody holds the store (never if OLLAMA_NOPRUNE is set); *n_unused (may be NULL) counts
 * them. The caller holds the store. */
enum status store_put_manifest(struct store *s, const struct model_name *n, struct str json, u32 *n_unused,
                               struct err *err) MUST_USE;
/* Bytes of a manifest. ERR_NOT_FOUND. */
enum status store_read_manifest(struct store *s, const struct model_name *n, struct arena *a, struct str *out,
                                struct err *err) MUST_USE;
/* {"schemaVersion":2,...} of a config and layers, as the reference writes it, with the line end. */
struct buf;
void store_manifest_json(struct buf *b, const struct store_layer *config, const struct store_layer *layers,
                         u32 n_layers);
/* A second name for a model. ERR_NOT_FOUND if there is no `from`. */
enum status store_copy(struct store *s, const struct model_name *from, const struct model_name *to,
                       struct err *err) MUST_USE;
/* Removes a name, empty folders, and what no manifest names any more. ERR_NOT_FOUND. What has a blob open
 * keeps reading it. */
enum status store_delete(struct store *s, const struct model_name *n, struct err *err) MUST_USE;
/* For a server's start, unless OLLAMA_NOPRUNE is set: removes blobs without a manifest and leftovers of
 * killed writers, both after an hour (a "-part" after a week), and empty folders; "sha256:<hex>" of old
 * versions becomes "sha256-<hex>". Nothing is removed while a manifest cannot be read or somebody holds the
 * store; the log says so. */
void store_prune(struct store *s);

/* Imports a GGUF file under a name: verifies that it is one, hashes it into blobs/ and writes config and
 * manifest. The bytes are shared with the file where the system can (reflink; a hard link only if nobody
 * may write the file, since a change through the other name would break the blob), else copied. An
 * existing name is replaced. Runs on the calling thread, as long as reading the file takes. */
enum status store_import(struct store *s, const char *gguf_path, const struct model_name *n,
                         struct err *err) MUST_USE;

/* What a GGUF file says about itself, as config blobs and tags repeat it. */
struct gguf_facts {
    struct str arch, type, file_type; /* "llama", "134.52M", "Q4_K_M" */
    bool adapter, projector;
    u32 n_parts; /* files that the model is split into */
};
/* Of an open file of `bytes` bytes; shown names it in errors. ERR_CORRUPT. */
enum status store_gguf_facts(int fd, u64 bytes, const char *shown, struct arena *a, struct gguf_facts *out,
                             struct err *err) MUST_USE;

/* A config blob; empty and zero members that the reference leaves out are left out. */
struct store_config {
    struct str format, family, type, file_type, renderer, parser, requires, base_name;
    const struct str *families, *capabilities; /* [n_families], [n_capabilities] */
    u32 n_families, n_capabilities;
    u64 context_length, embedding_length;
};
void store_config_json(struct buf *b, const struct store_config *c);

/* "Q4_K_M" for a number of general.file_type; "unknown". */
const char *store_file_type_name(u32 file_type);
/* A count as the reference prints it: 134.52M, 8.0B, 22K; whole numbers without decimals. */
struct str store_human_count(u64 n, struct arena *a);

#endif
