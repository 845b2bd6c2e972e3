/* settings.c - environment variables to typed values. */
#include "base/settings.h"

#include "base/limit.h"
#include "base/log.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* The value without blanks and quotes around it; empty if unset. */
static struct str env_str(const char *name) {
    struct str s = str_trim(str_of(getenv(name)));
    while (s.n && (s.p[0] == '"' || s.p[0] == '\''))
        s.p++, s.n--;
    while (s.n && (s.p[s.n - 1] == '"' || s.p[s.n - 1] == '\''))
        s.n--;
    return s;
}

/* Copies that live as long as the process, like the environment itself. */
static const char *env_text(const char *name) {
    struct str s = env_str(name);
    if (s.n == 0)
        return NULL;
    char *copy = xmalloc(s.n + 1);
    memcpy(copy, s.p, s.n);
    copy[s.n] = 0;
    return copy;
}

static u32 env_u32(const char *name, u32 fallback) {
    struct str s = env_str(name);
    u64 v;
    if (s.n == 0)
        return fallback;
    if (str_to_u64(s, &v) && v <= UINT32_MAX)
        return (u32)v;
    log_warn("invalid environment variable, using default", "key=%s value=\"%.*s\" default=%u", name, STR_FMT(s), fallback);
    return fallback;
}

static bool env_bool(const char *name) {
    struct str s = env_str(name);
    return s.n && !str_is(s, "0") && !str_eq_nocase(s, STR("false")) && !str_eq_nocase(s, STR("f"));
}

bool duration_parse(struct str text, bool plain_seconds, i64 *ns) {
    static const struct { const char *name; f64 ns; } units[] = {
        {"ns", 1}, {"us", 1e3}, {"\xc2\xb5s", 1e3}, {"\xce\xbcs", 1e3}, {"ms", 1e6}, {"s", 1e9}, {"m", 60e9}, {"h", 3600e9}};
    f64 total = 0, sign = 1, number;
    if (plain_seconds && str_to_f64(text, &number) && fabs(number) < 9e9) {
        *ns = (i64)(number * 1e9);
        return true;
    }
    if (text.n && (text.p[0] == '-' || text.p[0] == '+')) {
        sign = text.p[0] == '-' ? -1 : 1;
        text = str_slice(text, 1, text.n);
    }
    if (str_is(text, "0")) {
        *ns = 0;
        return true;
    }
    if (text.n == 0)
        return false;
    while (text.n) {
        size_t digits = 0;
        while (digits < text.n && ((text.p[digits] >= '0' && text.p[digits] <= '9') || text.p[digits] == '.'))
            digits++;
        if (!str_to_f64(str_slice(text, 0, digits), &number))
            return false;
        text = str_slice(text, digits, text.n);
        size_t best = 0;
        f64 unit = 0;
        for (size_t i = 0; i < ARRAY_LEN(units); i++)
            if (str_starts(text, str_of(units[i].name)) && strlen(units[i].name) > best) {
                best = strlen(units[i].name);
                unit = units[i].ns;
            }
        if (best == 0)
            return false;
        total += number * unit;
        text = str_slice(text, best, text.n);
    }
    if (total >= 9.2e18)
        return false;
    *ns = (i64)(sign * total);
    return true;
}

bool bytes_parse(struct str text, u64 *bytes) {
    f64 scale = 1, number;
    if (str_ends(text, STR("iB")) || str_ends(text, STR("ib")))
        text.n -= 2;
    else if (text.n && (text.p[text.n - 1] == 'B' || text.p[text.n - 1] == 'b'))
        text.n--;
    if (text.n) {
        switch (text.p[text.n - 1]) {
        case 'k': case 'K': scale = 1024.0; break;
        case 'm': case 'M': scale = 1024.0 * 1024; break;
        case 'g': case 'G': scale = 1024.0 * 1024 * 1024; break;
        case 't': case 'T': scale = 1024.0 * 1024 * 1024 * 1024; break;
        default: break;
        }
        if (scale > 1)
            text.n--;
    }
    if (!str_to_f64(str_trim(text), &number) || !(number >= 0) || number * scale > 1e18)
        return false;
    *bytes = (u64)(number * scale);
    return true;
}

static enum status bad_host(struct str text, struct err *err) {
    return err_set(err, ERR_INVALID, "OLLAMA_HOST=\"%.*s\" is not understood; write host:port, e.g. OLLAMA_HOST=127.0.0.1:11434",
                   STR_FMT(text));
}

static enum status read_host(struct settings *s, struct str text, struct err *err) {
    struct str rest = text;
    u64 port = 11434;
    snprintf(s->host, sizeof s->host, "127.0.0.1");
    if (str_starts(rest, STR("unix:"))) {
        rest = str_slice(rest, 5, rest.n);
        if (rest.n == 0 || rest.n >= sizeof s->unix_path)
            return err_set(err, ERR_INVALID, "the socket path in OLLAMA_HOST must have 1 to %zu bytes", sizeof s->unix_path - 1);
        snprintf(s->unix_path, sizeof s->unix_path, "%.*s", STR_FMT(rest));
        s->host[0] = 0;
        return OK;
    }
    if (str_starts(rest, STR("http://"))) {
        port = 80;
        rest = str_slice(rest, 7, rest.n);
    } else if (str_starts(rest, STR("https://"))) {
        port = 443;
        s->https = true;
        rest = str_slice(rest, 8, rest.n);
    }
    size_t slash = str_find(rest, STR("/"), 0);
    if (slash != SIZE_MAX) {
        struct str path = str_slice(rest, slash, rest.n);
        while (path.n && path.p[path.n - 1] == '/')
            path.n--;
        snprintf(s->host_path, sizeof s->host_path, "%.*s", STR_FMT(path));
        rest = str_slice(rest, 0, slash);
    }
    struct str host = rest, number = STR_NONE;
    if (host.n && host.p[0] == '[') {
        size_t end = str_find(host, STR("]"), 0);
        if (end == SIZE_MAX)
            return bad_host(text, err);
        number = str_slice(rest, end + 1, rest.n);
        host = str_slice(rest, 1, end);
        if (number.n && number.p[0] != ':')
            return bad_host(text, err);
        number = str_slice(number, 1, number.n);
    } else {
        size_t first = str_find(host, STR(":"), 0);
        bool ipv6 = first != SIZE_MAX && str_find(host, STR(":"), first + 1) != SIZE_MAX;
        if (first != SIZE_MAX && !ipv6) {
            number = str_slice(rest, first + 1, rest.n);
            host = str_slice(rest, 0, first);
        }
    }
    if (number.n && (!str_to_u64(number, &port) || port > 65535))
        return bad_host(text, err);
    if (host.n >= sizeof s->host)
        return bad_host(text, err);
    if (host.n)
        snprintf(s->host, sizeof s->host, "%.*s", STR_FMT(host));
    s->port = (u16)port;
    return OK;
}

enum status settings_read(struct settings *out, struct err *err) {
    struct str threads_alias = env_str("OLLAMA_NUM_THREADS");
    struct str memory = env_str("MINKA_MEMORY"), wait = env_str("MINKA_MAX_WAIT");
    i64 ns;
    *out = (struct settings){0};
    TRY(read_host(out, env_str("OLLAMA_HOST"), err));
    out->models = env_text("OLLAMA_MODELS");
    out->origins = env_text("OLLAMA_ORIGINS");
    if (!out->origins)
        out->origins = "";
    out->num_ctx = env_u32("OLLAMA_CONTEXT_LENGTH", 0);
    if (out->num_ctx == 0)
        out->num_ctx = 4096;
    out->num_ctx = MAX(4u, MIN(out->num_ctx, LIMIT_NUM_CTX));
    out->keep_alive = env_text("OLLAMA_KEEP_ALIVE");
    out->kv_cache_type = env_text("OLLAMA_KV_CACHE_TYPE");
    out->num_parallel = env_u32("OLLAMA_NUM_PARALLEL", 0);
    out->max_loaded = env_u32("OLLAMA_MAX_LOADED_MODELS", 0);
    out->max_queue = env_u32("OLLAMA_MAX_QUEUE", LIMIT_QUEUE_DEFAULT);
    out->n_threads = env_u32("MINKA_THREADS", threads_alias.n ? env_u32("OLLAMA_NUM_THREADS", 0) : 0);
    if (memory.n && !bytes_parse(memory, &out->memory_bytes))
        return err_set(err, ERR_INVALID, "MINKA_MEMORY=\"%.*s\" is not a size; write e.g. MINKA_MEMORY=8G", STR_FMT(memory));
    out->max_wait_ns = 30000000000ull;
    if (wait.n && duration_parse(wait, true, &ns) && ns >= 0)
        out->max_wait_ns = (u64)ns;
    else if (wait.n)
        log_warn("invalid environment variable, using default", "key=MINKA_MAX_WAIT value=\"%.*s\" default=30s", STR_FMT(wait));
    struct str speculation = env_str("MINKA_SPECULATION");
    out->speculation = str_is(speculation, "always")                         ? SPECULATION_ALWAYS
                       : speculation.n == 0 || env_bool("MINKA_SPECULATION") ? SPECULATION_ON
                                                                             : SPECULATION_OFF;
    if (env_str("OLLAMA_GO_TEMPLATE").n)
        out->go_template = env_bool("OLLAMA_GO_TEMPLATE") ? 1 : -1;
    out->kernels = env_text("MINKA_KERNELS");
    struct str debug = env_str("OLLAMA_DEBUG");
    out->debug = str_is(debug, "2") ? 2 : env_bool("OLLAMA_DEBUG");
    out->debug_fields = env_bool("MINKA_DEBUG");
    out->no_history = env_bool("OLLAMA_NOHISTORY");
    return OK;
}

void settings_url(const struct settings *s, char *out, size_t cap) {
    bool ipv6 = strchr(s->host, ':') != NULL;
    if (s->unix_path[0])
        snprintf(out, cap, "unix:%s", s->unix_path);
    else
        snprintf(out, cap, "%s://%s%s%s:%u%s", s->https ? "https" : "http", ipv6 ? "[" : "", s->host, ipv6 ? "]" : "", s->port,
                 s->host_path);
}
