/* chat.h - from messages to prompt tokens: renders the template given, drops the oldest messages until the prompt
 * fits the context, cuts what is still too long as the reference does. */
#ifndef MINKA_CHAT_H
#define MINKA_CHAT_H

#include "chat/template.h"
#include "gen/gen.h"
#include "tokenize/tokenize.h"

struct chat_model {
    const struct tokenizer *tokenizer;
    const struct chat_template *chat_template; /* the request's or the model's; NULL: the plain default, contents joined */
};

/* What the prompt became. The caller owns it and reuses it: what was in it is replaced. */
struct chat_prompt {
    struct buf rendered;
    struct token_list ids;
    u32 n_dropped; /* messages left out, or tokens cut from the middle */
};
void chat_prompt_release(struct chat_prompt *p);

/* Rules (api-reference: truncate): while the rendered prompt has more than num_ctx tokens, the oldest
 * message that is neither a system message nor the last one is dropped (binary search is fine: the result
 * is the longest suffix that fits). Then a prompt of more than num_ctx - 1 tokens is cut: the first
 * num_keep (+ BOS) and a tail so that the total is num_ctx - max((num_ctx - keep) / 2, 1). Without
 * truncate: ERR_INVALID "the prompt is longer than the context length ...". r->context goes in front.
 * A BOS that the template wrote itself is not doubled.
 *
 * A last message of the assistant without tool calls is continued: the prompt ends with its content.
 * Jinja sees: messages {role, content, thinking and reasoning_content, tool_calls {type, function {name,
 * arguments as object}, id}, name and tool_call_id}, tools, add_generation_prompt, bos_token, eos_token,
 * enable_thinking, thinking and reasoning_effort where the request sets think, and the members of
 * template_kwargs.
 *
 * ERR_INVALID: the template refuses the messages (its own text), a JSON text in r is wrong, or the context
 * holds ids that are no tokens;
 * ERR_UNSUPPORTED: GEN_FORM_FILL without an insert form; ERR_TOO_LARGE: over a limit of templates, or of
 * arena. */
enum status chat_render(const struct chat_model *m, struct tokenize_scratch *s, const struct gen_request *r,
                        struct arena *arena, struct chat_prompt *out, struct err *err) MUST_USE;

#endif
