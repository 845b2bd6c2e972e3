/* create_build.c - a model from a create request: layers of the model it builds on or of uploaded files, the
 * texts of the request over them, config, manifest.
 *
 * The store is held all the while, so that no blob goes that the new manifest names. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "api/create.h"
#include "api/options.h"
#include "base/limit.h"
#include "chat/template.h"

#define IMAGE "application/vnd.ollama.image."
#define CONFIG "application/vnd.docker.container.image.v1+json"

struct made_layer {
    struct store_layer layer;
    bool created;
};

struct build {
    struct create *c;
    struct arena *arena;
    struct store *store;
    struct made_layer *layers; /* [n] */
    u32 n, cap;
    struct store_config config;
    struct str families[LIMIT_CREATE_FILES];
    struct str file_type; /* of the first model layer */
    u64 text_bytes;
};

/* --- layers --- */

static struct made_layer *layer_add(struct build *b) {
    if (b->n == b->cap) {
        b->cap = MAX(16u, b->cap * 2);
        b->layers = xrealloc(b->layers, b->cap * sizeof *b->layers);
    }
    struct made_layer *l = &b->layers[b->n++];
    *l = (struct made_layer){0};
    return l;
}

static void layers_remove(struct build *b, const char *media) {
    u32 to = 0;
    for (u32 i = 0; i < b->n; i++)
        if (!str_is(b->layers[i].layer.media_type, media))
            b->layers[to++] = b->layers[i];
    b->n = to;
}

static enum status text_add(struct build *b, const char *media, struct str text, struct err *err) {
    b->text_bytes += text.n;
    if (b->text_bytes > LIMIT_STORE_TEXT_BYTES)
        return err_set(err, ERR_TOO_LARGE, "the texts of a model have at most %u bytes",
                       LIMIT_STORE_TEXT_BYTES);
    struct made_layer *l = layer_add(b);
    l->layer.media_type = str_of(media);
    return store_put_blob(b->store, text, &l->layer, &l->created, err);
}

static enum status blob_add(struct build *b, struct str media, struct str digest, struct str from,
                            struct err *err) {
    struct made_layer *l = layer_add(b);
    l->layer.media_type = media;
    l->layer.from = from;
    if (!store_has_blob(b->store, digest, &l->layer.size))
        return err_set(err, ERR_NOT_FOUND, "blob \"%.*s\" not found, it has to be uploaded first",
                       STR_FMT(digest));
    snprintf(l->layer.digest, sizeof l->layer.digest, "sha256:%.64s", digest.p + 7);
    store_touch_blob(b->store, digest);
    return OK;
}

/* --- what the weights say --- */

static enum status facts_of(struct build *b, struct str digest, struct gguf_facts *f, struct err *err) {
    int fd;
    u64 bytes;
    enum status status = store_open_blob(b->store, digest, &fd, &bytes, err);
    if (status == ERR_NOT_FOUND)
        return err_set(err, status, "blob \"%.*s\" not found, it has to be uploaded first", STR_FMT(digest));
    if (status != OK)
        return status;
    struct str shown = arena_printf(b->arena, "%.*s", STR_FMT(digest));
    char magic[4];
    if (pread(fd, magic, 4, 0) != 4 || memcmp(magic, "GGUF", 4) != 0)
        status = err_set(err, ERR_INVALID, "supplied file was not in GGUF format");
    else
        status = store_gguf_facts(fd, bytes, shown.p, b->arena, f, err);
    close(fd);
    return status;
}

static struct str first_of(struct str a, struct str b) { return a.n ? a : b; }

static enum status model_note(struct build *b, const struct gguf_facts *f, struct err *err) {
    struct store_config *config = &b->config;
    if (f->n_parts > 1)
        return err_set(err, ERR_UNSUPPORTED,
                       "a model split into several GGUF files is not supported by minka: merge them first");
    if (config->n_families == LIMIT_CREATE_FILES)
        return err_set(err, ERR_INVALID, "more than %u model files", LIMIT_CREATE_FILES);
    b->file_type = first_of(b->file_type, f->file_type);
    config->format = first_of(config->format, STR("gguf"));
    config->family = first_of(config->family, f->arch);
    config->type = first_of(config->type, f->type);
    config->file_type = first_of(config->file_type, f->file_type);
    b->families[config->n_families++] = f->arch;
    config->families = b->families;
    return OK;
}

/* --- from a model --- */

struct base_fields {
    struct str format, renderer, parser, requires, remote_host;
    json_t *capabilities;
};

static enum status config_inherit(struct build *b, const struct store_model *m, struct err *err) {
    static const struct field fields[] = {
        FIELD(base_fields, format, "model_format", FIELD_STR),
        FIELD(base_fields, renderer, "renderer", FIELD_STR),
        FIELD(base_fields, parser, "parser", FIELD_STR),
        FIELD(base_fields, requires, "requires", FIELD_STR),
        FIELD(base_fields, remote_host, "remote_host", FIELD_STR),
        FIELD(base_fields, capabilities, "capabilities", FIELD_LIST),
    };
    struct base_fields f = {0};
    struct store_config *to = &b->config;
    json_t *root, *item;
    struct err none;
    size_t i;
    /* A config that is broken passes nothing on. */
    if (!m->config.n || body_parse(m->config, &root, &none) != OK)
        return OK;
    if (fields_read(root, "config", fields, ARRAY_LEN(fields), &f, &none) != OK)
        f = (struct base_fields){0};
    to->format = arena_str(b->arena, f.format);
    to->renderer = arena_str(b->arena, f.renderer);
    to->parser = arena_str(b->arena, f.parser);
    to->requires = first_of(to->requires, arena_str(b->arena, f.requires));
    struct str *list = ARENA_ARRAY(b->arena, struct str, json_array_size(f.capabilities));
    json_array_foreach(f.capabilities, i, item) list[to->n_capabilities++] =
        arena_str(b->arena, json_text(item));
    to->capabilities = list;
    bool remote = f.remote_host.n > 0;
    json_decref(root);
    return remote ? err_set(err, ERR_UNSUPPORTED, "a remote model is not supported by minka") : OK;
}

static enum status base_layer(struct build *b, const struct store_layer *l, struct str from,
                              struct err *err) {
    TRY(blob_add(b, l->media_type, str_of(l->digest), from, err));
    bool model = str_is(l->media_type, IMAGE "model");
    if (!model && !str_is(l->media_type, IMAGE "projector")) {
        b->text_bytes += str_is(l->media_type, IMAGE "adapter") ? 0 : l->size;
        return OK;
    }
    struct gguf_facts f;
    TRY(facts_of(b, str_of(l->digest), &f, err));
    return model ? model_note(b, &f, err) : OK;
}

static enum status base_from_model(struct build *b, struct err *err) {
    struct store_model m;
    enum status status = store_find(b->store, &b->c->from, b->arena, &m, err);
    if (status == ERR_NOT_FOUND)
        return err_set(err, status, "model '%.*s' not found", STR_FMT(b->c->f.from));
    if (status != OK)
        return status;
    TRY(config_inherit(b, &m, err));
    struct str from = model_name_short(&m.name, b->arena);
    for (u32 i = 0; i < m.n_layers; i++)
        TRY(base_layer(b, &m.layers[i], from, err));
    return OK;
}

/* --- from files --- */

static int text_order(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static const char **keys_sorted(const json_t *object, struct arena *a) {
    const char *key;
    json_t *v;
    u32 n = 0;
    const char **keys = ARENA_ARRAY(a, const char *, MAX(json_object_size(object), (size_t)1));
    json_object_foreach((json_t *)object, key, v) keys[n++] = key;
    qsort(keys, n, sizeof *keys, text_order);
    return keys;
}

static enum status file_add(struct build *b, struct work *w, const char *path, struct str digest,
                            struct err *err) {
    struct gguf_facts f;
    if (!store_blob_path(b->store, digest, b->arena).n)
        return err_set(err, ERR_INVALID, "invalid digest format");
    work_status(w, "parsing GGUF");
    TRY(facts_of(b, digest, &f, err));
    if (f.adapter)
        return err_set(err, ERR_UNSUPPORTED,
                       "an adapter is not supported by minka: merge the adapter into the model's file");
    const char *media = f.projector ? IMAGE "projector" : IMAGE "model";
    TRY(blob_add(b, str_of(media), digest, str_of(path), err));
    return f.projector ? OK : model_note(b, &f, err);
}

static enum status base_from_files(struct build *b, struct work *w, struct err *err) {
    const json_t *files = b->c->f.files;
    size_t n = json_object_size(files);
    const char **paths = keys_sorted(files, b->arena);
    if (n == 0)
        return err_set(err, ERR_INVALID, "unknown type");
    if (n > LIMIT_CREATE_FILES)
        return err_set(err, ERR_INVALID, "more than %u model files", LIMIT_CREATE_FILES);
    for (size_t i = 0; i < n; i++)
        if (str_ends(str_of(paths[i]), STR(".safetensors")))
            return err_set(err, ERR_UNSUPPORTED,
                           "safetensors are not supported by minka: convert them to a GGUF file");
    for (size_t i = 0; i < n; i++)
        TRY(file_add(b, w, paths[i], json_text(json_object_get(files, paths[i])), err));
    return OK;
}

/* --- what the request says over it --- */

static enum status quantize_check(const struct build *b, struct err *err) {
    struct str text = first_of(b->c->f.quantize, b->c->f.quantization);
    if (!text.n)
        return OK;
    const char *want = create_quantization(text);
    if (!str_is(b->file_type, "F32") && !str_is(b->file_type, "F16") && !str_is(b->file_type, "BF16"))
        return err_set(err, ERR_INVALID, "quantization is only supported for F16, BF16 and F32 models");
    if (str_is(b->file_type, want))
        return OK;
    return err_set(err, ERR_UNSUPPORTED,
                   "quantizing is not supported by minka: the file is used as it is; quantize it before");
}

static enum status template_set(struct build *b, struct err *err) {
    struct str text = b->c->f.template_;
    struct chat_template *t;
    struct err inner;
    if (!text.n)
        return OK;
    if (template_open(text, TEMPLATE_GO, &t, &inner) != OK)
        return err_set(err, ERR_INVALID, "template error: %s", inner.text);
    template_close(t);
    layers_remove(b, IMAGE "template");
    return text_add(b, IMAGE "template", text, err);
}

static enum status licenses_set(struct build *b, struct err *err) {
    struct str *texts;
    u32 n;
    TRY(create_licenses(b->c->f.license, b->arena, &texts, &n, err));
    for (u32 i = 0; i < n; i++)
        TRY(text_add(b, IMAGE "license", texts[i], err));
    return OK;
}

/* The request's parameters over those of the base, keys in order. */
static enum status parameters_merge(struct build *b, json_t *all, struct err *err) {
    json_t *old;
    for (u32 i = 0; i < b->n; i++) {
        struct str text;
        if (!str_is(b->layers[i].layer.media_type, IMAGE "params"))
            continue;
        TRY(store_read_blob(b->store, str_of(b->layers[i].layer.digest), b->arena, &text, err));
        TRY(body_parse(text, &old, err));
        json_object_update(all, old);
        json_decref(old);
    }
    json_object_update(all, b->c->f.parameters);
    struct options checked;
    options_init(&checked);
    return options_apply(&checked, all, b->arena, err);
}

static enum status parameters_set(struct build *b, struct err *err) {
    json_t *all = json_object();
    struct buf text = {0};
    enum status status = parameters_merge(b, all, err);
    const char **keys = keys_sorted(all, b->arena);
    json_open(&text, '{');
    for (size_t i = 0; status == OK && i < json_object_size(all); i++) {
        const json_t *v = json_object_get(all, keys[i]);
        struct buf one = {0};
        json_write(&one, v);
        json_str(&text, str_of(keys[i]));
        buf_add_char(&text, ':');
        json_raw(&text, buf_str(&one));
        buf_release(&one);
    }
    json_close(&text, '}');
    buf_add_char(&text, '\n');
    if (status == OK && json_object_size(all)) {
        layers_remove(b, IMAGE "params");
        status = text_add(b, IMAGE "params", buf_str(&text), err);
    }
    buf_release(&text);
    json_decref(all);
    return status;
}

static enum status messages_set(struct build *b, struct err *err) {
    struct buf text = {0};
    if (json_array_size(b->c->f.messages) == 0)
        return OK;
    enum status status = create_messages_json(b->c->f.messages, &text, err);
    layers_remove(b, IMAGE "messages");
    if (status == OK)
        status = text_add(b, IMAGE "messages", buf_str(&text), err);
    buf_release(&text);
    return status;
}

static enum status texts_set(struct build *b, struct err *err) {
    TRY(template_set(b, err));
    if (b->c->f.system.n) {
        layers_remove(b, IMAGE "system");
        TRY(text_add(b, IMAGE "system", b->c->f.system, err));
    }
    TRY(licenses_set(b, err));
    TRY(parameters_set(b, err));
    return messages_set(b, err);
}

/* --- the end --- */

static enum status manifest_write(struct build *b, struct work *w, struct err *err) {
    struct store_layer config = {STR(CONFIG)};
    struct store_layer *layers = ARENA_ARRAY(b->arena, struct store_layer, b->n);
    struct buf text = {0};
    store_config_json(&text, &b->config);
    enum status status = store_put_blob(b->store, buf_str(&text), &config, NULL, err);
    for (u32 i = 0; i < b->n; i++) {
        layers[i] = b->layers[i].layer;
        work_status(w, "%s %s", b->layers[i].created ? "creating new layer" : "using existing layer",
                    layers[i].digest);
    }
    work_status(w, "writing manifest");
    buf_clear(&text);
    store_manifest_json(&text, &config, layers, b->n);
    if (status == OK && work_cancelled(w))
        status = err_set(err, ERR_CANCELED, "request canceled");
    if (status == OK)
        status = store_put_manifest(b->store, &b->c->name, buf_str(&text), NULL, err);
    buf_release(&text);
    return status;
}

static enum status build(struct build *b, struct work *w, struct err *err) {
    b->config.requires = b->c->f.requires;
    TRY(b->c->f.from.n ? base_from_model(b, err) : base_from_files(b, w, err));
    TRY(create_info(b->c->f.info, b->arena, &b->config, err));
    TRY(quantize_check(b, err));
    TRY(texts_set(b, err));
    return manifest_write(b, w, err);
}

enum status create_build(struct work *w, struct create *c, struct err *err) {
    int hold;
    TRY(store_hold(c->store, &hold, err));
    struct build b = {.c = c, .arena = &c->arena, .store = c->store};
    enum status status = build(&b, w, err);
    free(b.layers);
    store_release(c->store, hold);
    if (status == OK)
        work_status(w, "success");
    return status;
}
