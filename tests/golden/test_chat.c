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

#include "chat/output.h"
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

/* Templates of well-known models carry their own licences: they are used where they lie, beside the project.
 */
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

/* A conversation in which an assistant calls a tool, and what stands before that. */
#define CALLING(with_call, prompt)                                                                           \
    "{\"bos_token\":\"\",\"eos_token\":\"\",\"add_generation_prompt\":" prompt                               \
    ",\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"get_weather\",\"description\":\"d\","       \
    "\"parameters\":{\"type\":\"object\",\"properties\":{\"city\":{\"type\":\"string\",\"description\":"     \
    "\"c\"},"                                                                                                \
    "\"days\":{\"type\":\"integer\",\"description\":\"n\"}},\"required\":[\"city\"]}}}],"                    \
    "\"messages\":[{\"role\":\"user\",\"content\":\"Weather in Rome?\"}" with_call "]}"
#define CALL                                                                                                 \
    ",{\"role\":\"assistant\",\"content\":\"\",\"tool_calls\":[{\"id\":\"abcdefghi\",\"type\":\"function\"," \
    "\"function\":{\"name\":\"get_weather\",\"arguments\":{\"city\":\"Rome <&>\",\"days\":3}}}]}"

static bool render_text(const struct chat_template *t, const char *json, struct buf *out) {
    struct arena arena;
    struct value root;
    struct err err;
    arena_init(&arena, 0);
    assert_int_equal(value_parse_json(&arena, str_of(json), &root, &err), OK);
    bool ok = template_render(t, &root, 1773480413, 0, out, &err) == OK;
    arena_release(&arena);
    return ok;
}

/* Calls that the parser of answers finds in what the template renders for a call; -1: it renders none. */
static i32 calls_read_back(const struct chat_template *t) {
    struct buf before = {0}, all = {0};
    struct arena arena;
    struct chat_tools tools;
    struct err err;
    i32 n = -1;
    arena_init(&arena, 0);
    assert_int_equal(
        chat_tools_read(STR("[{\"function\":{\"name\":\"get_weather\"}}]"), &arena, &tools, &err), OK);
    if (render_text(t, CALLING("", "true"), &before) && render_text(t, CALLING(CALL, "false"), &all) &&
        str_starts(buf_str(&all), buf_str(&before))) {
        struct output_config c = {.style = template_style(t), .tools = &tools, .think = true};
        struct output *o = output_new(&c);
        n = 0;
        for (size_t i = before.n; i <= all.n; i++) {
            output_push(o, str_slice(buf_str(&all), i, i + 1), i == all.n);
            for (u32 k = 0; k < output_n_pieces(o); k++) {
                struct output_piece p = output_piece_at(o, k);
                n += p.kind == OUTPUT_CALL && str_is(p.call.name, "get_weather") &&
                     str_is(p.call.arguments, "{\"city\":\"Rome <&>\",\"days\":3}");
            }
        }
        output_free(o);
    }
    buf_release(&before);
    buf_release(&all);
    arena_release(&arena);
    return n;
}

/* Goal: what a model's template writes for a call is read as that call; thoughts have the tags they have. */
static void test_models_calls(void **state) {
    static const struct {
        const char *name;
        bool calls, thinks;
    } known[] = {{"Qwen-Qwen2.5-7B-Instruct", true, false},
                 {"Qwen-Qwen3-0.6B", true, true},
                 {"meta-llama-Llama-3.1-8B-Instruct", true, false},
                 {"meta-llama-Llama-3.2-3B-Instruct", true, false},
                 {"mistralai-Mistral-Nemo-Instruct-2407", true, false},
                 {"NousResearch-Hermes-2-Pro-Llama-3-8B-tool_use", true, false},
                 {"HuggingFaceTB-SmolLM3-3B", false, true},
                 {"google-gemma-2-2b-it", false, false},
                 {"SmolLM2-135M-Instruct", false, false}};
    struct golden g = {0};
    char path[4096];
    (void)state;
    golden_path(path, sizeof path, MODELS_CASES);
    assert_true(golden_read(&g, path));
    struct value templates = value_get(&g.root, STR("templates"));
    for (u32 i = 0; i < ARRAY_LEN(known); i++) {
        struct str source = value_get(&templates, str_of(known[i].name)).s;
        struct chat_template *t;
        struct err err;
        assert_int_equal(template_open(source, TEMPLATE_JINJA, &t, &err), OK);
        const struct template_style *s = template_style(t);
        i32 n = calls_read_back(t);
        if (s->can.thinking != known[i].thinks || (known[i].calls && n != 1) ||
            (!known[i].calls && s->can.tools))
            fail_msg("%s: tools %d, thinking %d, %d calls read", known[i].name, s->can.tools, s->can.thinking,
                     n);
        template_close(t);
    }
    golden_release(&g);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_jinja), cmocka_unit_test(test_go),
                                       cmocka_unit_test(test_models), cmocka_unit_test(test_models_calls)};
    char path[4096];
    golden_path(path, sizeof path, MODELS_CASES);
    if (access(path, R_OK) == 0)
        return cmocka_run_group_tests(tests, NULL, NULL);
    /* cmocka reports a skipped test as one that failed, so it is left out. */
    printf("# skipped: templates of well-known models: %s is not there\n", path);
    return _cmocka_run_group_tests("chat", tests, ARRAY_LEN(tests) - 2, NULL, NULL);
}
