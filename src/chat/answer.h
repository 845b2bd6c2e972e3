/* answer.h - the whole answer of a request as a grammar: thoughts first where the model has them, then what
 * `format` or a tool_choice that demands a call asks for. */
#ifndef MINKA_CHAT_ANSWER_H
#define MINKA_CHAT_ANSWER_H

#include "chat/calls.h"
#include "chat/grammar.h"
#include "chat/style.h"

struct answer_config {
    const struct gen_request *r;
    const struct tokenizer *tokenizer; /* which tags are control tokens */
    const struct template_style *style;
    const struct chat_tools *tools;
    bool think_begun; /* as in output_config */
};

/* *out: the grammar, parts and texts in the arena, in style, tools and r; NULL: anything goes. A demanded
 * call is written as the style has it, its arguments follow the schema of the tool. With a format and tools
 * that are not demanded, the answer is one or the other; such calls are not checked. Nothing bounds the
 * number of calls. ERR_INVALID: a call is demanded of a tool that there is not. */
enum status answer_grammar(const struct answer_config *c, struct arena *a, const struct grammar_part **out,
                           struct err *err) MUST_USE;

#endif
