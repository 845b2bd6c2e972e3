/* fuzz_gotemplate.c - a Go template over variables like those of a chat. It may fail, but only with a status;
 * a second run gives the same text. */
#include "chat/template.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char variables[] =
    "{\"S\":\"Hello, W\\u00f6rld "
    "\\n\",\"N\":5,\"F\":2.5,\"B\":true,\"No\":null,\"L\":[3,1,2],\"D\":{\"x\":1,\"y\":\"z\",\"K\":{\"q\":[1]"
    "}},"
    "\"System\":\"sys\",\"Prompt\":\"p\",\"Response\":\"r\",\"Tools\":[{\"Function\":{\"Name\":\"f\"}}],"
    "\"Messages\":[{\"Role\":\"user\",\"Content\":\"hi\"},{\"Role\":\"assistant\",\"ToolCalls\":[{"
    "\"Function\":{\"Name\":\"f\",\"Arguments\":{\"a\":1}}}]}]}";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct arena arena;
    struct value root;
    struct chat_template *t;
    struct buf first = {0}, second = {0};
    struct err err;
    if (size > 4096 || template_open((struct str){(const char *)data, size}, TEMPLATE_GO, &t, &err) != OK)
        return 0;
    arena_init(&arena, 0);
    check(value_parse_json(&arena, STR(variables), &root, &err) == OK);
    enum status s = template_render(t, &root, 1773480413, 3600, &first, &err);
    check(template_render(t, &root, 1773480413, 3600, &second, &err) == s);
    check(str_eq(buf_str(&first), buf_str(&second)));
    check(s == OK || first.n == 0);
    template_close(t);
    buf_release(&first);
    buf_release(&second);
    arena_release(&arena);
    return 0;
}
