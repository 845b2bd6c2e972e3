/* Model names: the grammar of the reference, accepted and refused, and both display forms. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "store/store.h"

/* Goal: every rule of the grammar on the accepting side. Method: name in, full and short form out. */
static void names_accepted(void **state) {
    (void)state;
    static const struct {
        const char *in, *full, *brief;
    } cases[] = {
        {"llama3.2", "registry.ollama.ai/library/llama3.2:latest", "llama3.2:latest"},
        {"llama3.2:1b", "registry.ollama.ai/library/llama3.2:1b", "llama3.2:1b"},
        {"Mistral:7B-Q4", "registry.ollama.ai/library/Mistral:7B-Q4", "Mistral:7B-Q4"},
        {"me/own", "registry.ollama.ai/me/own:latest", "me/own:latest"},
        {"me/own:v1.0", "registry.ollama.ai/me/own:v1.0", "me/own:v1.0"},
        {"library/x", "registry.ollama.ai/library/x:latest", "x:latest"},
        {"LIBRARY/x", "registry.ollama.ai/LIBRARY/x:latest", "x:latest"},
        {"hf.co/user/repo:Q4_K_M", "hf.co/user/repo:Q4_K_M", "hf.co/user/repo:Q4_K_M"},
        {"http://host:5000/ns/m:t", "host:5000/ns/m:t", "host:5000/ns/m:t"},
        {"https://registry.ollama.ai/library/m", "registry.ollama.ai/library/m:latest", "m:latest"},
        {"http:///ns/m", "registry.ollama.ai/ns/m:latest", "ns/m:latest"},
        {"host:80/ns/m", "host:80/ns/m:latest", "host:80/ns/m:latest"},
        {"_m", "registry.ollama.ai/library/_m:latest", "_m:latest"},
        {"9", "registry.ollama.ai/library/9:latest", "9:latest"},
        {"a-b_c.d:e-f_g.h", "registry.ollama.ai/library/a-b_c.d:e-f_g.h", "a-b_c.d:e-f_g.h"},
    };
    struct arena a;
    arena_init(&a, 0);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct model_name n;
        struct err err;
        assert_int_equal(model_name_parse(str_of(cases[i].in), &n, &err), OK);
        assert_string_equal(model_name_full(&n, &a).p, cases[i].full);
        assert_string_equal(model_name_short(&n, &a).p, cases[i].brief);
    }
    arena_release(&a);
}

/* Goal: every rule on the refusing side, among them all ways out of the folder. */
static void names_refused(void **state) {
    (void)state;
    static const char *const cases[] = {
        "",         ":",       "/",         "m:",          ":t",     "/m",      "m/",          "ns//m",
        "//m",      ".",       "..",        "../m",        "m/..",   "-m",      "m:-t",        ".m",
        "n.s/m",    "n:s/m",   "a b",       "m:t:u",       "m\n",    "a/b/c/d", "m@sha256:00", "h/n/m@x",
        "http://m", "m:t/u:",  "\xc3\xa9",  "m:..",        "h/../m", "../../m", "m:a/../b",    "~",
        "ns/.m",    "-h/ns/m", "h\\n/ns/m", "/etc/passwd",
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct model_name n;
        struct err err;
        if (model_name_parse(str_of(cases[i]), &n, &err) != ERR_INVALID)
            fail_msg("accepted: \"%s\"", cases[i]);
        assert_string_equal(err.text, "invalid model name");
    }
    struct model_name n;
    struct err err;
    assert_int_equal(model_name_parse((struct str){"a\0b", 3}, &n, &err), ERR_INVALID);
    assert_int_equal(model_name_parse(STR_NONE, &n, &err), ERR_INVALID);
}

/* Goal: the length limits of the parts, at the limit and one above. */
static void names_lengths(void **state) {
    (void)state;
    static char text[1024], part[400];
    memset(part, 'a', sizeof part);
    static const struct {
        const char *before, *after;
        size_t most;
    } parts[] = {{"", "", 80}, {"m:", "", 80}, {"", "/m", 80}, {"", "/ns/m", 350}};
    for (size_t i = 0; i < ARRAY_LEN(parts); i++) {
        for (size_t over = 0; over < 2; over++) {
            struct model_name n;
            struct err err;
            int len = snprintf(text, sizeof text, "%s%.*s%s", parts[i].before, (int)(parts[i].most + over),
                               part, parts[i].after);
            enum status want = over ? ERR_INVALID : OK;
            assert_int_equal(model_name_parse((struct str){text, (size_t)len}, &n, &err), want);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_accepted),
        cmocka_unit_test(names_refused),
        cmocka_unit_test(names_lengths),
    };
    return cmocka_run_group_tests_name("store_names", tests, NULL, NULL);
}
