/* grammar_object.c - objects in the order of their properties, and arrays.
 *
 * An object that names properties is closed unless a schema says additionalProperties: that is what those who
 * write such schemas mean, and a model that may invent members does. Other members come after the named ones.
 */
#include "chat/grammar_schema.h"

struct member {
    struct str name;
    struct subs subs;
    bool required;
};

struct members {
    struct member *list;
    u32 n, cap;
};

/* Pairs that are not named: keys by pattern, or any other. */
struct pairs {
    u32 rule; /* key, colon, value; NODE_NONE: there are none */
    u64 min, max;
};

bool member_required(const struct merged *m, struct str name) {
    for (u32 i = 0; i < m->flat.n; i++) {
        struct value list = value_get(&m->flat.list[i].v, STR("required"));
        for (u32 k = 0; list.kind == VALUE_LIST && k < list.list.n; k++)
            if (str_eq(list.list.items[k].s, name))
                return true;
    }
    return false;
}

/* What one schema says about a member: its property, the patterns its name matches, else
 * additionalProperties. */
static enum status member_sub(struct schema *c, const struct sub *s, struct str name, struct subs *out,
                              struct err *err) {
    struct value properties = value_get(&s->v, STR("properties")), own = value_get(&properties, name);
    struct value by_pattern = value_get(&s->v, STR("patternProperties"));
    bool found = own.kind != VALUE_UNDEFINED;
    if (found)
        subs_add(c, out, sub_below(c, s, "properties", name, own));
    u32 n = value_object_len(&by_pattern);
    for (u32 i = 0; i < n; i++) {
        struct str regex;
        struct value v;
        bool matches;
        value_member_at(&by_pattern, i, &regex, &v);
        struct sub below = sub_below(c, s, "patternProperties", regex, v);
        TRY(pattern_matches(c, &(struct pattern){regex, below.path, false}, name, &matches, err));
        if (matches)
            subs_add(c, out, below);
        found |= matches;
    }
    struct sub additional;
    if (!found && sub_member(c, s, "additionalProperties", &additional))
        subs_add(c, out, additional);
    return OK;
}

enum status member_subs(struct schema *c, const struct merged *m, struct str name, struct subs *out,
                        struct err *err) {
    *out = (struct subs){0};
    for (u32 i = 0; i < m->flat.n; i++)
        TRY(member_sub(c, &m->flat.list[i], name, out, err));
    if (++c->n_merges > LIMIT_GRAMMAR_MERGES)
        return err_set(err, ERR_TOO_LARGE, "the schema has too many combinations of subschemas");
    return OK;
}

/* --- which members there are --- */

static void members_add(struct schema *c, struct members *m, struct str name) {
    if (m->n == m->cap) {
        struct member *list = ARENA_ARRAY(c->arena, struct member, MAX(8u, 2 * m->cap));
        if (m->n)
            memcpy(list, m->list, m->n * sizeof *list);
        m->list = list;
        m->cap = MAX(8u, 2 * m->cap);
    }
    m->list[m->n++] = (struct member){.name = name};
}

/* Named properties in their order, then names that are only required. `seen` makes each name once. */
static enum status members_find(struct schema *c, const struct merged *m, struct members *out,
                                struct err *err) {
    struct value seen = value_object(c->arena);
    for (u32 i = 0; i < m->flat.n; i++) {
        struct value properties = value_get(&m->flat.list[i].v, STR("properties"));
        u32 n = value_object_len(&properties);
        for (u32 k = 0; k < n; k++) {
            struct str name;
            struct value v;
            value_member_at(&properties, k, &name, &v);
            if (value_get(&seen, name).kind == VALUE_UNDEFINED)
                members_add(c, out, name);
            value_set(c->arena, &seen, name, value_bool(false));
        }
    }
    for (u32 i = 0; i < m->flat.n; i++) {
        struct value list = value_get(&m->flat.list[i].v, STR("required"));
        for (u32 k = 0; list.kind == VALUE_LIST && k < list.list.n; k++) {
            struct str name = list.list.items[k].s;
            if (value_get(&seen, name).kind == VALUE_UNDEFINED)
                members_add(c, out, name);
            value_set(c->arena, &seen, name, value_bool(true));
        }
    }
    for (u32 i = 0; i < out->n; i++) {
        out->list[i].required = value_get(&seen, out->list[i].name).b;
        TRY(member_subs(c, m, out->list[i].name, &out->list[i].subs, err));
    }
    return OK;
}

/* At most max members: optional ones are left away from the end. */
static bool members_cut(struct members *m, u64 max) {
    for (u32 i = m->n; i-- > 0 && m->n > max;)
        if (!m->list[i].required) {
            memmove(&m->list[i], &m->list[i + 1], (m->n - i - 1) * sizeof *m->list);
            m->n--;
        }
    return m->n <= max;
}

/* --- pairs without a name of their own --- */

/* Adds `key ":" value` to the rule of pairs. */
static enum status pair_add(struct schema *c, u32 rule, const struct patterns *keys,
                            const struct members *names, const struct subs *value, struct err *err) {
    struct str *list = ARENA_ARRAY(c->arena, struct str, names->n + 1);
    u32 value_rule, start;
    for (u32 i = 0; i < names->n; i++)
        list[i] = names->list[i].name;
    TRY(schema_rule(c, value, &value_rule, err));
    u32 to = build_colon(c->b, build_call(c->b, value_rule, NODE_THE_END));
    if (keys->n || names->n)
        TRY(emit_pattern(c, keys, list, names->n, 0, UINT64_MAX, to, &start, err));
    else
        start = build_string(c->b, 0, UINT64_MAX, to);
    build_empty(c->b, rule, start);
    return OK;
}

/* All patterns for keys in the conjunction; index of the schema they are of in *owner. */
static enum status key_patterns(struct schema *c, const struct merged *m, struct patterns *out, u32 *owner,
                                struct err *err) {
    *owner = m->flat.n;
    for (u32 i = 0; i < m->flat.n; i++) {
        const struct sub *s = &m->flat.list[i];
        struct value list = value_get(&s->v, STR("patternProperties"));
        u32 n = value_object_len(&list);
        if (n && *owner < m->flat.n)
            return keyword_refuse(s->path, "patternProperties", err); /* of two schemas at once */
        if (n)
            *owner = i;
        out->list = n ? ARENA_ARRAY(c->arena, struct pattern, n) : out->list;
        for (u32 k = 0; k < n; k++) {
            struct str regex;
            struct value v;
            value_member_at(&list, k, &regex, &v);
            out->list[out->n++] = (struct pattern){
                regex, path_add(c, path_add(c, s->path, STR("patternProperties")), regex), true};
        }
    }
    return OK;
}

/* Keys that match just pattern k (of schema `owner`); what the other schemas say about further members holds
 * too. */
static enum status pattern_pair(struct schema *c, const struct merged *m, u32 owner, struct patterns *keys,
                                u32 k, u32 rule, const struct members *names, struct err *err) {
    const struct sub *s = &m->flat.list[owner];
    struct value list = value_get(&s->v, STR("patternProperties")), v;
    struct subs subs = {0};
    struct str regex;
    value_member_at(&list, k, &regex, &v);
    subs_add(c, &subs, sub_below(c, s, "patternProperties", regex, v));
    for (u32 i = 0; i < m->flat.n; i++) {
        struct sub additional;
        if (i != owner && sub_member(c, &m->flat.list[i], "additionalProperties", &additional))
            subs_add(c, &subs, additional);
    }
    keys->list[k].negate = false;
    enum status status = pair_add(c, rule, keys, names, &subs, err);
    keys->list[k].negate = true;
    return status;
}

static enum status pairs_build(struct schema *c, const struct merged *m, const struct members *names,
                               struct pairs *out, struct err *err) {
    struct patterns keys = {0};
    struct subs additional = {0};
    u32 owner;
    bool said = false;
    *out = (struct pairs){.rule = NODE_NONE, .max = UINT32_MAX};
    TRY(key_patterns(c, m, &keys, &owner, err));
    for (u32 i = 0; i < m->flat.n; i++) {
        struct sub s;
        if (!sub_member(c, &m->flat.list[i], "additionalProperties", &s))
            continue;
        said = true;
        subs_add(c, &additional, s);
    }
    bool open = (said || (names->n == 0 && keys.n == 0)) && !(m->sealed_properties && !said);
    if (!open && keys.n == 0)
        return OK;
    out->rule = build_node(c->b, NODE_SPLIT);
    for (u32 k = 0; k < keys.n; k++)
        TRY(pattern_pair(c, m, owner, &keys, k, out->rule, names, err));
    if (open)
        TRY(pair_add(c, out->rule, &keys, names, &additional, err));
    return OK;
}

/* --- the text --- */

static struct str key_text(struct schema *c, struct str name) {
    struct buf b = {0};
    struct value v = value_str(name);
    struct json_style style = {.comma = STR(","), .colon = STR(":"), .limit_bytes = SIZE_MAX};
    struct err ignored;
    enum status status = value_write_json(&b, &v, &style, &ignored);
    check(status == OK);
    struct str text = arena_str(c->arena, buf_str(&b));
    buf_release(&b);
    return text;
}

static u32 comma(struct build *b, u32 to) { return build_byte(b, ',', ',', build_blanks(b, to)); }

/* From the last member back to the first:
 *   rest  something is written and members from i on are left: a comma and one of them, or the end
 *   next  a comma (or the opening bracket) is written: member i, or if it may be left away a later one */
static enum status emit_members(struct schema *c, const struct members *m, const struct pairs *p, u32 end,
                                u32 *first, struct err *err) {
    struct build *b = c->b;
    u32 next = build_node(b, NODE_BYTES), rest = end; /* no pairs: nothing may follow a comma */
    if (p->rule != NODE_NONE && p->max > 0) {
        u32 min = (u32)MIN(p->min, UINT32_MAX - 1), max = (u32)MIN(p->max, UINT32_MAX);
        u32 more = comma(b, build_call(b, p->rule, NODE_THE_END));
        u32 others = build_loop(b, more, min ? min - 1 : 0, max == UINT32_MAX ? max : max - 1, end);
        next = build_call(b, p->rule, others);
        rest = comma(b, next);
        if (p->min == 0)
            rest = build_either(b, rest, end);
    }
    bool may_end = p->min == 0;
    for (u32 i = m->n; i-- > 0 && !b->full;) {
        u32 value;
        TRY(schema_rule(c, &m->list[i].subs, &value, err));
        u32 member =
            build_literal(b, key_text(c, m->list[i].name), build_colon(b, build_call(b, value, rest)));
        may_end &= !m->list[i].required;
        next = m->list[i].required ? member : build_either(b, member, next);
        rest = comma(b, next);
        if (may_end)
            rest = build_either(b, rest, end);
    }
    *first = next;
    return OK;
}

/* How many members the schemas ask for, beyond those that are there anyway. *nonempty: {} is not enough. */
static enum status apply_counts(const struct merged *m, struct members *members, struct pairs *p,
                                bool *nonempty, bool *never, struct err *err) {
    u32 n_required = 0;
    for (u32 i = 0; i < members->n; i++)
        n_required += members->list[i].required;
    *nonempty = n_required > 0 || m->min_properties > 0;
    *never = !members_cut(members, m->max_properties);
    if (m->max_properties != UINT64_MAX)
        p->max = m->max_properties - MIN(members->n, m->max_properties);
    if (m->min_properties <= MAX(n_required, 1u))
        return OK;
    /* One more than the required ones can be asked of the pairs; more might repeat a key. */
    if (members->n == n_required && m->min_properties == n_required + 1 && p->rule != NODE_NONE) {
        p->min = 1;
        return OK;
    }
    for (u32 i = 0; i < m->flat.n; i++)
        if (value_get(&m->flat.list[i].v, STR("minProperties")).kind != VALUE_UNDEFINED)
            return keyword_refuse(m->flat.list[i].path, "minProperties", err);
    return OK;
}

enum status emit_object(struct schema *c, const struct merged *m, u32 to, u32 *start, struct err *err) {
    struct build *b = c->b;
    struct members members = {0};
    struct pairs pairs;
    bool nonempty, never;
    u32 first;
    TRY(members_find(c, m, &members, err));
    TRY(pairs_build(c, m, &members, &pairs, err));
    TRY(apply_counts(m, &members, &pairs, &nonempty, &never, err));
    *start = build_node(b, NODE_BYTES);
    if (never)
        return OK;
    u32 close = build_byte(b, '}', '}', to);
    TRY(emit_members(c, &members, &pairs, build_blanks(b, close), &first, err));
    if (!nonempty)
        first = build_either(b, first, close);
    build_edge(b, *start, '{', '{', build_blanks(b, first));
    return OK;
}

/* --- arrays --- */

/* The list of schemas by position: prefixItems, or items of the drafts before. */
static struct value prefix_of(const struct sub *s, const char **key) {
    struct value prefix = value_get(&s->v, STR("prefixItems")), items = value_get(&s->v, STR("items"));
    *key = prefix.kind == VALUE_LIST ? "prefixItems" : "items";
    if (prefix.kind == VALUE_LIST)
        return prefix;
    return items.kind == VALUE_LIST ? items : (struct value){0};
}

void element_subs(struct schema *c, const struct merged *m, u32 index, struct subs *out) {
    *out = (struct subs){0};
    for (u32 i = 0; i < m->flat.n; i++) {
        const struct sub *s = &m->flat.list[i];
        const char *key;
        struct value prefix = prefix_of(s, &key), items = value_get(&s->v, STR("items"));
        struct sub rest;
        if (prefix.kind == VALUE_LIST && index < prefix.list.n)
            subs_add(c, out,
                     sub_below(c, s, key, arena_printf(c->arena, "%u", index), prefix.list.items[index]));
        else if (sub_member(c, s, items.kind == VALUE_LIST ? "additionalItems" : "items", &rest))
            subs_add(c, out, rest);
    }
}

static u32 prefix_len(const struct merged *m, bool *rest_is_said) {
    u32 n = 0;
    *rest_is_said = false;
    for (u32 i = 0; i < m->flat.n; i++) {
        const struct sub *s = &m->flat.list[i];
        const char *key;
        struct value prefix = prefix_of(s, &key), items = value_get(&s->v, STR("items"));
        if (prefix.kind == VALUE_LIST)
            n = MAX(n, prefix.list.n);
        const char *rest = items.kind == VALUE_LIST ? "additionalItems" : "items";
        *rest_is_said |= value_get(&s->v, str_of(rest)).kind != VALUE_UNDEFINED;
    }
    return n;
}

/* Elements behind the prefix: `first` begins with one (NODE_NONE: none may come), `more` with a comma or the
 * end. */
static enum status emit_rest(struct schema *c, const struct merged *m, u32 n, u32 end, u32 *first, u32 *more,
                             struct err *err) {
    struct build *b = c->b;
    struct subs subs;
    u64 min = m->min_items - MIN(n, m->min_items), max = m->max_items - MIN(n, m->max_items);
    u32 rule;
    element_subs(c, m, UINT32_MAX, &subs);
    TRY(schema_rule(c, &subs, &rule, err));
    u32 most = m->max_items >= UINT32_MAX ? UINT32_MAX : (u32)max, least = (u32)MIN(min, UINT32_MAX - 1);
    u32 turn = comma(b, build_call(b, rule, NODE_THE_END));
    *first = NODE_NONE;
    *more = least > most ? build_node(b, NODE_BYTES) : build_loop(b, turn, least, most, end);
    if (most > 0 && least <= most)
        *first = build_call(
            b, rule, build_loop(b, turn, least ? least - 1 : 0, most == UINT32_MAX ? most : most - 1, end));
    return OK;
}

enum status emit_array(struct schema *c, const struct merged *m, u32 to, u32 *start, struct err *err) {
    struct build *b = c->b;
    bool said;
    u32 n = prefix_len(m, &said), first, more;
    u32 close = build_byte(b, ']', ']', to), end = build_blanks(b, close);
    *start = build_node(b, NODE_BYTES);
    /* Behind a prefix without a word about the rest, and where only named elements count, nothing follows. */
    bool closed = m->sealed_items ? !said : n > 0 && !said && m->min_items <= n;
    if (closed) {
        first = NODE_NONE;
        more = m->min_items <= n ? end : build_node(b, NODE_BYTES);
    } else {
        TRY(emit_rest(c, m, n, end, &first, &more, err));
    }
    for (u32 i = n; i-- > 0 && !b->full;) {
        struct subs subs;
        u32 rule;
        element_subs(c, m, i, &subs);
        TRY(schema_rule(c, &subs, &rule, err));
        bool can_come = i < m->max_items, may_end = i >= m->min_items;
        first = can_come ? build_call(b, rule, more) : NODE_NONE;
        more = can_come ? comma(b, first) : build_node(b, NODE_BYTES);
        if (may_end)
            more = build_either(b, more, end);
    }
    u32 inside = build_node(b, NODE_SPLIT);
    if (first != NODE_NONE)
        build_empty(b, inside, first);
    if (m->min_items == 0)
        build_empty(b, inside, close);
    build_edge(b, *start, '[', '[', build_blanks(b, inside));
    return OK;
}
