/* answer.c - requests of a conversation, and their answers on the terminal as they arrive. */
#include "cli/session.h"

#include <stdio.h>
#include <stdlib.h>

#include "cli/human.h"

static void raw_member(struct buf *b, const char *key, const struct buf *value) {
    if (value->n == 0)
        return;
    json_key(b, key);
    json_raw(b, buf_str(value));
}

/* The members that chat and generate have in common. */
static void request_open(const struct session *s, struct buf *b) {
    json_open(b, '{');
    json_key(b, "model");
    json_str(b, buf_str(&s->model));
    raw_member(b, "format", &s->format);
    raw_member(b, "think", &s->think);
    raw_member(b, "keep_alive", &s->keep_alive);
    if (s->n_options == 0)
        return;
    json_key(b, "options");
    json_open(b, '{');
    for (u32 i = 0; i < s->n_options; i++)
        raw_member(b, s->options[i].name, &s->options[i].json);
    json_close(b, '}');
}

/* An answer while it arrives. */
struct answer {
    struct session *s;
    struct spinner spinner;
    struct text_out out;
    struct buf *content;
    struct buf error; /* from an {"error":...} line */
    bool thinking, thought_line_open;
    bool shown; /* any text */
    json_t *last;
};

static void thinking_show(struct answer *a, struct str text) {
    const struct term *t = &a->s->cli->term;
    if (text.n == 0 || a->s->hide_thinking)
        return;
    spinner_stop(&a->spinner);
    if (!a->thinking)
        printf("%s%sThinking...\n%s%s", term_grey(t), term_bold(t), term_reset(t), term_grey(t));
    a->thinking = true;
    a->thought_line_open = text.p[text.n - 1] != '\n';
    text_out_write(&a->out, text);
}

static void thinking_end(struct answer *a) {
    const struct term *t = &a->s->cli->term;
    if (!a->thinking)
        return;
    printf("%s%s%s...done thinking.\n\n%s", a->thought_line_open ? "\n" : "", term_grey(t), term_bold(t),
           term_reset(t));
    a->thinking = false;
    text_out_restart(&a->out);
}

/* The command line registers no tools, so a call is only shown. */
static void tool_calls_show(struct answer *a, const json_t *calls) {
    const struct term *t = &a->s->cli->term;
    size_t i;
    json_t *call;
    json_array_foreach(calls, i, call) {
        const json_t *function = json_object_get(call, "function");
        char *arguments = json_dumps(json_object_get(function, "arguments"), JSON_COMPACT | JSON_ENCODE_ANY);
        struct str name = member_text(function, "name");
        printf("%s%s  Model called a non-existent function '%.*s()' with arguments: %s%s", i ? "\n" : "",
               term_grey(t), STR_FMT(name), arguments ? arguments : "{}", term_reset(t));
        free(arguments);
    }
}

/* Chat and generate lines: text and thinking lie in message, or beside it. */
static bool on_line(void *ctx, struct str line) {
    struct answer *a = ctx;
    json_t *root = json_loadb(line.p, line.n, JSON_ALLOW_NUL, NULL);
    if (!root)
        return true;
    struct str error = member_text(root, "error");
    if (error.n) {
        buf_add_str(&a->error, error);
        json_decref(root);
        return false;
    }
    const json_t *message = json_object_get(root, "message");
    const json_t *calls = json_object_get(message ? message : root, "tool_calls");
    struct str text = message ? member_text(message, "content") : member_text(root, "response");
    thinking_show(a, member_text(message ? message : root, "thinking"));
    if (text.n || json_array_size(calls)) {
        spinner_stop(&a->spinner);
        thinking_end(a);
        a->shown = true;
        text_out_write(&a->out, text);
        tool_calls_show(a, calls);
        if (a->content)
            buf_add_str(a->content, text);
    }
    fflush(stdout);
    json_decref(a->last);
    a->last = root;
    return true;
}

static void on_tick(void *ctx) { spinner_tick(&((struct answer *)ctx)->spinner); }

static void figure_duration(const char *label, i64 ns) {
    char text[HUMAN_BYTES];
    if (ns <= 0)
        return;
    human_duration(ns, text);
    fprintf(stderr, "%-22s%s\n", label, text);
}

static void figure_rate(const char *label, i64 n, i64 ns) {
    if (ns > 0)
        fprintf(stderr, "%-22s%.2f tokens/s\n", label, (f64)n / ((f64)ns / 1e9));
}

static void figure_count(const char *label, i64 n) {
    if (n > 0)
        fprintf(stderr, "%-22s%lld token(s)\n", label, (long long)n);
}

static void figures_show(const json_t *last) {
    i64 prompt_ns = member_number(last, "prompt_eval_duration"),
        eval_ns = member_number(last, "eval_duration");
    figure_duration("total duration:", member_number(last, "total_duration"));
    figure_duration("load duration:", member_number(last, "load_duration"));
    figure_count("prompt eval count:", member_number(last, "prompt_eval_count"));
    figure_duration("prompt eval duration:", prompt_ns);
    figure_rate("prompt eval rate:", member_number(last, "prompt_eval_count"), prompt_ns);
    figure_count("eval count:", member_number(last, "eval_count"));
    figure_duration("eval duration:", eval_ns);
    figure_rate("eval rate:", member_number(last, "eval_count"), eval_ns);
}

/* quiet: nothing of the answer is shown (loading). */
static enum status exchange(struct session *s, const char *path, struct buf *body, struct buf *content,
                            bool quiet, struct err *err) {
    struct answer a = {.s = s, .content = content};
    a.out = (struct text_out){.terminal = s->cli->term.out, .wrap = s->wrap && !s->cli->term.plain};
    struct http_sink sink = {.on_line = on_line, .on_tick = on_tick, .ctx = &a};
    spinner_start(&a.spinner, &s->cli->term);
    enum status status = http_client_stream(s->cli->http, "POST", path, buf_str(body), &sink, err);
    spinner_stop(&a.spinner);
    thinking_end(&a);
    if (a.error.n)
        status = err_set(err, ERR_INTERNAL, "%.*s", STR_FMT(buf_str(&a.error)));
    else if (status == OK && !json_is_true(json_object_get(a.last, "done")))
        status = err_set(err, ERR_IO, "the answer ended early: the server closed the connection");
    if (status == OK && !quiet)
        fputs("\n\n", stdout);
    else if (status != OK && status != ERR_CANCELED && a.shown && a.out.terminal)
        putchar('\n'); /* the message that follows has a line of its own */
    fflush(stdout);
    if (status == OK && !quiet && s->verbose)
        figures_show(a.last);
    json_decref(a.last);
    buf_release(&a.error);
    text_out_release(&a.out);
    buf_release(body);
    return status;
}

enum status session_chat(struct session *s, struct buf *content, struct err *err) {
    struct buf b = {0};
    request_open(s, &b);
    json_key(&b, "messages");
    json_open(&b, '[');
    for (u32 i = 0; i < s->n_messages; i++) {
        json_open(&b, '{');
        json_key(&b, "role");
        json_str(&b, str_of(s->messages[i].role));
        json_key(&b, "content");
        json_str(&b, buf_str(&s->messages[i].content));
        json_close(&b, '}');
    }
    json_close(&b, ']');
    json_close(&b, '}');
    return exchange(s, "/api/chat", &b, content, false, err);
}

enum status session_generate(struct session *s, struct str prompt, struct err *err) {
    struct buf b = {0};
    request_open(s, &b);
    json_key(&b, "prompt");
    json_str(&b, prompt);
    json_close(&b, '}');
    return exchange(s, "/api/generate", &b, NULL, prompt.n == 0, err);
}

enum status session_load(struct session *s, struct err *err) { return session_generate(s, STR_NONE, err); }
