/* constraint.h - the grammar that one answer must follow (chat/answer.h says which). */
#ifndef MINKA_CONSTRAINT_H
#define MINKA_CONSTRAINT_H

#include "engine/grammars.h"

struct constraint {
    struct grammars *from;
    struct grammar *grammar; /* NULL: there is none */
    struct grammar_run run;
};

/* Compiles; constraint_close also after a failure. Any thread. */
enum status constraint_open(struct constraint *c, struct grammars *gs, const struct grammar_part *part,
                            struct err *err) MUST_USE;
void constraint_close(struct constraint *c);
/* The token was drawn (end tokens too). True: the answer is over with it, or it is none that the grammar
 * allows, which only a wrong resumption brings. */
bool constraint_token(struct constraint *c, u32 token);

#endif
