/* bytelevel.c - GPT-2's byte alphabet: the bytes that are printable Latin-1 characters stand for
 * themselves, the other 68 are counted up from U+0100 in their order. */
#include "tokenize/internal.h"

static bool is_printable(u32 byte) {
    return (byte >= '!' && byte <= '~') || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
}

/* Code point of each byte: computed once per call of the two functions below would be waste, and a
 * global would need a lock, so the order of the 68 is written as arithmetic:
 * 0..32 -> 0x100.., 127..160 -> 0x121.., 173 -> 0x143. */
static u32 byte_to_code(u8 byte) {
    if (is_printable(byte))
        return byte;
    return byte <= 32 ? 0x100u + byte : byte <= 160 ? 0x121u + byte - 127u : 0x143u;
}

static bool code_to_byte(u32 code, u8 *byte) {
    if (code < 0x100) {
        *byte = (u8)code;
        return is_printable(code);
    }
    if (code > 0x143)
        return false;
    *byte = (u8)(code <= 0x120 ? code - 0x100 : code <= 0x142 ? code - 0x121 + 127 : 173);
    return true;
}

size_t bytelevel_spell(struct str bytes, char *out) {
    size_t n = 0;
    for (size_t i = 0; i < bytes.n; i++) {
        u32 code = byte_to_code((u8)bytes.p[i]);
        if (code < 0x80) {
            out[n++] = (char)code;
        } else {
            out[n++] = (char)(0xc0 | code >> 6);
            out[n++] = (char)(0x80 | (code & 63));
        }
    }
    return n;
}

size_t bytelevel_decode(struct str text, char *out) {
    size_t n = 0;
    for (size_t at = 0; at < text.n;) {
        u8 c = (u8)text.p[at], next = at + 1 < text.n ? (u8)text.p[at + 1] : 0, byte;
        if (c < 0x80) { /* itself, in the alphabet or not */
            out[n++] = (char)c;
            at++;
        } else if ((c & 0xe0) == 0xc0 && (next & 0xc0) == 0x80 &&
                   code_to_byte((c & 31u) << 6 | (next & 63u), &byte)) {
            out[n++] = (char)byte;
            at += 2;
        } else {
            u32 code, len = MAX(utf8_decode(text, at, &code), 1);
            memcpy(out + n, text.p + at, len);
            n += len;
            at += len;
        }
    }
    return n;
}
