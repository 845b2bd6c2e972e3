/* fuzz_name.c - model names: what is accepted can be a path of four parts and is read back as itself. */
#include <stdlib.h>

#include "api/models.h"

int LLVMFuzzerTestOneInput(const u8 *data, size_t size);

static void part_check(const char *s, size_t most) {
    size_t n = strlen(s);
    check(n >= 1 && n <= most && s[0] != '.' && s[0] != '-');
    for (size_t i = 0; i < n; i++)
        check(s[i] != '/' && (u8)s[i] > 0x20 && (u8)s[i] < 0x7f);
}

static void name_check(const struct model_name *n) {
    struct arena a;
    struct model_name again;
    struct err err;
    part_check(n->host, 350);
    part_check(n->namespace_, 80);
    part_check(n->model, 80);
    part_check(n->tag, 80);
    arena_init(&a, 0);
    check(model_name_parse(model_name_full(n, &a), &again, &err) == OK &&
          memcmp(n, &again, sizeof again) == 0);
    /* The short form may spell the default host or namespace in another case. */
    check(model_name_parse(model_name_short(n, &a), &again, &err) == OK &&
          strcmp(again.model, n->model) == 0);
    check(model_name_from_parts(n->host, n->namespace_, n->model, n->tag, &again));
    check(memcmp(n, &again, sizeof again) == 0);
    arena_release(&a);
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size) {
    struct str text = {(const char *)data, size};
    struct model_name n;
    struct err err;
    if (model_name_parse(text, &n, &err) == OK)
        name_check(&n);
    enum name_fault fault = model_ref_parse(text, &n, &err);
    if (fault == NAME_OK || fault == NAME_CLOUD)
        name_check(&n);
    return 0;
}
