/* template.c - one interface over the two template languages: bounds, the run's memory, the choice. */
#include "chat/template.h"

#include <stdlib.h>

#include "base/limit.h"
#include "chat/go.h"
#include "chat/jinja.h"
#include "chat/template_parts.h"

struct chat_template {
    enum template_kind kind;
    struct jinja *jinja; /* one of the two */
    struct go_template *go;
    struct template_style style;
};

enum status template_open(struct str source, enum template_kind kind, struct chat_template **out,
                          struct err *err) {
    struct chat_template *t = xcalloc(1, sizeof *t);
    t->kind = kind;
    enum status s = kind == TEMPLATE_GO ? go_open(source, &t->go, err) : jinja_open(source, &t->jinja, err);
    if (s != OK) {
        free(t);
        return s;
    }
    if (kind == TEMPLATE_GO)
        style_of_go(t->go, source, &t->style);
    else
        style_of_jinja(source, &t->style);
    *out = t;
    return OK;
}

void template_close(struct chat_template *t) {
    if (!t)
        return;
    jinja_close(t->jinja);
    go_close(t->go);
    free(t);
}

enum template_kind template_kind_of(const struct chat_template *t) { return t->kind; }

u64 template_bytes(const struct chat_template *t) {
    return sizeof *t + (t->go ? t->go->arena.used_bytes : t->jinja->arena.used_bytes);
}

bool template_mentions(const struct chat_template *t, const char *field) {
    check(t->go != NULL);
    return value_get(&t->go->mentioned, str_of(field)).kind != VALUE_UNDEFINED;
}

enum status template_render(const struct chat_template *t, const struct value *root, i64 now_unix,
                            i32 utc_offset_s, struct buf *out, struct err *err) {
    return template_render_part(t, root, now_unix, utc_offset_s, false, out, err);
}

enum status template_render_part(const struct chat_template *t, const struct value *root, i64 now_unix,
                                 i32 utc_offset_s, bool cut, struct buf *out, struct err *err) {
    struct arena arena;
    arena_init(&arena, LIMIT_TEMPLATE_MEMORY_BYTES);
    size_t before = out->n;
    struct run r = {.arena = &arena,
                    .text = out,
                    .text_bytes_max = before + LIMIT_TEMPLATE_OUTPUT_BYTES,
                    .steps_left = LIMIT_TEMPLATE_STEPS,
                    .now_unix = now_unix,
                    .utc_offset_s = utc_offset_s,
                    .err = err};
    enum status s = t->go ? go_render(t->go, root, cut, &r) : jinja_render(t->jinja, root, &r);
    if (s != OK)
        out->n = before;
    arena_release(&arena);
    return s;
}

const struct template_style *template_style(const struct chat_template *t) { return &t->style; }
