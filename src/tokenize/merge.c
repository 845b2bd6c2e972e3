/* merge.c - byte pair merging: join the two neighbours that come first in the order until none join.
 *
 * The order is the rank of the merge (BPE) or the score of the joined token (SentencePiece), then the
 * place. Short words are merged by looking for the minimum in a small array; long ones with a heap, so
 * that a word of n symbols costs n log n. Both give the same result. */
#include <stdlib.h>

#include "base/limit.h"
#include "tokenize/internal.h"

#define SHORT_WORD 48u
#define ORDER_NONE UINT32_MAX
/* More than that is given back after use. */
#define SCRATCH_SYMBOLS_KEPT 65536u

/* --- the table of merges --- */

static u32 pair_slot(u64 pair, u32 mask) { return (u32)((pair * 0x9e3779b97f4a7c15ull) >> 32) & mask; }

static enum status merge_put(struct tokenizer *t, const struct merge *m, struct err *err) {
    u32 at = pair_slot(m->pair, t->merge_mask), probes = 1;
    for (; t->merges[at].id != TOKEN_NONE; at = (at + 1) & t->merge_mask, probes++)
        if (t->merges[at].pair == m->pair)
            return OK; /* the first of equal ones counts */
    if (probes > 256)
        return err_set(err, ERR_CORRUPT, "the merges of the vocabulary are made to collide");
    t->merge_probes_max = MAX(t->merge_probes_max, probes);
    t->merges[at] = *m;
    return OK;
}

static enum status text_id(struct tokenizer *t, struct str text, u32 *id, struct err *err) {
    *id = vocab_find(t, text);
    return *id == TOKEN_NONE ? vocab_add_text(t, text, id, err) : OK;
}

/* The joined text; mostly it is the token behind the one that the merge before gave. */
static enum status joined_id(struct tokenizer *t, struct str left, struct str right, u32 guess, u32 *id,
                             struct err *err) {
    char text[LIMIT_TOKEN_BYTES];
    size_t n = left.n + right.n;
    if (n > sizeof text)
        return err_set(err, ERR_TOO_LARGE,
                       "a merge of the vocabulary makes a text of %zu bytes; at most %zu are possible", n,
                       sizeof text);
    memcpy(text, left.p, left.n);
    memcpy(text + left.n, right.p, right.n);
    if (guess < t->n_vocab && str_eq(token_text(t, guess), (struct str){text, n})) {
        *id = guess;
        return OK;
    }
    return text_id(t, (struct str){text, n}, id, err);
}

/* The table is larger than the cache: merges are put in batches, whose slots are under way meanwhile. */
struct batch {
    struct merge merges[32];
    u32 n;
};

static enum status batch_flush(struct tokenizer *t, struct batch *b, struct err *err) {
    for (u32 i = 0; i < b->n; i++)
        TRY(merge_put(t, &b->merges[i], err));
    b->n = 0;
    return OK;
}

static enum status batch_add(struct tokenizer *t, struct batch *b, struct merge m, struct err *err) {
    __builtin_prefetch(&t->merges[pair_slot(m.pair, t->merge_mask)], 1);
    b->merges[b->n++] = m;
    return b->n == ARRAY_LEN(b->merges) ? batch_flush(t, b, err) : OK;
}

/* Texts are "left right"; a left part may begin with a blank. */
static enum status merges_fill(struct tokenizer *t, const struct gguf_kv *kv, struct err *err) {
    struct batch batch = {.n = 0};
    struct str text;
    size_t at = 0;
    u32 joined = 0;
    for (u32 rank = 0; rank < kv->n && gguf_next_str(kv, &at, &text); rank++) {
        const char *space = text.n > 2 ? memchr(text.p + 1, ' ', text.n - 2) : NULL;
        u32 left, right;
        if (!space)
            continue;
        struct str l = {text.p, (size_t)(space - text.p)}, r = {space + 1, text.n - l.n - 1};
        TRY(text_id(t, l, &left, err));
        TRY(text_id(t, r, &right, err));
        TRY(joined_id(t, l, r, joined + 1, &joined, err));
        TRY(batch_add(t, &batch, (struct merge){(u64)left << 32 | right, rank, joined}, err));
    }
    return batch_flush(t, &batch, err);
}

enum status merges_load(struct tokenizer *t, const struct gguf *g, struct err *err) {
    const struct gguf_kv *kv = gguf_find(g, STR("tokenizer.ggml.merges"));
    if (!kv || kv->type != GGUF_ARRAY || kv->elem_type != GGUF_STRING)
        return err_set(err, ERR_CORRUPT,
                       "the vocabulary has no merges: tokenizer.ggml.merges is missing or no list of texts");
    if (kv->n > LIMIT_MERGES)
        return err_set(err, ERR_TOO_LARGE, "the vocabulary has %llu merges; at most %u are possible",
                       (unsigned long long)kv->n, LIMIT_MERGES);
    u32 n_slots = 64;
    while (n_slots < kv->n + kv->n / 2)
        n_slots *= 2;
    t->merge_mask = n_slots - 1;
    t->merges = xmalloc(n_slots * sizeof *t->merges);
    memset(t->merges, 0xff, n_slots * sizeof *t->merges);
    return merges_fill(t, kv, err);
}

/* --- the order of a pair --- */

/* Higher scores first: the bits of a float, made to ascend with its value, counted from the other end. */
static u32 score_order(f32 score) {
    u32 bits;
    memcpy(&bits, &score, sizeof bits);
    bits = bits >> 31 ? ~bits : bits | 0x80000000u;
    return MIN(~bits, ORDER_NONE - 1);
}

/* Order of joining two neighbours (the text of both is given) and the token that they become;
 * ORDER_NONE if they don't join. */
static u32 pair_order(const struct tokenizer *t, u32 left, u32 right, struct str both, u32 *id) {
    if (t->kind == KIND_SPM) {
        *id = both.n <= t->text_n_max ? vocab_find(t, both) : TOKEN_NONE;
        return *id == TOKEN_NONE ? ORDER_NONE : score_order(t->tokens[*id].score);
    }
    if (left == TOKEN_NONE || right == TOKEN_NONE)
        return ORDER_NONE;
    u64 pair = (u64)left << 32 | right;
    u32 at = pair_slot(pair, t->merge_mask);
    for (u32 probes = 0; probes < t->merge_probes_max && t->merges[at].id != TOKEN_NONE;
         probes++, at = (at + 1) & t->merge_mask)
        if (t->merges[at].pair == pair) {
            *id = t->merges[at].id;
            return t->merges[at].rank;
        }
    return ORDER_NONE;
}

/* First symbol of text: its length and id. */
static u32 symbol_start(const struct tokenizer *t, struct str word, size_t at, u32 *id) {
    u32 code, n;
    if (t->byte_level) {
        *id = t->start_ids[(u8)word.p[at]];
        return 1;
    }
    n = MAX(utf8_decode(word, at, &code), 1);
    *id = t->kind == KIND_SPM ? TOKEN_NONE : vocab_find(t, (struct str){word.p + at, n});
    return n;
}

/* A symbol that stays; without a token its bytes stand for it. A byte of valid text that the byte alphabet
 * of a vocabulary lacks is lost, as it is for the model's own tokenizer. */
static void symbol_emit(const struct tokenizer *t, u32 id, struct str text, struct token_list *out) {
    if (id == TOKEN_NONE && t->kind == KIND_SPM)
        id = vocab_find(t, text);
    if (id < t->n_vocab) {
        token_list_add(out, id);
        return;
    }
    for (size_t i = 0; i < text.n; i++) {
        u32 byte_id = t->byte_ids[(u8)text.p[i]];
        if (byte_id != TOKEN_NONE)
            token_list_add(out, byte_id);
        else if (!t->byte_level && t->unk != TOKEN_NONE)
            token_list_add(out, t->unk);
    }
}

/* --- short words --- */

struct piece {
    u32 at, n, id;
    u32 order, joined; /* with the next piece */
};

static void piece_order(const struct tokenizer *t, struct str word, struct piece *p, u32 i, u32 n) {
    if (i + 1 >= n)
        p[i].order = ORDER_NONE;
    else
        p[i].order = pair_order(t, p[i].id, p[i + 1].id, (struct str){word.p + p[i].at, p[i].n + p[i + 1].n},
                                &p[i].joined);
}

static void short_merge(const struct tokenizer *t, struct str word, struct token_list *out) {
    struct piece p[SHORT_WORD];
    u32 n = 0;
    for (size_t at = 0; at < word.n; n++) {
        p[n].at = (u32)at;
        p[n].n = symbol_start(t, word, at, &p[n].id);
        at += p[n].n;
    }
    for (u32 i = 0; i < n; i++)
        piece_order(t, word, p, i, n);
    for (;;) {
        u32 best = 0;
        for (u32 i = 1; i + 1 < n; i++)
            if (p[i].order < p[best].order)
                best = i;
        if (p[best].order == ORDER_NONE)
            break;
        p[best].n += p[best + 1].n;
        p[best].id = p[best].joined;
        n--;
        memmove(&p[best + 1], &p[best + 2], (n - best - 1) * sizeof *p);
        piece_order(t, word, p, best, n);
        if (best > 0)
            piece_order(t, word, p, best - 1, n);
    }
    for (u32 i = 0; i < n; i++)
        symbol_emit(t, p[i].id, (struct str){word.p + p[i].at, p[i].n}, out);
}

/* --- long words --- */

static void heap_push(struct tokenize_scratch *s, struct heap_item item) {
    if (s->n_heap == s->cap_heap) {
        s->cap_heap = MAX(1024, 2 * s->cap_heap);
        s->heap = xrealloc(s->heap, s->cap_heap * sizeof *s->heap);
    }
    u32 i = s->n_heap++;
    for (; i > 0 && s->heap[(i - 1) / 2].key > item.key; i = (i - 1) / 2)
        s->heap[i] = s->heap[(i - 1) / 2];
    s->heap[i] = item;
}

static struct heap_item heap_pop(struct tokenize_scratch *s) {
    struct heap_item top = s->heap[0], last = s->heap[--s->n_heap];
    u32 i = 0;
    for (;;) {
        u32 child = 2 * i + 1;
        if (child >= s->n_heap)
            break;
        if (child + 1 < s->n_heap && s->heap[child + 1].key < s->heap[child].key)
            child++;
        if (s->heap[child].key >= last.key)
            break;
        s->heap[i] = s->heap[child];
        i = child;
    }
    s->heap[i] = last;
    return top;
}

static void pair_push(const struct tokenizer *t, struct tokenize_scratch *s, struct str word, u32 left) {
    const struct symbol *l = &s->symbols[left];
    if (l->next == UINT32_MAX)
        return;
    const struct symbol *r = &s->symbols[l->next];
    struct heap_item item = {.n = l->n + r->n};
    u32 order = pair_order(t, l->id, r->id, (struct str){word.p + l->at, item.n}, &item.id);
    if (order == ORDER_NONE)
        return;
    item.key = (u64)order << 32 | left;
    heap_push(s, item);
}

/* One symbol per character of the word, linked. */
static u32 symbols_make(const struct tokenizer *t, struct tokenize_scratch *s, struct str word) {
    u32 n = 0;
    if (s->cap_symbols < word.n) {
        s->cap_symbols = (u32)word.n;
        s->symbols = xrealloc(s->symbols, s->cap_symbols * sizeof *s->symbols);
    }
    for (size_t at = 0; at < word.n; n++) {
        struct symbol *y = &s->symbols[n];
        *y = (struct symbol){.at = (u32)at, .prev = n - 1, .next = n + 1};
        y->n = symbol_start(t, word, at, &y->id);
        at += y->n;
    }
    s->symbols[n - 1].next = UINT32_MAX;
    return n;
}

static void long_merge(const struct tokenizer *t, struct tokenize_scratch *s, struct str word,
                       struct token_list *out) {
    u32 n = symbols_make(t, s, word);
    s->n_heap = 0;
    for (u32 i = 0; i + 1 < n; i++)
        pair_push(t, s, word, i);
    while (s->n_heap) {
        struct heap_item item = heap_pop(s);
        u32 left = (u32)item.key;
        struct symbol *l = &s->symbols[left];
        if (l->n == 0 || l->next == UINT32_MAX || l->n + s->symbols[l->next].n != item.n)
            continue; /* one of the two has been joined with another one meanwhile */
        struct symbol *r = &s->symbols[l->next];
        l->n = item.n;
        l->id = item.id;
        l->next = r->next;
        r->n = 0;
        if (l->next != UINT32_MAX)
            s->symbols[l->next].prev = left;
        pair_push(t, s, word, left);
        if (l->prev != UINT32_MAX)
            pair_push(t, s, word, l->prev);
    }
    for (u32 i = 0; i != UINT32_MAX; i = s->symbols[i].next)
        symbol_emit(t, s->symbols[i].id, (struct str){word.p + s->symbols[i].at, s->symbols[i].n}, out);
    if (s->cap_symbols > SCRATCH_SYMBOLS_KEPT) {
        free(s->symbols);
        free(s->heap);
        s->symbols = NULL;
        s->heap = NULL;
        s->cap_symbols = s->cap_heap = 0;
    }
}

/* --- words --- */

/* Where the vocabulary has the whole word and merging is not asked for. */
static u32 word_id(const struct tokenizer *t, struct str word) {
    char spelled[2 * LIMIT_TOKEN_BYTES];
    if (t->newline_words) {
        for (size_t i = 0; i < word.n; i++)
            if (word.p[i] != '\n')
                return TOKEN_NONE;
        return vocab_find(t, word);
    }
    if (!t->ignore_merges || word.n > t->text_n_max)
        return TOKEN_NONE;
    if (!t->byte_level)
        return vocab_find(t, word);
    return vocab_find(t, (struct str){spelled, bytelevel_spell(word, spelled)});
}

/* Texts repeat their words. What one has become is kept for the rest of the call (the next one may be for
 * another vocabulary); a word is merged where it is not there. */
static void short_take(const struct tokenizer *t, struct tokenize_scratch *s, struct str word,
                       struct token_list *out) {
    if (!s || word.n < 3 || word.n > sizeof s->known->text) {
        short_merge(t, word, out);
        return;
    }
    struct known_word *k = &s->known[text_hash(word) % KNOWN_WORDS];
    if (k->call == s->call && str_eq((struct str){k->text, k->n_text}, word)) {
        for (u32 i = 0; i < k->n_ids; i++)
            token_list_add(out, k->ids[i]);
        return;
    }
    u32 start = out->n;
    short_merge(t, word, out);
    if (out->n - start > ARRAY_LEN(k->ids))
        return;
    k->call = s->call;
    k->n_text = (u8)word.n;
    k->n_ids = (u8)(out->n - start);
    memcpy(k->text, word.p, word.n);
    memcpy(k->ids, out->ids + start, k->n_ids * sizeof *k->ids);
}

void merge_word(const struct tokenizer *t, struct tokenize_scratch *s, struct str word,
                struct token_list *out) {
    check(word.n <= LIMIT_TOKENIZE_WORD_BYTES);
    u32 id = word_id(t, word);
    if (id < t->n_vocab)
        token_list_add(out, id);
    else if (word.n <= SHORT_WORD)
        short_take(t, s, word, out);
    else
        long_merge(t, s, word, out);
}
