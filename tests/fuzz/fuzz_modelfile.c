/* fuzz_modelfile.c - Modelfiles of any bytes: what is accepted has a FROM, clean values, and prints to a text
 * that reads back as the same lines. */
#include <stdlib.h>

#include "store/modelfile.h"

int LLVMFuzzerTestOneInput(const u8 *data, size_t size);

/* A line of a value that ends in three quotes cannot be written. */
static bool printable(struct str s) {
    for (size_t at = 0; (at = str_find(s, STR("\"\"\""), at)) != SIZE_MAX; at++) {
        size_t to = at + 3;
        /* All that str_trim takes for white space. */
        while (to < s.n && memchr(" \t\r\n\v\f", s.p[to], 6) && s.p[to] != '\n' && s.p[to] != '\r')
            to++;
        if (to < s.n && (s.p[to] == '\n' || s.p[to] == '\r'))
            return false;
    }
    return true;
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size) {
    struct arena a;
    struct modelfile m, again;
    struct err err = {0};
    struct buf text = {0};
    bool has_from = false, same = true;
    arena_init(&a, 0);
    if (modelfile_parse((struct str){(const char *)data, size}, &a, &m, &err) != OK) {
        check(err.text[0] && err.status != OK);
        arena_release(&a);
        return 0;
    }
    for (u32 i = 0; i < m.n; i++) {
        const struct modelfile_line *l = &m.lines[i];
        has_from |= l->command == MODELFILE_FROM;
        check(utf8_valid_len(l->value) == l->value.n && !memchr(l->value.n ? l->value.p : "", 0, l->value.n));
        check((l->command == MODELFILE_MESSAGE) <= (l->key.n > 0));
        same &= printable(l->value);
        modelfile_print(&text, l);
    }
    check(has_from);
    enum status status = modelfile_parse(buf_str(&text), &a, &again, &err);
    if (same) {
        check(status == OK && again.n == m.n);
        for (u32 i = 0; i < m.n; i++)
            check(again.lines[i].command == m.lines[i].command &&
                  str_eq(again.lines[i].key, m.lines[i].key) &&
                  str_eq(again.lines[i].value, m.lines[i].value));
    }
    buf_release(&text);
    arena_release(&a);
    return 0;
}
