/* go_lex.c - Go template text to tokens: tags, trim markers, comments, and the words inside tags. */
#include <stdlib.h>

#include "chat/go.h"
#include "chat/text.h"

struct lexer {
    struct arena *arena;
    struct str s;
    size_t at;
    u32 line;
    struct go_tokens *out;
    struct buf text;
    struct err *err;
};

static enum status lex_fail(struct lexer *l, const char *what) {
    return err_set(l->err, ERR_INVALID, "template, line %u: %s", l->line, what);
}

static struct go_token *lex_add(struct lexer *l, enum go_token_kind kind, struct str text, bool space) {
    struct go_tokens *t = l->out;
    if (t->n == t->cap) {
        t->cap = t->cap ? t->cap * 2 : 256;
        t->items = xrealloc(t->items, t->cap * sizeof *t->items);
    }
    t->items[t->n] = (struct go_token){kind, space, l->line, text, {0}};
    return &t->items[t->n++];
}

static bool is_blank(char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; }
static bool is_digit(char c) { return c >= '0' && c <= '9'; }
static bool is_word(char c) {
    return is_digit(c) || ((c | 32) >= 'a' && (c | 32) <= 'z') || c == '_' || (u8)c >= 0x80;
}
static char peek(const struct lexer *l, size_t ahead) {
    return l->s.n - l->at > ahead ? l->s.p[l->at + ahead] : 0;
}
static bool starts(const struct lexer *l, struct str word) {
    return str_starts(str_slice(l->s, l->at, l->s.n), word);
}

static void move_to(struct lexer *l, size_t to) {
    for (; l->at < to; l->at++)
        l->line += l->s.p[l->at] == '\n';
}

static void skip_blanks(struct lexer *l) {
    size_t to = l->at;
    while (to < l->s.n && is_blank(l->s.p[to]))
        to++;
    move_to(l, to);
}

/* At "}}" or " -}}" (after blanks): moves behind it and behind the blanks that a trim marker takes. */
static bool lex_close(struct lexer *l, bool space) {
    bool trim = space && peek(l, 0) == '-' && peek(l, 1) == '}' && peek(l, 2) == '}';
    if (!trim && !starts(l, STR("}}")))
        return false;
    l->at += trim ? 3 : 2;
    if (trim)
        skip_blanks(l);
    return true;
}

static enum status lex_comment(struct lexer *l) {
    size_t end = str_find(l->s, STR("*/"), l->at + 2);
    if (end == SIZE_MAX)
        return lex_fail(l, "the comment has no end");
    move_to(l, end + 2);
    size_t before = l->at;
    skip_blanks(l);
    bool space = l->at > before;
    if ((space && peek(l, 0) != '-') || !lex_close(l, space))
        return lex_fail(l, "a comment must end at the end of its tag");
    return OK;
}

/* --- words --- */
static enum status lex_put_code(struct lexer *l, size_t *at, size_t n, u32 base, bool byte) {
    u32 c = 0;
    for (size_t i = 0; i < n; i++, ++*at) {
        char d = *at < l->s.n ? l->s.p[*at] : 0;
        u32 v = is_digit(d)                          ? (u32)(d - '0')
                : (d | 32) >= 'a' && (d | 32) <= 'f' ? (u32)((d | 32) - 'a' + 10)
                                                     : 99;
        if (v >= base)
            return lex_fail(l, "wrong escape in a string");
        c = c * base + v;
    }
    char t[4] = {(char)c, 0, 0, 0};
    if (byte ? c > 255 : c > 0x10ffff || (c >= 0xd800 && c < 0xe000))
        return lex_fail(l, "wrong escape in a string");
    buf_add(&l->text, t, byte ? 1 : utf8_encode(c, t));
    return OK;
}

/* Behind a backslash. */
static enum status lex_escape(struct lexer *l, size_t *at, char quote) {
    static const char from[] = "abfnrtv\\", to[] = "\a\b\f\n\r\t\v\\";
    char c = *at < l->s.n ? l->s.p[(*at)++] : 0;
    const char *found = c ? strchr(from, c) : NULL;
    if (found || (c && c == quote)) {
        buf_add_char(&l->text, found ? to[found - from] : quote);
        return OK;
    }
    if (c == 'x' || c == 'u' || c == 'U')
        return lex_put_code(l, at, c == 'x' ? 2 : c == 'u' ? 4 : 8, 16, c == 'x');
    if (c >= '0' && c <= '7') {
        --*at;
        return lex_put_code(l, at, 3, 8, true);
    }
    return lex_fail(l, "wrong escape in a string");
}

static enum status lex_quoted(struct lexer *l, char quote) {
    size_t at = l->at + 1;
    buf_clear(&l->text);
    while (at < l->s.n && l->s.p[at] != quote) {
        if (l->s.p[at] == '\n')
            return lex_fail(l, "the string has no end");
        if (l->s.p[at] != '\\') {
            buf_add_char(&l->text, l->s.p[at++]);
            continue;
        }
        at++;
        TRY(lex_escape(l, &at, quote));
    }
    if (at >= l->s.n)
        return lex_fail(l, "the string has no end");
    move_to(l, at + 1);
    return OK;
}

static enum status lex_string(struct lexer *l, bool space) {
    TRY(lex_quoted(l, '"'));
    char *p = arena_try_alloc(l->arena, l->text.n + 1);
    if (!p)
        return err_set(l->err, ERR_TOO_LARGE, "the template takes too much memory");
    if (l->text.n)
        memcpy(p, l->text.p, l->text.n);
    lex_add(l, GO_STRING, STR_NONE, space)->v = value_str((struct str){p, l->text.n});
    return OK;
}

static enum status lex_raw(struct lexer *l, bool space) {
    size_t end = str_find(l->s, STR("`"), l->at + 1);
    if (end == SIZE_MAX)
        return lex_fail(l, "the string has no end");
    lex_add(l, GO_STRING, STR_NONE, space)->v = value_str(str_slice(l->s, l->at + 1, end));
    move_to(l, end + 1);
    return OK;
}

static enum status lex_char(struct lexer *l, bool space) {
    size_t at = 0;
    TRY(lex_quoted(l, '\''));
    struct str s = buf_str(&l->text);
    if (!s.n)
        return lex_fail(l, "an empty character");
    u32 c = text_next(s, &at);
    if (at != s.n)
        return lex_fail(l, "more than one character between single quotes");
    lex_add(l, GO_NUMBER, STR_NONE, space)->v = value_int(c);
    return OK;
}

static enum status lex_number(struct lexer *l, bool space) {
    size_t to = l->at;
    char copy[64];
    u32 n = 0;
    while (to < l->s.n &&
           (is_word(l->s.p[to]) || l->s.p[to] == '.' ||
            ((l->s.p[to] == '+' || l->s.p[to] == '-') && (to == l->at || (l->s.p[to - 1] | 32) == 'e'))))
        to++;
    struct str s = str_slice(l->s, l->at, to);
    for (size_t i = 0; i < s.n && n < sizeof copy - 1; i++)
        if (s.p[i] != '_')
            copy[n++] = s.p[i];
    copy[n] = 0;
    char *digits = copy + (copy[0] == '-' || copy[0] == '+'), *end;
    u32 base = digits[0] != '0'          ? 10
               : (digits[1] | 32) == 'x' ? 16
               : (digits[1] | 32) == 'b' ? 2
               : (digits[1] | 32) == 'o' ? 8
                                         : 10;
    bool octal = base == 10 && digits[0] == '0' && is_digit(digits[1]),
         real = base == 10 && strpbrk(digits, ".eE");
    struct value v = {.kind = VALUE_FLOAT};
    if (real) {
        v.f = strtod(copy, &end);
    } else {
        char *from = base == 10 ? digits : digits + 2;
        unsigned long long u = strtoull(from, &end, octal ? 8 : (int)base);
        if (u > INT64_MAX || !is_word(from[0]))
            return lex_fail(l, "wrong number");
        v = value_int(copy[0] == '-' ? -(i64)u : (i64)u);
    }
    if (*end || n == sizeof copy - 1)
        return lex_fail(l, "wrong number");
    lex_add(l, GO_NUMBER, s, space)->v = v;
    l->at = to;
    return OK;
}

static enum status lex_word(struct lexer *l, bool space) {
    static const char *const keywords[] = {"if",     "else",     "end",   "range", "with",
                                           "define", "template", "block", "break", "continue"};
    char first = l->s.p[l->at];
    size_t from = l->at + (first == '.'), to = l->at + (first == '.' || first == '$');
    while (to < l->s.n && is_word(l->s.p[to]))
        to++;
    struct str s = str_slice(l->s, from, to);
    enum go_token_kind kind = first == '$' ? GO_VAR : first == '.' ? (s.n ? GO_FIELD : GO_DOT) : GO_IDENT;
    for (size_t i = 0; kind == GO_IDENT && i < ARRAY_LEN(keywords); i++)
        if (str_is(s, keywords[i]))
            kind = GO_KEYWORD;
    if (kind == GO_IDENT && (str_is(s, "true") || str_is(s, "false")))
        kind = GO_BOOL;
    else if (kind == GO_IDENT && str_is(s, "nil"))
        kind = GO_NIL;
    lex_add(l, kind, s, space)->v = value_bool(str_is(s, "true"));
    l->at = to;
    return OK;
}

static enum status lex_token(struct lexer *l, bool space) {
    char c = peek(l, 0), next = peek(l, 1);
    if (is_digit(c) || ((c == '+' || c == '-') && (is_digit(next) || next == '.')) ||
        (c == '.' && is_digit(next)))
        return lex_number(l, space);
    if (is_word(c) || c == '.' || c == '$')
        return lex_word(l, space);
    if (c == '"')
        return lex_string(l, space);
    if (c == '`')
        return lex_raw(l, space);
    if (c == '\'')
        return lex_char(l, space);
    enum go_token_kind kind = c == '|'   ? GO_PIPE
                              : c == '(' ? GO_LPAREN
                              : c == ')' ? GO_RPAREN
                              : c == ',' ? GO_COMMA
                              : c == '=' ? GO_ASSIGN
                                         : GO_END;
    if (c == ':' && next == '=')
        kind = GO_DECLARE;
    if (kind == GO_END)
        return lex_fail(l, "unexpected character in a tag");
    lex_add(l, kind, STR_NONE, space);
    l->at += 1 + (kind == GO_DECLARE);
    return OK;
}

/* Behind the opening. */
static enum status lex_tag(struct lexer *l) {
    lex_add(l, GO_OPEN, STR_NONE, false);
    for (;;) {
        size_t before = l->at;
        skip_blanks(l);
        bool space = l->at > before;
        if (l->at >= l->s.n)
            return lex_fail(l, "the tag has no end");
        if (lex_close(l, space)) {
            lex_add(l, GO_CLOSE, STR_NONE, false);
            return OK;
        }
        TRY(lex_token(l, space));
    }
}

static enum status lex_all(struct lexer *l) {
    while (l->at < l->s.n) {
        size_t tag = MIN(str_find(l->s, STR("{{"), l->at), l->s.n), end = tag;
        bool trim = tag + 3 < l->s.n && l->s.p[tag + 2] == '-' && is_blank(l->s.p[tag + 3]);
        while (trim && end > l->at && is_blank(l->s.p[end - 1]))
            end--;
        if (end > l->at)
            lex_add(l, GO_TEXT, STR_NONE, false)->v = value_str(str_slice(l->s, l->at, end));
        move_to(l, tag);
        if (tag == l->s.n)
            break;
        l->at += 2 + (size_t)trim;
        if (trim && str_starts(str_slice(l->s, l->at + 1, l->s.n), STR("/*")))
            move_to(l, l->at + 1);
        TRY(starts(l, STR("/*")) ? lex_comment(l) : lex_tag(l));
    }
    lex_add(l, GO_END, STR_NONE, false);
    return OK;
}

enum status go_lex(struct arena *arena, struct str source, struct go_tokens *out, struct err *err) {
    struct lexer l = {.arena = arena, .s = source, .line = 1, .out = out, .err = err};
    enum status s = lex_all(&l);
    buf_release(&l.text);
    return s;
}
