/* fuzz_value.c - JSON text. What is read and written is read again and written the same. */
#include "chat/value.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct arena arena;
    struct value v, again;
    struct buf first = {0}, second = {0};
    struct err err;
    struct json_style style = {.comma = STR(","), .colon = STR(":"), .ascii = true, .limit_bytes = 1 << 20};
    arena_init(&arena, 64 << 20);
    if (value_parse_json(&arena, (struct str){(const char *)data, size}, &v, &err) == OK &&
        value_write_json(&first, &v, &style, &err) == OK && !memmem(first.p, first.n, "Infinity", 8)) {
        check(value_parse_json(&arena, buf_str(&first), &again, &err) == OK);
        check(value_write_json(&second, &again, &style, &err) == OK);
        check(str_eq(buf_str(&first), buf_str(&second)));
        style.go = true; /* what Go's form shows is JSON, too; -0.0 becomes the integer 0 there */
        buf_clear(&second);
        if (value_write_json(&second, &v, &style, &err) == OK)
            check(value_parse_json(&arena, buf_str(&second), &again, &err) == OK);
        value_to_json(&second, &v, (int)(size % 4) - 1);
    }
    buf_release(&first);
    buf_release(&second);
    arena_release(&arena);
    return 0;
}
