/* sampler.c - Philox (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"), penalties over a
 * window of accepted tokens, and selection by threshold: the vocabulary is scanned, never sorted. */
#include "model/sampler.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>

#include "base/fmath.h"

/* How often each token occurs in the window; open addressing, tokens are never removed. */
struct count {
    u32 token_1; /* token + 1; 0 = empty */
    u32 n;
};

struct sampler {
    struct gen_sampling p;
    u32 n_vocab;
    bool penalties;
    u32 n_accepted;
    u32 *history; /* [n_accepted], only with penalties */
    u32 history_cap;
    struct count *counts; /* [counts_cap], a power of two, at most half full */
    u32 counts_cap, counts_used;
    f32 width_hint; /* distance from the maximum that held the last top_k: where the next search starts */
};

struct candidate {
    u32 id;
    f32 x;
    f64 p;
};

struct scratch {
    f32 *x;              /* [n_vocab] logits after penalties and mask */
    f32 *maxima;         /* [blocks] of the row that is searched */
    u32 *blocks;         /* [blocks] */
    u32 *allowed;        /* [n_vocab] tokens of x, if there is a mask */
    struct candidate *c; /* [n_vocab] */
};

/* Logits and the largest of each KERN_MAXIMA of them: what is searched for lies in few blocks. */
struct row {
    const f32 *x, *maxima;
    u32 n, n_blocks;
};

/* --- random --- */
/* 10 rounds of Philox4x32; the first two words make a number in [0, 1). */
static f64 random_unit(u64 seed, u32 position) {
    u32 c[4] = {position, 0, 0, 0}, k0 = (u32)seed, k1 = (u32)(seed >> 32);
    for (u32 round = 0; round < 10; round++) {
        u64 a = (u64)0xD2511F53u * c[0], b = (u64)0xCD9E8D57u * c[2];
        u32 n0 = (u32)(b >> 32) ^ c[1] ^ k0, n2 = (u32)(a >> 32) ^ c[3] ^ k1;
        c[1] = (u32)b;
        c[3] = (u32)a;
        c[0] = n0;
        c[2] = n2;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    u64 bits = (u64)c[0] << 32 | c[1];
    return (f64)(bits >> 11) * 0x1p-53;
}

/* --- history and its counts --- */
struct sampler *sampler_new(const struct gen_sampling *p, u32 n_vocab) {
    struct sampler *s = xcalloc(1, sizeof *s);
    s->p = *p;
    s->n_vocab = n_vocab;
    s->penalties = p->repeat_last_n > 0 &&
                   (p->repeat_penalty != 1 || p->presence_penalty != 0 || p->frequency_penalty != 0);
    s->width_hint = 8;
    return s;
}

void sampler_free(struct sampler *s) {
    if (!s)
        return;
    free(s->history);
    free(s->counts);
    free(s);
}

static struct count *count_slot(struct sampler *s, u32 token) {
    u32 i = token * 0x9E3779B9u >> 7;
    for (;; i++) {
        struct count *c = &s->counts[i & (s->counts_cap - 1)];
        if (c->token_1 == token + 1 || c->token_1 == 0)
            return c;
    }
}

static void counts_grow(struct sampler *s) {
    struct count *old = s->counts;
    u32 old_cap = s->counts_cap;
    s->counts_cap = old_cap ? old_cap * 2 : 256;
    s->counts = xcalloc(s->counts_cap, sizeof *s->counts);
    for (u32 i = 0; i < old_cap; i++)
        if (old[i].token_1)
            *count_slot(s, old[i].token_1 - 1) = old[i];
    free(old);
}

static void count_add(struct sampler *s, u32 token) {
    if (2 * s->counts_used >= s->counts_cap)
        counts_grow(s);
    struct count *c = count_slot(s, token);
    s->counts_used += c->token_1 == 0;
    c->token_1 = token + 1;
    c->n++;
}

static void count_remove(struct sampler *s, u32 token) {
    struct count *c = count_slot(s, token);
    check(c->n > 0);
    c->n--;
}

void sampler_accept(struct sampler *s, u32 token) {
    check(token < s->n_vocab);
    u32 window = (u32)s->p.repeat_last_n;
    if (s->penalties) {
        if (s->n_accepted == s->history_cap) {
            s->history_cap = s->history_cap ? s->history_cap * 2 : 512;
            s->history = xrealloc(s->history, s->history_cap * sizeof *s->history);
        }
        s->history[s->n_accepted] = token;
        count_add(s, token);
        if (s->n_accepted >= window)
            count_remove(s, s->history[s->n_accepted - window]);
    }
    s->n_accepted++;
}

u32 sampler_snapshot(const struct sampler *s) { return s->n_accepted; }

void sampler_rollback(struct sampler *s, u32 snapshot) {
    check(snapshot <= s->n_accepted);
    u32 window = (u32)s->p.repeat_last_n;
    while (s->n_accepted > snapshot) {
        s->n_accepted--;
        if (!s->penalties)
            continue;
        count_remove(s, s->history[s->n_accepted]);
        if (s->n_accepted >= window)
            count_add(s, s->history[s->n_accepted - window]);
    }
}

/* --- logits after penalties and mask --- */
size_t sampler_scratch_bytes(u32 n_vocab) {
    return (size_t)n_vocab * (sizeof(struct candidate) + sizeof(u32) + sizeof(f32)) +
           (size_t)DIV_CEIL(n_vocab, KERN_MAXIMA) * (sizeof(f32) + sizeof(u32)) + 64;
}

static struct scratch scratch_at(void *mem, u32 n_vocab) {
    struct scratch t;
    u8 *at = (u8 *)ALIGN_UP((uintptr_t)mem, 64);
    t.c = (struct candidate *)(void *)at;
    t.x = (f32 *)(void *)(t.c + n_vocab);
    t.maxima = t.x + n_vocab;
    t.blocks = (u32 *)(void *)(t.maxima + DIV_CEIL(n_vocab, KERN_MAXIMA));
    t.allowed = t.blocks + DIV_CEIL(n_vocab, KERN_MAXIMA);
    return t;
}

static void penalize(const struct sampler *s, f32 *x) {
    for (u32 i = 0; i < s->counts_cap; i++) {
        const struct count *c = &s->counts[i];
        if (c->n == 0)
            continue;
        f32 *v = &x[c->token_1 - 1];
        *v = *v <= 0 ? *v * s->p.repeat_penalty : *v / s->p.repeat_penalty;
        *v -= (f32)c->n * s->p.frequency_penalty + s->p.presence_penalty;
    }
}

/* The logits under a mask, packed, with their tokens; in and out may be the same array. Returns their number.
 */
static u32 pack(const f32 *in, u32 n_vocab, const u32 *mask, f32 *out, u32 *tokens) {
    u32 n = 0;
    for (u32 i = 0; i < n_vocab; i += 32) {
        u32 left = n_vocab - i, word = mask[i / 32];
        if (left < 32)
            word &= (1u << left) - 1;
        if (word == UINT32_MAX) {
            memmove(out + n, in + i, 32 * sizeof *out);
            for (u32 k = 0; k < 32; k++)
                tokens[n + k] = i + k;
            n += 32;
            continue;
        }
        for (; word; word &= word - 1) {
            u32 token = i + (u32)__builtin_ctz(word);
            out[n] = in[token];
            tokens[n++] = token;
        }
    }
    return n;
}

/* --- selection --- */
static struct row row_of(const struct kern *k, const f32 *x, u32 n, const struct scratch *t) {
    k->maxima(x, n, t->maxima);
    return (struct row){x, t->maxima, n, DIV_CEIL(n, KERN_MAXIMA)};
}

/* The largest value, and the lowest index that has it. NaN is never chosen unless there is nothing else. */
static u32 argmax(const struct row *r, f32 *max) {
    u32 best = 0;
    for (u32 b = 1; b < r->n_blocks; b++)
        if (r->maxima[b] > r->maxima[best])
            best = b;
    *max = r->maxima[best];
    for (u32 i = best * KERN_MAXIMA; i < r->n; i++)
        if (r->x[i] == *max)
            return i;
    return 0;
}

/* Best first: larger logit, then lower id. A NaN is worse than all numbers. */
static bool better(const struct candidate *a, const struct candidate *b) {
    if (a->x > b->x || a->x < b->x)
        return a->x > b->x;
    bool nan_a = isnan(a->x), nan_b = isnan(b->x);
    return nan_a != nan_b ? nan_b : a->id < b->id;
}

/* In typical sampling p holds the distance from the expected surprise. */
static bool less_typical(const struct candidate *a, const struct candidate *b) {
    if (a->p < b->p || a->p > b->p)
        return a->p > b->p;
    return better(b, a);
}

typedef bool order_fn(const struct candidate *a, const struct candidate *b);

/* Heap with its last element on top. */
static void sift(struct candidate *c, u32 n, u32 i, order_fn *before) {
    struct candidate v = c[i];
    for (u32 child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && before(&c[child], &c[child + 1]))
            child++;
        if (!before(&v, &c[child]))
            break;
        c[i] = c[child];
    }
    c[i] = v;
}

static void sort(struct candidate *c, u32 n, order_fn *before) {
    for (u32 i = n / 2; i-- > 0;)
        sift(c, n, i, before);
    for (u32 end = n; end-- > 1;) {
        struct candidate last = c[0];
        c[0] = c[end];
        c[end] = last;
        sift(c, end, 0, before);
    }
}

static u32 take_above(const struct kern *k, const struct row *r, f32 threshold, struct scratch *t) {
    u32 m = 0, n_blocks = k->above(r->maxima, r->n_blocks, threshold, t->blocks, r->n_blocks);
    for (u32 b = 0; b < n_blocks; b++) {
        u32 hits[KERN_MAXIMA], first = t->blocks[b] * KERN_MAXIMA;
        u32 n_hits = k->above(r->x + first, MIN(r->n - first, KERN_MAXIMA), threshold, hits, KERN_MAXIMA);
        for (u32 i = 0; i < n_hits; i++)
            t->c[m++] = (struct candidate){.id = first + hits[i], .x = r->x[first + hits[i]]};
    }
    return m;
}

/* Up to `want` best in order; values that are -inf or NaN do not count. Looks for a threshold that few more
 * than that reach; *width is its distance from the maximum, in: where to start, out: what was found. Where as
 * many blocks reach it as values are wanted, enough values do. */
static u32 select_best(const struct kern *k, const struct row *r, u32 want, f32 max, f32 *width,
                       struct scratch *t) {
    f32 low = 0, high = INFINITY, w = *width; /* fewer than want are within low of the maximum */
    bool by_block = want <= r->n_blocks / 4;
    u32 enough = want + (by_block ? want / 8 + 8 : want + 64);
    for (u32 tries = 0; tries < 40 && w < 1e6f; tries++) {
        u32 m = by_block ? k->above(r->maxima, r->n_blocks, max - w, NULL, 0)
                         : k->above(r->x, r->n, max - w, NULL, 0);
        if (m >= want)
            high = w;
        else
            low = w;
        f32 next = high < INFINITY ? low + (high - low) / 2 : w * 2;
        if ((m >= want && m <= enough) || !(next > low && next < high))
            break;
        w = next;
    }
    if (high < INFINITY)
        *width = high;
    u32 m = take_above(k, r, high < INFINITY ? max - high : -FLT_MAX, t);
    sort(t->c, m, better);
    return MIN(m, want);
}

static u32 take_all(const struct row *r, struct scratch *t) {
    for (u32 i = 0; i < r->n; i++)
        t->c[i] = (struct candidate){.id = i, .x = r->x[i]};
    return r->n;
}

/* Probabilities of n candidates relative to the largest logit; returns their sum. */
static f64 weigh(struct candidate *c, u32 n, f32 max, f64 temperature) {
    f64 sum = 0;
    for (u32 i = 0; i < n; i++) {
        c[i].p = fm_exp(((f64)c[i].x - (f64)max) / temperature);
        sum += c[i].p;
    }
    return sum;
}

/* Keeps the tokens whose surprise -log p is nearest to the expected one until they hold typical_p of the mass
 * (Meister et al. 2022, "Locally typical sampling"). In any order, out best first. The nearest come from a
 * heap: of a whole vocabulary only those that are kept are put in order. */
static u32 keep_typical(struct candidate *c, u32 n, f32 max, f64 typical_p) {
    f64 sum = weigh(c, n, max, 1), weighted = 0, mass = 0;
    for (u32 i = 0; i < n; i++)
        if (c[i].p > 0)
            weighted += c[i].p * ((f64)max - (f64)c[i].x);
    /* The surprise of i is log(sum) + max - x[i], the expected one log(sum) + weighted / sum. */
    f64 expected = weighted / sum;
    for (u32 i = 0; i < n; i++)
        c[i].p = c[i].p > 0 ? fabs((f64)max - (f64)c[i].x - expected) : (f64)INFINITY;
    for (u32 i = n / 2; i-- > 0;)
        sift(c, n, i, less_typical);
    u32 kept = 0;
    while (kept < n && !(mass > typical_p)) {
        struct candidate nearest = c[0];
        c[0] = c[n - 1 - kept];
        c[n - 1 - kept++] = nearest;
        mass += fm_exp((f64)nearest.x - (f64)max) / sum;
        sift(c, n - kept, 0, less_typical);
    }
    memmove(c, c + n - kept, kept * sizeof *c);
    sort(c, kept, better);
    return kept;
}

/* Smallest number of best candidates whose mass reaches top_p of total. */
static u32 keep_top_p(struct candidate *c, u32 n, f64 top_p, f64 total) {
    f64 mass = 0;
    for (u32 i = 0; i < n; i++) {
        mass += c[i].p;
        if (mass >= top_p * total)
            return i + 1;
    }
    return n;
}

/* Without top_k: candidates from the top down until they hold top_p of the mass of all. */
static u32 select_mass(const struct kern *k, const struct row *r, f32 max, f64 top_p, struct scratch *t) {
    f32 ignored;
    f64 lse;
    k->logsumexp(r->x, r->n, &ignored, &lse);
    f64 total = fm_exp(lse);
    u32 m = 0;
    for (f32 width = 8; width < 128;
         width *= 2) { /* at the last one less than e^-64 of each is missing: all */
        m = take_above(k, r, max - width, t);
        if (weigh(t->c, m, max, 1) >= top_p * total)
            break;
    }
    sort(t->c, m, better);
    return keep_top_p(t->c, m, top_p, total);
}

/* Candidates after all filters. Best first if any filter was on, else in order of ids. */
static u32 filter(struct sampler *s, const struct kern *k, const struct row *r, f32 max, struct scratch *t) {
    const struct gen_sampling *p = &s->p;
    bool typical = p->typical_p < 1, top_p = p->top_p < 1;
    u32 n;
    if (p->top_k > 0 && (u32)p->top_k < r->n) {
        n = select_best(k, r, (u32)p->top_k, max, &s->width_hint, t);
    } else if (top_p && !typical) {
        n = select_mass(k, r, max, MAX(0.0, (f64)p->top_p), t);
        top_p = false;
    } else if (p->min_p > 0 && !typical) {
        n = take_above(k, r, max + (f32)fm_log(MIN(1.0, (f64)p->min_p)), t);
        sort(t->c, n, better);
    } else {
        n = take_all(r, t);
    }
    if (typical)
        n = keep_typical(t->c, n, max, MAX(0.0, (f64)p->typical_p));
    if (top_p)
        n = keep_top_p(t->c, n, (f64)p->top_p, weigh(t->c, n, t->c[0].x, 1));
    if (p->min_p > 0) {
        f32 least = t->c[0].x + (f32)fm_log((f64)p->min_p);
        while (n > 1 && t->c[n - 1].x < least)
            n--;
    }
    return n;
}

static u32 draw(const struct sampler *s, struct candidate *c, u32 n, u32 position) {
    f32 max = c[0].x;
    for (u32 i = 1; i < n; i++)
        max = c[i].x > max ? c[i].x : max;
    f64 sum = weigh(c, n, max, (f64)s->p.temperature);
    f64 at = random_unit(s->p.seed, position) * sum, mass = 0;
    u32 last = 0;
    for (u32 i = 0; i < n; i++) {
        mass += c[i].p;
        if (mass > at)
            return c[i].id;
        last = c[i].p > 0 ? i : last;
    }
    return c[last].id; /* only if rounding let the sums differ */
}

static void fill_logprobs(const struct kern *k, const f32 *logits, u32 n_vocab, u32 n_top, struct scratch *t,
                          struct sampler_pick *out) {
    f32 max, width = 8;
    f64 lse;
    k->logsumexp(logits, n_vocab, &max, &lse);
    out->logprob = (f32)((f64)logits[out->token] - (f64)max - lse);
    out->n_top = MIN(MIN(n_top, (u32)ARRAY_LEN(out->top)), n_vocab);
    if (out->n_top == 0)
        return;
    struct row r = row_of(k, logits, n_vocab, t);
    out->n_top = select_best(k, &r, out->n_top, max, &width, t);
    for (u32 i = 0; i < out->n_top; i++) {
        out->top[i].token = t->c[i].id;
        out->top[i].logprob = (f32)((f64)t->c[i].x - (f64)max - lse);
    }
}

void sampler_pick(struct sampler *s, const struct kern *k, const f32 *logits, u32 position, const u32 *mask,
                  u32 n_top, bool want_logprob, void *mem, struct sampler_pick *out) {
    struct scratch t = scratch_at(mem, s->n_vocab);
    memset(out, 0, sizeof *out);
    const f32 *x = logits;
    u32 n = s->n_vocab, chosen;
    f32 max;
    if (s->penalties) {
        memcpy(t.x, logits, n * sizeof *t.x);
        penalize(s, t.x);
        x = t.x;
    }
    if (mask) {
        n = pack(x, n, mask, t.x, t.allowed);
        x = t.x;
    }
    struct row r = row_of(k, x, n, &t);
    chosen = argmax(&r, &max); /* the first if no logit is a number: any token will do, if it is allowed */
    if (s->p.temperature > 0 && max > -INFINITY && max < INFINITY)
        chosen = draw(s, t.c, filter(s, k, &r, max, &t), position);
    out->token = mask ? t.allowed[chosen] : chosen;
    if (want_logprob || n_top)
        fill_logprobs(k, logits, s->n_vocab, n_top, &t, out);
}
