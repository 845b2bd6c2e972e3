/* Modelfiles: the reference's grammar, each rule and each error; print and parse are inverse. */
#include "store/modelfile.h"
#include "fixture.h"

static enum status parse(struct arena *a, struct str text, struct modelfile *m, struct err *err) {
    return modelfile_parse(text, a, m, err);
}

static void line_is(const struct modelfile *m, u32 i, enum modelfile_command command, const char *key,
                    const char *value) {
    assert_true(i < m->n);
    assert_int_equal(m->lines[i].command, command);
    assert_true(str_is(m->lines[i].key, key));
    assert_true(str_is(m->lines[i].value, value));
}

/* Goal: every command, case, comments, blanks, quotes. */
static void grammar(void **state) {
    (void)state;
    struct arena a;
    struct modelfile m;
    struct err err;
    arena_init(&a, 0);
    static const char text[] = "# a comment\n"
                               "\t  FROM   ./model file.gguf  \n"
                               "parameter temperature 0.5\r\n"
                               "PARAMETER  stop \"a # b \"\n"
                               "PaRaMeTeR stop plain # not a comment\n"
                               "\n"
                               "SYSTEM \"\"\"\nYou are \"it\".\n\n  Indented\n\"\"\"\n"
                               "TEMPLATE \"two\nlines\"\n"
                               "MESSAGE user hello: you\n"
                               "message assistant \"\"\"yes\"\"\"\n"
                               "LICENSE \"\"\n"
                               "ADAPTER a\n"
                               "DRAFT d\n"
                               "RENDERER r\n"
                               "PARSER p\n"
                               "REQUIRES 0.1.0\n"
                               "LICENSE 'single'\n"
                               "LICENSE it said \"so\"\n"
                               "LICENSE \"\"\"open\"\"\" tail\n\"\"\"";
    assert_int_equal(parse(&a, STR(text), &m, &err), OK);
    line_is(&m, 0, MODELFILE_FROM, "", "./model file.gguf");
    line_is(&m, 1, MODELFILE_PARAMETER, "temperature", "0.5");
    line_is(&m, 2, MODELFILE_PARAMETER, "stop", "a # b ");
    line_is(&m, 3, MODELFILE_PARAMETER, "stop", "plain # not a comment");
    line_is(&m, 4, MODELFILE_SYSTEM, "", "\nYou are \"it\".\n\n  Indented\n");
    line_is(&m, 5, MODELFILE_TEMPLATE, "", "two\nlines");
    line_is(&m, 6, MODELFILE_MESSAGE, "user", "hello: you");
    line_is(&m, 7, MODELFILE_MESSAGE, "assistant", "yes");
    line_is(&m, 8, MODELFILE_LICENSE, "", "");
    line_is(&m, 9, MODELFILE_ADAPTER, "", "a");
    line_is(&m, 10, MODELFILE_DRAFT, "", "d");
    line_is(&m, 11, MODELFILE_RENDERER, "", "r");
    line_is(&m, 12, MODELFILE_PARSER, "", "p");
    line_is(&m, 13, MODELFILE_REQUIRES, "", "0.1.0");
    line_is(&m, 14, MODELFILE_LICENSE, "", "'single'");
    line_is(&m, 15, MODELFILE_LICENSE, "", "it said \"so\"");
    line_is(&m, 16, MODELFILE_LICENSE, "", "open\"\"\" tail\n");
    assert_int_equal(m.n, 17);
    arena_release(&a);
}

/* Goal: byte order marks, UTF-16 of both orders with a surrogate pair, broken bytes, control characters. */
static void encodings(void **state) {
    (void)state;
    struct arena a;
    struct modelfile m;
    struct err err;
    arena_init(&a, 0);
    static const struct {
        struct str text;
        const char *value;
    } cases[] = {
        {STR("\xef\xbb\xbf"
             "FROM \xc3\xa9"),
         "\xc3\xa9"},
        {STR("\xff\xfe"
             "F\0R\0O\0M\0 \0\xe9\0\x3d\xd8\x00\xde\n\0"),
         "\xc3\xa9\xf0\x9f\x98\x80"},
        {STR("\xfe\xff"
             "\0F\0R\0O\0M\0 \0\xe9\xd8\x3d\xde\x00"),
         "\xc3\xa9\xf0\x9f\x98\x80"},
        {STR("\xff\xfe"
             "F\0R\0O\0M\0 \0\x00\xdc\x3d\xd8x\0y"),
         "\xef\xbf\xbd\xef\xbf\xbdx\xef\xbf\xbd"},
        {STR("FROM a\xff\xc3z"), "a\xef\xbf\xbd\xef\xbf\xbdz"},
        {STR("FROM a\0b\x01\x7f\xc2\x85 c"), "ab c"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        assert_int_equal(parse(&a, cases[i].text, &m, &err), OK);
        assert_int_equal(m.n, 1);
        line_is(&m, 0, MODELFILE_FROM, "", cases[i].value);
    }
    arena_release(&a);
}

/* Goal: the reference's texts and line numbers. */
static void errors(void **state) {
    (void)state;
#define COMMANDS                                                                                             \
    "command must be one of \"from\", \"license\", \"template\", \"system\", \"adapter\", \"draft\", "       \
    "\"renderer\", \"parser\", \"parameter\", \"message\", or \"requires\""
    static const struct {
        const char *text, *error;
    } cases[] = {
        {"", "no FROM line"},
        {"# only\n", "no FROM line"},
        {"SYSTEM x\n", "no FROM line"},
        {"FROM x\nBAD y\n", "(line 2): " COMMANDS},
        {"FROM x\n\nFROMM y", "(line 3): " COMMANDS},
        {"FROM\n", "(line 2): " COMMANDS},
        {"FROM: x", "(line 1): " COMMANDS},
        {"1FROM x", "(line 1): " COMMANDS},
        {"FROM x\nMESSAGE king hi\n", "(line 2): message role must be one of \"system\", \"user\", or "
                                      "\"assistant\""},
        {"FROM x\nMESSAGE User hi\n", "(line 2): message role must be one of \"system\", \"user\", or "
                                      "\"assistant\""},
        {"FROM", "unexpected EOF"},
        {"FROM x\nPARAMETER temperature\n", "unexpected EOF: temperature"},
        {"FROM x\nMESSAGE user\n", "unexpected EOF: user"},
        {"FROM x\nSYSTEM \"open\n", "unexpected EOF"},
        {"FROM x\nSYSTEM \"\"\"open\"\"\n", "unexpected EOF"},
        {"FROM x\nSYSTEM \"", "unexpected EOF"},
    };
    struct arena a;
    arena_init(&a, 0);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct modelfile m;
        struct err err;
        assert_int_equal(parse(&a, str_of(cases[i].text), &m, &err), ERR_INVALID);
        assert_string_equal(err.text, cases[i].error);
    }
    arena_release(&a);
}

/* Goal: for any lines, parse(print(lines)) is the same lines. Method: values are drawn from pieces that stress
 * quotes, blanks and line ends; those that no Modelfile can express are left out. */
static void round_trip(void **state) {
    (void)state;
    static const char *const pieces[] = {"a", " ", "\"", "\n", "\t", "#", "\"\"\"", "FROM ", "\xc3\xa9", "'", "\r\n", ": "};
    struct arena a;
    struct err err;
    u64 seed = 1;
    for (int round = 0; round < 3000; round++) {
        struct buf text = {0}, value[4] = {0};
        struct modelfile_line lines[4] = {
            {MODELFILE_FROM, STR_NONE, STR("x")},
            {MODELFILE_SYSTEM, STR_NONE, STR_NONE},
            {MODELFILE_PARAMETER, STR("stop"), STR_NONE},
            {MODELFILE_MESSAGE, STR("assistant"), STR_NONE},
        };
        arena_init(&a, 0);
        for (int i = 1; i < 4; i++) {
            u64 n = (seed = hash_bytes(&seed, sizeof seed, 7)) % 7;
            for (u64 k = 0; k < n; k++)
                buf_add_str(&value[i], str_of(pieces[(seed = hash_bytes(&seed, sizeof seed, 8)) %
                                                     ARRAY_LEN(pieces)]));
            /* A line of the value that ends in three quotes closes them. */
            struct str s = buf_str(&value[i]);
            bool hard = false;
            for (size_t at = 0; (at = str_find(s, STR("\"\"\""), at)) != SIZE_MAX; at++) {
                size_t to = at + 3;
                while (to < s.n && (s.p[to] == ' ' || s.p[to] == '\t'))
                    to++;
                hard |= to < s.n && (s.p[to] == '\n' || s.p[to] == '\r');
            }
            lines[i].value = hard ? STR("left out") : s;
        }
        for (int i = 0; i < 4; i++)
            modelfile_print(&text, &lines[i]);
        struct modelfile m;
        assert_int_equal(parse(&a, buf_str(&text), &m, &err), OK);
        assert_int_equal(m.n, 4);
        for (int i = 0; i < 4; i++) {
            if (!str_eq(m.lines[i].value, lines[i].value))
                fprintf(stderr, "# %.*s", STR_FMT(buf_str(&text)));
            assert_int_equal(m.lines[i].command, lines[i].command);
            assert_true(str_eq(m.lines[i].key, lines[i].key));
            assert_true(str_eq(m.lines[i].value, lines[i].value));
            buf_release(&value[i]);
        }
        buf_release(&text);
        arena_release(&a);
    }
}

/* Goal: quotes stand only where the value needs them, as the reference prints. */
static void printed(void **state) {
    (void)state;
    static const struct {
        struct modelfile_line line;
        const char *text;
    } cases[] = {
        {{MODELFILE_FROM, STR_NONE, STR("/a b.gguf")}, "FROM /a b.gguf\n"},
        {{MODELFILE_SYSTEM, STR_NONE, STR("say \"x\" now")}, "SYSTEM say \"x\" now\n"},
        {{MODELFILE_SYSTEM, STR_NONE, STR("a\nb")}, "SYSTEM \"a\nb\"\n"},
        {{MODELFILE_SYSTEM, STR_NONE, STR("a\n\"b")}, "SYSTEM \"\"\"a\n\"b\"\"\"\n"},
        {{MODELFILE_PARAMETER, STR("stop"), STR(" x")}, "PARAMETER stop \" x\"\n"},
        {{MODELFILE_MESSAGE, STR("user"), STR("hi")}, "MESSAGE user hi\n"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct buf b = {0};
        modelfile_print(&b, &cases[i].line);
        assert_string_equal(buf_cstr(&b), cases[i].text);
        buf_release(&b);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(grammar),    cmocka_unit_test(encodings), cmocka_unit_test(errors),
        cmocka_unit_test(round_trip), cmocka_unit_test(printed),
    };
    return cmocka_run_group_tests_name("store_modelfile", tests, NULL, NULL);
}
