/* value.c - building and reading values. An object is an array of members in insertion order; beyond a
 * few members an open-addressing index of positions is kept beside it. */
#include "chat/value.h"

#include <math.h>

/* Up to here a linear search is as fast as a hash. */
#define OBJECT_LINEAR_MAX 8u

struct value_member {
    struct value key, v;
};

struct value_object {
    struct value_member *members; /* [cap] */
    u32 n, cap;
    u32 *index;  /* [n_index] position + 1 of a member, 0 = free; NULL while n <= OBJECT_LINEAR_MAX */
    u32 n_index; /* a power of two, at least 2 * n */
};

struct value value_str(struct str s) {
    return (struct value){.kind = VALUE_STR, .s = s};
}
struct value value_int(i64 i) {
    return (struct value){.kind = VALUE_INT, .i = i};
}
struct value value_bool(bool b) {
    return (struct value){.kind = VALUE_BOOL, .b = b};
}
struct value value_list(void) {
    return (struct value){.kind = VALUE_LIST};
}

struct value value_object(struct arena *a) {
    struct value v;
    check(value_try_object(a, &v));
    return v;
}

void value_append(struct arena *a, struct value *list, struct value item) {
    check(value_try_append(a, list, item));
}

void value_set(struct arena *a, struct value *object, struct str key, struct value v) {
    check(value_try_set_key(a, object, value_str(key), v));
}

bool value_try_object(struct arena *a, struct value *out) {
    struct value_object *o = arena_try_alloc(a, sizeof *o);
    if (!o)
        return false;
    *o = (struct value_object){0};
    *out = (struct value){.kind = VALUE_OBJECT, .object = o};
    return true;
}

bool value_try_append(struct arena *a, struct value *list, struct value item) {
    check(list->kind == VALUE_LIST);
    if (list->list.n == list->list.cap) {
        u32 cap = list->list.cap ? list->list.cap * 2 : 4;
        if (cap < list->list.cap)
            return false;
        struct value *items = arena_try_alloc(a, cap * sizeof *items);
        if (!items)
            return false;
        if (list->list.n)
            memcpy(items, list->list.items, list->list.n * sizeof *items);
        list->list.items = items;
        list->list.cap = cap;
    }
    list->list.items[list->list.n++] = item;
    return true;
}

static bool key_number(const struct value *k, f64 *out) {
    if (k->kind == VALUE_BOOL)
        *out = k->b;
    else if (k->kind == VALUE_INT)
        *out = (f64)k->i;
    else if (k->kind == VALUE_FLOAT)
        *out = k->f;
    else
        return false;
    return true;
}

static bool key_equal(const struct value *a, const struct value *b) {
    if (a->kind == VALUE_STR || b->kind == VALUE_STR)
        return a->kind == b->kind && str_eq(a->s, b->s);
    if (a->kind == VALUE_INT && b->kind == VALUE_INT)
        return a->i == b->i;
    f64 x, y;
    if (key_number(a, &x) && key_number(b, &y))
        return x == y;
    if (a->kind != b->kind)
        return false;
    if (a->kind == VALUE_LIST) { /* tuples */
        if (a->list.n != b->list.n)
            return false;
        for (u32 i = 0; i < a->list.n; i++)
            if (!key_equal(&a->list.items[i], &b->list.items[i]))
                return false;
        return true;
    }
    return a->kind == VALUE_NONE || (a->kind == VALUE_CALLABLE && a->callable == b->callable);
}

/* Salted by the object's address: keys that collide by design need to know it. */
static u64 key_hash(const struct value_object *o, const struct value *k) {
    u64 seed = (u64)(uintptr_t)o;
    if (k->kind == VALUE_STR)
        return hash_bytes(k->s.p, k->s.n, seed);
    f64 x = 0;
    if (key_number(k, &x)) {
        x += 0.0; /* -0 and 0 are one key */
        return hash_bytes(&x, sizeof x, seed);
    }
    u32 tag = (u32)k->kind + (k->kind == VALUE_LIST ? k->list.n << 8 : 0);
    return hash_bytes(&tag, sizeof tag, seed);
}

/* The slot that holds key, or the free one where it belongs. */
static u32 *object_slot(const struct value_object *o, const struct value *key) {
    u32 at = (u32)key_hash(o, key) & (o->n_index - 1);
    while (o->index[at] && !key_equal(&o->members[o->index[at] - 1].key, key))
        at = (at + 1) & (o->n_index - 1);
    return &o->index[at];
}

static struct value_member *object_find(const struct value_object *o, const struct value *key) {
    if (o->index) {
        u32 *slot = object_slot(o, key);
        return *slot ? &o->members[*slot - 1] : NULL;
    }
    for (u32 i = 0; i < o->n; i++)
        if (key_equal(&o->members[i].key, key))
            return &o->members[i];
    return NULL;
}

static bool object_grow(struct arena *a, struct value_object *o) {
    if (o->n == o->cap) {
        u32 cap = o->cap ? o->cap * 2 : 4;
        if (cap < o->cap)
            return false;
        struct value_member *members = arena_try_alloc(a, cap * sizeof *members);
        if (!members)
            return false;
        if (o->n)
            memcpy(members, o->members, o->n * sizeof *members);
        o->members = members;
        o->cap = cap;
    }
    if (o->n < OBJECT_LINEAR_MAX || (o->index && o->n_index >= 2 * (o->n + 1)))
        return true;
    u32 n_index = o->index ? o->n_index * 2 : OBJECT_LINEAR_MAX * 4;
    u32 *index = arena_try_alloc(a, n_index * sizeof *index);
    if (!index)
        return false;
    memset(index, 0, n_index * sizeof *index);
    o->index = index;
    o->n_index = n_index;
    for (u32 i = 0; i < o->n; i++)
        *object_slot(o, &o->members[i].key) = i + 1;
    return true;
}

bool value_try_set_key(struct arena *a, struct value *object, struct value key, struct value v) {
    check(object->kind == VALUE_OBJECT);
    struct value_object *o = object->object;
    struct value_member *m = object_find(o, &key);
    if (m) {
        m->v = v;
        return true;
    }
    if (!object_grow(a, o))
        return false;
    if (o->index)
        *object_slot(o, &key) = o->n + 1;
    o->members[o->n++] = (struct value_member){key, v};
    return true;
}

bool value_get_key(const struct value *object, const struct value *key, struct value *out) {
    struct value_member *m = object->kind == VALUE_OBJECT ? object_find(object->object, key) : NULL;
    if (m)
        *out = m->v;
    return m != NULL;
}

struct value value_get(const struct value *object, struct str key) {
    struct value k = value_str(key), v = {0};
    value_get_key(object, &k, &v);
    return v;
}

u32 value_object_len(const struct value *object) {
    return object->kind == VALUE_OBJECT ? object->object->n : 0;
}

void value_entry_at(const struct value *object, u32 i, struct value *key, struct value *v) {
    check(object->kind == VALUE_OBJECT);
    check(i < object->object->n);
    *key = object->object->members[i].key;
    *v = object->object->members[i].v;
}

void value_member_at(const struct value *object, u32 i, struct str *key, struct value *v) {
    struct value k;
    value_entry_at(object, i, &k, v);
    *key = k.kind == VALUE_STR ? k.s : STR_NONE;
}
