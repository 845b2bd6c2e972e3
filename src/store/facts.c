/* facts.c - what a GGUF file says about itself, and the config blob that repeats it. */
#include <sys/types.h>

#include "base/buf.h"
#include "base/mapping.h"
#include "gguf/gguf.h"
#include "store/files.h"

static u64 parameters_count(const struct gguf *g) {
    u64 sum = 0;
    for (u32 i = 0; i < g->n_tensors; i++) {
        u64 n = 1;
        for (u32 d = 0; d < 4; d++)
            n *= g->tensors[i].dims[d]; /* gguf_parse has checked that it fits */
        sum += n;
    }
    return sum;
}

static void facts_take(const struct gguf *g, struct arena *a, struct gguf_facts *f) {
    u32 file_type;
    struct str arch = STR("unknown"), kind = STR_NONE;
    gguf_get_str(g, STR("general.architecture"), &arch);
    gguf_get_str(g, STR("general.type"), &kind);
    f->arch = arena_str(a, arch);
    f->type = store_human_count(parameters_count(g), a);
    f->file_type = str_of(
        gguf_get_u32(g, STR("general.file_type"), &file_type) ? store_file_type_name(file_type) : "unknown");
    f->adapter = str_is(kind, "adapter");
    f->projector = str_is(kind, "mmproj") || str_is(kind, "projector") || str_is(arch, "clip");
    gguf_get_u32(g, STR("split.count"), &f->n_parts);
}

enum status store_gguf_facts(int fd, u64 bytes, const char *shown, struct arena *a, struct gguf_facts *out,
                             struct err *err) {
    *out = (struct gguf_facts){.n_parts = 1};
    struct mapping map;
    struct gguf g;
    struct err inner;
    if (bytes == 0)
        return err_set(err, ERR_CORRUPT, "%s is empty", shown);
    TRY(mapping_open(fd, bytes, &map, err));
    enum status status = gguf_parse(&g, map.data, (size_t)bytes, &inner);
    if (status == OK) {
        facts_take(&g, a, out);
        gguf_release(&g);
    } else {
        err_set(err, status, "%s is no usable GGUF file: %s", shown, inner.text);
    }
    if (mapping_lost(&map))
        status = err_set(err, ERR_CORRUPT, "%s was cut off while it was read", shown);
    mapping_close(&map);
    return status;
}

static void text_member(struct buf *b, const char *key, struct str s) {
    if (s.n)
        json_key(b, key), json_str(b, s);
}

static void list_member(struct buf *b, const char *key, const struct str *items, u32 n) {
    json_key(b, key), json_open(b, '[');
    for (u32 i = 0; i < n; i++)
        json_str(b, items[i]);
    json_close(b, ']');
}

void store_config_json(struct buf *b, const struct store_config *c) {
    json_open(b, '{');
    json_key(b, "model_format"), json_str(b, c->format);
    json_key(b, "model_family"), json_str(b, c->family);
    if (c->n_families)
        list_member(b, "model_families", c->families, c->n_families);
    else
        json_key(b, "model_families"), json_none(b);
    json_key(b, "model_type"), json_str(b, c->type);
    json_key(b, "file_type"), json_str(b, c->file_type);
    text_member(b, "renderer", c->renderer);
    text_member(b, "parser", c->parser);
    text_member(b, "requires", c->requires);
    if (c->n_capabilities)
        list_member(b, "capabilities", c->capabilities, c->n_capabilities);
    if (c->context_length)
        json_key(b, "context_length"), json_u64(b, c->context_length);
    if (c->embedding_length)
        json_key(b, "embedding_length"), json_u64(b, c->embedding_length);
    text_member(b, "base_name", c->base_name);
    json_key(b, "architecture"), json_str(b, STR("amd64"));
    json_key(b, "os"), json_str(b, STR("linux"));
    json_close(b, '}');
    buf_add_char(b, '\n');
}
