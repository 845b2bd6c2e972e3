/* repl_command.c - the lines of the REPL that begin with '/'. */
#include "cli/commands.h"

#include <stdio.h>

#define WORDS_MAX 64u

struct words {
    struct str word[WORDS_MAX];
    u32 n;
};

/* Words between blanks; the last of WORDS_MAX takes the rest of the line. */
static struct words words_of(struct str line) {
    struct words w = {0};
    line = str_trim(line);
    while (line.n && w.n < WORDS_MAX) {
        size_t end = 0;
        while (end < line.n && line.p[end] != ' ' && line.p[end] != '\t')
            end++;
        if (w.n == WORDS_MAX - 1)
            end = line.n;
        w.word[w.n++] = str_slice(line, 0, end);
        line = str_trim(str_slice(line, end, line.n));
    }
    return w;
}

/* --- help --- */

static void help_main(void) {
    fputs("Available Commands:\n"
          "  /set            Set session variables\n"
          "  /show           Show model information\n"
          "  /load <model>   Load a session or model\n"
          "  /save <model>   Save your current session\n"
          "  /list           List models\n"
          "  /clear          Clear session context\n"
          "  /bye            Exit\n"
          "  /?, /help       Help for a command\n"
          "  /? shortcuts    Help for keyboard shortcuts\n"
          "\n"
          "Use \"\"\" to begin a multi-line message.\n\n",
          stderr);
}

static void help_set(void) {
    fputs("Available Commands:\n"
          "  /set parameter ...     Set a parameter\n"
          "  /set system <string>   Set system message\n"
          "  /set history           Enable history\n"
          "  /set nohistory         Disable history\n"
          "  /set wordwrap          Enable wordwrap\n"
          "  /set nowordwrap        Disable wordwrap\n"
          "  /set format json       Enable JSON mode\n"
          "  /set noformat          Disable formatting\n"
          "  /set verbose           Show LLM stats\n"
          "  /set quiet             Disable LLM stats\n"
          "  /set think [level]     Enable thinking\n"
          "  /set nothink           Disable thinking\n\n",
          stderr);
}

static void help_show(void) {
    fputs("Available Commands:\n"
          "  /show info         Show details for this model\n"
          "  /show license      Show model license\n"
          "  /show modelfile    Show Modelfile for this model\n"
          "  /show parameters   Show parameters for this model\n"
          "  /show system       Show system message\n"
          "  /show template     Show prompt template\n\n",
          stderr);
}

static void help_parameters(void) {
    fputs("Available Parameters:\n"
          "  /set parameter seed <int>             Random number seed\n"
          "  /set parameter num_predict <int>      Max number of tokens to predict\n"
          "  /set parameter top_k <int>            Pick from top k num of tokens\n"
          "  /set parameter top_p <float>          Pick token based on sum of probabilities\n"
          "  /set parameter min_p <float>          Pick token based on top token probability * min_p\n"
          "  /set parameter num_ctx <int>          Set the context size\n"
          "  /set parameter temperature <float>    Set creativity level\n"
          "  /set parameter repeat_penalty <float> How strongly to penalize repetitions\n"
          "  /set parameter repeat_last_n <int>    Set how far back to look for repetitions\n"
          "  /set parameter stop <string> <string> ...   Set the stop parameters\n\n",
          stderr);
}

static void help_shortcuts(void) {
    fputs("Available keyboard shortcuts:\n"
          "  Ctrl + a            Move to the beginning of the line (Home)\n"
          "  Ctrl + e            Move to the end of the line (End)\n"
          "   Alt + b            Move back (left) one word\n"
          "   Alt + f            Move forward (right) one word\n"
          "  Ctrl + k            Delete the sentence after the cursor\n"
          "  Ctrl + u            Delete the sentence before the cursor\n"
          "  Ctrl + w            Delete the word before the cursor\n"
          "\n"
          "  Ctrl + j            Begin a new line in the message\n"
          "  Ctrl + l            Clear the screen\n"
          "  Ctrl + c            Stop the model from responding\n"
          "  Ctrl + d            Exit (/bye)\n\n",
          stderr);
}

static void command_help(const struct words *w) {
    if (w->n < 2)
        help_main();
    else if (str_is(w->word[1], "set") || str_is(w->word[1], "/set"))
        help_set();
    else if (str_is(w->word[1], "show") || str_is(w->word[1], "/show"))
        help_show();
    else if (str_is(w->word[1], "shortcut") || str_is(w->word[1], "shortcuts"))
        help_shortcuts();
}

/* --- /set --- */

void repl_system_set(struct repl_state *r) {
    struct session *s = r->s;
    buf_clear(&s->system);
    buf_add_str(&s->system, buf_str(&r->text));
    if (s->n_messages && !strcmp(s->messages[s->n_messages - 1].role, "system"))
        session_message_drop(s);
    session_message_add(s, "system", buf_str(&s->system));
    buf_clear(&r->text);
    r->system_open = false;
    puts("Set system message.");
}

/* /set system TEXT, or """TEXT over several lines. */
static void set_system(struct repl_state *r, struct str line) {
    size_t at = str_find(line, STR("system"), 0);
    struct str text = str_trim(str_slice(line, at + strlen("system"), line.n));
    if (text.n == 0) {
        help_set();
        return;
    }
    buf_clear(&r->text);
    if (str_starts(text, STR("\"\"\""))) {
        text = str_slice(text, 3, text.n);
        if (!str_ends(text, STR("\"\"\""))) {
            buf_add_str(&r->text, text);
            buf_add_char(&r->text, '\n');
            r->system_open = true;
            return;
        }
        text.n -= 3;
    }
    buf_add_str(&r->text, text);
    repl_system_set(r);
}

static void set_parameter(struct session *s, const struct words *w) {
    struct err err;
    if (w->n < 4) {
        help_parameters();
        return;
    }
    if (session_option_set(s, w->word[2], &w->word[3], w->n - 3, &err) != OK) {
        printf("Couldn't set parameter: \"%s\"\n", err.text);
        return;
    }
    printf("Set parameter '%.*s' to '", STR_FMT(w->word[2]));
    for (u32 i = 3; i < w->n; i++)
        printf("%s%.*s", i > 3 ? ", " : "", STR_FMT(w->word[i]));
    puts("'");
}

static void think_is_lost(struct session *s) {
    fprintf(stderr, "warning: model \"%s\" does not support thinking output\n", buf_cstr(&s->model));
}

/* Says it when the model cannot think, before a question is lost on it. */
static void think_warn(struct session *s) {
    struct err err;
    json_t *show = model_show(s->cli, buf_str(&s->model), false, &err);
    if (show && !model_can(show, "thinking"))
        think_is_lost(s);
    json_decref(show);
}

static void set_think(struct session *s, struct str level, bool on) {
    buf_clear(&s->think);
    if (level.n)
        json_str(&s->think, level);
    else
        json_bool(&s->think, on);
    s->think_set = true;
    think_warn(s);
    if (level.n)
        printf("Set 'think' mode to '%.*s'.\n", STR_FMT(level));
    else
        printf("Set '%s' mode.\n", on ? "think" : "nothink");
}

static void set_format(struct session *s, struct str format) {
    if (!str_is(format, "json")) {
        puts("Invalid or missing format. For 'json' mode use '/set format json'");
        return;
    }
    buf_clear(&s->format);
    json_str(&s->format, format);
    puts("Set format to 'json' mode.");
}

static void command_set(struct repl_state *r, struct str line, const struct words *w) {
    struct session *s = r->s;
    struct str what = w->n > 1 ? w->word[1] : STR_NONE, third = w->n > 2 ? w->word[2] : STR_NONE;
    if (what.n == 0) {
        help_set();
    } else if (str_is(what, "history") || str_is(what, "nohistory")) {
        r->history = str_is(what, "history");
    } else if (str_is(what, "wordwrap") || str_is(what, "nowordwrap")) {
        s->wrap = str_is(what, "wordwrap");
        printf("Set '%.*s' mode.\n", STR_FMT(what));
    } else if (str_is(what, "verbose") || str_is(what, "quiet")) {
        s->verbose = str_is(what, "verbose");
        printf("Set '%.*s' mode.\n", STR_FMT(what));
    } else if (str_is(what, "think") || str_is(what, "nothink")) {
        set_think(s, str_is(what, "think") ? third : STR_NONE, str_is(what, "think"));
    } else if (str_is(what, "format")) {
        set_format(s, third);
    } else if (str_is(what, "noformat")) {
        buf_clear(&s->format);
        puts("Disabled format.");
    } else if (str_is(what, "parameter")) {
        set_parameter(s, w);
    } else if (str_is(what, "system")) {
        set_system(r, line);
    } else {
        printf("Unknown command '/set %.*s'. Type /? for help\n", STR_FMT(what));
    }
}

/* --- /show --- */

static void show_parameters(const struct session *s, struct str text) {
    puts("Model defined parameters:");
    if (text.n == 0)
        puts("  No additional parameters were specified for this model.");
    while (text.n) {
        size_t end = MIN(str_find(text, STR("\n"), 0), text.n);
        printf("  %.*s\n", STR_FMT(str_slice(text, 0, end)));
        text = str_slice(text, end + 1, text.n);
    }
    putchar('\n');
    if (s->n_options == 0)
        return;
    puts("User defined parameters:");
    for (u32 i = 0; i < s->n_options; i++)
        printf("  %-30s %.*s\n", s->options[i].name, STR_FMT(buf_str(&s->options[i].text)));
    putchar('\n');
}

static void show_text(struct str text, const char *none) {
    if (text.n)
        printf("%.*s\n", STR_FMT(text));
    else
        puts(none);
}

static enum status command_show_part(struct repl_state *r, const struct words *w, struct err *err) {
    struct session *s = r->s;
    if (w->n < 2) {
        help_show();
        return OK;
    }
    struct str what = w->word[1];
    json_t *show = model_show(s->cli, buf_str(&s->model), false, err);
    if (!show)
        return err->status;
    if (str_is(what, "info"))
        show_print(show, false, stderr);
    else if (str_is(what, "license"))
        show_text(member_text(show, "license"), "No license was specified for this model.");
    else if (str_is(what, "modelfile"))
        show_text(member_text(show, "modelfile"), "No Modelfile is known for this model.");
    else if (str_is(what, "parameters"))
        show_parameters(s, member_text(show, "parameters"));
    else if (str_is(what, "system"))
        show_text(s->system.n ? buf_str(&s->system) : member_text(show, "system"),
                  "No system message was specified for this model.");
    else if (str_is(what, "template"))
        show_text(member_text(show, "template"), "No prompt template was specified for this model.");
    else
        printf("Unknown command '/show %.*s'. Type /? for help\n", STR_FMT(what));
    json_decref(show);
    return OK;
}

/* --- the rest --- */

/* What /set think asked for is not for a model that cannot. */
static void think_forget(struct session *s, const json_t *show) {
    if (!s->think_set || str_is(buf_str(&s->think), "false") || model_can(show, "thinking"))
        return;
    think_is_lost(s);
    buf_clear(&s->think);
    s->think_set = false;
}

/* Another model, with an empty conversation; the old one stays if it cannot be loaded. */
static enum status command_load(struct repl_state *r, const struct words *w, struct err *err) {
    struct session *s = r->s;
    if (w->n != 2) {
        puts("Usage:\n  /load <modelname>");
        return OK;
    }
    printf("Loading model '%.*s'\n", STR_FMT(w->word[1]));
    fflush(stdout);
    json_t *show = model_show(s->cli, w->word[1], false, err);
    if (!show && err->status == ERR_NOT_FOUND) {
        printf("Couldn't find model '%.*s'\n", STR_FMT(w->word[1]));
        return OK;
    }
    if (!show)
        return err->status;
    struct buf old = s->model, old_think = s->think;
    s->model = (struct buf){0};
    s->think = (struct buf){0};
    buf_add_str(&s->model, w->word[1]);
    buf_add_str(&s->think, buf_str(&old_think));
    bool was_set = s->think_set;
    think_forget(s, show);
    session_think_infer(s, show);
    json_decref(show);
    enum status status = session_load(s, err);
    if (status == OK) {
        session_clear(s);
    } else {
        struct buf model = s->model, think = s->think;
        s->model = old, s->think = old_think, s->think_set = was_set;
        old = model, old_think = think;
    }
    buf_release(&old);
    buf_release(&old_think);
    return status;
}

/* The model's own messages, then those of this conversation; a system message that /set gave is the new
 * model's system text already. */
static void save_messages(const struct session *s, const json_t *own, struct buf *b) {
    const json_t *m;
    size_t k;
    json_key(b, "messages"), json_open(b, '[');
    json_array_foreach((json_t *)own, k, m) {
        json_open(b, '{');
        json_key(b, "role"), json_str(b, member_text(m, "role"));
        json_key(b, "content"), json_str(b, member_text(m, "content"));
        json_close(b, '}');
    }
    for (u32 i = 0; i < s->n_messages; i++) {
        if (!strcmp(s->messages[i].role, "system") &&
            str_eq(buf_str(&s->messages[i].content), buf_str(&s->system)))
            continue;
        json_open(b, '{');
        json_key(b, "role"), json_str(b, str_of(s->messages[i].role));
        json_key(b, "content"), json_str(b, buf_str(&s->messages[i].content));
        json_close(b, '}');
    }
    json_close(b, ']');
}

static enum status save(struct session *s, struct str name, struct err *err) {
    struct buf body = {0}, answer = {0};
    json_t *show = model_show(s->cli, buf_str(&s->model), false, err);
    if (!show)
        return err->status;
    json_open(&body, '{');
    json_key(&body, "model"), json_str(&body, name);
    json_key(&body, "from"), json_str(&body, buf_str(&s->model));
    if (s->system.n)
        json_key(&body, "system"), json_str(&body, buf_str(&s->system));
    session_options_json(s, "parameters", &body);
    save_messages(s, json_object_get(show, "messages"), &body);
    json_key(&body, "stream"), json_bool(&body, false);
    json_close(&body, '}');
    enum status status = http_client_call(s->cli->http, "POST", "/api/create", buf_str(&body), &answer, err);
    json_decref(show);
    buf_release(&body);
    buf_release(&answer);
    return status;
}

/* A failure ends the command, not the conversation that was to be kept. */
static enum status command_save(struct repl_state *r, const struct words *w, struct err *err) {
    if (w->n != 2) {
        puts("Usage:\n  /save <modelname>");
        return OK;
    }
    enum status status = save(r->s, w->word[1], err);
    if (status == OK)
        printf("Created new model '%.*s'\n", STR_FMT(w->word[1]));
    else if (str_find(str_of(err->text), STR("invalid model name"), 0) != SIZE_MAX)
        printf("error: The model name '%.*s' is invalid\n", STR_FMT(w->word[1]));
    else if (status != ERR_CANCELED)
        printf("error: %s\n", err->text);
    return status == ERR_CANCELED ? status : OK;
}

enum status repl_command(struct repl_state *r, struct str line, struct err *err) {
    struct words w = words_of(line);
    struct str name = w.word[0];
    if (str_is(name, "/bye") || str_is(name, "/exit"))
        r->leave = true;
    else if (str_is(name, "/?") || str_is(name, "/help"))
        command_help(&w);
    else if (str_is(name, "/set"))
        command_set(r, str_trim(line), &w);
    else if (str_is(name, "/show"))
        return command_show_part(r, &w, err);
    else if (str_is(name, "/load"))
        return command_load(r, &w, err);
    else if (str_is(name, "/list"))
        return models_list(r->s->cli, w.n > 1 ? w.word[1] : STR_NONE, err);
    else if (str_is(name, "/save"))
        return command_save(r, &w, err);
    else if (str_is(name, "/clear"))
        session_clear(r->s), puts("Cleared session context");
    else
        printf("Unknown command '%.*s'. Type /? for help\n", STR_FMT(name));
    return OK;
}
