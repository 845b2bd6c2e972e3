/* jinja_test.c - the tests behind `is`. */
#include "chat/jinja.h"
#include "chat/text.h"

typedef enum status test_fn(struct jinja_run *j, const struct value *v, const struct value *a, bool *out);

static enum status test_defined(struct jinja_run *j UNUSED, const struct value *v,
                                const struct value *a UNUSED, bool *out) {
    *out = v->kind != VALUE_UNDEFINED;
    return OK;
}

static enum status test_undefined(struct jinja_run *j UNUSED, const struct value *v,
                                  const struct value *a UNUSED, bool *out) {
    *out = v->kind == VALUE_UNDEFINED;
    return OK;
}

static enum status test_none(struct jinja_run *j UNUSED, const struct value *v, const struct value *a UNUSED,
                             bool *out) {
    *out = v->kind == VALUE_NONE;
    return OK;
}

static enum status test_string(struct jinja_run *j UNUSED, const struct value *v,
                               const struct value *a UNUSED, bool *out) {
    *out = v->kind == VALUE_STR;
    return OK;
}

static enum status test_mapping(struct jinja_run *j UNUSED, const struct value *v,
                                const struct value *a UNUSED, bool *out) {
    *out = v->kind == VALUE_OBJECT && v->form != FORM_NAMESPACE;
    return OK;
}

static enum status test_iterable(struct jinja_run *j UNUSED, const struct value *v,
                                 const struct value *a UNUSED, bool *out) {
    *out = v->kind == VALUE_STR || v->kind == VALUE_LIST || v->kind == VALUE_UNDEFINED ||
           (v->kind == VALUE_OBJECT && v->form != FORM_NAMESPACE);
    return OK;
}

static enum status test_sequence(struct jinja_run *j UNUSED, const struct value *v,
                                 const struct value *a UNUSED, bool *out) {
    *out = v->kind == VALUE_STR || v->kind == VALUE_UNDEFINED ||
           (v->kind == VALUE_LIST && v->form <= FORM_RANGE) ||
           (v->kind == VALUE_OBJECT && v->form != FORM_NAMESPACE);
    return OK;
}

static enum status test_number(struct jinja_run *j UNUSED, const struct value *v,
                               const struct value *a UNUSED, bool *out) {
    *out = py_is_number(v);
    return OK;
}

static enum status test_integer(struct jinja_run *j UNUSED, const struct value *v,
                                const struct value *a UNUSED, bool *out) {
    *out = v->kind == VALUE_INT;
    return OK;
}

static enum status test_float(struct jinja_run *j UNUSED, const struct value *v, const struct value *a UNUSED,
                              bool *out) {
    *out = v->kind == VALUE_FLOAT;
    return OK;
}

static enum status test_boolean(struct jinja_run *j UNUSED, const struct value *v,
                                const struct value *a UNUSED, bool *out) {
    *out = v->kind == VALUE_BOOL;
    return OK;
}

static enum status test_true(struct jinja_run *j UNUSED, const struct value *v, const struct value *a UNUSED,
                             bool *out) {
    *out = v->kind == VALUE_BOOL && v->b;
    return OK;
}

static enum status test_false(struct jinja_run *j UNUSED, const struct value *v, const struct value *a UNUSED,
                              bool *out) {
    *out = v->kind == VALUE_BOOL && !v->b;
    return OK;
}

static enum status test_callable(struct jinja_run *j UNUSED, const struct value *v,
                                 const struct value *a UNUSED, bool *out) {
    const struct callable *c = v->kind == VALUE_CALLABLE ? v->callable : NULL;
    *out = v->kind == VALUE_UNDEFINED ||
           (c && c->kind != CALL_CYCLER_OBJECT); /* Undefined has a __call__, too */
    return OK;
}

static enum status test_escaped(struct jinja_run *j UNUSED, const struct value *v,
                                const struct value *a UNUSED, bool *out) {
    *out = v->kind == VALUE_STR && v->form == FORM_MARKUP;
    return OK;
}

static enum status test_lower(struct jinja_run *j, const struct value *v, const struct value *a UNUSED,
                              bool *out) {
    struct str s;
    TRY(py_text(&j->r, v, &s));
    TRY(run_charge(&j->r, s.n / 4));
    *out = text_is(s, TEXT_IS_LOWER);
    return OK;
}

static enum status test_upper(struct jinja_run *j, const struct value *v, const struct value *a UNUSED,
                              bool *out) {
    struct str s;
    TRY(py_text(&j->r, v, &s));
    TRY(run_charge(&j->r, s.n / 4));
    *out = text_is(s, TEXT_IS_UPPER);
    return OK;
}

static enum status modulo_is(struct jinja_run *j, const struct value *v, const struct value *divisor,
                             i64 remainder, bool *out) {
    struct value rest, want = value_int(remainder);
    TRY(py_binary(&j->r, PY_MOD, v, divisor, &rest));
    return py_equal(&j->r, &rest, &want, out);
}

static enum status test_divisibleby(struct jinja_run *j, const struct value *v, const struct value *a,
                                    bool *out) {
    return modulo_is(j, v, a, 0, out);
}

static enum status test_even(struct jinja_run *j, const struct value *v, const struct value *a UNUSED,
                             bool *out) {
    struct value two = value_int(2);
    return modulo_is(j, v, &two, 0, out);
}

static enum status test_odd(struct jinja_run *j, const struct value *v, const struct value *a UNUSED,
                            bool *out) {
    struct value two = value_int(2);
    return modulo_is(j, v, &two, 1, out);
}

static enum status test_eq(struct jinja_run *j, const struct value *v, const struct value *a, bool *out) {
    return py_equal(&j->r, v, a, out);
}

static enum status test_ne(struct jinja_run *j, const struct value *v, const struct value *a, bool *out) {
    TRY(py_equal(&j->r, v, a, out));
    *out = !*out;
    return OK;
}

static enum status test_lt(struct jinja_run *j, const struct value *v, const struct value *a, bool *out) {
    int c;
    TRY(py_compare(&j->r, v, a, &c));
    *out = c == -1;
    return OK;
}

static enum status test_le(struct jinja_run *j, const struct value *v, const struct value *a, bool *out) {
    int c;
    TRY(py_compare(&j->r, v, a, &c));
    *out = c <= 0;
    return OK;
}

static enum status test_gt(struct jinja_run *j, const struct value *v, const struct value *a, bool *out) {
    int c;
    TRY(py_compare(&j->r, v, a, &c));
    *out = c == 1;
    return OK;
}

static enum status test_ge(struct jinja_run *j, const struct value *v, const struct value *a, bool *out) {
    int c;
    TRY(py_compare(&j->r, v, a, &c));
    *out = c == 0 || c == 1;
    return OK;
}

static enum status test_in(struct jinja_run *j, const struct value *v, const struct value *a, bool *out) {
    return py_contains(&j->r, a, v, out);
}

/* Identity: of scalars their equality with the kind, of the rest the same memory. */
static enum status test_sameas(struct jinja_run *j, const struct value *v, const struct value *a, bool *out) {
    *out = false;
    if (v->kind != a->kind)
        return OK;
    if (v->kind == VALUE_LIST)
        *out = v->list.items == a->list.items && v->list.n == a->list.n;
    else if (v->kind == VALUE_OBJECT)
        *out = v->object == a->object;
    else
        return py_equal(&j->r, v, a, out);
    return OK;
}

static enum status test_filter(struct jinja_run *j UNUSED, const struct value *v,
                               const struct value *a UNUSED, bool *out) {
    *out = v->kind == VALUE_STR &&
           (jinja_find(jinja_text_filters, v->s) || jinja_find(jinja_list_filters, v->s));
    return OK;
}

static enum status test_test(struct jinja_run *j, const struct value *v, const struct value *a, bool *out);

static const struct test {
    const char *name;
    test_fn *fn;
    u32 n_args;
} tests[] = {
    {"defined", test_defined, 0},
    {"undefined", test_undefined, 0},
    {"none", test_none, 0},
    {"string", test_string, 0},
    {"mapping", test_mapping, 0},
    {"iterable", test_iterable, 0},
    {"sequence", test_sequence, 0},
    {"number", test_number, 0},
    {"integer", test_integer, 0},
    {"float", test_float, 0},
    {"boolean", test_boolean, 0},
    {"true", test_true, 0},
    {"false", test_false, 0},
    {"callable", test_callable, 0},
    {"escaped", test_escaped, 0},
    {"lower", test_lower, 0},
    {"upper", test_upper, 0},
    {"even", test_even, 0},
    {"odd", test_odd, 0},
    {"divisibleby", test_divisibleby, 1},
    {"equalto", test_eq, 1},
    {"eq", test_eq, 1},
    {"==", test_eq, 1},
    {"ne", test_ne, 1},
    {"!=", test_ne, 1},
    {"lt", test_lt, 1},
    {"lessthan", test_lt, 1},
    {"<", test_lt, 1},
    {"le", test_le, 1},
    {"<=", test_le, 1},
    {"gt", test_gt, 1},
    {"greaterthan", test_gt, 1},
    {">", test_gt, 1},
    {"ge", test_ge, 1},
    {">=", test_ge, 1},
    {"in", test_in, 1},
    {"sameas", test_sameas, 1},
    {"filter", test_filter, 0},
    {"test", test_test, 0},
};

static const struct test *find_test(struct str name) {
    for (size_t i = 0; i < ARRAY_LEN(tests); i++)
        if (str_is(name, tests[i].name))
            return &tests[i];
    return NULL;
}

static enum status test_test(struct jinja_run *j UNUSED, const struct value *v, const struct value *a UNUSED,
                             bool *out) {
    *out = v->kind == VALUE_STR && find_test(v->s);
    return OK;
}

enum status jinja_test(struct jinja_run *j, struct str name, const struct value *v,
                       const struct call_args *args, bool *out) {
    const struct test *t = find_test(name);
    if (!t)
        return run_fail(&j->r, "there is no test '%.*s'", STR_FMT(name));
    if (args->n + args->n_kw != t->n_args)
        return run_fail(&j->r, "the test '%s' takes %u arguments", t->name, t->n_args);
    struct value none = {0};
    return t->fn(j, v, args->n ? args->pos : args->n_kw ? &args->kw[0].v : &none, out);
}
