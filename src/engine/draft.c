/* draft.c - a table from three tokens to where the newest such three end; a younger entry takes the place of
 * an older one with the same hash, and what is found is compared with the tokens. */
#include "engine/draft.h"

#include <stdlib.h>

#define GRAM 3u
#define SLOTS_MIN 1024u
/* 64 KiB: far enough back for what a text repeats, and bounded for 256 requests. */
#define SLOTS_MAX 16384u
/* Longer agreement than this says no more. */
#define MATCH_MAX 16u

struct draft {
    u32 n_seen; /* positions that are in the table */
    u32 n_slots;
    u32 slots[]; /* [n_slots] position behind the three; 0 = none */
};

struct draft *draft_new(u32 n_tokens) {
    u32 n_slots = SLOTS_MIN;
    while (n_slots < SLOTS_MAX && n_slots / 2 < n_tokens)
        n_slots *= 2;
    struct draft *d = xcalloc(1, sizeof *d + n_slots * sizeof *d->slots);
    d->n_slots = n_slots;
    return d;
}

void draft_free(struct draft *d) { free(d); }

void draft_reset(struct draft *d) {
    memset(d->slots, 0, d->n_slots * sizeof *d->slots);
    d->n_seen = 0;
}

/* The slot of the three tokens before position end. */
static u32 *slot_before(struct draft *d, const u32 *tokens, u32 end) {
    u64 h = 0;
    for (u32 i = end - GRAM; i < end; i++)
        h = (h + tokens[i] + 1) * 0x9E3779B97F4A7C15u;
    return &d->slots[h >> 40 & (d->n_slots - 1)];
}

/* How many tokens before a equal those before b > a. */
static u32 match_length(const u32 *tokens, u32 a, u32 b) {
    u32 n = 0;
    while (n < MATCH_MAX && n < a && tokens[a - 1 - n] == tokens[b - 1 - n])
        n++;
    return n;
}

u32 draft_guess(struct draft *d, const u32 *tokens, u32 n, u32 max, u32 *out) {
    if (n < GRAM)
        return 0;
    for (u32 end = MAX(d->n_seen, GRAM); end < n; end++)
        *slot_before(d, tokens, end) = end;
    u32 *slot = slot_before(d, tokens, n), from = *slot;
    *slot = n;
    d->n_seen = n + 1;
    if (from == 0 || from >= n)
        return 0;
    u32 length = match_length(tokens, from, n);
    if (length < GRAM)
        return 0;
    /* The longer the agreement, the longer it will last. A guess may run into itself: a loop. */
    u32 n_out = MIN(max, 2 * (length - GRAM + 1));
    for (u32 i = 0; i < n_out; i++)
        out[i] = from + i < n ? tokens[from + i] : out[from + i - n];
    return n_out;
}
