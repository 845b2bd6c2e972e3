/* Answers split into text, thoughts and calls, in the style that a template has. The templates are our own,
 * with the constructs of the families that their names tell. Every case is fed whole, byte by byte, and cut
 * in two at every place: the result is the same. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/limit.h"
#include "chat/output.h"
#include "chat/template.h"

#define GO_LIST(before, each, after)                                                                         \
    "{{ if .Tools }}Helpers: {{ .Tools }}{{ end }}{{ range .Messages }}({{ .Role }}){{ .Content }}"          \
    "{{ if .ToolCalls }}" before "{{ range .ToolCalls }}" each "{{ end }}" after "{{ end }}{{ end }}"
#define NAMED(arguments) "{\"name\": \"{{ .Function.Name }}\", \"" arguments "\": {{ .Function.Arguments }}}"
#define GO_HERMES GO_LIST("<tool_call>", NAMED("arguments"), "</tool_call>")
#define GO_BARE GO_LIST("", NAMED("parameters"), "")
#define GO_MISTRAL GO_LIST("[TOOL_CALLS] [", NAMED("arguments"), "]")
#define GO_OWN_TAG GO_LIST("!!call ", "{{ .Function.Name }} {{ .Function.Arguments }}", "")
#define GO_THINKS                                                                                            \
    "{{ range .Messages }}{{ if .Thinking }}\n<ponder>{{ .Thinking }}</ponder>\n{{ end }}{{ .Content }}{{ "  \
    "end }}"
#define JINJA_HERMES                                                                                         \
    "{% if tools %}{{ tools }}{% endif %}{% for m in messages %}<think>{{ m.t }}</think>{% for c in "        \
    "m.tool_calls %}<tool_call>{\"name\": {{ c.name }}, \"arguments\": {{ c.arguments }}}</tool_call>"       \
    "{% endfor %}{% endfor %}"
#define JINJA_LLAMA                                                                                          \
    "{% if tools %}{{ tools }}{% endif %}{% for m in messages %}{{ m.content }}{% if m.tool_calls %}"        \
    "<|python_tag|>{\"name\": {{ c.name }}, \"parameters\": {{ c.arguments }}}{% endif %}{% endfor %}"
#define JINJA_MISTRAL "{{ tools }}{% for m in messages %}[TOOL_CALLS]{{ m.tool_calls }}{% endfor %}"
#define JINJA_PLAIN "{% for m in messages %}{{ m.content }}{% endfor %}"

static const char tools_json[] =
    "[{\"type\":\"function\",\"function\":{\"name\":\"get\",\"parameters\":{\"type\":\"object\","
    "\"properties\":{}}}},"
    "{\"type\":\"function\",\"function\":{\"name\":\"get_weather\",\"description\":\"d\"}},"
    "{\"type\":\"function\",\"function\":{\"name\":\"add\"}}]";

struct fixture {
    struct chat_template *t;
    struct arena arena;
    struct chat_tools tools;
    struct output_config config;
};

static void start(struct fixture *f, const char *source) {
    struct err err;
    enum template_kind kind =
        strstr(source, "{%") || strstr(source, "{{ tools") ? TEMPLATE_JINJA : TEMPLATE_GO;
    *f = (struct fixture){0};
    if (template_open(str_of(source), kind, &f->t, &err) != OK)
        fail_msg("%s", err.text);
    arena_init(&f->arena, 0);
    assert_int_equal(chat_tools_read(STR(tools_json), &f->arena, &f->tools, &err), OK);
    f->config = (struct output_config){
        .style = template_style(f->t), .tools = &f->tools, .think = true, .id_seed = 7};
}

static void end(struct fixture *f) {
    template_close(f->t);
    arena_release(&f->arena);
}

/* "T" text, "K" thought, "C" name and arguments; neighbours of a kind are one. */
static void note(struct buf *b, const struct output *o, char *last) {
    for (u32 i = 0; i < output_n_pieces(o); i++) {
        struct output_piece p = output_piece_at(o, i);
        char kind = "TKC"[p.kind];
        if (kind != *last || kind == 'C')
            buf_printf(b, "%s%c:", b->n ? "|" : "", kind);
        *last = kind;
        if (p.kind == OUTPUT_CALL) {
            assert_true(p.call.id.n == 13 || p.call.id.n == 9);
            buf_printf(b, "%.*s%.*s", STR_FMT(p.call.name), STR_FMT(p.call.arguments));
        } else {
            assert_true(p.text.n > 0);
            buf_add_str(b, p.text);
        }
    }
}

/* Pieces of `size` bytes, the first of `first` bytes. */
static void feed(const struct output_config *c, struct str text, size_t first, size_t size, struct buf *out) {
    struct output *o = output_new(c);
    char last = 0;
    buf_clear(out);
    for (size_t at = 0; at < text.n;) {
        size_t n = at ? size : first;
        output_push(o, str_slice(text, at, at + n), false);
        note(out, o, &last);
        at += n;
    }
    output_push(o, STR_NONE, true);
    note(out, o, &last);
    output_free(o);
}

static void expect(struct fixture *f, const char *answer, const char *want) {
    struct buf got = {0};
    struct str text = str_of(answer);
    for (size_t first = 1; first <= text.n; first++) {
        feed(&f->config, text, first, first == 1 ? 1 : text.n, &got);
        if (!str_is(buf_str(&got), want))
            fail_msg("cut at %zu: \"%s\" gave \"%s\", not \"%s\"", first, answer, buf_cstr(&got), want);
    }
    feed(&f->config, text, text.n, text.n, &got);
    if (!str_is(buf_str(&got), want))
        fail_msg("\"%s\" gave \"%s\", not \"%s\"", answer, buf_cstr(&got), want);
    buf_release(&got);
}

#define W "{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Rome\", \"a\": [1, 2.5, {\"x\": null}]}}"
#define W_CALL "C:get_weather{\"city\":\"Rome\",\"a\":[1,2.5,{\"x\":null}]}"
#define ADD "{\"name\": \"add\", \"arguments\": {\"z\": \"}<\\\"\", \"b\": true}}"
#define ADD_CALL "C:add{\"z\":\"}<\\\"\",\"b\":true}"

/* Goal: a tag with its end, alone, several, with text around, with thoughts before. */
static void test_hermes(void **state) {
    static const char *const sources[] = {GO_HERMES, JINJA_HERMES};
    (void)state;
    for (u32 i = 0; i < ARRAY_LEN(sources); i++) {
        struct fixture f;
        start(&f, sources[i]);
        expect(&f, "Hello <b>tool</b> < tool_call", "T:Hello <b>tool</b> < tool_call");
        expect(&f, "<tool_call>\n" W "\n</tool_call>", W_CALL);
        expect(&f, "Sure.\n<tool_call>" W "</tool_call>\n<tool_call>\n" ADD "\n</tool_call>\n",
               "T:Sure.\n|" W_CALL "|" ADD_CALL);
        expect(&f, "<tool_call>" W "\n" ADD "</tool_call> Done.", W_CALL "|" ADD_CALL "|T:Done.");
        expect(&f, "<tool_call>[" W ", " ADD "]</tool_call>", W_CALL "|" ADD_CALL);
        expect(&f, "<tool_call>" W "<tool_call>" ADD, W_CALL "|" ADD_CALL);
        expect(&f, "a <tool_cal", "T:a <tool_cal");
        expect(&f, "a</tool_call>b", "T:ab");
        /* no calls: text without the tags */
        expect(&f, "<tool_call>{\"name\": \"unknown\", \"arguments\": {}}</tool_call>.",
               "T:{\"name\": \"unknown\", \"arguments\": {}}.");
        expect(&f, "<tool_call>{\"name\": get, }</tool_call>", "T:{\"name\": get, }");
        expect(&f, "<tool_call>later</tool_call>", "T:later");
        expect(&f, "<tool_call>{\"name\": \"get\", \"argu", "T:{\"name\": \"get\", \"argu");
        expect(&f, "<tool_call>[" W ", {\"name\": \"no\"}]</tool_call>", "T:[" W ", {\"name\": \"no\"}]");
        /* broken JSON ends with the tag that cannot be in it; tags in what is no call are dropped too */
        expect(&f, "<tool_call>{\"name\": \"get\" </tool_call> and", "T:{\"name\": \"get\"  and");
        expect(&f, "<tool_call>{\"name\": <tool_call>" ADD "</tool_call>", "T:{\"name\": |" ADD_CALL);
        expect(&f, "<tool_call>{\"a\": \"</tool_call>\"}.", "T:{\"a\": \"\"}.");
        expect(&f, "<tool_call>{\"a\": \"<tool_call> and </tool_call>", "T:{\"a\": \" and ");
        expect(&f, "<tool_call>{\"name\": \"add\", \"arguments\": {\"a\": \"</tool_call>\"}}",
               "C:add{\"a\":\"</tool_call>\"}");
        /* what was cut off behind a call is gone */
        expect(&f, "<tool_call>" W "</tool_call><tool_call>", W_CALL);
        expect(&f, "<tool_call>" W "{\"name\": \"g", W_CALL);
        expect(&f, "<tool_call>" W "</tool_call><tool_call>{\"name\": \"g", W_CALL);
        expect(&f, "<tool_call>" W "</tool_call><tool_call>{\"name\": 1}", W_CALL "|T:{\"name\": 1}");
        /* other spellings of a call */
        expect(&f, "<tool_call>{\"name\": \"add\"}</tool_call>", "C:add{}");
        expect(&f, "<tool_call>{\"name\": \"add\", \"arguments\": null}</tool_call>", "C:add{}");
        expect(&f, "<tool_call>{\"name\": \"add\", \"arguments\": \"{\\\"a\\\": 1}\"}</tool_call>",
               "C:add{\"a\":1}");
        expect(&f, "<tool_call>{\"name\": \"add\", \"arguments\": [1]}</tool_call>",
               "T:{\"name\": \"add\", \"arguments\": [1]}");
        expect(&f,
               "<tool_call>{\"type\": \"function\", \"function\": {\"name\": \"add\", \"parameters\": "
               "{\"a\": 1}}}",
               "C:add{\"a\":1}");
        expect(&f, "<tool_call>{\"add\": {\"a\": 1}}</tool_call>", "C:add{\"a\":1}");
        expect(&f, "<tool_call>get_weather\n{\"name\": \"Rome\"}\n</tool_call>",
               "C:get_weather{\"name\":\"Rome\"}");
        expect(&f, "<tool_call>add {\"name\": \"add\", \"arguments\": {\"a\": 1}}</tool_call>",
               "C:add{\"a\":1}");
        f.config.tools = NULL;
        expect(&f, "<tool_call>{}", "T:<tool_call>{}");
        end(&f);
    }
}

/* Goal: calls without a tag: only an answer that begins like JSON may be one. */
static void test_bare(void **state) {
    static const char *const sources[] = {GO_BARE, JINJA_LLAMA};
    (void)state;
    for (u32 i = 0; i < ARRAY_LEN(sources); i++) {
        struct fixture f;
        start(&f, sources[i]);
        assert_true(f.config.style->parameters);
        expect(&f, "{\"name\": \"get\", \"parameters\": {\"q\": \"{\"}}", "C:get{\"q\":\"{\"}");
        expect(&f, " \n" W "; " ADD, W_CALL "|" ADD_CALL);
        expect(&f, "[" W "," ADD "]", W_CALL "|" ADD_CALL);
        expect(&f, W "\n\nThat was it. {\"name\": \"get\"}", W_CALL "|T:That was it. {\"name\": \"get\"}");
        expect(&f, "It is " W, "T:It is " W);
        expect(&f, "{\"answer\": {\"name\": \"Ada\"}} is it", "T:{\"answer\": {\"name\": \"Ada\"}} is it");
        expect(&f, "[1, 2]", "T:[1, 2]");
        expect(&f, "[ ", "T:[ ");
        expect(&f, "{\"name\": \"ge", "T:{\"name\": \"ge");
        expect(&f, "  ", "T:  ");
        end(&f);
    }
    struct fixture f;
    start(&f, JINJA_LLAMA);
    expect(&f, "<|python_tag|>{\"name\": \"add\", \"parameters\": {}}", "C:add{}");
    expect(&f, "See: <|python_tag|>{\"name\": \"add\", \"parameters\": {}} <|python_tag|>",
           "T:See: |C:add{}");
    expect(&f, "<|python_tag|>print(1)", "T:print(1)");
    end(&f);
}

/* Goal: an array behind a tag, and names with a second tag. */
static void test_mistral(void **state) {
    static const char *const sources[] = {GO_MISTRAL, JINJA_MISTRAL};
    (void)state;
    for (u32 i = 0; i < ARRAY_LEN(sources); i++) {
        struct fixture f;
        start(&f, sources[i]);
        assert_true(f.config.style->list && str_is(f.config.style->call_open, "[TOOL_CALLS]"));
        assert_int_equal(f.config.style->short_ids, i == 1); /* Jinja templates check them */
        expect(&f, "[TOOL_CALLS] [" W ", " ADD "]", W_CALL "|" ADD_CALL);
        expect(&f, "[TOOL_CALLS]get_weather[ARGS]{\"city\": \"R\"}", "C:get_weather{\"city\":\"R\"}");
        expect(&f, "[TOOL_CALLS]get[CALL_ID]abc123[ARGS]{}[TOOL_CALLS]add[ARGS]{\"a\": [1]}",
               "C:get{}|C:add{\"a\":[1]}");
        expect(&f, "[TOOLS] [TOOL_CALLS]", "T:[TOOLS] ");
        expect(&f, "Yes.[TOOL_CALLS]nothing[ARGS]{\"a\": 1}", "T:Yes.nothing[ARGS]{\"a\": 1}");
        end(&f);
    }
}

/* Goal: a tag that only this template has; what follows calls has no end and is dropped. */
static void test_own_tag(void **state) {
    struct fixture f;
    (void)state;
    start(&f, GO_OWN_TAG);
    assert_true(str_is(f.config.style->call_open, "!!call"));
    expect(&f, "No! !!cal", "T:No! !!cal");
    expect(&f, "!!call get_weather {\"city\": \"R\"}", "C:get_weather{\"city\":\"R\"}");
    expect(&f, "!!call get {\"a\": 1} !!call add {} and so on", "C:get{\"a\":1}|C:add{}");
    expect(&f, "!!call forget_it {\"a\": 1}", "T: forget_it {\"a\": 1}");
    expect(&f, "!!call forget get:1 {\"a\": 1}", "C:get{\"a\":1}");
    expect(&f, "!!call put {\"a\": 1}!", "T: put {\"a\": 1}!");
    end(&f);
}

/* Goal: thoughts at the beginning, begun by the prompt, hidden, without an end; calls behind them. */
static void test_thoughts(void **state) {
    struct fixture f;
    (void)state;
    start(&f, JINJA_HERMES);
    expect(&f, "<think>\nHm. <thi\n</think>\n\nYes <think>", "K:Hm. <thi\n|T:Yes <think>");
    expect(&f, " \n<think></think>Yes", "T:Yes");
    expect(&f, "Yes <think>no</think>", "T:Yes <think>no</think>");
    expect(&f, "<thinking> is hard", "T:<thinking> is hard");
    expect(&f, " <thin", "T: <thin");
    expect(&f, "<think>on and on </thin", "K:on and on </thin");
    expect(&f, "<think>x</think>\n<tool_call>" W "</tool_call>", "K:x|" W_CALL);
    expect(&f, "<think><tool_call>" W "</tool_call></think>y", "K:<tool_call>" W "</tool_call>|T:y");
    f.config.think_begun = true;
    expect(&f, "\nHm.</think>\nYes", "K:Hm.|T:Yes");
    f.config.think_hidden = true;
    expect(&f, "\nHm.</think>\nYes", "T:Yes");
    f.config.think = false;
    expect(&f, "<think>", "T:<think>");
    end(&f);
    start(&f, GO_THINKS);
    expect(&f, "<ponder>\nHm.</ponder> Yes", "K:Hm.|T:Yes");
    end(&f);
    start(&f, JINJA_LLAMA);
    assert_false(f.config.style->can.thinking);
    end(&f);
}

/* Goal: nothing grows without bound: long text in front of JSON, JSON without end, deep JSON, many calls. */
static void test_bounds(void **state) {
    struct fixture f;
    struct buf text = {0}, got = {0};
    (void)state;
    start(&f, GO_HERMES);
    buf_add_str(&text, STR("<tool_call>"));
    for (u32 i = 0; i < 3000; i++)
        buf_add_str(&text, STR("word "));
    feed(&f.config, buf_str(&text), 100, 100, &got);
    assert_int_equal(got.n, 2 + text.n - 11);
    buf_clear(&text);
    buf_add_str(&text, STR("<tool_call>{\"name\": \"add\", \"arguments\": {\"a\": \""));
    while (text.n < LIMIT_CALL_BYTES + 1000)
        buf_add_str(&text, STR("0123456789012345678901234567890123456789"));
    feed(&f.config, buf_str(&text), 4096, 4096, &got);
    assert_int_equal(got.n, 2 + text.n - 11);
    buf_clear(&text);
    buf_add_str(&text, STR("<tool_call>"));
    for (u32 i = 0; i < 1000; i++)
        buf_add_str(&text, STR("{\"a\":"));
    for (u32 i = 0; i < 1000; i++)
        buf_add_char(&text, '}');
    feed(&f.config, buf_str(&text), 64, 64, &got);
    assert_int_equal(got.n, 2 + text.n - 11);
    buf_clear(&text);
    buf_add_str(&text, STR("<tool_call>["));
    for (u32 i = 0; i < 100; i++)
        buf_add_str(&text, STR("{\"name\": \"add\"},"));
    text.p[text.n - 1] = ']';
    feed(&f.config, buf_str(&text), 64, 64, &got);
    assert_int_equal(got.n, 2 + text.n - 11); /* more at once than any model means */
    buf_release(&text);
    buf_release(&got);
    end(&f);
}

static void ids_of(const struct output_config *c, char out[4][16]) {
    struct output *o = output_new(c);
    output_push(o, STR("<tool_call>" ADD W "</tool_call><tool_call>" ADD ADD "</tool_call>"), true);
    assert_int_equal(output_n_pieces(o), 4);
    for (u32 i = 0; i < 4; i++)
        snprintf(out[i], 16, "%.*s", STR_FMT(output_piece_at(o, i).call.id));
    output_free(o);
}

/* Goal: ids are the same for the same request, and others for each call and request. */
static void test_ids(void **state) {
    struct fixture f;
    char first[4][16] = {0}, second[4][16] = {0};
    (void)state;
    start(&f, GO_HERMES);
    ids_of(&f.config, first);
    ids_of(&f.config, second);
    assert_memory_equal(first, second, sizeof first);
    assert_memory_equal(first[0], "call_", 5);
    f.config.id_seed++;
    ids_of(&f.config, second);
    for (u32 i = 0; i < 4; i++)
        for (u32 k = 0; k < 4; k++) {
            assert_string_not_equal(first[i], second[k]);
            assert_true(i == k || strcmp(first[i], first[k]) != 0);
        }
    end(&f);
}

/* --- random answers: pieces of a grammar, put together at random; every cut gives the same --- */

static u64 random_next(u64 *s) {
    *s = *s * 6364136223846793005u + 1442695040888963407u;
    return *s >> 33;
}

/* No text holds a tag, whatever the model wrote. */
static void assert_no_tag(const struct output_config *c, struct str text) {
    const struct str tags[] = {c->style->call_open, c->style->call_close, c->style->call_other};
    struct output *o = output_new(c);
    output_push(o, text, true);
    for (u32 i = 0; i < output_n_pieces(o); i++)
        for (u32 k = 0; k < ARRAY_LEN(tags); k++) {
            struct output_piece p = output_piece_at(o, i);
            if (p.kind == OUTPUT_TEXT && tags[k].n && str_find(p.text, tags[k], 0) != SIZE_MAX)
                fail_msg("\"%.*s\" shows a tag: \"%.*s\"", STR_FMT(text), STR_FMT(p.text));
        }
    output_free(o);
}

static void test_any_cut(void **state) {
    static const char *const sources[] = {GO_HERMES,     JINJA_HERMES, GO_BARE,   JINJA_LLAMA, GO_MISTRAL,
                                          JINJA_MISTRAL, GO_OWN_TAG,   GO_THINKS, JINJA_PLAIN};
    static const char *const parts[] = {"<think>",
                                        "</think>",
                                        "<tool_call>",
                                        "</tool_call>",
                                        "[TOOL_CALLS]",
                                        "!!call",
                                        "<|python_tag|>",
                                        W,
                                        ADD,
                                        "{",
                                        "}",
                                        "[",
                                        "]",
                                        "\"",
                                        "\\",
                                        " ",
                                        "\n",
                                        ",",
                                        ";",
                                        "get",
                                        "get_weather",
                                        "[ARGS]",
                                        "w\xc3\xb6rd ",
                                        "<",
                                        "</",
                                        "<ponder>",
                                        "</ponder>",
                                        "{\"name\": \"get\"}",
                                        "[{",
                                        "{}",
                                        "<tool_call",
                                        "a"};
    u64 seed = 42;
    (void)state;
    for (u32 round = 0; round < 20000; round++) {
        struct fixture f;
        struct buf text = {0}, whole = {0}, cut = {0};
        start(&f, sources[round % ARRAY_LEN(sources)]);
        f.config.think_begun = random_next(&seed) % 4 == 0;
        for (u64 n = random_next(&seed) % 12; n > 0; n--)
            buf_add_str(&text, str_of(parts[random_next(&seed) % ARRAY_LEN(parts)]));
        size_t first = random_next(&seed) % (text.n + 1) + 1, size = random_next(&seed) % 9 + 1;
        feed(&f.config, buf_str(&text), text.n + 1, 1, &whole);
        feed(&f.config, buf_str(&text), first, size, &cut);
        assert_no_tag(&f.config, buf_str(&text));
        if (!str_eq(buf_str(&whole), buf_str(&cut)))
            fail_msg("\"%s\" gave \"%s\" whole and \"%s\" cut after %zu by %zu, template %u", buf_cstr(&text),
                     buf_cstr(&whole), buf_cstr(&cut), first, size, round % (u32)ARRAY_LEN(sources));
        buf_release(&text);
        buf_release(&whole);
        buf_release(&cut);
        end(&f);
    }
}

/* Goal: the choice between a layer and the file's template is the reference's. */
static void test_choice(void **state) {
    static const struct template_can none,
        tools = {.tools = true}, round = {.tools = true, .round_trip = true},
        both = {.tools = true, .thinking = true}, insert = {.insert = true};
    (void)state;
    assert_false(style_prefers_jinja(&none, &none));
    assert_true(style_prefers_jinja(&tools, &none));
    assert_false(style_prefers_jinja(&none, &tools));
    assert_true(style_prefers_jinja(&both, &tools));
    assert_false(style_prefers_jinja(&both, &round)); /* more, but no results of calls */
    assert_true(style_prefers_jinja(&round, &tools));
    assert_false(style_prefers_jinja(&tools, &round));
    assert_false(style_prefers_jinja(&round, &round));
    assert_false(style_prefers_jinja(&tools, &insert));
}

static struct template_style style_of(const char *source, bool go) {
    struct chat_template *t;
    struct err err;
    if (template_open(str_of(source), go ? TEMPLATE_GO : TEMPLATE_JINJA, &t, &err) != OK)
        fail_msg("%s", err.text);
    struct template_style s = *template_style(t);
    /* Only what does not lie in the template is looked at. */
    s.think_open = s.think_close = s.call_open = STR_NONE;
    template_close(t);
    return s;
}

/* Goal: what a template can do, and the odd ways to say it. */
static void test_abilities(void **state) {
    (void)state;
    assert_false(style_of("{{ .System }}{{ .Prompt }}", true).can.tools);
    struct template_can c = style_of("{{ .Tools }}{{ .Suffix }}{{ .Thinking }}", true).can;
    assert_true(c.tools && c.insert && !c.thinking &&
                !c.round_trip); /* .Thinking of no message has no tags */
    assert_true(style_of(GO_THINKS, true).can.thinking);
    assert_false(
        style_of("{{ range .Messages }}<a>{{ range .Parts }}{{ .Thinking }}{{ end }}</a>{{ end }}", true)
            .can.thinking);
    assert_true(style_of("{{ range .Messages }}<a>{{ with .Thinking }}{{ . }}{{ end }}</a>{{ end }}", true)
                    .can.thinking);
    assert_true(style_of(GO_HERMES "{{ range .Messages }}{{ if eq .Role \"tool\" }}{{ end }}{{ end }}", true)
                    .can.round_trip);
    c = style_of("{% if tools %}{{ m.tool_calls }}{% if message.role == 'tool' %}{% endif %}{% endif %}",
                 false)
            .can;
    assert_true(c.tools && c.round_trip && !c.thinking);
    assert_true(style_of("{{ content.split('</think>')[0] }}", false).can.thinking);
    assert_false(style_of("{{ content.split('</think>')[0] }}{{ reasoning_content }}", false).can.thinking);
    assert_false(style_of("{{ messages }}", false).can.tools);
}

/* Goal: the tag is what the reference takes for it. */
static void test_tags(void **state) {
    static const struct {
        const char *source, *tag;
    } cases[] = {
        {GO_HERMES, "<tool_call>"},
        {"{{ range .Messages }}{{ if .Content }}x{{ else if .ToolCalls }} [[{{ end }}{{ end }}", "[["},
        {"{{ range .Messages }}{{ if .ToolCalls }}{{ range .ToolCalls }}<c>{\"n\"{{ end }}{{ end }}{{ end }}",
         "<c>"},
        {"{{ if .ToolCalls }}{{ .Content }}<c>{{ end }}", ""}, /* printed before the text */
        {"{{ if .ToolCalls }}{{ if .A }}{{ else }}<e>{{ end }}{{ end }}", "<e>"},
        {"{{ if .ToolCalls }}{{ with .A }}{{ end }}<e>{{ end }}", ""},
        {"{{ with .M }}{{ if and .X .ToolCalls }}<d>{{ end }}{{ end }}", "<d>"},
        {"{{ if .ToolCalls }}[{{ end }}", ""},
        {"{{ if .ToolCalls }}<function=x{{ end }}", "<function=x"},
        {"{{ .Tools }}", ""},
    };
    (void)state;
    for (u32 i = 0; i < ARRAY_LEN(cases); i++) {
        struct fixture f;
        start(&f, cases[i].source);
        if (!str_is(f.config.style->call_open, cases[i].tag))
            fail_msg("%s: \"%.*s\"", cases[i].source, STR_FMT(f.config.style->call_open));
        end(&f);
    }
}

/* Goal: tools that are none are refused. */
static void test_tools(void **state) {
    static const char *const wrong[] = {
        "{}", "[1]", "[{}]", "[{\"function\":{\"name\":\"\"}}]", "[", "[{\"function\":3}]"};
    struct arena a;
    struct chat_tools t;
    struct err err;
    (void)state;
    arena_init(&a, 0);
    for (u32 i = 0; i < ARRAY_LEN(wrong); i++)
        assert_int_equal(chat_tools_read(str_of(wrong[i]), &a, &t, &err), ERR_INVALID);
    struct buf many = {0};
    json_open(&many, '[');
    for (u32 i = 0; i <= LIMIT_TOOLS; i++)
        json_raw(&many, STR("{\"function\":{\"name\":\"f\"}}"));
    json_close(&many, ']');
    assert_int_equal(chat_tools_read(buf_str(&many), &a, &t, &err), ERR_INVALID);
    buf_release(&many);
    assert_int_equal(chat_tools_read(STR(tools_json), &a, &t, &err), OK);
    assert_int_equal(t.n, 3);
    assert_true(str_is(t.parameters[0], "{\"type\":\"object\",\"properties\":{}}"));
    assert_int_equal(t.parameters[1].n, 0);
    assert_int_equal(chat_tools_find(&t, STR("add")), 2);
    assert_int_equal(chat_tools_find(&t, STR("ad")), 3);
    arena_release(&a);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hermes),    cmocka_unit_test(test_bare),     cmocka_unit_test(test_mistral),
        cmocka_unit_test(test_own_tag),   cmocka_unit_test(test_thoughts), cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_ids),       cmocka_unit_test(test_any_cut),  cmocka_unit_test(test_choice),
        cmocka_unit_test(test_abilities), cmocka_unit_test(test_tags),     cmocka_unit_test(test_tools),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
