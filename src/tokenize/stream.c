/* stream.c - bytes of tokens in, settled text out.
 *
 *   raw    up to 3 bytes: the beginning of a character whose end has not come yet
 *   held   text (valid UTF-8) that is not released: it ends with the beginning of a stop string
 *
 * Each stop string is followed by its Knuth-Morris-Pratt automaton; the longest beginning of any of them
 * that the text ends with is what must be held. The stop string that is complete first wins, the longest
 * one where several end at once: so the result depends on the text alone, not on how tokens cut it. */
#include "tokenize/stream.h"

#include <stdlib.h>

#include "base/limit.h"

#define REPLACEMENT "\xef\xbf\xbd" /* U+FFFD */

struct stop {
    char *text;
    u32 n;
    u32 state; /* bytes of it that the text ends with */
    u32 *fall; /* [n] state to go back to from state i + 1 */
};

struct stream {
    const struct tokenizer *t;
    struct stop *stops;
    u32 n_stops;
    bool special, stopped;
    u32 n_raw;
    char raw[4];
    struct buf held;
    u64 released_bytes;
    u32 n_shown, shown[STREAM_SHOWN_MAX];
};

static void stop_init(struct stop *s, struct str text) {
    *s = (struct stop){.text = xmalloc(text.n), .n = (u32)text.n, .fall = xmalloc(text.n * sizeof(u32))};
    memcpy(s->text, text.p, text.n);
    s->fall[0] = 0;
    for (u32 i = 1, k = 0; i < s->n; i++) {
        while (k && s->text[k] != s->text[i])
            k = s->fall[k - 1];
        k += s->text[k] == s->text[i];
        s->fall[i] = k;
    }
}

/* True if the stop string is complete with this byte. */
static bool stop_step(struct stop *s, char c) {
    while (s->state && s->text[s->state] != c)
        s->state = s->fall[s->state - 1];
    s->state += s->text[s->state] == c;
    return s->state == s->n;
}

struct stream *stream_new(const struct tokenizer *t, const struct str *stop, u32 n_stop, bool special) {
    struct stream *s = xcalloc(1, sizeof *s);
    s->t = t;
    s->special = special;
    s->stops = xcalloc(n_stop, sizeof *s->stops);
    for (u32 i = 0; i < n_stop; i++)
        /* What is no text can't be a part of text: it would cut characters. */
        if (stop[i].n && utf8_valid_len(stop[i]) == stop[i].n)
            stop_init(&s->stops[s->n_stops++], stop[i]);
    return s;
}

void stream_free(struct stream *s) {
    if (!s)
        return;
    for (u32 i = 0; i < s->n_stops; i++) {
        free(s->stops[i].text);
        free(s->stops[i].fall);
    }
    free(s->stops);
    buf_release(&s->held);
    free(s);
}

void stream_show(struct stream *s, const u32 *ids, u32 n) {
    s->n_shown = MIN(n, STREAM_SHOWN_MAX);
    if (n)
        memcpy(s->shown, ids, s->n_shown * sizeof *ids);
}

static bool is_shown(const struct stream *s, u32 token) {
    for (u32 i = 0; i < s->n_shown; i++)
        if (s->shown[i] == token)
            return true;
    return s->special;
}

static void release(struct stream *s, size_t n, struct buf *out) {
    if (n == 0)
        return;
    buf_add(out, s->held.p, n);
    buf_consume(&s->held, n);
    s->released_bytes += n;
}

/* Advances all stop strings by a byte; the length of the longest one that is complete, or 0. */
static u32 stops_step(struct stream *s, char c) {
    u32 complete = 0;
    for (u32 i = 0; i < s->n_stops; i++)
        if (stop_step(&s->stops[i], c))
            complete = MAX(complete, s->stops[i].n);
    return complete;
}

/* Takes valid text; true if a stop string is complete: held then ends with it. */
static bool text_take(struct stream *s, struct str text) {
    for (size_t i = 0; i < text.n; i++) {
        buf_add_char(&s->held, text.p[i]);
        u32 n = stops_step(s, text.p[i]);
        if (n) {
            s->held.n -= n; /* the bytes stay behind the end: a rollback needs nothing of them */
            return true;
        }
    }
    return false;
}

/* Length of a sequence at p that is no character: the bytes that could have begun one, at least one. */
static u32 invalid_len(struct str s, size_t at) {
    for (u32 n = 3; n > 1; n--)
        if (at + n <= s.n && utf8_complete_len((struct str){s.p + at, n}) == 0)
            return n;
    return 1;
}

/* Takes bytes, the end of a character may be missing. */
static bool bytes_take(struct stream *s, struct str bytes) {
    for (size_t at = 0; at < bytes.n;) {
        u32 code, n = utf8_decode(bytes, at, &code);
        struct str text = n ? str_slice(bytes, at, at + n) : STR(REPLACEMENT);
        at += n ? n : invalid_len(bytes, at);
        if (text_take(s, text))
            return true;
    }
    return false;
}

static size_t held_needed(const struct stream *s) {
    u32 n = 0;
    for (u32 i = 0; i < s->n_stops; i++)
        n = MAX(n, s->stops[i].state);
    return n;
}

bool stream_push(struct stream *s, u32 token, struct buf *out) {
    check(!s->stopped);
    struct str bytes = tokenizer_bytes_of(s->t, token, is_shown(s, token));
    if (bytes.n == 0)
        return false;
    char stack[256], *joined = bytes.n + 4 <= sizeof stack ? stack : xmalloc(bytes.n + 4);
    memcpy(joined, s->raw, s->n_raw);
    memcpy(joined + s->n_raw, bytes.p, bytes.n);
    struct str all = {joined, s->n_raw + bytes.n};
    size_t n = utf8_complete_len(all);
    s->n_raw = (u32)(all.n - n);
    memcpy(s->raw, joined + n, s->n_raw);
    s->stopped = bytes_take(s, str_slice(all, 0, n));
    if (joined != stack)
        free(joined);
    release(s, s->stopped ? s->held.n : s->held.n - held_needed(s), out);
    return s->stopped;
}

void stream_finish(struct stream *s, struct buf *out) {
    if (s->stopped)
        return;
    s->stopped = bytes_take(s, (struct str){s->raw, s->n_raw});
    s->n_raw = 0;
    release(s, s->held.n, out);
}

struct stream_mark stream_snapshot(const struct stream *s) {
    struct stream_mark mark = {{s->released_bytes, s->held.n, (u64)s->n_raw << 32, s->stopped}};
    memcpy(&mark.words[2], s->raw, s->n_raw);
    return mark;
}

void stream_rollback(struct stream *s, struct stream_mark mark) {
    check(mark.words[0] == s->released_bytes);
    /* When a stop string completes, the text held before it is released or was empty. */
    check(mark.words[1] <= s->held.n || s->stopped);
    s->held.n = mark.words[1];
    s->n_raw = (u32)(mark.words[2] >> 32);
    memcpy(s->raw, &mark.words[2], s->n_raw);
    s->stopped = mark.words[3];
    /* Text that no stop string's beginning reaches back to has been released, so what is held is all
     * that the automatons need to find their states again. */
    for (u32 i = 0; i < s->n_stops; i++)
        s->stops[i].state = 0;
    for (size_t i = 0; i < s->held.n; i++)
        check(stops_step(s, s->held.p[i]) == 0);
}
