/* output.c - a state machine over the text that is held back.
 *
 *   BEGIN      white space and maybe the opening tag of thoughts
 *   THINK_GAP  white space behind it
 *   THINK      up to the closing tag
 *   GAP        white space in front of text, behind thoughts or calls
 *   START      where bare JSON may be a call: the first character that is no white space decides
 *   TEXT       up to a tag
 *   CALL       behind a tag, or at bare JSON: looking for the next JSON value, or the end
 *   VALUE      inside of it
 *
 * A step looks at `held` from its beginning and takes bytes off, or says that it needs more. `at` is how far
 * CALL and VALUE have looked, so that a long call is not scanned again for each token. */
#include "chat/output.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/limit.h"

/* Text behind a tag without any JSON: longer than any name and what formats put around it. */
#define BEFORE_JSON_MAX 1024u
#define CALLS_AT_ONCE 64u

enum state { BEGIN, THINK_GAP, THINK, GAP, START, TEXT, CALL, VALUE };

/* A piece under construction: offsets into o->released, which moves while it grows. */
struct draft {
    enum output_kind kind;
    size_t at, n;
    struct gen_tool_call call; /* id: below */
    char id[16];
};

struct output {
    struct output_config c;
    struct template_style style; /* its texts are copies in `memory` */
    struct arena memory;
    enum state state;
    bool bare;    /* CALL, VALUE: no tag was there */
    u32 n_region; /* calls since the tag */
    u32 n_calls;
    size_t at; /* CALL, VALUE: bytes of held that are looked at */
    size_t value_at;
    u32 depth;
    bool in_string, escaped;
    struct buf held, released;
    struct arena calls;   /* texts of this push's calls */
    struct draft *drafts; /* [n_drafts] */
    u32 n_drafts, cap_drafts;
};

static bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

/* --- pieces --- */

static struct draft *draft_add(struct output *o, enum output_kind kind) {
    if (o->n_drafts == o->cap_drafts) {
        o->cap_drafts = MAX(4u, o->cap_drafts * 2);
        o->drafts = xrealloc(o->drafts, o->cap_drafts * sizeof *o->drafts);
    }
    o->drafts[o->n_drafts] = (struct draft){.kind = kind, .at = o->released.n};
    return &o->drafts[o->n_drafts++];
}

/* Takes n bytes off held and releases them as text of a kind. */
static void release(struct output *o, enum output_kind kind, size_t n) {
    if (n && !(kind == OUTPUT_THINK && o->c.think_hidden)) {
        struct draft *last = o->n_drafts ? &o->drafts[o->n_drafts - 1] : NULL;
        if (!last || last->kind != kind)
            last = draft_add(o, kind);
        buf_add(&o->released, o->held.p, n);
        last->n += n;
    }
    buf_consume(&o->held, n);
}

/* "call_" and eight, or nine, of [a-z0-9]. */
static void id_make(const struct output *o, char id[16]) {
    static const char digits[] = "abcdefghijklmnopqrstuvwxyz0123456789";
    u32 n = 0, random = o->style.short_ids ? 9 : 8;
    u64 bits = hash_bytes(&o->n_calls, sizeof o->n_calls, o->c.id_seed);
    if (!o->style.short_ids)
        n = (u32)snprintf(id, 16, "call_");
    for (u32 i = 0; i < random; i++, bits /= 36)
        id[n++] = digits[bits % 36];
    id[n] = 0;
}

bool output_full(const struct output *o) { return o->c.calls_max && o->n_calls == o->c.calls_max; }

static void release_call(struct output *o, const struct gen_tool_call *call) {
    o->n_region++;
    if (output_full(o))
        return;
    struct draft *d = draft_add(o, OUTPUT_CALL);
    d->call = *call;
    id_make(o, d->id);
    o->n_calls++;
}

u32 output_n_pieces(const struct output *o) { return o->n_drafts; }

struct output_piece output_piece_at(const struct output *o, u32 i) {
    const struct draft *d = &o->drafts[i];
    struct output_piece piece = {.kind = d->kind, .call = d->call};
    check(i < o->n_drafts);
    if (d->kind == OUTPUT_CALL)
        piece.call.id = str_of(d->id);
    else
        piece.text = (struct str){o->released.p + d->at, d->n};
    return piece;
}

/* --- looking at held --- */

static struct str held(const struct output *o) { return buf_str(&o->held); }

static void space_drop(struct output *o) {
    size_t n = 0;
    while (n < o->held.n && is_space(o->held.p[n]))
        n++;
    buf_consume(&o->held, n);
}

/* s is a beginning of tag, but not all of it. */
static bool may_become(struct str s, struct str tag) { return s.n < tag.n && str_starts(tag, s); }

/* Bytes at the end of held that may be the beginning of tag. */
static size_t overlap(const struct output *o, struct str tag) {
    for (size_t n = MIN(o->held.n, tag.n ? tag.n - 1 : 0); n > 0; n--)
        if (memcmp(o->held.p + o->held.n - n, tag.p, n) == 0)
            return n;
    return 0;
}

/* --- thoughts --- */

static enum state text_begin(const struct output *o) {
    return o->c.tools && o->style.call_open.n == 0 ? START : TEXT;
}

static bool step_begin(struct output *o, bool last) {
    size_t n = 0;
    while (n < o->held.n && is_space(o->held.p[n]))
        n++;
    struct str rest = str_slice(held(o), n, o->held.n);
    if (str_starts(rest, o->style.think_open)) {
        buf_consume(&o->held, n + o->style.think_open.n);
        o->state = THINK_GAP;
        return true;
    }
    if (!last && may_become(rest, o->style.think_open))
        return false;
    o->state = text_begin(o);
    return true;
}

static bool step_gap(struct output *o, enum state next) {
    space_drop(o);
    if (o->held.n == 0)
        return false;
    o->state = next;
    return true;
}

static bool step_think(struct output *o, bool last) {
    size_t end = str_find(held(o), o->style.think_close, 0);
    if (end != SIZE_MAX) {
        release(o, OUTPUT_THINK, end);
        buf_consume(&o->held, o->style.think_close.n);
        o->state = GAP;
        return true;
    }
    release(o, OUTPUT_THINK, o->held.n - (last ? 0 : overlap(o, o->style.think_close)));
    return false;
}

/* --- text --- */

static void call_begin(struct output *o, bool bare) {
    o->state = CALL;
    o->bare = bare;
    o->n_region = 0;
    o->at = 0;
}

/* The answer has just begun, and calls carry no tag. */
static bool step_start(struct output *o, bool last) {
    size_t n = 0;
    while (n < o->held.n && is_space(o->held.p[n]))
        n++;
    if (n == o->held.n && !last)
        return false;
    if (n < o->held.n && (o->held.p[n] == '{' || o->held.p[n] == '[')) {
        buf_consume(&o->held, n);
        call_begin(o, true);
    } else {
        o->state = TEXT;
    }
    return true;
}

#define TAGS 3u /* the last one closes */

static struct str tag_at(const struct output *o, u32 i) {
    const struct str tags[TAGS] = {o->style.call_open, o->style.call_other, o->style.call_close};
    return o->c.tools ? tags[i] : STR_NONE;
}

/* The first tag in s, of several at one place the longest; *at SIZE_MAX if there is none. */
static u32 tag_find(const struct output *o, struct str s, size_t *at) {
    u32 which = 0;
    *at = SIZE_MAX;
    for (u32 i = 0; i < TAGS; i++) {
        size_t found = tag_at(o, i).n ? str_find(s, tag_at(o, i), 0) : SIZE_MAX;
        if (found > *at || (found == *at && tag_at(o, i).n <= tag_at(o, which).n))
            continue;
        *at = found;
        which = i;
    }
    return which;
}

/* Releases text up to the first tag. A closing tag that closes nothing is dropped. */
static bool step_text(struct output *o, bool last) {
    size_t first, hold = 0;
    u32 which = tag_find(o, held(o), &first);
    for (u32 i = 0; !last && i < TAGS; i++)
        hold = MAX(hold, overlap(o, tag_at(o, i)));
    /* What is held at the end may be a tag in front of the one found, or a longer one. */
    if (first == SIZE_MAX || (hold && o->held.n - hold <= first)) {
        release(o, OUTPUT_TEXT, o->held.n - hold);
        return false;
    }
    release(o, OUTPUT_TEXT, first);
    buf_consume(&o->held, tag_at(o, which).n);
    if (which + 1 < TAGS)
        call_begin(o, false);
    return true;
}

/* --- calls --- */

/* The first n bytes held, which are no call: text, without the tags in it. */
static void release_plain(struct output *o, size_t n) {
    size_t at, end = o->held.n - n;
    while (o->held.n > end) {
        u32 which = tag_find(o, str_slice(held(o), 0, o->held.n - end), &at);
        release(o, OUTPUT_TEXT, MIN(at, o->held.n - end));
        buf_consume(&o->held, at == SIZE_MAX ? 0 : tag_at(o, which).n);
    }
}

/* The region is over; what is left of it is text, unless calls came before in it, or in the answer if that is
 * over: then it is a call that was cut off. */
static void call_end(struct output *o, size_t n, enum state next, bool last) {
    if (o->n_region == 0 && !(last && o->n_calls))
        release_plain(o, n);
    else
        buf_consume(&o->held, n);
    o->state = next;
}

enum looked { LOOKED_NOTHING, LOOKED_MORE, LOOKED_TAG };

/* A tag at `at`? MORE: it may become one. */
static enum looked look_tag(const struct output *o, struct str tag) {
    struct str rest = str_slice(held(o), o->at, o->held.n);
    if (tag.n == 0)
        return LOOKED_NOTHING;
    return str_starts(rest, tag) ? LOOKED_TAG : may_become(rest, tag) ? LOOKED_MORE : LOOKED_NOTHING;
}

/* A [ begins an array of calls only in front of an object: formats put words in brackets around names. */
static enum looked look_array(const struct output *o) {
    size_t i = o->at + 1;
    while (i < o->held.n && is_space(o->held.p[i]))
        i++;
    return i == o->held.n ? LOOKED_MORE : o->held.p[i] == '{' ? LOOKED_TAG : LOOKED_NOTHING;
}

static void value_begin(struct output *o) {
    o->state = VALUE;
    o->value_at = o->at;
    o->depth = 0;
    o->in_string = o->escaped = false;
}

/* The character at `at`, which is part of no tag. */
static bool call_char(struct output *o, bool last) {
    char c = o->held.p[o->at];
    enum looked array = c == '[' ? look_array(o) : LOOKED_NOTHING;
    if (array == LOOKED_MORE && !last)
        return false;
    if (c == '{' || array == LOOKED_TAG) {
        value_begin(o);
        return true;
    }
    bool between = is_space(c) || c == ',' || c == ';';
    if ((o->bare && !between) || (o->n_region == 0 && o->at >= BEFORE_JSON_MAX)) {
        /* What is held is text from here on, but for blanks behind calls. */
        call_end(o, o->n_region ? o->at : 0, TEXT, false);
        return true;
    }
    o->at++;
    return true;
}

/* Any tag at `at`. */
static enum looked look_tags(const struct output *o, enum looked *close) {
    enum looked all = LOOKED_NOTHING;
    *close = look_tag(o, tag_at(o, TAGS - 1));
    for (u32 i = 0; i < TAGS; i++) {
        enum looked one = look_tag(o, tag_at(o, i));
        if (one == LOOKED_MORE || all == LOOKED_NOTHING)
            all = one;
    }
    return all;
}

static bool step_call(struct output *o, bool last) {
    while (o->at < o->held.n && o->state == CALL) {
        enum looked close, any = look_tags(o, &close);
        if (any == LOOKED_MORE && !last)
            return false;
        if (close == LOOKED_TAG) {
            call_end(o, o->at, GAP, false);
            buf_consume(&o->held, o->style.call_close.n);
            return true;
        }
        if (any == LOOKED_TAG) {
            call_end(o, o->at, TEXT, false); /* which finds the tag again */
            return true;
        }
        if (!call_char(o, last))
            return false;
    }
    if (o->state == CALL && last)
        call_end(o, o->held.n, TEXT, true);
    return o->state != CALL;
}

/* The JSON value ends at o->at: calls, or text. */
static void value_end(struct output *o) {
    struct gen_tool_call calls[CALLS_AT_ONCE];
    u32 n = 0;
    struct str before = str_slice(held(o), 0, o->value_at), json = str_slice(held(o), o->value_at, o->at);
    if (!calls_read(o->c.tools, before, json, &o->calls, calls, ARRAY_LEN(calls), &n)) {
        release_plain(o, o->at);
        o->state = TEXT;
        return;
    }
    for (u32 i = 0; i < n; i++)
        release_call(o, &calls[i]);
    buf_consume(&o->held, o->at);
    o->at = 0;
    o->state = CALL;
}

/* True with the closing bracket of the value. */
static bool value_char(struct output *o, char c) {
    if (o->in_string) {
        bool escaped = o->escaped;
        o->escaped = !escaped && c == '\\';
        o->in_string = escaped || c != '"';
        return false;
    }
    o->in_string = c == '"';
    if (c == '{' || c == '[')
        o->depth++;
    return (c == '}' || c == ']') && --o->depth == 0;
}

/* JSON has no tag outside of its strings: where one is, the value is none. */
static bool step_value(struct output *o, bool last) {
    while (o->at < o->held.n) {
        enum looked close, any = o->in_string ? LOOKED_NOTHING : look_tags(o, &close);
        if (any == LOOKED_MORE && !last)
            return false;
        if (any == LOOKED_TAG) {
            call_end(o, o->at, TEXT, false);
            return true;
        }
        if (value_char(o, o->held.p[o->at++])) {
            value_end(o);
            return true;
        }
    }
    if (!last && o->at - o->value_at <= LIMIT_CALL_BYTES)
        return false;
    call_end(o, o->held.n, TEXT, last);
    return true;
}

/* --- the machine --- */

static bool step(struct output *o, bool last) {
    switch (o->state) {
    case BEGIN: return step_begin(o, last);
    case THINK_GAP: return step_gap(o, THINK);
    case THINK: return step_think(o, last);
    case GAP: return step_gap(o, text_begin(o));
    case START: return step_start(o, last);
    case TEXT: return step_text(o, last);
    case CALL: return step_call(o, last);
    case VALUE: return step_value(o, last);
    }
    return false;
}

void output_push(struct output *o, struct str text, bool last) {
    o->n_drafts = 0;
    buf_clear(&o->released);
    if (o->calls.used_bytes)
        arena_reset(&o->calls);
    buf_add_str(&o->held, text);
    while (step(o, false))
        continue;
    while (last && o->held.n && step(o, true))
        continue;
}

static struct str copy(struct output *o, struct str s) { return s.n ? arena_str(&o->memory, s) : STR_NONE; }

struct output *output_new(const struct output_config *c) {
    struct output *o = xcalloc(1, sizeof *o);
    o->c = *c;
    arena_init(&o->memory, 0);
    arena_init(&o->calls, LIMIT_CALL_MEMORY_BYTES);
    o->style = *c->style;
    o->style.think_open = copy(o, c->style->think_open);
    o->style.think_close = copy(o, c->style->think_close);
    o->style.call_open = copy(o, c->style->call_open);
    o->style.call_close = copy(o, c->style->call_close);
    o->style.call_other = copy(o, c->style->call_other);
    bool think = c->think && c->style->can.thinking;
    o->state = !think ? text_begin(o) : c->think_begun ? THINK_GAP : BEGIN;
    return o;
}

void output_free(struct output *o) {
    if (!o)
        return;
    buf_release(&o->held);
    buf_release(&o->released);
    arena_release(&o->memory);
    arena_release(&o->calls);
    free(o->drafts);
    free(o);
}
