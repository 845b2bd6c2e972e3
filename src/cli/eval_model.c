/* eval_model.c - opens a model file as the engine does and runs one sequence through it. */
#include "cli/eval_model.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cpu.h"
#include "base/limit.h"

#define NUM_CTX_DEFAULT 4096u
#define SLICE_DEFAULT 64u

static enum status map_file(struct eval_model *e, const char *path, struct err *err) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return err_errno(err, ERR_IO, "cannot open %s", path);
    struct stat st;
    enum status s = OK;
    if (fstat(fd, &st) != 0)
        s = err_errno(err, ERR_IO, "cannot read %s", path);
    else if (!S_ISREG(st.st_mode) || st.st_size < 8)
        s = err_set(err, ERR_CORRUPT, "%s is no GGUF file", path);
    if (s == OK) {
        void *map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (map == MAP_FAILED)
            s = err_errno(err, ERR_IO, "cannot map %s", path);
        else {
            e->map = map;
            e->map_bytes = (size_t)st.st_size;
        }
    }
    close(fd);
    return s;
}

enum status eval_file_open(const char *path, struct eval_model *out, struct err *err) {
    memset(out, 0, sizeof *out);
    enum status s = map_file(out, path, err);
    if (s == OK)
        s = gguf_parse(&out->gguf, out->map, out->map_bytes, err);
    if (s != OK)
        eval_model_close(out);
    return s;
}

static enum status open_parsed(struct eval_model *e, const struct eval_options *o, struct err *err) {
    e->options = *o;
    if (!o->kern)
        TRY(kern_open(NULL, &e->options.kern, err));
    if (o->n_threads == 0)
        e->options.n_threads = MIN(cpu_count_usable(), TEAM_THREADS_MAX);
    if (o->num_ctx == 0)
        e->options.num_ctx = NUM_CTX_DEFAULT;
    e->options.slice = MIN(o->slice ? o->slice : SLICE_DEFAULT, LIMIT_STEP_ROWS);
    struct model_config config = {
        .kern = e->options.kern, .cache = o->cache, .f32_activations = o->f32_activations};
    TRY(model_open(&e->gguf, &config, &e->model, err));
    e->scratch = model_scratch_new();
    TRY(model_scratch_fit(e->scratch, e->model, e->options.slice, e->options.slice, e->options.n_threads,
                          err));
    e->team = team_new(e->options.n_threads);
    e->pool = kv_pool_new(kv_memory_anonymous);
    kv_pool_limit(e->pool, memory_usable_bytes());
    e->space =
        kv_space_new(e->pool, &model_info(e->model)->kv, model_kv_identity(e->model, 0, e->options.num_ctx));
    return OK;
}

enum status eval_model_open(const char *path, const struct eval_options *o, struct eval_model *out,
                            struct err *err) {
    TRY(eval_file_open(path, out, err));
    enum status s = open_parsed(out, o, err);
    if (s != OK)
        eval_model_close(out);
    return s;
}

enum status eval_model_open_memory(const void *data, size_t bytes, const struct eval_options *o,
                                   struct eval_model *out, struct err *err) {
    memset(out, 0, sizeof *out);
    TRY(gguf_parse(&out->gguf, data, bytes, err));
    enum status s = open_parsed(out, o, err);
    if (s != OK)
        eval_model_close(out);
    return s;
}

void eval_model_close(struct eval_model *e) {
    if (e->space)
        kv_space_free(e->space);
    if (e->pool)
        kv_pool_free(e->pool);
    team_free(e->team);
    model_scratch_free(e->scratch);
    model_close(e->model);
    gguf_release(&e->gguf);
    if (e->map)
        munmap(e->map, e->map_bytes);
    memset(e, 0, sizeof *e);
}

static enum status run_slices(struct eval_model *e, struct kv_seq *seq, const u32 *tokens, u32 n,
                              bool last_only, eval_logits_fn *fn, void *ctx, struct err *err) {
    u32 n_vocab = model_info(e->model)->n_vocab;
    for (u32 pos = 0; pos < n;) {
        u32 rows = MIN(e->options.slice, n - pos);
        if (!kv_seq_reserve(seq, pos + rows))
            return err_set(err, ERR_NO_MEMORY, "no memory for the keys and values of %u tokens", pos + rows);
        u32 wanted = !last_only ? rows : pos + rows == n ? 1 : 0;
        struct model_span span = {.seq = seq,
                                  .tokens = tokens + pos,
                                  .pos0 = pos,
                                  .n = rows,
                                  .n_logits = wanted,
                                  .num_ctx = e->options.num_ctx};
        model_forward(e->model, e->team, e->scratch, &span, 1, 0, 0);
        pos += rows;
        seq->n_tokens = pos;
        kv_seq_trim(seq);
        for (u32 i = 0; i < wanted; i += MODEL_LOGITS_TILE) {
            u32 tile = MIN(MODEL_LOGITS_TILE, wanted - i);
            const f32 *logits = model_logits(e->model, e->team, e->scratch, i, tile);
            for (u32 j = 0; j < tile; j++)
                fn(ctx, pos - wanted + i + j, logits + (size_t)j * n_vocab);
        }
    }
    return OK;
}

enum status eval_model_run(struct eval_model *e, const u32 *tokens, u32 n, bool last_only, eval_logits_fn *fn,
                           void *ctx, struct err *err) {
    if (n == 0)
        return err_set(err, ERR_INVALID, "there are no tokens");
    if (model_info(e->model)->encoder)
        return err_set(err, ERR_UNSUPPORTED, "this model makes embeddings, it predicts no tokens");
    if (n > e->options.num_ctx)
        return err_set(err, ERR_INVALID, "%u tokens do not fit a context of %u; use --num-ctx", n,
                       e->options.num_ctx);
    for (u32 i = 0; i < n; i++)
        if (tokens[i] >= model_info(e->model)->n_vocab)
            return err_set(err, ERR_INVALID, "token %u is outside the vocabulary of %u", tokens[i],
                           model_info(e->model)->n_vocab);
    struct kv_seq seq = {0};
    kv_seq_open(&seq, e->space, tokens, n, 0);
    enum status s = run_slices(e, &seq, tokens, n, last_only, fn, ctx, err);
    kv_seq_close(&seq, tokens, false, 0);
    return s;
}
