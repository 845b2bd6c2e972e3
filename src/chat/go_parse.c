/* go_parse.c - tokens to the tree of a Go template, with Go's checks: variables and functions must exist,
 * break and continue stand inside range, only functions may follow a |. */
#include <stdio.h>
#include <stdlib.h>

#include "base/limit.h"
#include "chat/go.h"

struct parser {
    struct go_template *t;
    struct go_token *at;
    u32 depth, range_depth;
    struct go_names variables; /* in scope */
    struct err *err;
};

static enum status parse_fail(struct parser *p, const char *fmt, ...) PRINTF(2, 3);
static enum status parse_pipe(struct parser *p, bool range, struct go_node **out);
static enum status parse_body(struct parser *p, struct go_nodes *out);

static enum status parse_fail(struct parser *p, const char *fmt, ...) {
    char text[256];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return err_set(p->err, ERR_INVALID, "template, line %u: %s", p->at->line, text);
}

static enum status parse_full(struct parser *p) {
    return err_set(p->err, ERR_TOO_LARGE, "template, line %u: the template takes too much memory",
                   p->at->line);
}

static enum status parse_node(struct parser *p, enum go_kind kind, struct go_node **out) {
    *out = arena_try_alloc(&p->t->arena, sizeof **out);
    if (!*out)
        return parse_full(p);
    **out = (struct go_node){.kind = kind, .line = p->at->line};
    return OK;
}

/* An array of elements of `size` bytes with room for one more. */
static bool grow(struct arena *a, void *items, u32 n, u32 *cap, size_t size) {
    void *old, *grown;
    if (n < *cap)
        return true;
    u32 more = *cap ? *cap * 2 : 4;
    memcpy(&old, items, sizeof old);
    if (!(grown = arena_try_alloc(a, more * size)))
        return false;
    if (n)
        memcpy(grown, old, n * size);
    memcpy(items, &grown, sizeof grown);
    *cap = more;
    return true;
}

static enum status add_node(struct parser *p, struct go_nodes *list, struct go_node *n) {
    if (!grow(&p->t->arena, &list->p, list->n, &list->cap, sizeof *list->p))
        return parse_full(p);
    list->p[list->n++] = n;
    return OK;
}

static enum status add_name(struct parser *p, struct go_names *list, struct str name) {
    if (!grow(&p->t->arena, &list->p, list->n, &list->cap, sizeof *list->p))
        return parse_full(p);
    list->p[list->n++] = name;
    return OK;
}

static enum status mention(struct parser *p, struct str name) {
    char *lower = arena_try_alloc(&p->t->arena, name.n + 1);
    if (!lower)
        return parse_full(p);
    for (size_t i = 0; i < name.n; i++)
        lower[i] = (char)(name.p[i] >= 'A' && name.p[i] <= 'Z' ? name.p[i] | 32 : name.p[i]);
    struct value key = value_str((struct str){lower, name.n});
    return value_try_set_key(&p->t->arena, &p->t->mentioned, key, value_bool(true)) ? OK : parse_full(p);
}

static bool is_word(const struct parser *p, const char *word) {
    return p->at->kind == GO_KEYWORD && str_is(p->at->text, word);
}

static bool skip_kind(struct parser *p, enum go_token_kind kind) {
    bool is = p->at->kind == kind;
    p->at += is;
    return is;
}

static enum status expect(struct parser *p, enum go_token_kind kind, const char *what) {
    return skip_kind(p, kind) ? OK : parse_fail(p, "expected %s", what);
}

/* --- expressions --- */
static enum status parse_var(struct parser *p, struct go_node **out) {
    for (u32 i = p->variables.n; i-- > 0;) {
        if (!str_eq(p->variables.p[i], p->at->text))
            continue;
        TRY(parse_node(p, GON_VAR, out));
        TRY(mention(p, p->at->text));
        (*out)->v = value_str(p->at++->text);
        return OK;
    }
    return parse_fail(p, "undefined variable '%.*s'", STR_FMT(p->at->text));
}

static enum status parse_term(struct parser *p, struct go_node **out) {
    switch ((int)p->at->kind) {
    case GO_IDENT:
        TRY(parse_node(p, GON_FUNC, out));
        (*out)->v = value_str(p->at->text);
        if (!go_func_find(p->at->text, &(*out)->op))
            return parse_fail(p, "function '%.*s' is not defined", STR_FMT(p->at->text));
        break;
    case GO_VAR: return parse_var(p, out);
    case GO_FIELD:
        TRY(parse_node(p, GON_PATH, out));
        TRY(add_name(p, &(*out)->names, p->at->text));
        TRY(mention(p, p->at->text));
        break;
    case GO_DOT: TRY(parse_node(p, GON_DOT, out)); break;
    case GO_NIL: TRY(parse_node(p, GON_NIL, out)); break;
    case GO_NUMBER:
    case GO_STRING:
    case GO_BOOL:
        TRY(parse_node(p, GON_CONST, out));
        (*out)->v = p->at->v;
        break;
    case GO_LPAREN:
        p->at++;
        TRY(parse_pipe(p, false, out));
        return expect(p, GO_RPAREN, "')'");
    default: return parse_fail(p, "an operand is missing");
    }
    p->at++;
    return OK;
}

/* A term and the fields that follow it without a blank. */
static enum status parse_operand(struct parser *p, struct go_node **out) {
    struct go_node *path;
    TRY(parse_term(p, out));
    if (p->at->kind != GO_FIELD || p->at->space)
        return OK;
    enum go_kind kind = (*out)->kind;
    if (kind == GON_CONST || kind == GON_NIL || kind == GON_DOT)
        return parse_fail(p, "unexpected '.' behind a term");
    path = *out;
    if (kind != GON_PATH) {
        TRY(parse_node(p, GON_PATH, &path));
        path->of = *out;
    }
    while (p->at->kind == GO_FIELD && !p->at->space) {
        TRY(add_name(p, &path->names, p->at->text));
        /* Behind a parenthesis a field is no identifier for the reference. */
        if (kind == GON_PATH || kind == GON_VAR)
            TRY(mention(p, p->at->text));
        p->at++;
    }
    *out = path;
    return OK;
}

static bool command_ends(const struct parser *p) {
    return p->at->kind == GO_CLOSE || p->at->kind == GO_RPAREN || p->at->kind == GO_PIPE ||
           p->at->kind == GO_END;
}

static enum status parse_command(struct parser *p, struct go_node **out) {
    struct go_node *operand;
    TRY(parse_node(p, GON_COMMAND, out));
    while (!command_ends(p)) {
        if ((*out)->body.n && !p->at->space)
            return parse_fail(p, "a blank is missing between operands");
        TRY(parse_operand(p, &operand));
        TRY(add_node(p, &(*out)->body, operand));
    }
    return (*out)->body.n ? OK : parse_fail(p, "an empty command");
}

/* "$x :=", "$x =", and for range "$i, $x :=". */
static enum status parse_declarations(struct parser *p, bool range, struct go_node *pipe) {
    struct go_token *start = p->at;
    if (p->at->kind != GO_VAR)
        return OK;
    bool two = range && p->at[1].kind == GO_COMMA && p->at[2].kind == GO_VAR;
    struct go_token *sign = p->at + (two ? 3 : 1);
    if (sign->kind != GO_DECLARE && sign->kind != GO_ASSIGN)
        return OK;
    pipe->assign = sign->kind == GO_ASSIGN;
    for (u32 i = 0; i < (two ? 2u : 1u); i++)
        TRY(add_name(p, &pipe->names, start[i * 2].text));
    p->at = sign + 1;
    for (u32 i = 0; i < pipe->names.n; i++) {
        bool known = false;
        for (u32 k = 0; pipe->assign && k < p->variables.n; k++)
            known = known || str_eq(p->variables.p[k], pipe->names.p[i]);
        if (pipe->assign && !known)
            return parse_fail(p, "undefined variable '%.*s'", STR_FMT(pipe->names.p[i]));
    }
    return OK;
}

static enum status parse_pipe(struct parser *p, bool range, struct go_node **out) {
    struct go_node *pipe, *command;
    if (++p->depth > LIMIT_TEMPLATE_DEPTH)
        return parse_fail(p, "nested too deep");
    TRY(parse_node(p, GON_PIPE, &pipe));
    TRY(parse_declarations(p, range, pipe));
    do {
        TRY(parse_command(p, &command));
        enum go_kind first = command->body.p[0]->kind;
        if (pipe->body.n && first != GON_FUNC && first != GON_PATH && first != GON_VAR && first != GON_PIPE)
            return parse_fail(p, "a value behind '|' cannot be called");
        TRY(add_node(p, &pipe->body, command));
    } while (skip_kind(p, GO_PIPE));
    /* A declared variable is known behind its own pipeline. */
    for (u32 i = 0; !pipe->assign && i < pipe->names.n; i++)
        TRY(add_name(p, &p->variables, pipe->names.p[i]));
    *out = pipe;
    p->depth--;
    return OK;
}

/* --- statements; p->at is behind the keyword --- */
static enum status parse_close(struct parser *p) { return expect(p, GO_CLOSE, "the end of the tag"); }

/* Body up to {{end}} or {{else}}; behind {{else if}} and {{else with}} another branch is the whole else. */
static enum status parse_branch(struct parser *p, enum go_kind kind, struct go_node *n) {
    u32 scope = p->variables.n;
    n->kind = kind;
    TRY(parse_pipe(p, kind == GON_RANGE, &n->pipe));
    TRY(parse_close(p));
    p->range_depth += kind == GON_RANGE;
    TRY(parse_body(p, &n->body));
    p->range_depth -= kind == GON_RANGE;
    if (is_word(p, "else")) {
        p->at++;
        n->has_other = true;
        enum go_kind chained = kind == GON_IF ? GON_IF : GON_WITH;
        if (kind != GON_RANGE && is_word(p, kind == GON_IF ? "if" : "with")) {
            struct go_node *inner;
            p->at++;
            if (++p->depth > LIMIT_TEMPLATE_DEPTH)
                return parse_fail(p, "nested too deep");
            TRY(parse_node(p, chained, &inner));
            TRY(add_node(p, &n->other, inner));
            TRY(parse_branch(p, chained, inner));
            p->depth--;
            p->variables.n = scope;
            return OK;
        }
        TRY(parse_close(p));
        TRY(parse_body(p, &n->other));
    }
    p->variables.n = scope;
    if (!is_word(p, "end"))
        return parse_fail(p, "'end' is missing");
    p->at++;
    return parse_close(p);
}

static bool is_empty(const struct go_nodes *body) {
    for (u32 i = 0; i < body->n; i++)
        if (body->p[i]->kind != GON_TEXT || str_trim(body->p[i]->v.s).n)
            return false;
    return true;
}

/* A name is defined once; a definition of white space only gives way. */
static enum status add_define(struct parser *p, struct str name, struct go_nodes body) {
    struct go_template *t = p->t;
    for (u32 i = 0; i < t->n_defines; i++) {
        if (!str_eq(t->defines[i].name, name))
            continue;
        if (is_empty(&t->defines[i].body))
            t->defines[i].body = body;
        else if (!is_empty(&body))
            return parse_fail(p, "the template '%.*s' is defined twice", STR_FMT(name));
        return OK;
    }
    if (!grow(&t->arena, &t->defines, t->n_defines, &t->cap_defines, sizeof *t->defines))
        return parse_full(p);
    t->defines[t->n_defines++] = (struct go_define){name, body};
    return OK;
}

/* The body of a define or block: its own variables, "$" only. */
static enum status parse_definition(struct parser *p, struct str name) {
    struct go_names outer = p->variables;
    struct go_nodes body = {0};
    u32 ranges = p->range_depth;
    p->variables = (struct go_names){0};
    p->range_depth = 0;
    TRY(add_name(p, &p->variables, STR("$")));
    TRY(parse_body(p, &body));
    p->variables = outer;
    p->range_depth = ranges;
    if (!is_word(p, "end"))
        return parse_fail(p, "'end' is missing");
    p->at++;
    TRY(parse_close(p));
    return add_define(p, name, body);
}

static enum status parse_name(struct parser *p, struct str *out) {
    *out = p->at->v.s;
    return expect(p, GO_STRING, "the name of a template in quotes");
}

static enum status parse_define(struct parser *p) {
    struct str name;
    TRY(parse_name(p, &name));
    TRY(parse_close(p));
    return parse_definition(p, name);
}

/* {{template "name" pipe}}, and {{block "name" pipe}}: that with its definition. */
static enum status parse_template(struct parser *p, struct go_node *n, bool block) {
    struct str name;
    n->kind = GON_TEMPLATE;
    TRY(parse_name(p, &name));
    n->v = value_str(name);
    if (block || p->at->kind != GO_CLOSE) {
        u32 scope = p->variables.n;
        TRY(parse_pipe(p, false, &n->pipe));
        p->variables.n = MAX(scope, 1u);
    }
    TRY(parse_close(p));
    return block ? parse_definition(p, name) : OK;
}

static enum status parse_statement(struct parser *p, struct go_nodes *out) {
    struct go_node *n;
    if (is_word(p, "define")) {
        if (p->depth > 1)
            return parse_fail(p, "a definition stands outside of everything else");
        p->at++;
        return parse_define(p);
    }
    TRY(parse_node(p, GON_ACTION, &n));
    TRY(add_node(p, out, n));
    if (p->at->kind != GO_KEYWORD) {
        TRY(parse_pipe(p, false, &n->pipe));
        return parse_close(p);
    }
    struct str word = p->at++->text;
    if (str_is(word, "if"))
        return parse_branch(p, GON_IF, n);
    if (str_is(word, "with"))
        return parse_branch(p, GON_WITH, n);
    if (str_is(word, "range"))
        return parse_branch(p, GON_RANGE, n);
    if (str_is(word, "template") || str_is(word, "block"))
        return parse_template(p, n, str_is(word, "block"));
    bool leave = str_is(word, "break") || str_is(word, "continue");
    if (!leave || !p->range_depth)
        return parse_fail(p, "'%.*s' cannot stand here", STR_FMT(word));
    n->kind = str_is(word, "break") ? GON_BREAK : GON_CONTINUE;
    return parse_close(p);
}

/* Up to "end" or "else" (p->at is at that word then) or the end of the text. */
static enum status parse_body(struct parser *p, struct go_nodes *out) {
    if (++p->depth > LIMIT_TEMPLATE_DEPTH)
        return parse_fail(p, "nested too deep");
    while (p->at->kind != GO_END) {
        if (p->at->kind == GO_TEXT) {
            struct go_node *n;
            TRY(parse_node(p, GON_TEXT, &n));
            n->v = p->at++->v;
            TRY(add_node(p, out, n));
            continue;
        }
        p->at++;
        if (is_word(p, "end") || is_word(p, "else"))
            break;
        TRY(parse_statement(p, out));
    }
    p->depth--;
    return OK;
}

/* --- the cut behind the first .Response --- */
static bool is_response(const struct go_node *n) {
    for (u32 i = 0; n->kind == GON_PATH && !n->of && i < n->names.n; i++)
        if (str_is(n->names.p[i], "Response"))
            return true;
    return false;
}

/* Marks what comes behind the first .Response that is printed; conditions do not count. */
static void mark_cut(const struct go_nodes *body, bool *cut) {
    for (u32 i = 0; i < body->n; i++) {
        struct go_node *n = body->p[i];
        if (*cut) {
            n->cut = true;
            continue;
        }
        switch ((int)n->kind) {
        case GON_ACTION: mark_cut(&n->pipe->body, cut); break;
        case GON_COMMAND: mark_cut(&n->body, cut); break;
        case GON_IF:
        case GON_WITH:
        case GON_RANGE:
            mark_cut(&n->body, cut);
            mark_cut(&n->other, cut);
            break;
        case GON_PIPE: mark_cut(&n->body, cut); break;
        case GON_PATH: *cut = is_response(n); break;
        default: break;
        }
    }
}

static enum status append_response(struct parser *p) {
    struct go_node *action, *command, *path;
    TRY(parse_node(p, GON_ACTION, &action));
    TRY(parse_node(p, GON_PIPE, &action->pipe));
    TRY(parse_node(p, GON_COMMAND, &command));
    TRY(parse_node(p, GON_PATH, &path));
    TRY(add_name(p, &path->names, STR("Response")));
    TRY(add_node(p, &command->body, path));
    TRY(add_node(p, &action->pipe->body, command));
    return add_node(p, &p->t->body, action);
}

static enum status go_parse(struct go_template *t, struct go_token *tokens, struct err *err) {
    struct parser p = {.t = t, .at = tokens, .err = err};
    bool cut = false;
    if (!value_try_object(&t->arena, &t->mentioned))
        return parse_full(&p);
    TRY(add_name(&p, &p.variables, STR("$")));
    TRY(parse_body(&p, &t->body));
    if (p.at->kind != GO_END)
        return parse_fail(&p, "'%.*s' without its begin", STR_FMT(p.at->text));
    if (value_get(&t->mentioned, STR("messages")).kind == VALUE_UNDEFINED &&
        value_get(&t->mentioned, STR("response")).kind == VALUE_UNDEFINED)
        TRY(append_response(&p));
    mark_cut(&t->body, &cut);
    return OK;
}

enum status go_open(struct str source, struct go_template **out, struct err *err) {
    if (source.n > LIMIT_TEMPLATE_BYTES)
        return err_set(err, ERR_TOO_LARGE, "the template has %zu bytes; at most %u are allowed", source.n,
                       LIMIT_TEMPLATE_BYTES);
    struct go_template *t = xcalloc(1, sizeof *t);
    struct go_tokens tokens = {0};
    arena_init(&t->arena, LIMIT_TEMPLATE_MEMORY_BYTES);
    char *copy = arena_try_alloc(&t->arena, source.n + 1);
    check(copy != NULL);
    if (source.n)
        memcpy(copy, source.p, source.n);
    enum status s = go_lex(&t->arena, (struct str){copy, source.n}, &tokens, err);
    if (s == OK)
        s = go_parse(t, tokens.items, err);
    free(tokens.items);
    if (s != OK) {
        go_close(t);
        return s;
    }
    *out = t;
    return OK;
}

void go_close(struct go_template *t) {
    if (!t)
        return;
    arena_release(&t->arena);
    free(t);
}
