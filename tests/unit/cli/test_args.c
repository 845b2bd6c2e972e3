/* Flags and arguments: every way to write one, and what is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "cli/args.h"

static const struct flag flags[] = {
    {"num-ctx", 0, FLAG_TEXT, "int", "", NULL},      {"context-size", 0, FLAG_TEXT, "int", "", "num-ctx"},
    {"think", 0, FLAG_OPTIONAL, "string", "", NULL}, {"verbose", 'v', FLAG_BOOL, "", "", NULL},
    {"file", 'f', FLAG_TEXT, "", "", NULL},
};

static enum status parse(struct args *a, struct err *err, const char *const *words) {
    char *argv[16];
    int n = 0;
    for (; words[n]; n++)
        argv[n] = (char *)words[n];
    return args_parse(a, flags, ARRAY_LEN(flags), n, argv, err);
}

#define PARSE(a, err, ...) parse((a), (err), (const char *const[]){__VA_ARGS__, NULL})

static void taken(void **state) {
    (void)state;
    struct args a;
    assert_int_equal(PARSE(&a, NULL, "m", "--num-ctx", "5", "-v", "two words", "--think"), OK);
    assert_int_equal(a.n_rest, 2);
    assert_string_equal(a.rest[0], "m");
    assert_string_equal(a.rest[1], "two words");
    assert_string_equal(args_text(&a, "num-ctx"), "5");
    assert_string_equal(args_text(&a, "think"), "true");
    assert_true(args_bool(&a, "verbose"));
    args_release(&a);

    assert_int_equal(
        PARSE(&a, NULL, "--context-size=7", "--verbose=false", "--think=", "-", "--", "--verbose", "-x"), OK);
    assert_string_equal(args_text(&a, "num-ctx"), "7");
    assert_string_equal(args_text(&a, "context-size"), "7");
    assert_string_equal(args_text(&a, "think"), "");
    assert_false(args_bool(&a, "verbose"));
    assert_int_equal(a.n_rest, 3);
    assert_string_equal(a.rest[0], "-");
    assert_string_equal(a.rest[2], "-x");
    args_release(&a);

    /* The value of --num-ctx may look like a flag; that of --think never is the next word. */
    assert_int_equal(PARSE(&a, NULL, "--num-ctx", "-1", "--think", "high"), OK);
    assert_string_equal(args_text(&a, "num-ctx"), "-1");
    assert_string_equal(args_text(&a, "think"), "true");
    assert_string_equal(a.rest[0], "high");
    args_release(&a);

    static const char *const forms[][3] = {{"-vf", "x y"}, {"-vfx y"}, {"-vf=x y"}, {"-f", "x y", "-v"}};
    for (size_t i = 0; i < ARRAY_LEN(forms); i++) {
        const char *words[4] = {forms[i][0], forms[i][1], forms[i][2], NULL};
        assert_int_equal(parse(&a, NULL, words), OK);
        assert_string_equal(args_text(&a, "file"), "x y");
        assert_true(args_bool(&a, "verbose"));
        assert_int_equal(a.n_rest, 0);
        args_release(&a);
    }

    assert_int_equal(PARSE(&a, NULL, "-vh"), OK);
    assert_true(a.help && args_bool(&a, "verbose"));
    assert_null(args_text(&a, "think"));
    args_release(&a);
}

static void refused(void **state) {
    (void)state;
    static const char *const cases[][2] = {
        {"--frob", "unknown flag: --frob"},
        {"--frob=1", "unknown flag: --frob"},
        {"--verbos", "unknown flag: --verbos"},
        {"-x", "unknown shorthand flag: 'x' in -x"},
        {"-vx", "unknown shorthand flag: 'x' in -vx"},
        {"-vf", "flag needs an argument: 'f' in -vf"},
        {"--num-ctx", "flag needs an argument: --num-ctx"},
        {"--verbose=maybe", "invalid argument \"maybe\" for \"--verbose\" flag: write true or false"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct args a;
        struct err err;
        assert_int_equal(PARSE(&a, &err, "m", cases[i][0]), ERR_INVALID);
        assert_string_equal(err.text, cases[i][1]);
        args_release(&a);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(taken), cmocka_unit_test(refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
