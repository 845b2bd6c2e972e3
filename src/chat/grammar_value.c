/* grammar_value.c - given values (enum, const) and whether alternatives exclude each other. */
#include <math.h>

#include "chat/grammar_schema.h"

static bool is_number(const struct value *v) { return v->kind == VALUE_INT || v->kind == VALUE_FLOAT; }

/* As JSON Schema has it: 1 and 1.0 are equal, true and 1 are not, members have no order. Depth is that of a
 * text. */
static bool value_equal(struct schema *c, const struct value *x, const struct value *y) {
    c->n_compared++;
    if (is_number(x) && is_number(y)) {
        struct decimal a = decimal_of(x), b = decimal_of(y);
        return decimal_compare(&a, &b) == 0;
    }
    if (x->kind != y->kind)
        return false;
    if (x->kind == VALUE_BOOL)
        return x->b == y->b;
    if (x->kind == VALUE_STR)
        return str_eq(x->s, y->s);
    if (x->kind == VALUE_LIST) {
        for (u32 i = 0; i < MIN(x->list.n, y->list.n); i++)
            if (!value_equal(c, &x->list.items[i], &y->list.items[i]))
                return false;
        return x->list.n == y->list.n;
    }
    u32 n = value_object_len(x);
    for (u32 i = 0; i < n; i++) {
        struct str key;
        struct value a, b;
        value_member_at(x, i, &key, &a);
        b = value_get(y, key);
        if (b.kind == VALUE_UNDEFINED || !value_equal(c, &a, &b))
            return false;
    }
    return n == value_object_len(y);
}

static u32 value_type(const struct value *v) {
    switch (v->kind) {
    case VALUE_NONE: return TYPE_NULL;
    case VALUE_BOOL: return TYPE_BOOL;
    case VALUE_INT: return TYPE_INTEGER;
    case VALUE_FLOAT: return v->f == floor(v->f) ? TYPE_INTEGER : TYPE_FRACTION;
    case VALUE_STR: return TYPE_STRING;
    case VALUE_LIST: return TYPE_ARRAY;
    case VALUE_OBJECT: return TYPE_OBJECT;
    case VALUE_UNDEFINED:
    case VALUE_CALLABLE: return 0;
    }
    return 0;
}

/* --- is a value valid? --- */

enum status check_compared(const struct schema *c, struct err *err) {
    if (c->n_compared <= LIMIT_GRAMMAR_COMPARED)
        return OK;
    return err_set(
        err, ERR_TOO_LARGE,
        "the schema has too many or too long given values (enum, const) for what else it says of them");
}

/* One of list? A value that was taken from it is not looked for. */
static bool list_has(struct schema *c, const struct value *list, const struct value *v) {
    bool found = v >= list->list.items && v < list->list.items + list->list.n;
    for (u32 i = 0; !found && i < list->list.n && c->n_compared <= LIMIT_GRAMMAR_COMPARED; i++)
        found = value_equal(c, &list->list.items[i], v);
    return found;
}

static enum status values_hold(struct schema *c, const struct merged *m, const struct value *v, bool *hold,
                               struct err *err) {
    *hold = true;
    for (u32 i = 0; i < m->flat.n && *hold; i++) {
        struct value list = value_get(&m->flat.list[i].v, STR("enum"));
        struct value one = value_get(&m->flat.list[i].v, STR("const"));
        *hold = (list.kind != VALUE_LIST || list_has(c, &list, v)) &&
                (one.kind == VALUE_UNDEFINED || value_equal(c, &one, v));
    }
    return check_compared(c, err);
}

/* anyOf: at least one alternative; oneOf: exactly one. */
static enum status group_holds(struct schema *c, const struct sub *owner, bool one, const struct value *v,
                               bool *valid, struct err *err) {
    const char *key = one ? "oneOf" : "anyOf";
    struct value list = value_get(&owner->v, str_of(key));
    u32 n_valid = 0;
    if (list.kind != VALUE_LIST || (one ? owner->one_of_done : owner->any_of_done))
        return OK;
    for (u32 i = 0; i < list.list.n; i++) {
        struct subs subs = {0};
        bool holds;
        subs_add(c, &subs, sub_below(c, owner, key, arena_printf(c->arena, "%u", i), list.list.items[i]));
        TRY(value_satisfies(c, &subs, v, &holds, err));
        n_valid += holds;
    }
    *valid &= one ? n_valid == 1 : n_valid > 0;
    return OK;
}

static enum status string_holds(struct schema *c, const struct merged *m, struct str s, bool *valid,
                                struct err *err) {
    u64 chars = 0;
    u32 code;
    for (size_t at = 0; at < s.n; chars++)
        at += MAX(utf8_decode(s, at, &code), 1u);
    *valid &= chars >= m->min_length && chars <= m->max_length;
    for (u32 i = 0; i < m->patterns.n && *valid; i++)
        TRY(pattern_matches(c, &m->patterns.list[i], s, valid, err));
    return OK;
}

static enum status array_holds(struct schema *c, const struct merged *m, const struct value *v, bool *valid,
                               struct err *err) {
    *valid &= v->list.n >= m->min_items && v->list.n <= m->max_items;
    for (u32 i = 0; i < v->list.n && *valid; i++) {
        struct subs subs;
        element_subs(c, m, i, &subs);
        TRY(value_satisfies(c, &subs, &v->list.items[i], valid, err));
    }
    return OK;
}

static enum status object_holds(struct schema *c, const struct merged *m, const struct value *v, bool *valid,
                                struct err *err) {
    u32 n = value_object_len(v);
    *valid &= n >= m->min_properties && n <= m->max_properties;
    for (u32 i = 0; i < n && *valid; i++) {
        struct subs subs;
        struct str key;
        struct value member;
        value_member_at(v, i, &key, &member);
        TRY(member_subs(c, m, key, &subs, err));
        TRY(value_satisfies(c, &subs, &member, valid, err));
    }
    for (u32 i = 0; i < m->flat.n; i++) {
        struct value required = value_get(&m->flat.list[i].v, STR("required"));
        for (u32 k = 0; required.kind == VALUE_LIST && k < required.list.n && *valid; k++, c->n_compared++)
            *valid = value_get(v, required.list.items[k].s).kind != VALUE_UNDEFINED;
    }
    return check_compared(c, err);
}

static enum status merged_holds(struct schema *c, const struct merged *m, const struct value *v, bool *valid,
                                struct err *err) {
    *valid = false;
    if (m->never || !(m->types & value_type(v)))
        return OK;
    TRY(values_hold(c, m, v, valid, err));
    for (u32 i = 0; i < m->flat.n && *valid; i++) {
        TRY(group_holds(c, &m->flat.list[i], false, v, valid, err));
        TRY(group_holds(c, &m->flat.list[i], true, v, valid, err));
    }
    if (!*valid)
        return OK;
    if (is_number(v))
        *valid = number_satisfies(m, v);
    if (v->kind == VALUE_STR)
        return string_holds(c, m, v->s, valid, err);
    if (v->kind == VALUE_LIST)
        return array_holds(c, m, v, valid, err);
    return v->kind == VALUE_OBJECT ? object_holds(c, m, v, valid, err) : OK;
}

static enum status too_deep(struct err *err) {
    return err_set(err, ERR_TOO_LARGE,
                   "the schema's alternatives and given values are nested more than %u levels",
                   LIMIT_GRAMMAR_CHOICES);
}

enum status value_satisfies(struct schema *c, const struct subs *subs, const struct value *v, bool *valid,
                            struct err *err) {
    struct merged m;
    if (c->depth == LIMIT_GRAMMAR_CHOICES)
        return too_deep(err);
    c->depth++;
    enum status status = schema_merge(c, subs, &m, err);
    if (status == OK)
        status = merged_holds(c, &m, v, valid, err);
    c->depth--;
    return status;
}

enum status emit_values(struct schema *c, const struct merged *m, u32 to, u32 *start, struct err *err) {
    struct str *texts = ARENA_ARRAY(c->arena, struct str, m->values.list.n);
    struct json_style style = {.comma = STR(","), .colon = STR(":"), .limit_bytes = LIMIT_SCHEMA_BYTES};
    u32 n = 0;
    for (u32 i = 0; i < m->values.list.n; i++) {
        struct buf b = {0};
        bool valid;
        TRY(value_satisfies(c, &m->flat, &m->values.list.items[i], &valid, err));
        struct err no_json;
        if (valid && value_write_json(&b, &m->values.list.items[i], &style, &no_json) == OK)
            texts[n++] = arena_str(c->arena, buf_str(&b));
        buf_release(&b);
    }
    *start = build_literals(c->b, texts, n, to);
    return OK;
}

/* --- do alternatives exclude each other? --- */

/* No value of x's list is valid under y (values of x that x itself excludes do not matter). */
static enum status values_outside(struct schema *c, const struct merged *x, const struct subs *y,
                                  bool *outside, struct err *err) {
    *outside = true;
    for (u32 i = 0; i < x->values.list.n && *outside; i++) {
        bool in_x, in_y;
        TRY(value_satisfies(c, &x->flat, &x->values.list.items[i], &in_x, err));
        if (!in_x)
            continue;
        TRY(value_satisfies(c, y, &x->values.list.items[i], &in_y, err));
        *outside = !in_y;
    }
    return OK;
}

/* Every alternative of x's open group excludes y. */
static enum status group_disjoint(struct schema *c, const struct merged *x, const struct subs *y,
                                  bool *disjoint, struct err *err) {
    const struct sub *owner = &x->flat.list[x->group_owner];
    const char *key = x->group_is_one ? "oneOf" : "anyOf";
    struct value list = value_get(&owner->v, str_of(key));
    *disjoint = true;
    for (u32 i = 0; i < list.list.n && *disjoint; i++) {
        struct subs one = {0};
        for (u32 k = 0; k < x->flat.n; k++) {
            struct sub s = x->flat.list[k];
            if (k == x->group_owner)
                *(x->group_is_one ? &s.one_of_done : &s.any_of_done) = true;
            subs_add(c, &one, s);
        }
        subs_add(c, &one, sub_below(c, owner, key, arena_printf(c->arena, "%u", i), list.list.items[i]));
        TRY(subs_disjoint(c, &one, y, disjoint, err));
    }
    return OK;
}

/* A member that x requires and y either requires with other values or cannot have. */
static enum status members_disjoint(struct schema *c, const struct merged *x, const struct merged *y,
                                    bool *disjoint, struct err *err) {
    for (u32 i = 0; i < x->flat.n && !*disjoint; i++) {
        struct value required = value_get(&x->flat.list[i].v, STR("required"));
        for (u32 k = 0; required.kind == VALUE_LIST && k < required.list.n && !*disjoint; k++) {
            struct str name = required.list.items[k].s;
            struct subs in_x, in_y;
            struct merged m;
            TRY(member_subs(c, x, name, &in_x, err));
            TRY(member_subs(c, y, name, &in_y, err));
            TRY(schema_merge(c, &in_y, &m, err));
            if (m.never)
                *disjoint = true;
            else if (member_required(y, name))
                TRY(subs_disjoint(c, &in_x, &in_y, disjoint, err));
        }
    }
    return OK;
}

static bool bounds_disjoint(const struct bound *lo, const struct bound *hi) {
    if (!lo->set || !hi->set)
        return false;
    int order = decimal_compare(&lo->at, &hi->at);
    return order > 0 || (order == 0 && (lo->exclusive || hi->exclusive));
}

static enum status merged_disjoint(struct schema *c, const struct merged *x, const struct merged *y,
                                   bool *disjoint, struct err *err) {
    *disjoint = x->never || y->never || !(x->types & y->types);
    if (!*disjoint && x->has_values)
        return values_outside(c, x, &y->flat, disjoint, err);
    if (!*disjoint && y->has_values)
        return values_outside(c, y, &x->flat, disjoint, err);
    if (!*disjoint && x->has_group)
        return group_disjoint(c, x, &y->flat, disjoint, err);
    if (!*disjoint && y->has_group)
        return group_disjoint(c, y, &x->flat, disjoint, err);
    if (*disjoint)
        return OK;
    u32 common = x->types & y->types;
    if (bounds_disjoint(&x->lo, &y->hi) || bounds_disjoint(&y->lo, &x->hi))
        common &= ~(u32)TYPE_NUMBER;
    if (x->min_length > y->max_length || y->min_length > x->max_length)
        common &= ~(u32)TYPE_STRING;
    if (x->min_items > y->max_items || y->min_items > x->max_items)
        common &= ~(u32)TYPE_ARRAY;
    if (common == TYPE_OBJECT) {
        TRY(members_disjoint(c, x, y, disjoint, err));
        if (!*disjoint)
            TRY(members_disjoint(c, y, x, disjoint, err));
        return OK;
    }
    *disjoint = common == 0;
    return OK;
}

enum status subs_disjoint(struct schema *c, const struct subs *x, const struct subs *y, bool *disjoint,
                          struct err *err) {
    struct merged a, b;
    if (c->depth == LIMIT_GRAMMAR_CHOICES)
        return too_deep(err);
    c->depth++;
    enum status status = schema_merge(c, x, &a, err);
    if (status == OK)
        status = schema_merge(c, y, &b, err);
    if (status == OK)
        status = merged_disjoint(c, &a, &b, disjoint, err);
    c->depth--;
    return status;
}
