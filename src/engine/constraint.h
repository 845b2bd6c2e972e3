/* constraint.h - the grammar that one answer must follow. */
#ifndef MINKA_CONSTRAINT_H
#define MINKA_CONSTRAINT_H

#include "base/arena.h"
#include "chat/style.h"
#include "engine/grammars.h"
#include "gen/gen.h"

struct constraint {
    struct grammars *from;
    struct grammar *grammar; /* NULL: there is none */
    struct grammar_run run;
};

/* What may stand around the text that a request's format is about. */
struct constraint_setting {
    const struct template_style *style;
    bool think;       /* thoughts may come first */
    bool think_begun; /* the prompt ends with their opening tag */
    bool tools;       /* calls may come instead */
};

/* The grammar for the request's format, in the arena; false: it asks for none. */
bool constraint_of_format(const struct gen_request *r, const struct constraint_setting *s,
                          struct arena *arena, struct grammar_part *part);
/* Compiles; constraint_close also after a failure. Any thread. */
enum status constraint_open(struct constraint *c, struct grammars *gs, const struct grammar_part *part,
                            struct err *err) MUST_USE;
void constraint_close(struct constraint *c);
/* The token was drawn (end tokens too). True: the answer is over with it, or it is none that the grammar
 * allows, which only a wrong resumption brings. */
bool constraint_token(struct constraint *c, u32 token);

#endif
