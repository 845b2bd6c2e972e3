/* run.c - bounds and text of one template run. */
#include "chat/run.h"

#include <stdio.h>

#include "base/limit.h"

enum status run_fail(struct run *r, const char *fmt, ...) {
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return err_set(r->err, ERR_INVALID, "template, line %u: %s", r->line, text);
}

enum status run_too_large(struct run *r, const char *what) {
    return err_set(r->err, ERR_TOO_LARGE, "template, line %u: %s", r->line, what);
}

enum status run_charge(struct run *r, u64 n) {
    if (n > r->steps_left)
        return run_too_large(r, "the template takes too many steps");
    r->steps_left -= n;
    return OK;
}

enum status run_enter(struct run *r) {
    TRY(run_charge(r, 1));
    if (r->depth >= LIMIT_TEMPLATE_EVAL_DEPTH)
        return run_too_large(r, "the template nests or recurses too deep");
    r->depth++;
    return OK;
}

static enum status run_full(struct run *r) { return run_too_large(r, "the template takes too much memory"); }

enum status run_alloc(struct run *r, size_t size, void *out) {
    void *p = size < LIMIT_TEMPLATE_MEMORY_BYTES ? arena_try_alloc(r->arena, size) : NULL;
    if (!p)
        return run_full(r);
    memcpy(out, &p, sizeof p);
    return OK;
}

enum status run_append(struct run *r, struct value *list, struct value item) {
    return value_try_append(r->arena, list, item) ? OK : run_full(r);
}

enum status run_object(struct run *r, struct value *out) {
    return value_try_object(r->arena, out) ? OK : run_full(r);
}

enum status run_set(struct run *r, struct value *object, struct value key, struct value v) {
    return value_try_set_key(r->arena, object, key, v) ? OK : run_full(r);
}

enum status run_pair(struct run *r, struct value a, struct value b, struct value *out) {
    *out = value_list();
    out->form = FORM_TUPLE;
    TRY(run_append(r, out, a));
    return run_append(r, out, b);
}

enum status run_put(struct run *r, struct str s) {
    if (s.n > r->text_bytes_max || r->text->n > r->text_bytes_max - s.n)
        return run_too_large(r, "the template writes too much text");
    TRY(run_charge(r, s.n / 16));
    buf_add_str(r->text, s);
    return OK;
}

enum status run_printf(struct run *r, const char *fmt, ...) {
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    check(n >= 0);
    check((size_t)n < sizeof text);
    return run_put(r, (struct str){text, (size_t)n});
}

enum status run_take(struct run *r, size_t mark, struct str *out) {
    check(mark <= r->text->n);
    size_t n = r->text->n - mark;
    char *p = NULL;
    TRY(run_alloc(r, n + 1, &p));
    if (n)
        memcpy(p, r->text->p + mark, n);
    p[n] = 0;
    *out = (struct str){p, n};
    r->text->n = mark;
    return OK;
}

enum status run_take_value(struct run *r, size_t mark, struct value *out) {
    struct str s;
    TRY(run_take(r, mark, &s));
    *out = value_str(s);
    return OK;
}
