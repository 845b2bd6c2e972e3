/* py_arith.c - Python's arithmetic on values. Integers are 64 bits: beyond that the template fails. */
#include <math.h>

#include "base/limit.h"
#include "chat/py.h"

static struct value of_f64(f64 f) { return (struct value){.kind = VALUE_FLOAT, .f = f}; }

static enum status int_power(struct run *r, i64 base, i64 exponent, struct value *out) {
    if (exponent < 0) {
        if (base == 0)
            return run_fail(r, "zero cannot be raised to a negative power");
        *out = of_f64(pow((f64)base, (f64)exponent));
        return OK;
    }
    i64 result = 1;
    bool over = false;
    while (exponent && !over) {
        if (exponent & 1)
            over = __builtin_mul_overflow(result, base, &result);
        exponent >>= 1;
        if (exponent && !over)
            over = __builtin_mul_overflow(base, base, &base);
    }
    if (over)
        return run_fail(r, "integer beyond 64 bits");
    *out = value_int(result);
    return OK;
}

static enum status int_binary(struct run *r, enum py_op op, i64 a, i64 b, struct value *out) {
    i64 v = 0;
    bool over = false;
    if (b == 0 && (op == PY_DIV || op == PY_FLOORDIV || op == PY_MOD))
        return run_fail(r, "division by zero");
    switch (op) {
    case PY_ADD: over = __builtin_add_overflow(a, b, &v); break;
    case PY_SUB: over = __builtin_sub_overflow(a, b, &v); break;
    case PY_MUL: over = __builtin_mul_overflow(a, b, &v); break;
    case PY_DIV: *out = of_f64((f64)a / (f64)b); return OK;
    case PY_FLOORDIV:
        over = a == INT64_MIN && b == -1;
        v = over ? 0 : a / b - (a % b != 0 && (a < 0) != (b < 0));
        break;
    case PY_MOD:
        v = b == -1 ? 0 : a % b;
        v += v != 0 && (v < 0) != (b < 0) ? b : 0;
        break;
    case PY_POW: return int_power(r, a, b, out);
    }
    if (over)
        return run_fail(r, "integer beyond 64 bits");
    *out = value_int(v);
    return OK;
}

/* The remainder has the divisor's sign; the quotient is the floor of the exact one. */
static f64 float_mod(f64 a, f64 b) {
    f64 m = fmod(a, b);
    if (m != 0 && (m < 0) != (b < 0))
        return m + b;
    return m == 0 ? copysign(0.0, b) : m;
}

static f64 float_floordiv(f64 a, f64 b) {
    f64 m = fmod(a, b), q = (a - m) / b;
    if (m != 0 && (m < 0) != (b < 0))
        q -= 1;
    if (q == 0)
        return copysign(0.0, a / b);
    f64 whole = floor(q);
    return q - whole > 0.5 ? whole + 1 : whole;
}

static enum status float_binary(struct run *r, enum py_op op, f64 a, f64 b, struct value *out) {
    if (b == 0 && (op == PY_DIV || op == PY_FLOORDIV || op == PY_MOD))
        return run_fail(r, "division by zero");
    if (op == PY_POW && ((a < 0 && b != floor(b)) || (a == 0 && b < 0)))
        return run_fail(r, "this power has no real value");
    switch (op) {
    case PY_ADD: *out = of_f64(a + b); break;
    case PY_SUB: *out = of_f64(a - b); break;
    case PY_MUL: *out = of_f64(a * b); break;
    case PY_DIV: *out = of_f64(a / b); break;
    case PY_FLOORDIV: *out = of_f64(float_floordiv(a, b)); break;
    case PY_MOD: *out = of_f64(float_mod(a, b)); break;
    case PY_POW: *out = of_f64(pow(a, b)); break;
    }
    if (op == PY_POW && isinf(out->f) && !isinf(a) && !isinf(b))
        return run_fail(r, "result too large");
    return OK;
}

/* Strings join; with a Markup on one side the other is escaped first. */
static enum status join_text(struct run *r, const struct value *a, const struct value *b, struct value *out) {
    size_t mark = run_mark(r);
    bool markup = a->form == FORM_MARKUP || b->form == FORM_MARKUP;
    const struct value *part[2] = {a, b};
    for (int i = 0; i < 2; i++)
        TRY(markup && part[i]->form != FORM_MARKUP ? py_put_escaped(r, part[i]->s) : run_put(r, part[i]->s));
    TRY(run_take_value(r, mark, out));
    out->form = markup ? FORM_MARKUP : FORM_PLAIN;
    return OK;
}

static enum status join_lists(struct run *r, const struct value *a, const struct value *b,
                              struct value *out) {
    *out = value_list();
    out->form = a->form;
    u64 n = (u64)a->list.n + b->list.n;
    TRY(run_charge(r, n));
    if (n > UINT32_MAX / 2)
        return run_too_large(r, "the list is too long");
    TRY(run_alloc(r, n * sizeof *out, &out->list.items));
    if (a->list.n)
        memcpy(out->list.items, a->list.items, a->list.n * sizeof *out);
    if (b->list.n)
        memcpy(out->list.items + a->list.n, b->list.items, b->list.n * sizeof *out);
    out->list.n = out->list.cap = (u32)n;
    return OK;
}

static enum status repeat(struct run *r, const struct value *v, i64 times, struct value *out) {
    u64 n = times > 0 ? (u64)times : 0;
    u64 size = v->kind == VALUE_STR ? v->s.n : (u64)v->list.n * sizeof *v;
    if (size && n > LIMIT_TEMPLATE_MEMORY_BYTES / size)
        return run_too_large(r, "the template takes too much memory");
    n = size ? n : 0;
    TRY(run_charge(r, n * size / 16));
    u8 *p;
    TRY(run_alloc(r, n * size, &p));
    for (u64 i = 0; i < n; i++)
        memcpy(p + i * size, v->kind == VALUE_STR ? (const void *)v->s.p : v->list.items, size);
    if (v->kind == VALUE_STR) {
        *out = value_str((struct str){(const char *)p, n * size});
        out->form = v->form;
        return OK;
    }
    *out = value_list();
    out->form = v->form;
    out->list.items = (struct value *)(void *)p;
    out->list.n = out->list.cap = (u32)(n * v->list.n);
    return OK;
}

static bool repeatable(const struct value *v) {
    return v->kind == VALUE_STR || (v->kind == VALUE_LIST && v->form <= FORM_TUPLE);
}

enum status py_binary(struct run *r, enum py_op op, const struct value *a, const struct value *b,
                      struct value *out) {
    static const char *const signs[] = {"+", "-", "*", "/", "//", "%", "**"};
    i64 x, y;
    if (py_to_index(a, &x) && py_to_index(b, &y))
        return int_binary(r, op, x, y, out);
    if (py_is_number(a) && py_is_number(b))
        return float_binary(r, op, py_to_f64(a), py_to_f64(b), out);
    if (op == PY_ADD && a->kind == VALUE_STR && b->kind == VALUE_STR)
        return join_text(r, a, b, out);
    if (op == PY_ADD && repeatable(a) && repeatable(b) && a->kind == b->kind && a->form == b->form)
        return join_lists(r, a, b, out);
    if (op == PY_MUL && repeatable(a) && py_to_index(b, &y))
        return repeat(r, a, y, out);
    if (op == PY_MUL && repeatable(b) && py_to_index(a, &x))
        return repeat(r, b, x, out);
    if (op == PY_MOD && a->kind == VALUE_STR)
        return py_percent(r, a->s, b, out);
    if (a->kind == VALUE_UNDEFINED || b->kind == VALUE_UNDEFINED) {
        struct str name = a->kind == VALUE_UNDEFINED ? a->s : b->s;
        return run_fail(r, "'%.*s' is undefined", STR_FMT(name));
    }
    return run_fail(r, "'%s' does not work on values of the kinds '%s' and '%s'", signs[op], py_type_name(a),
                    py_type_name(b));
}

enum status py_negate(struct run *r, const struct value *v, struct value *out) {
    i64 i;
    if (v->kind == VALUE_FLOAT) {
        *out = of_f64(-v->f);
        return OK;
    }
    if (!py_to_index(v, &i))
        return run_fail(r, "a value of the kind '%s' has no negative", py_type_name(v));
    return int_binary(r, PY_SUB, 0, i, out);
}
