/* go.h - the parts of the Go text/template evaluator among themselves.
 *
 * The language is that of Go's text/template with the option missingkey=zero and the reference's own functions
 * (json, currentDate, yesterdayDate, toTypeScriptType). Go's nil is VALUE_NONE or VALUE_UNDEFINED. */
#ifndef MINKA_CHAT_GO_H
#define MINKA_CHAT_GO_H

#include "chat/run.h"

/* --- tokens (go_lex.c) --- */
enum go_token_kind {
    GO_TEXT, GO_OPEN, GO_CLOSE, GO_IDENT, GO_FIELD, GO_VAR, GO_DOT, GO_NUMBER, GO_STRING, GO_BOOL, GO_NIL, GO_KEYWORD,
    GO_PIPE, GO_LPAREN, GO_RPAREN, GO_DECLARE, GO_ASSIGN, GO_COMMA, GO_END,
};
struct go_token {
    enum go_token_kind kind;
    bool space; /* white space in front of it, inside a tag */
    u32 line;
    struct str text;  /* names without their dot; variables with their $ */
    struct value v;   /* of NUMBER, STRING, BOOL */
};
struct go_tokens {
    struct go_token *items; /* [n], the last is GO_END; owned */
    u32 n, cap;
};
enum status go_lex(struct arena *arena, struct str source, struct go_tokens *out, struct err *err) MUST_USE;

/* --- syntax tree (go_parse.c) --- */
enum go_kind {
    GON_TEXT,     /* v */
    GON_ACTION,   /* pipe */
    GON_IF, GON_WITH, GON_RANGE, /* pipe, body, other */
    GON_TEMPLATE, /* v name, pipe or NULL */
    GON_BREAK, GON_CONTINUE,
    GON_PIPE,     /* names: variables declared or assigned; body: commands */
    GON_COMMAND,  /* body: operands */
    GON_PATH,     /* names .A.B behind `of`: NULL is the dot */
    GON_VAR,      /* v name */
    GON_FUNC,     /* v name, op index of the function */
    GON_DOT, GON_NIL, GON_CONST, /* v */
};
struct go_nodes {
    struct go_node **p;
    u32 n, cap;
};
struct go_names {
    struct str *p;
    u32 n, cap;
};
struct go_node {
    enum go_kind kind;
    u32 line, op;
    bool assign; /* PIPE: = instead of := */
    bool cut;    /* behind the first .Response: left out of a cut run */
    bool has_other;
    struct value v;
    struct go_node *pipe, *of;
    struct go_nodes body, other;
    struct go_names names;
};
struct go_define {
    struct str name;
    struct go_nodes body;
};
struct go_template {
    struct arena arena;
    struct go_nodes body;
    struct go_define *defines; /* [n_defines] */
    u32 n_defines, cap_defines;
    struct value mentioned; /* object: every field and variable name, in lower case */
};
enum status go_open(struct str source, struct go_template **out, struct err *err) MUST_USE;
void go_close(struct go_template *t);

/* --- running (go_run.c) --- */
struct go_run {
    struct run r; /* first: a go_run is a run */
    const struct go_template *t;
    struct go_variable *variables;
    u32 n_variables, cap_variables, first_variable; /* those of the running template begin at first_variable */
    enum go_flow { GO_FLOW_NEXT, GO_FLOW_BREAK, GO_FLOW_CONTINUE } flow;
    bool cut;
};
enum status go_render(const struct go_template *t, const struct value *root, bool cut, struct run *r) MUST_USE;
bool go_truth(const struct value *v);
const char *go_type(const struct value *v);
/* Field of a struct by its Go name, entry of a map; nil where a map has none. */
enum status go_field(struct go_run *g, const struct value *v, struct str name, struct value *out) MUST_USE;
/* Keys of a map in order. */
enum status go_sorted_keys(struct run *r, const struct value *map, struct value *out) MUST_USE;

/* --- functions (go_func.c) and printing (go_print.c) --- */
#define GO_FUNC_AND 0u
#define GO_FUNC_OR 1u
/* Index of a function; false if there is none. */
bool go_func_find(struct str name, u32 *index);
enum status go_func_call(struct go_run *g, u32 index, const struct value *a, u32 n, struct value *out) MUST_USE;
/* As fmt.Print shows it; inside: within a list or map. */
enum status go_put(struct run *r, const struct value *v) MUST_USE;
enum status go_put_json(struct run *r, const struct value *v) MUST_USE;
/* fmt.Sprint: blanks between operands of which neither is a string. */
enum status go_put_all(struct run *r, const struct value *a, u32 n, bool line) MUST_USE;
enum status go_printf(struct run *r, struct str format, const struct value *a, u32 n) MUST_USE;
enum status go_put_float(struct run *r, f64 f) MUST_USE;

#endif
