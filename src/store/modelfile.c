/* modelfile.c - reads and prints Modelfiles. */
#include "store/modelfile.h"

#include <stdlib.h>

#include "base/limit.h"

static const char *const names[] = {
    [MODELFILE_FROM] = "FROM",         [MODELFILE_LICENSE] = "LICENSE",   [MODELFILE_TEMPLATE] = "TEMPLATE",
    [MODELFILE_SYSTEM] = "SYSTEM",     [MODELFILE_ADAPTER] = "ADAPTER",   [MODELFILE_DRAFT] = "DRAFT",
    [MODELFILE_RENDERER] = "RENDERER", [MODELFILE_PARSER] = "PARSER",     [MODELFILE_PARAMETER] = "PARAMETER",
    [MODELFILE_MESSAGE] = "MESSAGE",   [MODELFILE_REQUIRES] = "REQUIRES",
};

#define TEXT_COMMAND                                                                                         \
    "command must be one of \"from\", \"license\", \"template\", \"system\", \"adapter\", \"draft\", "       \
    "\"renderer\", \"parser\", \"parameter\", \"message\", or \"requires\""
#define TEXT_ROLE "message role must be one of \"system\", \"user\", or \"assistant\""

/* --- encodings --- */

static u32 utf16_unit(struct str s, size_t at, bool big) {
    u32 first = (u8)s.p[at], second = (u8)s.p[at + 1];
    return big ? first << 8 | second : second << 8 | first;
}

static void utf16_decode(struct str s, bool big, struct buf *out) {
    char bytes[4];
    for (size_t at = 0; at + 1 < s.n; at += 2) {
        u32 c = utf16_unit(s, at, big);
        u32 low = c >= 0xd800 && c < 0xdc00 && at + 3 < s.n ? utf16_unit(s, at + 2, big) : 0;
        if (low >= 0xdc00 && low < 0xe000) {
            c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
            at += 2;
        } else if (c >= 0xd800 && c < 0xe000) {
            c = 0xfffd;
        }
        buf_add(out, bytes, utf8_encode(c, bytes));
    }
    if (s.n & 1)
        buf_add_str(out, STR("\xef\xbf\xbd"));
}

/* Valid UTF-8 without a byte order mark, without NUL and other characters that are dropped. */
static void text_clean(struct str s, struct buf *out) {
    for (size_t at = 0; at < s.n;) {
        u32 c, n = utf8_decode(s, at, &c);
        if (n == 0)
            buf_add_str(out, STR("\xef\xbf\xbd"));
        else if ((c >= 0x20 && c != 0x7f && !(c >= 0x80 && c < 0xa0)) || c == '\n' || c == '\r' || c == '\t')
            buf_add(out, s.p + at, n);
        at += MAX(n, 1u);
    }
}

static void text_decode(struct str text, struct buf *out) {
    bool little = str_starts(text, STR("\xff\xfe")), big = str_starts(text, STR("\xfe\xff"));
    struct buf wide = {0};
    if (little || big) {
        utf16_decode(str_slice(text, 2, text.n), big, &wide);
        text = buf_str(&wide);
    } else if (str_starts(text, STR("\xef\xbb\xbf"))) {
        text = str_slice(text, 3, text.n);
    }
    text_clean(text, out);
    buf_release(&wide);
}

/* --- reading --- */

struct reader {
    struct str text;
    size_t at;
    u32 line;
    struct arena *arena;
    struct modelfile_line *lines; /* [n] */
    u32 n, cap;
};

static bool is_blank(char c) { return c == ' ' || c == '\t'; }
static bool is_line_end(char c) { return c == '\n' || c == '\r'; }
static bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
static bool is_name(char c) { return is_letter(c) || (c >= '0' && c <= '9') || c == '_'; }

static bool more(const struct reader *r) { return r->at < r->text.n; }
static char here(const struct reader *r) { return r->text.p[r->at]; }

static void step(struct reader *r) {
    if (is_line_end(here(r)))
        r->line++;
    r->at++;
}

static enum status fail_at(const struct reader *r, const char *text, struct err *err) {
    return err_set(err, ERR_INVALID, "(line %u): %s", r->line, text);
}

/* The line ends in the middle of something; word is what there is of it. */
static enum status fail_short(struct str word, struct err *err) {
    return err_set(err, ERR_INVALID, "unexpected EOF%s%.*s", word.n ? ": " : "", STR_FMT(word));
}

static void blanks_skip(struct reader *r) {
    while (more(r) && is_blank(here(r)))
        r->at++;
}

/* A word that ends in a blank, which is eaten. False at another character or the end. */
static bool word_take(struct reader *r, bool (*belongs)(char), struct str *word) {
    size_t from = r->at;
    while (more(r) && belongs(here(r)))
        r->at++;
    *word = str_slice(r->text, from, r->at);
    if (!more(r) || !is_blank(here(r)))
        return false;
    r->at++;
    return true;
}

/* Takes the quotes off. False if they are open: the value goes on behind the line's end. */
static bool unquote(struct str s, struct str *value) {
    u32 n = str_starts(s, STR("\"\"\"")) ? 3 : str_starts(s, STR("\"")) ? 1 : 0;
    if (n && (s.n < 2 * n || !str_ends(s, str_slice(STR("\"\"\""), 0, n))))
        return false;
    *value = str_slice(s, n, s.n - n);
    return true;
}

static enum status value_take(struct reader *r, struct str *value, struct err *err) {
    size_t from = r->at;
    for (;;) {
        while (more(r) && !is_line_end(here(r)))
            r->at++;
        bool closed = unquote(str_trim(str_slice(r->text, from, r->at)), value);
        if (closed || !more(r)) {
            if (!closed)
                return fail_short(STR_NONE, err);
            *value = arena_str(r->arena, *value);
            return OK;
        }
        step(r);
    }
}

static enum status command_take(struct reader *r, enum modelfile_command *command, struct err *err) {
    struct str word;
    bool blank = word_take(r, is_letter, &word);
    if (!more(r) && !blank)
        return fail_short(STR_NONE, err);
    u32 i = 0;
    while (i < ARRAY_LEN(names) && !str_eq_nocase(word, str_of(names[i])))
        i++;
    if (!blank || i == ARRAY_LEN(names)) {
        if (more(r) && !blank)
            step(r); /* the reference counts the line end that stopped the word */
        return fail_at(r, TEXT_COMMAND, err);
    }
    *command = (enum modelfile_command)i;
    return OK;
}

static enum status key_take(struct reader *r, enum modelfile_command command, struct str *key,
                            struct err *err) {
    *key = STR_NONE;
    if (command != MODELFILE_PARAMETER && command != MODELFILE_MESSAGE)
        return OK;
    blanks_skip(r);
    if (!word_take(r, command == MODELFILE_MESSAGE ? is_letter : is_name, key))
        return fail_short(*key, err);
    if (command == MODELFILE_MESSAGE && !str_is(*key, "system") && !str_is(*key, "user") &&
        !str_is(*key, "assistant"))
        return fail_at(r, TEXT_ROLE, err);
    *key = arena_str(r->arena, *key);
    return OK;
}

static enum status lines_take(struct reader *r, struct err *err) {
    bool has_from = false;
    while (more(r)) {
        if (is_blank(here(r)) || is_line_end(here(r))) {
            step(r);
            continue;
        }
        if (here(r) == '#') {
            while (more(r) && !is_line_end(here(r)))
                r->at++;
            continue;
        }
        if (r->n == r->cap) {
            r->cap = MAX(16u, r->cap * 2);
            r->lines = xrealloc(r->lines, r->cap * sizeof *r->lines);
        }
        struct modelfile_line *line = &r->lines[r->n];
        TRY(command_take(r, &line->command, err));
        TRY(key_take(r, line->command, &line->key, err));
        TRY(value_take(r, &line->value, err));
        has_from |= line->command == MODELFILE_FROM;
        r->n++;
    }
    return has_from ? OK : err_set(err, ERR_INVALID, "no FROM line");
}

enum status modelfile_parse(struct str text, struct arena *a, struct modelfile *out, struct err *err) {
    if (text.n > LIMIT_STORE_TEXT_BYTES)
        return err_set(err, ERR_TOO_LARGE, "the Modelfile has %zu bytes, at most %u are read", text.n,
                       LIMIT_STORE_TEXT_BYTES);
    struct buf clean = {0};
    text_decode(text, &clean);
    struct reader r = {.text = buf_str(&clean), .line = 1, .arena = a};
    enum status status = lines_take(&r, err);
    if (status == OK) {
        out->n = r.n;
        out->lines = ARENA_ARRAY(a, struct modelfile_line, r.n);
        memcpy(out->lines, r.lines, r.n * sizeof *r.lines);
    }
    free(r.lines);
    buf_release(&clean);
    return status;
}

/* --- printing --- */

/* Quotes where the value would not come back without them. */
static const char *quotes_for(struct str s) {
    bool plain = str_find(s, STR("\n"), 0) == SIZE_MAX && str_find(s, STR("\r"), 0) == SIZE_MAX &&
                 str_trim(s).n == s.n && !str_starts(s, STR("\""));
    return plain ? "" : str_find(s, STR("\""), 0) == SIZE_MAX ? "\"" : "\"\"\"";
}

void modelfile_print(struct buf *b, const struct modelfile_line *line) {
    const char *mark = quotes_for(line->value);
    buf_printf(b, "%s ", names[line->command]);
    if (line->key.n)
        buf_printf(b, "%.*s ", STR_FMT(line->key));
    buf_add_str(b, str_of(mark));
    buf_add_str(b, line->value);
    buf_add_str(b, str_of(mark));
    buf_add_char(b, '\n');
}
