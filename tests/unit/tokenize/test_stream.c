/* Goal: the streaming detokenizer gives valid UTF-8, never a stop string nor its beginning, and in sum the
 * same text however tokens cut the bytes. Method: random tokens over an alphabet of whole and broken
 * characters, random stop strings; the expected text comes from a second implementation over the whole
 * byte string (well-formedness by the table of the Unicode Standard, stop strings by comparison at each
 * position), and each step is checked. */
#include "sample.h"
#include "tokenize/stream.h"

static struct sample sample;
static struct tokenizer *vocab;
static u32 end_token;

/* Bytes 0..255 are tokens 0..255; behind them random sequences of 2 to 9 parts. */
static const char *const parts[] = {
    "a",       "b",        "ab",       "<",    "</s>", "\xc3\xa9",     "\xe2\x82\xac", "\xf0\x9f\x98\x80",
    "\xc3",    "\xe2\x82", "\xf0\x9f", "\x82", "\xff", "\xed\xa0\x80", "\xf4\x90",     "\xc0\xaf",
    "\xe0\x80"};

static int vocab_make(void **state) {
    (void)state;
    u32 seed = 1;
    sample_init(&sample, "gpt2");
    gguf_put_str(sample.w, "tokenizer.ggml.pre", STR("gpt-2"));
    gguf_put_str_array(sample.w, "tokenizer.ggml.merges", NULL, 0);
    sample_add_bytes(&sample);
    for (u32 i = 0; i < 1000; i++) {
        struct buf spelled = {0};
        u32 n = 2 + random_next(&seed) % 8;
        for (u32 k = 0; k < n; k++)
            for (const char *p = parts[random_next(&seed) % ARRAY_LEN(parts)]; *p; p++) {
                char text[4];
                buf_add(&spelled, text, byte_spell((u8)*p, text));
            }
        sample_add(&sample, buf_str(&spelled), NORMAL, 0);
        buf_release(&spelled);
    }
    end_token = sample_add(&sample, STR("<|im_end|>"), CONTROL, 0);
    vocab = sample_open_ok(&sample);
    return 0;
}

static int vocab_free(void **state) {
    (void)state;
    tokenizer_close(vocab);
    return 0;
}

/* --- the second implementation --- */

/* Table 3-7 of the Unicode Standard: first byte, range of the second, length. */
static const u8 well_formed[][5] = {
    {0x00, 0x7f, 0, 0, 1},       {0xc2, 0xdf, 0x80, 0xbf, 2}, {0xe0, 0xe0, 0xa0, 0xbf, 3},
    {0xe1, 0xec, 0x80, 0xbf, 3}, {0xed, 0xed, 0x80, 0x9f, 3}, {0xee, 0xef, 0x80, 0xbf, 3},
    {0xf0, 0xf0, 0x90, 0xbf, 4}, {0xf1, 0xf3, 0x80, 0xbf, 4}, {0xf4, 0xf4, 0x80, 0x8f, 4}};

/* Each longest beginning of a character that is not completed becomes one U+FFFD (section 3.9). One at the
 * end counts as not completed only if nothing follows (final). */
static void text_clean(struct str s, bool final, struct buf *out) {
    for (size_t at = 0; at < s.n;) {
        size_t n = 1, need = 0;
        u8 first = (u8)s.p[at];
        for (u32 r = 0; r < ARRAY_LEN(well_formed); r++)
            if (first >= well_formed[r][0] && first <= well_formed[r][1]) {
                need = well_formed[r][4];
                for (; n < need && at + n < s.n; n++) {
                    u8 c = (u8)s.p[at + n], lo = n == 1 ? well_formed[r][2] : 0x80,
                       hi = n == 1 ? well_formed[r][3] : 0xbf;
                    if (c < lo || c > hi)
                        break;
                }
            }
        if (n < need && at + n == s.n && !final)
            return;
        if (n == need)
            buf_add(out, s.p + at, n);
        else
            buf_add(out, "\xef\xbf\xbd", 3);
        at += n;
    }
}

/* Cuts text before the stop string that ends first, the longest of those. */
static bool text_stop(struct buf *text, const struct str *stops, u32 n_stops) {
    for (size_t end = 1; end <= text->n; end++) {
        size_t longest = 0;
        for (u32 i = 0; i < n_stops; i++)
            if (stops[i].n && str_ends((struct str){text->p, end}, stops[i]))
                longest = MAX(longest, stops[i].n);
        if (longest) {
            text->n = end - longest;
            return true;
        }
    }
    return false;
}

/* Length of the longest beginning of a stop string that text ends with. */
static size_t beginning_len(struct str text, const struct str *stops, u32 n_stops) {
    size_t longest = 0;
    for (u32 i = 0; i < n_stops; i++)
        for (size_t n = 1; n < stops[i].n; n++)
            if (str_ends(text, str_slice(stops[i], 0, n)))
                longest = MAX(longest, n);
    return longest;
}

/* --- the property --- */

struct trial {
    u32 tokens[64], n;
    struct str stops[4];
    u32 n_stops;
    struct buf bytes, want;
    bool stopped;
};

static void trial_make(struct trial *r, u32 *seed) {
    static const char *const stops[] = {"ab", "aba", "abab",         "b<", "</s>", "<",  "é",
                                        "€a", "a€",  "\xef\xbf\xbd", "",   "aab",  "😀😀", "é€"};
    r->n = 1 + random_next(seed) % ARRAY_LEN(r->tokens);
    r->n_stops = random_next(seed) % (ARRAY_LEN(r->stops) + 1);
    for (u32 i = 0; i < r->n_stops; i++)
        r->stops[i] = str_of(stops[random_next(seed) % ARRAY_LEN(stops)]);
    buf_clear(&r->bytes);
    buf_clear(&r->want);
    for (u32 i = 0; i < r->n; i++) {
        r->tokens[i] = random_next(seed) % 3 ? random_next(seed) % 1256
                                             : (u8) "ab<\xc3\xa9\xe2\x82\xac"[random_next(seed) % 8];
        buf_add_str(&r->bytes, tokenizer_bytes_of(vocab, r->tokens[i], false));
    }
    text_clean(buf_str(&r->bytes), true, &r->want);
    r->stopped = text_stop(&r->want, r->stops, r->n_stops);
}

/* While it runs, exactly what can't become a part of a stop string is out. */
static void out_check(const struct trial *r, const struct buf *out, const struct buf *fed) {
    struct str text = buf_str(out);
    struct buf so_far = {0};
    assert_int_equal(utf8_valid_len(text), text.n);
    text_clean(buf_str(fed), false, &so_far);
    bool stopped = text_stop(&so_far, r->stops, r->n_stops);
    size_t held = stopped ? 0 : beginning_len(buf_str(&so_far), r->stops, r->n_stops);
    assert_true(str_eq(text, str_slice(buf_str(&so_far), 0, so_far.n - held)));
    buf_release(&so_far);
}

/* Feeds tokens, or their bytes one by one. */
static void trial_run(const struct trial *r, const u32 *tokens, u32 n) {
    struct stream *s = stream_new(vocab, r->stops, r->n_stops, false);
    struct buf out = {0}, fed = {0};
    bool stopped = false;
    for (u32 i = 0; i < n && !stopped; i++) {
        stopped = stream_push(s, tokens[i], &out);
        buf_add_str(&fed, tokenizer_bytes_of(vocab, tokens[i], false));
        out_check(r, &out, &fed);
        if (i % 7 == 3 && !stopped)
            assert_false(stream_push(s, end_token, &out)); /* a control token says nothing */
    }
    stream_finish(s, &out);
    assert_true(str_eq(buf_str(&out), buf_str(&r->want)));
    if (stopped)
        assert_true(r->stopped);
    stream_free(s);
    buf_release(&fed);
    buf_release(&out);
}

static void test_any_split(void **state) {
    (void)state;
    struct trial r = {.n = 0};
    for (u32 seed = 1; seed <= 4000; seed++) {
        u32 random = seed * 2654435761u, bytes[4096];
        trial_make(&r, &random);
        trial_run(&r, r.tokens, r.n);
        for (size_t i = 0; i < r.bytes.n; i++)
            bytes[i] = (u8)r.bytes.p[i];
        trial_run(&r, bytes, (u32)r.bytes.n);
    }
    buf_release(&r.bytes);
    buf_release(&r.want);
}

/* From any mark since the last release the same tokens give the same again. */
static void test_rollback(void **state) {
    (void)state;
    struct trial r = {.n = 0};
    u32 n_rolled = 0;
    for (u32 seed = 1; seed <= 4000; seed++) {
        u32 random = seed * 2654435761u;
        trial_make(&r, &random);
        struct stream *s = stream_new(vocab, r.stops, r.n_stops, false);
        struct buf out = {0};
        struct stream_mark mark = stream_snapshot(s);
        u32 mark_at = 0;
        size_t mark_n = 0;
        bool stopped = false;
        for (u32 i = 0, tries = 0; i < r.n && !stopped; i++) {
            stopped = stream_push(s, r.tokens[i], &out);
            if (out.n == mark_n && tries < 3 && random_next(&random) % 2) {
                stream_rollback(s, mark);
                i = mark_at - 1; /* once more from the mark */
                stopped = false;
                tries++;
                n_rolled++;
            } else if (out.n != mark_n || random_next(&random) % 2) {
                mark = stream_snapshot(s);
                mark_at = i + 1;
                mark_n = out.n;
                tries = 0;
            }
        }
        stream_finish(s, &out);
        assert_true(str_eq(buf_str(&out), buf_str(&r.want)));
        stream_free(s);
        buf_release(&out);
    }
    assert_true(n_rolled > 1000);
    buf_release(&r.bytes);
    buf_release(&r.want);
}

/* Control tokens are text only on request; stop strings that are no text are ignored. */
static void test_special(void **state) {
    (void)state;
    struct buf out = {0};
    const struct str stops[] = {STR("end|>"), STR("\x98\x80"), STR("")};
    struct stream *s = stream_new(vocab, stops, 3, true);
    assert_true(stream_push(s, end_token, &out));
    assert_true(str_is(buf_str(&out), "<|im_"));
    stream_free(s);
    s = stream_new(vocab, NULL, 0, true);
    assert_false(stream_push(s, end_token, &out));
    assert_true(str_is(buf_str(&out), "<|im_<|im_end|>"));
    stream_free(s);
    /* One that is shown although the others are not. */
    buf_clear(&out);
    s = stream_new(vocab, NULL, 0, false);
    assert_false(stream_push(s, end_token, &out));
    assert_int_equal(out.n, 0);
    stream_show(s, &end_token, 1);
    assert_false(stream_push(s, end_token, &out));
    assert_true(str_is(buf_str(&out), "<|im_end|>"));
    stream_free(s);
    buf_release(&out);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_any_split), cmocka_unit_test(test_rollback),
                                       cmocka_unit_test(test_special)};
    return cmocka_run_group_tests_name("stream", tests, vocab_make, vocab_free);
}
