/* registry.h - pull and push of models with an Ollama-style registry (manifests and blobs of Docker's
 * registry protocol, version 2). Blocking: each runs on a thread of its own; transfers.h puts them under a
 * loop.
 *
 * What a registry answers is hostile until checked: manifests are bounded and read strictly, blobs count only
 * with their SHA-256, redirects and tokens are in client.h. A pull can be killed at any byte and goes on
 * where it was; a manifest is written only when all of its blobs are there. */
#ifndef MINKA_REGISTRY_H
#define MINKA_REGISTRY_H

#include <stdatomic.h>

#include "store/transfer.h"

/* Zeros: the values of limit.h. */
struct registry_config {
    const char *key_path; /* the key for token services (made if missing); NULL: anonymous */
    u32 stall_s;
    u32 retry_ms; /* first pause, doubled each time; 1000 */
};

struct registry_job {
    struct store *store;
    struct registry_config config;
    struct transfer_request request;
    const atomic_bool *canceled; /* looked at every 50 ms; ERR_CANCELED */
    /* Called on the job's thread. */
    void (*on_progress)(void *ctx, const struct transfer_progress *p);
    void *ctx;
};

/* The text of an error is the reference's where it has one: "pull model manifest: file does not exist". */
enum status registry_pull(const struct registry_job *j, struct err *err) MUST_USE;
enum status registry_push(const struct registry_job *j, struct err *err) MUST_USE;

#endif
