/* grammar_merge.c - what several schemas say about one value, in sum. Every keyword of the standard is in the
 * table below: it is summed up, read where it is needed, an annotation, or refused by name. Others are
 * annotations. */
#include <math.h>

#include "chat/grammar_schema.h"

enum keyword {
    KEY_REFUSED,
    KEY_TYPE,
    KEY_VALUES, /* enum */
    KEY_CONST,
    KEY_REF,
    KEY_ALL_OF,
    KEY_ANY_OF,
    KEY_ONE_OF,
    KEY_MIN, /* of a count */
    KEY_MAX,
    KEY_PATTERN,
    KEY_FORMAT,
    KEY_BOUND,
    KEY_MULTIPLE,
    KEY_UNIQUE,
    KEY_SUBSCHEMAS, /* read by grammar_object.c: an object of schemas */
    KEY_SUBSCHEMA,  /* a schema */
    KEY_ITEMS,      /* a schema, or a list of them */
    KEY_REQUIRED,
    KEY_UNEVALUATED,
    KEY_IF,
};

static const struct keyword_row {
    const char *name;
    enum keyword kind;
    u32 types; /* the keyword says something about values of these */
} keywords[] = {
    {"type", KEY_TYPE, 0},
    {"enum", KEY_VALUES, 0},
    {"const", KEY_CONST, 0},
    {"$ref", KEY_REF, 0},
    {"allOf", KEY_ALL_OF, 0},
    {"anyOf", KEY_ANY_OF, 0},
    {"oneOf", KEY_ONE_OF, 0},
    {"minLength", KEY_MIN, TYPE_STRING},
    {"maxLength", KEY_MAX, TYPE_STRING},
    {"pattern", KEY_PATTERN, TYPE_STRING},
    {"format", KEY_FORMAT, 0},
    {"minimum", KEY_BOUND, TYPE_NUMBER},
    {"maximum", KEY_BOUND, TYPE_NUMBER},
    {"exclusiveMinimum", KEY_BOUND, TYPE_NUMBER},
    {"exclusiveMaximum", KEY_BOUND, TYPE_NUMBER},
    {"multipleOf", KEY_MULTIPLE, TYPE_NUMBER},
    {"items", KEY_ITEMS, TYPE_ARRAY},
    {"prefixItems", KEY_ITEMS, TYPE_ARRAY},
    {"additionalItems", KEY_SUBSCHEMA, TYPE_ARRAY},
    {"minItems", KEY_MIN, TYPE_ARRAY},
    {"maxItems", KEY_MAX, TYPE_ARRAY},
    {"uniqueItems", KEY_UNIQUE, TYPE_ARRAY},
    {"unevaluatedItems", KEY_UNEVALUATED, TYPE_ARRAY},
    {"properties", KEY_SUBSCHEMAS, TYPE_OBJECT},
    {"patternProperties", KEY_SUBSCHEMAS, TYPE_OBJECT},
    {"additionalProperties", KEY_SUBSCHEMA, TYPE_OBJECT},
    {"required", KEY_REQUIRED, TYPE_OBJECT},
    {"minProperties", KEY_MIN, TYPE_OBJECT},
    {"maxProperties", KEY_MAX, TYPE_OBJECT},
    {"unevaluatedProperties", KEY_UNEVALUATED, TYPE_OBJECT},
    {"if", KEY_IF, 0},
    {"not", KEY_REFUSED, 0},
    {"contains", KEY_REFUSED, 0},
    {"propertyNames", KEY_REFUSED, 0},
    {"dependentRequired", KEY_REFUSED, 0},
    {"dependentSchemas", KEY_REFUSED, 0},
    {"dependencies", KEY_REFUSED, 0},
    {"$dynamicRef", KEY_REFUSED, 0},
    {"$recursiveRef", KEY_REFUSED, 0},
};

static const struct keyword_row *keyword_find(struct str name) {
    for (u32 i = 0; i < ARRAY_LEN(keywords); i++)
        if (str_is(name, keywords[i].name))
            return &keywords[i];
    return NULL;
}

enum status keyword_refuse(struct str path, const char *key, struct err *err) {
    return err_set(err, ERR_INVALID, "schema keyword at %.*s/%s is not supported", STR_FMT(path), key);
}

static enum status keyword_wrong(const struct sub *s, const char *key, const char *what, struct err *err) {
    return err_set(err, ERR_INVALID, "schema keyword at %.*s/%s must be %s", STR_FMT(s->path), key, what);
}

void subs_add(struct schema *c, struct subs *s, struct sub sub) {
    if (s->n == s->cap) {
        struct sub *list = ARENA_ARRAY(c->arena, struct sub, MAX(4u, 2 * s->cap));
        if (s->n)
            memcpy(list, s->list, s->n * sizeof *list);
        s->list = list;
        s->cap = MAX(4u, 2 * s->cap);
    }
    s->list[s->n++] = sub;
}

/* A path longer than a message can show is not made longer: hostile names would multiply. */
#define PATH_BYTES 768u

struct str path_add(struct schema *c, struct str path, struct str name) {
    struct buf b = {0};
    if (path.n + name.n > PATH_BYTES)
        return path;
    buf_add_str(&b, path);
    buf_add_char(&b, '/');
    for (size_t i = 0; i < name.n; i++)
        if (name.p[i] == '~' || name.p[i] == '/')
            buf_add_str(&b, name.p[i] == '~' ? STR("~0") : STR("~1"));
        else
            buf_add_char(&b, name.p[i]);
    struct str out = arena_str(c->arena, buf_str(&b));
    buf_release(&b);
    return out;
}

struct sub sub_below(struct schema *c, const struct sub *s, const char *key, struct str name,
                     struct value v) {
    struct str path = path_add(c, s->path, str_of(key));
    return (struct sub){.v = v, .path = name.p ? path_add(c, path, name) : path};
}

bool sub_member(struct schema *c, const struct sub *s, const char *key, struct sub *out) {
    struct value v = value_get(&s->v, str_of(key));
    if (v.kind == VALUE_UNDEFINED)
        return false;
    *out = sub_below(c, s, key, STR_NONE, v);
    return true;
}

/* --- references --- */

static i32 hex_value(char c) {
    const char *digits = "0123456789abcdef0123456789ABCDEF", *at = c ? strchr(digits, c) : NULL;
    return at ? (i32)((at - digits) % 16) : -1;
}

/* One step of a JSON pointer in a URI fragment: %XX, then ~1 and ~0. */
static struct str pointer_step(struct arena *a, struct str step) {
    char *out = arena_alloc(a, step.n + 1);
    size_t n = 0;
    for (size_t i = 0; i < step.n; i++) {
        char c = step.p[i];
        if (c == '%' && i + 2 < step.n && hex_value(step.p[i + 1]) >= 0 && hex_value(step.p[i + 2]) >= 0) {
            c = (char)(hex_value(step.p[i + 1]) * 16 + hex_value(step.p[i + 2]));
            i += 2;
        }
        out[n++] = c;
    }
    size_t m = 0;
    for (size_t i = 0; i < n; i++) {
        bool escape = out[i] == '~' && i + 1 < n && (out[i + 1] == '0' || out[i + 1] == '1');
        out[m++] = escape ? (out[i + 1] == '0' ? '~' : '/') : out[i];
        i += escape;
    }
    return (struct str){out, m};
}

static enum status resolve(struct schema *c, const struct sub *s, struct str ref, struct sub *out,
                           struct err *err) {
    struct value v = c->root;
    if (ref.n == 0 || ref.p[0] != '#' || (ref.n > 1 && ref.p[1] != '/'))
        return err_set(
            err, ERR_INVALID,
            "schema keyword at %.*s/$ref is not supported: \"%.*s\" is no place in this schema (#/...)",
            STR_FMT(s->path), STR_FMT(ref));
    for (size_t at = 1; at < ref.n && v.kind != VALUE_UNDEFINED;) {
        size_t end = MIN(str_find(ref, STR("/"), at + 1), ref.n);
        struct str step = pointer_step(c->arena, str_slice(ref, at + 1, end));
        u64 i;
        if (v.kind == VALUE_LIST)
            v = str_to_u64(step, &i) && i < v.list.n ? v.list.items[i] : (struct value){0};
        else
            v = value_get(&v, step);
        at = end;
    }
    if (v.kind == VALUE_UNDEFINED)
        return err_set(err, ERR_INVALID, "schema keyword at %.*s/$ref points to nothing: \"%.*s\"",
                       STR_FMT(s->path), STR_FMT(ref));
    struct str below = str_slice(ref, 1, ref.n);
    *out = (struct sub){.v = v, .path = arena_printf(c->arena, "%.*s%.*s", STR_FMT(c->path), STR_FMT(below))};
    return OK;
}

/* --- single keywords --- */

static enum status count_of(const struct sub *s, const char *key, const struct value *v, u64 *out,
                            struct err *err) {
    if (v->kind == VALUE_INT && v->i >= 0)
        *out = (u64)v->i;
    else if (v->kind == VALUE_FLOAT && v->f >= 0 && v->f == floor(v->f))
        *out = v->f < 0x1p62 ? (u64)v->f : (u64)1 << 62;
    else
        return keyword_wrong(s, key, "a whole number that is not negative", err);
    return OK;
}

static enum status merge_count(struct merged *m, const struct sub *s, const struct keyword_row *row,
                               const struct value *v, struct err *err) {
    bool min = row->kind == KEY_MIN;
    u64 n = 0, *at;
    TRY(count_of(s, row->name, v, &n, err));
    if (row->types == TYPE_STRING)
        at = min ? &m->min_length : &m->max_length;
    else if (row->types == TYPE_ARRAY)
        at = min ? &m->min_items : &m->max_items;
    else
        at = min ? &m->min_properties : &m->max_properties;
    *at = min ? MAX(*at, n) : MIN(*at, n);
    return OK;
}

static u32 type_of(struct str name) {
    static const struct {
        const char *name;
        u32 types;
    } names[] = {{"null", TYPE_NULL},     {"boolean", TYPE_BOOL},  {"integer", TYPE_INTEGER},
                 {"number", TYPE_NUMBER}, {"string", TYPE_STRING}, {"array", TYPE_ARRAY},
                 {"object", TYPE_OBJECT}};
    for (u32 i = 0; i < ARRAY_LEN(names); i++)
        if (str_is(name, names[i].name))
            return names[i].types;
    return 0;
}

static enum status merge_type(struct merged *m, const struct sub *s, const struct value *v, struct err *err) {
    const char *want = "\"null\", \"boolean\", \"integer\", \"number\", \"string\", \"array\" or \"object\", "
                       "or a list of these";
    u32 types = 0, n = v->kind == VALUE_LIST ? v->list.n : 1;
    for (u32 i = 0; i < n; i++) {
        const struct value *one = v->kind == VALUE_LIST ? &v->list.items[i] : v;
        u32 type = one->kind == VALUE_STR ? type_of(one->s) : 0;
        if (!type)
            return keyword_wrong(s, "type", want, err);
        types |= type;
    }
    m->types &= types;
    m->typed = true;
    return OK;
}

static bool is_number(const struct value *v) {
    return v->kind == VALUE_INT || (v->kind == VALUE_FLOAT && isfinite(v->f));
}

static enum status merge_bound(struct merged *m, const struct sub *s, const char *key, const struct value *v,
                               struct err *err) {
    bool low = strstr(key, "inimum") != NULL, exclusive = key[0] == 'e';
    struct value limit = *v;
    if (v->kind == VALUE_BOOL && exclusive) {
        /* Draft 4: a flag beside minimum or maximum. */
        limit = value_get(&s->v, low ? STR("minimum") : STR("maximum"));
        if (!v->b || limit.kind == VALUE_UNDEFINED)
            return OK;
    }
    if (!is_number(&limit))
        return keyword_wrong(s, key, "a number", err);
    struct bound *at = low ? &m->lo : &m->hi, new = {true, exclusive, decimal_of(&limit)};
    int order = at->set ? decimal_compare(&new.at, &at->at) : 0;
    if (!at->set || (low ? order > 0 : order < 0) || (order == 0 && exclusive))
        *at = new;
    return OK;
}

static enum status merge_multiple(struct schema *c, struct merged *m, const struct sub *s,
                                  const struct value *v, struct err *err) {
    if (!is_number(v) || (v->kind == VALUE_INT ? v->i <= 0 : !(v->f > 0)))
        return keyword_wrong(s, "multipleOf", "a number above 0", err);
    struct decimal d = decimal_of(v);
    if (m->multiple.n && decimal_compare(&d, &m->multiple) != 0)
        return keyword_refuse(s->path, "multipleOf", err); /* two of them at once */
    m->multiple = d;
    m->multiple_path = path_add(c, s->path, STR("multipleOf"));
    return OK;
}

static void patterns_add(struct schema *c, struct patterns *p, struct pattern one) {
    for (u32 i = 0; i < p->n; i++)
        if (str_eq(p->list[i].regex, one.regex))
            return;
    if (p->n == p->cap) {
        struct pattern *list = ARENA_ARRAY(c->arena, struct pattern, 2 * p->cap + 2);
        if (p->n)
            memcpy(list, p->list, p->n * sizeof *list);
        p->list = list;
        p->cap = 2 * p->cap + 2;
    }
    p->list[p->n++] = one;
}

static enum status merge_pattern(struct schema *c, struct merged *m, const struct sub *s,
                                 const struct value *v, bool format, struct err *err) {
    const char *key = format ? "format" : "pattern";
    struct str regex = v->s;
    if (v->kind != VALUE_STR)
        return keyword_wrong(s, key, "a string", err);
    if (format && !format_pattern(v->s, &regex))
        return err_set(err, ERR_INVALID, "schema keyword at %.*s/format is not supported: \"%.*s\"",
                       STR_FMT(s->path), STR_FMT(v->s));
    if (!regex.p)
        return OK; /* a format that only annotates */
    m->implied |= TYPE_STRING;
    patterns_add(c, &m->patterns, (struct pattern){regex, path_add(c, s->path, str_of(key)), false});
    return OK;
}

/* The first list is kept; grammar_value.c checks its values against all schemas. */
static enum status merge_values(struct merged *m, const struct sub *s, const struct value *v,
                                struct err *err) {
    if (v->kind != VALUE_LIST || v->list.n == 0)
        return keyword_wrong(s, "enum", "a list of values", err);
    if (!m->has_values)
        m->values = *v;
    m->has_values = true;
    return OK;
}

static void merge_const(struct schema *c, struct merged *m, const struct value *v) {
    if (!m->has_values) {
        m->values = value_list();
        value_append(c->arena, &m->values, *v);
    }
    m->has_values = true;
}

static enum status merge_list(struct schema *c, struct merged *m, u32 at, const struct keyword_row *row,
                              const struct value *v, struct err *err) {
    const struct sub s = m->flat.list[at];
    if (v->kind != VALUE_LIST || v->list.n == 0)
        return keyword_wrong(&s, row->name, "a list of schemas", err);
    if (row->kind == KEY_ALL_OF) {
        for (u32 i = 0; i < v->list.n; i++)
            subs_add(c, &m->flat,
                     sub_below(c, &s, "allOf", arena_printf(c->arena, "%u", i), v->list.items[i]));
        return OK;
    }
    bool one = row->kind == KEY_ONE_OF;
    if (!m->has_group && !(one ? s.one_of_done : s.any_of_done)) {
        m->has_group = true;
        m->group_is_one = one;
        m->group_owner = at;
    }
    return OK;
}

static enum status check_required(const struct sub *s, const struct value *v, struct err *err) {
    if (v->kind == VALUE_BOOL)
        return OK; /* draft 3: it was a flag of a property */
    for (u32 i = 0; v->kind == VALUE_LIST && i < v->list.n; i++)
        if (v->list.items[i].kind != VALUE_STR)
            return keyword_wrong(s, "required", "a list of names", err);
    return v->kind == VALUE_LIST ? OK : keyword_wrong(s, "required", "a list of names", err);
}

static bool is_schema(const struct value *v) { return v->kind == VALUE_OBJECT || v->kind == VALUE_BOOL; }

/* One keyword of flat.list[at]; may append to flat. */
static enum status merge_keyword(struct schema *c, struct merged *m, u32 at, const struct keyword_row *row,
                                 const struct value *v, struct err *err) {
    const struct sub s = m->flat.list[at];
    struct sub target;
    m->implied |= row->types;
    switch (row->kind) {
    case KEY_REFUSED: return keyword_refuse(s.path, row->name, err);
    case KEY_TYPE: return merge_type(m, &s, v, err);
    case KEY_VALUES: return merge_values(m, &s, v, err);
    case KEY_CONST: merge_const(c, m, v); return OK;
    case KEY_REF:
        if (v->kind != VALUE_STR)
            return keyword_wrong(&s, "$ref", "a string", err);
        TRY(resolve(c, &s, v->s, &target, err));
        subs_add(c, &m->flat, target);
        return OK;
    case KEY_ALL_OF:
    case KEY_ANY_OF:
    case KEY_ONE_OF: return merge_list(c, m, at, row, v, err);
    case KEY_MIN:
    case KEY_MAX: return merge_count(m, &s, row, v, err);
    case KEY_PATTERN: return merge_pattern(c, m, &s, v, false, err);
    case KEY_FORMAT: return merge_pattern(c, m, &s, v, true, err);
    case KEY_BOUND: return merge_bound(m, &s, row->name, v, err);
    case KEY_MULTIPLE: return merge_multiple(c, m, &s, v, err);
    case KEY_UNIQUE:
        if (v->kind != VALUE_BOOL)
            return keyword_wrong(&s, row->name, "true or false", err);
        return v->b ? keyword_refuse(s.path, row->name, err) : OK;
    case KEY_SUBSCHEMAS:
        return v->kind == VALUE_OBJECT ? OK : keyword_wrong(&s, row->name, "an object of schemas", err);
    case KEY_SUBSCHEMA: return is_schema(v) ? OK : keyword_wrong(&s, row->name, "a schema", err);
    case KEY_ITEMS:
        return is_schema(v) || v->kind == VALUE_LIST ? OK : keyword_wrong(&s, row->name, "a schema", err);
    case KEY_REQUIRED: return check_required(&s, v, err);
    case KEY_UNEVALUATED:
        /* What is built under a schema of this kind has evaluated members only. */
        *(row->types == TYPE_ARRAY ? &m->sealed_items : &m->sealed_properties) = true;
        return is_schema(v) ? OK : keyword_wrong(&s, row->name, "a schema", err);
    case KEY_IF: {
        bool alone = value_get(&s.v, STR("then")).kind == VALUE_UNDEFINED &&
                     value_get(&s.v, STR("else")).kind == VALUE_UNDEFINED;
        return alone ? OK : keyword_refuse(s.path, "if", err);
    }
    }
    return OK;
}

/* An earlier one says the same. A schema whose alternative has been chosen is not the same as the schema: one
 * that refers to itself through its own alternative would be satisfied by that. */
static bool is_repeated(const struct subs *flat, u32 at) {
    const struct sub *s = &flat->list[at];
    for (u32 i = 0; i < at; i++) {
        const struct sub *other = &flat->list[i];
        if (s->v.kind == VALUE_OBJECT && other->v.kind == VALUE_OBJECT && other->v.object == s->v.object &&
            other->any_of_done == s->any_of_done && other->one_of_done == s->one_of_done)
            return true;
    }
    return s->v.kind == VALUE_BOOL && s->v.b;
}

static enum status merge_members(struct schema *c, struct merged *m, u32 at, struct err *err) {
    struct value v = m->flat.list[at].v;
    u32 n = value_object_len(&v);
    for (u32 k = 0; k < n; k++) {
        struct str key;
        struct value member;
        value_member_at(&v, k, &key, &member);
        const struct keyword_row *row = keyword_find(key);
        if (row)
            TRY(merge_keyword(c, m, at, row, &member, err));
        if (++c->n_merges > LIMIT_GRAMMAR_MERGES)
            return err_set(err, ERR_TOO_LARGE, "the schema has too many combinations of subschemas");
    }
    return OK;
}

enum status schema_merge(struct schema *c, const struct subs *subs, struct merged *m, struct err *err) {
    *m = (struct merged){
        .types = TYPE_ANY, .max_length = UINT64_MAX, .max_items = UINT64_MAX, .max_properties = UINT64_MAX};
    for (u32 i = 0; i < subs->n; i++)
        subs_add(c, &m->flat, subs->list[i]);
    for (u32 i = 0; i < m->flat.n; i++) {
        const struct sub s = m->flat.list[i];
        if (is_repeated(&m->flat, i)) {
            memmove(&m->flat.list[i], &m->flat.list[i + 1], (m->flat.n - i - 1) * sizeof s);
            m->flat.n--;
            i--;
            continue;
        }
        if (m->flat.n > LIMIT_GRAMMAR_CONJUNCTS)
            return err_set(err, ERR_TOO_LARGE, "schema at %.*s: more than %u schemas hold at the same time",
                           STR_FMT(s.path), LIMIT_GRAMMAR_CONJUNCTS);
        if (s.v.kind == VALUE_BOOL)
            m->never = true;
        else if (s.v.kind != VALUE_OBJECT)
            return err_set(err, ERR_INVALID, "schema at \"%.*s\" must be an object or a boolean",
                           STR_FMT(s.path));
        else
            TRY(merge_members(c, m, i, err));
    }
    m->never |= m->types == 0;
    return OK;
}
