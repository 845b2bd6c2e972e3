/* fuzz_jinja.c - a Jinja template over variables like those of a chat. It may fail, but only with a status; a
 * second run gives the same text. */
#include "chat/template.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char variables[] =
    "{\"s\":\"Hello, W\\u00f6rld "
    "\\n\",\"n\":5,\"f\":2.5,\"b\":true,\"no\":null,\"l\":[3,1,2],\"ls\":[\"b\",\"A\"],\"d\":{\"x\":1,\"y\":"
    "\"z\",\"k\":{\"q\":[1]}},"
    "\"bos_token\":\"<s>\",\"add_generation_prompt\":true,\"tools\":[{\"type\":\"function\",\"function\":{"
    "\"name\":\"f\"}}],"
    "\"messages\":[{\"role\":\"user\",\"content\":\"hi\"},{\"role\":\"assistant\",\"content\":\"\",\"tool_"
    "calls\":[{\"function\":{\"name\":\"f\",\"arguments\":{\"a\":1}}}]}]}";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct arena arena;
    struct value root;
    struct chat_template *t;
    struct buf first = {0}, second = {0};
    struct err err;
    if (size > 4096 || template_open((struct str){(const char *)data, size}, TEMPLATE_JINJA, &t, &err) != OK)
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
