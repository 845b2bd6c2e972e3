/* templates.c - a few entries, of which the one unused for longest gives way. */
#include "engine/templates.h"

#include <stdlib.h>

/* Models in use at the same time; templates of a few kB take some 100 kB compiled. */
#define ENTRIES 16u
#define ENTRY_BYTES_MAX (4u << 20)

struct entry {
    char *text;
    size_t n;
    u64 hash, used;
    struct chat_template *t;
};

struct templates {
    struct entry entries[ENTRIES + 1]; /* the last one: too large to be kept */
    u64 clock;
};

static void entry_drop(struct entry *e) {
    free(e->text);
    template_close(e->t);
    *e = (struct entry){0};
}

struct templates *templates_new(void) { return xcalloc(1, sizeof(struct templates)); }

void templates_free(struct templates *c) {
    for (u32 i = 0; i <= ENTRIES; i++)
        entry_drop(&c->entries[i]);
    free(c);
}

enum status templates_get(struct templates *c, struct str text, const struct chat_template **out,
                          struct err *err) {
    u64 hash = hash_bytes(text.p, text.n, 0);
    struct entry *oldest = &c->entries[0];
    for (u32 i = 0; i < ENTRIES; i++) {
        struct entry *e = &c->entries[i];
        if (e->t && e->hash == hash && str_eq((struct str){e->text, e->n}, text)) {
            e->used = ++c->clock;
            *out = e->t;
            return OK;
        }
        if (e->used < oldest->used)
            oldest = e;
    }
    struct chat_template *t;
    TRY(template_open(text, TEMPLATE_GO, &t, err));
    struct entry *e = template_bytes(t) + text.n > ENTRY_BYTES_MAX ? &c->entries[ENTRIES] : oldest;
    entry_drop(e);
    *e = (struct entry){.text = xmalloc(text.n), .n = text.n, .hash = hash, .used = ++c->clock, .t = t};
    memcpy(e->text, text.p, text.n);
    *out = t;
    return OK;
}
