/* output.h - the answer of a model, split while it comes: visible text, thoughts, tool calls.
 *
 *   begin -> [thought] -> text <-> call
 *
 * Text goes in as it is settled (see tokenize/stream.h); pieces come out in order, and the same ones however
 * the text was cut. What may be the beginning of a tag is held back until that is decided, so that no tag
 * ever shows.
 *
 *   Thoughts stand at the beginning, between the tags of the template; a prompt that ends with the opening
 * tag has begun them. White space behind both tags is dropped. Calls begin with a tag, or where the template
 * knows none, an answer that begins with { or [ may be one. They are held until their JSON is complete,
 * whatever stands around it: several in a row, an array, or the tool's name in front. Only names that the
 * request lists are calls. What turns out to be none is text, without the tag. White space behind calls is
 * dropped; so is the rest of a call that was cut off behind whole ones, and what follows whole ones where no
 * tag says that they are over. */
#ifndef MINKA_OUTPUT_H
#define MINKA_OUTPUT_H

#include "chat/calls.h"
#include "chat/style.h"

enum output_kind { OUTPUT_TEXT, OUTPUT_THINK, OUTPUT_CALL };

struct output_piece {
    enum output_kind kind;
    struct str text;           /* TEXT, THINK: not empty */
    struct gen_tool_call call; /* CALL */
};

struct output_config {
    const struct template_style *style;
    const struct chat_tools *tools; /* NULL: calls are not looked for. Must live as long as the output */
    bool think;                     /* thoughts are split off */
    bool think_hidden;              /* ... and dropped */
    bool think_begun;               /* the prompt ends with the opening tag */
    u32 calls_max;                  /* further calls are dropped; 0: no bound */
    u64 id_seed;                    /* ids of calls are a function of it and their number */
};

struct output;
struct output *output_new(const struct output_config *c) MUST_USE;
void output_free(struct output *o);
/* Its pieces are valid until the next push. last: the answer is over, what was held back is released, and
 * nothing may be pushed any more. */
void output_push(struct output *o, struct str text, bool last);
bool output_full(const struct output *o); /* calls_max is reached */
u32 output_n_pieces(const struct output *o);
struct output_piece output_piece_at(const struct output *o, u32 i);

#endif
