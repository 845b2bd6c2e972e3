/* jinja.h - the parts of the Jinja evaluator among themselves: tokens, syntax tree, run state.
 *
 * The language is that of Jinja2 3.1 as transformers configures it: trim_blocks, lstrip_blocks, no trailing
 * newline, loop controls, {% generation %}, an immutable sandbox, the default Undefined, no autoescape. */
#ifndef MINKA_CHAT_JINJA_H
#define MINKA_CHAT_JINJA_H

#include "chat/py.h"

/* --- tokens (jinja_lex.c) --- */
enum token {
    TOK_TEXT, TOK_PRINT_BEGIN, TOK_PRINT_END, TOK_BLOCK_BEGIN, TOK_BLOCK_END, TOK_NAME, TOK_STRING, TOK_INT, TOK_FLOAT,
    TOK_ADD, TOK_SUB, TOK_MUL, TOK_DIV, TOK_FLOORDIV, TOK_MOD, TOK_POW, /* in the order of enum py_op */
    TOK_TILDE, TOK_LPAREN, TOK_RPAREN, TOK_LBRACKET, TOK_RBRACKET, TOK_LBRACE, TOK_RBRACE,
    TOK_EQ, TOK_NE, TOK_LT, TOK_LE, TOK_GT, TOK_GE, TOK_ASSIGN, TOK_DOT, TOK_COLON, TOK_PIPE, TOK_COMMA, TOK_SEMICOLON,
    TOK_END,
};

struct jinja_token {
    enum token kind;
    u32 line;
    struct value v; /* TEXT, NAME, STRING: str; INT; FLOAT */
};

struct jinja_tokens {
    struct jinja_token *items; /* [n], the last is TOK_END; owned */
    u32 n, cap;
};
/* Splits source; strings live in arena. */
enum status jinja_lex(struct arena *arena, struct str source, struct jinja_tokens *out, struct err *err) MUST_USE;

/* --- syntax tree (jinja_parse.c, jinja_expr_parse.c) --- */
enum node_kind {
    /* Statements. `items` is the body, `other` the else branch as a BODY where there is one. */
    NODE_BODY,
    NODE_TEXT,     /* v */
    NODE_PRINT,    /* a */
    NODE_IF,       /* a condition */
    NODE_FOR,      /* a target, b what to go over, c condition or NULL; flag: recursive */
    NODE_BREAK,
    NODE_CONTINUE,
    NODE_SET,      /* a target, b value */
    NODE_SET_BLOCK,/* a target, b filter chain over NODE_CAPTURED or NULL */
    NODE_WITH,     /* params: targets and values by turns */
    NODE_MACRO,    /* name; params: NODE_NAME, each with its default in `a` or NULL; op: bits of MACRO_USES_* */
    NODE_CALL,     /* {% call %}: a the call, b the NODE_MACRO that is caller() */
    NODE_FILTER_BLOCK, /* a filter chain over NODE_CAPTURED */
    NODE_BLOCK,    /* a {% block %}: its own scope */
    /* Expressions. */
    NODE_CONST,    /* v */
    NODE_NAME,     /* name */
    NODE_NSREF,    /* name, v = attribute: only as a target */
    NODE_TUPLE, NODE_LIST, NODE_DICT, /* items; DICT: keys and values by turns */
    NODE_ATTR,     /* a, v = attribute */
    NODE_ITEM,     /* a, b = key */
    NODE_SLICE,    /* a; items[3]: parts or NULL */
    NODE_INVOKE,   /* a(...): params as NODE_ARG */
    NODE_ARG,      /* a; v = keyword or UNDEFINED; op: 0, 1 for *a, 2 for **a */
    NODE_FILTER,   /* a | v = name(params as NODE_ARG) */
    NODE_TEST,     /* a is v = name(params) */
    NODE_CAPTURED, /* the text that the block around has captured */
    NODE_BINARY,   /* a op b, op of enum py_op */
    NODE_NEGATE, NODE_PLUS, NODE_NOT, /* a */
    NODE_CONCAT,   /* items */
    NODE_COMPARE,  /* a; items NODE_OPERAND */
    NODE_OPERAND,  /* op of enum compare_op, a */
    NODE_AND, NODE_OR, /* a, b */
    NODE_COND,     /* a if b else c (or NULL) */
};
enum { MACRO_USES_CALLER = 1, MACRO_USES_VARARGS = 2, MACRO_USES_KWARGS = 4 };
enum compare_op { CMP_EQ, CMP_NE, CMP_LT, CMP_LE, CMP_GT, CMP_GE, CMP_IN, CMP_NOT_IN };

struct nodes {
    struct node **p; /* [n] */
    u32 n, cap;
};

struct node {
    enum node_kind kind;
    u32 line;
    u32 op;
    u32 name; /* index into jinja.names */
    bool flag;
    struct value v;
    struct node *a, *b, *c, *other;
    struct nodes items, params;
};

struct jinja {
    struct arena arena;
    struct value names; /* object: name -> index */
    u32 n_names;
    u32 name_loop, name_caller, name_varargs, name_kwargs;
    struct node *body;
};
enum status jinja_open(struct str source, struct jinja **out, struct err *err) MUST_USE;
void jinja_close(struct jinja *t);

/* The parser's state, shared by its two files. */
struct jinja_parser {
    struct jinja *t;
    struct jinja_token *at;
    u32 depth;
    u32 uses; /* MACRO_USES_* met since the begin of the macro */
    struct err *err;
};
enum status parse_fail(struct jinja_parser *p, const char *fmt, ...) PRINTF(2, 3);
enum status parse_node(struct jinja_parser *p, enum node_kind kind, struct node **out) MUST_USE;
enum status parse_add(struct jinja_parser *p, struct nodes *list, struct node *n) MUST_USE;
enum status parse_intern(struct jinja_parser *p, struct str name, u32 *out) MUST_USE;
enum status parse_expect(struct jinja_parser *p, enum token kind, const char *what) MUST_USE;
bool parse_is_word(const struct jinja_parser *p, const char *word);
bool parse_skip_word(struct jinja_parser *p, const char *word);
bool parse_skip(struct jinja_parser *p, enum token kind);
/* Expression; with_condition: `a if b` belongs to it. */
enum status parse_expression(struct jinja_parser *p, bool with_condition, struct node **out) MUST_USE;
/* One expression or a tuple without parentheses, up to the end of the tag or the word `end` (or NULL). */
enum status parse_tuple(struct jinja_parser *p, bool with_condition, const char *end, struct node **out) MUST_USE;
/* What may stand left of = or in. */
enum status parse_target(struct jinja_parser *p, const char *end, struct node **out) MUST_USE;
/* | name(args) ...; input is what the first filter gets. */
enum status parse_filters(struct jinja_parser *p, struct node *input, struct node **out) MUST_USE;

/* --- running (jinja_run.c statements, jinja_expr.c expressions) --- */
struct binding {
    u32 name;
    struct value v;
    struct binding *next;
};
struct scope {
    struct scope *parent;
    struct binding *first;
};
enum flow { FLOW_NEXT, FLOW_BREAK, FLOW_CONTINUE };

struct jinja_run {
    struct run r; /* first: a jinja_run is a run */
    const struct jinja *t;
    struct value *globals; /* [n_names] the caller's variables and Jinja's own, UNDEFINED if none */
    struct scope *scope;
    enum flow flow;
    struct value captured; /* NODE_CAPTURED */
};

struct call_kw { struct str name; struct value v; };
struct call_args {
    struct value *pos; /* [n] */
    struct call_kw *kw; /* [n_kw] */
    u32 n, n_kw;
};

enum callable_kind {
    CALL_MACRO, CALL_METHOD, CALL_LOOP, CALL_LOOP_CYCLE, CALL_LOOP_CHANGED, CALL_RANGE, CALL_NAMESPACE, CALL_DICT,
    CALL_RAISE, CALL_STRFTIME, CALL_JOINER, CALL_JOINED, CALL_CYCLER, CALL_CYCLER_OBJECT, CALL_CYCLER_NEXT, CALL_CYCLER_RESET,
};
struct loop {
    struct value items; /* a list */
    u32 i, depth0;
    const struct node *node; /* the for, for recursive calls */
    struct scope *outer;
    struct value changed;    /* last arguments of loop.changed() */
};
struct callable {
    enum callable_kind kind;
    const struct node *node;   /* MACRO */
    struct scope *scope;       /* MACRO: where it was defined */
    struct value caller;       /* MACRO, during {% call %} */
    struct value self;         /* METHOD; JOINER: separator; CYCLER: items */
    const struct jinja_method *method;
    struct loop *loop;
    u32 n_used;                /* JOINER, CYCLER */
    struct callable *owner;    /* CYCLER_NEXT, CYCLER_RESET */
};

enum status jinja_exec(struct jinja_run *j, const struct nodes *body) MUST_USE;
enum status jinja_eval(struct jinja_run *j, const struct node *n, struct value *out) MUST_USE;
enum status jinja_call(struct jinja_run *j, const struct value *f, const struct call_args *args, struct value *out) MUST_USE;
enum status jinja_attr(struct jinja_run *j, const struct value *v, struct str name, struct value *out) MUST_USE;
enum status jinja_getitem(struct jinja_run *j, const struct value *v, const struct value *key, struct value *out) MUST_USE;
enum status jinja_eval_args(struct jinja_run *j, const struct nodes *params, struct call_args *out) MUST_USE;
struct value jinja_lookup(const struct jinja_run *j, u32 name);
enum status jinja_bind(struct jinja_run *j, u32 name, struct value v) MUST_USE;
enum status jinja_assign(struct jinja_run *j, const struct node *target, struct value v) MUST_USE;
enum status jinja_push(struct jinja_run *j, struct scope **saved) MUST_USE;
/* over: a list, before the loop's own condition. */
enum status jinja_for(struct jinja_run *j, const struct node *n, struct value over, u32 depth0) MUST_USE;
enum status jinja_call_macro(struct jinja_run *j, const struct callable *m, const struct call_args *args, struct value *out) MUST_USE;
enum status jinja_callable(struct jinja_run *j, struct callable c, struct value *out) MUST_USE;
/* Jinja's own global functions; UNDEFINED if name is none. */
enum status jinja_global(struct jinja_run *j, struct str name, struct value *out) MUST_USE;

/* --- filters, tests, methods: tables of functions with named parameters --- */
#define CALL_PARAMS_MAX 6u
/* a: the arguments by the order of the parameters, UNDEFINED where none was given. */
typedef enum status filter_fn(struct jinja_run *j, const struct value *v, const struct value *a, struct value *out);
/* For functions that pass arguments on. */
typedef enum status filter_args_fn(struct jinja_run *j, const struct value *v, const struct call_args *args, struct value *out);

struct jinja_method {
    const char *name;
    const char *params; /* "a,b,c"; NULL: args_fn takes them as they come */
    filter_fn *fn;
    filter_args_fn *args_fn;
    bool lazy; /* a generator in Python: it fails only when it is used */
};
enum status jinja_invoke(struct jinja_run *j, const struct jinja_method *m, const struct value *v, const struct call_args *args, struct value *out) MUST_USE;
extern const struct jinja_method jinja_text_filters[], jinja_list_filters[], jinja_text_methods[]; /* end: name NULL */
/* What functions on text share (jinja_method.c, jinja_filter.c). count < 0: all. */
enum status jinja_replace(struct jinja_run *j, struct str s, struct str from, struct str to, i64 count, struct value *out) MUST_USE;
enum status jinja_center(struct jinja_run *j, struct str s, i64 width, struct str fill, bool left, bool right, struct value *out) MUST_USE;
/* The next line of s from byte *at on, without its end; false behind the last. */
bool jinja_next_line(struct str s, size_t *at, struct str *line);
enum status jinja_join(struct jinja_run *j, struct str between, const struct value *items, struct value *out) MUST_USE;
/* An argument as integer; `fallback` where it is missing or None. */
enum status jinja_int_arg(struct jinja_run *j, const struct value *a, i64 fallback, i64 *out) MUST_USE;
const struct jinja_method *jinja_find(const struct jinja_method *table, struct str name);
const struct jinja_method *jinja_find_method(const struct value *v, struct str name);
enum status jinja_filter(struct jinja_run *j, struct str name, const struct value *v, const struct call_args *args, struct value *out) MUST_USE;
enum status jinja_test(struct jinja_run *j, struct str name, const struct value *v, const struct call_args *args, bool *out) MUST_USE;
enum status jinja_strftime(struct jinja_run *j, struct str format, struct value *out) MUST_USE;

/* ERR_INVALID "'x' is undefined". */
enum status jinja_undefined(struct jinja_run *j, const struct value *v);
/* Renders onto j's text. */
enum status jinja_render(const struct jinja *t, const struct value *root, struct run *r) MUST_USE;

#endif
