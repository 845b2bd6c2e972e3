/* jinja_parse.c - statements, and the parser's helpers. The tree lives in the template's arena. */
#include "base/limit.h"
#include "chat/jinja.h"

#include <stdio.h>
#include <stdlib.h>

static enum status parse_body(struct jinja_parser *p, const char *const *ends, struct nodes *out);

/* --- helpers --- */
enum status parse_fail(struct jinja_parser *p, const char *fmt, ...) {
    char text[256];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return err_set(p->err, ERR_INVALID, "template, line %u: %s", p->at->line, text);
}

static enum status parse_full(struct jinja_parser *p) {
    return err_set(p->err, ERR_TOO_LARGE, "template, line %u: the template takes too much memory",
                   p->at->line);
}

enum status parse_node(struct jinja_parser *p, enum node_kind kind, struct node **out) {
    *out = arena_try_alloc(&p->t->arena, sizeof **out);
    if (!*out)
        return parse_full(p);
    **out = (struct node){.kind = kind, .line = p->at->line};
    return OK;
}

enum status parse_add(struct jinja_parser *p, struct nodes *list, struct node *n) {
    if (list->n == list->cap) {
        u32 cap = list->cap ? list->cap * 2 : 4;
        struct node **grown = arena_try_alloc(&p->t->arena, cap * sizeof(struct node *));
        if (!grown)
            return parse_full(p);
        if (list->n)
            memcpy(grown, list->p, list->n * sizeof(struct node *));
        list->p = grown;
        list->cap = cap;
    }
    list->p[list->n++] = n;
    return OK;
}

enum status parse_intern(struct jinja_parser *p, struct str name, u32 *out) {
    struct value key = value_str(name), at;
    if (value_get_key(&p->t->names, &key, &at)) {
        *out = (u32)at.i;
        return OK;
    }
    *out = p->t->n_names++;
    return value_try_set_key(&p->t->arena, &p->t->names, key, value_int(*out)) ? OK : parse_full(p);
}

bool parse_is_word(const struct jinja_parser *p, const char *word) {
    return p->at->kind == TOK_NAME && str_is(p->at->v.s, word);
}

bool parse_skip_word(struct jinja_parser *p, const char *word) {
    bool is = parse_is_word(p, word);
    p->at += is;
    return is;
}

bool parse_skip(struct jinja_parser *p, enum token kind) {
    bool is = p->at->kind == kind;
    p->at += is;
    return is;
}

enum status parse_expect(struct jinja_parser *p, enum token kind, const char *what) {
    return parse_skip(p, kind) ? OK : parse_fail(p, "expected %s", what);
}

static enum status parse_block_end(struct jinja_parser *p) {
    return parse_expect(p, TOK_BLOCK_END, "the end of the tag");
}

/* --- statements; p->at is behind the statement's name --- */
static enum status parse_if(struct jinja_parser *p, struct node *n) {
    static const char *const ends[] = {"elif", "else", "endif", NULL};
    static const char *const last[] = {"endif", NULL};
    n->kind = NODE_IF;
    for (;;) {
        TRY(parse_tuple(p, false, NULL, &n->a));
        TRY(parse_block_end(p));
        TRY(parse_body(p, ends, &n->items));
        bool again = parse_skip_word(p, "elif");
        if (!again && !parse_is_word(p, "else"))
            break;
        TRY(parse_node(p, NODE_BODY, &n->other));
        if (!again) {
            p->at++;
            TRY(parse_block_end(p));
            TRY(parse_body(p, last, &n->other->items));
            break;
        }
        struct node *chained;
        TRY(parse_node(p, NODE_IF, &chained));
        TRY(parse_add(p, &n->other->items, chained));
        n = chained;
    }
    p->at++;
    return OK;
}

static enum status parse_for(struct jinja_parser *p, struct node *n) {
    static const char *const ends[] = {"endfor", "else", NULL};
    static const char *const last[] = {"endfor", NULL};
    n->kind = NODE_FOR;
    TRY(parse_target(p, "in", &n->a));
    if (!parse_skip_word(p, "in"))
        return parse_fail(p, "expected 'in'");
    TRY(parse_tuple(p, false, "recursive", &n->b));
    if (parse_skip_word(p, "if"))
        TRY(parse_expression(p, true, &n->c));
    n->flag = parse_skip_word(p, "recursive");
    TRY(parse_block_end(p));
    TRY(parse_body(p, ends, &n->items));
    if (parse_skip_word(p, "else")) {
        TRY(parse_block_end(p));
        TRY(parse_node(p, NODE_BODY, &n->other));
        TRY(parse_body(p, last, &n->other->items));
    }
    p->at++;
    return OK;
}

static enum status parse_set(struct jinja_parser *p, struct node *n) {
    static const char *const ends[] = {"endset", NULL};
    n->kind = NODE_SET;
    TRY(parse_target(p, NULL, &n->a));
    if (parse_skip(p, TOK_ASSIGN))
        return parse_tuple(p, true, NULL, &n->b);
    n->kind = NODE_SET_BLOCK;
    if (parse_skip(p, TOK_PIPE)) {
        struct node *captured;
        TRY(parse_node(p, NODE_CAPTURED, &captured));
        TRY(parse_filters(p, captured, &n->b));
    }
    TRY(parse_block_end(p));
    TRY(parse_body(p, ends, &n->items));
    p->at++;
    return OK;
}

static enum status parse_with(struct jinja_parser *p, struct node *n) {
    static const char *const ends[] = {"endwith", NULL};
    n->kind = NODE_WITH;
    while (p->at->kind != TOK_BLOCK_END) {
        struct node *target, *v;
        if (n->params.n)
            TRY(parse_expect(p, TOK_COMMA, "','"));
        TRY(parse_node(p, NODE_NAME, &target));
        target->v = p->at->v;
        TRY(parse_expect(p, TOK_NAME, "a name"));
        TRY(parse_intern(p, target->v.s, &target->name));
        TRY(parse_expect(p, TOK_ASSIGN, "'='"));
        TRY(parse_expression(p, true, &v));
        TRY(parse_add(p, &n->params, target));
        TRY(parse_add(p, &n->params, v));
    }
    TRY(parse_block_end(p));
    TRY(parse_body(p, ends, &n->items));
    p->at++;
    return OK;
}

static enum status parse_signature(struct jinja_parser *p, struct nodes *params) {
    TRY(parse_expect(p, TOK_LPAREN, "'('"));
    bool defaults = false;
    while (p->at->kind != TOK_RPAREN) {
        struct node *param;
        if (params->n)
            TRY(parse_expect(p, TOK_COMMA, "',' or ')'"));
        if (p->at->kind == TOK_RPAREN)
            break;
        TRY(parse_node(p, NODE_NAME, &param));
        param->v = p->at->v;
        TRY(parse_expect(p, TOK_NAME, "the name of an argument"));
        TRY(parse_intern(p, param->v.s, &param->name));
        if (parse_skip(p, TOK_ASSIGN)) {
            defaults = true;
            TRY(parse_expression(p, true, &param->a));
        } else if (defaults) {
            return parse_fail(p, "an argument without a default behind one with a default");
        }
        TRY(parse_add(p, params, param));
    }
    return parse_expect(p, TOK_RPAREN, "')'");
}

static enum status parse_macro(struct jinja_parser *p, struct node *n) {
    static const char *const ends[] = {"endmacro", NULL};
    n->kind = NODE_MACRO;
    n->v = p->at->v;
    TRY(parse_expect(p, TOK_NAME, "the name of the macro"));
    TRY(parse_intern(p, n->v.s, &n->name));
    u32 before = p->uses;
    p->uses = 0;
    TRY(parse_signature(p, &n->params));
    TRY(parse_block_end(p));
    TRY(parse_body(p, ends, &n->items));
    n->op = p->uses;
    p->uses |= before;
    p->at++;
    return OK;
}

static enum status parse_call(struct jinja_parser *p, struct node *n) {
    static const char *const ends[] = {"endcall", NULL};
    n->kind = NODE_CALL;
    TRY(parse_node(p, NODE_MACRO, &n->b));
    n->b->v = value_str(STR("caller"));
    if (p->at->kind == TOK_LPAREN)
        TRY(parse_signature(p, &n->b->params));
    TRY(parse_expression(p, true, &n->a));
    if (n->a->kind != NODE_INVOKE)
        return parse_fail(p, "expected a call");
    TRY(parse_block_end(p));
    TRY(parse_body(p, ends, &n->b->items));
    p->at++;
    return OK;
}

static enum status parse_filter_block(struct jinja_parser *p, struct node *n) {
    static const char *const ends[] = {"endfilter", NULL};
    struct node *captured;
    n->kind = NODE_FILTER_BLOCK;
    TRY(parse_node(p, NODE_CAPTURED, &captured));
    TRY(parse_filters(p, captured, &n->a));
    TRY(parse_block_end(p));
    TRY(parse_body(p, ends, &n->items));
    p->at++;
    return OK;
}

static enum status parse_block(struct jinja_parser *p, struct node *n) {
    static const char *const ends[] = {"endblock", NULL};
    n->kind = NODE_BLOCK;
    struct str name = p->at->v.s;
    TRY(parse_expect(p, TOK_NAME, "the name of the block"));
    TRY(parse_block_end(p));
    TRY(parse_body(p, ends, &n->items));
    p->at++;
    if (p->at->kind == TOK_NAME && str_eq(p->at->v.s, name))
        p->at++;
    return OK;
}

static enum status parse_generation(struct jinja_parser *p, struct node *n) {
    static const char *const ends[] = {"endgeneration", NULL};
    n->kind = NODE_BLOCK;
    TRY(parse_block_end(p));
    TRY(parse_body(p, ends, &n->items));
    p->at++;
    return OK;
}

static enum status parse_break(struct jinja_parser *p UNUSED, struct node *n) {
    n->kind = NODE_BREAK;
    return OK;
}

static enum status parse_continue(struct jinja_parser *p UNUSED, struct node *n) {
    n->kind = NODE_CONTINUE;
    return OK;
}

static enum status parse_print(struct jinja_parser *p, struct node *n) {
    n->kind = NODE_PRINT;
    return parse_tuple(p, true, NULL, &n->a);
}

static enum status parse_statement(struct jinja_parser *p, struct node **out) {
    static const struct {
        const char *name;
        enum status (*parse)(struct jinja_parser *, struct node *);
    } statements[] = {
        {"if", parse_if},
        {"for", parse_for},
        {"set", parse_set},
        {"macro", parse_macro},
        {"call", parse_call},
        {"with", parse_with},
        {"filter", parse_filter_block},
        {"block", parse_block},
        {"break", parse_break},
        {"continue", parse_continue},
        {"generation", parse_generation},
        {"print", parse_print},
    };
    for (size_t i = 0; i < ARRAY_LEN(statements); i++) {
        if (!parse_is_word(p, statements[i].name))
            continue;
        TRY(parse_node(p, NODE_BODY, out));
        p->at++;
        TRY(statements[i].parse(p, *out));
        return parse_block_end(p);
    }
    if (p->at->kind != TOK_NAME)
        return parse_fail(p, "the name of a statement is missing");
    return parse_fail(p, "unknown statement '%.*s'", STR_FMT(p->at->v.s));
}

static bool is_end(const struct jinja_parser *p, const char *const *ends) {
    for (; ends && *ends; ends++)
        if (p->at[1].kind == TOK_NAME && str_is(p->at[1].v.s, *ends))
            return true;
    return false;
}

/* Up to one of `ends` (NULL: the end of the text); p->at is at that word then. */
static enum status parse_body(struct jinja_parser *p, const char *const *ends, struct nodes *out) {
    if (++p->depth > LIMIT_TEMPLATE_DEPTH)
        return parse_fail(p, "nested too deep");
    for (;;) {
        struct node *n;
        if (p->at->kind == TOK_END) {
            if (ends)
                return parse_fail(p, "the template ends inside a block; '%s' is missing", ends[0]);
            break;
        }
        if (p->at->kind == TOK_TEXT) {
            TRY(parse_node(p, NODE_TEXT, &n));
            n->v = p->at++->v;
        } else if (parse_skip(p, TOK_PRINT_BEGIN)) {
            TRY(parse_node(p, NODE_PRINT, &n));
            TRY(parse_tuple(p, true, NULL, &n->a));
            TRY(parse_expect(p, TOK_PRINT_END, "'}}'"));
        } else {
            bool end = is_end(p, ends);
            p->at++;
            if (end)
                break;
            TRY(parse_statement(p, &n));
        }
        TRY(parse_add(p, out, n));
    }
    p->depth--;
    return OK;
}

static enum status jinja_parse(struct jinja *t, struct jinja_token *tokens, struct err *err) {
    struct jinja_parser p = {.t = t, .at = tokens, .err = err};
    if (!value_try_object(&t->arena, &t->names))
        return parse_full(&p);
    TRY(parse_intern(&p, STR("loop"), &t->name_loop));
    TRY(parse_intern(&p, STR("caller"), &t->name_caller));
    TRY(parse_intern(&p, STR("varargs"), &t->name_varargs));
    TRY(parse_intern(&p, STR("kwargs"), &t->name_kwargs));
    TRY(parse_node(&p, NODE_BODY, &t->body));
    return parse_body(&p, NULL, &t->body->items);
}

enum status jinja_open(struct str source, struct jinja **out, struct err *err) {
    if (source.n > LIMIT_TEMPLATE_BYTES)
        return err_set(err, ERR_TOO_LARGE, "the template has %zu bytes; at most %u are allowed", source.n,
                       LIMIT_TEMPLATE_BYTES);
    struct jinja *t = xcalloc(1, sizeof *t);
    struct jinja_tokens tokens = {0};
    arena_init(&t->arena, LIMIT_TEMPLATE_MEMORY_BYTES);
    enum status s = jinja_lex(&t->arena, source, &tokens, err);
    if (s == OK)
        s = jinja_parse(t, tokens.items, err);
    free(tokens.items);
    if (s != OK) {
        jinja_close(t);
        return s;
    }
    *out = t;
    return OK;
}

void jinja_close(struct jinja *t) {
    if (!t)
        return;
    arena_release(&t->arena);
    free(t);
}
