/* grammar.c - from parts to an automaton. */
#include <stdlib.h>

#include "chat/grammar_parts.h"

/* Parts are made by this program; nesting deeper than this is our bug. */
#define PARTS_DEPTH_MAX 32u

struct parts {
    struct build b;
    u32 depth;
};

static enum status build_part(struct parts *p, const struct grammar_part *part, u32 to, u32 *start,
                              struct err *err);

static enum status build_any_of(struct parts *p, const struct grammar_part *part, u32 to, u32 *start,
                                struct err *err) {
    *start = build_node(&p->b, NODE_SPLIT);
    for (u32 i = 0; i < part->n_parts; i++) {
        u32 one;
        TRY(build_part(p, &part->parts[i], to, &one, err));
        build_empty(&p->b, *start, one);
    }
    return OK;
}

/* Turns without a bound are a loop of nodes: one that takes nothing ends by itself, as no place is visited
 * twice. Counted turns are written out, since a counting node must not be left without a byte. */
static enum status build_repeat(struct parts *p, const struct grammar_part *part, u32 to, u32 *start,
                                struct err *err) {
    u32 n = part->max ? part->max : part->min;
    check(part->n_parts == 1 && n <= LIMIT_PATTERN_REPEAT && (!part->max || part->min <= part->max));
    *start = to;
    if (!part->max) {
        u32 again = build_node(&p->b, NODE_SPLIT), body;
        TRY(build_part(p, part->parts, again, &body, err));
        build_empty(&p->b, again, body);
        build_empty(&p->b, again, to);
        *start = again;
    }
    for (u32 i = n; i-- > 0 && !p->b.full;) {
        u32 body;
        TRY(build_part(p, part->parts, *start, &body, err));
        *start = i < part->min ? body : build_either(&p->b, body, to);
    }
    return OK;
}

/* The control token of this name that may stand in an answer; TOKEN_NONE. */
static u32 control_token(const struct build *b, struct str text) {
    const struct tokenizer *t = b->vocab->t;
    u32 id = tokenizer_find(t, text);
    return id != TOKEN_NONE && tokenizer_is_control(t, id) && !tokenizer_is_end(t, id) ? id : TOKEN_NONE;
}

static u32 build_special(struct build *b, struct str text, u32 to) {
    u32 token = control_token(b, text);
    return token == TOKEN_NONE ? build_literal(b, text, to) : build_token(b, token, to);
}

/* Text up to a marker, which is a control token or a literal. */
static u32 build_marked(struct build *b, struct str marker, u32 to) {
    u32 token = control_token(b, marker);
    return token == TOKEN_NONE ? build_until(b, marker, false, to)
                               : build_until(b, STR_NONE, true, build_token(b, token, to));
}

static enum status build_part(struct parts *p, const struct grammar_part *part, u32 to, u32 *start,
                              struct err *err) {
    enum status status = OK;
    check(++p->depth <= PARTS_DEPTH_MAX);
    switch (part->kind) {
    case GRAMMAR_LITERAL: *start = build_literal(&p->b, part->text, to); break;
    case GRAMMAR_SPECIAL: *start = build_special(&p->b, part->text, to); break;
    case GRAMMAR_BLANKS: *start = build_blanks(&p->b, to); break;
    case GRAMMAR_JSON: *start = build_any_object(&p->b, to); break;
    case GRAMMAR_SCHEMA: status = build_schema(&p->b, part->text, part->path, to, start, err); break;
    case GRAMMAR_SEQUENCE:
        *start = to;
        for (u32 i = part->n_parts; i-- > 0 && status == OK;)
            status = build_part(p, &part->parts[i], *start, start, err);
        break;
    case GRAMMAR_ANY_OF: status = build_any_of(p, part, to, start, err); break;
    case GRAMMAR_REPEAT: status = build_repeat(p, part, to, start, err); break;
    case GRAMMAR_TEXT: *start = build_until(&p->b, part->text, true, to); break;
    case GRAMMAR_UNTIL:
        check(part->text.n > 0);
        *start = build_marked(&p->b, part->text, to);
        break;
    }
    p->depth--;
    return status;
}

/* The first mask is made here, beside the compute team; it also shows that there is one. */
static enum status try_first(struct grammar *g, struct err *err) {
    struct grammar_run run;
    if (!grammar_run_try(g, &run))
        return err_set(err, ERR_TOO_LARGE, "the schema has too many alternatives");
    u32 *mask = xmalloc(g->v->n_words * sizeof *mask);
    enum status status = grammar_run_over(&run) ? OK : grammar_run_mask(&run, mask, err);
    grammar_run_release(&run);
    free(mask);
    return status;
}

enum status grammar_compile(const struct grammar_vocab *v, const struct grammar_part *part,
                            struct grammar **out, struct err *err) {
    struct arena arena;
    struct parts p = {.depth = 0};
    u32 start;
    arena_init(&arena, 0);
    build_init(&p.b, &arena, v);
    enum status status = build_part(&p, part, NODE_THE_END, &start, err);
    if (status == OK)
        status = build_finish(&p.b, start, err);
    if (status == OK) {
        struct grammar *g = grammar_new(&p.b.a, v);
        p.b.a = (struct automaton){0};
        status = try_first(g, err);
        if (status == OK)
            *out = g;
        else
            grammar_free(g);
    }
    build_release(&p.b);
    arena_release(&arena);
    return status;
}
