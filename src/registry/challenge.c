/* challenge.c - RFC 9110's challenge syntax as far as registries use it. */
#include "registry/challenge.h"

#include <jansson.h>

#include "base/buf.h"
#include "base/limit.h"

/* Visible ASCII: what may stand in a header or URL of ours. */
static bool text_plain(struct str s) {
    for (size_t i = 0; i < s.n; i++)
        if ((u8)s.p[i] <= 0x20 || (u8)s.p[i] >= 0x7f)
            return false;
    return true;
}

static void skip(struct str *s, const char *these) {
    while (s->n && s->p[0] && strchr(these, s->p[0]))
        *s = str_slice(*s, 1, s->n);
}

/* Up to one of the stops, or the end. */
static struct str word(struct str *s, const char *stops) {
    size_t n = 0;
    while (n < s->n && (!s->p[n] || !strchr(stops, s->p[n])))
        n++;
    struct str w = str_slice(*s, 0, n);
    *s = str_slice(*s, n, s->n);
    return w;
}

static struct str value_read(struct str *s, struct arena *a) {
    if (!str_starts(*s, STR("\"")))
        return arena_str(a, word(s, ", \t"));
    struct buf b = {0};
    size_t at = 1;
    for (; at < s->n && s->p[at] != '"'; at++) {
        if (s->p[at] == '\\' && at + 1 < s->n)
            at++;
        buf_add_char(&b, s->p[at]);
    }
    *s = str_slice(*s, at + 1, s->n);
    struct str v = arena_str(a, buf_str(&b));
    buf_release(&b);
    return v;
}

enum status challenge_parse(struct str header, struct arena *a, struct challenge *out, struct err *err) {
    *out = (struct challenge){0};
    struct str s = str_trim(header);
    if (!str_eq_nocase(word(&s, " \t"), STR("Bearer")))
        return err_set(err, ERR_INVALID, "the registry wants another authentication than Bearer tokens");
    while (skip(&s, " \t,"), s.n) {
        struct str key = word(&s, "=, \t");
        if (s.n == 0 || s.p[0] != '=')
            continue; /* a parameter without a value */
        s = str_slice(s, 1, s.n);
        struct str v = value_read(&s, a);
        if (str_eq_nocase(key, STR("realm")))
            out->realm = v;
        else if (str_eq_nocase(key, STR("service")))
            out->service = v;
        else if (str_eq_nocase(key, STR("scope")))
            out->scope = v;
    }
    if (out->realm.n == 0 || !text_plain(out->realm))
        return err_set(err, ERR_INVALID, "the registry's challenge has no usable realm");
    return OK;
}

/* As in a query: unreserved characters stay, a blank becomes '+'. */
static void query_add(struct buf *b, const char *key, struct str value) {
    if (b->n && b->p[b->n - 1] != '?')
        buf_add_char(b, '&');
    buf_printf(b, "%s=", key);
    for (size_t i = 0; i < value.n; i++) {
        u8 c = (u8)value.p[i];
        bool plain = (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z') || c == '-' ||
                     c == '_' || c == '.' || c == '~';
        if (plain)
            buf_add_char(b, (char)c);
        else if (c == ' ')
            buf_add_char(b, '+');
        else
            buf_printf(b, "%%%02X", c);
    }
}

struct str challenge_url(const struct challenge *c, struct str nonce, i64 unix_s, struct arena *a) {
    struct buf b = {0};
    char ts[32];
    snprintf(ts, sizeof ts, "%lld", (long long)unix_s);
    struct str realm = str_slice(c->realm, 0, str_find(c->realm, STR("#"), 0));
    buf_add_str(&b, realm);
    buf_add_char(&b, str_find(realm, STR("?"), 0) == SIZE_MAX ? '?' : '&');
    if (b.p[b.n - 1] == '&')
        b.n--; /* query_add puts it */
    query_add(&b, "nonce", nonce);
    struct str scopes = c->scope;
    while (skip(&scopes, " "), scopes.n)
        query_add(&b, "scope", word(&scopes, " "));
    query_add(&b, "service", c->service);
    query_add(&b, "ts", str_of(ts));
    struct str url = arena_str(a, buf_str(&b));
    buf_release(&b);
    return url;
}

enum status token_parse(struct str json, struct arena *a, struct str *token, struct err *err) {
    json_t *root = json_loadb(json.p ? json.p : "", json.n, 0, NULL);
    json_t *v = json_object_get(root, "token");
    if (!json_string_length(v))
        v = json_object_get(root, "access_token");
    struct str text = {json_string_value(v), json_string_length(v)};
    enum status status = OK;
    if (text.n == 0 || text.n > LIMIT_REGISTRY_TOKEN_BYTES || !text_plain(text))
        status = err_set(err, ERR_CORRUPT, "the registry's token service gave no usable token");
    else
        *token = arena_str(a, text);
    json_decref(root);
    return status;
}
