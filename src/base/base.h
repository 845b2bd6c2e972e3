/* base.h - the words every other file speaks: integer names, status codes, checks.
 *
 * Three failures are kept apart:
 *   check()      our own bug: prints the condition and aborts, also in release builds
 *   enum status  the world: a file, a request, a peer; the text in struct err says what to do
 *   die()        out of memory or descriptors at start: a message and exit code 1
 */
#ifndef MINKA_BASE_H
#define MINKA_BASE_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/param.h> /* MIN, MAX */

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int8_t i8;
typedef int16_t i16;
typedef int32_t i32;
typedef int64_t i64;
typedef float f32;
typedef double f64;

#define MUST_USE __attribute__((warn_unused_result))
#define PRINTF(fmt, first) __attribute__((format(printf, fmt, first)))
#define NORETURN __attribute__((noreturn))
#define UNUSED __attribute__((unused))
#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))
#define DIV_CEIL(a, b) (((a) + (b) - 1) / (b))
#define ALIGN_UP(a, b) (DIV_CEIL(a, b) * (b))
/* The struct that holds the given member (intrusive lists and trees). */
#define CONTAINER(ptr, type, member) ((type *)(void *)((char *)(ptr) - offsetof(type, member)))

/* What went wrong, coarse enough that a dialect can map it to its own code (HTTP in api/). */
enum status {
    OK = 0,
    ERR_INVALID,     /* the caller's input is wrong: 400 */
    ERR_NOT_FOUND,   /* a name that does not exist: 404 */
    ERR_UNSUPPORTED, /* right, but not honoured by this version: 501 */
    ERR_BUSY,        /* a bound is reached, try later: 503 */
    ERR_TOO_LARGE,   /* over a limit of limits.h: 413 */
    ERR_CANCELED,    /* the one who asked is gone: 499 */
    ERR_TIMEOUT,     /* a deadline has passed: 504 */
    ERR_CORRUPT,     /* a file or message breaks its format */
    ERR_NO_MEMORY,   /* the ledger or the system has no room */
    ERR_IO,          /* the operating system said no; the text holds errno's words */
    ERR_INTERNAL,    /* a part of ours failed (engine gone) */
};

/* Human text for a status; written only on failure, by the function that fails. */
struct err {
    enum status status;
    char text[1024];
};

/* Writes text into e (may be NULL) and returns status, so that a failure is one line:
 * return err_set(e, ERR_CORRUPT, "tensor %u ends behind the file", i); */
enum status err_set(struct err *e, enum status status, const char *fmt, ...) PRINTF(3, 4);
/* Like err_set, with ": <strerror(errno)>" appended. */
enum status err_errno(struct err *e, enum status status, const char *fmt, ...) PRINTF(3, 4);
const char *status_name(enum status status);

/* Forwards a failure to the caller; the only hidden control flow beside check(). */
#define TRY(expr)                                                                                  \
    do {                                                                                           \
        enum status try_status_ = (expr);                                                          \
        if (try_status_ != OK)                                                                     \
            return try_status_;                                                                    \
    } while (0)

/* Aborts with file, line and condition if cond is false: a bug of ours. On in release builds. */
#define check(cond) ((cond) ? (void)0 : check_failed(__FILE__, __LINE__, #cond))
void check_failed(const char *file, int line, const char *cond) NORETURN;
/* Message on standard error, exit code 1. */
void die(const char *fmt, ...) PRINTF(1, 2) NORETURN;

/* malloc family that dies when the system has no memory; size 0 is allowed. */
void *xmalloc(size_t size) MUST_USE;
void *xcalloc(size_t n, size_t size) MUST_USE;
void *xrealloc(void *p, size_t size) MUST_USE;
char *xstrdup(const char *s) MUST_USE;

/* true on overflow, *out undefined then. */
static inline bool mul_overflow(u64 a, u64 b, u64 *out) { return __builtin_mul_overflow(a, b, out); }
static inline bool add_overflow(u64 a, u64 b, u64 *out) { return __builtin_add_overflow(a, b, out); }

/* Narrowing that must not lose a bit. */
static inline u32 u32_of(u64 v) {
    check(v <= UINT32_MAX);
    return (u32)v;
}

/* Unaligned little-endian reads and writes (the host is little-endian, checked in base.c). */
static inline u16 load_u16(const void *p) { u16 v; memcpy(&v, p, sizeof v); return v; }
static inline u32 load_u32(const void *p) { u32 v; memcpy(&v, p, sizeof v); return v; }
static inline u64 load_u64(const void *p) { u64 v; memcpy(&v, p, sizeof v); return v; }
static inline f32 load_f32(const void *p) { f32 v; memcpy(&v, p, sizeof v); return v; }

/* 64-bit mixing hash (FNV-1a over 8-byte words, finished by a multiply-xorshift); not cryptographic. */
u64 hash_bytes(const void *p, size_t n, u64 seed);

#endif
