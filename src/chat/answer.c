/* answer.c - puts the parts together. */
#include "chat/answer.h"

struct answer {
    const struct answer_config *c;
    struct arena *arena;
};

/* --- parts; what they point to is plain data in the arena, whose bound the request has passed --- */

static const struct grammar_part *part_keep(struct answer *a, struct grammar_part part) {
    struct grammar_part *p = ARENA_NEW(a->arena, struct grammar_part);
    *p = part;
    return p;
}

/* A sequence, or a choice, of parts that are given by their values. */
static struct grammar_part group(struct answer *a, enum grammar_kind kind, const struct grammar_part *parts,
                                 u32 n) {
    struct grammar_part *copy = ARENA_ARRAY(a->arena, struct grammar_part, n);
    memcpy(copy, parts, n * sizeof *parts);
    return (struct grammar_part){.kind = kind, .parts = copy, .n_parts = n};
}

static struct grammar_part literal(struct str text) {
    return (struct grammar_part){.kind = GRAMMAR_LITERAL, .text = text};
}

static struct grammar_part repeat(struct answer *a, struct grammar_part part, u32 min, u32 max) {
    return (struct grammar_part){
        .kind = GRAMMAR_REPEAT, .parts = part_keep(a, part), .n_parts = 1, .min = min, .max = max};
}

static struct grammar_part optional(struct answer *a, struct grammar_part part) {
    return repeat(a, part, 0, 1);
}

static bool is_control(const struct answer *a, struct str tag) {
    u32 id = tokenizer_find(a->c->tokenizer, tag);
    return id != TOKEN_NONE && tokenizer_is_control(a->c->tokenizer, id);
}

static struct grammar_part tag(const struct answer *a, struct str text) {
    return (struct grammar_part){.kind = is_control(a, text) ? GRAMMAR_SPECIAL : GRAMMAR_LITERAL,
                                 .text = text};
}

/* --- calls --- */

static struct grammar_part arguments(struct answer *a, u32 tool) {
    struct str schema = a->c->tools->parameters[tool];
    if (schema.n == 0)
        return literal(STR("{}"));
    return (struct grammar_part){.kind = GRAMMAR_SCHEMA,
                                 .text = schema,
                                 .path = arena_printf(a->arena, "/tools/%u/function/parameters", tool)};
}

/* {"name": "f", "arguments": {...}} */
static struct grammar_part named_call(struct answer *a, u32 tool) {
    struct buf head = {0};
    buf_add_str(&head, STR("{\"name\": "));
    json_str(&head, a->c->tools->names[tool]);
    buf_add_str(&head, a->c->style->parameters ? STR(", \"parameters\": ") : STR(", \"arguments\": "));
    const struct grammar_part parts[] = {literal(arena_str(a->arena, buf_str(&head))), arguments(a, tool),
                                         literal(STR("}"))};
    buf_release(&head);
    return group(a, GRAMMAR_SEQUENCE, parts, ARRAY_LEN(parts));
}

/* One call as it stands behind call_open. */
static struct grammar_part one_call(struct answer *a, u32 tool) {
    const struct template_style *s = a->c->style;
    if (s->name_end.n == 0)
        return named_call(a, tool);
    const struct grammar_part parts[] = {literal(a->c->tools->names[tool]), tag(a, s->name_end),
                                         arguments(a, tool)};
    return group(a, GRAMMAR_SEQUENCE, parts, ARRAY_LEN(parts));
}

/* A call of any tool, or of the one that tool_choice names. */
static struct grammar_part any_call(struct answer *a) {
    const struct gen_request *r = a->c->r;
    u32 n = a->c->tools->n;
    if (r->tool_choice == GEN_TOOLS_ONE)
        return one_call(a, chat_tools_find(a->c->tools, r->tool_choice_name));
    struct grammar_part *parts = ARENA_ARRAY(a->arena, struct grammar_part, n);
    for (u32 i = 0; i < n; i++)
        parts[i] = one_call(a, i);
    return (struct grammar_part){.kind = GRAMMAR_ANY_OF, .parts = parts, .n_parts = n};
}

/* [call, call] behind the tag, if there is one. */
static struct grammar_part call_list(struct answer *a, struct grammar_part call, bool single) {
    const struct grammar_part more[] = {literal(STR(", ")), call};
    struct grammar_part others = repeat(a, group(a, GRAMMAR_SEQUENCE, more, ARRAY_LEN(more)), 0, 0);
    const struct grammar_part parts[] = {tag(a, a->c->style->call_open), literal(STR("[")), call,
                                         single ? literal(STR("")) : others, literal(STR("]"))};
    bool bare = a->c->style->call_open.n == 0;
    return group(a, GRAMMAR_SEQUENCE, parts + bare, ARRAY_LEN(parts) - bare);
}

/* How many, is for the reader of the answer to bound. */
static struct grammar_part calls(struct answer *a) {
    const struct template_style *s = a->c->style;
    bool single = a->c->r->single_call || a->c->r->tool_choice == GEN_TOOLS_ONE;
    struct grammar_part call = any_call(a);
    if (s->list && s->name_end.n == 0)
        return call_list(a, call, single);
    if (s->call_open.n == 0)
        return call;
    struct grammar_part line = literal(str_is(s->call_open, "<tool_call>") ? STR("\n") : STR(""));
    const struct grammar_part parts[] = {tag(a, s->call_open), line, call, line, tag(a, s->call_close)};
    struct grammar_part block = group(a, GRAMMAR_SEQUENCE, parts, s->call_close.n ? 5 : 3);
    if (single)
        return block;
    const struct grammar_part each[] = {block, optional(a, line)};
    return repeat(a, group(a, GRAMMAR_SEQUENCE, each, ARRAY_LEN(each)), 1, 0);
}

/* Where calls are not demanded, the model writes them as ever. Without a tag only their form tells them
 * apart. */
static struct grammar_part maybe_calls(struct answer *a) {
    struct str open = a->c->style->call_open;
    if (open.n == 0)
        return calls(a);
    const struct grammar_part parts[] = {tag(a, open), {.kind = GRAMMAR_TEXT}};
    return group(a, GRAMMAR_SEQUENCE, parts, ARRAY_LEN(parts));
}

/* --- thoughts --- */

/* Up to the closing tag. */
static struct grammar_part thought_rest(struct answer *a) {
    struct str close = a->c->style->think_close;
    if (!is_control(a, close))
        return (struct grammar_part){.kind = GRAMMAR_UNTIL, .text = close};
    const struct grammar_part parts[] = {{.kind = GRAMMAR_TEXT}, tag(a, close)};
    return group(a, GRAMMAR_SEQUENCE, parts, ARRAY_LEN(parts));
}

static struct grammar_part behind_thoughts(struct answer *a, struct grammar_part answer) {
    const struct answer_config *c = a->c;
    const struct grammar_part blanks = {.kind = GRAMMAR_BLANKS};
    if (c->think_begun) {
        const struct grammar_part parts[] = {thought_rest(a), blanks, answer};
        return group(a, GRAMMAR_SEQUENCE, parts, ARRAY_LEN(parts));
    }
    if (!c->style->can.thinking || c->r->think == GEN_THINK_OFF || c->r->form != GEN_FORM_CHAT)
        return answer;
    const struct grammar_part thought[] = {tag(a, c->style->think_open), thought_rest(a), blanks};
    const struct grammar_part parts[] = {optional(a, group(a, GRAMMAR_SEQUENCE, thought, ARRAY_LEN(thought))),
                                         answer};
    return group(a, GRAMMAR_SEQUENCE, parts, ARRAY_LEN(parts));
}

/* --- the answer --- */

static bool format_part(const struct gen_request *r, struct grammar_part *part) {
    switch (r->format) {
    case GEN_FORMAT_NONE: return false;
    case GEN_FORMAT_JSON: *part = (struct grammar_part){.kind = GRAMMAR_JSON}; return true;
    case GEN_FORMAT_SCHEMA:
        *part = (struct grammar_part){.kind = GRAMMAR_SCHEMA, .text = r->schema};
        return true;
    }
    return false;
}

enum status answer_grammar(const struct answer_config *c, struct arena *arena,
                           const struct grammar_part **out, struct err *err) {
    struct answer a = {c, arena};
    const struct gen_request *r = c->r;
    struct grammar_part format;
    bool formed = format_part(r, &format), tools = c->tools && c->tools->n;
    bool demanded = r->tool_choice == GEN_TOOLS_REQUIRED || r->tool_choice == GEN_TOOLS_ONE;
    *out = NULL;
    if (demanded && (!tools || (r->tool_choice == GEN_TOOLS_ONE &&
                                chat_tools_find(c->tools, r->tool_choice_name) == c->tools->n)))
        return err_set(err, ERR_INVALID, "tool_choice demands a tool that the request does not list");
    if (!formed && !demanded)
        return OK;
    if (formed && tools && !demanded) {
        const struct grammar_part either[] = {format, maybe_calls(&a)};
        format = group(&a, GRAMMAR_ANY_OF, either, ARRAY_LEN(either));
    }
    *out = part_keep(&a, behind_thoughts(&a, demanded ? calls(&a) : format));
    return OK;
}
