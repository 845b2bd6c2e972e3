/* A hostile vocabulary and a text. The bytes are a GGUF file, behind it the text, and in the last byte the
 * text's length. The ids must be tokens, and say the same when they go through the stream in one piece and
 * through detokenize; where every byte has a token and no rule changes texts they must give the text back. */
#include <stdlib.h>

#include "tokenize/stream.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Byte-level with all 256 bytes, all tokens normal, and no name that lets special tokens swallow white
 * space: nothing can be lost. */
static bool keeps_bytes(const struct gguf *g, const struct tokenizer *t) {
    struct str pre = STR_NONE;
    gguf_get_str(g, STR("tokenizer.ggml.pre"), &pre);
    if (gguf_find(g, STR("tokenizer.ggml.token_type")) || gguf_find(g, STR("general.name")) ||
        gguf_find(g, STR("general.architecture")) || str_find(pre, STR("jina"), 0) != SIZE_MAX)
        return false;
    for (u32 b = 0; b < 256; b++) {
        bool printable = (b >= '!' && b <= '~') || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
        char text[4];
        u32 code = printable ? b : b <= 32 ? 256 + b : b <= 160 ? 256 + 33 + b - 127 : 256 + 67;
        u32 id = tokenizer_find(t, (struct str){text, utf8_encode(code, text)});
        if (id == TOKEN_NONE || tokenizer_is_control(t, id))
            return false;
        struct str bytes = tokenizer_bytes_of(t, id, true);
        if (bytes.n != 1 || (u8)bytes.p[0] != b)
            return false;
    }
    return true;
}

static void text_run(const struct tokenizer *t, struct tokenize_scratch *s, struct str text,
                     struct tokenize_options o, bool lossless) {
    struct token_list l = {0};
    struct buf back = {0}, streamed = {0};
    const struct str stops[] = {STR("ab"), STR("\n\n")};
    tokenize(t, s, text, o, &l);
    struct stream *stream = stream_new(t, stops, 2, o.parse_special);
    bool stopped = false;
    for (u32 i = 0; i < l.n; i++) {
        check(l.ids[i] < tokenizer_n_vocab(t));
        stopped = stopped || stream_push(stream, l.ids[i], &streamed);
    }
    stream_finish(stream, &streamed);
    stream_free(stream);
    check(utf8_valid_len(buf_str(&streamed)) == streamed.n);
    check(str_find(buf_str(&streamed), stops[0], 0) == SIZE_MAX);
    detokenize(t, l.ids, l.n, true, &back);
    if (!o.add_special && lossless)
        check(str_eq(buf_str(&back), text));
    token_list_release(&l);
    buf_release(&back);
    buf_release(&streamed);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct gguf g;
    struct err err = {0};
    struct tokenizer *t;
    if (size == 0)
        return 0;
    size_t n = MIN(data[size - 1], size - 1);
    struct str text = {(const char *)data + size - 1 - n, n};
    if (gguf_parse(&g, data, size - 1 - n, &err) != OK)
        return 0;
    enum status status = tokenizer_open(&g, &t, &err);
    bool lossless = status == OK && keeps_bytes(&g, t);
    gguf_release(&g);
    if (status != OK) {
        check(err.status == status && err.text[0]);
        return 0;
    }
    struct tokenize_scratch *s = tokenize_scratch_new();
    text_run(t, s, text, (struct tokenize_options){0}, lossless);
    text_run(t, s, text, (struct tokenize_options){.parse_special = true}, lossless);
    text_run(t, s, text, (struct tokenize_options){.parse_special = true, .add_special = true}, lossless);
    tokenize_scratch_free(s);
    tokenizer_close(t);
    return 0;
}
