/* Goal: what a sampled token means: text, end, stop string, bounds, context shift, resumption; requests are
 * found by id. Method: a vocabulary of the 256 bytes and an end token, so that every expected text and
 * sequence can be written down. */
#include "../tokenize/sample.h"

#include <pthread.h>
#include <stdatomic.h>

#include "engine/requests.h"

static struct sample sample;
static struct slot slot;
static u32 end_token;

static int slot_make(void **state) {
    (void)state;
    sample_init_bytes(&sample);
    end_token = sample_add(&sample, STR("<|im_end|>"), CONTROL, 0);
    slot.tokenizer = sample_open_ok(&sample);
    slot.grammars = grammars_new(slot.tokenizer);
    slot.state = SLOT_LOADED;
    return 0;
}

static int slot_drop(void **state) {
    (void)state;
    grammars_free(slot.grammars);
    tokenizer_close(slot.tokenizer);
    return 0;
}

/* What the preparation does for a request with a format. */
static void constrain(struct request *q) {
    struct grammar_part part = {.kind = q->r->format == GEN_FORMAT_JSON ? GRAMMAR_JSON : GRAMMAR_SCHEMA,
                                .text = q->r->schema};
    struct err err;
    if (q->r->format != GEN_FORMAT_NONE)
        assert_int_equal(constraint_open(&q->constraint, slot.grammars, &part, &err), OK);
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
    constrain(q);
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

/* --- constrained answers --- */

/* Draws until the answer is over, from logits that are a function of the position; returns what was drawn. */
static u32 draw_all(struct request *q, u32 *tokens, u32 cap, enum gen_done_reason *reason) {
    static f32 logits[512];
    static u32 mask[16];
    static char scratch[1 << 16];
    struct gen_event e;
    struct err err;
    const struct kern *k;
    u32 n_vocab = tokenizer_n_vocab(slot.tokenizer), n = 0;
    assert_int_equal(kern_open(NULL, &k, &err), OK);
    assert_true(sampler_scratch_bytes(n_vocab) <= sizeof scratch);
    for (enum sched_outcome outcome = SCHED_MORE; outcome == SCHED_MORE;) {
        struct sampler_pick pick;
        u32 seed = q->n_output * 7919 + 5;
        for (u32 i = 0; i < n_vocab; i++)
            logits[i] = (f32)(random_next(&seed) % 1000) / 250;
        assert_int_equal(grammar_run_mask(&q->constraint.run, mask, &err), OK);
        sampler_pick(q->sampler, k, logits, q->n_output, mask, 0, false, scratch, &pick);
        assert_true(n < cap);
        tokens[n++] = pick.token;
        outcome = request_token(q, &pick, &e, reason);
    }
    return n;
}

/* Goal: a constrained answer that is interrupted at any token and goes on in a new engine has the same
 * tokens. */
static void test_constrained_answer_resumes(void **state) {
    static u32 whole[4000], rest[4000];
    struct gen_request r = {
        .format = GEN_FORMAT_SCHEMA,
        .schema = STR("{\"properties\":{\"a\":{\"type\":\"string\",\"maxLength\":20},\"b\":{\"type\":"
                      "\"array\",\"items\":"
                      "{\"enum\":[1,12,\"x\"]},\"maxItems\":4}},\"required\":[\"a\",\"b\"]}"),
        .sampling = {.seed = 4, .temperature = 1, .top_p = 1, .typical_p = 1, .repeat_penalty = 1},
        .num_predict = 4000,
        .num_ctx = 8000};
    enum gen_done_reason reason;
    (void)state;
    struct request *q = make(r, "p");
    u32 n = draw_all(q, whole, ARRAY_LEN(whole), &reason);
    request_free(q);
    assert_int_equal(reason, GEN_STOP); /* nothing can follow the last brace */
    assert_int_equal(whole[n - 1], '}');
    assert_true(n > 20);
    for (u32 k = 1; k < n; k++) {
        r.resume = whole;
        r.n_resume = k;
        q = make(r, "p");
        assert_int_equal(draw_all(q, rest, ARRAY_LEN(rest), &reason), n - k);
        assert_memory_equal(rest, whole + k, (n - k) * sizeof *rest);
        request_free(q);
    }
}

static void test_length_cuts_a_constrained_answer(void **state) {
    u32 tokens[8];
    enum gen_done_reason reason;
    (void)state;
    struct request *q = make((struct gen_request){.format = GEN_FORMAT_JSON, .num_predict = 3}, "p");
    assert_int_equal(draw_all(q, tokens, 8, &reason), 3);
    assert_int_equal(reason, GEN_LENGTH);
    assert_int_equal(tokens[0], '{');
    request_free(q);
}

struct compiling {
    struct grammars *gs;
    atomic_bool begun, done;
};

/* Compiles something that takes its time. */
static void *compile_long(void *arg) {
    struct compiling *c = arg;
    struct buf schema = {0};
    struct grammar *g;
    struct err err;
    buf_add_str(&schema, STR("{\"oneOf\":["));
    for (u32 i = 0; i < 400; i++) /* each is compared with each */
        buf_printf(&schema,
                   "%s{\"type\":\"object\",\"properties\":{\"k\":{\"const\":%u}},\"required\":[\"k\"]}",
                   i ? "," : "", i);
    buf_add_str(&schema, STR("]}"));
    struct grammar_part part = {.kind = GRAMMAR_SCHEMA, .text = buf_str(&schema)};
    c->begun = true;
    if (grammars_take(c->gs, &part, &g, &err) == OK)
        grammars_give(c->gs, g);
    c->done = true;
    buf_release(&schema);
    return NULL;
}

/* Goal: a step never waits for a compilation: what it gives back is taken at once. */
static void test_giving_does_not_wait(void **state) {
    struct grammar_part part = {.kind = GRAMMAR_SCHEMA, .text = STR("{\"const\":1}")};
    struct compiling c = {.gs = grammars_new(slot.tokenizer)};
    struct grammar *g;
    struct err err;
    pthread_t thread;
    u32 n_taken = 100, n_given = 0, n_meanwhile = 0;
    (void)state;
    for (u32 i = 0; i < n_taken; i++)
        assert_int_equal(grammars_take(c.gs, &part, &g, &err), OK);
    assert_int_equal(pthread_create(&thread, NULL, compile_long, &c), 0);
    while (!c.begun)
        usleep(100);
    while (!c.done && n_given < 10) {
        usleep(500);
        grammars_give(c.gs, g);
        n_given++;
        n_meanwhile += !c.done;
    }
    pthread_join(thread, NULL);
    assert_true(n_meanwhile >= 3);
    for (; n_given < n_taken; n_given++)
        grammars_give(c.gs, g);
    grammars_free(c.gs);
}

/* The same description gives the same grammar; what nobody uses goes when there is no more room. */
static void test_grammars_are_kept(void **state) {
    struct grammars *gs = grammars_new(slot.tokenizer);
    struct grammar *first, *again, *many[100];
    struct grammar_part part = {.kind = GRAMMAR_SCHEMA, .text = STR("{\"type\":\"null\"}")};
    struct err err;
    u32 n = 0;
    (void)state;
    assert_int_equal(grammars_take(gs, &part, &first, &err), OK);
    assert_int_equal(grammars_take(gs, &part, &again, &err), OK);
    assert_ptr_equal(first, again);
    grammars_give(gs, first);
    enum status status = OK;
    for (; n < ARRAY_LEN(many) && status == OK; n += status == OK) {
        char text[64];
        snprintf(text, sizeof text, "{\"const\":%u}", n);
        part.text = str_of(text);
        status = grammars_take(gs, &part, &many[n], &err);
    }
    assert_int_equal(status, ERR_BUSY);
    assert_true(n > 20);
    grammars_give(gs, many[0]);
    part.text = STR("{\"const\":-1}");
    assert_int_equal(grammars_take(gs, &part, &many[0], &err), OK);
    for (u32 i = 0; i < n; i++)
        grammars_give(gs, many[i]);
    grammars_give(gs, again);
    grammars_free(gs);
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
        cmocka_unit_test(test_constrained_answer_resumes),
        cmocka_unit_test(test_length_cuts_a_constrained_answer),
        cmocka_unit_test(test_grammars_are_kept),
        cmocka_unit_test(test_giving_does_not_wait),
        cmocka_unit_test(test_empty_prompt_is_refused),
        cmocka_unit_test(test_table),
    };
    return cmocka_run_group_tests(tests, slot_make, slot_drop);
}
