/* Goal: templates give the very text that Jinja2 and Go's text/template give. Method: data/chat.json holds
 * templates, their variables and the text or error of the originals (chat/make_chat_cases.py made it). Where
 * ../shared/golden/chat/cases.json exists beside the project, the templates of well-known models are compared
 * as well; they cannot lie here because they have licences of their own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>
#include <unistd.h>

#include "chat/template.h"

struct golden {
    struct buf text;
    struct arena arena;
    struct value root;
};

static bool golden_read(struct golden *g, const char *path) {
    FILE *f = fopen(path, "rb");
    char part[65536];
    size_t n;
    struct err err;
    if (!f)
        return false;
    while ((n = fread(part, 1, sizeof part, f)) > 0)
        buf_add(&g->text, part, n);
    fclose(f);
    arena_init(&g->arena, 0);
    if (value_parse_json(&g->arena, buf_str(&g->text), &g->root, &err) != OK)
        fail_msg("%s: %s", path, err.text);
    return true;
}

static void golden_release(struct golden *g) {
    arena_release(&g->arena);
    buf_release(&g->text);
}

/* The text, or the error if it has one; *failed says which. */
static void render(struct str source, enum template_kind kind, const struct value *context, i64 now,
                   struct buf *out, bool *failed) {
    struct chat_template *t;
    struct err err = {0};
    enum status s = template_open(source, kind, &t, &err);
    if (s == OK) {
        s = template_render(t, context, now, 0, out, &err);
        template_close(t);
    }
    *failed = s != OK;
    if (*failed)
        buf_add_str(out, str_of(err.text));
}

static u32 compare(const struct value *c, struct str source, enum template_kind kind,
                   const struct value *context, i64 now) {
    struct value name = value_get(c, STR("name")), want = value_get(c, STR("expected")),
                 error = value_get(c, STR("error"));
    struct buf got = {0};
    bool failed;
    render(source, kind, context, now, &got, &failed);
    bool same = want.kind == VALUE_STR
                    ? !failed && str_eq(buf_str(&got), want.s)
                    : failed && (error.kind != VALUE_STR || str_ends(error.s, buf_str(&got)));
    if (!same)
        print_message("# %.*s: %.*s\n#  want %.*s\n#  got  %.*s\n", STR_FMT(name.s), STR_FMT(source),
                      STR_FMT(want.kind == VALUE_STR ? want.s : STR("an error")), STR_FMT(buf_str(&got)));
    buf_release(&got);
    return !same;
}

static u32 compare_all(const struct golden *g, struct str list, struct str values, enum template_kind kind) {
    struct value cases = value_get(&g->root, list), shared = value_get(&g->root, values),
                 now = value_get(&g->root, STR("now_unix"));
    u32 n_bad = 0;
    assert_true(cases.list.n > 50);
    for (u32 i = 0; i < cases.list.n; i++) {
        struct value *c = &cases.list.items[i], own = value_get(c, STR("context"));
        n_bad += compare(c, value_get(c, STR("template")).s, kind, own.kind == VALUE_OBJECT ? &own : &shared,
                         now.i);
    }
    return n_bad;
}

static void golden_path(char *out, size_t n, const char *name) {
    const char *folder = getenv("MINKA_GOLDEN");
    assert_non_null(folder);
    snprintf(out, n, "%s/%s", folder, name);
}

static void test_jinja(void **state) {
    struct golden g = {0};
    char path[4096];
    (void)state;
    golden_path(path, sizeof path, "chat.json");
    assert_true(golden_read(&g, path));
    assert_int_equal(compare_all(&g, STR("jinja"), STR("values"), TEMPLATE_JINJA), 0);
    golden_release(&g);
}

static void test_go(void **state) {
    struct golden g = {0};
    char path[4096];
    (void)state;
    golden_path(path, sizeof path, "chat.json");
    assert_true(golden_read(&g, path));
    assert_int_equal(compare_all(&g, STR("go"), STR("go_values"), TEMPLATE_GO), 0);
    golden_release(&g);
}

/* Templates of well-known models carry their own licences: they are used where they lie, beside the project. */
#define MODELS_CASES "../../../../shared/golden/chat/cases.json"

static void test_models(void **state) {
    struct golden g = {0};
    char path[4096];
    (void)state;
    golden_path(path, sizeof path, MODELS_CASES);
    assert_true(golden_read(&g, path));
    struct value cases = value_get(&g.root, STR("cases")), templates = value_get(&g.root, STR("templates"));
    u32 n_bad = 0;
    for (u32 i = 0; i < cases.list.n; i++) {
        struct value *c = &cases.list.items[i], context = value_get(c, STR("context"));
        struct str source = value_get(&templates, value_get(c, STR("template")).s).s;
        n_bad += compare(c, source, TEMPLATE_JINJA, &context, 1773480413); /* 2026-03-14 09:26:53 */
    }
    assert_true(cases.list.n > 0);
    assert_int_equal(n_bad, 0);
    golden_release(&g);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_jinja), cmocka_unit_test(test_go),
                                       cmocka_unit_test(test_models)};
    char path[4096];
    golden_path(path, sizeof path, MODELS_CASES);
    if (access(path, R_OK) == 0)
        return cmocka_run_group_tests(tests, NULL, NULL);
    /* cmocka reports a skipped test as one that failed, so it is left out. */
    printf("# skipped: templates of well-known models: %s is not there\n", path);
    return _cmocka_run_group_tests("chat", tests, ARRAY_LEN(tests) - 1, NULL, NULL);
}
