/* base.c - status texts, checks and the allocation functions that die. */
#include "base/base.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "GGUF is read in place: little-endian only");
_Static_assert(sizeof(size_t) == 8, "weights are mapped whole: 64-bit only");

enum status err_set(struct err *e, enum status status, const char *fmt, ...) {
    if (!e)
        return status;
    va_list ap;
    va_start(ap, fmt);
    e->status = status;
    vsnprintf(e->text, sizeof e->text, fmt, ap);
    va_end(ap);
    return status;
}

enum status err_errno(struct err *e, enum status status, const char *fmt, ...) {
    int saved = errno;
    if (!e)
        return status;
    va_list ap;
    va_start(ap, fmt);
    e->status = status;
    int n = vsnprintf(e->text, sizeof e->text, fmt, ap);
    va_end(ap);
    if (n >= 0 && (size_t)n < sizeof e->text)
        snprintf(e->text + n, sizeof e->text - (size_t)n, ": %s", strerror(saved));
    return status;
}

const char *status_name(enum status status) {
    switch (status) {
    case OK: return "ok";
    case ERR_INVALID: return "invalid";
    case ERR_NOT_FOUND: return "not found";
    case ERR_UNSUPPORTED: return "unsupported";
    case ERR_BUSY: return "busy";
    case ERR_TOO_LARGE: return "too large";
    case ERR_CANCELED: return "canceled";
    case ERR_TIMEOUT: return "timeout";
    case ERR_CORRUPT: return "corrupt";
    case ERR_NO_MEMORY: return "no memory";
    case ERR_IO: return "i/o";
    case ERR_INTERNAL: return "internal";
    }
    return "unknown";
}

void check_failed(const char *file, int line, const char *cond) {
    fprintf(stderr, "minka: bug at %s:%d: %s does not hold\n", file, line, cond);
    abort();
}

void die(const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    fputs("Error: ", stderr);
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
    va_end(ap);
    exit(1);
}

void *xmalloc(size_t size) {
    void *p = malloc(size ? size : 1);
    if (!p)
        die("out of memory (%zu bytes)", size);
    return p;
}

void *xcalloc(size_t n, size_t size) {
    void *p = calloc(n ? n : 1, size ? size : 1);
    if (!p)
        die("out of memory (%zu x %zu bytes)", n, size);
    return p;
}

void *xrealloc(void *p, size_t size) {
    void *q = realloc(p, size ? size : 1);
    if (!q)
        die("out of memory (%zu bytes)", size);
    return q;
}

char *xstrdup(const char *s) {
    size_t n = strlen(s) + 1;
    return memcpy(xmalloc(n), s, n);
}

u64 hash_bytes(const void *p, size_t n, u64 seed) {
    const u8 *b = p;
    u64 h = 0xcbf29ce484222325ull ^ seed;
    while (n >= 8) {
        h = (h ^ load_u64(b)) * 0x100000001b3ull;
        h ^= h >> 32;
        b += 8;
        n -= 8;
    }
    for (; n; n--)
        h = (h ^ *b++) * 0x100000001b3ull;
    h ^= h >> 33;
    h *= 0xff51afd7ed558ccdull;
    h ^= h >> 33;
    return h;
}
