/* fuzz_output.c - an answer, split in the style of a template: flags, a size of pieces, the template up to a
 * zero byte, the answer. However it is cut, the pieces are the same, and no text comes that was not there. */
#include "chat/output.h"
#include "chat/template.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char tools_json[] =
    "[{\"function\":{\"name\":\"get\"}},{\"function\":{\"name\":\"get_all\",\"parameters\":"
    "{\"type\":\"object\"}}}]";

/* Kinds and contents in a row; neighbours of text and of thought become one. */
static void feed(const struct output_config *c, struct str text, size_t step, struct buf *out) {
    struct output *o = output_new(c);
    int last = -1;
    size_t n_text = 0;
    for (size_t at = 0; at <= text.n; at += step) {
        output_push(o, str_slice(text, at, at + step), at + step > text.n);
        for (u32 i = 0; i < output_n_pieces(o); i++) {
            struct output_piece p = output_piece_at(o, i);
            if ((int)p.kind != last || p.kind == OUTPUT_CALL)
                buf_add_char(out, (char)p.kind);
            last = (int)p.kind;
            check(p.kind != OUTPUT_CALL ||
                  (p.text.n == 0 && p.call.id.n && p.call.name.n && p.call.arguments.n));
            check(p.kind == OUTPUT_CALL || p.text.n);
            n_text += p.text.n;
            buf_add_str(out, p.text);
            buf_add_str(out, p.call.id);
            buf_add_str(out, p.call.name);
            buf_add_str(out, p.call.arguments);
        }
    }
    check(n_text <= text.n);
    output_free(o);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct str in = {(const char *)data, size};
    size_t end = size > 2 ? str_find(in, STR("\0"), 2) : SIZE_MAX;
    struct chat_template *t;
    struct arena arena;
    struct chat_tools tools;
    struct err err;
    if (end == SIZE_MAX || size > 4096)
        return 0;
    u8 flags = data[0];
    if (template_open(str_slice(in, 2, end), flags & 1 ? TEMPLATE_GO : TEMPLATE_JINJA, &t, &err) != OK)
        return 0;
    arena_init(&arena, 0);
    check(chat_tools_read(STR(tools_json), &arena, &tools, &err) == OK);
    struct output_config c = {.style = template_style(t),
                              .tools = flags & 2 ? &tools : NULL,
                              .think = flags & 4,
                              .think_begun = flags & 8,
                              .think_hidden = flags & 16,
                              .calls_max = flags & 32 ? 1 : 0};
    struct buf whole = {0}, cut = {0};
    struct str answer = str_slice(in, end + 1, size);
    feed(&c, answer, answer.n + 1, &whole);
    feed(&c, answer, data[1] % 16 + 1u, &cut);
    check(str_eq(buf_str(&whole), buf_str(&cut)));
    buf_release(&whole);
    buf_release(&cut);
    arena_release(&arena);
    template_close(t);
    return 0;
}
