/* vocab.c - reads the vocabulary of a GGUF file into memory: spellings, what they stand for, kinds of
 * tokens, special ids. Keys are those of the GGUF specification, tokenizer.ggml.*; defaults and the
 * corrections by well-known texts are llama.cpp's, since files rely on them. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/limit.h"
#include "tokenize/internal.h"

#define KEY(name) STR("tokenizer.ggml." name)
/* A chain this long in a half-empty table is made on purpose. */
#define PROBES_MAX 256u

/* --- the table of spellings --- */

static u64 mix(u64 a, u64 b) {
    unsigned __int128 product = (unsigned __int128)(a ^ 0x9e3779b97f4a7c15ull) * (b ^ 0xd1b54a32d192ed03ull);
    return (u64)product ^ (u64)(product >> 64);
}

/* Most texts are shorter than 8 bytes, and opening hashes two of them per merge: they are read by two
 * overlapping loads instead of byte by byte. */
u64 text_hash(struct str text) {
    const char *p = text.p;
    size_t n = text.n;
    if (n > 16) /* rare, and long: the steps between matter less */
        return hash_bytes(p, n, 0);
    if (n >= 8)
        return mix(load_u64(p), load_u64(p + n - 8) ^ n);
    if (n >= 4)
        return mix((u64)load_u32(p) << 32 | load_u32(p + n - 4), n);
    return n ? mix((u64)(u8)p[0] << 16 | (u64)(u8)p[n / 2] << 8 | (u8)p[n - 1], n) : 0;
}

static void slot_put(struct tokenizer *t, u64 hash, u32 id) {
    u32 at = (u32)hash & t->slot_mask, probes = 1;
    while (t->slots[at]) {
        at = (at + 1) & t->slot_mask;
        probes++;
    }
    t->slots[at] = hash >> 32 << 32 | (id + 1);
    t->probes_max = MAX(t->probes_max, probes);
}

static void slots_resize(struct tokenizer *t, u32 n_texts) {
    u32 n = 64;
    while (n < 2 * n_texts)
        n *= 2;
    free(t->slots);
    t->slots = xcalloc(n, sizeof *t->slots);
    t->slot_mask = n - 1;
    t->probes_max = 0;
    for (u32 id = 0; id < t->n_tokens; id++)
        slot_put(t, text_hash(token_text(t, id)), id);
}

static u64 *slot_find(const struct tokenizer *t, struct str text, u64 hash) {
    u32 at = (u32)hash & t->slot_mask;
    for (u32 probes = 0; probes < t->probes_max && t->slots[at]; probes++, at = (at + 1) & t->slot_mask)
        if (t->slots[at] >> 32 == hash >> 32 && str_eq(token_text(t, (u32)t->slots[at] - 1), text))
            return &t->slots[at];
    return NULL;
}

u32 vocab_find(const struct tokenizer *t, struct str text) {
    const u64 *slot = slot_find(t, text, text_hash(text));
    return slot ? (u32)*slot - 1 : TOKEN_NONE;
}

/* The spelling becomes the newest token. One that exists already is re-pointed: the last one counts. */
static enum status text_add(struct tokenizer *t, struct str text, struct err *err) {
    u64 hash = text_hash(text), *slot = slot_find(t, text, hash);
    u32 id = t->n_tokens;
    if (t->blob.n + text.n > INT32_MAX)
        return err_set(err, ERR_TOO_LARGE, "the texts of the vocabulary exceed 2 GiB");
    t->tokens[id] = (struct token){.text_at = (u32)t->blob.n, .text_n = (u32)text.n, .attr = ATTR_NORMAL};
    buf_add_str(&t->blob, text);
    t->n_tokens++;
    if (slot)
        *slot = hash >> 32 << 32 | (id + 1);
    else
        slot_put(t, hash, id);
    if (t->probes_max > PROBES_MAX)
        return err_set(err, ERR_CORRUPT, "the tokens of the vocabulary are made to collide");
    return OK;
}

enum status vocab_add_text(struct tokenizer *t, struct str text, u32 *id, struct err *err) {
    if (t->n_tokens == t->cap_tokens) {
        t->cap_tokens += t->cap_tokens / 2 + 64;
        t->tokens = xrealloc(t->tokens, t->cap_tokens * sizeof *t->tokens);
    }
    if (2 * (t->n_tokens + 1) > t->slot_mask + 1)
        slots_resize(t, t->n_tokens + 1);
    *id = t->n_tokens;
    return text_add(t, text, err);
}

/* --- tokens --- */

static enum status array_find(const struct tokenizer *t, const struct gguf *g, struct str key,
                              const struct gguf_kv **kv, struct err *err) {
    *kv = gguf_find(g, key);
    if (!*kv)
        return OK;
    if ((*kv)->type != GGUF_ARRAY || (*kv)->n < t->n_vocab)
        return err_set(err, ERR_CORRUPT, "%.*s is no array of %u values", STR_FMT(key), t->n_vocab);
    return OK;
}

static enum status texts_load(struct tokenizer *t, const struct gguf *g, struct err *err) {
    const struct gguf_kv *kv = gguf_find(g, KEY("tokens"));
    struct str text;
    size_t at = 0;
    char empty[32];
    if (!kv || kv->type != GGUF_ARRAY || kv->elem_type != GGUF_STRING || kv->n == 0)
        return err_set(err, ERR_CORRUPT,
                       "the model has no vocabulary: tokenizer.ggml.tokens is missing or no list of texts");
    if (kv->n > LIMIT_VOCAB)
        return err_set(err, ERR_TOO_LARGE, "the vocabulary has %llu tokens; at most %u are possible",
                       (unsigned long long)kv->n, LIMIT_VOCAB);
    t->n_vocab = t->cap_tokens = (u32)kv->n;
    t->tokens = xmalloc(t->n_vocab * sizeof *t->tokens);
    slots_resize(t, t->n_vocab);
    buf_reserve(&t->blob, kv->bytes);
    while (t->n_tokens < t->n_vocab && gguf_next_str(kv, &at, &text)) {
        if (text.n > LIMIT_TOKEN_BYTES)
            return err_set(err, ERR_TOO_LARGE,
                           "token %u of the vocabulary has %zu bytes; at most %u are possible", t->n_tokens,
                           text.n, LIMIT_TOKEN_BYTES);
        if (text.n == 0) { /* must not match anything */
            snprintf(empty, sizeof empty, "[EMPTY_%u]", t->n_tokens);
            text = str_of(empty);
        }
        TRY(text_add(t, text, err));
        t->text_n_max = MAX(t->text_n_max, (u32)text.n);
    }
    if (t->n_tokens < t->n_vocab)
        return err_set(err, ERR_CORRUPT, "tokenizer.ggml.tokens has changed while it was read");
    return OK;
}

/* tokenizer.ggml.token_type: 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte. */
static enum status kinds_load(struct tokenizer *t, const struct gguf *g, struct err *err) {
    static const u8 attrs[] = {0, ATTR_NORMAL, ATTR_UNKNOWN, ATTR_CONTROL, ATTR_USER, ATTR_UNUSED, ATTR_BYTE};
    const struct gguf_kv *types, *scores;
    TRY(array_find(t, g, KEY("token_type"), &types, err));
    TRY(array_find(t, g, KEY("scores"), &scores, err));
    for (u32 id = 0; types && id < t->n_vocab; id++) {
        u32 type = ARRAY_LEN(attrs);
        if (types->elem_type == GGUF_I32)
            type = load_u32(types->data + 4 * (size_t)id);
        else
            gguf_elem_u32(types, id, &type);
        t->tokens[id].attr = type < ARRAY_LEN(attrs) ? attrs[type] : 0;
    }
    for (u32 id = 0; scores && id < t->n_vocab; id++) {
        f32 score;
        /* Adding 0 makes -0 compare like 0; a NaN would compare like nothing. */
        if (gguf_elem_f32(scores, id, &score) && !isnan(score))
            t->tokens[id].score = score + 0.0f;
    }
    return OK;
}

/* --- what the tokens stand for --- */

/* "<0x41>" */
static bool byte_token(struct str text, u8 *byte) {
    u32 v = 0;
    if (text.n != 6 || memcmp(text.p, "<0x", 3) != 0 || text.p[5] != '>')
        return false;
    for (u32 i = 3; i < 5; i++) {
        char c = text.p[i];
        if (!((c >= '0' && c <= '9') || (c >= 'A' && c <= 'F') || (c >= 'a' && c <= 'f')))
            return false;
        v = v * 16 + (u32)(c <= '9' ? c - '0' : (c | 32) - 'a' + 10);
    }
    *byte = (u8)v;
    return true;
}

static size_t blanks_unescape(struct str text, char *out) {
    size_t n = 0;
    for (size_t at = 0; at < text.n;) {
        bool blank = blank_at(text, at);
        out[n++] = blank ? ' ' : text.p[at];
        at += blank ? BLANK.n : 1;
    }
    return n;
}

static void bytes_make(struct tokenizer *t, struct token *k) {
    k->bytes_at = k->text_at;
    k->bytes_n = k->text_n;
    if (k->attr & (ATTR_CONTROL | ATTR_UNKNOWN | ATTR_USER))
        return;
    buf_reserve(&t->blob, k->text_n);
    struct str text = {t->blob.p + k->text_at, k->text_n};
    char *out = t->blob.p + t->blob.n;
    size_t n = 0;
    u8 byte;
    if (k->attr & ATTR_BYTE)
        n = byte_token(text, &byte) ? (*out = (char)byte, 1) : 0;
    else if (k->attr & ATTR_NORMAL)
        n = t->byte_level ? bytelevel_decode(text, out) : blanks_unescape(text, out);
    if (n == k->text_n && memcmp(out, text.p, n) == 0)
        return; /* stands for itself: one copy is enough */
    k->bytes_at = (u32)t->blob.n;
    k->bytes_n = (u32)n;
    t->blob.n += n;
}

static void byte_ids_make(struct tokenizer *t) {
    for (u32 b = 0; b < 256; b++) {
        char raw = (char)b, text[8];
        struct str spelled = {text, 6};
        if (t->byte_level)
            spelled.n = bytelevel_spell((struct str){&raw, 1}, text);
        else
            snprintf(text, sizeof text, "<0x%02X>", b);
        u32 id = vocab_find(t, spelled);
        t->start_ids[b] = id;
        if (id >= t->n_vocab && !t->byte_level)
            id = vocab_find(t, (struct str){&raw, 1});
        /* An added token of that spelling stands for the character, not for the byte. */
        bool added = id < t->n_vocab && t->tokens[id].attr & (ATTR_USER | ATTR_CONTROL | ATTR_UNKNOWN);
        t->byte_ids[b] = id < t->n_vocab && !added ? id : TOKEN_NONE;
    }
}

/* What stands for a byte of invalid UTF-8 that has no token: U+FFFD, where the alphabet has its bytes. */
static void replacement_make(struct tokenizer *t) {
    static const char text[] = "\xef\xbf\xbd";
    for (u32 i = 0; i < 3; i++)
        if (t->byte_ids[(u8)text[i]] == TOKEN_NONE)
            return;
    merge_word(t, NULL, STR(text), &t->replacement); /* a short word needs no scratch */
}

/* --- special tokens --- */

static u32 id_get(const struct tokenizer *t, const struct gguf *g, struct str key, u32 otherwise) {
    u32 id;
    if (gguf_get_u32(g, key, &id) && id < t->n_vocab)
        return id;
    return otherwise < t->n_vocab ? otherwise : TOKEN_NONE;
}

static void specials_load(struct tokenizer *t, const struct gguf *g) {
    bool spm = t->kind == KIND_SPM, bert = t->kind == KIND_WORDPIECE, unigram = t->kind == KIND_UNIGRAM;
    t->bos = id_get(t, g, KEY("bos_token_id"), spm ? 1 : bert ? 101 : TOKEN_NONE);
    t->eos = id_get(t, g, KEY("eos_token_id"), spm ? 2 : unigram ? 1 : TOKEN_NONE);
    t->unk = id_get(t, g, KEY("unknown_token_id"), spm ? 0 : bert ? 100 : unigram ? 2 : TOKEN_NONE);
    t->sep =
        id_get(t, g, KEY("seperator_token_id"), bert ? 102 : TOKEN_NONE); /* the specification's spelling */
    gguf_get_bool(g, KEY("add_bos_token"), &t->add_bos);
    gguf_get_bool(g, KEY("add_eos_token"), &t->add_eos);
    gguf_get_bool(g, KEY("add_space_prefix"), &t->add_blank);
    gguf_get_bool(g, KEY("remove_extra_whitespaces"), &t->merge_blanks);
}

static struct token *token_by_text(struct tokenizer *t, const char *text) {
    u32 id = vocab_find(t, str_of(text));
    return id < t->n_vocab ? &t->tokens[id] : NULL;
}

static bool is_end_text(struct tokenizer *t, const char *text) {
    struct token *k = token_by_text(t, text);
    return k && k->end;
}

/* A text that other models end with is plain in this one. */
static void end_undo(struct tokenizer *t, const char *text, u8 attr) {
    struct token *k = token_by_text(t, text);
    if (k && k->end) {
        k->end = false;
        k->attr = attr;
    }
}

/* Tokens that end generation, though many files name only one of theirs. Listed are the texts that
 * models are known to end a turn, a message or a document with; such a token is a control token
 * whatever the file says. */
static void ends_mark(struct tokenizer *t, const struct gguf *g) {
    static const char *const ends[] = {
        "<|eot_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<|flush|>", "<|calls|>",
        "<end_of_turn>", "<|endoftext|>", "</s>", "<|eom_id|>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]",
        "<|end_of_text|>", "<end_of_utterance>", "<eos>", "<turn|>", "<|tool_response>",
        "<｜end▁of▁sentence｜>", "[e~[",
        /* padding and borders of fill-in-the-middle: nothing sensible follows */
        "<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]", "<|fim_repo|>", "<|repo_name|>",
        "<fim-repo>", "<REPO>", "<reponame>", "<|file_sep|>"};
    static const char *const harmony[] = {"<|channel|>", "<|message|>", "<|start|>", "<|constrain|>"};
    const u32 ids[] = {t->eos, id_get(t, g, KEY("eot_token_id"), TOKEN_NONE),
                       id_get(t, g, KEY("eom_token_id"), TOKEN_NONE)};
    for (u32 i = 0; i < ARRAY_LEN(ends); i++) {
        struct token *k = token_by_text(t, ends[i]);
        if (k) {
            k->end = true;
            k->attr |= ATTR_CONTROL;
        }
    }
    for (u32 i = 0; i < ARRAY_LEN(harmony); i++) {
        struct token *k = token_by_text(t, harmony[i]);
        if (k)
            k->attr = ATTR_USER; /* these structure the answer and must stay visible */
    }
    for (u32 i = 0; i < ARRAY_LEN(ids); i++)
        if (ids[i] != TOKEN_NONE)
            t->tokens[ids[i]].end = true;
    /* In the harmony format <|end|> only ends a message of several. */
    bool calls = is_end_text(t, "<|call|>") || is_end_text(t, "<|calls|>");
    if (calls && (is_end_text(t, "<|return|>") || is_end_text(t, "<|flush|>")))
        end_undo(t, "<|end|>", ATTR_USER);
    if (is_end_text(t, "<|tool_response>"))
        end_undo(t, "</s>", ATTR_NORMAL);
}

/* The borders of fill-in-the-middle, by their texts: control tokens, though many files call them normal or
 * user-defined, and then a user's text could hold them. */
static void fim_mark(struct tokenizer *t) {
    static const char *const texts[] = {
        "<|fim_prefix|>", "<fim-prefix>",    "<fim_prefix>",    "<｜fim▁begin｜>", "<PRE>",
        "▁<PRE>",         "<|code_prefix|>", "<|prefix|>",      "<|fim_suffix|>",  "<fim-suffix>",
        "<fim_suffix>",   "<｜fim▁hole｜>",  "<SUF>",           "▁<SUF>",          "<|code_suffix|>",
        "<|suffix|>",     "<|fim_middle|>",  "<fim-middle>",    "<fim_middle>",    "<｜fim▁end｜>",
        "<MID>",          "▁<MID>",          "<|code_middle|>", "<|middle|>"};
    for (u32 i = 0; i < ARRAY_LEN(texts); i++) {
        struct token *k = token_by_text(t, texts[i]);
        if (k)
            k->attr |= ATTR_CONTROL;
    }
}

static void strip_set(struct tokenizer *t, const char *text, u8 bit, bool on) {
    struct token *k = token_by_text(t, text);
    if (k)
        k->attr = on ? k->attr | bit : k->attr & (u8)~bit;
}

static bool name_has(struct str name, const char *part) {
    for (size_t i = 0; i + strlen(part) <= name.n; i++)
        if (str_eq_nocase((struct str){name.p + i, strlen(part)}, str_of(part)))
            return true;
    return false;
}

/* Files do not say which tokens swallow the white space beside them; the model's name does. */
static void strips_set(struct tokenizer *t, const struct gguf *g) {
    struct str name = STR_NONE, pre = STR_NONE, arch = STR_NONE;
    gguf_get_str(g, STR("general.name"), &name);
    gguf_get_str(g, STR("general.architecture"), &arch);
    gguf_get_str(g, KEY("pre"), &pre);
    if (name_has(pre, "jina-v2-de") || name_has(pre, "jina-v2-es") || name_has(pre, "jina-v2-code") ||
        name_has(arch, "nomic-bert-moe") || name_has(arch, "jina-bert-v3")) {
        strip_set(t, "<mask>", ATTR_LSTRIP, true);
    } else if (name_has(name, "phi-3") || name_has(name, "phi3")) {
        for (u32 id = 0; id < t->n_vocab; id++)
            if (t->tokens[id].attr & (ATTR_CONTROL | ATTR_UNKNOWN | ATTR_USER))
                t->tokens[id].attr |= ATTR_RSTRIP;
        strip_set(t, "</s>", ATTR_RSTRIP, true);
        strip_set(t, "<unk>", ATTR_RSTRIP, false);
        strip_set(t, "<s>", ATTR_RSTRIP, false);
        strip_set(t, "<|endoftext|>", ATTR_RSTRIP, false);
    } else if (name_has(name, "modern-bert")) {
        strip_set(t, "[MASK]", ATTR_LSTRIP, true);
    }
}

static enum status trie_full(struct err *err) {
    return err_set(err, ERR_TOO_LARGE, "the texts of the vocabulary are too large");
}

static enum status tries_make(struct tokenizer *t, struct err *err) {
    bool walks = t->kind == KIND_WORDPIECE || t->kind == KIND_UNIGRAM;
    trie_init(&t->special);
    trie_init(&t->pieces);
    trie_init(&t->user);
    for (u32 id = 0; id < t->n_vocab; id++) {
        u8 attr = t->tokens[id].attr;
        struct str text = token_text(t, id);
        bool special = attr & (ATTR_CONTROL | ATTR_UNKNOWN | ATTR_USER);
        bool piece = t->kind == KIND_WORDPIECE || attr & (ATTR_NORMAL | ATTR_USER | ATTR_UNUSED);
        if (special && !trie_add(&t->special, text, id))
            return trie_full(err);
        if (walks && piece && !trie_add(&t->pieces, text, id))
            return trie_full(err);
        if (t->kind == KIND_UNIGRAM && attr & ATTR_USER && !trie_add(&t->user, text, id))
            return trie_full(err);
    }
    return OK;
}

/* --- kinds --- */

static enum status kind_read(struct tokenizer *t, const struct gguf *g, struct str *pre, struct err *err) {
    struct str model = STR_NONE;
    gguf_get_str(g, KEY("model"), &model);
    gguf_get_str(g, KEY("pre"), pre);
    t->escape_blanks = true;
    if (str_is(model, "gpt2")) {
        t->kind = KIND_BPE;
    } else if (str_is(model, "gemma4")) {
        t->kind = KIND_BPE;
        *pre = STR("gemma4");
    } else if (str_is(model, "llama")) {
        t->kind = KIND_SPM;
        t->add_blank = t->add_bos = true;
    } else if (str_is(model, "bert")) {
        t->kind = KIND_WORDPIECE;
        t->add_bos = true;
        t->lowercase = true;
        gguf_get_bool(g, KEY("normalizer.lowercase"), &t->lowercase);
        t->strip_accents = t->lowercase;
        gguf_get_bool(g, KEY("normalizer.strip_accents"), &t->strip_accents);
    } else if (str_is(model, "t5")) {
        t->kind = KIND_UNIGRAM;
        t->add_eos = true;
    } else {
        return err_set(err, ERR_UNSUPPORTED, "tokenizer \"%.*s\" is not supported (tokenizer.ggml.model)",
                       (int)MIN(model.n, 64), model.p ? model.p : "");
    }
    return OK;
}

/* Notes the bytes that some token has in front of a blank that is not one of its leading ones. Behind any
 * other byte a blank begins a word: no token reaches over the border. */
static void blanks_note(struct tokenizer *t) {
    for (u32 id = 0; id < t->n_vocab; id++) {
        struct str text = token_text(t, id);
        size_t at = blank_find(text, blanks_skip(text, 0));
        for (; at < text.n; at = blank_find(text, blanks_skip(text, at)))
            t->before_blank[(u8)text.p[at - 1]] = true;
    }
}

enum status vocab_load(struct tokenizer *t, const struct gguf *g, struct err *err) {
    struct str pre = STR_NONE;
    TRY(kind_read(t, g, &pre, err));
    if (t->kind == KIND_BPE)
        TRY(pretoken_open(t, pre, err));
    TRY(texts_load(t, g, err));
    TRY(kinds_load(t, g, err));
    if (t->kind == KIND_BPE)
        TRY(merges_load(t, g, err));
    byte_ids_make(t);
    specials_load(t, g);
    if (t->byte_level)
        replacement_make(t);
    ends_mark(t, g);
    fim_mark(t);
    strips_set(t, g);
    for (u32 id = 0; id < t->n_vocab; id++)
        bytes_make(t, &t->tokens[id]);
    if (t->kind == KIND_SPM || t->kind == KIND_UNIGRAM)
        blanks_note(t);
    TRY(tries_make(t, err));
    return t->kind == KIND_UNIGRAM ? unigram_load(t, g, err) : OK;
}
