/* native_reply.c - events to NDJSON lines and whole JSON objects, in the reference's field order. */
#include "api/native.h"
#include "base/clock.h"

/* --- parts --- */

static void created_write(struct buf *b) {
    char text[TIME_TEXT_BYTES];
    size_t n = time_text(text, clock_wall_ns(), false);
    buf_add(b, text, n);
}

/* {"model":"m","created_at":" - constant for a call, so made once. */
static void prefix_make(struct call *c) {
    struct buf b = {0};
    json_open(&b, '{');
    json_key(&b, "model"), json_str(&b, c->model);
    json_key(&b, "created_at");
    buf_add_char(&b, '"');
    c->prefix = arena_str(&c->arena, buf_str(&b));
    buf_release(&b);
}

static void object_begin(struct call *c) {
    if (c->prefix.n == 0)
        prefix_make(c);
    buf_add_str(&c->out, c->prefix);
    created_write(&c->out);
    buf_add_char(&c->out, '"');
}

static void nonzero(struct buf *b, const char *key, u64 v) {
    if (v)
        json_key(b, key), json_u64(b, v);
}

static void metrics_write(struct call *c, const struct gen_event *e) {
    struct buf *b = &c->out;
    const struct gen_counts *n = &e->counts;
    if (e->reason == GEN_LOAD || e->reason == GEN_UNLOAD || c->render_only)
        return;
    nonzero(b, "total_duration", clock_ns() - c->arrival_ns);
    nonzero(b, "load_duration", n->queue_ns);
    nonzero(b, "prompt_eval_count", n->n_prompt);
    nonzero(b, "prompt_eval_duration", n->prompt_ns);
    nonzero(b, "eval_count", n->n_output);
    nonzero(b, "eval_duration", n->output_ns);
}

static void ids_write(struct buf *b, const struct gen_event *e) {
    if (e->n_context == 0)
        return;
    json_key(b, "context"), json_open(b, '[');
    for (u32 i = 0; i < e->n_context; i++)
        json_u64(b, e->context[i]);
    json_close(b, ']');
}

static void list_write(struct buf *b, const char *key, struct str items) {
    if (items.n == 0)
        return;
    json_key(b, key), json_open(b, '[');
    buf_add_str(b, items);
    json_close(b, ']');
}

static void debug_write(struct call *c, const struct gen_event *e) {
    if (!c->api->config.debug || c->render_only || e->reason == GEN_LOAD || e->reason == GEN_UNLOAD)
        return;
    json_key(&c->out, "debug");
    buf_printf(&c->out, "{\"logits_hash\":\"%016llx\"}", (unsigned long long)e->logits_hash);
}

static void rendered_write(struct call *c, const struct gen_event *e) {
    json_key(&c->out, "_debug_info"), json_open(&c->out, '{');
    json_key(&c->out, "rendered_template"), json_str(&c->out, e->text);
    json_close(&c->out, '}');
}

static void done_write(struct call *c, const struct gen_event *e) {
    json_key(&c->out, "done"), json_bool(&c->out, !c->render_only);
    if (!c->render_only)
        json_key(&c->out, "done_reason"), json_str(&c->out, str_of(gen_done_reason_name(e->reason)));
}

/* logprobs of one event in a stream. */
static void piece_logprobs(struct call *c, const struct gen_event *e) {
    if (e->n_logprobs == 0)
        return;
    json_key(&c->out, "logprobs"), json_open(&c->out, '[');
    logprobs_items(&c->out, e->logprobs, e->n_logprobs);
    json_close(&c->out, ']');
}

/* --- generate --- */

static void generate_piece(struct call *c, const struct gen_event *e) {
    struct buf *b = &c->out;
    object_begin(c);
    json_key(b, "response"), json_str(b, e->kind == GEN_TEXT ? e->text : STR_NONE);
    if (e->kind == GEN_THINK)
        json_key(b, "thinking"), json_str(b, e->text);
    json_key(b, "done"), json_bool(b, false);
    if (e->kind == GEN_TOOL) {
        json_key(b, "tool_calls"), json_open(b, '[');
        tool_call_json(b, &e->tool, c->n_tools);
        json_close(b, ']');
    }
    piece_logprobs(c, e);
    buf_add_str(b, STR("}\n"));
}

static void generate_whole(struct call *c, const struct gen_event *e) {
    struct buf *b = &c->out;
    object_begin(c);
    json_key(b, "response"), json_str(b, buf_str(&c->text));
    if (c->think.n)
        json_key(b, "thinking"), json_str(b, buf_str(&c->think));
    done_write(c, e);
    ids_write(b, e);
    metrics_write(c, e);
    list_write(b, "tool_calls", buf_str(&c->tools));
    if (c->render_only)
        rendered_write(c, e);
    list_write(b, "logprobs", buf_str(&c->logprobs));
    debug_write(c, e);
    json_close(b, '}');
}

static void generate_last(struct call *c, const struct gen_event *e) {
    generate_whole(c, e);
    buf_add_char(&c->out, '\n');
}

/* --- chat --- */

static void chat_piece(struct call *c, const struct gen_event *e) {
    struct buf *b = &c->out;
    object_begin(c);
    buf_add_str(b, STR(",\"message\":{\"role\":\"assistant\",\"content\":"));
    json_str(b, e->kind == GEN_TEXT ? e->text : STR_NONE);
    if (e->kind == GEN_THINK)
        json_key(b, "thinking"), json_str(b, e->text);
    if (e->kind == GEN_TOOL) {
        json_key(b, "tool_calls"), json_open(b, '[');
        tool_call_json(b, &e->tool, c->n_tools);
        json_close(b, ']');
    }
    buf_add_str(b, STR("},\"done\":false"));
    piece_logprobs(c, e);
    buf_add_str(b, STR("}\n"));
}

static void chat_whole(struct call *c, const struct gen_event *e) {
    struct buf *b = &c->out;
    object_begin(c);
    json_key(b, "message"), json_open(b, '{');
    json_key(b, "role"), json_str(b, c->render_only ? STR_NONE : STR("assistant"));
    json_key(b, "content"), json_str(b, buf_str(&c->text));
    if (c->think.n)
        json_key(b, "thinking"), json_str(b, buf_str(&c->think));
    list_write(b, "tool_calls", buf_str(&c->tools));
    json_close(b, '}');
    done_write(c, e);
    if (c->render_only)
        rendered_write(c, e);
    list_write(b, "logprobs", buf_str(&c->logprobs));
    metrics_write(c, e);
    debug_write(c, e);
    json_close(b, '}');
}

static void chat_last(struct call *c, const struct gen_event *e) {
    chat_whole(c, e);
    buf_add_char(&c->out, '\n');
}

static void tool_gather(struct call *c, const struct gen_tool_call *t) {
    tool_call_json(&c->tools, t, c->n_tools++);
}

#define STREAM_TYPE "application/x-ndjson"
#define WHOLE_TYPE "application/json; charset=utf-8"

const struct call_writer native_generate_writer = {
    DIALECT_NATIVE, STREAM_TYPE,   WHOLE_TYPE,     prefix_make,
    generate_piece, generate_last, generate_whole, tool_gather,
};
const struct call_writer native_chat_writer = {
    DIALECT_NATIVE, STREAM_TYPE, WHOLE_TYPE, prefix_make, chat_piece, chat_last, chat_whole, tool_gather,
};
