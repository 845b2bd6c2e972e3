/* text.c - pieces of replies that both dialects use. */
#include <stdio.h>
#include <time.h>

#include "api/call.h"

/* Date and time of a second. Each token of a stream asks for it in UTC, so that of the last one is kept. */
struct second_text {
    bool in_utc;
    time_t seconds;
    long offset; /* minutes east of UTC */
    size_t n;
    char text[TIME_TEXT_BYTES];
};

static const struct second_text *second_text(time_t seconds, bool with_zone) {
    static _Thread_local struct second_text last;
    struct tm tm;
    if (!with_zone && last.in_utc && last.seconds == seconds)
        return &last;
    if (with_zone)
        localtime_r(&seconds, &tm);
    else
        gmtime_r(&seconds, &tm);
    last = (struct second_text){.in_utc = !with_zone, .seconds = seconds};
    last.n = strftime(last.text, sizeof last.text, "%Y-%m-%dT%H:%M:%S", &tm);
    last.offset = with_zone ? tm.tm_gmtoff / 60 : 0;
    return &last;
}

size_t time_text(char out[TIME_TEXT_BYTES], i64 wall_ns, bool with_zone) {
    const struct second_text *s = second_text((time_t)(wall_ns / 1000000000), with_zone);
    u32 fraction = (u32)(wall_ns % 1000000000);
    size_t n = s->n;
    memcpy(out, s->text, n);
    if (fraction) {
        out[n] = '.';
        for (u32 i = 9; i > 0; i--, fraction /= 10)
            out[n + i] = (char)('0' + fraction % 10);
        for (n += 10; out[n - 1] == '0';)
            n--;
    }
    long offset = s->offset;
    if (offset == 0) {
        out[n] = 'Z';
        return n + 1;
    }
    unsigned minutes = (unsigned)(offset < 0 ? -offset : offset);
    return n + (size_t)snprintf(out + n, TIME_TEXT_BYTES - n, "%c%02u:%02u", offset < 0 ? '-' : '+',
                                minutes / 60 % 24, minutes % 60);
}

void go_quote(struct buf *b, struct str s) {
    buf_add_char(b, '"');
    for (size_t at = 0; at < s.n;) {
        u32 code, n = utf8_decode(s, at, &code);
        u8 c = (u8)s.p[at];
        if (c == '"' || c == '\\')
            buf_printf(b, "\\%c", c);
        else if (c == '\n' || c == '\r' || c == '\t')
            buf_printf(b, "\\%c", c == '\n' ? 'n' : c == '\r' ? 'r' : 't');
        else if (n == 0 || c < 0x20 || c == 0x7f)
            buf_printf(b, "\\x%02x", c);
        else
            buf_add(b, s.p + at, n);
        at += n ? n : 1;
    }
    buf_add_char(b, '"');
}

static void logprob_fields(struct buf *b, const struct gen_logprob *p) {
    json_key(b, "token"), json_str(b, p->token);
    json_key(b, "logprob"), json_f32(b, p->logprob);
    if (p->token.n == 0)
        return;
    json_key(b, "bytes"), json_open(b, '[');
    for (size_t i = 0; i < p->token.n; i++)
        json_u64(b, (u8)p->token.p[i]);
    json_close(b, ']');
}

void logprobs_items(struct buf *b, const struct gen_logprobs *p, u32 n) {
    for (u32 i = 0; i < n; i++) {
        json_open(b, '{');
        logprob_fields(b, &p[i].chosen);
        if (p[i].n_top) {
            json_key(b, "top_logprobs"), json_open(b, '[');
            for (u32 k = 0; k < p[i].n_top; k++) {
                json_open(b, '{');
                logprob_fields(b, &p[i].top[k]);
                json_close(b, '}');
            }
            json_close(b, ']');
        }
        json_close(b, '}');
    }
}

void json_escaped(struct buf *b, struct str json) {
    for (size_t i = 0; i < json.n; i++) {
        char c = json.p[i];
        if (c == '<' || c == '>' || c == '&')
            buf_printf(b, "\\u%04x", (unsigned)c);
        else
            buf_add_char(b, c);
    }
}

void tool_call_json(struct buf *b, const struct gen_tool_call *t, u32 index) {
    json_open(b, '{');
    if (t->id.n)
        json_key(b, "id"), json_str(b, t->id);
    json_key(b, "function"), json_open(b, '{');
    json_key(b, "index"), json_u64(b, index);
    json_key(b, "name"), json_str(b, t->name);
    json_key(b, "arguments"), json_escaped(b, t->arguments.n ? t->arguments : STR("{}"));
    json_close(b, '}');
    json_close(b, '}');
}
