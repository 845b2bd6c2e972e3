/* template.c - one interface over the two template languages: bounds, the run's memory, the choice. */
#include "chat/template.h"

#include <stdlib.h>

#include "base/limit.h"
#include "chat/jinja.h"

struct chat_template {
    enum template_kind kind;
    struct jinja *jinja;
};

enum status template_open(struct str source, enum template_kind kind, struct chat_template **out, struct err *err) {
    struct chat_template *t = xcalloc(1, sizeof *t);
    t->kind = kind;
    enum status s = jinja_open(source, &t->jinja, err);
    if (s != OK) {
        free(t);
        return s;
    }
    *out = t;
    return OK;
}

void template_close(struct chat_template *t) {
    if (!t)
        return;
    jinja_close(t->jinja);
    free(t);
}

enum status template_render(const struct chat_template *t, const struct value *root, i64 now_unix, i32 utc_offset_s,
                            struct buf *out, struct err *err) {
    struct arena arena;
    arena_init(&arena, LIMIT_TEMPLATE_MEMORY_BYTES);
    size_t before = out->n;
    struct run r = {.arena = &arena, .text = out, .text_bytes_max = before + LIMIT_TEMPLATE_OUTPUT_BYTES,
                    .steps_left = LIMIT_TEMPLATE_STEPS, .now_unix = now_unix, .utc_offset_s = utc_offset_s, .err = err};
    enum status s = jinja_render(t->jinja, root, &r);
    if (s != OK)
        out->n = before;
    arena_release(&arena);
    return s;
}
