/* grammar_schema.h - what the files of the schema compiler share.
 *
 * A value stands under a conjunction: all schemas that hold for it at the same time (its own, what $ref and
 * allOf add, the chosen alternative of anyOf). Each distinct conjunction becomes one rule of the automaton,
 * so that recursion ends and repetition costs nothing. */
#ifndef MINKA_GRAMMAR_SCHEMA_H
#define MINKA_GRAMMAR_SCHEMA_H

#include "chat/grammar_parts.h"
#include "chat/value.h"

enum {
    TYPE_NULL = 1,
    TYPE_BOOL = 2,
    TYPE_INTEGER = 4,
    TYPE_FRACTION = 8, /* numbers that are no integers */
    TYPE_STRING = 16,
    TYPE_ARRAY = 32,
    TYPE_OBJECT = 64,
    TYPE_NUMBER = TYPE_INTEGER | TYPE_FRACTION,
    TYPE_ANY = 127,
};

/* One schema of a conjunction. */
struct sub {
    struct value v;                /* an object or a boolean */
    struct str path;               /* JSON pointer, for messages */
    bool any_of_done, one_of_done; /* an alternative of it is part of the conjunction */
};

struct subs {
    struct sub *list;
    u32 n, cap;
};

struct rule {
    struct subs subs;
    u64 hash;
    u32 chain; /* next rule of the same hash chain + 1 */
    u32 node;  /* SPLIT, filled when the rule is built */
};

#define RULE_CHAINS 1024u

struct schema {
    struct build *b;
    struct arena *arena;
    struct value root;
    struct str path; /* of the root */
    struct rule *rules;
    u32 n_rules, cap_rules;
    u32 chains[RULE_CHAINS]; /* index + 1 */
    u32 n_merges;
    u64 n_compared; /* steps of comparing given values */
    u32 depth; /* of value checks and comparisons of alternatives */
};

/* A number's exact digits: 0.d[0]d[1]... * 10^point. */
struct decimal {
    bool negative;
    u8 digits[20];
    u32 n; /* 0: the number is zero */
    i32 point;
};

struct bound {
    bool set, exclusive;
    struct decimal at;
};

/* A text a string must match. */
struct pattern {
    struct str regex;
    struct str path;
    bool negate;
};

struct patterns {
    struct pattern *list;
    u32 n, cap;
};

/* What the schemas of a conjunction say in sum. */
struct merged {
    struct subs flat; /* with what $ref and allOf name */
    bool never;
    u32 types;   /* allowed */
    u32 implied; /* those that have keywords of their own */
    bool typed;  /* a type, enum or const is given */

    struct value values; /* VALUE_LIST of the first enum or const, if has_values */
    bool has_values;

    bool has_group, group_is_one; /* the first anyOf or oneOf that is open */
    u32 group_owner;              /* index in flat */

    u64 min_length, max_length;
    struct patterns patterns;

    struct bound lo, hi;
    struct decimal multiple; /* n == 0: none */
    struct str multiple_path;

    u64 min_items, max_items;
    u64 min_properties, max_properties;
    bool sealed_items, sealed_properties; /* unevaluated...: false */
};

/* --- grammar_merge.c --- */
void subs_add(struct schema *c, struct subs *s, struct sub sub);
/* Follows $ref and allOf and sums up. ERR_INVALID names the first keyword that cannot be honoured. */
enum status schema_merge(struct schema *c, const struct subs *subs, struct merged *m,
                         struct err *err) MUST_USE;
/* Member of a schema as a schema of its own; false if there is none. */
bool sub_member(struct schema *c, const struct sub *s, const char *key, struct sub *out);
/* i-th element or named member of a list or object below s; path_key is the keyword above. */
struct sub sub_below(struct schema *c, const struct sub *s, const char *key, struct str name, struct value v);
struct str path_add(struct schema *c, struct str path, struct str name);
enum status keyword_refuse(struct str path, const char *key, struct err *err);

/* The rule of a conjunction. */
enum status schema_rule(struct schema *c, const struct subs *subs, u32 *node, struct err *err) MUST_USE;

/* --- grammar_object.c: objects and arrays --- */
enum status emit_object(struct schema *c, const struct merged *m, u32 to, u32 *start,
                        struct err *err) MUST_USE;
enum status emit_array(struct schema *c, const struct merged *m, u32 to, u32 *start,
                       struct err *err) MUST_USE;
/* Schemas for one member or element by name or index. */
enum status member_subs(struct schema *c, const struct merged *m, struct str name, struct subs *out,
                        struct err *err) MUST_USE;
void element_subs(struct schema *c, const struct merged *m, u32 index, struct subs *out);
bool member_required(const struct merged *m, struct str name);

/* --- grammar_value.c: enum, const and whether alternatives exclude each other --- */
enum status emit_values(struct schema *c, const struct merged *m, u32 to, u32 *start,
                        struct err *err) MUST_USE;
/* Not too many steps; after each loop that counts them. */
enum status check_compared(const struct schema *c, struct err *err) MUST_USE;
/* Is v valid under all of them? */
enum status value_satisfies(struct schema *c, const struct subs *subs, const struct value *v, bool *valid,
                            struct err *err) MUST_USE;
/* Can no value be valid under both? false: it is not known. */
enum status subs_disjoint(struct schema *c, const struct subs *x, const struct subs *y, bool *disjoint,
                          struct err *err) MUST_USE;

/* --- grammar_pattern.c --- */
/* A string, quotes included, that matches all patterns (does not, where negate), is none of names, and has
 * min..max characters. ERR_INVALID names the pattern. */
enum status emit_pattern(struct schema *c, const struct patterns *p, const struct str *names, u32 n_names,
                         u64 min, u64 max, u32 to, u32 *start, struct err *err) MUST_USE;
enum status pattern_matches(struct schema *c, const struct pattern *p, struct str text, bool *matches,
                            struct err *err) MUST_USE;

/* --- grammar_regex.c: regular expressions of ECMA 262, as far as they are regular --- */
enum regex_kind { REGEX_SET, REGEX_SPLIT, REGEX_BEGIN, REGEX_END, REGEX_MATCH };

struct code_range {
    u32 lo, hi;
};

/* Nodes of a nondeterministic automaton over code points. */
struct regex_node {
    enum regex_kind kind;
    u32 next, other;                 /* SPLIT: both */
    const struct code_range *ranges; /* SET: [n_ranges] sorted */
    u32 n_ranges;
};

struct regex_nodes {
    struct regex_node *list;
    u32 n, cap;
};
u32 regex_add(struct arena *a, struct regex_nodes *r, struct regex_node node);
/* Appends the automaton of p (searching, as test() does); *start is where it begins, MATCH ends it. */
enum status regex_build(struct arena *a, const struct pattern *p, struct regex_nodes *nodes, u32 *start,
                        struct err *err) MUST_USE;

/* --- grammar_format.c --- */
/* The pattern of a format; regex.p == NULL: unknown, so it is only an annotation. false: a format of the
 * standard that is not supported. */
bool format_pattern(struct str name, struct str *regex);

/* --- grammar_number.c --- */
/* v: VALUE_INT or finite VALUE_FLOAT. */
struct decimal decimal_of(const struct value *v);
int decimal_compare(const struct decimal *x, const struct decimal *y);
bool number_satisfies(const struct merged *m, const struct value *v);
enum status emit_number(struct schema *c, const struct merged *m, bool integer, u32 to, u32 *start,
                        struct err *err) MUST_USE;

#endif
