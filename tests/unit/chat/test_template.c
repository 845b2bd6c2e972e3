/* Templates that are hostile or wrong: bounds, messages, the state afterwards. What templates mean is tested
 * by tests/golden/test_chat.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/limit.h"
#include "chat/template.h"

static enum status run(struct str source, enum template_kind kind, struct buf *out, struct err *err) {
    struct chat_template *t;
    struct arena a;
    arena_init(&a, 0);
    struct value root = value_object(&a), list = value_list();
    value_append(&a, &list, value_int(1));
    value_set(&a, &root, STR("list"), list);
    value_set(&a, &root, STR("L"), list);
    enum status s = template_open(source, kind, &t, err);
    if (s == OK) {
        s = template_render(t, &root, 0, 3600, out, err);
        template_close(t);
    }
    arena_release(&a);
    return s;
}

static void expect(enum template_kind kind, struct str source, enum status want, const char *text) {
    struct err err = {0};
    struct buf out = {0};
    u64 start = clock_ns();
    buf_add(&out, "kept", 4);
    enum status s = run(source, kind, &out, &err);
    if (s != want || (want != OK && text && !strstr(err.text, text)))
        fail_msg("%.*s: %s, %s", STR_FMT(str_slice(source, 0, 200)), status_name(s), err.text);
    if (want == OK)
        assert_string_equal(buf_cstr(&out) + 4, text);
    else
        assert_int_equal(out.n, 4); /* a failed run leaves nothing behind */
    assert_true(clock_ns() - start < 60000000000u);
    buf_release(&out);
}

/* Goal: no template takes unbounded steps, memory, text or stack. Method: the classic bombs. */
static void test_jinja_bombs(void **state) {
    static const char *const bombs[] = {
        "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}",
        "{% set ns = namespace(x='aaaaaaaaaa') %}{% for i in range(100) %}{% set ns.x = ns.x + ns.x %}{% "
        "endfor %}",
        "{{ 'x' * 1000000000 }}",
        "{{ [1,2,3] * 100000000 }}",
        "{{ ('x' * 1000000) | replace('', "
        "'yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy') }}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{% macro m(x) %}{{ m([x, x]) }}{% endmacro %}{{ m(1) }}",
        "{% set ns = namespace(x=[1]) %}{% for i in range(64) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ "
        "ns.x }}",
        "{% set ns = namespace(x=[1]) %}{% for i in range(64) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ "
        "ns.x | tojson }}",
        "{% set ns = namespace(x=[1], y=[1]) %}{% for i in range(64) %}{% set ns.x = [ns.x, ns.x] %}{% set "
        "ns.y = [ns.y, ns.y] %}{% endfor %}{{ ns.x == ns.y }}",
        "{% set ns = namespace(x=1) %}{% set ns.x = ns %}{{ ns }}",
        "{% for i in range(100000) %}{{ 'x' * 10000 }}{% endfor %}",
        "{% set s = 'a' * 10000000 %}{% for i in range(100000) %}{% if 'b' in s %}{% endif %}{% endfor %}",
        "{% set s = 'a' * 10000000 %}{% for i in range(100000) %}{% if s.upper() %}{% endif %}{% endfor %}",
        "{% for i in [1] recursive %}{{ loop([1]) }}{% endfor %}",
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(bombs); i++)
        expect(TEMPLATE_JINJA, str_of(bombs[i]), ERR_TOO_LARGE, NULL);
}

static void test_go_bombs(void **state) {
    static const char *const bombs[] = {
        "{{ range 100000 }}{{ range 100000 }}{{ end }}{{ end }}",
        "{{ define \"a\" }}{{ template \"a\" . }}{{ end }}{{ template \"a\" . }}",
        "{{ $x := \"aaaaaaaaaaaaaaaaaaaa\" }}{{ range 100 }}{{ $x = print $x $x }}{{ end }}",
        "{{ range 10000000 }}0123456789{{ end }}",
        "{{ define \"a\" }}{{ range . }}{{ template \"a\" $ }}{{ end }}{{ end }}{{ template \"a\" .L }}",
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(bombs); i++)
        expect(TEMPLATE_GO, str_of(bombs[i]), ERR_TOO_LARGE, NULL);
    expect(TEMPLATE_GO, STR("{{ printf \"%999999999d\" 1 }}"), ERR_INVALID, "too wide");
    expect(TEMPLATE_GO, STR("{{ printf \"%*d\" 999999999 1 }}"), ERR_INVALID, "too wide");
}

/* Goal: nesting is bounded in the parser, long flat templates are not. */
static void test_depth(void **state) {
    static const struct {
        enum template_kind kind;
        const char *open, *close, *middle;
    } cases[] = {
        {TEMPLATE_JINJA, "(", ")", "1"},
        {TEMPLATE_JINJA, "[", "]", "1"},
        {TEMPLATE_JINJA, "-", "", "1"},
        {TEMPLATE_JINJA, "not ", "", "1"},
        {TEMPLATE_JINJA, "", ".a", "list"},
        {TEMPLATE_JINJA, "", "|list", "list"},
        {TEMPLATE_JINJA, "1 if ", " else 2", "1"},
        {TEMPLATE_JINJA, "{1:", "}", "1"},
        {TEMPLATE_GO, "(", ")", "1"},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct buf b = {0};
        buf_add(&b, "{{ ", 3);
        for (u32 k = 0; k < 50000; k++)
            buf_add_str(&b, str_of(cases[i].open));
        buf_add_str(&b, str_of(cases[i].middle));
        for (u32 k = 0; k < 50000; k++)
            buf_add_str(&b, str_of(cases[i].close));
        buf_add(&b, " }}", 3);
        expect(cases[i].kind, buf_str(&b), ERR_INVALID, NULL);
        buf_release(&b);
    }
    struct buf b = {0};
    for (u32 k = 0; k < 20000; k++)
        buf_add_str(&b, STR("{% if true %}{% endif %}"));
    expect(TEMPLATE_JINJA, buf_str(&b), OK, "");
    buf_clear(&b);
    for (u32 k = 0; k < 200; k++)
        buf_add_str(&b, STR("{% if true %}"));
    expect(TEMPLATE_JINJA, buf_str(&b), ERR_INVALID, "nested too deep");
    buf_clear(&b);
    buf_add_str(&b, STR("{% if false %}"));
    for (u32 k = 0; k < 5000; k++)
        buf_add_str(&b, STR("{% elif false %}"));
    buf_add_str(&b, STR("{% else %}end{% endif %}"));
    expect(TEMPLATE_JINJA, buf_str(&b), OK, "end");
    buf_clear(&b);
    buf_reserve(&b, LIMIT_TEMPLATE_BYTES + 1u);
    memset(b.p, 'x', LIMIT_TEMPLATE_BYTES + 1u);
    b.n = LIMIT_TEMPLATE_BYTES + 1u;
    expect(TEMPLATE_JINJA, buf_str(&b), ERR_TOO_LARGE, "at most");
    expect(TEMPLATE_GO, buf_str(&b), ERR_TOO_LARGE, "at most");
    buf_release(&b);
}

/* Goal: an error says where and what. */
static void test_messages(void **state) {
    static const struct {
        enum template_kind kind;
        const char *source, *text;
    } cases[] = {
        {TEMPLATE_JINJA, "a\nb{{ x.y }}", "line 2: 'x' is undefined"},
        {TEMPLATE_JINJA, "\n\n{% for a in %}", "line 3: an expression is missing"},
        {TEMPLATE_JINJA, "{% if x %}", "'elif' is missing"},
        {TEMPLATE_JINJA, "{% frob %}", "unknown statement 'frob'"},
        {TEMPLATE_JINJA, "{% include 'x' %}", "unknown statement 'include'"},
        {TEMPLATE_JINJA, "{{ 1|frob }}", "no filter 'frob'"},
        {TEMPLATE_JINJA, "{{ 1 is frob }}", "no test 'frob'"},
        {TEMPLATE_JINJA, "{{ raise_exception('the text itself') }}", "the text itself"},
        {TEMPLATE_JINJA, "{{ list.append(1) }}", "'append' is undefined"},
        {TEMPLATE_JINJA, "{{ 1 + 'a' }}", "'+' does not work"},
        {TEMPLATE_JINJA, "{{ 1 // 0 }}", "division by zero"},
        {TEMPLATE_JINJA, "{{ 9223372036854775807 + 1 }}", "beyond 64 bits"},
        {TEMPLATE_JINJA, "{{ range(1000000) }}", "at most 100000"},
        {TEMPLATE_JINJA, "{{ 'a", "the string has no end"},
        {TEMPLATE_JINJA, "{{ a ", "the tag has no end"},
        {TEMPLATE_JINJA, "{# a ", "the comment has no end"},
        {TEMPLATE_JINJA, "{% raw %} a ", "no endraw"},
        {TEMPLATE_JINJA, "{{ a ] }}", "closing bracket"},
        {TEMPLATE_JINJA, "{{ ? }}", "unexpected character"},
        {TEMPLATE_JINJA, "{% set list.x = 1 %}", "only attributes of a namespace"},
        {TEMPLATE_JINJA, "{% set 1 = 1 %}", "cannot assign"},
        {TEMPLATE_JINJA, "{% macro m(a) %}{% endmacro %}{{ m(1, 2) }}", "at most 1 arguments"},
        {TEMPLATE_JINJA, "{% macro m(a) %}{% endmacro %}{{ m(b=2) }}", "takes no argument 'b'"},
        {TEMPLATE_JINJA, "{% for a, b in [[1]] %}{% endfor %}", "1 values for 2 names"},
        {TEMPLATE_GO, "a\n{{ nofunc }}", "line 2: function 'nofunc' is not defined"},
        {TEMPLATE_GO, "{{ $x }}", "undefined variable '$x'"},
        {TEMPLATE_GO, "{{ if .L }}", "'end' is missing"},
        {TEMPLATE_GO, "{{ end }}", "without its begin"},
        {TEMPLATE_GO, "{{ break }}", "cannot stand here"},
        {TEMPLATE_GO, "{{ .L.x }}", "has no field 'x'"},
        {TEMPLATE_GO, "{{ index .L 7 }}", "out of range: 7"},
        {TEMPLATE_GO, "{{ template \"x\" }}", "'x' is not defined"},
        {TEMPLATE_GO, "{{ json }}", "wrong number of arguments for json"},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        expect(cases[i].kind, str_of(cases[i].source), ERR_INVALID, cases[i].text);
}

/* Goal: constructs beyond the random golden cases. Expected texts by hand from the documentation of Jinja. */
static void test_jinja_extras(void **state) {
    static const struct {
        const char *source, *text;
    } cases[] = {
        {"{% macro box(t) %}<{{ t }}:{{ caller() }}>{% endmacro %}{% call box('a') %}b{% endcall %}",
         "<a:b>"},
        {"{% macro each(l) %}{% for x in l %}{{ caller(x) }}{% endfor %}{% endmacro %}{% call(v) each([1,2]) "
         "%}[{{ v }}]{% endcall %}",
         "[1][2]"},
        {"{% for x in [[1,[2]],[3]] recursive %}{{ x[0] }}{% if x[1] %}({{ loop([x[1]]) }}){% endif %}{{ "
         "loop.depth }}{% endfor %}",
         "1(22)131"},
        {"{% set c = cycler('a', 'b') %}{{ c.next() }}{{ c.next() }}{{ c.current }}{% set r = c.reset() %}{{ "
         "c.next() }}",
         "abaa"},
        {"{% set j = joiner('|') %}{{ j() }}a{{ j() }}b", "a|b"},
        {"{% set x | upper | trim %} a {% endset %}{{ x }}", "A"},
        {"{{ '<' | safe + '<' }}{{ '<' | e }}", "<&lt;&lt;"},
        {"{{ strftime_now('%H:%M') }}", "01:00"},
        {"{{ 'a\\x41\\u00e9\\101\\q' 'b' }}", "aA\xc3\xa9"
                                              "A\\qb"},
        {"{% block head %}{{ list[0] }}{% endblock head %}", "1"},
        {"{% print 1, 2 %}", "(1, 2)"},
        {"a\r\nb\r{{ 1 }}\r\n", "a\nb\n1"},
        {"{{ 1 if false }}{{ (1 if false) is undefined }}", "True"},
        {"{{ {1: 'a', 1.0: 'b', none: 'c'} }}", "{1: 'b', None: 'c'}"},
        {"{{ '%(a)s-%(b)03d' % {'a': 'x', 'b': 7} }}", "x-007"},
        {"{{ dict([('a', 1)], b=2) }}", "{'a': 1, 'b': 2}"},
        {"{{ list.index(1) }}{{ (1, 1).count(1) }}{{ 2.0.is_integer() }}", "02True"},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        expect(TEMPLATE_JINJA, str_of(cases[i].source), OK, cases[i].text);
}

static void test_go_extras(void **state) {
    (void)state;
    expect(TEMPLATE_GO, STR("{{ currentDate }} {{ yesterdayDate }}"), OK, "1970-01-01 1969-12-31<no value>");
    expect(TEMPLATE_GO, STR("{{ .L }}"), OK, "[1]<no value>"); /* what mentions no .Response gets one */
    expect(TEMPLATE_GO, STR("{{ .Messages }}{{ .L }}"), OK, "<no value>[1]");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_jinja_bombs),  cmocka_unit_test(test_go_bombs),
        cmocka_unit_test(test_depth),        cmocka_unit_test(test_messages),
        cmocka_unit_test(test_jinja_extras), cmocka_unit_test(test_go_extras),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
