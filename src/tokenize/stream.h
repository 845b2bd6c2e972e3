/* stream.h - the streaming detokenizer of one sequence: tokens in, text out that never ends inside a UTF-8
 * character and never contains a stop string or a beginning of one that may still complete.
 * Invalid bytes that can never become a character come out as U+FFFD. Snapshot and rollback serve
 * speculation and resumption. */
#ifndef MINKA_STREAM_H
#define MINKA_STREAM_H

#include "tokenize/tokenize.h"

struct stream;

/* stop strings [n_stop] are copied; empty ones and those that are no valid UTF-8 are ignored. Of several the
 * one that is complete first stops, the longest of those that end at once: how tokens cut the text does not
 * matter. special: control tokens appear as text. */
struct stream *stream_new(const struct tokenizer *t, const struct str *stop, u32 n_stop,
                          bool special) MUST_USE;
void stream_free(struct stream *s);
/* Before the first push: these control tokens appear as text, because they are tags that mean something. */
#define STREAM_SHOWN_MAX 16u
void stream_show(struct stream *s, const u32 *ids, u32 n); /* copied; what is over the bound stays hidden */
/* Feeds one token. Text that became free is appended to out. True if a stop string is complete: the text
 * before it has been released, the rest is dropped, nothing may be fed any more. */
bool stream_push(struct stream *s, u32 token, struct buf *out);
/* End of generation: releases what was held back (a cut-off character as U+FFFD). */
void stream_finish(struct stream *s, struct buf *out);

/* The state after a push; only to be given back to the stream it is of. */
struct stream_mark {
    u64 words[4];
};
struct stream_mark stream_snapshot(const struct stream *s);
void stream_rollback(struct stream *s,
                     struct stream_mark mark); /* only to marks since the last release of text */

#endif
