/* unigram.c - SentencePiece's unigram model: normalize, then the split with the best sum of scores.
 *
 * Normalization replaces the longest prefix that the file's table of rules knows (tokenizer.ggml.
 * precompiled_charsmap): u32 size of a double array, the array, replacement texts with NULs behind them.
 * An entry of the array (S. Kanda, "Space- and time-efficient string dictionaries", 2018): label in bits
 * 0..7, bit 8 = a rule ends here, bit 9 = base is shifted by 8, base in bits 10..30; an entry with bit 31
 * holds the place of a replacement text. Child of node n over byte c: n ^ base(n) ^ c. */
#include <float.h>
#include <stdlib.h>

#include "base/limit.h"
#include "tokenize/internal.h"

/* The longest rule of NFKC is below 32 bytes; its longest replacement is 33 (U+FDFA). */
#define RULE_BYTES_MAX 256u
#define UNKNOWN_PENALTY 10.0f

/* --- loading --- */

static enum status charsmap_load(struct tokenizer *t, const struct gguf_kv *kv, struct err *err) {
    if (kv->type != GGUF_ARRAY || (kv->elem_type != GGUF_U8 && kv->elem_type != GGUF_I8) || kv->n < 4)
        return err_set(err, ERR_CORRUPT, "tokenizer.ggml.precompiled_charsmap is no list of bytes");
    u64 array_bytes = load_u32(kv->data), texts_at = 4 + array_bytes;
    if (array_bytes % 4 != 0 || array_bytes == 0 || texts_at >= kv->n || kv->data[kv->n - 1] != 0)
        return err_set(err, ERR_CORRUPT, "tokenizer.ggml.precompiled_charsmap is damaged");
    for (u64 at = texts_at, start = texts_at; at < kv->n; at++) {
        if (at - start > RULE_BYTES_MAX)
            return err_set(err, ERR_CORRUPT,
                           "tokenizer.ggml.precompiled_charsmap: a replacement of more than %u bytes",
                           RULE_BYTES_MAX);
        if (kv->data[at] == 0)
            start = at + 1;
    }
    t->n_charsmap = (u32)(array_bytes / 4);
    t->charsmap = xmalloc(array_bytes);
    memcpy(t->charsmap, kv->data + 4, array_bytes);
    t->charsmap_text_at = (u32)t->blob.n;
    t->charsmap_text_n = (u32)(kv->n - texts_at);
    buf_add(&t->blob, kv->data + texts_at, t->charsmap_text_n);
    return OK;
}

enum status unigram_load(struct tokenizer *t, const struct gguf *g, struct err *err) {
    f32 least = FLT_MAX;
    for (u32 id = 0; id < t->n_vocab; id++)
        if (t->tokens[id].attr & ATTR_NORMAL)
            least = MIN(least, t->tokens[id].score);
    t->unknown_score = (least == FLT_MAX ? 0 : least) - UNKNOWN_PENALTY;
    if (t->unk == TOKEN_NONE)
        return err_set(err, ERR_CORRUPT,
                       "a unigram vocabulary needs an unknown token: tokenizer.ggml.unknown_token_id");
    const struct gguf_kv *kv = gguf_find(g, STR("tokenizer.ggml.precompiled_charsmap"));
    return kv ? charsmap_load(t, kv, err) : OK;
}

/* --- normalization --- */

struct unigram_pass {
    const struct tokenizer *t;
    struct tokenize_scratch *s;
    struct token_list *out;
    u32 out_start; /* tokens in front of this text */
    bool in_word, lead_done;
};

/* Longest rule that text begins with: its length, 0 if none, and the replacement. */
static u32 rule_find(const struct tokenizer *t, struct str text, struct str *replacement) {
    u32 node = 0, found = 0, place = 0;
    for (u32 i = 0; i < RULE_BYTES_MAX && t->n_charsmap; i++) {
        u32 entry = t->charsmap[node];
        u32 base = entry >> 10 << ((entry & 1u << 9) >> 6);
        if (i > 0 && entry >> 8 & 1) { /* a rule ends here; its text is named by the child over 0 */
            u32 leaf = node ^ base;
            if (leaf >= t->n_charsmap)
                break;
            found = i;
            place = t->charsmap[leaf] & INT32_MAX;
        }
        if (i == text.n || text.p[i] == 0)
            break;
        node ^= base ^ (u8)text.p[i];
        if (node >= t->n_charsmap || (t->charsmap[node] & (1u << 31 | 0xff)) != (u8)text.p[i])
            break;
    }
    if (!found || place >= t->charsmap_text_n)
        return 0;
    *replacement = str_of(t->blob.p + t->charsmap_text_at + place); /* the last byte of all is a NUL */
    return found;
}

static u32 user_token_len(const struct tokenizer *t, struct str text) {
    u32 node = TRIE_ROOT, found = 0;
    for (u32 i = 0; i < text.n; i++) {
        node = trie_child(&t->user, node, (u8)text.p[i]);
        if (node == 0)
            break;
        if (t->user.values[node] != TRIE_NONE)
            found = i + 1;
    }
    return found;
}

/* What the text becomes from its start on; returns the bytes used up. */
static u32 prefix_normalize(const struct tokenizer *t, struct str text, struct str *result) {
    u32 code, n = user_token_len(t, text);
    if (n == 0) {
        n = rule_find(t, text, result);
        if (n)
            return n;
        n = utf8_decode(text, 0, &code);
    }
    *result = n ? str_slice(text, 0, n) : STR("\xef\xbf\xbd");
    return MAX(n, 1);
}

/* --- the best split of one word --- */

static void paths_reset(struct tokenize_scratch *s, const struct tokenizer *t, size_t n) {
    if (s->cap_paths < n + 1) {
        s->cap_paths = n + 1;
        s->paths = xrealloc(s->paths, s->cap_paths * sizeof *s->paths);
    }
    for (size_t i = 0; i <= n; i++)
        s->paths[i] = (struct best_path){-DBL_MAX, 0, t->unk};
    s->paths[0].score = 0;
}

static void path_offer(struct best_path *best, f64 score, size_t from, u32 id) {
    if (score > best->score)
        *best = (struct best_path){score, (u32)from, id};
}

/* Extends the best split up to `at` by every token that begins there. */
static size_t paths_extend(const struct tokenizer *t, struct best_path *paths, struct str word, size_t at) {
    u32 code, n_char = MAX(utf8_decode(word, at, &code), 1), node = TRIE_ROOT;
    bool single = false;
    for (size_t end = at + 1; end <= word.n; end++) {
        node = trie_child(&t->pieces, node, (u8)word.p[end - 1]);
        if (node == 0)
            break;
        u32 id = t->pieces.values[node];
        if (id == TRIE_NONE)
            continue;
        single = single || end - at == n_char;
        f64 score = t->tokens[id].attr & ATTR_USER ? 0.0 : (f64)t->tokens[id].score;
        path_offer(&paths[end], paths[at].score + score, at, id);
    }
    if (!single)
        path_offer(&paths[at + n_char], paths[at].score + (f64)t->unknown_score, at, t->unk);
    return at + n_char;
}

static void word_split(struct unigram_pass *p, struct str word) {
    const struct tokenizer *t = p->t;
    paths_reset(p->s, t, word.n);
    struct best_path *paths = p->s->paths;
    for (size_t at = 0; at < word.n;)
        at = paths_extend(t, paths, word, at);
    u32 start = p->out->n;
    for (size_t at = word.n; at > 0; at = paths[at].from)
        /* Neighbours that are unknown become one. */
        if (paths[at].id != t->unk || p->out->n == start || p->out->ids[p->out->n - 1] != t->unk)
            token_list_add(p->out, paths[at].id);
    u32 n = p->out->n - start, *ids = p->out->ids + start;
    for (u32 i = 0; i < n / 2; i++) {
        u32 swap = ids[i];
        ids[i] = ids[n - 1 - i];
        ids[n - 1 - i] = swap;
    }
    if (n && start > p->out_start && ids[0] == t->unk && ids[-1] == t->unk) {
        memmove(ids, ids + 1, (n - 1) * sizeof *ids);
        p->out->n--;
    }
}

/* The scores of a split add up, so words can be split one by one. */
static void word_flush(struct unigram_pass *p) {
    if (p->s->text.n)
        word_split(p, buf_str(&p->s->text));
    buf_clear(&p->s->text);
}

static void blank_put(struct unigram_pass *p) {
    struct buf *text = &p->s->text;
    if (text->n && !str_ends(buf_str(text), BLANK) && !p->t->before_blank[(u8)text->p[text->n - 1]])
        word_flush(p);
    buf_add_str(text, BLANK);
}

static void normal_put(struct unigram_pass *p, struct str text) {
    for (size_t i = 0; i < text.n; i++) {
        if (text.p[i] == ' ') {
            p->in_word = false;
            if (!p->t->merge_blanks)
                blank_put(p);
            continue;
        }
        if (!p->in_word && ((p->t->add_blank && !p->lead_done) || p->t->merge_blanks)) {
            blank_put(p);
            p->lead_done = true;
        }
        p->in_word = true;
        buf_add_char(&p->s->text, text.p[i]);
    }
}

void unigram_tokenize(const struct tokenizer *t, struct tokenize_scratch *s, struct str text,
                      struct token_list *out) {
    struct unigram_pass p = {t, s, out, out->n, false, false};
    struct str result;
    buf_clear(&s->text);
    while (text.n) {
        u32 n = prefix_normalize(t, text, &result);
        normal_put(&p, result);
        if (s->text.n > LIMIT_TOKENIZE_WORD_BYTES)
            word_flush(&p);
        text = str_slice(text, n, text.n);
    }
    word_flush(&p);
}
