/* show.c - `minka show`: what a model is. */
#include "cli/commands.h"

#include <stdio.h>
#include <stdlib.h>

#include "cli/human.h"

/* Tables inside a section begin with an empty cell: four blanks. */
static void row(struct table *t, const char *label, struct str value) {
    table_row(t);
    table_cell(t, STR_NONE);
    table_cell(t, str_of(label));
    table_cell(t, value);
}

static void row_single(struct table *t, struct str value) {
    table_row(t);
    table_cell(t, STR_NONE);
    table_cell(t, value);
}

static void section(FILE *out, const char *heading, struct table *t) {
    fprintf(out, "  %s\n", heading);
    table_print(t, out);
    fputc('\n', out);
    table_release(t);
}

/* A number of model_info as text; false if it is not there. */
static bool info_number(const json_t *info, struct str arch, const char *key, char out[HUMAN_BYTES]) {
    char name[128];
    snprintf(name, sizeof name, "%.*s.%s", STR_FMT(arch), key);
    const json_t *v = json_object_get(info, name);
    if (!json_is_number(v))
        return false;
    snprintf(out, HUMAN_BYTES, "%.0f", json_number_value(v));
    return true;
}

static void section_model(FILE *out, const json_t *show) {
    const json_t *info = json_object_get(show, "model_info"), *details = json_object_get(show, "details");
    struct str arch = member_text(info, "general.architecture"),
               parameters = member_text(details, "parameter_size");
    struct table t = {0};
    char text[HUMAN_BYTES];
    if (!json_is_object(info))
        arch = member_text(details, "family");
    if (arch.n)
        row(&t, "architecture", arch);
    if (parameters.n) {
        row(&t, "parameters", parameters);
    } else if (member_number(info, "general.parameter_count") > 0) {
        human_count((u64)member_number(info, "general.parameter_count"), text);
        row(&t, "parameters", str_of(text));
    }
    if (info_number(info, arch, "context_length", text))
        row(&t, "context length", str_of(text));
    if (info_number(info, arch, "embedding_length", text))
        row(&t, "embedding length", str_of(text));
    row(&t, "quantization", member_text(details, "quantization_level"));
    if (member_text(show, "requires").n)
        row(&t, "requires", member_text(show, "requires"));
    section(out, "Model", &t);
}

static void section_capabilities(FILE *out, const json_t *show) {
    const json_t *list = json_object_get(show, "capabilities");
    struct table t = {0};
    size_t i;
    json_t *v;
    if (json_array_size(list) == 0)
        return;
    json_array_foreach(list, i, v)
        row_single(&t, json_is_string(v) ? str_of(json_string_value(v)) : STR_NONE);
    section(out, "Capabilities", &t);
}

static void section_projector(FILE *out, const json_t *show) {
    const json_t *info = json_object_get(show, "projector_info");
    struct str arch = member_text(info, "general.architecture");
    struct table t = {0};
    char text[HUMAN_BYTES];
    if (!json_is_object(info))
        return;
    row(&t, "architecture", arch);
    human_count((u64)MAX(member_number(info, "general.parameter_count"), 0), text);
    row(&t, "parameters", str_of(text));
    if (info_number(info, arch, "vision.embedding_length", text))
        row(&t, "embedding length", str_of(text));
    if (info_number(info, arch, "vision.projection_dim", text))
        row(&t, "dimensions", str_of(text));
    section(out, "Projector", &t);
}

/* Cuts the next line off *text. */
static struct str line_next(struct str *text) {
    size_t end = str_find(*text, STR("\n"), 0);
    struct str line = str_slice(*text, 0, MIN(end, text->n));
    *text = str_slice(*text, end == SIZE_MAX ? text->n : end + 1, text->n);
    return line;
}

static void section_parameters(FILE *out, const json_t *show) {
    struct str text = member_text(show, "parameters");
    struct table t = {0};
    if (text.n == 0)
        return;
    while (text.n) {
        struct str line = str_trim(line_next(&text));
        if (line.n == 0)
            continue;
        table_row(&t);
        table_cell(&t, STR_NONE);
        while (line.n) {
            size_t end = 0;
            while (end < line.n && line.p[end] != ' ' && line.p[end] != '\t')
                end++;
            table_cell(&t, str_slice(line, 0, end));
            line = str_trim(str_slice(line, end, line.n));
        }
    }
    section(out, "Parameters", &t);
}

/* Arrays show their first elements, as many as fit about ten columns, and how many more there are. */
static void array_write(struct buf *b, const json_t *array) {
    size_t i, from = b->n;
    json_t *v;
    buf_add_char(b, '[');
    json_array_foreach(array, i, v) {
        size_t before = b->n;
        if (i)
            buf_add_char(b, ' ');
        if (json_is_string(v))
            buf_add_str(b, str_of(json_string_value(v)));
        else if (json_is_number(v))
            buf_printf(b, "%g", json_number_value(v));
        else
            buf_printf(b, "%s", json_is_true(v) ? "true" : "false");
        if (i && b->n - from > 10) {
            b->n = before;
            buf_printf(b, " ...+%zu more", json_array_size(array) - i);
            break;
        }
    }
    buf_add_char(b, ']');
}

static void value_write(struct buf *b, const json_t *v) {
    if (json_is_string(v))
        buf_add(b, json_string_value(v), json_string_length(v));
    else if (json_is_integer(v))
        buf_printf(b, "%" JSON_INTEGER_FORMAT, json_integer_value(v));
    else if (json_is_real(v))
        buf_printf(b, "%g", json_real_value(v));
    else if (json_is_boolean(v))
        buf_printf(b, "%s", json_is_true(v) ? "true" : "false");
    else if (json_is_array(v))
        array_write(b, v);
}

static int by_name(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static void section_metadata(FILE *out, json_t *info) {
    size_t n = json_object_size(info), i = 0;
    const char **keys = xcalloc(n, sizeof *keys), *key;
    json_t *v;
    if (n == 0) {
        free(keys);
        return;
    }
    json_object_foreach(info, key, v) keys[i++] = key;
    qsort(keys, n, sizeof *keys, by_name);
    struct table t = {0};
    struct buf text = {0};
    for (i = 0; i < n; i++) {
        buf_clear(&text);
        value_write(&text, json_object_get(info, keys[i]));
        row(&t, keys[i], buf_str(&text));
    }
    section(out, "Metadata", &t);
    buf_release(&text);
    free(keys);
}

static void section_tensors(FILE *out, const json_t *list) {
    struct table t = {0};
    struct buf shape = {0};
    size_t i, k;
    json_t *tensor, *dim;
    if (json_array_size(list) == 0)
        return;
    json_array_foreach(list, i, tensor) {
        row_single(&t, member_text(tensor, "name"));
        table_cell(&t, member_text(tensor, "type"));
        buf_clear(&shape);
        json_array_foreach(json_object_get(tensor, "shape"), k, dim)
            buf_printf(&shape, "%c%.0f", k ? ' ' : '[', json_number_value(dim));
        buf_add_char(&shape, ']');
        table_cell(&t, buf_str(&shape));
    }
    section(out, "Tensors", &t);
    buf_release(&shape);
}

/* The first two lines of a long text. */
static void section_head(FILE *out, const char *heading, struct str text) {
    struct table t = {0};
    u32 n = 0;
    if (text.n == 0)
        return;
    while (text.n) {
        struct str line = str_trim(line_next(&text));
        if (line.n == 0)
            continue;
        if (++n > 2) {
            row_single(&t, STR("..."));
            break;
        }
        table_wrapped_row(&t, STR_NONE, line, 100);
    }
    section(out, heading, &t);
}

void show_print(const json_t *show, bool verbose, FILE *out) {
    section_model(out, show);
    section_capabilities(out, show);
    section_projector(out, show);
    section_parameters(out, show);
    if (verbose) {
        section_metadata(out, json_object_get(show, "model_info"));
        section_tensors(out, json_object_get(show, "tensors"));
    }
    section_head(out, "System", member_text(show, "system"));
    section_head(out, "License", member_text(show, "license"));
}

enum status command_show(struct cli *c, const struct args *a, struct err *err) {
    static const char *const parts[] = {"license", "modelfile", "parameters", "system", "template"};
    const char *part = NULL;
    for (size_t i = 0; i < ARRAY_LEN(parts); i++) {
        if (!args_bool(a, parts[i]))
            continue;
        if (part)
            return err_set(err, ERR_INVALID,
                           "only one of '--license', '--modelfile', '--parameters', '--system', or "
                           "'--template' can be specified");
        part = parts[i];
    }
    json_t *show = model_show(c, str_of(a->rest[0]), args_bool(a, "verbose"), err);
    if (!show)
        return err->status;
    if (part) {
        struct str text = member_text(show, part);
        bool raw = !strcmp(part, "system") || !strcmp(part, "template");
        printf("%.*s%s", STR_FMT(text), raw ? "" : "\n");
    } else {
        show_print(show, args_bool(a, "verbose"), stdout);
    }
    json_decref(show);
    return OK;
}
