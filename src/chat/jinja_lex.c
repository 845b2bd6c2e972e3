/* jinja_lex.c - template text to tokens. All white space rules are settled here: the trailing newline, the
 * newline behind a block (trim_blocks), the blanks before one (lstrip_blocks), and the signs - and +. */
#include <stdlib.h>

#include "chat/jinja.h"
#include "chat/text.h"

struct lexer {
    struct arena *arena;
    struct str s; /* newlines are \n only */
    size_t at;
    u32 line;
    struct jinja_tokens *out;
    struct err *err;
};

static enum status lex_fail(struct lexer *l, const char *what) {
    return err_set(l->err, ERR_INVALID, "template, line %u: %s", l->line, what);
}

static enum status lex_full(struct lexer *l) {
    return err_set(l->err, ERR_TOO_LARGE, "the template takes too much memory");
}

static void lex_add(struct lexer *l, enum token kind, struct value v) {
    struct jinja_tokens *t = l->out;
    if (t->n == t->cap) {
        t->cap = t->cap ? t->cap * 2 : 256;
        t->items = xrealloc(t->items, t->cap * sizeof *t->items);
    }
    t->items[t->n++] = (struct jinja_token){kind, l->line, v};
}

static char peek(const struct lexer *l, size_t ahead) {
    return l->s.n - l->at > ahead ? l->s.p[l->at + ahead] : 0;
}

static bool starts(const struct lexer *l, size_t at, const char *word) {
    return at <= l->s.n && str_starts(str_slice(l->s, at, l->s.n), str_of(word));
}

static void move_to(struct lexer *l, size_t to) {
    for (; l->at < to; l->at++)
        l->line += l->s.p[l->at] == '\n';
}

static size_t space_end(const struct lexer *l, size_t at) {
    while (at < l->s.n) {
        size_t next = at;
        if (!text_is_space(text_next(l->s, &next)))
            break;
        at = next;
    }
    return at;
}

/* Text [from, to) before a tag. sign: what follows the tag's opening; lstrip: blanks before a tag that stands
 * first on its line are dropped. */
static enum status lex_text(struct lexer *l, size_t from, size_t to, char sign, bool lstrip) {
    struct str text = str_slice(l->s, from, to);
    if (sign == '-') {
        text = text_strip(text, false, true, STR_NONE);
    } else if (sign != '+' && lstrip) {
        size_t start = text.n;
        while (start > 0 && text.p[start - 1] != '\n')
            start--;
        bool first = start > 0 || from == 0 || l->s.p[from - 1] == '\n';
        struct str tail = str_slice(text, start, text.n);
        if (first && text_strip(tail, true, false, STR_NONE).n == 0)
            text.n = start;
    }
    if (text.n)
        lex_add(l, TOK_TEXT, value_str(text));
    move_to(l, to);
    return OK;
}

/* Behind "%}", "}}" or "#}": what the sign and trim_blocks take away. */
static size_t after_close(const struct lexer *l, size_t at, char sign, bool trim) {
    if (sign == '-')
        return space_end(l, at);
    return trim && sign != '+' && at < l->s.n && l->s.p[at] == '\n' ? at + 1 : at;
}

/* Does "word" stand at `at` behind white space, followed by white space and then close? Gives the place
 * behind close and its sign. */
static bool tag_word(const struct lexer *l, size_t at, const char *word, size_t *end, char *sign) {
    at = space_end(l, at);
    if (!starts(l, at, word))
        return false;
    at = space_end(l, at + strlen(word));
    *sign = 0;
    if (at < l->s.n && (l->s.p[at] == '-' || l->s.p[at] == '+'))
        *sign = l->s.p[at++];
    *end = at + 2;
    return starts(l, at, "%}");
}

/* At "{%" of a raw block; body_at is behind its opening tag. */
static enum status lex_raw(struct lexer *l, size_t body_at, char open_sign) {
    size_t from = open_sign == '-' ? space_end(l, body_at) : body_at;
    for (size_t at = str_find(l->s, STR("{%"), from); at != SIZE_MAX;
         at = str_find(l->s, STR("{%"), at + 2)) {
        char sign = at + 2 < l->s.n ? l->s.p[at + 2] : 0, close = 0;
        size_t inner = at + 2 + (sign == '-' || sign == '+'), end;
        if (!tag_word(l, inner, "endraw", &end, &close))
            continue;
        move_to(l, from);
        TRY(lex_text(l, from, at, sign, true));
        move_to(l, after_close(l, end, close, true));
        return OK;
    }
    return lex_fail(l, "the raw block has no endraw");
}

static enum status lex_comment(struct lexer *l) {
    size_t from = l->at + 2 + (peek(l, 2) == '-' || peek(l, 2) == '+');
    size_t close = str_find(l->s, STR("#}"), from);
    if (close == SIZE_MAX)
        return lex_fail(l, "the comment has no end");
    char sign = close > from ? l->s.p[close - 1] : 0;
    move_to(l, after_close(l, close + 2, sign, true));
    return OK;
}

/* --- inside a tag --- */
static bool is_digit(char c) { return c >= '0' && c <= '9'; }

static bool base_digit(char c, u32 base) {
    if (base == 16 && (c | 32) >= 'a' && (c | 32) <= 'f')
        return true;
    return c >= '0' && c < '0' + (char)MIN(base, 10u);
}

/* Digits with single underscores between them, copied without these; false if there is none. */
static bool take_digits(struct lexer *l, size_t *at, u32 base, struct buf *text) {
    size_t from = *at;
    while (*at < l->s.n) {
        char c = l->s.p[*at];
        bool gap = c == '_' && *at > from && *at + 1 < l->s.n && base_digit(l->s.p[*at + 1], base);
        if (!gap && !base_digit(c, base))
            break;
        if (!gap)
            buf_add_char(text, c);
        ++*at;
    }
    return *at > from;
}

static enum status lex_int(struct lexer *l, struct buf *text, u32 base) {
    char *end;
    const char *digits = buf_cstr(text);
    unsigned long long v = strtoull(digits, &end, (int)base);
    if (v > INT64_MAX || (base == 10 && strlen(digits) > 19))
        return lex_fail(l, "integer beyond 64 bits");
    lex_add(l, TOK_INT, value_int((i64)v));
    return OK;
}

static enum status lex_number(struct lexer *l, struct buf *text) {
    size_t at = l->at;
    char kind = (char)(peek(l, 1) | 32);
    u32 base = peek(l, 0) != '0' ? 10 : kind == 'x' ? 16 : kind == 'o' ? 8 : kind == 'b' ? 2 : 10;
    if (base != 10) {
        at += 2;
        if (!take_digits(l, &at, base, text))
            return lex_fail(l, "digits are missing in a number");
        l->at = at;
        return lex_int(l, text, base);
    }
    take_digits(l, &at, 10, text);
    bool real = false;
    if (at + 1 < l->s.n && l->s.p[at] == '.' && is_digit(l->s.p[at + 1])) {
        real = true;
        buf_add_char(text, '.');
        at++;
        take_digits(l, &at, 10, text);
    }
    if (at < l->s.n && (l->s.p[at] | 32) == 'e') {
        size_t digits = at + 1 + (at + 1 < l->s.n && (l->s.p[at + 1] == '-' || l->s.p[at + 1] == '+'));
        if (digits < l->s.n && is_digit(l->s.p[digits])) {
            real = true;
            buf_add(text, l->s.p + at, digits - at);
            at = digits;
            take_digits(l, &at, 10, text);
        }
    }
    l->at = at;
    if (!real)
        return lex_int(l, text, 10);
    lex_add(l, TOK_FLOAT, (struct value){.kind = VALUE_FLOAT, .f = strtod(buf_cstr(text), NULL)});
    return OK;
}

/* \x41, \u0041, \U00000041 with n digits, or up to three octal ones. */
static enum status lex_code(struct lexer *l, size_t *at, size_t n, u32 base, struct buf *text) {
    u32 c = 0;
    size_t i = 0;
    for (; i < n && *at < l->s.n && base_digit(l->s.p[*at], base); i++, ++*at) {
        char d = l->s.p[*at];
        c = c * base + (u32)(is_digit(d) ? d - '0' : (d | 32) - 'a' + 10);
    }
    if ((base == 16 && i < n) || c > 0x10ffff)
        return lex_fail(l, "wrong escape in a string");
    if (c >= 0xd800 && c < 0xe000)
        c = 0xfffd;
    char t[4];
    buf_add(text, t, utf8_encode(c, t));
    return OK;
}

/* Behind a backslash, as Python's unicode-escape reads it; an unknown escape stays as it is. */
static enum status lex_escape(struct lexer *l, size_t *at, struct buf *text) {
    static const char from[] = "\\'\"abfnrtv", to[] = "\\'\"\a\b\f\n\r\t\v";
    char c = l->s.p[(*at)++];
    if (c == '\n')
        return OK;
    const char *found = c ? strchr(from, c) : NULL;
    if (found) {
        buf_add_char(text, to[found - from]);
        return OK;
    }
    if (c == 'x' || c == 'u' || c == 'U')
        return lex_code(l, at, c == 'x' ? 2 : c == 'u' ? 4 : 8, 16, text);
    if (c >= '0' && c <= '7') {
        --*at;
        return lex_code(l, at, 3, 8, text);
    }
    if (c == 'N')
        return lex_fail(l, "\\N{...} is not supported in strings; use \\u with the number");
    buf_add_char(text, '\\');
    buf_add_char(text, c);
    return OK;
}

static enum status lex_string(struct lexer *l, struct buf *text) {
    char quote = peek(l, 0);
    size_t at = l->at + 1;
    while (at < l->s.n && l->s.p[at] != quote) {
        if (l->s.p[at] != '\\') {
            buf_add_char(text, l->s.p[at++]);
            continue;
        }
        if (++at == l->s.n)
            break;
        TRY(lex_escape(l, &at, text));
    }
    if (at >= l->s.n)
        return lex_fail(l, "the string has no end");
    char *p = arena_try_alloc(l->arena, text->n + 1);
    if (!p)
        return lex_full(l);
    if (text->n)
        memcpy(p, text->p, text->n);
    lex_add(l, TOK_STRING, value_str((struct str){p, text->n}));
    move_to(l, at + 1);
    return OK;
}

static bool name_start(char c) { return ((c | 32) >= 'a' && (c | 32) <= 'z') || c == '_' || (u8)c >= 0x80; }

static enum token lex_operator(const struct lexer *l, size_t *len) {
    static const struct {
        char text[3];
        enum token kind;
    } ops[] = {
        {"//", TOK_FLOORDIV}, {"**", TOK_POW},   {"==", TOK_EQ},      {"!=", TOK_NE},      {">=", TOK_GE},
        {"<=", TOK_LE},       {"+", TOK_ADD},    {"-", TOK_SUB},      {"/", TOK_DIV},      {"*", TOK_MUL},
        {"%", TOK_MOD},       {"~", TOK_TILDE},  {"[", TOK_LBRACKET}, {"]", TOK_RBRACKET}, {"(", TOK_LPAREN},
        {")", TOK_RPAREN},    {"{", TOK_LBRACE}, {"}", TOK_RBRACE},   {">", TOK_GT},       {"<", TOK_LT},
        {"=", TOK_ASSIGN},    {".", TOK_DOT},    {":", TOK_COLON},    {"|", TOK_PIPE},     {",", TOK_COMMA},
        {";", TOK_SEMICOLON},
    };
    for (size_t i = 0; i < ARRAY_LEN(ops); i++)
        if (starts(l, l->at, ops[i].text)) {
            *len = strlen(ops[i].text);
            return ops[i].kind;
        }
    return TOK_END;
}

/* One token inside a tag; *nesting counts open brackets: within them nothing closes the tag. */
static enum status lex_token(struct lexer *l, int *nesting, struct buf *text) {
    char c = peek(l, 0);
    buf_clear(text);
    if (is_digit(c))
        return lex_number(l, text);
    if (c == '"' || c == '\'')
        return lex_string(l, text);
    if (name_start(c)) {
        size_t to = l->at;
        while (to < l->s.n && (name_start(l->s.p[to]) || is_digit(l->s.p[to])))
            to++;
        lex_add(l, TOK_NAME, value_str(str_slice(l->s, l->at, to)));
        l->at = to;
        return OK;
    }
    size_t len = 0;
    enum token kind = lex_operator(l, &len);
    if (kind == TOK_END)
        return lex_fail(l, "unexpected character in a tag");
    *nesting += kind == TOK_LPAREN || kind == TOK_LBRACKET || kind == TOK_LBRACE;
    *nesting -= kind == TOK_RPAREN || kind == TOK_RBRACKET || kind == TOK_RBRACE;
    if (*nesting < 0)
        return lex_fail(l, "a closing bracket without its opening one");
    lex_add(l, kind, (struct value){0});
    l->at += len;
    return OK;
}

/* Behind the tag's opening. */
static enum status lex_tag(struct lexer *l, bool print, struct buf *text) {
    const char *close = print ? "}}" : "%}";
    int nesting = 0;
    lex_add(l, print ? TOK_PRINT_BEGIN : TOK_BLOCK_BEGIN, (struct value){0});
    for (;;) {
        move_to(l, space_end(l, l->at));
        if (l->at >= l->s.n)
            return lex_fail(l, "the tag has no end");
        char sign = peek(l, 0) == '-' || (peek(l, 0) == '+' && !print) ? peek(l, 0) : 0;
        if (nesting == 0 && starts(l, l->at + (sign != 0), close)) {
            lex_add(l, print ? TOK_PRINT_END : TOK_BLOCK_END, (struct value){0});
            move_to(l, after_close(l, l->at + (sign != 0) + 2, sign, !print));
            return OK;
        }
        TRY(lex_token(l, &nesting, text));
    }
}

/* The next "{{", "{%" or "{#". */
static size_t next_tag(const struct lexer *l) {
    for (size_t at = str_find(l->s, STR("{"), l->at); at != SIZE_MAX; at = str_find(l->s, STR("{"), at + 1))
        if (at + 1 < l->s.n && (l->s.p[at + 1] == '{' || l->s.p[at + 1] == '%' || l->s.p[at + 1] == '#'))
            return at;
    return SIZE_MAX;
}

static enum status lex_all(struct lexer *l, struct buf *text) {
    while (l->at < l->s.n) {
        size_t tag = next_tag(l), end;
        if (tag == SIZE_MAX) {
            lex_add(l, TOK_TEXT, value_str(str_slice(l->s, l->at, l->s.n)));
            break;
        }
        char kind = l->s.p[tag + 1], sign = tag + 2 < l->s.n ? l->s.p[tag + 2] : 0, close;
        bool has_sign = sign == '-' || sign == '+';
        TRY(lex_text(l, l->at, tag, sign, kind != '{'));
        if (kind == '#') {
            TRY(lex_comment(l));
        } else if (kind == '%' && tag_word(l, tag + 2 + has_sign, "raw", &end, &close) && close != '+') {
            TRY(lex_raw(l, end, close));
        } else {
            l->at += 2 + (size_t)has_sign;
            TRY(lex_tag(l, kind == '{', text));
        }
    }
    lex_add(l, TOK_END, (struct value){0});
    return OK;
}

/* \r\n and \r become \n, one newline at the end goes. */
static enum status normalize(struct lexer *l, struct str source) {
    char *p = arena_try_alloc(l->arena, source.n + 1);
    if (!p)
        return lex_full(l);
    size_t n = 0;
    for (size_t i = 0; i < source.n; i++) {
        if (source.p[i] == '\n' && i && source.p[i - 1] == '\r')
            continue;
        p[n++] = source.p[i] == '\r' ? '\n' : source.p[i];
    }
    if (n && p[n - 1] == '\n')
        n--;
    p[n] = 0;
    l->s = (struct str){p, n};
    return OK;
}

enum status jinja_lex(struct arena *arena, struct str source, struct jinja_tokens *out, struct err *err) {
    struct lexer l = {.arena = arena, .line = 1, .out = out, .err = err};
    struct buf text = {0};
    TRY(normalize(&l, source));
    enum status s = lex_all(&l, &text);
    buf_release(&text);
    return s;
}
