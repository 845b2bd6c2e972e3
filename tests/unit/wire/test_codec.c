/* Goal: every message survives encode and decode unchanged, and no damage to its bytes does more than give a status.
 * Method: messages with every field set; encode, decode, encode again: the bytes must be the same (so no field is
 * forgotten: a field that is not carried would come back as zero and differ). Then cut at each length and flip each byte. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>

#include "wire/wire.h"

static const u32 ids[] = {5, 0, UINT32_MAX};
static const struct gen_tool_call calls[] = {{STR("id1"), STR("f"), STR("{\"a\": 1}")}, {STR_NONE, STR("g"), STR("{}")}};
static const struct gen_message messages[] = {
    {.role = ROLE_SYSTEM, .content = STR("be brief")},
    {.role = ROLE_ASSISTANT, .content = STR("x"), .thinking = STR("hm"), .tool_calls = calls, .n_tool_calls = 2},
    {.role = ROLE_TOOL, .content = STR("22 C"), .tool_name = STR("f"), .tool_call_id = STR("id1")},
};
static const struct str stops[] = {STR("\n\n"), STR("</s>")};
static const struct gen_logprob top[] = {{7, -0.5f, STR("a")}, {8, -1.5f, STR("\xff")}};
static const struct gen_logprobs logprobs[] = {{{7, -0.5f, STR("a")}, top, 2}, {{9, -2.0f, STR("b")}, NULL, 0}};

static struct wire_message generate_message(void) {
    struct wire_message m = {.type = WIRE_GENERATE, .stream_id = 42};
    struct gen_request *r = &m.generate.request;
    gen_request_init(r);
    *r = (struct gen_request){
        .id = 42, .model_id = 3, .form = GEN_FORM_FILL, .prompt = STR("p"), .suffix = STR("s"), .messages = messages,
        .n_messages = 3, .tools = STR("[]"), .tool_choice = GEN_TOOLS_ONE, .tool_choice_name = STR("f"),
        .chat_template = STR("t"), .template_kwargs = STR("{}"), .context = ids, .n_context = 3,
        .think = GEN_THINK_HIGH, .format = GEN_FORMAT_SCHEMA, .schema = STR("{\"type\":\"object\"}"),
        .sampling = {1ull << 63, 0.5f, 10, 0.25f, 0.125f, 0.75f, 33, 1.5f, 0.1f, 0.2f}, .stop = stops, .n_stop = 2,
        .num_ctx = 2048, .num_predict = 77, .num_keep = 5, .truncate = true, .shift = true, .add_special = true,
        .logprobs = true, .top_logprobs = 20, .want_context = true, .want_hash = true, .render_only = true,
        .load_only = true, .time_unix = -1, .utc_offset_s = 3600, .client = STR("127.0.0.1"), .resume = ids, .n_resume = 2, .draft_max = 9, .draft_id = 4};
    m.generate.keep_alive_ns = -1;
    return m;
}

static struct wire_message event_message(enum gen_event_kind kind) {
    struct wire_message m = {.type = WIRE_EVENT, .stream_id = 9};
    m.event = (struct gen_event){.request_id = 9, .kind = kind, .text = STR("h\xc3\xa9"), .ids = ids, .n_ids = 3,
                                 .logprobs = logprobs, .n_logprobs = 2};
    struct gen_event *e = &m.event;
    if (kind == GEN_TOOL)
        e->tool = calls[0];
    if (kind == GEN_QUEUED)
        e->position = 3, e->eta_ms = 4;
    if (kind == GEN_STARTED || kind == GEN_DONE)
        e->counts = (struct gen_counts){1, 2, 3, 4, 5, 6, 7, 8};
    if (kind == GEN_DONE)
        e->reason = GEN_LENGTH, e->context = ids, e->n_context = 3, e->logits_hash = 0x0123456789abcdefull;
    static const f32 vector[] = {0.5f, -1, 3};
    if (kind == GEN_VECTOR)
        e->input = 4, e->vector = vector, e->n_vector = 3;
    if (kind == GEN_ERROR)
        e->status = ERR_BUSY;
    return m;
}

static u32 all_messages(struct wire_message *out) {
    u32 n = 0;
    static const struct gen_input inputs[] = {{.text = STR("the river")}, {.ids = ids, .n_ids = 3}};
    out[n++] = generate_message();
    out[n] = generate_message();
    out[n].generate.request.form = GEN_FORM_EMBED;
    out[n].generate.request.inputs = inputs;
    out[n++].generate.request.n_inputs = 2;
    for (enum gen_event_kind k = GEN_QUEUED; k <= GEN_VECTOR; k++)
        out[n++] = event_message(k);
    out[n++] = (struct wire_message){.type = WIRE_MODEL, .model = {7, {1, 2, 3}, STR("m:latest"), 1ull << 40, true}};
    out[n++] = (struct wire_message){.type = WIRE_CANCEL, .stream_id = 5};
    out[n++] = (struct wire_message){.type = WIRE_EXPIRE, .expire = {7, 300}};
    out[n++] = (struct wire_message){.type = WIRE_LIMITS, .limits = {1ull << 33, 2}};
    out[n] = (struct wire_message){.type = WIRE_STATE};
    out[n++].state = (struct wire_state){1, 2, 3, 4, 5, 6, 7, 8, 9, 1.5, 2, {{1, true, 2, 3, 4, 5, 6}, {2, false, 0, 0, 1, 1, INT64_MAX}}, 10, 11, 12, 13, 14, 15, 16};
    return n;
}

static void test_round_trip(void **state) {
    (void)state;
    struct wire_message all[24];
    u32 n = all_messages(all);
    for (u32 i = 0; i < n; i++) {
        struct buf first = {0}, second = {0};
        struct arena arena;
        struct wire_message back;
        struct err err;
        arena_init(&arena, 0);
        wire_encode(&first, &all[i]);
        assert_int_equal(wire_decode(buf_str(&first), all[i].type, all[i].stream_id, &arena, &back, &err), OK);
        assert_int_equal(back.type, all[i].type);
        assert_int_equal(back.stream_id, all[i].stream_id);
        wire_encode(&second, &back);
        assert_int_equal(first.n, second.n);
        if (first.n)
            assert_memory_equal(first.p, second.p, first.n);
        buf_release(&first);
        buf_release(&second);
        arena_release(&arena);
    }
}

static void test_fields_arrive(void **state) {
    (void)state;
    struct wire_message m = generate_message(), back;
    struct buf b = {0};
    struct arena arena;
    struct err err;
    arena_init(&arena, 0);
    wire_encode(&b, &m);
    assert_int_equal(wire_decode(buf_str(&b), m.type, 42, &arena, &back, &err), OK);
    const struct gen_request *r = &back.generate.request;
    assert_true(str_is(r->messages[2].tool_name, "f") && str_is(r->messages[1].tool_calls[1].name, "g"));
    assert_true(str_is(r->stop[1], "</s>") && r->context[2] == UINT32_MAX && r->n_resume == 2 && r->draft_max == 9 && r->draft_id == 4);
    assert_true(r->sampling.seed == 1ull << 63 && r->sampling.frequency_penalty == 0.2f && r->want_hash && r->truncate);
    assert_int_equal(back.generate.keep_alive_ns, -1);
    buf_release(&b);
    arena_release(&arena);
}

static void test_damage_gives_a_status(void **state) {
    (void)state;
    struct wire_message all[24], back;
    u32 n = all_messages(all), n_refused = 0;
    struct err err;
    for (u32 i = 0; i < n; i++) {
        struct buf b = {0};
        wire_encode(&b, &all[i]);
        for (size_t cut = 0; cut < b.n; cut++) {
            struct arena arena;
            char *exact = xmalloc(cut); /* its own block, so that the sanitizer sees a read behind the end */
            memcpy(exact, b.p, cut);
            arena_init(&arena, 0);
            assert_int_equal(wire_decode((struct str){exact, cut}, all[i].type, 1, &arena, &back, &err), ERR_CORRUPT);
            arena_release(&arena);
            free(exact);
        }
        for (size_t at = 0; at < b.n; at++)
            for (u32 flip = 1; flip < 256; flip = flip * 2 + 1) {
                struct arena arena;
                arena_init(&arena, 0);
                b.p[at] = (char)(b.p[at] ^ (char)flip);
                n_refused += wire_decode(buf_str(&b), all[i].type, 1, &arena, &back, &err) != OK;
                b.p[at] = (char)(b.p[at] ^ (char)flip);
                arena_release(&arena);
            }
        buf_release(&b);
    }
    assert_true(n_refused > 100); /* lengths and enums are checked, plain numbers can not be */
    assert_int_equal(wire_decode(STR("x"), (enum wire_type)99, 1, NULL, &back, &err), ERR_CORRUPT);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_fields_arrive),
        cmocka_unit_test(test_damage_gives_a_status),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
