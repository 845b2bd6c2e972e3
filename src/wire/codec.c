/* codec.c - message bodies to bytes and back. Every structure has one function that walks its fields; it
 * writes or reads depending on the direction, so that the two can not drift apart. */
#include "wire/wire.h"

#include "base/limit.h"

/* Writing: out is set. Reading: bytes are taken from in; the first violation sets bad and everything after
 * it reads as zero, so that walkers need no error path of their own. */
struct io {
    struct buf *out;
    struct str in;
    struct arena *arena;
    const char *bad; /* what was wrong */
};

static void io_raw(struct io *io, void *p, size_t n) {
    if (io->out) {
        buf_add(io->out, p, n);
        return;
    }
    if (io->bad || io->in.n < n) {
        if (!io->bad)
            io->bad = "it ends too early";
        memset(p, 0, n);
        return;
    }
    memcpy(p, io->in.p, n);
    io->in.p += n;
    io->in.n -= n;
}

static void io_u32(struct io *io, u32 *v) { io_raw(io, v, sizeof *v); }
static void io_i32(struct io *io, i32 *v) { io_raw(io, v, sizeof *v); }
static void io_u64(struct io *io, u64 *v) { io_raw(io, v, sizeof *v); }
static void io_i64(struct io *io, i64 *v) { io_raw(io, v, sizeof *v); }
static void io_f32(struct io *io, f32 *v) { io_raw(io, v, sizeof *v); }
static void io_f64(struct io *io, f64 *v) { io_raw(io, v, sizeof *v); }

static void io_bool(struct io *io, bool *v) {
    u8 b = *v;
    io_raw(io, &b, 1);
    if (io->out)
        return;
    if (b > 1)
        io->bad = "a truth value is neither 0 nor 1";
    *v = b == 1;
}

/* An enum with values 0..max. */
static u32 io_enum(struct io *io, u32 v, u32 max) {
    io_u32(io, &v);
    if (!io->out && v > max) {
        io->bad = "a value is outside its enumeration";
        return 0;
    }
    return v;
}
#define IO_ENUM(io, field, max)                                                                             \
    do {                                                                                                    \
        u32 value_ = io_enum((io), (u32)(field), (max));                                                    \
        if (!(io)->out)                                                                                     \
            (field) = (__typeof__(field))value_;                                                            \
    } while (0)

static void io_str(struct io *io, struct str *s) {
    u32 n = io->out ? u32_of(s->n) : 0;
    io_u32(io, &n);
    if (io->out) {
        buf_add_str(io->out, *s);
        return;
    }
    if (io->bad || n > io->in.n) {
        io->bad = io->bad ? io->bad : "a text is longer than the message";
        *s = STR_NONE;
        return;
    }
    *s = arena_str(io->arena, (struct str){io->in.p, n});
    io->in.p += n;
    io->in.n -= n;
}

/* Count of an array whose elements take at least min_bytes each; reading: storage for it. */
static void *io_array(struct io *io, const void *items, u32 *n, size_t elem_size, size_t min_bytes) {
    io_u32(io, n);
    if (io->out)
        return (void *)(uintptr_t)items; /* walkers only read through it when writing */
    if (io->bad || *n > io->in.n / min_bytes) {
        io->bad = io->bad ? io->bad : "a list is longer than the message";
        *n = 0;
    }
    return *n ? arena_alloc(io->arena, elem_size * *n) : NULL;
}

static void io_ids(struct io *io, const u32 **ids, u32 *n) {
    u32 *items = io_array(io, *ids, n, sizeof **ids, sizeof **ids);
    if (*n)
        io_raw(io, items, sizeof *items * *n);
    *ids = items;
}

static void io_vector(struct io *io, const f32 **v, u32 *n) {
    f32 *items = io_array(io, *v, n, sizeof **v, sizeof **v);
    if (*n)
        io_raw(io, items, sizeof *items * *n);
    *v = items;
}

static void io_tool_call(struct io *io, struct gen_tool_call *t) {
    io_str(io, &t->id);
    io_str(io, &t->name);
    io_str(io, &t->arguments);
}

static void io_message(struct io *io, struct gen_message *m) {
    IO_ENUM(io, m->role, ROLE_TOOL);
    io_str(io, &m->content);
    io_str(io, &m->thinking);
    io_str(io, &m->tool_name);
    io_str(io, &m->tool_call_id);
    struct gen_tool_call *calls = io_array(io, m->tool_calls, &m->n_tool_calls, sizeof *calls, 12);
    for (u32 i = 0; i < m->n_tool_calls; i++)
        io_tool_call(io, &calls[i]);
    if (!io->out) /* written messages may lie in constant memory */
        m->tool_calls = calls;
}

static void io_sampling(struct io *io, struct gen_sampling *s) {
    io_u64(io, &s->seed);
    io_f32(io, &s->temperature);
    io_i32(io, &s->top_k);
    io_f32(io, &s->top_p);
    io_f32(io, &s->min_p);
    io_f32(io, &s->typical_p);
    io_i32(io, &s->repeat_last_n);
    io_f32(io, &s->repeat_penalty);
    io_f32(io, &s->presence_penalty);
    io_f32(io, &s->frequency_penalty);
}

static void io_inputs(struct io *io, struct gen_request *r) {
    struct gen_input *inputs = io_array(io, r->inputs, &r->n_inputs, sizeof *inputs, 8);
    for (u32 i = 0; i < r->n_inputs; i++) {
        struct gen_input in = io->out ? inputs[i] : (struct gen_input){0};
        io_str(io, &in.text);
        io_ids(io, &in.ids, &in.n_ids);
        if (!io->out) /* written inputs may lie in constant memory */
            inputs[i] = in;
    }
    r->inputs = inputs;
    if (!io->out && r->n_inputs > LIMIT_EMBED_INPUTS)
        io->bad = "a count is over its limit";
}

static void io_request(struct io *io, struct gen_request *r) {
    io_u64(io, &r->id);
    io_u32(io, &r->model_id);
    IO_ENUM(io, r->form, GEN_FORM_EMBED);
    io_str(io, &r->prompt);
    io_str(io, &r->suffix);
    struct gen_message *messages = io_array(io, r->messages, &r->n_messages, sizeof *messages, 24);
    for (u32 i = 0; i < r->n_messages; i++)
        io_message(io, &messages[i]);
    r->messages = messages;
    io_str(io, &r->tools);
    IO_ENUM(io, r->tool_choice, GEN_TOOLS_ONE);
    io_str(io, &r->tool_choice_name);
    io_str(io, &r->chat_template);
    io_str(io, &r->template_kwargs);
    io_ids(io, &r->context, &r->n_context);
    IO_ENUM(io, r->think, GEN_THINK_HIGH);
    IO_ENUM(io, r->format, GEN_FORMAT_SCHEMA);
    io_str(io, &r->schema);
    io_sampling(io, &r->sampling);
    struct str *stop = io_array(io, r->stop, &r->n_stop, sizeof *stop, 4);
    for (u32 i = 0; i < r->n_stop; i++)
        io_str(io, &stop[i]);
    r->stop = stop;
    io_u32(io, &r->num_ctx);
    io_u32(io, &r->num_predict);
    io_u32(io, &r->num_keep);
    io_bool(io, &r->single_call);
    io_bool(io, &r->truncate);
    io_bool(io, &r->shift);
    io_bool(io, &r->add_special);
    io_bool(io, &r->logprobs);
    io_u32(io, &r->top_logprobs);
    io_bool(io, &r->want_context);
    io_bool(io, &r->want_hash);
    io_bool(io, &r->render_only);
    io_bool(io, &r->load_only);
    io_i64(io, &r->time_unix);
    io_i32(io, &r->utc_offset_s);
    io_str(io, &r->client);
    io_ids(io, &r->resume, &r->n_resume);
    io_u32(io, &r->draft_max);
    if (r->form == GEN_FORM_EMBED)
        io_inputs(io, r);
    io_u32(io, &r->draft_id);
    if (io->out)
        return;
    if (r->num_ctx < 4 || r->num_ctx > LIMIT_NUM_CTX)
        io->bad = "num_ctx is outside its range";
    if (r->top_logprobs > LIMIT_TOP_LOGPROBS || r->n_stop > LIMIT_STOPS || r->n_messages > LIMIT_MESSAGES)
        io->bad = "a count is over its limit";
}

static void io_logprob(struct io *io, struct gen_logprob *l) {
    io_u32(io, &l->token_id);
    io_f32(io, &l->logprob);
    io_str(io, &l->token);
}

static void io_counts(struct io *io, struct gen_counts *c) {
    io_u32(io, &c->n_prompt);
    io_u32(io, &c->n_cached);
    io_u32(io, &c->n_dropped);
    io_u32(io, &c->n_output);
    io_u64(io, &c->queue_ns);
    io_u64(io, &c->load_ns);
    io_u64(io, &c->prompt_ns);
    io_u64(io, &c->output_ns);
}

static void io_logprobs(struct io *io, struct gen_event *e) {
    struct gen_logprobs *items = io_array(io, e->logprobs, &e->n_logprobs, sizeof *items, 16);
    for (u32 i = 0; i < e->n_logprobs; i++) {
        io_logprob(io, &items[i].chosen);
        struct gen_logprob *top = io_array(io, items[i].top, &items[i].n_top, sizeof *top, 12);
        for (u32 k = 0; k < items[i].n_top; k++)
            io_logprob(io, &top[k]);
        if (!io->out)
            items[i].top = top;
    }
    e->logprobs = items;
}

static void io_event(struct io *io, struct gen_event *e) {
    io_u64(io, &e->request_id);
    IO_ENUM(io, e->kind, GEN_VECTOR);
    io_str(io, &e->text);
    io_ids(io, &e->ids, &e->n_ids);
    io_logprobs(io, e);
    if (e->kind == GEN_TOOL)
        io_tool_call(io, &e->tool);
    if (e->kind == GEN_QUEUED) {
        io_u32(io, &e->position);
        io_u32(io, &e->eta_ms);
    }
    if (e->kind == GEN_STARTED || e->kind == GEN_DONE)
        io_counts(io, &e->counts);
    if (e->kind == GEN_DONE) {
        IO_ENUM(io, e->reason, GEN_UNLOAD);
        io_ids(io, &e->context, &e->n_context);
        io_u64(io, &e->logits_hash);
    }
    if (e->kind == GEN_ERROR)
        IO_ENUM(io, e->status, ERR_INTERNAL);
    if (e->kind == GEN_VECTOR) {
        io_u32(io, &e->input);
        io_vector(io, &e->vector, &e->n_vector);
    }
}

static void io_model(struct io *io, struct wire_model *m) {
    io_u32(io, &m->model_id);
    io_raw(io, m->digest, sizeof m->digest);
    io_str(io, &m->name);
    io_u64(io, &m->file_bytes);
    io_bool(io, &m->draft);
}

static void io_state(struct io *io, struct wire_state *s) {
    io_u32(io, &s->n_running);
    io_u32(io, &s->n_waiting);
    io_u64(io, &s->limit_bytes);
    io_u64(io, &s->weights_bytes);
    io_u64(io, &s->kv_bytes);
    io_u64(io, &s->kv_cached_bytes);
    io_u64(io, &s->scratch_bytes);
    io_u64(io, &s->n_steps_total);
    io_u64(io, &s->n_parked_total);
    io_f64(io, &s->tokens_per_s);
    io_u32(io, &s->n_models);
    if (!io->out && s->n_models > WIRE_MODELS_MAX) {
        io->bad = "it lists too many models";
        s->n_models = 0;
    }
    for (u32 i = 0; i < s->n_models; i++) {
        struct wire_model_state *m = &s->models[i];
        io_u32(io, &m->model_id);
        io_bool(io, &m->loading);
        io_u32(io, &m->n_running);
        io_u32(io, &m->n_waiting);
        io_u32(io, &m->num_ctx);
        io_u64(io, &m->weights_bytes);
        io_u64(io, &m->kv_bytes);
        io_i64(io, &m->expires_in_ns);
    }
    io_u64(io, &s->n_rows_total);
    io_u64(io, &s->steps_ns_total);
    io_u64(io, &s->n_drafts_total);
    io_u64(io, &s->n_agreed_total);
    io_u64(io, &s->drafts_lost_ns_total);
    io_u64(io, &s->n_draft_passes_total);
    io_u64(io, &s->draft_ns_total);
}

static void io_message_body(struct io *io, struct wire_message *m) {
    switch (m->type) {
    case WIRE_MODEL: io_model(io, &m->model); return;
    case WIRE_GENERATE:
        io_request(io, &m->generate.request);
        io_i64(io, &m->generate.keep_alive_ns);
        return;
    case WIRE_CANCEL: return;
    case WIRE_EXPIRE:
        io_u32(io, &m->expire.model_id);
        io_i64(io, &m->expire.keep_alive_ns);
        return;
    case WIRE_LIMITS:
        io_u64(io, &m->limits.memory_bytes);
        io_u32(io, &m->limits.n_threads);
        return;
    case WIRE_EVENT: io_event(io, &m->event); return;
    case WIRE_STATE: io_state(io, &m->state); return;
    }
    io->bad = "its type is unknown";
}

void wire_encode(struct buf *out, const struct wire_message *m) {
    struct io io = {.out = out};
    /* Writing changes nothing behind m; the walkers serve both directions and so take plain pointers. */
    struct wire_message copy = *m;
    io_message_body(&io, &copy);
}

enum status wire_decode(struct str payload, enum wire_type type, u64 stream_id, struct arena *arena,
                        struct wire_message *out, struct err *err) {
    struct io io = {.in = payload, .arena = arena};
    memset(out, 0, sizeof *out);
    out->type = type;
    out->stream_id = stream_id;
    io_message_body(&io, out);
    if (!io.bad && io.in.n)
        io.bad = "bytes are left behind its end";
    if (io.bad)
        return err_set(err, ERR_CORRUPT, "wire message of type %u is broken: %s", (u32)type, io.bad);
    return OK;
}
