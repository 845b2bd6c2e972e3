/* constraint.c - see the header. */
#include "engine/constraint.h"

enum status constraint_open(struct constraint *c, struct grammars *gs, const struct grammar_part *part,
                            struct err *err) {
    TRY(grammars_take(gs, part, &c->grammar, err));
    c->from = gs;
    grammar_run_start(c->grammar, &c->run);
    return OK;
}

void constraint_close(struct constraint *c) {
    grammar_run_release(&c->run);
    if (c->grammar)
        grammars_give(c->from, c->grammar);
    *c = (struct constraint){0};
}

bool constraint_token(struct constraint *c, u32 token) {
    if (!c->grammar)
        return false;
    return !grammar_run_accept(&c->run, token) || grammar_run_over(&c->run);
}
