/* create.h - what the two halves of /api/create share: the request as read, and the model being built. */
#ifndef MINKA_API_CREATE_H
#define MINKA_API_CREATE_H

#include "api/body.h"
#include "api/work.h"

struct create_fields {
    struct str model, name, from, template_, system, quantize, quantization, draft_quantize, renderer, parser,
        requires, remote_host;
    json_t *license, *files, *adapters, *draft_files, *parameters, *messages, *info;
    enum tri stream;
};

struct create {
    struct store *store;
    json_t *root;           /* owned; the fields point into it */
    struct create_fields f; /* either from or files is there */
    struct model_name name, from;
    struct arena arena;
};

/* Builds the model and writes its manifest; on a pool thread, telling the steps. ERR_INVALID and its kind as
 * the reference; ERR_NOT_FOUND for a blob or model that is missing. */
enum status create_build(struct work *w, struct create *c, struct err *err) MUST_USE;
/* The names and types of info{}, over what the files say. */
enum status create_info(const json_t *info, struct arena *a, struct store_config *config,
                        struct err *err) MUST_USE;
/* Messages as the layer holds them, roles in lower case. */
enum status create_messages_json(const json_t *messages, struct buf *out, struct err *err) MUST_USE;
/* ERR_INVALID "license must be ..."; texts point into the tree. */
enum status create_licenses(const json_t *license, struct arena *a, struct str **out, u32 *n,
                            struct err *err) MUST_USE;
/* "Q4_K_M" and the like for what a request may ask; NULL for a type that is none. */
const char *create_quantization(struct str text);

#endif
