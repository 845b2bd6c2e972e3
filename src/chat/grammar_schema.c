/* grammar_schema.c - rules: each distinct conjunction of schemas is built once, from a queue, so that the
 * compiler's recursion does not follow the schema's. */
#include <stdlib.h>

#include "chat/grammar_schema.h"

/* What tells schemas apart: the object; true, false and what is no schema at all, which is refused later. */
static u64 sub_identity(const struct sub *s) {
    if (s->v.kind == VALUE_OBJECT)
        return (u64)(uintptr_t)s->v.object;
    return s->v.kind == VALUE_BOOL ? 1u + s->v.b : 0u;
}

static u64 subs_hash(const struct subs *s) {
    u64 hash = s->n;
    for (u32 i = 0; i < s->n; i++) {
        const struct sub *sub = &s->list[i];
        u64 key[2] = {sub_identity(sub), (u64)sub->any_of_done << 1 | sub->one_of_done};
        hash = hash_bytes(key, sizeof key, hash);
    }
    return hash;
}

static bool subs_same(const struct subs *x, const struct subs *y) {
    if (x->n != y->n)
        return false;
    for (u32 i = 0; i < x->n; i++) {
        const struct sub *a = &x->list[i], *b = &y->list[i];
        if (sub_identity(a) != sub_identity(b) || a->any_of_done != b->any_of_done ||
            a->one_of_done != b->one_of_done)
            return false;
    }
    return true;
}

enum status schema_rule(struct schema *c, const struct subs *subs, u32 *node, struct err *err) {
    u64 hash = subs_hash(subs);
    u32 *chain = &c->chains[hash % RULE_CHAINS];
    for (u32 i = *chain; i; i = c->rules[i - 1].chain)
        if (c->rules[i - 1].hash == hash && subs_same(&c->rules[i - 1].subs, subs)) {
            *node = c->rules[i - 1].node;
            return OK;
        }
    if (c->n_rules == LIMIT_GRAMMAR_RULES)
        return err_set(err, ERR_TOO_LARGE, "the schema has more than %u subschemas in all combinations",
                       LIMIT_GRAMMAR_RULES);
    if (c->n_rules == c->cap_rules) {
        c->cap_rules = c->cap_rules ? 2 * c->cap_rules : 64;
        c->rules = xrealloc(c->rules, c->cap_rules * sizeof *c->rules);
    }
    struct rule *rule = &c->rules[c->n_rules++];
    *rule = (struct rule){.subs = *subs, .hash = hash, .chain = *chain, .node = build_node(c->b, NODE_SPLIT)};
    *chain = c->n_rules;
    *node = rule->node;
    return OK;
}

/* Each alternative of an anyOf or oneOf beside everything else that holds. */
static enum status build_group(struct schema *c, const struct merged *m, u32 node, struct err *err) {
    const struct sub *owner = &m->flat.list[m->group_owner];
    const char *key = m->group_is_one ? "oneOf" : "anyOf";
    struct value list = value_get(&owner->v, str_of(key));
    struct subs *all = ARENA_ARRAY(c->arena, struct subs, list.list.n + 1);
    for (u32 i = 0; i < list.list.n; i++) {
        for (u32 k = 0; k < m->flat.n; k++) {
            struct sub s = m->flat.list[k];
            if (k == m->group_owner)
                *(m->group_is_one ? &s.one_of_done : &s.any_of_done) = true;
            subs_add(c, &all[i], s);
        }
        struct str index = arena_printf(c->arena, "%u", i);
        subs_add(c, &all[i], sub_below(c, owner, key, index, list.list.items[i]));
    }
    for (u32 i = 0; m->group_is_one && i < list.list.n; i++)
        for (u32 k = 0; k < i; k++) {
            bool disjoint;
            TRY(subs_disjoint(c, &all[i], &all[k], &disjoint, err));
            if (!disjoint)
                return err_set(
                    err, ERR_INVALID,
                    "schema keyword at %.*s/oneOf is not supported where alternatives (%u and %u) may "
                    "both hold; use anyOf, or give them a property with different const values",
                    STR_FMT(owner->path), k, i);
        }
    for (u32 i = 0; i < list.list.n; i++) {
        u32 rule;
        TRY(schema_rule(c, &all[i], &rule, err));
        build_empty(c->b, node, build_call(c->b, rule, NODE_THE_END));
    }
    return OK;
}

/* Nothing in m says anything: any value will do. */
static bool says_nothing(const struct merged *m) {
    return m->types == TYPE_ANY && m->implied == 0 && !m->typed;
}

static enum status build_types(struct schema *c, const struct merged *m, u32 node, struct err *err) {
    struct build *b = c->b;
    u32 types = m->types, start;
    /* Keywords of a type mean that a value of this type is wanted, although the standard allows any other. */
    if (!m->typed && m->implied)
        types &= m->implied;
    if (types & TYPE_OBJECT) {
        TRY(emit_object(c, m, NODE_THE_END, &start, err));
        build_empty(b, node, start);
    }
    if (types & TYPE_ARRAY) {
        TRY(emit_array(c, m, NODE_THE_END, &start, err));
        build_empty(b, node, start);
    }
    if (types & TYPE_STRING) {
        start = build_string(b, m->min_length, m->max_length, NODE_THE_END);
        if (m->patterns.n)
            TRY(emit_pattern(c, &m->patterns, NULL, 0, m->min_length, m->max_length, NODE_THE_END, &start,
                             err));
        build_empty(b, node, start);
    }
    if (types & TYPE_NUMBER) {
        TRY(emit_number(c, m, !(types & TYPE_FRACTION), NODE_THE_END, &start, err));
        build_empty(b, node, start);
    }
    if (types & TYPE_BOOL) {
        build_empty(b, node, build_literal(b, STR("true"), NODE_THE_END));
        build_empty(b, node, build_literal(b, STR("false"), NODE_THE_END));
    }
    if (types & TYPE_NULL)
        build_empty(b, node, build_literal(b, STR("null"), NODE_THE_END));
    return OK;
}

static enum status build_rule(struct schema *c, const struct subs *subs, u32 node, struct err *err) {
    struct merged m;
    u32 start;
    TRY(schema_merge(c, subs, &m, err));
    if (m.never)
        return OK;
    if (m.has_values) {
        TRY(emit_values(c, &m, NODE_THE_END, &start, err));
        build_empty(c->b, node, start);
        return OK;
    }
    if (m.has_group)
        return build_group(c, &m, node, err);
    if (says_nothing(&m)) {
        build_empty(c->b, node, build_any_value(c->b, NODE_THE_END));
        return OK;
    }
    return build_types(c, &m, node, err);
}

static enum status build_rules(struct schema *c, u32 to, u32 *start, struct err *err) {
    struct subs root = {0};
    u32 rule;
    subs_add(c, &root, (struct sub){.v = c->root, .path = c->path});
    TRY(schema_rule(c, &root, &rule, err));
    for (u32 i = 0; i < c->n_rules && !c->b->full; i++) {
        struct subs subs = c->rules[i].subs;
        TRY(build_rule(c, &subs, c->rules[i].node, err));
    }
    *start = build_call(c->b, rule, to);
    return OK;
}

enum status build_schema(struct build *b, struct str text, struct str path, u32 to, u32 *start,
                         struct err *err) {
    struct err why;
    if (text.n > LIMIT_SCHEMA_BYTES)
        return err_set(err, ERR_TOO_LARGE, "the schema is larger than %u bytes", LIMIT_SCHEMA_BYTES);
    struct schema *c = xcalloc(1, sizeof *c);
    *c = (struct schema){
        .b = b, .arena = b->arena, .path = path, .n_merges = b->n_merges, .n_compared = b->n_compared};
    enum status status = value_parse_json(c->arena, text, &c->root, &why);
    if (status != OK)
        err_set(err, status, "the schema is no JSON: %s", why.text);
    else
        status = build_rules(c, to, start, err);
    b->n_merges = c->n_merges;
    b->n_compared = c->n_compared;
    free(c->rules);
    free(c);
    return status;
}
