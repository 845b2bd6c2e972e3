/* Prompts: variables, one BOS, dropped messages, the cut, Go's turns. The tokenizers are the tiny
 * vocabularies of tests/golden/data/tok. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "../../golden/vocab.h"
#include "chat/chat.h"

struct fixture {
    struct tokenizer *tokenizer;
    struct tokenize_scratch *scratch;
    struct chat_template *chat_template;
    struct arena arena;
    struct chat_prompt prompt;
    struct gen_request request;
    struct err err;
};

static void start(struct fixture *f, const char *vocab, const char *source, enum template_kind kind) {
    *f = (struct fixture){0};
    f->tokenizer = vocab_tiny(vocab);
    f->scratch = tokenize_scratch_new();
    arena_init(&f->arena, 0);
    if (source && template_open(str_of(source), kind, &f->chat_template, &f->err) != OK)
        fail_msg("%s", f->err.text);
    gen_request_init(&f->request);
    f->request.form = GEN_FORM_CHAT;
    f->request.num_ctx = 4096;
    f->request.num_keep = 4;
    f->request.truncate = true;
    f->request.add_special = true;
}

static void end(struct fixture *f) {
    tokenizer_close(f->tokenizer);
    tokenize_scratch_free(f->scratch);
    template_close(f->chat_template);
    chat_prompt_release(&f->prompt);
    arena_release(&f->arena);
}

static enum status render(struct fixture *f) {
    struct chat_model m = {f->tokenizer, f->chat_template};
    return chat_render(&m, f->scratch, &f->request, &f->arena, &f->prompt, &f->err);
}

static void rendered(struct fixture *f, const char *want) {
    if (render(f) != OK)
        fail_msg("%s", f->err.text);
    assert_string_equal(buf_cstr(&f->prompt.rendered), want);
}

static struct gen_message message(enum gen_role role, const char *content) {
    return (struct gen_message){.role = role, .content = str_of(content)};
}

#define PLAIN                                                                                                \
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}{% if add_generation_prompt "           \
    "%}<assistant>{% endif %}"

/* Goal: the variables that a template sees. */
static void test_variables(void **state) {
    struct fixture f;
    (void)state;
    start(&f, "spm",
          "{{ bos_token }}|{{ eos_token }}|{{ tools|tojson if tools else 'none' }}|{{ enable_thinking }}|{{ "
          "reasoning_effort }}|{{ extra }}|"
          "{% for m in messages %}{{ m.role }}:{{ m.content }}:{{ m.reasoning_content }}:{{ m.name }}:{{ "
          "m.tool_call_id }}"
          "{% for c in m.tool_calls or [] %}{{ c.type }} {{ c.function.name }} {{ c.function.arguments.a }} "
          "{{ c.id }}{% endfor %};{% endfor %}",
          TEMPLATE_JINJA);
    struct gen_tool_call call = {STR("id1"), STR("f"), STR("{\"b\":0,\"a\":[1]}")};
    struct gen_message messages[3] = {message(ROLE_USER, "q"), message(ROLE_ASSISTANT, ""),
                                      message(ROLE_TOOL, "r")};
    messages[1].thinking = STR("hm");
    messages[1].tool_calls = &call;
    messages[1].n_tool_calls = 1;
    messages[2].tool_name = STR("f");
    messages[2].tool_call_id = STR("id1");
    f.request.messages = messages;
    f.request.n_messages = 3;
    f.request.tools = STR("[{\"z\":1,\"a\":2}]");
    f.request.think = GEN_THINK_LOW;
    f.request.template_kwargs = STR("{\"extra\":\"x\",\"messages\":[]}");
    rendered(&f, "<s>|</s>|[{\"z\": 1, \"a\": 2}]|True|low|x|user:q:::;assistant::hm::function f [1] "
                 "id1;tool:r::f:id1;");
    f.request.tool_choice = GEN_TOOLS_NONE;
    f.request.think = GEN_THINK_DEFAULT;
    f.request.template_kwargs = STR_NONE;
    f.request.n_messages = 1;
    rendered(&f, "<s>|</s>|none||||user:q:::;");
    f.request.tools = STR("{}");
    f.request.tool_choice = GEN_TOOLS_AUTO;
    assert_int_equal(render(&f), ERR_INVALID);
    f.request.tools = STR("[");
    assert_int_equal(render(&f), ERR_INVALID);
    end(&f);
}

/* Goal: an assistant's last message is continued; one with tool calls is history. */
static void test_continue(void **state) {
    struct fixture f;
    (void)state;
    start(&f, "spm", PLAIN, TEMPLATE_JINJA);
    struct gen_tool_call call = {STR_NONE, STR("f"), STR_NONE};
    struct gen_message messages[2] = {message(ROLE_USER, "q"), message(ROLE_ASSISTANT, "The ans")};
    f.request.messages = messages;
    f.request.n_messages = 2;
    rendered(&f, "<user>q<assistant>The ans");
    messages[1].tool_calls = &call;
    messages[1].n_tool_calls = 1;
    rendered(&f, "<user>q<assistant>The ans<assistant>");
    f.request.n_messages = 0;
    rendered(&f, "<assistant>");
    end(&f);
}

static u32 count(const struct fixture *f, u32 id) {
    u32 n = 0;
    for (u32 i = 0; i < f->prompt.ids.n; i++)
        n += f->prompt.ids.ids[i] == id;
    return n;
}

/* Goal: one BOS, whoever writes it: the tokenizer, the template, the context. */
static void test_bos(void **state) {
    struct fixture f;
    (void)state;
    start(&f, "spm", "{{ bos_token }}" PLAIN, TEMPLATE_JINJA);
    u32 bos = tokenizer_bos(f.tokenizer);
    assert_true(tokenizer_adds_bos(f.tokenizer));
    struct gen_message m = message(ROLE_USER, "hi");
    f.request.messages = &m;
    f.request.n_messages = 1;
    assert_int_equal(render(&f), OK);
    assert_true(f.prompt.ids.ids[0] == bos);
    assert_int_equal(count(&f, bos), 1);
    u32 n = f.prompt.ids.n;
    u32 context[2] = {bos, 300};
    f.request.context = context;
    f.request.n_context = 2;
    assert_int_equal(render(&f), OK);
    assert_int_equal(count(&f, bos), 1);
    assert_int_equal(f.prompt.ids.n, n + 1);
    assert_true(f.prompt.ids.ids[1] == 300);
    f.request.context = context + 1;
    f.request.n_context = 1;
    assert_int_equal(render(&f), OK);
    assert_true(f.prompt.ids.ids[0] == bos && f.prompt.ids.ids[1] == 300);
    assert_int_equal(count(&f, bos), 1);
    context[1] = tokenizer_n_vocab(f.tokenizer);
    assert_int_equal(render(&f), ERR_INVALID);
    assert_non_null(strstr(f.err.text, "context holds"));
    f.request.n_context = 0;
    f.request.form = GEN_FORM_RAW;
    f.request.prompt = STR("hi");
    rendered(&f, "hi");
    assert_true(f.prompt.ids.ids[0] == bos);
    f.request.add_special = false;
    rendered(&f, "hi");
    assert_int_equal(count(&f, bos), 0);
    end(&f);
}

/* Goal: the longest suffix that fits, with the system messages and the last one; never fewer. Method: every
 * context size against a search that tries all starts. */
static void test_drop(void **state) {
    struct fixture f;
    struct gen_message messages[24];
    char texts[24][64];
    (void)state;
    start(&f, "bpe_gpt2", PLAIN, TEMPLATE_JINJA);
    for (u32 i = 0; i < 24; i++) {
        snprintf(texts[i], sizeof texts[i], "message %u %.*s", i, (int)(i * 7 % 40),
                 "a rather long tail of words to make a difference");
        messages[i] = message(i == 5 ? ROLE_SYSTEM : i % 2 ? ROLE_ASSISTANT : ROLE_USER, texts[i]);
    }
    messages[23].role = ROLE_USER;
    f.request.messages = messages;
    f.request.n_messages = 24;
    u32 size_from[24];
    for (u32 from = 0; from < 24; from++) { /* sizes by leaving messages out by hand */
        struct gen_message some[24];
        u32 n = 0;
        for (u32 i = 0; i < 24; i++)
            if (i >= from || messages[i].role == ROLE_SYSTEM)
                some[n++] = messages[i];
        f.request.messages = some;
        f.request.n_messages = n;
        assert_int_equal(render(&f), OK);
        size_from[from] = f.prompt.ids.n;
    }
    f.request.messages = messages;
    f.request.n_messages = 24;
    for (u32 num_ctx = 16; num_ctx < size_from[0] + 4; num_ctx += 5) {
        u32 from = 0, dropped = 0;
        while (from < 23 && size_from[from] > num_ctx)
            dropped += messages[from++].role != ROLE_SYSTEM;
        f.request.num_ctx = num_ctx;
        assert_int_equal(render(&f), OK);
        assert_non_null(strstr(buf_cstr(&f.prompt.rendered), "message 23"));
        assert_non_null(strstr(buf_cstr(&f.prompt.rendered), "message 5"));
        if (size_from[from] <= num_ctx - 1) {
            assert_int_equal(f.prompt.ids.n, size_from[from]);
            assert_int_equal(f.prompt.n_dropped, dropped);
        }
        assert_true(f.prompt.ids.n <= num_ctx - 1);
    }
    f.request.truncate = false;
    f.request.num_ctx = size_from[0];
    assert_int_equal(render(&f), ERR_INVALID);
    assert_non_null(strstr(f.err.text, "the prompt is longer than the context length"));
    f.request.num_ctx = size_from[0] + 1;
    assert_int_equal(render(&f), OK);
    end(&f);
}

/* Goal: a template that refuses to begin with the assistant gets the next message of the user as the first.
 */
static void test_refused_start(void **state) {
    struct fixture f;
    struct gen_message messages[20];
    (void)state;
    start(&f, "bpe_gpt2",
          "{% if messages[0].role != 'user' %}{{ raise_exception('starts with ' + messages[0].role) }}{% "
          "endif %}" PLAIN,
          TEMPLATE_JINJA);
    for (u32 i = 0; i < 20; i++)
        messages[i] = message(i % 5 == 0 || i == 19 ? ROLE_USER
                              : i % 5 == 2          ? ROLE_TOOL
                                                    : ROLE_ASSISTANT,
                              "eight tokens or more in a text");
    f.request.messages = messages;
    f.request.n_messages = 20;
    for (u32 num_ctx = 40; num_ctx < 400; num_ctx += 13) {
        f.request.num_ctx = num_ctx;
        if (render(&f) != OK)
            fail_msg("%u: %s", num_ctx, f.err.text);
        assert_true(str_starts(buf_str(&f.prompt.rendered), STR("<user>")));
    }
    f.request.messages = messages + 1;
    f.request.n_messages = 19;
    assert_int_equal(render(&f), ERR_INVALID);
    assert_string_equal(f.err.text, "starts with assistant");
    end(&f);
}

/* Goal: the cut of the middle: head num_keep + BOS, total num_ctx - max((num_ctx - keep) / 2, 1). */
static void test_cut(void **state) {
    struct fixture f;
    char text[600];
    (void)state;
    start(&f, "spm", NULL, TEMPLATE_JINJA);
    for (u32 i = 0; i < sizeof text - 1; i++)
        text[i] = (char)('a' + i * i % 26);
    text[sizeof text - 1] = 0;
    f.request.form = GEN_FORM_RAW;
    f.request.prompt = str_of(text);
    f.request.num_ctx = 1u << 16;
    assert_int_equal(render(&f), OK);
    u32 n = f.prompt.ids.n, all[1024];
    assert_true(n > 100 && n < 1024);
    memcpy(all, f.prompt.ids.ids, n * sizeof *all);
    static const u32 contexts[] = {4, 5, 16, 64, 99}, keeps[] = {0, 4, 3, 60, 1000000, UINT32_MAX};
    for (size_t c = 0; c < ARRAY_LEN(contexts); c++) {
        for (size_t k = 0; k < ARRAY_LEN(keeps); k++) {
            u32 num_ctx = contexts[c], keep = (u32)MIN((u64)keeps[k] + 1, num_ctx - 1);
            u32 total = num_ctx - MAX((num_ctx - keep) / 2, 1u);
            f.request.num_ctx = num_ctx;
            f.request.num_keep = keeps[k];
            assert_int_equal(render(&f), OK);
            assert_int_equal(f.prompt.ids.n, total);
            assert_int_equal(f.prompt.n_dropped, n - total);
            assert_memory_equal(f.prompt.ids.ids, all, keep * sizeof *all);
            assert_memory_equal(f.prompt.ids.ids + keep, all + n - (total - keep),
                                (total - keep) * sizeof *all);
        }
    }
    f.request.truncate = false;
    assert_int_equal(render(&f), ERR_INVALID);
    f.request.num_ctx = n + 1;
    assert_int_equal(render(&f), OK);
    assert_int_equal(f.prompt.n_dropped, 0);
    end(&f);
}

/* Goal: the Go forms: messages merged by role, older templates turn by turn and cut at .Response, a suffix.
 */
static void test_go(void **state) {
    struct fixture f;
    (void)state;
    struct gen_message messages[6] = {message(ROLE_SYSTEM, "S1"), message(ROLE_USER, "a"),
                                      message(ROLE_USER, "b"),    message(ROLE_ASSISTANT, "c"),
                                      message(ROLE_SYSTEM, "S2"), message(ROLE_USER, "d")};
    start(&f, "bpe_gpt2",
          "{{ .System }}|{{ range .Messages }}{{ .Role }}={{ .Content }};{{ end }}{{ .Think }}{{ .IsThinkSet "
          "}}{{ .ThinkLevel }}",
          TEMPLATE_GO);
    f.request.messages = messages;
    f.request.n_messages = 6;
    f.request.think = GEN_THINK_ON;
    rendered(&f, "S1\n\nS2|system=S1;user=a\n\nb;assistant=c;system=S2;user=d;truetruemedium");
    end(&f);

    start(&f, "bpe_gpt2",
          "{{ if .System }}<sys>{{ .System }}{{ end }}<user>{{ .Prompt }}<bot>{{ .Response }}<end>",
          TEMPLATE_GO);
    f.request.messages = messages;
    f.request.n_messages = 6;
    rendered(&f, "<sys>S1<user>a\n\nb<bot>c<end><sys>S2<user>d<bot>");
    messages[5].role = ROLE_ASSISTANT;
    f.request.n_messages = 6;
    rendered(&f, "<sys>S1<user>a\n\nb<bot>c<end><sys>S2<user><bot>d");
    end(&f);

    start(&f, "bpe_gpt2",
          "{{ if .Suffix }}<pre>{{ .Prompt }}<suf>{{ .Suffix }}<mid>{{ else }}{{ .Prompt }}{{ end }}{{ "
          ".Response }}",
          TEMPLATE_GO);
    f.request.form = GEN_FORM_FILL;
    f.request.prompt = STR("x =");
    f.request.suffix = STR("return x");
    rendered(&f, "<pre>x =<suf>return x<mid>");
    end(&f);

    start(&f, "bpe_gpt2", PLAIN, TEMPLATE_JINJA);
    f.request.form = GEN_FORM_FILL;
    assert_int_equal(render(&f), ERR_UNSUPPORTED);
    end(&f);
}

/* Goal: tools and calls print as Go's JSON prints them: structs in the order of their fields, maps sorted. */
static void test_go_tools(void **state) {
    struct fixture f;
    (void)state;
    start(&f, "bpe_gpt2",
          "{{ range .Tools }}{{ . }}{{ .Function.Name }}{{ range $k, $p := .Function.Parameters.Properties "
          "}} {{ $k }}:{{ $p.Type }}:{{ toTypeScriptType $p }}:{{ $p.Description }}{{ end }}{{ end }}\n"
          "{{ range .Messages }}{{ range .ToolCalls }}{{ .ID }} {{ .Function.Index }} {{ .Function.Name }} "
          "{{ .Function.Arguments }}{{ range $k, $v := .Function.Arguments }} {{ $k }}={{ $v }}{{ end }}{{ "
          "end }}{{ end }}",
          TEMPLATE_GO);
    struct gen_tool_call call = {STR("i"), STR("t"), STR("{\"z\":1000000,\"a\":\"<\"}")};
    struct gen_message m = message(ROLE_ASSISTANT, "");
    m.tool_calls = &call;
    m.n_tool_calls = 1;
    f.request.messages = &m;
    f.request.n_messages = 1;
    f.request.tools =
        STR("[{\"function\":{\"parameters\":{\"properties\":{\"q\":{\"description\":\"D\",\"type\":"
            "\"string\"},\"n\":{\"type\":[\"integer\",\"null\"]}},"
            "\"required\":[\"q\"],\"type\":\"object\"},\"name\":\"t\"},\"type\":\"function\"}]");
    rendered(&f, "{\"type\":\"function\",\"function\":{\"name\":\"t\",\"parameters\":{\"type\":\"object\","
                 "\"required\":[\"q\"],\"properties\":{\"n\":{\"type\":"
                 "[\"integer\",\"null\"]},\"q\":{\"type\":\"string\",\"description\":\"D\"}}}}}t n:[integer "
                 "null]:number | null: q:string:string:D\n"
                 "i 0 t {\"a\":\"\\u003c\",\"z\":1000000} a=< z=1e+06");
    end(&f);
}

/* Goal: without a template the contents are joined. */
static void test_no_template(void **state) {
    struct fixture f;
    struct gen_message messages[2] = {message(ROLE_SYSTEM, "s "), message(ROLE_USER, "u")};
    (void)state;
    start(&f, "bpe_gpt2", NULL, TEMPLATE_JINJA);
    f.request.messages = messages;
    f.request.n_messages = 2;
    rendered(&f, "s u");
    end(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_variables),
        cmocka_unit_test(test_continue),
        cmocka_unit_test(test_bos),
        cmocka_unit_test(test_drop),
        cmocka_unit_test(test_refused_start),
        cmocka_unit_test(test_cut),
        cmocka_unit_test(test_go),
        cmocka_unit_test(test_go_tools),
        cmocka_unit_test(test_no_template),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
