/* session.c - the state of a conversation. */
#include "cli/session.h"

#include <stdio.h>
#include <stdlib.h>

struct str member_text(const json_t *object, const char *key) {
    const json_t *v = json_object_get(object, key);
    return json_is_string(v) ? (struct str){json_string_value(v), json_string_length(v)} : STR_NONE;
}

i64 member_number(const json_t *object, const char *key) {
    const json_t *v = json_object_get(object, key);
    return json_is_number(v) ? (i64)json_number_value(v) : 0;
}

/* --- messages --- */

void session_message_add(struct session *s, const char *role, struct str content) {
    s->messages = xrealloc(s->messages, sizeof *s->messages * (s->n_messages + 1));
    struct session_message *m = &s->messages[s->n_messages++];
    *m = (struct session_message){.role = role};
    buf_add_str(&m->content, content);
}

void session_message_drop(struct session *s) {
    check(s->n_messages > 0);
    buf_release(&s->messages[--s->n_messages].content);
}

void session_clear(struct session *s) {
    while (s->n_messages)
        session_message_drop(s);
    if (s->system.n)
        session_message_add(s, "system", buf_str(&s->system));
}

void session_release(struct session *s) {
    while (s->n_messages)
        session_message_drop(s);
    free(s->messages);
    for (u32 i = 0; i < s->n_options; i++) {
        buf_release(&s->options[i].json);
        buf_release(&s->options[i].text);
    }
    free(s->options);
    buf_release(&s->model);
    buf_release(&s->system);
    buf_release(&s->format);
    buf_release(&s->think);
    buf_release(&s->keep_alive);
}

/* --- options --- */

enum option_kind { OPTION_INT, OPTION_FLOAT, OPTION_BOOL, OPTION_TEXT, OPTION_TEXTS };

static const struct {
    const char *name;
    enum option_kind kind;
} option_table[] = {
    {"num_ctx", OPTION_INT},
    {"num_batch", OPTION_INT},
    {"num_gpu", OPTION_INT},
    {"main_gpu", OPTION_INT},
    {"use_mmap", OPTION_BOOL},
    {"num_thread", OPTION_INT},
    {"draft_num_predict", OPTION_INT},
    {"draft_model", OPTION_TEXT},
    {"num_keep", OPTION_INT},
    {"seed", OPTION_INT},
    {"num_predict", OPTION_INT},
    {"temperature", OPTION_FLOAT},
    {"top_k", OPTION_INT},
    {"top_p", OPTION_FLOAT},
    {"min_p", OPTION_FLOAT},
    {"typical_p", OPTION_FLOAT},
    {"repeat_last_n", OPTION_INT},
    {"repeat_penalty", OPTION_FLOAT},
    {"presence_penalty", OPTION_FLOAT},
    {"frequency_penalty", OPTION_FLOAT},
    {"stop", OPTION_TEXTS},
};

static enum status option_write(struct buf *json, enum option_kind kind, const struct str *values, u32 n,
                                struct err *err) {
    i64 whole;
    f64 real;
    switch (kind) {
    case OPTION_INT:
        if (!str_to_i64(values[0], &whole))
            return err_set(err, ERR_INVALID, "invalid int value [%.*s]", STR_FMT(values[0]));
        json_i64(json, whole);
        return OK;
    case OPTION_FLOAT:
        if (!str_to_f64(values[0], &real))
            return err_set(err, ERR_INVALID, "invalid float value [%.*s]", STR_FMT(values[0]));
        json_f64(json, real);
        return OK;
    case OPTION_BOOL:
        if (!str_is(values[0], "true") && !str_is(values[0], "false"))
            return err_set(err, ERR_INVALID, "invalid bool value [%.*s]", STR_FMT(values[0]));
        json_bool(json, str_is(values[0], "true"));
        return OK;
    case OPTION_TEXT: json_str(json, values[0]); return OK;
    case OPTION_TEXTS:
        json_open(json, '[');
        for (u32 i = 0; i < n; i++)
            json_str(json, values[i]);
        json_close(json, ']');
        return OK;
    }
    return err_set(err, ERR_INTERNAL, "an option without a kind");
}

static struct session_option *option_slot(struct session *s, const char *name) {
    for (u32 i = 0; i < s->n_options; i++)
        if (!strcmp(s->options[i].name, name))
            return &s->options[i];
    s->options = xrealloc(s->options, sizeof *s->options * (s->n_options + 1));
    struct session_option *o = &s->options[s->n_options++];
    *o = (struct session_option){0};
    snprintf(o->name, sizeof o->name, "%s", name);
    return o;
}

void session_options_json(const struct session *s, const char *key, struct buf *b) {
    if (s->n_options == 0)
        return;
    json_key(b, key), json_open(b, '{');
    for (u32 i = 0; i < s->n_options; i++)
        json_key(b, s->options[i].name), json_raw(b, buf_str(&s->options[i].json));
    json_close(b, '}');
}

enum status session_option_set(struct session *s, struct str name, const struct str *values, u32 n_values,
                               struct err *err) {
    check(n_values > 0);
    for (size_t i = 0; i < ARRAY_LEN(option_table); i++) {
        if (!str_is(name, option_table[i].name))
            continue;
        struct buf json = {0};
        enum status status = option_write(&json, option_table[i].kind, values, n_values, err);
        if (status != OK) {
            buf_release(&json);
            return status;
        }
        struct session_option *o = option_slot(s, option_table[i].name);
        buf_release(&o->json);
        o->json = json;
        buf_clear(&o->text);
        for (u32 k = 0; k < n_values; k++) {
            if (k)
                buf_add(&o->text, ", ", 2);
            buf_add_str(&o->text, values[k]);
        }
        return OK;
    }
    return err_set(err, ERR_INVALID, "unknown parameter '%.*s'", STR_FMT(name));
}

/* --- the model --- */

json_t *model_show(struct cli *c, struct str model, bool verbose, struct err *err) {
    struct buf b = {0}, answer = {0};
    json_open(&b, '{');
    json_key(&b, "model");
    json_str(&b, model);
    if (verbose) {
        json_key(&b, "verbose");
        json_bool(&b, true);
    }
    json_close(&b, '}');
    json_t *root = NULL;
    if (http_client_call(c->http, "POST", "/api/show", buf_str(&b), &answer, err) == OK) {
        root = json_loadb(answer.p ? answer.p : "", answer.n, JSON_ALLOW_NUL, NULL);
        if (!root)
            err_set(err, ERR_INTERNAL, "the server's description of the model is not JSON");
    }
    buf_release(&b);
    buf_release(&answer);
    return root;
}

bool model_can(const json_t *show, const char *capability) {
    size_t i;
    json_t *v;
    json_array_foreach(json_object_get(show, "capabilities"), i,
                       v) if (json_is_string(v) && !strcmp(json_string_value(v), capability)) return true;
    return false;
}

void session_think_infer(struct session *s, const json_t *show) {
    if (s->think_set)
        return;
    buf_clear(&s->think);
    if (model_can(show, "thinking"))
        buf_add(&s->think, "true", 4);
}
