/* text.c - Unicode text for templates, on utf8proc's tables. */
#include "chat/text.h"

#include <utf8proc.h>

#include "chat/case_table.h"

u32 text_next(struct str s, size_t *at) {
    u32 c = (u8)s.p[*at];
    if (c < 0x80) {
        ++*at;
        return c;
    }
    u32 n = utf8_decode(s, *at, &c);
    *at += n ? n : 1;
    return n ? c : 0xfffd;
}

size_t text_len(struct str s) {
    size_t n = 0;
    for (size_t at = 0; at < s.n; n++)
        text_next(s, &at);
    return n;
}

size_t text_offset(struct str s, size_t i) {
    size_t at = 0;
    while (i-- && at < s.n)
        text_next(s, &at);
    return at;
}

bool text_is_space(u32 c) {
    if (c < 0x80)
        return (c >= 9 && c <= 13) || (c >= 0x1c && c <= 0x20);
    return c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 ||
           c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

static bool strippable(u32 c, struct str chars) {
    if (!chars.p)
        return text_is_space(c);
    for (size_t at = 0; at < chars.n;)
        if (text_next(chars, &at) == c)
            return true;
    return false;
}

/* Start of the code point that ends at byte end. */
static size_t text_before(struct str s, size_t end) {
    for (size_t back = 1; back <= 4 && back <= end; back++) {
        size_t at = end - back;
        text_next(s, &at);
        if (at == end && (back == 1 || (u8)s.p[end - back] >= 0xc0))
            if (back > 1 || (u8)s.p[end - 1] < 0x80)
                return end - back;
    }
    return end - 1;
}

struct str text_strip(struct str s, bool left, bool right, struct str chars) {
    size_t from = 0, to = s.n;
    while (left && from < to) {
        size_t next = from;
        if (!strippable(text_next(s, &next), chars))
            break;
        from = next;
    }
    while (right && to > from) {
        size_t before = text_before(s, to), at = before;
        if (!strippable(text_next(s, &at), chars))
            break;
        to = before;
    }
    return str_slice(s, from, to);
}

static const struct special_case *special_find(u32 c) {
    size_t lo = 0, hi = ARRAY_LEN(special_cases);
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (special_cases[mid].code == c)
            return &special_cases[mid];
        if (special_cases[mid].code < c)
            lo = mid + 1;
        else
            hi = mid;
    }
    return NULL;
}

enum letter_case { LETTER_UPPER, LETTER_TITLE, LETTER_LOWER };

static enum status put_letter(struct run *r, u32 c, enum letter_case to) {
    u32 out[3] = {c, 0, 0};
    const struct special_case *s = c < 0x80 ? NULL : special_find(c);
    if (s)
        memcpy(out, to == LETTER_UPPER ? s->upper : to == LETTER_TITLE ? s->title : s->lower, sizeof out);
    else if (to == LETTER_LOWER)
        out[0] = (u32)utf8proc_tolower((utf8proc_int32_t)c);
    else
        out[0] = (u32)(to == LETTER_UPPER ? utf8proc_toupper((utf8proc_int32_t)c)
                                          : utf8proc_totitle((utf8proc_int32_t)c));
    for (u32 i = 0; i < 3 && (i == 0 || out[i]); i++) {
        char t[4];
        TRY(run_put(r, (struct str){t, utf8_encode(out[i], t)}));
    }
    return OK;
}

static utf8proc_category_t category(u32 c) { return utf8proc_category((utf8proc_int32_t)c); }

/* Unicode's Cased and Case_Ignorable, as far as the general categories tell. */
static bool is_cased(u32 c) {
    utf8proc_category_t g = category(c);
    return g == UTF8PROC_CATEGORY_LU || g == UTF8PROC_CATEGORY_LL || g == UTF8PROC_CATEGORY_LT;
}

static bool is_ignorable(u32 c) {
    utf8proc_category_t g = category(c);
    return c == '\'' || c == '.' || c == ':' || c == 0xb7 || c == 0x2019 || g == UTF8PROC_CATEGORY_MN ||
           g == UTF8PROC_CATEGORY_ME || g == UTF8PROC_CATEGORY_CF || g == UTF8PROC_CATEGORY_LM ||
           g == UTF8PROC_CATEGORY_SK;
}

/* A capital sigma at [at, next) becomes the final form if a letter is before it and none behind. */
static bool sigma_is_final(struct str s, size_t at, size_t next) {
    bool before = false;
    while (at > 0) {
        at = text_before(s, at);
        size_t i = at;
        u32 c = text_next(s, &i);
        if (is_ignorable(c))
            continue;
        before = is_cased(c);
        break;
    }
    while (before && next < s.n) {
        u32 c = text_next(s, &next);
        if (!is_ignorable(c))
            return !is_cased(c);
    }
    return before;
}

static enum letter_case letter_case_of(enum text_case to, u32 c, bool start, bool in_word) {
    switch (to) {
    case TEXT_UPPER: return LETTER_UPPER;
    case TEXT_LOWER: return LETTER_LOWER;
    case TEXT_TITLE: return in_word ? LETTER_LOWER : LETTER_TITLE;
    case TEXT_CAPITALIZE: return start ? LETTER_TITLE : LETTER_LOWER;
    case TEXT_SWAP: return category(c) == UTF8PROC_CATEGORY_LU ? LETTER_LOWER : LETTER_UPPER;
    case TEXT_JINJA_TITLE: return in_word ? LETTER_LOWER : LETTER_UPPER;
    }
    return LETTER_LOWER;
}

/* Python's title() starts a word behind anything uncased; Jinja's filter behind white space, -, (, {, [, <.
 */
static bool word_goes_on(enum text_case to, u32 c) {
    if (to == TEXT_JINJA_TITLE)
        return !text_is_space(c) && c != '-' && c != '(' && c != '{' && c != '[' && c != '<';
    return is_cased(c);
}

enum status text_put_case(struct run *r, struct str s, enum text_case to) {
    bool in_word = false;
    TRY(run_charge(r, s.n));
    for (size_t at = 0; at < s.n;) {
        size_t from = at;
        u32 c = text_next(s, &at);
        enum letter_case letter = letter_case_of(to, c, from == 0, in_word);
        if (c == 0x3a3 && letter == LETTER_LOWER) {
            TRY(run_charge(r, s.n / 64));
            TRY(run_put(r, sigma_is_final(s, from, at) ? STR("\xcf\x82") : STR("\xcf\x83")));
        } else {
            TRY(put_letter(r, c, letter));
        }
        in_word = word_goes_on(to, c);
    }
    return OK;
}

static bool is_alpha(u32 c) {
    utf8proc_category_t g = category(c);
    return g >= UTF8PROC_CATEGORY_LU && g <= UTF8PROC_CATEGORY_LO;
}

static bool is_numeric(u32 c) {
    utf8proc_category_t g = category(c);
    return g == UTF8PROC_CATEGORY_ND || g == UTF8PROC_CATEGORY_NL || g == UTF8PROC_CATEGORY_NO;
}

static bool is_digit(u32 c) {
    return category(c) == UTF8PROC_CATEGORY_ND || c == 0xb2 || c == 0xb3 || c == 0xb9 ||
           (c >= 0x2070 && c <= 0x2089 && is_numeric(c));
}

bool text_is(struct str s, enum text_class k) {
    bool any = false, in_word = false;
    for (size_t at = 0; at < s.n;) {
        u32 c = text_next(s, &at);
        utf8proc_category_t g = category(c);
        bool upper = g == UTF8PROC_CATEGORY_LU || g == UTF8PROC_CATEGORY_LT,
             lower = g == UTF8PROC_CATEGORY_LL;
        bool bad = false;
        switch (k) {
        case TEXT_ALPHA: bad = !is_alpha(c); break;
        case TEXT_DIGIT: bad = !is_digit(c); break;
        case TEXT_ALNUM: bad = !is_alpha(c) && !is_numeric(c); break;
        case TEXT_SPACE: bad = !text_is_space(c); break;
        case TEXT_IS_UPPER: bad = lower || g == UTF8PROC_CATEGORY_LT; break;
        case TEXT_IS_LOWER: bad = upper; break;
        case TEXT_IS_TITLE: bad = (upper && in_word) || (lower && !in_word); break;
        }
        if (bad)
            return false;
        in_word = upper || lower;
        any = any || k < TEXT_IS_UPPER || in_word;
    }
    return any;
}

bool text_is_printable(u32 c) {
    if (c == ' ')
        return true;
    utf8proc_category_t g = category(c);
    return !(g == UTF8PROC_CATEGORY_CC || g == UTF8PROC_CATEGORY_CF || g == UTF8PROC_CATEGORY_CS ||
             g == UTF8PROC_CATEGORY_CO || g == UTF8PROC_CATEGORY_CN || g == UTF8PROC_CATEGORY_ZL ||
             g == UTF8PROC_CATEGORY_ZP || g == UTF8PROC_CATEGORY_ZS);
}
