/* duration.c - keep_alive: seconds as a number, or Go's duration text. */
#include <math.h>

#include "api/api.h"

#define SECOND_NS 1000000000.0

static f64 unit_ns(struct str u) {
    static const struct {
        const char *name;
        f64 ns;
    } units[] = {{"ns", 1},   {"us", 1e3},      {"\xc2\xb5s", 1e3},    {"\xce\xbcs", 1e3},
                 {"ms", 1e6}, {"s", SECOND_NS}, {"m", 60 * SECOND_NS}, {"h", 3600 * SECOND_NS}};
    for (size_t i = 0; i < ARRAY_LEN(units); i++)
        if (str_is(u, units[i].name))
            return units[i].ns;
    return 0;
}

static bool digit(char c) { return c >= '0' && c <= '9'; }

/* Takes "1.5h" off the front of *s. */
static enum status term_take(struct str whole, struct str *s, f64 *ns, struct err *err) {
    f64 value = 0, scale = 1;
    size_t at = 0, n_digits = 0;
    for (; at < s->n && digit(s->p[at]); at++, n_digits++)
        value = value * 10 + (s->p[at] - '0');
    if (at < s->n && s->p[at] == '.')
        for (at++; at < s->n && digit(s->p[at]); at++, n_digits++)
            value += (s->p[at] - '0') * (scale /= 10);
    if (n_digits == 0)
        return err_set(err, ERR_INVALID, "time: invalid duration \"%.*s\"", STR_FMT(whole));
    size_t end = at;
    while (end < s->n && !digit(s->p[end]) && s->p[end] != '.')
        end++;
    struct str unit = str_slice(*s, at, end);
    if (unit.n == 0)
        return err_set(err, ERR_INVALID, "time: missing unit in duration \"%.*s\"", STR_FMT(whole));
    if (unit_ns(unit) == 0)
        return err_set(err, ERR_INVALID, "time: unknown unit \"%.*s\" in duration \"%.*s\"", STR_FMT(unit),
                       STR_FMT(whole));
    *ns += value * unit_ns(unit);
    *s = str_slice(*s, end, s->n);
    return OK;
}

static i64 ns_clamp(f64 ns) {
    return isnan(ns) ? 0 : ns < 0 ? -1 : ns >= (f64)INT64_MAX ? INT64_MAX : (i64)llround(ns);
}

enum status api_keep_alive(struct str text, bool is_number, i64 *ns, struct err *err) {
    f64 value = 0;
    if (is_number) {
        if (!str_to_f64(text, &value))
            return err_set(err, ERR_INVALID, "\"%.*s\" is no number of seconds", STR_FMT(text));
        *ns = ns_clamp(value * SECOND_NS);
        return OK;
    }
    struct str rest = text;
    bool negative = rest.n && rest.p[0] == '-';
    if (rest.n && (rest.p[0] == '-' || rest.p[0] == '+'))
        rest = str_slice(rest, 1, rest.n);
    if (str_is(rest, "0")) {
        *ns = 0;
        return OK;
    }
    if (rest.n == 0)
        return err_set(err, ERR_INVALID, "time: invalid duration \"%.*s\"", STR_FMT(text));
    while (rest.n)
        TRY(term_take(text, &rest, &value, err));
    *ns = ns_clamp(negative ? -value : value);
    return OK;
}
