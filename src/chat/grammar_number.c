/* grammar_number.c - numbers between bounds, digit by digit: while the digits so far are those of a bound,
 * the next one must not cross it; once they differ, any digit will do. Exponents are left out where a bound
 * or a divisor is given. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "chat/grammar_schema.h"

/* A divisor up to here: its remainders multiply the nodes. */
#define DIVISOR_MAX 4096u

struct decimal decimal_of(const struct value *v) {
    struct decimal d = {0};
    char text[64];
    if (v->kind == VALUE_INT) {
        snprintf(text, sizeof text, "%lld", (long long)v->i);
    } else {
        /* The fewest digits that read back the same are the ones that were written. */
        for (int precision = 1; precision <= 17; precision++) {
            snprintf(text, sizeof text, "%.*e", precision - 1, v->f);
            if (strtod(text, NULL) == v->f)
                break;
        }
    }
    bool behind_point = false;
    const char *p = text;
    d.negative = *p == '-';
    for (p += d.negative; *p && *p != 'e'; p++) {
        if (*p == '.') {
            behind_point = true;
            continue;
        }
        if (d.n == 0 && *p == '0') {
            d.point -= behind_point;
            continue;
        }
        if (d.n < sizeof d.digits)
            d.digits[d.n++] = (u8)(*p - '0');
        d.point += !behind_point;
    }
    if (*p == 'e')
        d.point += (i32)strtol(p + 1, NULL, 10);
    while (d.n && d.digits[d.n - 1] == 0)
        d.n--;
    if (d.n == 0)
        d = (struct decimal){0};
    return d;
}

static int magnitude_compare(const struct decimal *x, const struct decimal *y) {
    if (x->n == 0 || y->n == 0)
        return (x->n > 0) - (y->n > 0);
    if (x->point != y->point)
        return x->point > y->point ? 1 : -1;
    for (u32 i = 0; i < MAX(x->n, y->n); i++) {
        int a = i < x->n ? x->digits[i] : 0, b = i < y->n ? y->digits[i] : 0;
        if (a != b)
            return a > b ? 1 : -1;
    }
    return 0;
}

int decimal_compare(const struct decimal *x, const struct decimal *y) {
    if (x->negative != y->negative)
        return x->negative ? -1 : 1;
    int order = magnitude_compare(x, y);
    return x->negative ? -order : order;
}

/* The digit worth 10^exponent. */
static u32 digit_at(const struct decimal *d, i32 exponent) {
    i64 i = (i64)d->point - 1 - exponent;
    return i >= 0 && i < (i64)d->n ? d->digits[i] : 0;
}

/* Is there a digit other than 0 worth less than 10^exponent? */
static bool rest_below(const struct decimal *d, i32 exponent) {
    return d->n > 0 && (i64)d->point - (i64)d->n < exponent;
}

/* The divisor as an integer times 10^-places; false if it is too large for us. */
static bool divisor_of(const struct decimal *d, u32 *divisor, u32 *places) {
    u64 v = 0;
    for (u32 i = 0; i < d->n && v <= DIVISOR_MAX; i++)
        v = v * 10 + d->digits[i];
    i32 zeros = d->point - (i32)d->n;
    for (i32 i = 0; i < zeros && v <= DIVISOR_MAX; i++)
        v *= 10;
    *divisor = (u32)MIN(v, DIVISOR_MAX + 1);
    *places = zeros < 0 ? (u32)-zeros : 0;
    return v <= DIVISOR_MAX && *places <= LIMIT_NUMBER_DIGITS;
}

/* --- is a given number allowed? --- */

static bool is_multiple(const struct decimal *d, const struct decimal *of) {
    u32 divisor, places, rest = 0;
    if (!divisor_of(of, &divisor, &places) || d->n == 0)
        return d->n == 0;
    if (rest_below(d, -(i32)places))
        return false;
    for (i32 e = MIN(d->point, 400) - 1; e >= -(i32)places; e--)
        rest = (rest * 10 + digit_at(d, e)) % divisor;
    return rest == 0;
}

bool number_satisfies(const struct merged *m, const struct value *v) {
    if (v->kind == VALUE_FLOAT && !isfinite(v->f))
        return false;
    struct decimal d = decimal_of(v);
    if (m->lo.set) {
        int order = decimal_compare(&d, &m->lo.at);
        if (order < 0 || (order == 0 && m->lo.exclusive))
            return false;
    }
    if (m->hi.set) {
        int order = decimal_compare(&d, &m->hi.at);
        if (order > 0 || (order == 0 && m->hi.exclusive))
            return false;
    }
    return m->multiple.n == 0 || is_multiple(&d, &m->multiple);
}

/* --- digits as nodes --- */

/* How the digits so far compare to the lower and to the upper bound of the magnitude. */
enum { SAME_LO = 1, SAME_HI = 2 };

struct digits {
    struct build *b;
    u32 to;
    struct bound lo, hi;        /* of the magnitude */
    u32 digits_max, places_max; /* in front of the point, behind it */
    u32 divisor, places;        /* divisor * 10^-places divides the number; 1, 0: any */
    u32 *memo;                  /* [digits_max + places_max + 1][4][divisor] node + 1 */
};

/* May the number end before the digit worth 10^exponent? */
static bool may_end(const struct digits *d, i32 exponent, u32 same, u32 rest) {
    for (i32 e = exponent; e >= -(i32)d->places && d->places; e--)
        rest = rest * 10 % d->divisor;
    if (d->divisor > 1 && rest)
        return false;
    if (same & SAME_LO && (rest_below(&d->lo.at, exponent + 1) || d->lo.exclusive))
        return false;
    return !(same & SAME_HI && d->hi.exclusive && !rest_below(&d->hi.at, exponent + 1));
}

static u32 digits_from(struct digits *d, i32 exponent, u32 same, u32 rest);

/* Edges of node for the digit worth 10^exponent, from `least` on. */
static void digit_edges(struct digits *d, u32 node, i32 exponent, u32 same, u32 rest, u32 least) {
    u32 lo = same & SAME_LO ? digit_at(&d->lo.at, exponent) : 0;
    u32 hi = same & SAME_HI ? digit_at(&d->hi.at, exponent) : 9;
    for (u32 c = MAX(lo, least); c <= hi && !d->b->full; c++) {
        u32 still = (c == lo ? same & SAME_LO : 0u) | (c == hi ? same & SAME_HI : 0u);
        u32 next = digits_from(d, exponent - 1, still, (rest * 10 + c) % d->divisor);
        build_edge(d->b, node, (u8)('0' + c), (u8)('0' + c), next);
    }
}

/* What may follow in front of the digit worth 10^exponent (>= 0: it must come). */
static u32 digits_from(struct digits *d, i32 exponent, u32 same, u32 rest) {
    struct build *b = d->b;
    u32 row = (u32)((i32)d->places_max + exponent + 1);
    u32 *memo = &d->memo[(row * 4 + same) * d->divisor + rest];
    if (*memo)
        return *memo - 1;
    u32 node;
    if (exponent >= 0) {
        node = build_node(b, NODE_BYTES);
        digit_edges(d, node, exponent, same, rest, 0);
    } else {
        node = build_node(b, NODE_SPLIT);
        if (may_end(d, exponent, same, rest))
            build_empty(b, node, d->to);
        if ((u32)-exponent <= d->places_max) {
            u32 more = build_node(b, NODE_BYTES);
            digit_edges(d, more, exponent, same, rest, 0);
            build_empty(b, node, exponent == -1 ? build_byte(b, '.', '.', more) : more);
        }
    }
    *memo = node + 1;
    return node;
}

/* Numbers of least..most digits in front of the point, none of which a bound touches. */
static u32 free_lengths(struct digits *d, u32 least, u32 most) {
    struct build *b = d->b;
    u32 tail = digits_from(d, -1, 0, 0), next = tail;
    for (u32 n = most - 1; n >= 1; n--) {
        next = build_byte(b, '0', '9', next);
        if (n >= least)
            next = build_either(b, next, tail);
    }
    u32 first = build_byte(b, '1', '9', next);
    if (least == 1)
        build_edge(b, first, '0', '0', tail);
    return first;
}

/* Adds all spellings of the magnitudes between the bounds to the SPLIT. */
static void emit_magnitudes(struct digits *d, u32 split) {
    size_t n = (size_t)(d->digits_max + d->places_max + 2) * 4 * d->divisor;
    d->memo = xcalloc(n, sizeof *d->memo);
    i32 most = (i32)d->digits_max;
    i32 lo_digits = d->lo.set && d->lo.at.n ? MAX(d->lo.at.point, 1) : 1;
    i32 hi_digits = !d->hi.set ? most + 1 : d->hi.at.n ? MAX(d->hi.at.point, 1) : 1;
    i32 free_least = lo_digits + d->lo.set, free_most = MIN(hi_digits - 1, most);
    bool has_free = d->divisor == 1 && free_least <= free_most;
    if (has_free)
        build_empty(d->b, split, free_lengths(d, (u32)free_least, (u32)free_most));
    for (i32 n_digits = lo_digits; n_digits <= MIN(hi_digits, most); n_digits++) {
        if (has_free && n_digits >= free_least && n_digits <= free_most)
            continue;
        u32 same =
            (d->lo.set && n_digits == lo_digits ? SAME_LO : 0u) | (n_digits == hi_digits ? SAME_HI : 0u);
        u32 node = build_node(d->b, NODE_BYTES);
        digit_edges(d, node, n_digits - 1, same, 0, n_digits > 1);
        build_empty(d->b, split, node);
    }
    free(d->memo);
}

static struct bound magnitude(struct bound b) {
    b.at.negative = false;
    return b;
}

enum status emit_number(struct schema *c, const struct merged *m, bool integer, u32 to, u32 *start,
                        struct err *err) {
    struct build *b = c->b;
    struct bound above_zero = {.set = true, .exclusive = true};
    struct digits d = {.b = b, .to = to, .divisor = 1};
    if (!integer && !m->lo.set && !m->hi.set && m->multiple.n == 0) {
        *start = build_any_number(b, to);
        return OK;
    }
    if (m->multiple.n && !divisor_of(&m->multiple, &d.divisor, &d.places))
        return err_set(err, ERR_INVALID,
                       "schema keyword at %.*s is not supported: the number has too many digits (%u at most)",
                       STR_FMT(m->multiple_path), DIVISOR_MAX);
    d.digits_max = integer || m->multiple.n ? LIMIT_INTEGER_DIGITS : LIMIT_NUMBER_DIGITS;
    d.places_max = integer ? 0 : m->multiple.n ? d.places : LIMIT_NUMBER_DIGITS;
    if (integer && d.places)
        d.places_max = 0;
    *start = build_node(b, NODE_SPLIT);
    if (!m->hi.set || !m->hi.at.negative) {
        if (m->lo.set && !m->lo.at.negative)
            d.lo = m->lo;
        d.hi = m->hi;
        emit_magnitudes(&d, *start);
    }
    if (!m->lo.set || m->lo.at.negative) {
        /* -0 is 0 and has been written without its sign. */
        d.lo = m->hi.set && m->hi.at.negative ? magnitude(m->hi) : above_zero;
        d.hi = magnitude(m->lo);
        u32 negative = build_node(b, NODE_SPLIT);
        emit_magnitudes(&d, negative);
        build_empty(b, *start, build_byte(b, '-', '-', negative));
    }
    return OK;
}
