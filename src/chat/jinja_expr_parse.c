/* jinja_expr_parse.c - expressions, loosest operator first: a if b, or, and, not, comparisons, + -, ~,
 * * / // %, **, sign, then what follows a primary: .name [key] (args) | filter, is test. */
#include "base/limit.h"
#include "chat/jinja.h"

static enum status parse_unary(struct jinja_parser *p, bool with_filter, struct node **out);
static enum status parse_primary(struct jinja_parser *p, struct node **out);
static enum status parse_postfix(struct jinja_parser *p, struct node **out);

/* *out becomes (*out kind right). */
static enum status parse_pair(struct jinja_parser *p, enum node_kind kind, u32 op, struct node *right,
                              struct node **out) {
    struct node *n;
    TRY(parse_node(p, kind, &n));
    n->op = op;
    n->a = *out;
    n->b = right;
    *out = n;
    return OK;
}

static enum status parse_pow(struct jinja_parser *p, struct node **out) {
    TRY(parse_unary(p, true, out));
    while (parse_skip(p, TOK_POW)) {
        struct node *right;
        TRY(parse_unary(p, true, &right));
        TRY(parse_pair(p, NODE_BINARY, PY_POW, right, out));
    }
    return OK;
}

static enum status parse_product(struct jinja_parser *p, struct node **out) {
    TRY(parse_pow(p, out));
    while (p->at->kind >= TOK_MUL && p->at->kind <= TOK_MOD) {
        struct node *right;
        u32 op = p->at++->kind - TOK_ADD + PY_ADD;
        TRY(parse_pow(p, &right));
        TRY(parse_pair(p, NODE_BINARY, op, right, out));
    }
    return OK;
}

static enum status parse_concat(struct jinja_parser *p, struct node **out) {
    TRY(parse_product(p, out));
    if (p->at->kind != TOK_TILDE)
        return OK;
    struct node *n, *part;
    TRY(parse_node(p, NODE_CONCAT, &n));
    TRY(parse_add(p, &n->items, *out));
    while (parse_skip(p, TOK_TILDE)) {
        TRY(parse_product(p, &part));
        TRY(parse_add(p, &n->items, part));
    }
    *out = n;
    return OK;
}

static enum status parse_sum(struct jinja_parser *p, struct node **out) {
    TRY(parse_concat(p, out));
    while (p->at->kind == TOK_ADD || p->at->kind == TOK_SUB) {
        struct node *right;
        u32 op = p->at++->kind == TOK_ADD ? PY_ADD : PY_SUB;
        TRY(parse_concat(p, &right));
        TRY(parse_pair(p, NODE_BINARY, op, right, out));
    }
    return OK;
}

static bool parse_compare_op(struct jinja_parser *p, u32 *op) {
    if (p->at->kind >= TOK_EQ && p->at->kind <= TOK_GE) {
        *op = p->at++->kind - TOK_EQ + CMP_EQ;
        return true;
    }
    if (parse_skip_word(p, "in")) {
        *op = CMP_IN;
        return true;
    }
    if (parse_is_word(p, "not") && p->at[1].kind == TOK_NAME && str_is(p->at[1].v.s, "in")) {
        p->at += 2;
        *op = CMP_NOT_IN;
        return true;
    }
    return false;
}

static enum status parse_compare(struct jinja_parser *p, struct node **out) {
    TRY(parse_sum(p, out));
    struct node *n = NULL, *operand;
    u32 op;
    while (parse_compare_op(p, &op)) {
        if (!n) {
            TRY(parse_node(p, NODE_COMPARE, &n));
            n->a = *out;
            *out = n;
        }
        TRY(parse_node(p, NODE_OPERAND, &operand));
        operand->op = op;
        TRY(parse_sum(p, &operand->a));
        TRY(parse_add(p, &n->items, operand));
    }
    return OK;
}

static enum status parse_not(struct jinja_parser *p, struct node **out) {
    if (!parse_is_word(p, "not"))
        return parse_compare(p, out);
    if (++p->depth > LIMIT_TEMPLATE_DEPTH)
        return parse_fail(p, "nested too deep");
    TRY(parse_node(p, NODE_NOT, out));
    p->at++;
    TRY(parse_not(p, &(*out)->a));
    p->depth--;
    return OK;
}

static enum status parse_and(struct jinja_parser *p, struct node **out) {
    TRY(parse_not(p, out));
    while (parse_skip_word(p, "and")) {
        struct node *right;
        TRY(parse_not(p, &right));
        TRY(parse_pair(p, NODE_AND, 0, right, out));
    }
    return OK;
}

static enum status parse_or(struct jinja_parser *p, struct node **out) {
    TRY(parse_and(p, out));
    while (parse_skip_word(p, "or")) {
        struct node *right;
        TRY(parse_and(p, &right));
        TRY(parse_pair(p, NODE_OR, 0, right, out));
    }
    return OK;
}

enum status parse_expression(struct jinja_parser *p, bool with_condition, struct node **out) {
    if (++p->depth > LIMIT_TEMPLATE_DEPTH)
        return parse_fail(p, "nested too deep");
    TRY(parse_or(p, out));
    while (with_condition && parse_skip_word(p, "if")) {
        struct node *condition, *n;
        TRY(parse_or(p, &condition));
        TRY(parse_node(p, NODE_COND, &n));
        n->a = *out;
        n->b = condition;
        if (parse_skip_word(p, "else"))
            TRY(parse_expression(p, true, &n->c));
        *out = n;
    }
    p->depth--;
    return OK;
}

static bool tuple_end(const struct jinja_parser *p, const char *end) {
    return p->at->kind == TOK_PRINT_END || p->at->kind == TOK_BLOCK_END || p->at->kind == TOK_RPAREN ||
           (end && parse_is_word(p, end));
}

/* simple: only primaries, as targets are. empty_ok: () is a tuple. */
static enum status parse_tuple_of(struct jinja_parser *p, bool simple, bool with_condition, const char *end,
                                  bool empty_ok, struct node **out) {
    struct nodes items = {0};
    struct node *item;
    bool is_tuple = false;
    while (!tuple_end(p, end)) {
        TRY(simple ? parse_primary(p, &item) : parse_expression(p, with_condition, &item));
        TRY(parse_add(p, &items, item));
        if (!parse_skip(p, TOK_COMMA))
            break;
        is_tuple = true;
    }
    if (!is_tuple && items.n == 1) {
        *out = items.p[0];
        return OK;
    }
    if (!items.n && !empty_ok)
        return parse_fail(p, "an expression is missing");
    TRY(parse_node(p, NODE_TUPLE, out));
    (*out)->items = items;
    return OK;
}

enum status parse_tuple(struct jinja_parser *p, bool with_condition, const char *end, struct node **out) {
    return parse_tuple_of(p, false, with_condition, end, false, out);
}

static bool target_ok(const struct node *n) {
    if (n->kind == NODE_NAME || n->kind == NODE_NSREF)
        return true;
    if (n->kind != NODE_TUPLE)
        return false;
    for (u32 i = 0; i < n->items.n; i++)
        if (!target_ok(n->items.p[i]))
            return false;
    return true;
}

enum status parse_target(struct jinja_parser *p, const char *end, struct node **out) {
    TRY(parse_tuple_of(p, true, false, end, false, out));
    if ((*out)->kind == NODE_NAME && parse_skip(p, TOK_DOT)) {
        (*out)->kind = NODE_NSREF;
        (*out)->v = p->at->v;
        TRY(parse_expect(p, TOK_NAME, "a name behind the dot"));
    }
    return target_ok(*out) ? OK : parse_fail(p, "cannot assign to this");
}

/* --- primaries --- */
static enum status parse_const(struct jinja_parser *p, struct value v, struct node **out) {
    TRY(parse_node(p, NODE_CONST, out));
    (*out)->v = v;
    return OK;
}

static enum status parse_name(struct jinja_parser *p, struct node **out) {
    struct str name = p->at->v.s;
    if (str_is(name, "true") || str_is(name, "True"))
        TRY(parse_const(p, value_bool(true), out));
    else if (str_is(name, "false") || str_is(name, "False"))
        TRY(parse_const(p, value_bool(false), out));
    else if (str_is(name, "none") || str_is(name, "None"))
        TRY(parse_const(p, (struct value){.kind = VALUE_NONE}, out));
    else {
        TRY(parse_node(p, NODE_NAME, out));
        TRY(parse_intern(p, name, &(*out)->name));
        (*out)->v = value_str(name);
        u32 i = (*out)->name;
        p->uses |= i == p->t->name_caller ? MACRO_USES_CALLER : 0u;
        p->uses |= i == p->t->name_varargs ? MACRO_USES_VARARGS : 0u;
        p->uses |= i == p->t->name_kwargs ? MACRO_USES_KWARGS : 0u;
    }
    p->at++;
    return OK;
}

/* Strings side by side are one. */
static enum status parse_string(struct jinja_parser *p, struct node **out) {
    size_t n = 0, at = 0;
    struct jinja_token *first = p->at;
    while (p->at->kind == TOK_STRING)
        n += p->at++->v.s.n;
    if (p->at == first + 1)
        return parse_const(p, first->v, out);
    char *text = arena_try_alloc(&p->t->arena, n + 1);
    if (!text)
        return parse_fail(p, "the template takes too much memory");
    for (struct jinja_token *t = first; t < p->at; t++) {
        if (t->v.s.n)
            memcpy(text + at, t->v.s.p, t->v.s.n);
        at += t->v.s.n;
    }
    return parse_const(p, value_str((struct str){text, n}), out);
}

static enum status parse_list(struct jinja_parser *p, struct node **out) {
    TRY(parse_node(p, NODE_LIST, out));
    p->at++;
    while (p->at->kind != TOK_RBRACKET) {
        struct node *item;
        if ((*out)->items.n)
            TRY(parse_expect(p, TOK_COMMA, "',' or ']'"));
        if (p->at->kind == TOK_RBRACKET)
            break;
        TRY(parse_expression(p, true, &item));
        TRY(parse_add(p, &(*out)->items, item));
    }
    return parse_expect(p, TOK_RBRACKET, "']'");
}

static enum status parse_dict(struct jinja_parser *p, struct node **out) {
    TRY(parse_node(p, NODE_DICT, out));
    p->at++;
    while (p->at->kind != TOK_RBRACE) {
        struct node *item;
        if ((*out)->items.n)
            TRY(parse_expect(p, TOK_COMMA, "',' or '}'"));
        if (p->at->kind == TOK_RBRACE)
            break;
        TRY(parse_expression(p, true, &item));
        TRY(parse_add(p, &(*out)->items, item));
        TRY(parse_expect(p, TOK_COLON, "':'"));
        TRY(parse_expression(p, true, &item));
        TRY(parse_add(p, &(*out)->items, item));
    }
    return parse_expect(p, TOK_RBRACE, "'}'");
}

static enum status parse_primary(struct jinja_parser *p, struct node **out) {
    switch ((int)p->at->kind) {
    case TOK_NAME: return parse_name(p, out);
    case TOK_STRING: return parse_string(p, out);
    case TOK_INT:
    case TOK_FLOAT:
        TRY(parse_const(p, p->at->v, out));
        p->at++;
        return OK;
    case TOK_LPAREN:
        p->at++;
        TRY(parse_tuple_of(p, false, true, NULL, true, out));
        return parse_expect(p, TOK_RPAREN, "')'");
    case TOK_LBRACKET: return parse_list(p, out);
    case TOK_LBRACE: return parse_dict(p, out);
    default: return parse_fail(p, "an expression is missing");
    }
}

/* --- behind a primary --- */
/* At "(": keywords go behind plain arguments, * and ** anywhere behind these. */
static enum status parse_args(struct jinja_parser *p, struct nodes *out) {
    TRY(parse_expect(p, TOK_LPAREN, "'('"));
    bool keyword_seen = false;
    while (p->at->kind != TOK_RPAREN) {
        struct node *arg;
        if (out->n)
            TRY(parse_expect(p, TOK_COMMA, "',' or ')'"));
        if (p->at->kind == TOK_RPAREN)
            break;
        TRY(parse_node(p, NODE_ARG, &arg));
        if (parse_skip(p, TOK_MUL)) {
            arg->op = 1;
        } else if (parse_skip(p, TOK_POW)) {
            arg->op = 2;
        } else if (p->at->kind == TOK_NAME && p->at[1].kind == TOK_ASSIGN) {
            arg->v = p->at->v;
            p->at += 2;
            keyword_seen = true;
        } else if (keyword_seen) {
            return parse_fail(p, "a plain argument behind one with a name");
        }
        TRY(parse_expression(p, true, &arg->a));
        TRY(parse_add(p, out, arg));
    }
    return parse_expect(p, TOK_RPAREN, "')'");
}

static bool slice_part_ends(const struct jinja_parser *p) {
    return p->at->kind == TOK_COLON || p->at->kind == TOK_RBRACKET || p->at->kind == TOK_COMMA;
}

/* One key inside [ ]: an expression or a slice; *slice gets the three parts then. */
static enum status parse_key(struct jinja_parser *p, struct node **key, struct nodes *slice) {
    struct node *part[3] = {NULL, NULL, NULL};
    *key = NULL;
    if (p->at->kind != TOK_COLON)
        TRY(parse_expression(p, true, &part[0]));
    if (p->at->kind != TOK_COLON) {
        *key = part[0];
        return OK;
    }
    for (int i = 1; i < 3 && parse_skip(p, TOK_COLON); i++)
        if (!slice_part_ends(p))
            TRY(parse_expression(p, true, &part[i]));
    for (int i = 0; i < 3; i++)
        TRY(parse_add(p, slice, part[i]));
    return OK;
}

static enum status parse_brackets(struct jinja_parser *p, struct node **out) {
    struct node *n, *key = NULL;
    struct nodes keys = {0};
    TRY(parse_node(p, NODE_ITEM, &n));
    n->a = *out;
    do {
        p->at++;
        TRY(parse_key(p, &key, &n->items));
        if (!key && (keys.n || p->at->kind == TOK_COMMA))
            return parse_fail(p, "a slice among several keys");
        if (key)
            TRY(parse_add(p, &keys, key));
    } while (p->at->kind == TOK_COMMA);
    if (!key)
        n->kind = NODE_SLICE;
    n->b = key;
    if (keys.n > 1) {
        TRY(parse_node(p, NODE_TUPLE, &n->b));
        n->b->items = keys;
    }
    *out = n;
    return parse_expect(p, TOK_RBRACKET, "']'");
}

static enum status parse_dot(struct jinja_parser *p, struct node **out) {
    struct node *n;
    p->at++;
    bool number = p->at->kind == TOK_INT;
    if (!number && p->at->kind != TOK_NAME)
        return parse_fail(p, "a name or a number must follow the dot");
    TRY(parse_node(p, number ? NODE_ITEM : NODE_ATTR, &n));
    n->a = *out;
    if (number)
        TRY(parse_const(p, p->at->v, &n->b));
    else
        n->v = p->at->v;
    p->at++;
    *out = n;
    return OK;
}

static enum status parse_invoke(struct jinja_parser *p, struct node **out) {
    struct node *n;
    TRY(parse_node(p, NODE_INVOKE, &n));
    n->a = *out;
    *out = n;
    return parse_args(p, &n->params);
}

static enum status parse_postfix(struct jinja_parser *p, struct node **out) {
    for (u32 n = 0; n < LIMIT_TEMPLATE_DEPTH; n++) {
        if (p->at->kind == TOK_DOT)
            TRY(parse_dot(p, out));
        else if (p->at->kind == TOK_LBRACKET)
            TRY(parse_brackets(p, out));
        else if (p->at->kind == TOK_LPAREN)
            TRY(parse_invoke(p, out));
        else
            return OK;
    }
    return parse_fail(p, "nested too deep");
}

/* name or name.name. */
static enum status parse_dotted(struct jinja_parser *p, struct str *out) {
    *out = p->at->v.s;
    TRY(parse_expect(p, TOK_NAME, "a name"));
    while (p->at->kind == TOK_DOT && p->at[1].kind == TOK_NAME) {
        struct str last = p->at[1].v.s;
        *out = (struct str){out->p, (size_t)(last.p + last.n - out->p)};
        p->at += 2;
    }
    return OK;
}

static enum status parse_filter(struct jinja_parser *p, struct node **out) {
    struct node *n;
    TRY(parse_node(p, NODE_FILTER, &n));
    n->a = *out;
    n->v.kind = VALUE_STR;
    TRY(parse_dotted(p, &n->v.s));
    *out = n;
    return p->at->kind == TOK_LPAREN ? parse_args(p, &n->params) : OK;
}

static bool test_arg_follows(const struct jinja_parser *p) {
    switch ((int)p->at->kind) {
    case TOK_NAME:
        return !parse_is_word(p, "else") && !parse_is_word(p, "or") && !parse_is_word(p, "and") &&
               !parse_is_word(p, "if") && !parse_is_word(p, "in") && !parse_is_word(p, "not");
    case TOK_STRING:
    case TOK_INT:
    case TOK_FLOAT:
    case TOK_LBRACKET:
    case TOK_LBRACE: return true;
    default: return false;
    }
}

static enum status parse_test(struct jinja_parser *p, struct node **out) {
    struct node *n, *arg;
    p->at++;
    bool negated = parse_skip_word(p, "not");
    TRY(parse_node(p, NODE_TEST, &n));
    n->a = *out;
    n->v.kind = VALUE_STR;
    TRY(parse_dotted(p, &n->v.s));
    if (p->at->kind == TOK_LPAREN) {
        TRY(parse_args(p, &n->params));
    } else if (test_arg_follows(p)) {
        if (parse_is_word(p, "is"))
            return parse_fail(p, "tests cannot be chained with 'is'");
        TRY(parse_node(p, NODE_ARG, &arg));
        TRY(parse_primary(p, &arg->a));
        TRY(parse_postfix(p, &arg->a));
        TRY(parse_add(p, &n->params, arg));
    }
    *out = n;
    if (!negated)
        return OK;
    TRY(parse_node(p, NODE_NOT, &n));
    n->a = *out;
    *out = n;
    return OK;
}

enum status parse_filters(struct jinja_parser *p, struct node *input, struct node **out) {
    *out = input;
    TRY(parse_filter(p, out));
    while (parse_skip(p, TOK_PIPE))
        TRY(parse_filter(p, out));
    return OK;
}

static enum status parse_filter_expr(struct jinja_parser *p, struct node **out) {
    for (u32 n = 0; n < LIMIT_TEMPLATE_DEPTH; n++) {
        if (parse_skip(p, TOK_PIPE))
            TRY(parse_filter(p, out));
        else if (parse_is_word(p, "is"))
            TRY(parse_test(p, out));
        else if (p->at->kind == TOK_LPAREN)
            TRY(parse_invoke(p, out));
        else
            return OK;
    }
    return parse_fail(p, "nested too deep");
}

static enum status parse_unary(struct jinja_parser *p, bool with_filter, struct node **out) {
    if (++p->depth > LIMIT_TEMPLATE_DEPTH)
        return parse_fail(p, "nested too deep");
    if (p->at->kind == TOK_SUB || p->at->kind == TOK_ADD) {
        TRY(parse_node(p, p->at->kind == TOK_SUB ? NODE_NEGATE : NODE_PLUS, out));
        p->at++;
        TRY(parse_unary(p, false, &(*out)->a));
    } else {
        TRY(parse_primary(p, out));
    }
    TRY(parse_postfix(p, out));
    if (with_filter)
        TRY(parse_filter_expr(p, out));
    p->depth--;
    return OK;
}
