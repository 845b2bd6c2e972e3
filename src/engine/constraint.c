/* constraint.c - one grammar for the whole answer: thoughts, then what the format asks for. In one pass, so
 * that no second request with the thoughts in front is needed. */
#include "engine/constraint.h"

static struct grammar_part part_of(enum grammar_kind kind, struct str text) {
    return (struct grammar_part){.kind = kind, .text = text};
}

static struct grammar_part part_list(struct arena *a, enum grammar_kind kind,
                                     const struct grammar_part *parts, u32 n) {
    struct grammar_part *copy = ARENA_ARRAY(a, struct grammar_part, n);
    memcpy(copy, parts, n * sizeof *copy);
    return (struct grammar_part){.kind = kind, .parts = copy, .n_parts = n};
}

/* Thoughts from behind their opening tag, then the answer. */
static struct grammar_part after_thoughts(struct arena *a, struct str close, struct grammar_part answer) {
    const struct grammar_part parts[] = {part_of(GRAMMAR_UNTIL, close), part_of(GRAMMAR_BLANKS, STR_NONE),
                                         answer};
    return part_list(a, GRAMMAR_SEQUENCE, parts, ARRAY_LEN(parts));
}

bool constraint_of_format(const struct gen_request *r, const struct constraint_setting *s,
                          struct arena *arena, struct grammar_part *part) {
    struct grammar_part answer = part_of(GRAMMAR_JSON, STR_NONE);
    switch (r->format) {
    case GEN_FORMAT_NONE: return false;
    case GEN_FORMAT_JSON: break;
    case GEN_FORMAT_SCHEMA: answer = part_of(GRAMMAR_SCHEMA, r->schema); break;
    }
    if (s->tools && s->style->call_open.n) {
        const struct grammar_part call[] = {part_of(GRAMMAR_SPECIAL, s->style->call_open),
                                            part_of(GRAMMAR_TEXT, STR_NONE)};
        const struct grammar_part either[] = {answer, part_list(arena, GRAMMAR_SEQUENCE, call, 2)};
        answer = part_list(arena, GRAMMAR_ANY_OF, either, 2);
    }
    if (s->think_begun) {
        answer = after_thoughts(arena, s->style->think_close, answer);
    } else if (s->think) {
        const struct grammar_part thoughts[] = {part_of(GRAMMAR_SPECIAL, s->style->think_open),
                                                after_thoughts(arena, s->style->think_close, answer)};
        const struct grammar_part either[] = {answer, part_list(arena, GRAMMAR_SEQUENCE, thoughts, 2)};
        answer = part_list(arena, GRAMMAR_ANY_OF, either, 2);
    }
    *part = answer;
    return true;
}

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
