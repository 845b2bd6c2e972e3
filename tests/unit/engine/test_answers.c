/* Goal: what a request's template makes of sampled tokens: events of text, thoughts and calls; tags that are
 * control tokens; an answer that goes on after an engine's death. Method: a vocabulary of the 256 bytes and a
 * few control tokens, real preparation on a thread, tokens fed by hand. */
#include "../tokenize/sample.h"

#include <poll.h>

#include "engine/requests.h"

#define TEMPLATE                                                                                             \
    "{{ if .Tools }}{{ .Tools }}{{ end }}{{ range .Messages }}{{ if .Thinking }}<think>{{ .Thinking "        \
    "}}</think>{{ end "                                                                                      \
    "}}{{ .Content }}{{ if .ToolCalls }}<tool_call>{{ .ToolCalls }}</tool_call>{{ end }}{{ end }}"
#define TOOLS "[{\"function\":{\"name\":\"add\"}}]"
#define CALL "<tool_call>{\"name\": \"add\", \"arguments\": {\"a\": 1}}</tool_call>"

static struct sample sample;
static struct slot slot;
static struct jobs *jobs;
static struct tokenize_scratch *scratch;

static int slot_make(void **state) {
    (void)state;
    sample_init_bytes(&sample);
    sample_add(&sample, STR("<|im_end|>"), CONTROL, 0);
    sample_add(&sample, STR("<tool_call>"), CONTROL, 0);
    sample_add(&sample, STR("</think>"), CONTROL, 0);
    sample_add(&sample, STR("<|hidden|>"), CONTROL, 0);
    slot.tokenizer = sample_open_ok(&sample);
    slot.grammars = grammars_new(slot.tokenizer);
    slot.state = SLOT_LOADED;
    jobs = jobs_new();
    scratch = tokenize_scratch_new();
    return 0;
}

static int slot_drop(void **state) {
    (void)state;
    jobs_free(jobs);
    tokenize_scratch_free(scratch);
    grammars_free(slot.grammars);
    tokenizer_close(slot.tokenizer);
    return 0;
}

static const struct gen_message message = {.role = ROLE_USER, .content = {"hi", 2}};

static struct gen_request request_of(const char *template, const char *tools) {
    struct gen_request r;
    gen_request_init(&r);
    r.form = GEN_FORM_CHAT;
    r.messages = &message;
    r.n_messages = 1;
    r.chat_template = str_of(template);
    r.tools = str_of(tools);
    r.num_ctx = r.num_predict = 1000;
    return r;
}

static enum status prepare(struct gen_request r, struct request **out, struct err *err) {
    struct arena arena;
    arena_init(&arena, 0);
    struct wire_generate g = {r, 5};
    struct request *q = *out = request_new(&arena, &g);
    q->slot = &slot;
    request_prepare(q, &slot, jobs, scratch);
    struct pollfd p = {jobs_fd(jobs), POLLIN, 0};
    assert_int_equal(poll(&p, 1, 5000), 1);
    assert_ptr_equal(jobs_take_done(jobs), &q->job);
    return request_prepared(q, err);
}

static struct request *make(struct gen_request r) {
    struct request *q;
    struct err err;
    if (prepare(r, &q, &err) != OK)
        fail_msg("%s", err.text);
    return q;
}

static void note(struct buf *b, const struct gen_event *e) {
    if (e->kind == GEN_TOOL)
        buf_printf(b, "(%.*s %.*s %.*s)", STR_FMT(e->tool.name), STR_FMT(e->tool.arguments),
                   STR_FMT(e->tool.id));
    else if (e->text.n)
        buf_printf(b, "%s%.*s", e->kind == GEN_THINK ? "~" : "", STR_FMT(e->text));
}

/* Feeds tokens [from, n) and notes what comes; the outcome of the last one fed. */
static enum sched_outcome feed(struct request *q, const struct token_list *ids, u32 from, struct buf *out) {
    enum sched_outcome outcome = SCHED_MORE;
    for (u32 i = from; i < ids->n && outcome == SCHED_MORE; i++) {
        struct sampler_pick pick = {.token = ids->ids[i]};
        struct gen_event e;
        enum gen_done_reason reason;
        outcome = request_token(q, &pick, &e, &reason);
        assert_int_equal(e.n_ids, !tokenizer_is_end(slot.tokenizer, ids->ids[i]));
        note(out, &e);
        for (u32 k = 0; request_more(q, k, &e); k++) {
            assert_int_equal(e.n_ids, 0);
            note(out, &e);
        }
        assert_true(outcome == SCHED_MORE || reason == GEN_STOP);
    }
    return outcome;
}

static void answer(const char *text, struct token_list *ids) {
    struct tokenize_options special = {.parse_special = true};
    ids->n = 0;
    tokenize(slot.tokenizer, scratch, str_of(text), special, ids);
    token_list_add(ids, tokenizer_find(slot.tokenizer, STR("<|im_end|>")));
}

static void expect(struct gen_request r, const char *text, const char *want) {
    struct token_list ids = {0};
    struct buf got = {0};
    struct request *q = make(r);
    answer(text, &ids);
    assert_int_equal(feed(q, &ids, 0, &got), SCHED_FINISH);
    for (size_t at;
         (at = str_find(buf_str(&got), STR(" call_"), 0)) != SIZE_MAX;) { /* ids change with the prompt */
        memmove(got.p + at, got.p + at + 14, got.n - at - 14);
        got.n -= 14;
    }
    assert_string_equal(buf_cstr(&got), want);
    buf_release(&got);
    token_list_release(&ids);
    request_free(q);
}

static void test_events(void **state) {
    (void)state;
    struct gen_request r = request_of(TEMPLATE, TOOLS);
    expect(r, "<think>hm</think>\nyes <|hidden|>" CALL "\n" CALL "!",
           "~h~myes (add {\"a\":1})(add {\"a\":1})!");
    r.think = GEN_THINK_OFF;
    expect(r, "<think>hm</think>yes", "yes");
    r.tool_choice = GEN_TOOLS_NONE;
    expect(r, CALL,
           "{\"name\": \"add\", \"arguments\": {\"a\": 1}}</tool_call>"); /* a control token stays hidden */
    r = request_of("{{ .Prompt }}", "");
    expect(r, "<think>hm", "<think>hm");
    r = request_of(TEMPLATE "<think>", "");
    expect(r, "hm</think>yes", "~h~myes");
    r.form = GEN_FORM_RAW;
    r.prompt = STR("<think>");
    expect(r, "hm", "hm");
}

static void test_single_call(void **state) {
    (void)state;
    struct token_list ids = {0};
    struct buf got = {0};
    struct gen_request r = request_of(TEMPLATE, TOOLS);
    r.single_call = true;
    struct request *q = make(r);
    answer(CALL CALL, &ids);
    assert_int_equal(feed(q, &ids, 0, &got), SCHED_FINISH);
    assert_true(q->n_output < ids.n / 2 + 2); /* nothing is generated behind the call */
    assert_true(str_starts(buf_str(&got), STR("(add {\"a\":1} call_")));
    request_free(q);
    buf_release(&got);
    token_list_release(&ids);
}

/* However many tokens the engine before had drawn, what is still to come is the same, ids of calls too. */
static void test_resumption(void **state) {
    (void)state;
    struct token_list ids = {0};
    struct gen_request r = request_of(TEMPLATE, TOOLS);
    answer("<think>hm</think>\nyes " CALL "\n" CALL "!", &ids);
    for (u32 n = 0; n + 1 < ids.n; n++) {
        struct buf all = {0}, rest = {0};
        struct token_list head = {ids.ids, n, 0};
        struct request *first = make(r);
        feed(first, &head, 0, &all);
        buf_clear(&all);
        feed(first, &ids, n, &all);
        struct gen_request resumed = r;
        resumed.resume = ids.ids;
        resumed.n_resume = n;
        struct request *second = make(resumed);
        feed(second, &ids, n, &rest);
        assert_string_equal(buf_cstr(&rest), buf_cstr(&all));
        request_free(first);
        request_free(second);
        buf_release(&all);
        buf_release(&rest);
    }
    token_list_release(&ids);
}

static void test_refused(void **state) {
    (void)state;
    struct request *q;
    struct err err;
    assert_int_equal(prepare(request_of("{{ .X", ""), &q, &err), ERR_INVALID);
    request_free(q);
    assert_int_equal(prepare(request_of(TEMPLATE, "[{}]"), &q, &err), ERR_INVALID);
    request_free(q);
    struct gen_request r = request_of(TEMPLATE, TOOLS);
    r.tool_choice = GEN_TOOLS_ONE;
    r.tool_choice_name = STR("sub");
    assert_int_equal(prepare(r, &q, &err), ERR_INVALID);
    request_free(q);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_events),
        cmocka_unit_test(test_single_call),
        cmocka_unit_test(test_resumption),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, slot_make, slot_drop);
}
