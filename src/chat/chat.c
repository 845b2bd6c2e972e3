/* chat.c - renders a request's prompt, tokenizes it and makes it fit the context. */
#include "chat/chat.h"

#include "chat/chat_vars.h"

/* Starts tried behind a point from which the template refuses to begin (roles that must alternate): the next
 * messages of the user. */
#define REFUSED_STARTS_MAX 8u

struct chat_work {
    const struct chat_model *m;
    struct tokenize_scratch *scratch;
    const struct gen_request *r;
    struct chat_vars vars;
    const struct chat_template *tmpl; /* the request's or the model's; NULL: contents joined */
    u32 n_messages;                   /* rendered ones: without an answer that is continued */
    struct chat_prompt *out;
    struct err *err;
};

void chat_prompt_release(struct chat_prompt *p) {
    buf_release(&p->rendered);
    token_list_release(&p->ids);
    *p = (struct chat_prompt){0};
}

/* --- text --- */
static void join_contents(struct chat_work *w, struct chat_window window) {
    for (u32 i = 0; i < w->r->n_messages; i++)
        if (chat_window_has(w->r, window, i))
            buf_add_str(&w->out->rendered, w->r->messages[i].content);
}

static bool continues(const struct gen_request *r) {
    const struct gen_message *last = r->n_messages ? &r->messages[r->n_messages - 1] : NULL;
    return last && last->role == ROLE_ASSISTANT && !last->n_tool_calls;
}

/* Messages from `from` on (and the system ones before) as text, in place of what was rendered. */
static enum status render_from(struct chat_work *w, u32 from) {
    struct chat_window window = {from, w->n_messages};
    struct buf *text = &w->out->rendered;
    struct value root;
    buf_clear(text);
    if (!w->tmpl) {
        window.to = w->r->n_messages;
        join_contents(w, window);
        return OK;
    }
    if (template_kind_of(w->tmpl) == TEMPLATE_GO) {
        window.to = w->r->n_messages;
        return chat_render_go(&w->vars, w->tmpl, window, text, w->err);
    }
    TRY(chat_vars_jinja(&w->vars, window, &root, w->err));
    TRY(template_render(w->tmpl, &root, w->r->time_unix, w->r->utc_offset_s, text, w->err));
    if (continues(w->r))
        buf_add_str(text, w->r->messages[w->r->n_messages - 1].content);
    return OK;
}

/* --- tokens --- */
/* The text's ids behind the request's context, with one BOS at most. */
static void tokenize_prompt(struct chat_work *w) {
    const struct tokenizer *t = w->m->tokenizer;
    const struct gen_request *r = w->r;
    struct token_list *ids = &w->out->ids;
    u32 bos = tokenizer_bos(t);
    bool special = r->add_special, context = r->n_context > 0;
    ids->n = 0;
    if (context && special && tokenizer_adds_bos(t) && r->context[0] != bos)
        token_list_add(ids, bos);
    for (u32 i = 0; i < r->n_context; i++)
        token_list_add(ids, r->context[i]);
    u32 start = ids->n;
    tokenize(t, w->scratch, buf_str(&w->out->rendered), (struct tokenize_options){true, special && !context},
             ids);
    bool doubled = special && bos != TOKEN_NONE && tokenizer_adds_bos(t) && ids->n > start + !context &&
                   ids->ids[start + !context] == bos && (context || ids->ids[start] == bos);
    if (doubled) {
        memmove(&ids->ids[start], &ids->ids[start + 1], (ids->n - start - 1) * sizeof *ids->ids);
        ids->n--;
    }
}

/* Renders from `from` on or, where the template refuses to begin there, from the next point that it takes:
 * *used. Refusing the whole conversation is the request's error. */
static enum status render_window(struct chat_work *w, u32 from, u32 *used) {
    *used = from;
    enum status s = render_from(w, from);
    for (u32 i = 0; i < REFUSED_STARTS_MAX && s == ERR_INVALID && from > 0 && *used + 1 < w->n_messages;
         i++) {
        do
            ++*used;
        while (*used + 1 < w->n_messages && w->r->messages[*used].role != ROLE_USER);
        s = render_from(w, *used);
    }
    TRY(s);
    tokenize_prompt(w);
    return OK;
}

/* The smallest start from which the prompt fits, or else that of the last message alone. */
static enum status fit_messages(struct chat_work *w) {
    u32 used = 0, last = w->n_messages ? w->n_messages - 1 : 0;
    TRY(render_window(w, 0, &used));
    if (!w->r->truncate || w->out->ids.n <= w->r->num_ctx || last == 0)
        return OK;
    u32 low = 1, high = last;
    while (low < high) {
        u32 middle = low + (high - low) / 2;
        TRY(render_window(w, middle, &used));
        if (w->out->ids.n <= w->r->num_ctx)
            high = middle;
        else
            low = middle + 1;
    }
    TRY(render_window(w, low, &used));
    w->out->n_dropped = 0;
    for (u32 i = 0; i < used; i++)
        w->out->n_dropped += w->r->messages[i].role != ROLE_SYSTEM;
    return OK;
}

/* Cuts the middle out of a prompt that leaves no room for an answer. */
static enum status cut_middle(struct chat_work *w) {
    struct token_list *ids = &w->out->ids;
    u32 num_ctx = w->r->num_ctx;
    if (ids->n <= num_ctx - 1)
        return OK;
    if (!w->r->truncate)
        return err_set(w->err, ERR_INVALID,
                       "the prompt is longer than the context length currently available to the model; "
                       "shorten the prompt, "
                       "adjust the context length in settings, or use a model with a longer context length");
    bool bos = tokenizer_bos(w->m->tokenizer) != TOKEN_NONE && ids->ids[0] == tokenizer_bos(w->m->tokenizer);
    u32 keep = MIN(w->r->num_keep < num_ctx ? w->r->num_keep + bos : num_ctx, num_ctx - 1);
    u32 total = num_ctx - MAX((num_ctx - keep) / 2, 1u), tail = total - keep;
    w->out->n_dropped = ids->n - total;
    memmove(&ids->ids[keep], &ids->ids[ids->n - tail], tail * sizeof *ids->ids);
    ids->n = total;
    return OK;
}

/* --- forms --- */
static enum status render_fill(struct chat_work *w) {
    struct value root;
    if (!w->tmpl || template_kind_of(w->tmpl) != TEMPLATE_GO)
        return err_set(w->err, ERR_UNSUPPORTED, "the model's template has no form for a suffix (insert)");
    if (!value_try_object(w->vars.arena, &root) ||
        !value_try_set_key(w->vars.arena, &root, value_str(STR("Prompt")), value_str(w->r->prompt)) ||
        !value_try_set_key(w->vars.arena, &root, value_str(STR("Suffix")), value_str(w->r->suffix)) ||
        !value_try_set_key(w->vars.arena, &root, value_str(STR("Response")), value_str(STR(""))))
        return err_set(w->err, ERR_TOO_LARGE, "the prompt takes more memory than allowed");
    TRY(template_render(w->tmpl, &root, w->r->time_unix, w->r->utc_offset_s, &w->out->rendered, w->err));
    tokenize_prompt(w);
    return OK;
}

/* The context comes from the client. */
static enum status check_context(const struct gen_request *r, const struct tokenizer *t, struct err *err) {
    for (u32 i = 0; i < r->n_context; i++)
        if (r->context[i] >= tokenizer_n_vocab(t))
            return err_set(err, ERR_INVALID, "context holds %u, but the model's tokens end at %u",
                           r->context[i], tokenizer_n_vocab(t) - 1);
    return OK;
}

static enum status render_form(struct chat_work *w) {
    if (w->r->form == GEN_FORM_RAW) {
        buf_add_str(&w->out->rendered, w->r->prompt);
        tokenize_prompt(w);
    } else if (w->r->form == GEN_FORM_FILL) {
        TRY(render_fill(w));
    } else {
        TRY(fit_messages(w));
    }
    return cut_middle(w);
}

enum status chat_render(const struct chat_model *m, struct tokenize_scratch *s, const struct gen_request *r,
                        struct arena *arena, struct chat_prompt *out, struct err *err) {
    struct chat_work w = {.m = m, .scratch = s, .r = r, .tmpl = m->chat_template, .out = out, .err = err};
    check(r->num_ctx >= 4);
    w.n_messages = r->n_messages - continues(r);
    buf_clear(&out->rendered);
    out->ids.n = 0;
    out->n_dropped = 0;
    TRY(check_context(r, m->tokenizer, err));
    TRY(chat_vars_init(&w.vars, m, r, arena, err));
    return render_form(&w);
}
