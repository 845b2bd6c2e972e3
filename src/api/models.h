/* models.h - what a model name in a request stands for: the store's model, its config, and what its GGUF
 * says. */
#ifndef MINKA_API_MODELS_H
#define MINKA_API_MODELS_H

#include <jansson.h>

#include "base/buf.h"
#include "base/mapping.h"
#include "chat/style.h"
#include "gguf/gguf.h"
#include "store/store.h"

/* The config blob, read; strings in the arena of the model. */
struct model_config {
    struct str format, family, type, file_type, requires, remote_host, remote_model;
    const struct str *families, *capabilities; /* [n_families], [n_capabilities] */
    u32 n_families, n_capabilities;
    u32 context_length, embedding_length;
};

/* What the metadata of a GGUF file says; the same for ever, since blobs never change. */
struct model_facts {
    u32 context_length, embedding_length, file_type; /* 0 = not said */
    bool has_file_type, has_template;
    struct template_can template_can; /* of the Jinja template */
    bool embedding, vision, audio;
};

struct model {
    struct store_model stored;
    struct model_config config;
    struct model_facts facts;
    bool has_facts;
    struct str name_short, name_full;
    bool projector, adapter; /* has such layers */
    bool uses_go;            /* the TEMPLATE layer renders, not the file's template */
    const char *template_error; /* why that layer is not understood, or NULL */
    struct template_can can; /* what the template that renders can do */
};

enum capability {
    CAN_TOOLS,
    CAN_THINKING,
    CAN_COMPLETION,
    CAN_EMBEDDING,
    CAN_VISION,
    CAN_AUDIO,
    CAN_INSERT,
    CAN_COUNT
};
bool api_model_can(const struct model *m, enum capability c);
/* Capabilities as a JSON array, config's own first; nothing is written if there are none. */
void capabilities_json(struct buf *b, const struct model *m, const char *key);
/* The details object of tags, show and ps. */
void details_json(struct buf *b, const struct model *m, bool with_lengths);

/* A name as a request writes it: source suffix cut, grammar checked. */
enum name_fault { NAME_OK, NAME_EMPTY, NAME_INVALID, NAME_CONFLICT, NAME_CLOUD };
enum name_fault model_ref_parse(struct str text, struct model_name *out, struct err *err);

struct models;
/* go_template: as in api_config. */
struct models *models_new(struct store *store, i32 go_template) MUST_USE;
void models_free(struct models *m);
/* Everything about one name. ERR_NOT_FOUND if the store lacks it. */
enum status models_find(struct models *ms, const struct model_name *name, struct arena *a, struct model *out,
                        struct err *err) MUST_USE;
/* The same for a model that the store has listed. */
void models_describe(struct models *ms, const struct store_model *stored, struct arena *a, struct model *out);

/* Whether the model in blob `draft` may guess for that in blob `target`: OK; ERR_INVALID: its vocabulary is another
 * one; ERR_CORRUPT, logged once: a file cannot be read. Each pair is compared once. */
enum status models_compare(struct models *ms, struct str target, struct str draft, struct err *err) MUST_USE;

/* A GGUF blob, mapped and parsed. */
struct gguf_open {
    struct gguf gguf;
    struct mapping map;
};
enum status model_gguf_open(struct store *s, struct str digest, struct gguf_open *out,
                            struct err *err) MUST_USE;
void model_gguf_close(struct gguf_open *g);

#endif
