/* jinja_method.c - methods of strings, dicts and lists; those that would change their object do not exist. */
#include <math.h>

#include "base/limit.h"
#include "chat/jinja.h"
#include "chat/text.h"

/* --- helpers --- */
static enum status need_text(struct jinja_run *j, const struct value *a, struct str *out) {
    if (a->kind != VALUE_STR)
        return run_fail(&j->r, "a string is needed, not '%s'", py_type_name(a));
    *out = a->s.p ? a->s : STR("");
    return OK;
}

static bool given(const struct value *a) { return a->kind != VALUE_UNDEFINED && a->kind != VALUE_NONE; }

enum status jinja_replace(struct jinja_run *j, struct str s, struct str from, struct str to, i64 count,
                          struct value *out) {
    size_t mark = run_mark(&j->r), at = 0;
    TRY(run_charge(&j->r, s.n / 4 + 1));
    while (count != 0) {
        size_t found = str_find(s, from, at);
        if (found == SIZE_MAX)
            break;
        TRY(run_put(&j->r, str_slice(s, at, found)));
        TRY(run_put(&j->r, to));
        at = found + from.n;
        count--;
        if (from.n)
            continue;
        if (at >= s.n) { /* an empty text is found once more at the end */
            at = s.n;
            break;
        }
        size_t next = at;
        text_next(s, &next);
        TRY(run_put(&j->r, str_slice(s, at, next)));
        at = next;
    }
    TRY(run_put(&j->r, str_slice(s, at, s.n)));
    return run_take_value(&j->r, mark, out);
}

/* Blanks go to the sides named; with both, Python puts the odd one left if width is odd. */
enum status jinja_center(struct jinja_run *j, struct str s, i64 width, struct str fill, bool left, bool right,
                         struct value *out) {
    TRY(run_charge(&j->r, s.n / 16));
    i64 pad = width - (i64)text_len(s);
    if (pad <= 0) {
        *out = value_str(s);
        return OK;
    }
    if (pad > LIMIT_TEMPLATE_OUTPUT_BYTES)
        return run_too_large(&j->r, "the template writes too much text");
    i64 before = left && right ? pad / 2 + (pad & width & 1) : left ? pad : 0;
    size_t mark = run_mark(&j->r);
    TRY(run_charge(&j->r, (u64)pad));
    for (i64 i = 0; i < before; i++)
        TRY(run_put(&j->r, fill));
    TRY(run_put(&j->r, s));
    for (i64 i = before; i < pad; i++)
        TRY(run_put(&j->r, fill));
    return run_take_value(&j->r, mark, out);
}

static bool line_end(u32 c) {
    return (c >= 10 && c <= 13) || (c >= 0x1c && c <= 0x1e) || c == 0x85 || c == 0x2028 || c == 0x2029;
}

bool jinja_next_line(struct str s, size_t *at, struct str *line) {
    size_t from = *at;
    if (from >= s.n)
        return false;
    while (*at < s.n) {
        size_t end = *at;
        u32 c = text_next(s, at);
        if (!line_end(c))
            continue;
        *line = str_slice(s, from, end);
        if (c == '\r' && *at < s.n && s.p[*at] == '\n')
            ++*at;
        return true;
    }
    *line = str_slice(s, from, s.n);
    return true;
}

/* --- case, white space, classes --- */
static enum status cased(struct jinja_run *j, const struct value *v, enum text_case to, struct value *out) {
    size_t mark = run_mark(&j->r);
    TRY(text_put_case(&j->r, v->s, to));
    return run_take_value(&j->r, mark, out);
}

#define CASE_METHOD(name, to)                                                                                \
    static enum status method_##name(struct jinja_run *j, const struct value *v,                             \
                                     const struct value *a UNUSED, struct value *out) {                      \
        return cased(j, v, to, out);                                                                         \
    }
CASE_METHOD(upper, TEXT_UPPER)
CASE_METHOD(lower, TEXT_LOWER)
CASE_METHOD(title, TEXT_TITLE)
CASE_METHOD(capitalize, TEXT_CAPITALIZE)
CASE_METHOD(swapcase, TEXT_SWAP)

#define CLASS_METHOD(name, class)                                                                            \
    static enum status method_##name(struct jinja_run *j, const struct value *v,                             \
                                     const struct value *a UNUSED, struct value *out) {                      \
        *out = value_bool(text_is(v->s, class));                                                             \
        return run_charge(&j->r, v->s.n / 4);                                                                \
    }
CLASS_METHOD(isalpha, TEXT_ALPHA)
CLASS_METHOD(isdigit, TEXT_DIGIT)
CLASS_METHOD(isalnum, TEXT_ALNUM)
CLASS_METHOD(isspace, TEXT_SPACE)
CLASS_METHOD(isupper, TEXT_IS_UPPER)
CLASS_METHOD(islower, TEXT_IS_LOWER)
CLASS_METHOD(istitle, TEXT_IS_TITLE)

static enum status strip(struct jinja_run *j, const struct value *v, const struct value *a, bool left,
                         bool right, struct value *out) {
    struct str chars = STR_NONE;
    if (given(a))
        TRY(need_text(j, a, &chars));
    TRY(run_charge(&j->r, v->s.n / 16 * (chars.n + 1)));
    *out = value_str(text_strip(v->s, left, right, chars));
    return OK;
}

static enum status method_strip(struct jinja_run *j, const struct value *v, const struct value *a,
                                struct value *out) {
    return strip(j, v, a, true, true, out);
}

static enum status method_lstrip(struct jinja_run *j, const struct value *v, const struct value *a,
                                 struct value *out) {
    return strip(j, v, a, true, false, out);
}

static enum status method_rstrip(struct jinja_run *j, const struct value *v, const struct value *a,
                                 struct value *out) {
    return strip(j, v, a, false, true, out);
}

/* --- parts --- */
static enum status split_blanks(struct jinja_run *j, struct str s, i64 count, struct value *out) {
    for (;;) {
        s = text_strip(s, true, false, STR_NONE);
        if (!s.n)
            return OK;
        size_t end = 0;
        while (end < s.n && count != 0) {
            size_t next = end;
            if (text_is_space(text_next(s, &next)))
                break;
            end = next;
        }
        end = count == 0 ? s.n : end;
        struct str part = str_slice(s, 0, end);
        TRY(run_append(&j->r, out, value_str(part)));
        s = str_slice(s, end, s.n);
        count--;
    }
}

static void reverse(struct value *list) {
    for (u32 i = 0, k = list->list.n; i + 1 < k; i++) {
        struct value t = list->list.items[i];
        list->list.items[i] = list->list.items[--k];
        list->list.items[k] = t;
    }
}

static enum status rsplit_blanks(struct jinja_run *j, struct str s, i64 count, struct value *out) {
    struct value all = value_list();
    TRY(split_blanks(j, s, -1, &all));
    if (count < 0 || (i64)all.list.n <= count) {
        *out = all;
        return OK;
    }
    u32 first = all.list.n - (u32)count;
    struct str last_left = all.list.items[first - 1].s;
    TRY(run_append(&j->r, out, value_str((struct str){s.p, (size_t)(last_left.p + last_left.n - s.p)})));
    for (u32 i = first; i < all.list.n; i++)
        TRY(run_append(&j->r, out, all.list.items[i]));
    return OK;
}

static size_t find_last(struct str s, struct str what) {
    for (size_t at = s.n >= what.n ? s.n - what.n + 1 : 0; at-- > 0;)
        if (memcmp(s.p + at, what.p, what.n) == 0)
            return at;
    return SIZE_MAX;
}

static enum status split_at(struct jinja_run *j, struct str s, struct str by, i64 count, bool from_right,
                            struct value *out) {
    while (count-- != 0) {
        size_t at = from_right ? find_last(s, by) : str_find(s, by, 0);
        if (at == SIZE_MAX)
            break;
        TRY(run_append(&j->r, out,
                       value_str(from_right ? str_slice(s, at + by.n, s.n) : str_slice(s, 0, at))));
        s = from_right ? str_slice(s, 0, at) : str_slice(s, at + by.n, s.n);
    }
    TRY(run_append(&j->r, out, value_str(s)));
    if (from_right)
        reverse(out);
    return OK;
}

static enum status split(struct jinja_run *j, const struct value *v, const struct value *a, bool from_right,
                         struct value *out) {
    struct str by = STR_NONE;
    i64 count;
    TRY(jinja_int_arg(j, &a[1], -1, &count));
    TRY(run_charge(&j->r, v->s.n / 4));
    *out = value_list();
    if (!given(&a[0]))
        return from_right ? rsplit_blanks(j, v->s, count, out) : split_blanks(j, v->s, count, out);
    TRY(need_text(j, &a[0], &by));
    if (!by.n)
        return run_fail(&j->r, "split: the separator is empty");
    return split_at(j, v->s.p ? v->s : STR(""), by, count, from_right, out);
}

static enum status method_split(struct jinja_run *j, const struct value *v, const struct value *a,
                                struct value *out) {
    return split(j, v, a, false, out);
}

static enum status method_rsplit(struct jinja_run *j, const struct value *v, const struct value *a,
                                 struct value *out) {
    return split(j, v, a, true, out);
}

static enum status method_splitlines(struct jinja_run *j, const struct value *v, const struct value *a,
                                     struct value *out) {
    struct str line;
    size_t at = 0, from = 0;
    *out = value_list();
    TRY(run_charge(&j->r, v->s.n / 4));
    while (jinja_next_line(v->s, &at, &line)) {
        TRY(run_append(&j->r, out, value_str(py_truth(&a[0]) ? str_slice(v->s, from, at) : line)));
        from = at;
    }
    return OK;
}

static enum status partition(struct jinja_run *j, const struct value *v, const struct value *a, bool last,
                             struct value *out) {
    struct str by, s = v->s.p ? v->s : STR("");
    TRY(need_text(j, &a[0], &by));
    if (!by.n)
        return run_fail(&j->r, "partition: the separator is empty");
    TRY(run_charge(&j->r, s.n / 4));
    size_t at = last ? find_last(s, by) : str_find(s, by, 0);
    struct str part[3] = {s, STR(""), STR("")};
    if (at != SIZE_MAX) {
        part[0] = str_slice(s, 0, at);
        part[1] = by;
        part[2] = str_slice(s, at + by.n, s.n);
    } else if (last) {
        part[2] = s;
        part[0] = STR("");
    }
    *out = value_list();
    out->form = FORM_TUPLE;
    for (int i = 0; i < 3; i++)
        TRY(run_append(&j->r, out, value_str(part[i])));
    return OK;
}

static enum status method_partition(struct jinja_run *j, const struct value *v, const struct value *a,
                                    struct value *out) {
    return partition(j, v, a, false, out);
}

static enum status method_rpartition(struct jinja_run *j, const struct value *v, const struct value *a,
                                     struct value *out) {
    return partition(j, v, a, true, out);
}

static enum status method_join(struct jinja_run *j, const struct value *v, const struct value *a,
                               struct value *out) {
    struct value items;
    if (a[0].kind == VALUE_UNDEFINED)
        return run_fail(&j->r, "join needs a list");
    TRY(py_iterate(&j->r, &a[0], &items));
    for (u32 i = 0; i < items.list.n; i++)
        if (items.list.items[i].kind != VALUE_STR)
            return run_fail(&j->r, "join: item %u is no string but '%s'", i,
                            py_type_name(&items.list.items[i]));
    return jinja_join(j, v->s, &items, out);
}

static enum status method_replace(struct jinja_run *j, const struct value *v, const struct value *a,
                                  struct value *out) {
    struct str from, to;
    i64 count;
    TRY(need_text(j, &a[0], &from));
    TRY(need_text(j, &a[1], &to));
    TRY(jinja_int_arg(j, &a[2], -1, &count));
    return jinja_replace(j, v->s.p ? v->s : STR(""), from, to, count, out);
}

/* --- searching --- */
/* The part [a[0], a[1]) of s in code points, as byte range; false if the start is behind the end of s. */
static enum status window(struct jinja_run *j, struct str s, const struct value *a, size_t *from, size_t *to,
                          bool *valid) {
    i64 n = (i64)text_len(s), lo, hi;
    TRY(run_charge(&j->r, s.n / 8 + 1));
    TRY(jinja_int_arg(j, &a[0], 0, &lo));
    TRY(jinja_int_arg(j, &a[1], n, &hi));
    lo = MAX(lo < 0 ? lo + n : lo, 0);
    hi = MIN(MAX(hi < 0 ? hi + n : hi, 0), n);
    *valid = lo <= hi;
    *from = text_offset(s, (size_t)MIN(lo, n));
    *to = MAX(*from, text_offset(s, (size_t)hi));
    return OK;
}

static enum status find(struct jinja_run *j, const struct value *v, const struct value *a, bool last,
                        bool must, struct value *out) {
    struct str what, s = v->s.p ? v->s : STR("");
    size_t from, to, at;
    bool valid;
    TRY(need_text(j, &a[0], &what));
    TRY(window(j, s, &a[1], &from, &to, &valid));
    struct str part = str_slice(s, from, to);
    at = !valid ? SIZE_MAX : last ? find_last(part, what) : str_find(part, what, 0);
    if (at == SIZE_MAX && must)
        return run_fail(&j->r, "the text was not found");
    *out = value_int(at == SIZE_MAX ? -1 : (i64)text_len(str_slice(s, 0, from + at)));
    return OK;
}

static enum status method_find(struct jinja_run *j, const struct value *v, const struct value *a,
                               struct value *out) {
    return find(j, v, a, false, false, out);
}

static enum status method_rfind(struct jinja_run *j, const struct value *v, const struct value *a,
                                struct value *out) {
    return find(j, v, a, true, false, out);
}

static enum status method_index(struct jinja_run *j, const struct value *v, const struct value *a,
                                struct value *out) {
    return find(j, v, a, false, true, out);
}

static enum status method_rindex(struct jinja_run *j, const struct value *v, const struct value *a,
                                 struct value *out) {
    return find(j, v, a, true, true, out);
}

static enum status method_count(struct jinja_run *j, const struct value *v, const struct value *a,
                                struct value *out) {
    struct str what;
    size_t from, to;
    bool valid;
    i64 n = 0;
    TRY(need_text(j, &a[0], &what));
    TRY(window(j, v->s, &a[1], &from, &to, &valid));
    struct str part = str_slice(v->s, from, to);
    if (!what.n)
        n = valid ? (i64)text_len(part) + 1 : 0;
    else
        for (size_t at = str_find(part, what, 0); at != SIZE_MAX; at = str_find(part, what, at + what.n))
            n++;
    *out = value_int(n);
    return OK;
}

static enum status affix(struct jinja_run *j, const struct value *v, const struct value *a, bool end,
                         struct value *out) {
    struct value one = value_list(), *all = &one;
    size_t from, to;
    bool valid, is = false;
    TRY(window(j, v->s, &a[1], &from, &to, &valid));
    TRY(run_append(&j->r, &one, a[0]));
    if (a[0].kind == VALUE_LIST && a[0].form == FORM_TUPLE)
        one = a[0];
    for (u32 i = 0; i < all->list.n && !is; i++) {
        struct str what, part = str_slice(v->s, from, to);
        TRY(need_text(j, &all->list.items[i], &what));
        is = valid && (end ? str_ends(part, what) : str_starts(part, what));
    }
    *out = value_bool(is);
    return OK;
}

static enum status method_startswith(struct jinja_run *j, const struct value *v, const struct value *a,
                                     struct value *out) {
    return affix(j, v, a, false, out);
}

static enum status method_endswith(struct jinja_run *j, const struct value *v, const struct value *a,
                                   struct value *out) {
    return affix(j, v, a, true, out);
}

static enum status method_removeprefix(struct jinja_run *j, const struct value *v, const struct value *a,
                                       struct value *out) {
    struct str what;
    TRY(need_text(j, &a[0], &what));
    *out = value_str(str_starts(v->s, what) ? str_slice(v->s, what.n, v->s.n) : v->s);
    return OK;
}

static enum status method_removesuffix(struct jinja_run *j, const struct value *v, const struct value *a,
                                       struct value *out) {
    struct str what;
    TRY(need_text(j, &a[0], &what));
    *out = value_str(str_ends(v->s, what) ? str_slice(v->s, 0, v->s.n - what.n) : v->s);
    return OK;
}

/* --- widths --- */
static enum status pad(struct jinja_run *j, const struct value *v, const struct value *a, bool left,
                       bool right, struct value *out) {
    struct str fill = STR(" ");
    i64 width;
    TRY(jinja_int_arg(j, &a[0], 0, &width));
    if (given(&a[1]))
        TRY(need_text(j, &a[1], &fill));
    return jinja_center(j, v->s, width, fill, left, right, out);
}

static enum status method_center(struct jinja_run *j, const struct value *v, const struct value *a,
                                 struct value *out) {
    return pad(j, v, a, true, true, out);
}

static enum status method_ljust(struct jinja_run *j, const struct value *v, const struct value *a,
                                struct value *out) {
    return pad(j, v, a, false, true, out);
}

static enum status method_rjust(struct jinja_run *j, const struct value *v, const struct value *a,
                                struct value *out) {
    return pad(j, v, a, true, false, out);
}

static enum status method_zfill(struct jinja_run *j, const struct value *v, const struct value *a,
                                struct value *out) {
    i64 width;
    bool sign = v->s.n && (v->s.p[0] == '-' || v->s.p[0] == '+');
    struct value digits;
    TRY(jinja_int_arg(j, &a[0], 0, &width));
    TRY(jinja_center(j, str_slice(v->s, sign, v->s.n), width - sign, STR("0"), true, false, &digits));
    size_t mark = run_mark(&j->r);
    TRY(run_put(&j->r, str_slice(v->s, 0, sign)));
    TRY(run_put(&j->r, digits.s));
    return run_take_value(&j->r, mark, out);
}

static enum status method_format(struct jinja_run *j, const struct value *v, const struct call_args *args,
                                 struct value *out) {
    struct value pos = value_list(), kw;
    TRY(run_object(&j->r, &kw));
    for (u32 i = 0; i < args->n; i++)
        TRY(run_append(&j->r, &pos, args->pos[i]));
    for (u32 i = 0; i < args->n_kw; i++)
        TRY(run_set(&j->r, &kw, value_str(args->kw[i].name), args->kw[i].v));
    return py_format(&j->r, v->s, &pos, &kw, out);
}

const struct jinja_method jinja_text_methods[] = {
    {"strip", "chars", method_strip, NULL},
    {"lstrip", "chars", method_lstrip, NULL},
    {"rstrip", "chars", method_rstrip, NULL},
    {"split", "sep,maxsplit", method_split, NULL},
    {"rsplit", "sep,maxsplit", method_rsplit, NULL},
    {"startswith", "prefix,start,end", method_startswith, NULL},
    {"endswith", "suffix,start,end", method_endswith, NULL},
    {"replace", "old,new,count", method_replace, NULL},
    {"join", "iterable", method_join, NULL},
    {"upper", "", method_upper, NULL},
    {"lower", "", method_lower, NULL},
    {"casefold", "", method_lower, NULL},
    {"title", "", method_title, NULL},
    {"capitalize", "", method_capitalize, NULL},
    {"swapcase", "", method_swapcase, NULL},
    {"find", "sub,start,end", method_find, NULL},
    {"rfind", "sub,start,end", method_rfind, NULL},
    {"index", "sub,start,end", method_index, NULL},
    {"rindex", "sub,start,end", method_rindex, NULL},
    {"count", "sub,start,end", method_count, NULL},
    {"format", NULL, NULL, method_format},
    {"splitlines", "keepends", method_splitlines, NULL},
    {"partition", "sep", method_partition, NULL},
    {"rpartition", "sep", method_rpartition, NULL},
    {"removeprefix", "prefix", method_removeprefix, NULL},
    {"removesuffix", "suffix", method_removesuffix, NULL},
    {"isalpha", "", method_isalpha, NULL},
    {"isdigit", "", method_isdigit, NULL},
    {"isalnum", "", method_isalnum, NULL},
    {"isspace", "", method_isspace, NULL},
    {"isupper", "", method_isupper, NULL},
    {"islower", "", method_islower, NULL},
    {"istitle", "", method_istitle, NULL},
    {"center", "width,fillchar", method_center, NULL},
    {"ljust", "width,fillchar", method_ljust, NULL},
    {"rjust", "width,fillchar", method_rjust, NULL},
    {"zfill", "width", method_zfill, NULL},
    {NULL, NULL, NULL, NULL},
};
