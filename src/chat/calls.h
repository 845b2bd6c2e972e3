/* calls.h - the tools of a request, and JSON texts of a model as calls of them. */
#ifndef MINKA_CHAT_CALLS_H
#define MINKA_CHAT_CALLS_H

#include "chat/value.h"
#include "gen/gen.h"

struct chat_tools {
    struct str *names;      /* [n] */
    struct str *parameters; /* [n] JSON Schema text of each; empty: none given */
    u32 n;
};
/* From the JSON array of a request, in the arena. ERR_INVALID where it is none or a tool has no name;
 * ERR_TOO_LARGE over the arena's limit. */
enum status chat_tools_read(struct str json, struct arena *a, struct chat_tools *out,
                            struct err *err) MUST_USE;
/* Index of a name; tools->n if there is none. */
u32 chat_tools_find(const struct chat_tools *t, struct str name);

/* Reads one JSON value as calls: an object with "name" and "arguments" or "parameters" (an object, the text
 * of one, or left out), one that holds such an object or has a tool's name as its only key, or an array of
 * these. An object without any of it is the arguments of the tool that `before`, the text in front of it,
 * names. Appends at most `max` calls, whose texts lie in the arena; their ids are empty. False: something in
 * it is no call of one of these tools; nothing is appended then. */
bool calls_read(const struct chat_tools *t, struct str before, struct str json, struct arena *a,
                struct gen_tool_call *calls, u32 max, u32 *n);

#endif
