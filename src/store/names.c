/* names.c - model names: [scheme://][host/][namespace/]model[:tag]. */
#include "store/store.h"

enum part { PART_HOST, PART_NAMESPACE, PART_MODEL, PART_TAG };

#define HOST_DEFAULT "registry.ollama.ai"
#define NAMESPACE_DEFAULT "library"

static bool word_char(char c) {
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_';
}

/* The first character is what keeps ".", ".." and hidden files out of the store's paths. */
static bool part_valid(enum part part, struct str s) {
    if (s.n < 1 || s.n > (part == PART_HOST ? 350 : 80) || !word_char(s.p[0]))
        return false;
    for (size_t i = 1; i < s.n; i++) {
        char c = s.p[i];
        bool ok = word_char(c) || c == '-' || (c == '.' && part != PART_NAMESPACE) ||
                  (c == ':' && part == PART_HOST);
        if (!ok)
            return false;
    }
    return true;
}

static size_t last_of(struct str s, char c) {
    for (size_t at = s.n; at > 0; at--)
        if (s.p[at - 1] == c)
            return at - 1;
    return SIZE_MAX;
}

/* Cuts the text behind the last separator off into *part. False if there is none, then *part is all of
 * it; a separator with nothing on one side gives an empty part or rest, which is not valid. */
static bool cut_last(struct str *rest, char separator, struct str *part) {
    size_t at = last_of(*rest, separator);
    if (at == SIZE_MAX) {
        *part = *rest;
        return false;
    }
    *part = str_slice(*rest, at + 1, rest->n);
    rest->n = at;
    return true;
}

static bool part_set(enum part part, struct str s, char *out) {
    if (!part_valid(part, s))
        return false;
    memcpy(out, s.p, s.n);
    out[s.n] = 0;
    return true;
}

enum status model_name_parse(struct str text, struct model_name *out, struct err *err) {
    struct str rest = text, host = STR(HOST_DEFAULT), space = STR(NAMESPACE_DEFAULT), model,
               tag = STR("latest");
    *out = (struct model_name){0}; /* equal names are equal bytes */
    size_t colon = last_of(text, ':'), slash = last_of(text, '/');
    if (colon != SIZE_MAX && (slash == SIZE_MAX || colon > slash))
        cut_last(&rest, ':', &tag);
    if (cut_last(&rest, '/', &model) && cut_last(&rest, '/', &space)) {
        size_t scheme = str_find(rest, STR("://"), 0);
        struct str named = scheme == SIZE_MAX ? rest : str_slice(rest, scheme + 3, rest.n);
        if (named.n || scheme == SIZE_MAX)
            host = named;
    }
    if (!part_set(PART_HOST, host, out->host) || !part_set(PART_NAMESPACE, space, out->namespace_) ||
        !part_set(PART_MODEL, model, out->model) || !part_set(PART_TAG, tag, out->tag))
        return err_set(err, ERR_INVALID, "invalid model name");
    return OK;
}

struct str model_name_short(const struct model_name *n, struct arena *a) {
    if (!str_eq_nocase(str_of(n->host), STR(HOST_DEFAULT)))
        return model_name_full(n, a);
    if (!str_eq_nocase(str_of(n->namespace_), STR(NAMESPACE_DEFAULT)))
        return arena_printf(a, "%s/%s:%s", n->namespace_, n->model, n->tag);
    return arena_printf(a, "%s:%s", n->model, n->tag);
}

struct str model_name_full(const struct model_name *n, struct arena *a) {
    return arena_printf(a, "%s/%s/%s:%s", n->host, n->namespace_, n->model, n->tag);
}

bool model_name_from_parts(const char *host, const char *space, const char *model, const char *tag,
                           struct model_name *out) {
    *out = (struct model_name){0};
    return part_set(PART_HOST, str_of(host), out->host) &&
           part_set(PART_NAMESPACE, str_of(space), out->namespace_) &&
           part_set(PART_MODEL, str_of(model), out->model) && part_set(PART_TAG, str_of(tag), out->tag);
}
