/* The grammar of whole answers: what a demanded call may look like in each style, thoughts in front, a format
 * or a call. The vocabulary is the 256 bytes and a few control tokens, so that every text can be fed; what
 * the grammar lets through is then split by the parser of answers, which must find the calls. */
#include "../tokenize/sample.h"

#include "chat/answer.h"
#include "chat/output.h"
#include "chat/template.h"

static struct sample sample;
static struct tokenizer *tokenizer;
static struct grammar_vocab *vocab;

static int open_vocab(void **state) {
    (void)state;
    sample_init_bytes(&sample);
    sample_add(&sample, STR("<|im_end|>"), CONTROL, 0);
    sample_add(&sample, STR("[TOOL_CALLS]"), CONTROL, 0);
    sample_add(&sample, STR("</hidden>"), CONTROL, 0);
    tokenizer = sample_open_ok(&sample);
    vocab = grammar_vocab_new(tokenizer);
    return 0;
}

static int close_vocab(void **state) {
    (void)state;
    grammar_vocab_free(vocab);
    tokenizer_close(tokenizer);
    return 0;
}

struct fixture {
    struct arena arena;
    struct chat_tools tools;
    struct template_style style;
    struct gen_request r;
    struct answer_config config;
};

static void start(struct fixture *f, const char *open, const char *close) {
    struct err err;
    *f = (struct fixture){0};
    arena_init(&f->arena, 0);
    assert_int_equal(
        chat_tools_read(STR("[{\"function\":{\"name\":\"add\",\"parameters\":{\"type\":\"object\","
                            "\"properties\":{\"n\":{\"type\":\"integer\"}},\"required\":[\"n\"]}}},"
                            "{\"function\":{\"name\":\"now\"}}]"),
                        &f->arena, &f->tools, &err),
        OK);
    f->style.call_open = str_of(open);
    f->style.call_close = str_of(close);
    gen_request_init(&f->r);
    f->r.form = GEN_FORM_CHAT;
    f->r.tool_choice = GEN_TOOLS_REQUIRED;
    f->config = (struct answer_config){&f->r, tokenizer, &f->style, &f->tools, false};
}

static const struct grammar_part *part_of(struct fixture *f) {
    const struct grammar_part *part;
    struct err err;
    if (answer_grammar(&f->config, &f->arena, &part, &err) != OK)
        fail_msg("%s", err.text);
    return part;
}

/* The text's tokens, control ones too, through the grammar; a number of calls, or -1 if the text is not
 * whole. */
static i32 calls_in(struct fixture *f, const char *text) {
    struct grammar *g;
    struct grammar_run run;
    struct err err;
    struct token_list ids = {0};
    struct tokenize_scratch *scratch = tokenize_scratch_new();
    bool ok = true;
    if (grammar_compile(vocab, part_of(f), &g, &err) != OK)
        fail_msg("%s", err.text);
    grammar_run_start(g, &run);
    tokenize(tokenizer, scratch, str_of(text), (struct tokenize_options){.parse_special = true}, &ids);
    for (u32 i = 0; ok && i < ids.n; i++)
        ok = grammar_run_accept(&run, ids.ids[i]);
    ok = ok && grammar_run_complete(&run);
    grammar_run_release(&run);
    grammar_free(g);
    token_list_release(&ids);
    tokenize_scratch_free(scratch);
    if (!ok)
        return -1;
    struct output_config c = {
        .style = &f->style, .tools = &f->tools, .think = true, .think_begun = f->config.think_begun};
    struct output *o = output_new(&c);
    i32 n = 0;
    output_push(o, str_of(text), true);
    for (u32 i = 0; i < output_n_pieces(o); i++)
        n += output_piece_at(o, i).kind == OUTPUT_CALL;
    output_free(o);
    return n;
}

static void end(struct fixture *f) { arena_release(&f->arena); }

#define ADD "{\"name\": \"add\", \"arguments\": {\"n\":1}}"
#define NOW "{\"name\": \"now\", \"arguments\": {}}"

static void test_tagged(void **state) {
    struct fixture f;
    (void)state;
    start(&f, "<tool_call>", "</tool_call>");
    assert_int_equal(calls_in(&f, "<tool_call>\n" ADD "\n</tool_call>"), 1);
    assert_int_equal(calls_in(&f, "<tool_call>\n" ADD "\n</tool_call>\n<tool_call>\n" NOW "\n</tool_call>"),
                     2);
    assert_int_equal(calls_in(&f, "Sure"), -1);
    assert_int_equal(calls_in(&f, ""), -1);
    assert_int_equal(calls_in(&f, "<tool_call>\n" ADD), -1);
    assert_int_equal(calls_in(&f, "<tool_call>\n{\"name\": \"sub\", \"arguments\": {}}\n</tool_call>"), -1);
    assert_int_equal(
        calls_in(&f, "<tool_call>\n{\"name\": \"add\", \"arguments\": {\"n\":\"1\"}}\n</tool_call>"), -1);
    f.r.single_call = true;
    assert_int_equal(calls_in(&f, "<tool_call>\n" ADD "\n</tool_call>"), 1);
    assert_int_equal(calls_in(&f, "<tool_call>\n" ADD "\n</tool_call>\n<tool_call>\n" NOW "\n</tool_call>"),
                     -1);
    f.r.single_call = false;
    f.r.tool_choice = GEN_TOOLS_ONE;
    f.r.tool_choice_name = STR("now");
    assert_int_equal(calls_in(&f, "<tool_call>\n" NOW "\n</tool_call>"), 1);
    assert_int_equal(calls_in(&f, "<tool_call>\n" ADD "\n</tool_call>"), -1);
    end(&f);
}

static void test_lists_and_names(void **state) {
    struct fixture f;
    (void)state;
    start(&f, "", "");
    f.style.parameters = true;
    assert_int_equal(calls_in(&f, "{\"name\": \"add\", \"parameters\": {\"n\":1}}"), 1);
    assert_int_equal(calls_in(&f, ADD), -1);
    f.style.parameters = false;
    f.style.list = true;
    assert_int_equal(calls_in(&f, "[" ADD ", " NOW "]"), 2);
    f.style.call_open = STR("[TOOL_CALLS]");
    assert_int_equal(calls_in(&f, "[TOOL_CALLS][" ADD ", " NOW "]"), 2);
    assert_int_equal(calls_in(&f, "[" ADD "]"), -1);
    f.style.name_end = STR("[ARGS]");
    assert_int_equal(calls_in(&f, "[TOOL_CALLS]add[ARGS]{\"n\":1}[TOOL_CALLS]now[ARGS]{}"), 2);
    f.style.list = false;
    f.style.call_open = STR("<function=");
    f.style.call_close = STR("</function>");
    f.style.name_end = STR(">");
    assert_int_equal(calls_in(&f, "<function=add>{\"n\":1}</function><function=now>{}</function>"), 2);
    end(&f);
}

static void test_thoughts(void **state) {
    struct fixture f;
    (void)state;
    start(&f, "<tool_call>", "</tool_call>");
    f.style.can.thinking = true;
    f.style.think_open = STR("<think>");
    f.style.think_close = STR("</think>");
    assert_int_equal(calls_in(&f, "<think>{hm}</think>\n<tool_call>\n" NOW "\n</tool_call>"), 1);
    assert_int_equal(calls_in(&f, "<tool_call>\n" NOW "\n</tool_call>"), 1);
    assert_int_equal(calls_in(&f, "hm</think><tool_call>\n" NOW "\n</tool_call>"), -1);
    f.config.think_begun = true;
    assert_int_equal(calls_in(&f, "hm</think><tool_call>\n" NOW "\n</tool_call>"), 1);
    assert_int_equal(calls_in(&f, "hm <tool_call>"), -1);
    f.style.think_close = STR("</hidden>");
    assert_int_equal(calls_in(&f, "hm </think></hidden><tool_call>\n" NOW "\n</tool_call>"), 1);
    f.config.think_begun = false;
    f.r.think = GEN_THINK_OFF;
    assert_int_equal(calls_in(&f, "<think>hm</hidden><tool_call>\n" NOW "\n</tool_call>"), -1);
    end(&f);
}

static void test_format(void **state) {
    struct fixture f;
    struct err err;
    const struct grammar_part *part;
    (void)state;
    start(&f, "<tool_call>", "</tool_call>");
    f.r.tool_choice = GEN_TOOLS_AUTO;
    assert_null(part_of(&f));
    f.r.format = GEN_FORMAT_JSON;
    assert_int_equal(calls_in(&f, "{\"a\": 1}"), 0);
    assert_int_equal(calls_in(&f, "<tool_call>\n" NOW "\n</tool_call>"), 1);
    assert_int_equal(calls_in(&f, "a"), -1);
    f.r.format = GEN_FORMAT_SCHEMA;
    f.r.schema = STR("{\"type\":\"boolean\"}");
    assert_int_equal(calls_in(&f, "true"), 0);
    f.r.tool_choice = GEN_TOOLS_ONE;
    f.r.tool_choice_name = STR("gone");
    assert_int_equal(answer_grammar(&f.config, &f.arena, &part, &err), ERR_INVALID);
    f.config.tools = NULL;
    f.r.tool_choice = GEN_TOOLS_REQUIRED;
    assert_int_equal(answer_grammar(&f.config, &f.arena, &part, &err), ERR_INVALID);
    end(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_tagged), cmocka_unit_test(test_lists_and_names),
                                       cmocka_unit_test(test_thoughts), cmocka_unit_test(test_format)};
    return cmocka_run_group_tests(tests, open_vocab, close_vocab);
}
