/* Goal: what a sampled token means: text, end, stop string, bounds, context shift, resumption; requests are
 * found by id. Method: a vocabulary of the 256 bytes and an end token, so that every expected text and
 * sequence can be written down. */
#include "../tokenize/sample.h"

#include "engine/requests.h"

static struct sample sample;
static struct slot slot;
static u32 end_token;

static int slot_make(void **state) {
    (void)state;
    sample_init(&sample, "gpt2");
    gguf_put_str(sample.w, "tokenizer.ggml.pre", STR("gpt-2"));
    gguf_put_str_array(sample.w, "tokenizer.ggml.merges", NULL, 0);
    sample_add_bytes(&sample);
    end_token = sample_add(&sample, STR("<|im_end|>"), CONTROL, 0);
    slot.tokenizer = sample_open_ok(&sample);
    slot.state = SLOT_LOADED;
    return 0;
}

static int slot_drop(void **state) {
    (void)state;
    tokenizer_close(slot.tokenizer);
    return 0;
}

/* A request whose prompt of the given bytes has been tokenized. */
static struct request *make(struct gen_request r, const char *prompt) {
    struct arena arena;
    struct err err;
    arena_init(&arena, 0);
    if (!r.num_ctx)
        r.num_ctx = 1000;
    if (!r.num_predict)
        r.num_predict = 1000;
    struct wire_generate g = {r, 5};
    struct request *q = request_new(&arena, &g);
    q->slot = &slot;
    for (const char *c = prompt; *c; c++)
        token_list_add(&q->prompt.ids, (u8)*c);
    q->preparing = true;
    slot.n_preparing++;
    assert_int_equal(request_prepared(q, &err), OK);
    assert_int_equal(slot.n_preparing, 0);
    return q;
}

static enum sched_outcome push(struct request *q, u32 token, struct gen_event *e,
                               enum gen_done_reason *reason) {
    struct sampler_pick pick = {.token = token};
    return request_token(q, &pick, e, reason);
}

static void assert_text(const struct gen_event *e, const char *want) { assert_true(str_is(e->text, want)); }

static void assert_sequence(const struct request *q, const char *want) {
    assert_int_equal(q->tokens.n, strlen(want));
    for (u32 i = 0; i < q->tokens.n; i++)
        assert_int_equal(q->tokens.ids[i], (u8)want[i]);
}

static void test_text_then_end(void **state) {
    (void)state;
    struct gen_event e;
    enum gen_done_reason reason;
    struct request *q = make((struct gen_request){.id = 7, .want_context = true}, "pr");
    assert_int_equal(push(q, 'a', &e, &reason), SCHED_MORE);
    assert_text(&e, "a");
    assert_int_equal(e.n_ids, 1);
    assert_int_equal(e.ids[0], 'a');
    assert_int_equal(push(q, end_token, &e, &reason), SCHED_FINISH);
    assert_int_equal(reason, GEN_STOP);
    assert_int_equal(e.n_ids, 0);
    assert_sequence(q, "pra");
    q->started_ns = 100, q->first_token_ns = 150;
    request_done_event(q, reason, 250, &e);
    assert_int_equal(e.request_id, 7);
    assert_int_equal(e.counts.n_prompt, 2);
    assert_int_equal(e.counts.n_output, 2); /* the end is a token that was computed */
    assert_int_equal(e.counts.prompt_ns, 50);
    assert_int_equal(e.counts.output_ns, 100);
    assert_int_equal(e.n_context, 3);
    request_free(q);
}

static void test_broken_character_comes_at_the_end(void **state) {
    (void)state;
    struct gen_event e;
    enum gen_done_reason reason;
    struct request *q = make((struct gen_request){.num_predict = 2}, "p");
    assert_int_equal(push(q, 0xe2, &e, &reason), SCHED_MORE);
    assert_text(&e, "");
    assert_int_equal(push(q, 0x82, &e, &reason), SCHED_FINISH);
    assert_int_equal(reason, GEN_LENGTH);
    assert_text(&e, "\xef\xbf\xbd");
    request_free(q);
}

static void test_stop_string(void **state) {
    (void)state;
    struct str stop = STR("bcd");
    struct gen_event e;
    enum gen_done_reason reason;
    struct request *q = make((struct gen_request){.stop = &stop, .n_stop = 1}, "p");
    assert_int_equal(push(q, 'a', &e, &reason), SCHED_MORE);
    assert_text(&e, "a");
    assert_int_equal(push(q, 'b', &e, &reason), SCHED_MORE);
    assert_text(&e, "");
    assert_int_equal(push(q, 'c', &e, &reason), SCHED_MORE);
    assert_text(&e, "");
    assert_int_equal(push(q, 'd', &e, &reason), SCHED_FINISH);
    assert_text(&e, "");
    assert_int_equal(reason, GEN_STOP);
    request_free(q);
    /* What only looked like its beginning comes with the last token. */
    q = make((struct gen_request){.stop = &stop, .n_stop = 1, .num_predict = 2}, "p");
    assert_int_equal(push(q, 'b', &e, &reason), SCHED_MORE);
    assert_int_equal(push(q, 'c', &e, &reason), SCHED_FINISH);
    assert_text(&e, "bc");
    assert_int_equal(reason, GEN_LENGTH);
    request_free(q);
}

static void test_full_context(void **state) {
    (void)state;
    struct gen_event e;
    enum gen_done_reason reason;
    struct request *q = make((struct gen_request){.num_ctx = 8}, "abcdef");
    assert_int_equal(push(q, 'g', &e, &reason), SCHED_MORE);
    assert_int_equal(push(q, 'h', &e, &reason), SCHED_FINISH);
    assert_int_equal(reason, GEN_LENGTH);
    assert_text(&e, "h");
    request_free(q);

    q = make((struct gen_request){.num_ctx = 8, .num_keep = 2, .shift = true}, "abcdef");
    assert_int_equal(push(q, 'g', &e, &reason), SCHED_MORE);
    assert_int_equal(push(q, 'h', &e, &reason), SCHED_SHIFT);
    assert_text(&e, "h");
    assert_int_equal(e.ids[0], 'h');
    assert_sequence(q, "abfgh"); /* two kept, the older half of the other six gone */
    assert_int_equal(push(q, 'i', &e, &reason), SCHED_MORE);
    assert_int_equal(q->n_output, 3);
    request_free(q);

    /* More to keep than fits: half of the context is dropped anyway. */
    q = make((struct gen_request){.num_ctx = 8, .num_keep = 1000, .shift = true}, "abcdefg");
    assert_int_equal(push(q, 'h', &e, &reason), SCHED_SHIFT);
    assert_sequence(q, "abcdgh");
    request_free(q);
}

static void test_resumed_answer_goes_on(void **state) {
    (void)state;
    static const u32 had[] = {'x', 'y', 0xc3};
    struct str stop = STR("yz");
    struct gen_event e;
    enum gen_done_reason reason;
    struct gen_request r = {.num_predict = 5, .resume = had, .n_resume = 2, .stop = &stop, .n_stop = 1};
    struct request *q = make(r, "p");
    assert_sequence(q, "pxy");
    struct sched_prompt p = request_sched_prompt(q);
    assert_int_equal(p.n_tokens, 3);
    assert_int_equal(p.n_resumed, 2);
    assert_int_equal(p.predict_max, 3);
    assert_int_equal(push(q, 'z', &e, &reason), SCHED_FINISH); /* the stop string began before */
    assert_int_equal(reason, GEN_STOP);
    assert_text(&e, "");
    request_free(q);
    r.n_resume = 3, r.n_stop = 0;
    q = make(r, "p");
    assert_int_equal(push(q, 0xa9, &e, &reason), SCHED_MORE);
    assert_text(&e, "\xc3\xa9"); /* so did the character */
    request_free(q);
}

static void test_empty_prompt_is_refused(void **state) {
    (void)state;
    struct arena arena;
    struct err err;
    arena_init(&arena, 0);
    struct wire_generate g = {{.num_ctx = 10}, 0};
    struct request *q = request_new(&arena, &g);
    q->slot = &slot;
    q->preparing = true;
    slot.n_preparing++;
    assert_int_equal(request_prepared(q, &err), ERR_INVALID);
    request_free(q);
}

static void test_table(void **state) {
    (void)state;
    static struct request_table t;
    struct request *all[3000];
    for (u32 i = 0; i < ARRAY_LEN(all); i++) {
        struct arena arena;
        arena_init(&arena, 0);
        struct wire_generate g = {{.id = i * 7 + 1}, 0};
        request_add(&t, all[i] = request_new(&arena, &g));
    }
    for (u32 i = 0; i < ARRAY_LEN(all); i += 3)
        request_remove(&t, all[i]);
    for (u32 i = 0; i < ARRAY_LEN(all); i++)
        assert_ptr_equal(request_find(&t, i * 7 + 1), i % 3 ? all[i] : NULL);
    assert_null(request_find(&t, 3));
    assert_int_equal(t.n, 2000);
    for (u32 i = 0; i < ARRAY_LEN(all); i++)
        request_free(all[i]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text_then_end),
        cmocka_unit_test(test_broken_character_comes_at_the_end),
        cmocka_unit_test(test_stop_string),
        cmocka_unit_test(test_full_context),
        cmocka_unit_test(test_resumed_answer_goes_on),
        cmocka_unit_test(test_empty_prompt_is_refused),
        cmocka_unit_test(test_table),
    };
    return cmocka_run_group_tests(tests, slot_make, slot_drop);
}
