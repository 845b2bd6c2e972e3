/* grammar_regex.c - ECMA 262's regular expressions into a nondeterministic automaton over code points
 * (Thompson).
 *
 * Where the dialects of validators differ the part that all agree on is taken: \d, \w and \s are ASCII, and
 * what is not in them is ASCII too. */
#include <stdlib.h>

#include "chat/grammar_schema.h"

#define DEPTH_MAX 100u
#define NODES_MAX 16384u
#define RANGES_MAX 512u
#define CODE_MAX 0x10ffffu

enum tree_kind { TREE_EMPTY, TREE_SET, TREE_CAT, TREE_ALT, TREE_REPEAT, TREE_BEGIN, TREE_END };

struct tree {
    enum tree_kind kind;
    struct tree *x, *y; /* CAT, ALT: both; REPEAT: x */
    u32 min, max;       /* REPEAT; max UINT32_MAX: without end */
    const struct code_range *ranges;
    u32 n_ranges;
};

struct parser {
    struct arena *arena;
    const struct pattern *pattern;
    struct str s;
    size_t at;
    u32 depth;
    struct err *err;
};

static enum status refuse(struct parser *p, const char *what) {
    return err_set(p->err, ERR_INVALID,
                   "schema keyword at %.*s is not supported: %s at character %zu of the pattern",
                   STR_FMT(p->pattern->path), what, p->at);
}

static bool peek(const struct parser *p, char c) { return p->at < p->s.n && p->s.p[p->at] == c; }

static bool take(struct parser *p, const char *text) {
    size_t n = strlen(text);
    if (p->s.n - p->at < n || memcmp(p->s.p + p->at, text, n) != 0)
        return false;
    p->at += n;
    return true;
}

static struct tree *tree_new(struct parser *p, enum tree_kind kind, struct tree *x, struct tree *y) {
    struct tree *t = ARENA_NEW(p->arena, struct tree);
    *t = (struct tree){.kind = kind, .x = x, .y = y};
    return t;
}

/* --- sets of code points --- */

struct set {
    struct code_range ranges[RANGES_MAX];
    u32 n;
    bool ascii; /* a class is in it: what is not in the set is ASCII */
};

static void set_add(struct set *s, u32 lo, u32 hi) {
    if (lo <= hi && s->n < RANGES_MAX)
        s->ranges[s->n++] = (struct code_range){lo, hi};
}

static int range_order(const void *x, const void *y) {
    const struct code_range *a = x, *b = y;
    return (a->lo > b->lo) - (a->lo < b->lo);
}

/* Sorted, without overlaps. */
static void set_tidy(struct set *s) {
    u32 n = 0;
    qsort(s->ranges, s->n, sizeof *s->ranges, range_order);
    for (u32 i = 0; i < s->n; i++)
        if (n && s->ranges[i].lo <= s->ranges[n - 1].hi + 1)
            s->ranges[n - 1].hi = MAX(s->ranges[n - 1].hi, s->ranges[i].hi);
        else
            s->ranges[n++] = s->ranges[i];
    s->n = n;
}

static void set_invert(struct set *s) {
    struct set out = {.n = 0};
    u32 from = 0, last = s->ascii ? 0x7f : CODE_MAX;
    set_tidy(s);
    for (u32 i = 0; i < s->n && from <= last; i++) {
        if (s->ranges[i].lo > from)
            set_add(&out, from, MIN(s->ranges[i].lo - 1, last));
        from = s->ranges[i].hi + 1;
    }
    set_add(&out, from, last);
    memcpy(s->ranges, out.ranges, out.n * sizeof *out.ranges);
    s->n = out.n;
}

static struct tree *set_tree(struct parser *p, struct set *s) {
    struct tree *t = tree_new(p, TREE_SET, NULL, NULL);
    set_tidy(s);
    struct code_range *ranges = ARENA_ARRAY(p->arena, struct code_range, MAX(s->n, 1u));
    memcpy(ranges, s->ranges, s->n * sizeof *ranges);
    t->ranges = ranges;
    t->n_ranges = s->n;
    return t;
}

/* \d \D \w \W \s \S; false for any other letter. */
static bool add_class(struct set *s, char c) {
    struct set one = {.n = 0};
    switch (c | 32) {
    case 'd': set_add(&one, '0', '9'); break;
    case 'w':
        set_add(&one, '0', '9');
        set_add(&one, 'A', 'Z');
        set_add(&one, '_', '_');
        set_add(&one, 'a', 'z');
        break;
    case 's':
        set_add(&one, '\t', '\r');
        set_add(&one, ' ', ' ');
        break;
    default: return false;
    }
    one.ascii = true;
    s->ascii = true;
    if (!(c & 32))
        set_invert(&one);
    for (u32 i = 0; i < one.n; i++)
        set_add(s, one.ranges[i].lo, one.ranges[i].hi);
    return true;
}

static bool hex_read(struct parser *p, u32 n, u32 *out) {
    u32 v = 0;
    if (p->s.n - p->at < n)
        return false;
    for (u32 i = 0; i < n; i++) {
        char c = p->s.p[p->at + i];
        u32 d = c >= '0' && c <= '9' ? (u32)(c - '0') : (u32)((c | 32) - 'a') + 10;
        if (d > 15 || (d > 9 && !((c | 32) >= 'a' && (c | 32) <= 'f')))
            return false;
        v = v * 16 + d;
    }
    p->at += n;
    *out = v;
    return true;
}

/* \u, behind the u. */
static bool unicode_read(struct parser *p, u32 *out) {
    u32 low;
    if (take(p, "{")) {
        size_t end = str_find(p->s, STR("}"), p->at);
        if (end > p->s.n || end == p->at || end - p->at > 6 || !hex_read(p, (u32)(end - p->at), out))
            return false;
        p->at++;
        return *out <= CODE_MAX;
    }
    if (!hex_read(p, 4, out))
        return false;
    if (*out >= 0xd800 && *out < 0xdc00 && take(p, "\\u")) {
        if (!hex_read(p, 4, &low) || low < 0xdc00 || low > 0xdfff)
            return false;
        *out = 0x10000 + ((*out - 0xd800) << 10) + (low - 0xdc00);
    }
    return true;
}

/* A character behind a backslash. */
static enum status escape_read(struct parser *p, bool in_class, u32 *out) {
    static const char from[] = "tnvfr0", to[] = "\t\n\v\f\r";
    char c = p->s.p[p->at++];
    const char *at = strchr(from, c);
    if (c && at) {
        *out = (u8)to[at - from];
        if (c == '0' && p->at < p->s.n && p->s.p[p->at] >= '0' && p->s.p[p->at] <= '9')
            return refuse(p, "an octal escape");
        return OK;
    }
    if (c == 'x' || c == 'u')
        return (c == 'x' ? hex_read(p, 2, out) : unicode_read(p, out)) ? OK : refuse(p, "a wrong escape");
    if (c == 'b' && in_class) {
        *out = '\b';
        return OK;
    }
    if (c == 'c' && p->at < p->s.n) {
        *out = (u8)p->s.p[p->at++] & 31;
        return OK;
    }
    if ((u8)c >= 0x80 || (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'))
        return refuse(p, "an escape (back references, \\b and \\p are not regular or not known)");
    *out = (u8)c;
    return OK;
}

/* One character or class of a [...]; *is_class: s has it already. */
static enum status class_item(struct parser *p, struct set *s, u32 *code, bool *is_class) {
    *is_class = false;
    if (p->s.p[p->at] == '\\' && p->at + 1 < p->s.n) {
        p->at++;
        *is_class = add_class(s, p->s.p[p->at]);
        if (!*is_class)
            return escape_read(p, true, code);
        p->at++;
        return OK;
    }
    u32 n = utf8_decode(p->s, p->at, code);
    if (n == 0)
        return refuse(p, "text that is no UTF-8");
    p->at += n;
    return OK;
}

static enum status class_read(struct parser *p, struct set *s) {
    bool invert = take(p, "^");
    while (p->at < p->s.n && !peek(p, ']')) {
        u32 lo, hi;
        bool is_class, hi_class = false;
        TRY(class_item(p, s, &lo, &is_class));
        hi = lo;
        if (peek(p, '-') && p->at + 1 < p->s.n && p->s.p[p->at + 1] != ']') {
            p->at++;
            TRY(class_item(p, s, &hi, &hi_class));
            if (is_class || hi_class || hi < lo)
                return refuse(p, "a range with a wrong end");
        }
        if (s->n == RANGES_MAX)
            return refuse(p, "a set of too many characters");
        if (!is_class)
            set_add(s, lo, hi);
    }
    if (!take(p, "]"))
        return refuse(p, "a [ without its ]");
    if (invert)
        set_invert(s);
    return OK;
}

/* --- the grammar of patterns --- */

static enum status parse_either(struct parser *p, struct tree **out);

static enum status parse_group(struct parser *p, struct tree **out) {
    if (take(p, "?")) {
        bool named = take(p, "<");
        if (named && p->at < p->s.n && p->s.p[p->at] != '=' && p->s.p[p->at] != '!')
            p->at = MIN(str_find(p->s, STR(">"), p->at), p->s.n - 1) + 1;
        else if (named || !take(p, ":"))
            return refuse(p, "a group that looks ahead or behind, or sets flags");
    }
    if (++p->depth > DEPTH_MAX)
        return refuse(p, "too many groups inside each other");
    TRY(parse_either(p, out));
    p->depth--;
    return take(p, ")") ? OK : refuse(p, "a ( without its )");
}

static enum status parse_atom(struct parser *p, struct tree **out) {
    struct set s = {.n = 0};
    u32 code;
    if (take(p, "("))
        return parse_group(p, out);
    if (take(p, "^") || take(p, "$")) {
        *out = tree_new(p, p->s.p[p->at - 1] == '^' ? TREE_BEGIN : TREE_END, NULL, NULL);
        return OK;
    }
    if (take(p, "[")) {
        TRY(class_read(p, &s));
    } else if (take(p, ".")) {
        set_add(&s, '\n', '\n');
        set_add(&s, '\r', '\r');
        set_add(&s, 0x2028, 0x2029);
        set_invert(&s);
    } else if (strchr("*+?{", p->s.p[p->at]) && p->s.p[p->at]) {
        return refuse(p, "a repetition of nothing");
    } else if (take(p, "\\")) {
        if (p->at == p->s.n)
            return refuse(p, "a single backslash");
        if (add_class(&s, p->s.p[p->at])) {
            p->at++;
        } else {
            TRY(escape_read(p, false, &code));
            set_add(&s, code, code);
        }
    } else {
        u32 n = utf8_decode(p->s, p->at, &code);
        if (n == 0)
            return refuse(p, "text that is no UTF-8");
        p->at += n;
        set_add(&s, code, code);
    }
    *out = set_tree(p, &s);
    return OK;
}

/* {n}, {n,} or {n,m} behind its brace; false: it is plain text. */
static bool parse_counts(struct parser *p, u32 *min, u32 *max) {
    size_t from = p->at, end = str_find(p->s, STR("}"), p->at);
    if (end > p->s.n)
        return false;
    struct str text = str_slice(p->s, from, end);
    size_t comma = str_find(text, STR(","), 0);
    u64 lo, hi;
    if (!str_to_u64(str_slice(text, 0, MIN(comma, text.n)), &lo))
        return false;
    hi = lo;
    if (comma < text.n && comma + 1 == text.n)
        hi = UINT32_MAX;
    else if (comma < text.n && !str_to_u64(str_slice(text, comma + 1, text.n), &hi))
        return false;
    *min = (u32)MIN(lo, UINT32_MAX - 1);
    *max = (u32)MIN(hi, UINT32_MAX);
    p->at = end + 1;
    return true;
}

static enum status parse_repeat(struct parser *p, struct tree **out) {
    TRY(parse_atom(p, out));
    while (p->at < p->s.n) {
        u32 min = 0, max = UINT32_MAX;
        if (take(p, "?"))
            max = 1;
        else if (take(p, "+"))
            min = 1;
        else if (take(p, "{")) {
            if (!parse_counts(p, &min, &max))
                return refuse(p, "a { that counts nothing");
        } else if (!take(p, "*"))
            return OK;
        if (min > max || min > LIMIT_PATTERN_REPEAT || (max != UINT32_MAX && max > LIMIT_PATTERN_REPEAT))
            return refuse(p, "a count that is out of order or too large");
        take(p, "?"); /* lazy: the same texts */
        *out = tree_new(p, TREE_REPEAT, *out, NULL);
        (*out)->min = min;
        (*out)->max = max;
        if (++p->depth > DEPTH_MAX)
            return refuse(p, "too many repetitions of each other");
    }
    return OK;
}

/* Sequences and choices lean to the right, so that walking them recurses along the pattern: its length is
 * bounded by LIMIT_PATTERN_BYTES. */
static enum status parse_sequence(struct parser *p, struct tree **out) {
    struct tree **at = out;
    while (p->at < p->s.n && !peek(p, '|') && !peek(p, ')')) {
        struct tree *one;
        u32 depth = p->depth;
        TRY(parse_repeat(p, &one));
        p->depth = depth;
        *at = tree_new(p, TREE_CAT, one, NULL);
        at = &(*at)->y;
    }
    *at = tree_new(p, TREE_EMPTY, NULL, NULL);
    return OK;
}

static enum status parse_either(struct parser *p, struct tree **out) {
    TRY(parse_sequence(p, out));
    struct tree **at = out;
    while (take(p, "|")) {
        struct tree *more;
        TRY(parse_sequence(p, &more));
        *at = tree_new(p, TREE_ALT, *at, more);
        at = &(*at)->y;
    }
    return OK;
}

/* --- the automaton --- */

u32 regex_add(struct arena *a, struct regex_nodes *r, struct regex_node node) {
    if (r->n == r->cap) {
        u32 cap = MAX(64u, 2 * r->cap);
        struct regex_node *list = ARENA_ARRAY(a, struct regex_node, cap);
        if (r->n)
            memcpy(list, r->list, r->n * sizeof *list);
        r->list = list;
        r->cap = cap;
    }
    r->list[r->n] = node;
    return r->n++;
}

/* Where to begin so that t is taken and `to` follows; UINT32_MAX if it gets too large. */
static u32 tree_build(struct arena *a, struct regex_nodes *r, const struct tree *t, u32 to) {
    if (r->n > NODES_MAX || to == UINT32_MAX)
        return UINT32_MAX;
    switch (t->kind) {
    case TREE_EMPTY: return to;
    case TREE_SET: return regex_add(a, r, (struct regex_node){REGEX_SET, to, 0, t->ranges, t->n_ranges});
    case TREE_BEGIN: return regex_add(a, r, (struct regex_node){.kind = REGEX_BEGIN, .next = to});
    case TREE_END: return regex_add(a, r, (struct regex_node){.kind = REGEX_END, .next = to});
    case TREE_CAT: return tree_build(a, r, t->x, tree_build(a, r, t->y, to));
    case TREE_ALT: {
        u32 x = tree_build(a, r, t->x, to), y = tree_build(a, r, t->y, to);
        if (x == UINT32_MAX || y == UINT32_MAX)
            return UINT32_MAX;
        return regex_add(a, r, (struct regex_node){.kind = REGEX_SPLIT, .next = x, .other = y});
    }
    case TREE_REPEAT: break;
    }
    u32 start = to;
    if (t->max == UINT32_MAX) {
        start = regex_add(a, r, (struct regex_node){.kind = REGEX_SPLIT, .next = to, .other = to});
        u32 body = tree_build(a, r, t->x, start);
        if (body == UINT32_MAX)
            return UINT32_MAX;
        r->list[start].next = body;
    }
    u32 n = t->max == UINT32_MAX ? t->min : t->max;
    for (u32 i = n; i-- > 0;) {
        u32 body = tree_build(a, r, t->x, start);
        if (body == UINT32_MAX)
            return UINT32_MAX;
        if (body == start)
            break; /* nothing, however often */
        start = i < t->min
                    ? body
                    : regex_add(a, r, (struct regex_node){.kind = REGEX_SPLIT, .next = body, .other = to});
    }
    return start;
}

enum status regex_build(struct arena *a, const struct pattern *pattern, struct regex_nodes *nodes, u32 *start,
                        struct err *err) {
    static const struct code_range any = {0, CODE_MAX};
    struct parser p = {.arena = a, .pattern = pattern, .s = pattern->regex, .err = err};
    struct tree *t;
    if (p.s.n > LIMIT_PATTERN_BYTES)
        return refuse(&p, "its length");
    TRY(parse_either(&p, &t));
    if (p.at < p.s.n)
        return refuse(&p, "a ) without its (");
    u32 match = regex_add(a, nodes, (struct regex_node){.kind = REGEX_MATCH});
    u32 body = tree_build(a, nodes, t, match);
    if (body == UINT32_MAX)
        return refuse(&p, "its size when repetitions are written out");
    /* The match may begin anywhere. */
    *start = regex_add(a, nodes, (struct regex_node){.kind = REGEX_SPLIT, .next = body});
    u32 skip = regex_add(a, nodes, (struct regex_node){REGEX_SET, *start, 0, &any, 1});
    nodes->list[*start].other = skip;
    return OK;
}
