/* embed.c - POST /api/embed, /api/embeddings and /v1/embeddings: inputs to a gen_request, vectors to JSON.
 *
 * Vectors come one by one and are written into c->text at once; the answer goes out when all are there, so
 * that a failure still has its status. */
#include <openssl/evp.h>

#include "api/resolve.h"
#include "base/clock.h"
#include "base/limit.h"

struct embed_fields {
    struct str model, prompt, encoding_format, user;
    json_t *input, *keep_alive, *options;
    enum tri truncate;
    struct maybe_int dimensions;
};

static const struct field embed_fields[] = {
    FIELD(embed_fields, model, "model", FIELD_STR),
    FIELD(embed_fields, input, "input", FIELD_ANY),
    FIELD(embed_fields, truncate, "truncate", FIELD_BOOL),
    FIELD(embed_fields, dimensions, "dimensions", FIELD_INT),
    FIELD(embed_fields, keep_alive, "keep_alive", FIELD_ANY),
    FIELD(embed_fields, options, "options", FIELD_OBJECT),
};

static const struct field embeddings_fields[] = {
    FIELD(embed_fields, model, "model", FIELD_STR),
    FIELD(embed_fields, prompt, "prompt", FIELD_STR),
    FIELD(embed_fields, keep_alive, "keep_alive", FIELD_ANY),
    FIELD(embed_fields, options, "options", FIELD_OBJECT),
};

static const struct field openai_fields[] = {
    FIELD(embed_fields, model, "model", FIELD_STR),
    FIELD(embed_fields, input, "input", FIELD_ANY),
    FIELD(embed_fields, dimensions, "dimensions", FIELD_INT),
    FIELD(embed_fields, encoding_format, "encoding_format", FIELD_STR),
    FIELD(embed_fields, user, "user", FIELD_STR),
};

struct embed_call {
    struct call *call;
    struct embed_fields f;
    struct model model;
    struct gen_request request;
    struct gen_input *inputs;
    i64 keep_alive_ns;
};

/* ---------------------------------------------------------------- inputs */

static enum status inputs_reserve(struct embed_call *e, size_t n, struct err *err) {
    if (n > LIMIT_EMBED_INPUTS)
        return err_set(err, ERR_INVALID, "%zu inputs, at most %u are allowed", n, LIMIT_EMBED_INPUTS);
    e->inputs = ARENA_ARRAY(&e->call->arena, struct gen_input, n);
    e->request.inputs = e->inputs;
    e->request.n_inputs = (u32)n;
    return OK;
}

static enum status ids_read(struct embed_call *e, const json_t *list, struct gen_input *in, struct err *err) {
    size_t i;
    json_t *v;
    u32 *ids = ARENA_ARRAY(&e->call->arena, u32, json_array_size(list));
    json_array_foreach(list, i, v) {
        if (!json_is_integer(v) || json_integer_value(v) < 0 || json_integer_value(v) > UINT32_MAX)
            return err_set(err, ERR_INVALID, "invalid input type");
        ids[i] = (u32)json_integer_value(v);
    }
    in->ids = ids;
    in->n_ids = (u32)json_array_size(list);
    return in->n_ids ? OK : err_set(err, ERR_INVALID, "invalid input type");
}

/* Text or a list of texts; OpenAI's dialect also has lists of token ids, and lists of those. */
static enum status inputs_read(struct embed_call *e, bool tokens, struct err *err) {
    const json_t *input = e->f.input;
    size_t i;
    json_t *v;
    if (!input || (json_is_string(input) && json_string_length(input) == 0))
        return OK;
    if (json_is_string(input)) {
        TRY(inputs_reserve(e, 1, err));
        e->inputs[0].text = json_text(input);
        return OK;
    }
    if (!json_is_array(input))
        return err_set(err, ERR_INVALID, "invalid input type");
    if (tokens && json_is_integer(json_array_get(input, 0))) {
        TRY(inputs_reserve(e, 1, err));
        return ids_read(e, input, &e->inputs[0], err);
    }
    TRY(inputs_reserve(e, json_array_size(input), err));
    json_array_foreach(input, i, v) {
        if (json_is_string(v))
            e->inputs[i].text = json_text(v);
        else if (tokens && json_is_array(v))
            TRY(ids_read(e, v, &e->inputs[i], err));
        else
            return err_set(err, ERR_INVALID, "invalid input type");
    }
    return OK;
}

/* ---------------------------------------------------------------- vectors to text */

/* Cuts to the wanted dimensions and gives the vector its length of 1; the answer ends if that is impossible.
 */
static bool vector_normalize(struct call *c, f32 *v, u32 *n) {
    bool good = gen_vector_normalize(v, *n);
    if (good && c->dimensions && c->dimensions < *n) {
        *n = c->dimensions;
        good = gen_vector_normalize(v, *n);
    }
    if (!good) {
        c->api->backend.cancel(c->api->backend.ctx, c->request_id);
        call_refuse(c, 400, STR("embedding contains NaN or Inf values"));
    }
    return good;
}

static f32 *vector_copy(const struct gen_event *e) {
    f32 *v = xmalloc(sizeof *v * MAX(e->n_vector, 1u));
    if (e->n_vector)
        memcpy(v, e->vector, sizeof *v * e->n_vector);
    return v;
}

static void floats_write(struct buf *b, const f32 *v, u32 n) {
    json_open(b, '[');
    for (u32 i = 0; i < n; i++)
        json_f32(b, v[i]);
    json_close(b, ']');
}

static void embed_vector(struct call *c, const struct gen_event *e) {
    f32 *v = vector_copy(e);
    u32 n = e->n_vector;
    if (vector_normalize(c, v, &n))
        floats_write(&c->text, v, n);
    free(v);
}

static void nonzero(struct buf *b, const char *key, u64 v) {
    if (v)
        json_key(b, key), json_u64(b, v);
}

static void embed_whole(struct call *c, const struct gen_event *e) {
    struct buf *b = &c->out;
    json_open(b, '{');
    json_key(b, "model"), json_str(b, c->model);
    json_key(b, "embeddings"), json_open(b, '[');
    buf_add_str(b, buf_str(&c->text));
    json_close(b, ']');
    if (e->reason != GEN_LOAD) {
        nonzero(b, "total_duration", clock_ns() - c->arrival_ns);
        nonzero(b, "load_duration", e->counts.queue_ns);
        nonzero(b, "prompt_eval_count", e->counts.n_prompt);
    }
    json_close(b, '}');
}

/* As the model gives it, in double precision. */
static void embeddings_vector(struct call *c, const struct gen_event *e) {
    for (u32 i = 0; i < e->n_vector; i++)
        json_f64(&c->text, (f64)e->vector[i]);
}

static void embeddings_whole(struct call *c, const struct gen_event *e) {
    struct buf *b = &c->out;
    (void)e;
    json_open(b, '{');
    json_key(b, "embedding"), json_open(b, '[');
    buf_add_str(b, buf_str(&c->text));
    json_close(b, ']');
    json_close(b, '}');
}

/* Bytes of the floats, which are little-endian here as there. */
static void base64_write(struct buf *b, const f32 *v, u32 n) {
    size_t bytes = n * sizeof *v;
    buf_add_char(b, '"');
    buf_reserve(b, (bytes + 2) / 3 * 4 + 1);
    b->n += (size_t)EVP_EncodeBlock((u8 *)b->p + b->n, (const u8 *)v, (int)bytes);
    buf_add_char(b, '"');
}

static void openai_vector(struct call *c, const struct gen_event *e) {
    struct buf *b = &c->text;
    f32 *v = vector_copy(e);
    u32 n = e->n_vector;
    if (vector_normalize(c, v, &n)) {
        json_open(b, '{');
        json_key(b, "object"), json_str(b, STR("embedding"));
        json_key(b, "embedding");
        if (c->base64)
            base64_write(b, v, n);
        else
            floats_write(b, v, n);
        json_key(b, "index"), json_u64(b, e->input);
        json_close(b, '}');
    }
    free(v);
}

static void openai_whole(struct call *c, const struct gen_event *e) {
    struct buf *b = &c->out;
    json_open(b, '{');
    json_key(b, "object"), json_str(b, STR("list"));
    json_key(b, "data"), json_open(b, '[');
    buf_add_str(b, buf_str(&c->text));
    json_close(b, ']');
    json_key(b, "model"), json_str(b, c->model);
    json_key(b, "usage"), json_open(b, '{');
    json_key(b, "prompt_tokens"), json_u64(b, e->counts.n_prompt);
    json_key(b, "total_tokens"), json_u64(b, e->counts.n_prompt);
    json_close(b, '}');
    json_close(b, '}');
}

static void no_first(struct call *c) { (void)c; }

static const struct call_writer embed_writer = {.dialect = DIALECT_NATIVE,
                                                .whole_type = "application/json; charset=utf-8",
                                                .first = no_first,
                                                .vector = embed_vector,
                                                .whole = embed_whole};
static const struct call_writer embeddings_writer = {.dialect = DIALECT_NATIVE,
                                                     .whole_type = "application/json; charset=utf-8",
                                                     .first = no_first,
                                                     .vector = embeddings_vector,
                                                     .whole = embeddings_whole};
static const struct call_writer openai_writer = {.dialect = DIALECT_OPENAI,
                                                 .whole_type = "application/json",
                                                 .first = no_first,
                                                 .vector = openai_vector,
                                                 .whole = openai_whole};

/* ---------------------------------------------------------------- routes */

/* Everything behind the fields: finds the model and hands the request over. */
static enum status submit(struct embed_call *e, enum name_style style, struct err *err) {
    struct call *c = e->call;
    struct options o;
    bool given;
    c->model = arena_str(&c->arena, e->f.model);
    TRY(resolve_keep_alive(c->api, e->f.keep_alive, &e->keep_alive_ns, &given, err));
    if (e->f.dimensions.v < 0)
        return err_set(err, ERR_INVALID, "dimensions must not be negative");
    c->dimensions = (u32)MIN(e->f.dimensions.v, (i64)UINT32_MAX);
    TRY(resolve_model(c, style, &e->model, err));
    TRY(resolve_embedding(&e->model, err));
    TRY(resolve_parameters(c, &e->model, &o, err));
    TRY(resolve_options(c, e->f.options, &o, err));
    options_resolve(&o, c->api->config.num_ctx_default, e->model.facts.context_length, &e->request);
    e->request.form = GEN_FORM_EMBED;
    e->request.truncate = e->f.truncate != TRI_FALSE;
    e->request.load_only = e->request.n_inputs == 0;
    call_stamp(c, &e->request, e->f.user);
    call_submit(c, &e->model, &e->request, e->keep_alive_ns);
    return OK;
}

static enum status embed_run(struct embed_call *e, const json_t *root, struct err *err) {
    TRY(fields_read(root, "EmbedRequest", embed_fields, ARRAY_LEN(embed_fields), &e->f, err));
    TRY(inputs_read(e, false, err));
    return submit(e, NAME_STYLE_EMBED, err);
}

static enum status embeddings_run(struct embed_call *e, const json_t *root, struct err *err) {
    TRY(fields_read(root, "EmbeddingRequest", embeddings_fields, ARRAY_LEN(embeddings_fields), &e->f, err));
    if (e->f.prompt.n) {
        TRY(inputs_reserve(e, 1, err));
        e->inputs[0].text = e->f.prompt;
    }
    return submit(e, NAME_STYLE_EMBEDDINGS, err);
}

static enum status openai_run(struct embed_call *e, const json_t *root, struct err *err) {
    TRY(fields_read(root, "EmbedRequest", openai_fields, ARRAY_LEN(openai_fields), &e->f, err));
    struct str format = e->f.encoding_format;
    e->call->base64 = str_is(format, "base64");
    if (format.n && !e->call->base64 && !str_is(format, "float"))
        return err_set(err, ERR_INVALID,
                       "Invalid value for 'encoding_format' = %.*s. Supported values: ['float', 'base64'].",
                       STR_FMT(str_slice(format, 0, 64)));
    TRY(inputs_read(e, true, err));
    if (e->request.n_inputs == 0)
        return err_set(err, ERR_INVALID, "invalid input");
    return submit(e, NAME_STYLE_EMBED, err);
}

static void handle(struct call *c, const struct call_writer *writer, struct str body,
                   enum status (*run)(struct embed_call *, const json_t *, struct err *)) {
    struct embed_call e = {.call = c};
    struct err err;
    json_t *root;
    c->writer = writer;
    gen_request_init(&e.request);
    enum status status = body_parse(body, &root, &err);
    if (status == OK)
        status = run(&e, root, &err);
    json_decref(root);
    if (status != OK)
        call_fail(c, status, &err);
}

void handle_embed(struct call *c, struct str body) { handle(c, &embed_writer, body, embed_run); }
void handle_embeddings(struct call *c, struct str body) {
    handle(c, &embeddings_writer, body, embeddings_run);
}
void handle_openai_embeddings(struct call *c, struct str body) {
    handle(c, &openai_writer, body, openai_run);
}
