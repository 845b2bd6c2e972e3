/* create.c - `minka create`: a Modelfile becomes a request, its files become blobs of the server. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <limits.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/limit.h"
#include "cli/bars.h"
#include "cli/commands.h"
#include "store/modelfile.h"
#include "store/store.h"

struct source {
    struct str path;
    char digest[72];
    u64 bytes;
};

struct creation {
    struct cli *cli;
    struct arena arena;
    struct bars bars;
    struct str folder; /* of the Modelfile */
    struct str from, template_, system, requires;
    struct source sources[LIMIT_CREATE_FILES];
    u32 n_sources;
    struct modelfile file;
    struct session options; /* only its parameters */
};

/* --- paths --- */

static struct str home_of(struct str user, struct arena *a) {
    const char *home = getenv("HOME");
    if (user.n == 0 && home && home[0])
        return str_of(home);
    struct passwd *p = user.n ? getpwnam(arena_str(a, user).p) : getpwuid(getuid());
    return p ? arena_str(a, str_of(p->pw_dir)) : STR_NONE;
}

/* "~" and "~user" expand, the rest is relative to the Modelfile. */
static enum status path_expand(struct creation *c, struct str path, struct str *out, struct err *err) {
    if (str_starts(path, STR("/"))) {
        *out = path;
    } else if (str_starts(path, STR("~"))) {
        size_t end = MIN(str_find(path, STR("/"), 0), path.n);
        struct str user = str_slice(path, 1, end), home = home_of(user, &c->arena);
        if (!home.n)
            return err_set(err, ERR_NOT_FOUND, "failed to find user '%.*s'", STR_FMT(user));
        *out = arena_printf(&c->arena, "%.*s%.*s", STR_FMT(home), STR_FMT(str_slice(path, end, path.n)));
    } else {
        *out = arena_printf(&c->arena, "%.*s/%.*s", STR_FMT(c->folder), STR_FMT(path));
    }
    return OK;
}

static enum status source_add(struct creation *c, struct str path, struct err *err) {
    if (c->n_sources == LIMIT_CREATE_FILES)
        return err_set(err, ERR_INVALID, "more than %u model files", LIMIT_CREATE_FILES);
    c->sources[c->n_sources++].path = arena_str(&c->arena, path);
    return OK;
}

static u32 folder_count(struct dirent **names, int n, const char *pattern) {
    u32 found = 0;
    for (int i = 0; i < n; i++)
        found += fnmatch(pattern, names[i]->d_name, FNM_PERIOD) == 0;
    return found;
}

static enum status folder_take(struct creation *c, struct str path, struct dirent **names, int n,
                               struct err *err) {
    static const char *const foreign[] = {"model*.safetensors", "consolidated*.safetensors",
                                          "pytorch_model*.bin", "consolidated*.pth"};
    for (size_t i = 0; i < ARRAY_LEN(foreign); i++)
        if (folder_count(names, n, foreign[i]))
            return err_set(err, ERR_UNSUPPORTED,
                           "%s files are not supported by minka: convert %.*s to a GGUF file", foreign[i],
                           STR_FMT(path));
    const char *pattern = folder_count(names, n, "*.gguf") ? "*.gguf" : "*.bin";
    if (!folder_count(names, n, pattern))
        return err_set(err, ERR_NOT_FOUND, "no Modelfile or model files found in %.*s", STR_FMT(path));
    for (int i = 0; i < n; i++)
        if (fnmatch(pattern, names[i]->d_name, FNM_PERIOD) == 0)
            TRY(source_add(c, arena_printf(&c->arena, "%.*s/%s", STR_FMT(path), names[i]->d_name), err));
    return OK;
}

static enum status folder_add(struct creation *c, struct str path, struct err *err) {
    struct dirent **names;
    int n = scandir(arena_str(&c->arena, path).p, &names, NULL, alphasort);
    if (n < 0)
        return err_errno(err, ERR_IO, "open %.*s", STR_FMT(path));
    enum status status = folder_take(c, path, names, n, err);
    for (int i = 0; i < n; i++)
        free(names[i]);
    free(names);
    return status;
}

/* What is no file is the name of a model. */
static enum status from_take(struct creation *c, struct str value, struct err *err) {
    struct str path;
    struct stat st;
    if (value.n == 0)
        return err_set(err, ERR_INVALID, "FROM needs a model or a file");
    TRY(path_expand(c, value, &path, err));
    if (stat(arena_str(&c->arena, path).p, &st) == 0)
        return S_ISDIR(st.st_mode) ? folder_add(c, path, err) : source_add(c, path, err);
    if (errno != ENOENT && errno != ENOTDIR)
        return err_errno(err, ERR_IO, "open %.*s", STR_FMT(path));
    if (strchr("./~", value.p[0])) /* no name begins so */
        return err_set(err, ERR_NOT_FOUND, "FROM %.*s: there is no such file or folder", STR_FMT(value));
    c->from = value;
    return OK;
}

/* --- lines --- */

static bool parameter_deprecated(struct str name) {
    static const char *const names[] = {"penalize_newline", "low_vram",     "f16_kv",
                                        "logits_all",       "vocab_only",   "use_mlock",
                                        "mirostat",         "mirostat_tau", "mirostat_eta"};
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (str_is(name, names[i]))
            return true;
    return false;
}

/* A repeated parameter replaces the earlier one, but stop adds up: all of its lines at once. */
static enum status parameter_take(struct creation *c, const struct modelfile_line *line, struct err *err) {
    u32 n = 0;
    if (parameter_deprecated(line->key)) {
        printf("warning: parameter %.*s is deprecated\n", STR_FMT(line->key));
        return OK;
    }
    if (!str_is(line->key, "stop"))
        return session_option_set(&c->options, line->key, &line->value, 1, err);
    struct str *all = ARENA_ARRAY(&c->arena, struct str, c->file.n);
    for (u32 i = 0; i < c->file.n; i++)
        if (c->file.lines[i].command == MODELFILE_PARAMETER && str_is(c->file.lines[i].key, "stop"))
            all[n++] = c->file.lines[i].value;
    return session_option_set(&c->options, line->key, all, n, err);
}

/* "0.14.0", "v1.2", "1.0.0-rc.1+build": the shape of a version, not its order. */
static enum status requires_take(struct creation *c, struct str value, struct err *err) {
    u32 n_dots = 0;
    bool digit = false, ok = true;
    c->requires = str_starts(value, STR("v")) ? str_slice(value, 1, value.n) : value;
    size_t n =
        MIN(MIN(str_find(c->requires, STR("-"), 0), str_find(c->requires, STR("+"), 0)), c->requires.n);
    for (size_t i = 0; i < n; i++) {
        char ch = c->requires.p[i];
        ok &= (ch >= '0' && ch <= '9') || (ch == '.' && digit);
        n_dots += ch == '.';
        digit = ch != '.';
    }
    return ok && digit && n_dots <= 2 && (n == c->requires.n || n_dots == 2)
               ? OK
               : err_set(err, ERR_INVALID, "requires must be a valid semver (e.g. 0.14.0)");
}

static enum status line_take(struct creation *c, const struct modelfile_line *line, struct err *err) {
    switch (line->command) {
    case MODELFILE_FROM: return from_take(c, line->value, err);
    case MODELFILE_PARAMETER: return parameter_take(c, line, err);
    case MODELFILE_TEMPLATE: c->template_ = line->value; return OK;
    case MODELFILE_SYSTEM: c->system = line->value; return OK;
    case MODELFILE_REQUIRES: return requires_take(c, line->value, err);
    case MODELFILE_LICENSE:
    case MODELFILE_MESSAGE: return OK; /* several: written from the lines */
    case MODELFILE_ADAPTER:
        return err_set(err, ERR_UNSUPPORTED,
                       "ADAPTER is not supported by minka: merge the adapter into the model's file");
    case MODELFILE_DRAFT:
        return err_set(err, ERR_UNSUPPORTED,
                       "DRAFT is not supported by minka: name a model in PARAMETER draft_model");
    case MODELFILE_RENDERER:
        return err_set(err, ERR_UNSUPPORTED, "RENDERER is not supported by minka: give a TEMPLATE");
    case MODELFILE_PARSER:
        return err_set(
            err, ERR_UNSUPPORTED,
            "PARSER is not supported by minka: leave it out, tool calls and thinking are found by the "
            "template");
    }
    return OK;
}

/* --- the request --- */

static void text_member(struct buf *b, const char *key, struct str s) {
    if (s.n)
        json_key(b, key), json_str(b, s);
}

static void licenses_member(const struct creation *c, struct buf *b) {
    bool any = false;
    for (u32 i = 0; i < c->file.n; i++) {
        if (c->file.lines[i].command != MODELFILE_LICENSE)
            continue;
        if (!any)
            json_key(b, "license"), json_open(b, '[');
        any = true;
        json_str(b, c->file.lines[i].value);
    }
    if (any)
        json_close(b, ']');
}

static void messages_member(const struct creation *c, struct buf *b) {
    bool any = false;
    for (u32 i = 0; i < c->file.n; i++) {
        if (c->file.lines[i].command != MODELFILE_MESSAGE)
            continue;
        if (!any)
            json_key(b, "messages"), json_open(b, '[');
        any = true;
        json_open(b, '{');
        json_key(b, "role"), json_str(b, c->file.lines[i].key);
        json_key(b, "content"), json_str(b, c->file.lines[i].value);
        json_close(b, '}');
    }
    if (any)
        json_close(b, ']');
}

static struct str base_name(struct str path) {
    for (size_t i = path.n; i > 0; i--)
        if (path.p[i - 1] == '/')
            return str_slice(path, i, path.n);
    return path;
}

static void request_json(const struct creation *c, struct str model, const char *quantize, struct buf *b) {
    json_open(b, '{');
    json_key(b, "model"), json_str(b, model);
    text_member(b, "quantize", str_of(quantize));
    text_member(b, "from", c->from);
    if (c->n_sources) {
        json_key(b, "files"), json_open(b, '{');
        for (u32 i = 0; i < c->n_sources; i++) {
            json_str(b, base_name(c->sources[i].path));
            buf_add_char(b, ':');
            json_str(b, str_of(c->sources[i].digest));
        }
        json_close(b, '}');
    }
    text_member(b, "template", c->template_);
    text_member(b, "system", c->system);
    licenses_member(c, b);
    session_options_json(&c->options, "parameters", b);
    messages_member(c, b);
    text_member(b, "requires", c->requires);
    json_close(b, '}');
}

/* --- files to blobs --- */

static bool hash_progress(void *ctx, u64 bytes) {
    struct creation *c = ctx;
    (void)bytes;
    bars_tick(&c->bars, clock_ns());
    return !interrupt_pending();
}

struct upload_view {
    struct creation *c;
    char status[64];
    u64 bytes;
};

static void upload_progress(void *ctx, u64 sent) {
    struct upload_view *v = ctx;
    bars_update(&v->c->bars, str_of(v->status), v->bytes, sent, clock_ns());
    bars_tick(&v->c->bars, clock_ns());
}

static enum status source_upload(struct creation *c, const struct source *s, struct err *err) {
    char path[128];
    struct buf none = {0};
    struct upload_view view = {.c = c, .bytes = s->bytes};
    snprintf(path, sizeof path, "/api/blobs/%s", s->digest);
    snprintf(view.status, sizeof view.status, "copying file %.19s", s->digest);
    enum status status = http_client_call(c->cli->http, "HEAD", path, STR_NONE, &none, err);
    buf_release(&none);
    if (status == OK)
        return OK;
    if (http_client_status(c->cli->http) != 404)
        return status;
    int fd = open(s->path.p, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return err_errno(err, ERR_IO, "open %s", s->path.p);
    bars_update(&c->bars, str_of(view.status), s->bytes, 0, clock_ns());
    status = http_client_upload(c->cli->http, path, fd, s->bytes, upload_progress, &view, err);
    close(fd);
    return status;
}

static enum status sources_send(struct creation *c, struct err *err) {
    bars_update(&c->bars, STR("gathering model components"), 0, 0, clock_ns());
    for (u32 i = 0; i < c->n_sources; i++)
        TRY(store_file_digest(c->sources[i].path.p, c->sources[i].digest, &c->sources[i].bytes, hash_progress,
                              c, err));
    for (u32 i = 0; i < c->n_sources; i++)
        TRY(source_upload(c, &c->sources[i], err));
    return OK;
}

/* --- the command --- */

static enum status modelfile_read(struct creation *c, const char *path, struct err *err) {
    char full[PATH_MAX];
    struct str text;
    if (!path)
        path = "Modelfile";
    if (!realpath(path, full))
        return errno == ENOENT || errno == ENOTDIR
                   ? err_set(err, ERR_NOT_FOUND, "specified Modelfile wasn't found")
                   : err_errno(err, ERR_IO, "open %s", path);
    TRY(store_read_text(full, &c->arena, &text, err));
    c->folder = str_slice(str_of(full), 0, (size_t)(strrchr(full, '/') - full));
    c->folder = arena_str(&c->arena, c->folder);
    return modelfile_parse(text, &c->arena, &c->file, err);
}

static enum status create(struct creation *c, const struct args *a, struct err *err) {
    struct buf body = {0};
    TRY(modelfile_read(c, args_text(a, "file"), err));
    for (u32 i = 0; i < c->file.n; i++)
        TRY(line_take(c, &c->file.lines[i], err));
    bars_start(&c->bars, stderr, c->cli->term.err && !c->cli->term.plain);
    enum status status = sources_send(c, err);
    request_json(c, str_of(a->rest[0]), args_text(a, "quantize"), &body);
    if (status == OK)
        status = progress_stream(c->cli, &c->bars, "/api/create", buf_str(&body), err);
    bars_stop(&c->bars, clock_ns());
    buf_release(&body);
    return status;
}

enum status command_create(struct cli *cli, const struct args *a, struct err *err) {
    struct model_name name;
    if (model_name_parse(str_of(a->rest[0]), &name, err) != OK)
        return err_set(err, ERR_INVALID, "invalid model name: %s", a->rest[0]);
    if (args_bool(a, "experimental"))
        return err_set(
            err, ERR_UNSUPPORTED,
            "--experimental (models of safetensors) is not supported by minka: convert them to a GGUF "
            "file");
    if (args_text(a, "draft-quantize"))
        return err_set(err, ERR_INVALID, "--draft-quantize requires a DRAFT model");
    struct creation *c = xcalloc(1, sizeof *c);
    c->cli = cli;
    arena_init(&c->arena, 0);
    enum status status = create(c, a, err);
    session_release(&c->options);
    arena_release(&c->arena);
    free(c);
    return status;
}
