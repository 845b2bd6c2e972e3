/* models.c - list, ps, stop. */
#include "cli/commands.h"

#include <math.h>
#include <stdio.h>

#include "base/clock.h"
#include "cli/human.h"

/* GET path as a JSON object; NULL on failure. */
static json_t *fetch(struct cli *c, const char *path, struct err *err) {
    struct buf answer = {0};
    json_t *root = NULL;
    if (http_client_call(c->http, "GET", path, STR_NONE, &answer, err) == OK) {
        root = json_loadb(answer.p ? answer.p : "", answer.n, JSON_ALLOW_NUL, NULL);
        if (!root)
            err_set(err, ERR_INTERNAL, "the server's answer to %s is not JSON", path);
    }
    buf_release(&answer);
    return root;
}

static bool starts_nocase(struct str s, struct str prefix) {
    return s.n >= prefix.n && str_eq_nocase(str_slice(s, 0, prefix.n), prefix);
}

static void header(struct table *t, const char *const *names, size_t n) {
    table_row(t);
    for (size_t i = 0; i < n; i++)
        table_cell(t, str_of(names[i]));
}

static void cell_id(struct table *t, const json_t *model) {
    struct str digest = member_text(model, "digest");
    if (str_starts(digest, STR("sha256:")))
        digest = str_slice(digest, 7, digest.n);
    table_cell(t, str_slice(digest, 0, 12));
}

static void cell_size(struct table *t, const json_t *model) {
    char text[HUMAN_BYTES];
    human_bytes((u64)MAX(member_number(model, "size"), 0), text);
    table_cell(t, str_of(text));
}

enum status models_list(struct cli *c, struct str prefix, struct err *err) {
    static const char *const names[] = {"NAME", "ID", "SIZE", "MODIFIED"};
    json_t *root = fetch(c, "/api/tags", err), *model;
    if (!root)
        return err->status;
    struct table t = {0};
    header(&t, names, ARRAY_LEN(names));
    size_t i;
    json_array_foreach(json_object_get(root, "models"), i, model) {
        struct str name = member_text(model, "name");
        if (!starts_nocase(name, prefix))
            continue;
        table_row(&t);
        table_cell(&t, name);
        cell_id(&t, model);
        cell_size(&t, model);
        char when[HUMAN_BYTES] = "Never";
        i64 modified_ns;
        if (rfc3339_parse(member_text(model, "modified_at"), &modified_ns))
            human_time(modified_ns, clock_wall_ns(), when);
        table_cell(&t, str_of(when));
    }
    table_print(&t, stdout);
    table_release(&t);
    json_decref(root);
    return OK;
}

enum status command_list(struct cli *c, const struct args *a, struct err *err) {
    return models_list(c, str_of(a->n_rest ? a->rest[0] : ""), err);
}

/* Where a model lies, from the share of it in video memory. */
static void processor(i64 size, i64 video, char out[HUMAN_BYTES]) {
    if (video == 0) {
        snprintf(out, HUMAN_BYTES, "100%% CPU");
    } else if (video == size) {
        snprintf(out, HUMAN_BYTES, "100%% GPU");
    } else if (video > size || size == 0) {
        snprintf(out, HUMAN_BYTES, "Unknown");
    } else {
        int cpu = (int)round((f64)(size - video) / (f64)size * 100);
        snprintf(out, HUMAN_BYTES, "%d%%/%d%% CPU/GPU", cpu, 100 - cpu);
    }
}

enum status command_ps(struct cli *c, const struct args *a, struct err *err) {
    static const char *const names[] = {"NAME", "ID", "SIZE", "PROCESSOR", "CONTEXT", "UNTIL"};
    json_t *root = fetch(c, "/api/ps", err), *model;
    if (!root)
        return err->status;
    struct table t = {0};
    header(&t, names, ARRAY_LEN(names));
    size_t i;
    json_array_foreach(json_object_get(root, "models"), i, model) {
        struct str name = member_text(model, "name");
        if (a->n_rest && !starts_nocase(name, str_of(a->rest[0])))
            continue;
        char text[HUMAN_BYTES];
        table_row(&t);
        table_cell(&t, name);
        cell_id(&t, model);
        cell_size(&t, model);
        processor(member_number(model, "size"), member_number(model, "size_vram"), text);
        table_cell(&t, str_of(text));
        snprintf(text, sizeof text, "%lld", (long long)member_number(model, "context_length"));
        table_cell(&t, str_of(text));
        i64 until_ns, now_ns = clock_wall_ns();
        if (!rfc3339_parse(member_text(model, "expires_at"), &until_ns))
            snprintf(text, sizeof text, "Never");
        else if (until_ns < now_ns)
            snprintf(text, sizeof text, "Stopping...");
        else
            human_time(until_ns, now_ns, text);
        table_cell(&t, str_of(text));
    }
    table_print(&t, stdout);
    table_release(&t);
    json_decref(root);
    return OK;
}

enum status command_stop(struct cli *c, const struct args *a, struct err *err) {
    struct session s = {.cli = c};
    buf_add_str(&s.model, str_of(a->rest[0]));
    buf_add_char(&s.keep_alive, '0');
    enum status status = session_load(&s, err);
    session_release(&s);
    if (status == ERR_NOT_FOUND)
        return err_set(err, status, "couldn't find model \"%s\" to stop", a->rest[0]);
    return status;
}
