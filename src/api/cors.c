/* cors.c - origins and host names. */
#include "api/cors.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <netinet/in.h>
#include <unistd.h>

#include "base/log.h"

static const char *const origins_local[] = {
    "http://localhost", "https://localhost", "http://localhost:*", "https://localhost:*",
    "http://127.0.0.1", "https://127.0.0.1", "http://127.0.0.1:*", "https://127.0.0.1:*",
    "http://0.0.0.0",   "https://0.0.0.0",   "http://0.0.0.0:*",   "https://0.0.0.0:*",
    "app://*",          "file://*",          "tauri://*",          "vscode-webview://*",
    "vscode-file://*",
};

static struct str lower(struct arena *a, struct str s) {
    s = arena_str(a, s);
    for (char *p = (char *)s.p, *end = p + s.n; p < end; p++)
        if (*p >= 'A' && *p <= 'Z')
            *p = (char)(*p + 32);
    return s;
}

static struct str comma_take(struct str *list) {
    size_t comma = MIN(str_find(*list, STR(","), 0), list->n);
    struct str item = str_trim(str_slice(*list, 0, comma));
    *list = str_slice(*list, comma + 1, list->n);
    return item;
}

void origins_init(struct origins *o, struct str list, struct arena *a) {
    u32 n = ARRAY_LEN(origins_local) + 1;
    for (size_t i = 0; i < list.n; i++)
        n += list.p[i] == ',';
    struct str *items = ARENA_ARRAY(a, struct str, n);
    *o = (struct origins){.items = items};
    while (list.n) {
        struct str item = comma_take(&list);
        size_t star = str_find(item, STR("*"), 0);
        if (star != SIZE_MAX && str_find(item, STR("*"), star + 1) != SIZE_MAX)
            log_warn("an entry of OLLAMA_ORIGINS has more than one *, it is ignored", "entry=\"%.*s\"",
                     STR_FMT(item));
        else if (str_is(item, "*"))
            o->all = true;
        else if (item.n)
            items[o->n++] = lower(a, item);
    }
    for (size_t i = 0; i < ARRAY_LEN(origins_local); i++)
        items[o->n++] = str_of(origins_local[i]);
}

bool origin_allowed(const struct origins *o, struct str origin) {
    if (o->all)
        return true;
    for (u32 i = 0; i < o->n; i++) {
        struct str item = o->items[i];
        size_t star = str_find(item, STR("*"), 0);
        if (star == SIZE_MAX) {
            if (str_eq(item, origin))
                return true;
            continue;
        }
        struct str before = str_slice(item, 0, star), after = str_slice(item, star + 1, item.n);
        if (origin.n >= before.n + after.n && str_starts(origin, before) && str_ends(origin, after))
            return true;
    }
    return false;
}

bool origin_is_own(struct str origin, struct str host) {
    struct str rest = str_starts(origin, STR("http://"))    ? str_slice(origin, 7, origin.n)
                      : str_starts(origin, STR("https://")) ? str_slice(origin, 8, origin.n)
                                                            : STR_NONE;
    return rest.n && str_eq(rest, host);
}

/* --- host --- */

static bool v4_local(const u8 a[4]) {
    return a[0] == 127 || a[0] == 10 || (a[0] == 172 && (a[1] & 0xf0) == 16) ||
           (a[0] == 192 && a[1] == 168) || (a[0] | a[1] | a[2] | a[3]) == 0;
}

static bool v6_local(const struct in6_addr *a) {
    return IN6_IS_ADDR_LOOPBACK(a) || IN6_IS_ADDR_UNSPECIFIED(a) || (a->s6_addr[0] & 0xfe) == 0xfc ||
           (IN6_IS_ADDR_V4MAPPED(a) && v4_local(a->s6_addr + 12));
}

/* True if the machine has this address on an interface. */
static bool address_own(int family, const void *address) {
    struct ifaddrs *list;
    bool own = false;
    if (getifaddrs(&list) != 0)
        return false;
    for (struct ifaddrs *i = list; i && !own; i = i->ifa_next) {
        if (!i->ifa_addr || i->ifa_addr->sa_family != family)
            continue;
        const void *at =
            (const char *)i->ifa_addr + (family == AF_INET ? offsetof(struct sockaddr_in, sin_addr)
                                                           : offsetof(struct sockaddr_in6, sin6_addr));
        own = memcmp(at, address, family == AF_INET ? 4 : 16) == 0;
    }
    freeifaddrs(list);
    return own;
}

/* Host without its port; brackets around an IPv6 address are cut. */
static struct str host_name(struct str host) {
    if (host.n && host.p[0] == '[') {
        size_t end = str_find(host, STR("]"), 0);
        return end == SIZE_MAX ? host : str_slice(host, 1, end);
    }
    size_t colon = str_find(host, STR(":"), 0);
    bool one_colon = colon != SIZE_MAX && str_find(host, STR(":"), colon + 1) == SIZE_MAX;
    return one_colon ? str_slice(host, 0, colon) : host;
}

static bool ends_nocase(struct str s, struct str suffix) {
    return s.n >= suffix.n && str_eq_nocase(str_slice(s, s.n - suffix.n, s.n), suffix);
}

enum host_kind host_check(struct str host) {
    char text[256];
    struct in_addr v4;
    struct in6_addr v6;
    host = host_name(host);
    if (host.n == 0)
        return HOST_NAME;
    if (host.n >= sizeof text)
        return HOST_REFUSED;
    memcpy(text, host.p, host.n);
    text[host.n] = 0;
    if (inet_pton(AF_INET, text, &v4) == 1)
        return v4_local((const u8 *)&v4) || address_own(AF_INET, &v4) ? HOST_ADDRESS : HOST_REFUSED;
    if (inet_pton(AF_INET6, text, &v6) == 1)
        return v6_local(&v6) || address_own(AF_INET6, &v6) ? HOST_ADDRESS : HOST_REFUSED;
    if (str_eq_nocase(host, STR("localhost")) || ends_nocase(host, STR(".localhost")) ||
        ends_nocase(host, STR(".local")) || ends_nocase(host, STR(".internal")))
        return HOST_NAME;
    if (gethostname(text, sizeof text) != 0)
        return HOST_REFUSED;
    text[sizeof text - 1] = 0;
    return str_eq_nocase(host, str_of(text)) ? HOST_NAME : HOST_REFUSED;
}
