/* openai_reply.c - events to SSE chunks and whole objects of OpenAI's dialect. */
#include "api/openai.h"
#include "base/clock.h"

#define CHUNK_END "\n\n"

/* --- parts --- */

static void usage_write(struct buf *b, const struct gen_counts *n) {
    json_key(b, "usage"), json_open(b, '{');
    json_key(b, "prompt_tokens"), json_u64(b, n->n_prompt);
    json_key(b, "completion_tokens"), json_u64(b, n->n_output);
    json_key(b, "total_tokens"), json_u64(b, (u64)n->n_prompt + n->n_output);
    json_close(b, '}');
}

static void head_write(struct call *c, struct buf *b, const char *object) {
    json_open(b, '{');
    json_key(b, "id"), json_str(b, c->id);
    json_key(b, "object"), json_str(b, str_of(object));
    json_key(b, "created"), json_i64(b, c->wall_ns / 1000000000);
}

static void model_write(struct call *c, struct buf *b) {
    json_key(b, "model"), json_str(b, c->model);
    json_key(b, "system_fingerprint"), json_str(b, STR("fp_ollama"));
}

static void finish_write(struct call *c, const struct gen_event *e) {
    bool tools = c->n_tools > 0 && e->reason == GEN_STOP;
    json_key(&c->out, "finish_reason");
    json_str(&c->out, tools ? STR("tool_calls") : str_of(gen_done_reason_name(e->reason)));
}

static void debug_write(struct call *c, const struct gen_event *e) {
    if (!c->api->config.debug || c->render_only || e->reason == GEN_LOAD)
        return;
    json_key(&c->out, "debug");
    buf_printf(&c->out, "{\"logits_hash\":\"%016llx\"}", (unsigned long long)e->logits_hash);
}

static void done_marker(struct call *c) { buf_add_str(&c->out, STR("data: [DONE]" CHUNK_END)); }

/* "data: " and the constant beginning of a chunk. */
static void chunk_begin(struct call *c) { buf_add_str(&c->out, c->prefix); }

/* --- chat --- */

static void chat_first(struct call *c) {
    struct buf b = {0};
    head_write(c, &b, "chat.completion.chunk");
    model_write(c, &b);
    json_key(&b, "choices"), json_open(&b, '[');
    c->prefix = arena_printf(&c->arena, "data: %.*s", STR_FMT(buf_str(&b)));
    buf_release(&b);
}

static void tool_write(struct buf *b, const struct gen_tool_call *t, u32 index) {
    struct buf arguments = {0};
    json_escaped(&arguments, t->arguments.n ? t->arguments : STR("{}"));
    json_open(b, '{');
    json_key(b, "id"), json_str(b, t->id);
    json_key(b, "index"), json_u64(b, index);
    json_key(b, "type"), json_str(b, STR("function"));
    json_key(b, "function"), json_open(b, '{');
    json_key(b, "name"), json_str(b, t->name);
    json_key(b, "arguments"), json_str(b, buf_str(&arguments));
    json_close(b, '}');
    json_close(b, '}');
    buf_release(&arguments);
}

/* One chunk with a delta; e NULL: the empty one that opens a stream without text. */
static void delta_chunk(struct call *c, const struct gen_event *e) {
    struct buf *b = &c->out;
    chunk_begin(c);
    buf_add_str(b, STR("{\"index\":0,\"delta\":{"));
    if (!c->role_sent)
        json_key(b, "role"), json_str(b, STR("assistant"));
    c->role_sent = true;
    json_key(b, "content"), json_str(b, e && e->kind == GEN_TEXT ? e->text : STR_NONE);
    if (e && e->kind == GEN_THINK)
        json_key(b, "reasoning"), json_str(b, e->text);
    if (e && e->kind == GEN_TOOL) {
        json_key(b, "tool_calls"), json_open(b, '[');
        tool_write(b, &e->tool, c->n_tools);
        json_close(b, ']');
    }
    buf_add_str(b, STR("},\"finish_reason\":null"));
    if (e && e->n_logprobs) {
        json_key(b, "logprobs"), json_open(b, '{');
        json_key(b, "content"), json_open(b, '[');
        logprobs_items(b, e->logprobs, e->n_logprobs);
        buf_add_str(b, STR("]}"));
    }
    buf_add_str(b, STR("}]}" CHUNK_END));
}

static void chat_piece(struct call *c, const struct gen_event *e) { delta_chunk(c, e); }

static void chat_last(struct call *c, const struct gen_event *e) {
    struct buf *b = &c->out;
    if (!c->role_sent)
        delta_chunk(c, NULL);
    chunk_begin(c);
    buf_add_str(b, STR("{\"index\":0,\"delta\":{}"));
    finish_write(c, e);
    buf_add_str(b, STR("}]"));
    debug_write(c, e);
    buf_add_str(b, STR("}" CHUNK_END));
    if (c->include_usage) {
        chunk_begin(c);
        json_close(b, ']');
        usage_write(b, &e->counts);
        buf_add_str(b, STR("}" CHUNK_END));
    }
    done_marker(c);
}

static void chat_whole(struct call *c, const struct gen_event *e) {
    struct buf *b = &c->out;
    head_write(c, b, "chat.completion");
    model_write(c, b);
    buf_add_str(b, STR(",\"choices\":[{\"index\":0,\"message\":{"));
    json_key(b, "role"), json_str(b, c->render_only ? STR_NONE : STR("assistant"));
    json_key(b, "content"), json_str(b, buf_str(&c->text));
    if (c->think.n)
        json_key(b, "reasoning"), json_str(b, buf_str(&c->think));
    if (c->tools.n) {
        json_key(b, "tool_calls"), json_open(b, '[');
        buf_add_str(b, buf_str(&c->tools));
        json_close(b, ']');
    }
    json_close(b, '}');
    if (c->render_only)
        json_key(b, "finish_reason"), json_none(b);
    else
        finish_write(c, e);
    if (c->logprobs.n) {
        json_key(b, "logprobs"), json_open(b, '{');
        json_key(b, "content"), json_open(b, '[');
        buf_add_str(b, buf_str(&c->logprobs));
        buf_add_str(b, STR("]}"));
    }
    buf_add_str(b, STR("}]"));
    usage_write(b, &e->counts);
    if (c->render_only) {
        json_key(b, "_debug_info"), json_open(b, '{');
        json_key(b, "rendered_template"), json_str(b, e->text);
        json_close(b, '}');
    }
    debug_write(c, e);
    buf_add_str(b, STR("}\n"));
}

static void chat_tool(struct call *c, const struct gen_tool_call *t) {
    tool_write(&c->tools, t, c->n_tools++);
}

/* --- completion --- */

static void completion_first(struct call *c) {
    struct buf b = {0};
    head_write(c, &b, "text_completion");
    json_key(&b, "choices"), json_open(&b, '[');
    c->prefix = arena_printf(&c->arena, "data: %.*s", STR_FMT(buf_str(&b)));
    buf_release(&b);
}

/* The rest of a chunk behind its choices. With include_usage every chunk has a usage, zero but the last. */
static void completion_end(struct call *c, const struct gen_counts *counts) {
    json_close(&c->out, ']');
    model_write(c, &c->out);
    if (c->include_usage)
        usage_write(&c->out, counts);
}

static void completion_piece(struct call *c, const struct gen_event *e) {
    static const struct gen_counts none;
    chunk_begin(c);
    json_open(&c->out, '{');
    json_key(&c->out, "text"), json_str(&c->out, e->kind == GEN_TEXT ? e->text : STR_NONE);
    buf_add_str(&c->out, STR(",\"index\":0,\"finish_reason\":null}"));
    completion_end(c, &none);
    buf_add_str(&c->out, STR("}" CHUNK_END));
}

static void completion_last(struct call *c, const struct gen_event *e) {
    static const struct gen_counts none;
    chunk_begin(c);
    buf_add_str(&c->out, STR("{\"text\":\"\",\"index\":0"));
    finish_write(c, e);
    json_close(&c->out, '}');
    completion_end(c, &none);
    debug_write(c, e);
    buf_add_str(&c->out, STR("}" CHUNK_END));
    if (c->include_usage) {
        chunk_begin(c);
        completion_end(c, &e->counts);
        buf_add_str(&c->out, STR("}" CHUNK_END));
    }
    done_marker(c);
}

static void completion_whole(struct call *c, const struct gen_event *e) {
    struct buf *b = &c->out;
    head_write(c, b, "text_completion");
    model_write(c, b);
    json_key(b, "choices"), json_open(b, '[');
    json_open(b, '{');
    json_key(b, "text"), json_str(b, buf_str(&c->text));
    json_key(b, "index"), json_u64(b, 0);
    if (c->render_only)
        json_key(b, "finish_reason"), json_none(b);
    else
        finish_write(c, e);
    buf_add_str(b, STR("}]"));
    usage_write(b, &e->counts);
    debug_write(c, e);
    buf_add_str(b, STR("}\n"));
}

#define STREAM_TYPE "text/event-stream"
#define WHOLE_TYPE "application/json"

const struct call_writer openai_chat_writer = {
    DIALECT_OPENAI, STREAM_TYPE, WHOLE_TYPE, chat_first, chat_piece, chat_last, chat_whole, chat_tool,
};
const struct call_writer openai_completion_writer = {
    DIALECT_OPENAI,   STREAM_TYPE,     WHOLE_TYPE,       completion_first,
    completion_piece, completion_last, completion_whole, chat_tool,
};
