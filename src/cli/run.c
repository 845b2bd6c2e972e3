/* run.c - `minka run MODEL|FILE.gguf [PROMPT]`. */
#include "cli/commands.h"

#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/limit.h"
#include "store/store.h"

/* --- a file instead of a model --- */

/* "./Some Model-Q4_K.gguf" -> "local/Some-Model-Q4_K": in a namespace of its own, so that a file never
 * replaces a model of the same name. */
static void name_of_file(const char *path, char *out, size_t cap) {
    const char *base = strrchr(path, '/');
    base = base ? base + 1 : path;
    size_t n = MIN(strlen(base) - strlen(".gguf"), sizeof((struct model_name *)0)->model - 2);
    size_t at = (size_t)snprintf(out, cap, "local/");
    for (size_t i = 0; i < n && at + 1 < cap; i++) {
        char c = base[i];
        bool letter = (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z') || c == '_';
        out[at++] = letter || (i && c == '.') ? c : i ? '-' : '_';
    }
    out[at] = 0;
}

/* The name holds this very file already: its blob is a hard link of it. */
static bool imported(struct store *store, const char *path, const struct model_name *name) {
    struct arena arena;
    struct store_model model;
    struct stat a, b;
    arena_init(&arena, 0);
    bool same = false;
    if (store_find(store, name, &arena, &model, NULL) == OK) {
        struct str blob = store_blob_path(store, model.model_digest, &arena);
        same = blob.n && stat(path, &a) == 0 && stat(blob.p, &b) == 0 && a.st_dev == b.st_dev &&
               a.st_ino == b.st_ino;
    }
    arena_release(&arena);
    return same;
}

static enum status import(struct cli *c, const char *path, struct buf *model, struct err *err) {
    char text[128];
    struct model_name name;
    struct store *store;
    struct arena arena;
    name_of_file(path, text, sizeof text);
    TRY(model_name_parse(str_of(text), &name, err));
    TRY(store_open(c->settings.models, &store, err));
    enum status status = OK;
    if (!imported(store, path, &name)) {
        if (c->term.err)
            fprintf(stderr, "importing %s as %s\n", path, text);
        status = store_import(store, path, &name, err);
    }
    arena_init(&arena, 0);
    buf_add_str(model, model_name_short(&name, &arena));
    arena_release(&arena);
    store_close(store);
    return status;
}

static bool is_gguf_file(const char *text) {
    return str_ends(str_of(text), STR(".gguf")) && access(text, F_OK) == 0;
}

/* --- flags --- */

static enum status flags_think(struct session *s, const struct args *a, struct err *err) {
    const char *v = args_text(a, "think");
    s->hide_thinking = args_bool(a, "hidethinking");
    if (!v)
        return OK;
    bool level = !strcmp(v, "high") || !strcmp(v, "medium") || !strcmp(v, "low") || !strcmp(v, "max");
    if (!level && strcmp(v, "") && strcmp(v, "true") && strcmp(v, "false"))
        return err_set(err, ERR_INVALID,
                       "invalid value for --think: \"%s\" (must be true, false, high, medium, low, or max)",
                       v);
    if (level)
        json_str(&s->think, str_of(v));
    else
        json_bool(&s->think, strcmp(v, "false") != 0);
    s->think_set = true;
    return OK;
}

/* "json", or a JSON Schema given as text. */
static enum status flags_format(struct session *s, const struct args *a, struct err *err) {
    const char *v = args_text(a, "format");
    if (!v || !*v)
        return OK;
    if (!strcmp(v, "json")) {
        json_str(&s->format, str_of(v));
        return OK;
    }
    json_t *schema = json_loads(v, 0, NULL);
    if (!json_is_object(schema)) {
        json_decref(schema);
        return err_set(err, ERR_INVALID,
                       "invalid format: \"%s\"; expected \"json\" or a valid JSON Schema object", v);
    }
    json_decref(schema);
    buf_add_str(&s->format, str_of(v));
    return OK;
}

static enum status flags_read(struct session *s, const struct args *a, struct err *err) {
    const char *context = args_text(a, "num-ctx"), *keep = args_text(a, "keepalive");
    s->wrap = !args_bool(a, "nowordwrap");
    s->verbose = args_bool(a, "verbose");
    TRY(flags_think(s, a, err));
    TRY(flags_format(s, a, err));
    if (context) {
        u64 n;
        if (!str_to_u64(str_of(context), &n) || n == 0 || n > LIMIT_NUM_CTX)
            return err_set(err, ERR_INVALID, "invalid value for --num-ctx: \"%s\" (must be 1 to %u tokens)",
                           context, LIMIT_NUM_CTX);
        struct str value = str_of(context);
        TRY(session_option_set(s, STR("num_ctx"), &value, 1, err));
    }
    if (keep) {
        i64 ns;
        if (!duration_parse(str_of(keep), false, &ns))
            return err_set(err, ERR_INVALID,
                           "invalid value for --keepalive: \"%s\" (write a duration such as 5m or 1h30m)",
                           keep);
        json_str(&s->keep_alive, str_of(keep));
    }
    return OK;
}

/* --- the prompt --- */

static enum status prompt_read(const struct cli *c, const struct args *a, struct buf *prompt,
                               struct err *err) {
    char block[65536];
    ssize_t n = 0;
    while (!c->term.in && (n = read(STDIN_FILENO, block, sizeof block)) != 0) {
        if (n < 0 && errno == EINTR && !interrupt_taken())
            continue;
        if (n < 0)
            return err_errno(err, errno == EINTR ? ERR_CANCELED : ERR_IO,
                             "cannot read the prompt from standard input");
        if (prompt->n + (size_t)n > LIMIT_BODY_BYTES)
            return err_set(err, ERR_TOO_LARGE, "the prompt on standard input is larger than %u MiB",
                           LIMIT_BODY_BYTES >> 20);
        buf_add(prompt, block, (size_t)n);
    }
    for (u32 i = 1; i < a->n_rest; i++) {
        if (prompt->n)
            buf_add_char(prompt, ' ');
        buf_add_str(prompt, str_of(a->rest[i]));
    }
    return OK;
}

/* --- the command --- */

/* The server's store is another one than ours. */
static enum status not_found(const struct cli *c, const char *what, struct err *err) {
    char url[512];
    settings_url(&c->settings, url, sizeof url);
    return err_set(err, ERR_NOT_FOUND,
                   "%s was imported, but the server at %s does not see it: OLLAMA_MODELS must name the same "
                   "folder for both",
                   what, url);
}

static enum status embed(struct session *s, const struct args *a, struct str prompt, struct err *err) {
    struct buf b = {0}, answer = {0};
    const char *dimensions = args_text(a, "dimensions");
    u64 n = 0;
    if (dimensions && !str_to_u64(str_of(dimensions), &n))
        return err_set(err, ERR_INVALID, "invalid value for --dimensions: \"%s\"", dimensions);
    if (prompt.n == 0)
        return err_set(err, ERR_INVALID,
                       "embedding models require input text. Usage: minka run %s \"your text here\"",
                       buf_cstr(&s->model));
    json_open(&b, '{');
    json_key(&b, "model");
    json_str(&b, buf_str(&s->model));
    json_key(&b, "input");
    json_str(&b, prompt);
    if (args_text(a, "truncate"))
        json_key(&b, "truncate"), json_bool(&b, args_bool(a, "truncate"));
    if (n)
        json_key(&b, "dimensions"), json_u64(&b, n);
    if (s->keep_alive.n)
        json_key(&b, "keep_alive"), json_raw(&b, buf_str(&s->keep_alive));
    json_close(&b, '}');
    enum status status = http_client_call(s->cli->http, "POST", "/api/embed", buf_str(&b), &answer, err);
    json_t *root = status == OK ? json_loadb(answer.p ? answer.p : "", answer.n, 0, NULL) : NULL;
    const json_t *vector = json_array_get(json_object_get(root, "embeddings"), 0);
    if (vector) {
        json_dumpf(vector, stdout, JSON_COMPACT | JSON_REAL_PRECISION(9));
        fputc('\n', stdout);
    } else if (status == OK) {
        status = err_set(err, ERR_INTERNAL, "no embeddings returned");
    }
    json_decref(root);
    buf_release(&b);
    buf_release(&answer);
    return status;
}

static enum status run(struct session *s, const struct args *a, struct buf *prompt, struct err *err) {
    struct cli *c = s->cli;
    bool from_file = is_gguf_file(a->rest[0]);
    TRY(flags_read(s, a, err));
    TRY(prompt_read(c, a, prompt, err));
    if (from_file)
        TRY(import(c, a->rest[0], &s->model, err));
    else
        buf_add_str(&s->model, str_of(a->rest[0]));
    json_t *show = model_show(c, buf_str(&s->model), false, err);
    if (!show && err->status == ERR_NOT_FOUND && !from_file) {
        TRY(model_pull(c, buf_str(&s->model), args_bool(a, "insecure"), err));
        show = model_show(c, buf_str(&s->model), false, err);
    }
    if (!show)
        return err->status == ERR_NOT_FOUND && from_file ? not_found(c, a->rest[0], err) : err->status;
    session_think_infer(s, show);
    bool embeds = model_can(show, "embedding");
    json_decref(show);
    if (embeds)
        return embed(s, a, buf_str(prompt), err);
    bool interactive = c->term.in && c->term.out && a->n_rest == 1;
    if (!interactive)
        return session_generate(s, buf_str(prompt), err);
    TRY(session_load(s, err));
    return repl_run(s, err);
}

enum status command_run(struct cli *c, const struct args *a, struct err *err) {
    struct session s = {.cli = c};
    struct buf prompt = {0};
    enum status status = run(&s, a, &prompt, err);
    buf_release(&prompt);
    session_release(&s);
    return status;
}
