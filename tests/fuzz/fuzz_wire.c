/* fuzz_wire.c - the wire codec: byte 0 picks the message type, the rest is its payload. What decodes must encode to
 * bytes that decode to the same bytes again. */
#include <stdlib.h>

#include "wire/wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct arena arena;
    struct wire_message m, again;
    struct buf first = {0}, second = {0};
    if (size == 0)
        return 0;
    arena_init(&arena, 0);
    struct str payload = {(const char *)data + 1, size - 1};
    if (wire_decode(payload, (enum wire_type)(data[0] % 9), 7, &arena, &m, NULL) == OK) {
        wire_encode(&first, &m);
        check(wire_decode(buf_str(&first), m.type, 7, &arena, &again, NULL) == OK);
        wire_encode(&second, &again);
        check(str_eq(buf_str(&first), buf_str(&second)));
    }
    buf_release(&first);
    buf_release(&second);
    arena_release(&arena);
    return 0;
}
