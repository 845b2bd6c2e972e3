/* models.c - names to models, and the small cache of GGUF facts. */
#include "api/models.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "api/body.h"
#include "base/log.h"
#include "chat/template.h"
#include "tokenize/tokenize.h"

/* --- names --- */

static bool ends_nocase(struct str s, struct str suffix) {
    return s.n >= suffix.n && str_eq_nocase(str_slice(s, s.n - suffix.n, s.n), suffix);
}

/* ":local", ":cloud" and "-cloud" say where a model runs. Cuts one of them off; 0 none, 'l', 'c'. */
static char source_cut(struct str *s) {
    size_t colon = SIZE_MAX;
    for (size_t i = 0; i < s->n; i++)
        if (s->p[i] == ':')
            colon = i;
    if (colon == SIZE_MAX)
        return 0;
    struct str tag = str_trim(str_slice(*s, colon + 1, s->n));
    if (str_eq_nocase(tag, STR("local")) || str_eq_nocase(tag, STR("cloud"))) {
        s->n = colon;
        return str_eq_nocase(tag, STR("local")) ? 'l' : 'c';
    }
    if (!ends_nocase(tag, STR("-cloud")) || str_find(tag, STR("/"), 0) != SIZE_MAX)
        return 0;
    s->n = (size_t)(tag.p + tag.n - s->p) - 6;
    return 'c';
}

enum name_fault model_ref_parse(struct str text, struct model_name *out, struct err *err) {
    struct str whole = str_trim(text), base = whole;
    if (whole.n == 0) {
        err_set(err, ERR_INVALID, "model is required");
        return NAME_EMPTY;
    }
    char source = source_cut(&base);
    struct str again = base;
    if (source && source_cut(&again)) {
        err_set(err, ERR_INVALID, "use either :local or :cloud, not both: \"%.*s\"", STR_FMT(whole));
        return NAME_CONFLICT;
    }
    if (model_name_parse(base, out, err) != OK)
        return NAME_INVALID;
    return source == 'c' ? NAME_CLOUD : NAME_OK;
}

/* --- config --- */

static const struct str *texts_read(const json_t *list, struct arena *a, u32 *n) {
    struct str *out = ARENA_ARRAY(a, struct str, json_array_size(list));
    size_t i;
    json_t *v;
    json_array_foreach(list, i, v) if (json_is_string(v)) out[(*n)++] = arena_str(a, json_text(v));
    return out;
}

struct config_fields {
    struct str format, family, type, file_type, requires, remote_host, remote_model;
    json_t *families, *capabilities;
    struct maybe_int context_length, embedding_length;
};

static void config_read(struct str text, struct arena *a, struct model_config *c) {
    static const struct field fields[] = {
        FIELD(config_fields, format, "model_format", FIELD_STR),
        FIELD(config_fields, family, "model_family", FIELD_STR),
        FIELD(config_fields, type, "model_type", FIELD_STR),
        FIELD(config_fields, file_type, "file_type", FIELD_STR),
        FIELD(config_fields, requires, "requires", FIELD_STR),
        FIELD(config_fields, remote_host, "remote_host", FIELD_STR),
        FIELD(config_fields, remote_model, "remote_model", FIELD_STR),
        FIELD(config_fields, families, "model_families", FIELD_LIST),
        FIELD(config_fields, capabilities, "capabilities", FIELD_LIST),
        FIELD(config_fields, context_length, "context_length", FIELD_INT),
        FIELD(config_fields, embedding_length, "embedding_length", FIELD_INT),
    };
    struct config_fields f = {0};
    struct err err;
    json_t *root = NULL;
    *c = (struct model_config){0};
    if (!text.n)
        return;
    if (body_parse(text, &root, &err) != OK ||
        fields_read(root, "config", fields, ARRAY_LEN(fields), &f, &err) != OK)
        log_warn("the config of a model is broken", "error=\"%s\"", err.text);
    c->format = arena_str(a, f.format);
    c->family = arena_str(a, f.family);
    c->type = arena_str(a, f.type);
    c->file_type = arena_str(a, f.file_type);
    c->requires = arena_str(a, f.requires);
    c->remote_host = arena_str(a, f.remote_host);
    c->remote_model = arena_str(a, f.remote_model);
    c->families = texts_read(f.families, a, &c->n_families);
    c->capabilities = texts_read(f.capabilities, a, &c->n_capabilities);
    c->context_length =
        f.context_length.v > 0 && f.context_length.v <= UINT32_MAX ? (u32)f.context_length.v : 0;
    c->embedding_length =
        f.embedding_length.v > 0 && f.embedding_length.v <= UINT32_MAX ? (u32)f.embedding_length.v : 0;
    json_decref(root);
}

/* --- GGUF facts --- */

enum status model_gguf_open(struct store *s, struct str digest, struct gguf_open *out, struct err *err) {
    int fd;
    u64 bytes;
    TRY(store_open_blob(s, digest, &fd, &bytes, err));
    *out = (struct gguf_open){0};
    enum status status = bytes ? mapping_open(fd, bytes, &out->map, err)
                               : err_set(err, ERR_CORRUPT, "%.*s is empty", STR_FMT(digest));
    close(fd);
    if (status == OK && (status = gguf_parse(&out->gguf, out->map.data, bytes, err)) != OK)
        mapping_close(&out->map);
    return status;
}

void model_gguf_close(struct gguf_open *g) {
    gguf_release(&g->gguf);
    mapping_close(&g->map);
}

static const struct gguf_kv *arch_find(const struct gguf *g, struct str arch, const char *key,
                                       char buf[256]) {
    int n = snprintf(buf, 256, "%.*s.%s", (int)MIN(arch.n, (size_t)200), arch.p, key);
    return gguf_find(g, (struct str){buf, (size_t)n});
}

static void facts_read(const struct gguf *g, struct model_facts *f) {
    char key[256];
    struct str arch = STR_NONE, text = STR_NONE;
    *f = (struct model_facts){0};
    gguf_get_str(g, STR("general.architecture"), &arch);
    f->has_file_type = gguf_get_u32(g, STR("general.file_type"), &f->file_type);
    if (arch_find(g, arch, "context_length", key))
        gguf_get_u32(g, str_of(key), &f->context_length);
    if (arch_find(g, arch, "embedding_length", key))
        gguf_get_u32(g, str_of(key), &f->embedding_length);
    f->embedding = arch_find(g, arch, "pooling_type", key) != NULL;
    f->vision = arch_find(g, arch, "vision.block_count", key) != NULL;
    f->audio = arch_find(g, arch, "audio.block_count", key) != NULL;
    f->has_template = gguf_get_str(g, STR("tokenizer.chat_template"), &text) && text.n > 0;
    struct template_style style;
    style_of_jinja(text, &style);
    f->template_can = style.can;
}

struct facts_entry {
    char digest[72];
    struct model_facts facts;
};

/* What a TEMPLATE layer can do, or why it is not understood. */
struct layer_entry {
    char digest[72];
    struct template_can can;
    char *error; /* NULL: none */
};

/* The vocabularies of two files, compared. */
struct pair_entry {
    char target[72], draft[72];
    struct err err;
};

struct models {
    struct store *store;
    i32 go_template;
    struct facts_entry *facts; /* [n_facts]; one for each blob ever asked about */
    u32 n_facts, cap_facts;
    struct layer_entry *layers; /* [n_layers] */
    u32 n_layers, cap_layers;
    struct pair_entry *pairs; /* [n_pairs] */
    u32 n_pairs, cap_pairs;
};

struct models *models_new(struct store *store, i32 go_template) {
    struct models *m = xcalloc(1, sizeof *m);
    m->store = store;
    m->go_template = go_template;
    return m;
}

void models_free(struct models *m) {
    for (u32 i = 0; i < m->n_layers; i++)
        free(m->layers[i].error);
    free(m->layers);
    free(m->pairs);
    free(m->facts);
    free(m);
}

static bool facts_get(struct models *ms, struct str digest, struct model_facts *out) {
    for (u32 i = 0; i < ms->n_facts; i++)
        if (str_is(digest, ms->facts[i].digest)) {
            *out = ms->facts[i].facts;
            return true;
        }
    struct gguf_open g;
    struct err err;
    if (model_gguf_open(ms->store, digest, &g, &err) != OK) {
        log_warn("the metadata of a model cannot be read", "blob=%.*s error=\"%s\"", STR_FMT(digest),
                 err.text);
        return false;
    }
    facts_read(&g.gguf, out);
    model_gguf_close(&g);
    if (ms->n_facts == ms->cap_facts) {
        ms->cap_facts = MAX(16u, ms->cap_facts * 2);
        ms->facts = xrealloc(ms->facts, ms->cap_facts * sizeof *ms->facts);
    }
    struct facts_entry *e = &ms->facts[ms->n_facts++];
    snprintf(e->digest, sizeof e->digest, "%.*s", STR_FMT(digest));
    e->facts = *out;
    return true;
}

/* --- draft models --- */

static enum status vocabularies_read(struct models *ms, struct str target, struct str draft,
                                     struct err *err) {
    struct gguf_open a, b;
    TRY(model_gguf_open(ms->store, target, &a, err));
    enum status status = model_gguf_open(ms->store, draft, &b, err);
    if (status == OK) {
        status = vocabularies_compare(&a.gguf, &b.gguf, err);
        if (mapping_lost(&a.map) || mapping_lost(&b.map))
            status = err_set(err, ERR_CORRUPT, "a file was cut off or cannot be read");
        model_gguf_close(&b);
    }
    model_gguf_close(&a);
    return status;
}

static struct pair_entry *pair_get(struct models *ms, struct str target, struct str draft) {
    for (u32 i = 0; i < ms->n_pairs; i++)
        if (str_is(target, ms->pairs[i].target) && str_is(draft, ms->pairs[i].draft))
            return &ms->pairs[i];
    if (ms->n_pairs == ms->cap_pairs) {
        ms->cap_pairs = MAX(16u, ms->cap_pairs * 2);
        ms->pairs = xrealloc(ms->pairs, ms->cap_pairs * sizeof *ms->pairs);
    }
    struct pair_entry *p = &ms->pairs[ms->n_pairs++];
    *p = (struct pair_entry){.err.status = ERR_BUSY}; /* not compared yet */
    snprintf(p->target, sizeof p->target, "%.*s", STR_FMT(target));
    snprintf(p->draft, sizeof p->draft, "%.*s", STR_FMT(draft));
    return p;
}

/* What could not be read is looked at again: it may be repaired. */
enum status models_compare(struct models *ms, struct str target, struct str draft, struct err *err) {
    struct pair_entry *p = pair_get(ms, target, draft);
    if (p->err.status != OK && p->err.status != ERR_INVALID) {
        bool logged = p->err.status == ERR_CORRUPT;
        p->err.status = vocabularies_read(ms, target, draft, &p->err);
        if (p->err.status != OK && p->err.status != ERR_INVALID)
            p->err.status = ERR_CORRUPT;
        if (p->err.status == ERR_CORRUPT && !logged)
            log_warn("draft model cannot be read, requests go on without it", "blob=%.*s error=\"%s\"",
                     STR_FMT(draft), p->err.text);
    }
    *err = p->err;
    return p->err.status;
}

/* --- TEMPLATE layers --- */

static const struct layer_entry *layer_get(struct models *ms, const char *digest, struct str text) {
    for (u32 i = 0; i < ms->n_layers; i++)
        if (strcmp(ms->layers[i].digest, digest) == 0)
            return &ms->layers[i];
    if (ms->n_layers == ms->cap_layers) {
        ms->cap_layers = MAX(16u, ms->cap_layers * 2);
        ms->layers = xrealloc(ms->layers, ms->cap_layers * sizeof *ms->layers);
    }
    struct layer_entry *e = &ms->layers[ms->n_layers++];
    struct chat_template *t;
    struct err err;
    *e = (struct layer_entry){0};
    snprintf(e->digest, sizeof e->digest, "%s", digest);
    if (template_open(text, TEMPLATE_GO, &t, &err) == OK) {
        e->can = template_style(t)->can;
        template_close(t);
    } else {
        e->error = xstrdup(err.text);
    }
    return e;
}

/* Which template renders: the reference's rule. A layer wins over the file's template unless that can do
 * more. */
static void template_choose(struct models *ms, struct model *m) {
    const struct store_layer *layer = NULL;
    for (u32 i = 0; i < m->stored.n_layers; i++)
        if (str_is(m->stored.layers[i].media_type, "application/vnd.ollama.image.template"))
            layer = &m->stored.layers[i];
    m->can = m->facts.template_can;
    if (!layer || !m->stored.template_text.n)
        return;
    const struct layer_entry *e = layer_get(ms, layer->digest, m->stored.template_text);
    bool jinja =
        ms->go_template < 0 || (ms->go_template == 0 && style_prefers_jinja(&m->facts.template_can, &e->can));
    if (m->facts.has_template && jinja)
        return;
    m->uses_go = true;
    m->can = e->can;
    m->template_error = e->error;
}

/* --- models --- */

void models_describe(struct models *ms, const struct store_model *stored, struct arena *a,
                     struct model *out) {
    *out = (struct model){.stored = *stored};
    out->name_short = model_name_short(&stored->name, a);
    out->name_full = model_name_full(&stored->name, a);
    config_read(stored->config, a, &out->config);
    if (stored->model_digest.n)
        out->has_facts = facts_get(ms, stored->model_digest, &out->facts);
    for (u32 i = 0; i < stored->n_layers; i++) {
        out->projector |= str_is(stored->layers[i].media_type, "application/vnd.ollama.image.projector");
        out->adapter |= str_is(stored->layers[i].media_type, "application/vnd.ollama.image.adapter");
    }
    template_choose(ms, out);
}

enum status models_find(struct models *ms, const struct model_name *name, struct arena *a, struct model *out,
                        struct err *err) {
    struct store_model stored;
    TRY(store_find(ms->store, name, a, &stored, err));
    models_describe(ms, &stored, a, out);
    return OK;
}

static const char *const capability_names[CAN_COUNT] = {"tools",  "thinking", "completion", "embedding",
                                                        "vision", "audio",    "insert"};

bool api_model_can(const struct model *m, enum capability c) {
    for (u32 i = 0; i < m->config.n_capabilities; i++)
        if (str_is(m->config.capabilities[i], capability_names[c]))
            return true;
    switch (c) {
    case CAN_TOOLS: return m->can.tools;
    case CAN_THINKING: return m->can.thinking;
    case CAN_COMPLETION: return m->has_facts && !m->facts.embedding;
    case CAN_EMBEDDING: return m->facts.embedding;
    case CAN_VISION: return m->facts.vision || m->projector;
    case CAN_AUDIO: return m->facts.audio;
    case CAN_INSERT: return m->can.insert;
    case CAN_COUNT: break;
    }
    return false;
}

void capabilities_json(struct buf *b, const struct model *m, const char *key) {
    bool any = false;
    for (enum capability c = 0; c < CAN_COUNT; c++) {
        if (!api_model_can(m, c))
            continue;
        if (!any)
            json_key(b, key), json_open(b, '[');
        any = true;
        json_str(b, str_of(capability_names[c]));
    }
    if (any)
        json_close(b, ']');
}

static bool known(struct str quantization) { return quantization.n && !str_is(quantization, "unknown"); }

void details_json(struct buf *b, const struct model *m, bool with_lengths) {
    const struct model_config *c = &m->config;
    struct str file_type = c->file_type;
    if (!known(file_type) && m->facts.has_file_type)
        file_type = str_of(store_file_type_name(m->facts.file_type));
    json_open(b, '{');
    json_key(b, "parent_model"), json_str(b, STR(""));
    json_key(b, "format"), json_str(b, c->format);
    json_key(b, "family"), json_str(b, c->family);
    json_key(b, "families");
    if (c->n_families) {
        json_open(b, '[');
        for (u32 i = 0; i < c->n_families; i++)
            json_str(b, c->families[i]);
        json_close(b, ']');
    } else {
        json_none(b);
    }
    json_key(b, "parameter_size"), json_str(b, c->type);
    json_key(b, "quantization_level"), json_str(b, file_type);
    u32 context = c->context_length ? c->context_length : m->facts.context_length;
    u32 embedding = c->embedding_length ? c->embedding_length : m->facts.embedding_length;
    if (with_lengths && context)
        json_key(b, "context_length"), json_u64(b, context);
    if (with_lengths && embedding)
        json_key(b, "embedding_length"), json_u64(b, embedding);
    json_close(b, '}');
}
