/* style.c - looks through the tree of a Go template, or the text of a Jinja template. */
#include "chat/style.h"

#include "chat/go.h"

static bool has(struct str text, const char *word) { return str_find(text, str_of(word), 0) != SIZE_MAX; }

/* --- calls --- */

/* Families whose calls begin with a tag, the more specific first; a Go template's tag is looked up here too.
 */
static const struct {
    const char *open, *close;
    const char *name_end; /* if the source has it */
    bool list, short_ids;
} call_tags[] = {
    {"[TOOL_CALLS]", "", "[ARGS]", true, true},
    {"<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>", NULL, false, false},
    {"<|tool_call|>", "<|/tool_call|>", NULL, true, false},
    {"<tool_call>", "</tool_call>", NULL, false, false},
    {"<function=", "</function>", ">", false, false},
};

static void family_set(u32 i, struct str source, struct template_style *out) {
    const char *end = call_tags[i].name_end;
    out->call_close = str_of(call_tags[i].close);
    out->list = call_tags[i].list;
    if (end && has(source, end))
        out->name_end = str_of(end);
}

/* The member of calls that holds their arguments: what stands shortly before they are printed. */
static bool says_parameters(struct str source, const char *arguments) {
    size_t at = str_find(source, str_of(arguments), 0);
    if (at == SIZE_MAX)
        return false;
    struct str before = str_slice(source, at > 80 ? at - 80 : 0, at);
    return has(before, "\"parameters\"");
}

void style_of_jinja(struct str source, struct template_style *out) {
    *out = (struct template_style){0};
    out->can.tools = has(source, "tools") || has(source, "tool_call");
    bool results = has(source, "tool_response") || has(source, "tool_results") || has(source, "ipython") ||
                   has(source, "role'] == 'tool'") || has(source, "role'] == \"tool\"") ||
                   has(source, "role\"] == 'tool'") || has(source, "role\"] == \"tool\"") ||
                   has(source, "message.role == 'tool'") || has(source, "message.role == \"tool\"");
    out->can.round_trip =
        out->can.tools && results && (has(source, "tool_calls") || has(source, "assistant_tool_call"));
    bool splits = has(source, "content.split('</think>')") || has(source, "content.split(\"</think>\")");
    if ((has(source, "<think>") && has(source, "</think>")) ||
        (splits && !has(source, "reasoning_content") && !has(source, "<SPECIAL_12>"))) {
        out->can.thinking = true;
        out->think_open = STR("<think>");
        out->think_close = STR("</think>");
    }
    out->parameters = says_parameters(source, ".arguments") || says_parameters(source, "['arguments']");
    if (has(source, "<|python_tag|>"))
        out->call_other = STR("<|python_tag|>");
    for (size_t i = 0; out->can.tools && i < ARRAY_LEN(call_tags); i++) {
        if (!has(source, call_tags[i].open))
            continue;
        out->call_open = str_of(call_tags[i].open);
        out->short_ids = call_tags[i].short_ids;
        family_set((u32)i, source, out);
        return;
    }
}

/* --- Go: the tag of calls --- */

static bool names(const struct go_node *path, const char *field) {
    for (u32 i = 0; path->kind == GON_PATH && !path->of && i < path->names.n; i++)
        if (str_is(path->names.p[i], field))
            return true;
    return false;
}

/* A field of the dot that the commands of a pipeline have as an operand of their own. */
static bool pipe_names(const struct go_node *pipe, const char *field) {
    for (u32 i = 0; i < pipe->body.n; i++)
        for (u32 k = 0; k < pipe->body.p[i]->body.n; k++)
            if (names(pipe->body.p[i]->body.p[k], field))
                return true;
    return false;
}

static bool is_branch(const struct go_node *n) {
    return n->kind == GON_IF || n->kind == GON_WITH || n->kind == GON_RANGE;
}

static const struct go_node *find_calls(const struct go_nodes *list) {
    for (u32 i = 0; i < list->n; i++) {
        const struct go_node *n = list->p[i], *found = NULL;
        if (n->kind == GON_IF && pipe_names(n->pipe, "ToolCalls"))
            return n;
        if (is_branch(n) && ((found = find_calls(&n->body)) || (found = find_calls(&n->other))))
            return found;
    }
    return NULL;
}

/* The first text, if nothing is printed before it. */
static const struct go_node *first_text(const struct go_nodes *list) {
    for (u32 i = 0; i < list->n; i++) {
        const struct go_node *n = list->p[i];
        if (n->kind == GON_TEXT)
            return n;
        if (n->kind == GON_ACTION)
            return NULL;
        if (!is_branch(n))
            continue;
        const struct go_node *found = first_text(&n->body);
        return found ? found : first_text(&n->other);
    }
    return NULL;
}

static struct str call_tag(const struct go_template *t) {
    const struct go_node *calls = find_calls(&t->body);
    const struct go_node *text = calls ? first_text(&calls->body) : NULL;
    struct str tag = text ? str_trim(text->v.s) : STR_NONE;
    return str_slice(tag, 0, MIN(str_find(tag, STR("{"), 0), tag.n));
}

static void call_style(const struct go_template *t, struct str source, struct template_style *out) {
    struct str tag = call_tag(t);
    if (str_is(tag, "["))
        out->list = true;
    if (tag.n == 0 || str_is(tag, "["))
        return;
    out->call_open = tag;
    for (size_t i = 0; i < ARRAY_LEN(call_tags); i++) {
        if (!str_starts(tag, str_of(call_tags[i].open)))
            continue;
        family_set((u32)i, source, out);
        /* "[TOOL_CALLS] [": the bracket belongs to the array. */
        if (out->list && str_ends(tag, STR("[")))
            out->call_open = str_trim(str_slice(tag, 0, tag.n - 1));
        return;
    }
}

/* --- Go: the tags of thoughts --- */

struct think_search {
    struct template_style *out;
    const struct go_nodes *list; /* the nearest around */
    const struct go_node *range; /* the nearest around, or NULL */
};

static bool uses(const struct go_node *n, const char *field) {
    if (n->kind == GON_PATH && !n->of && n->names.n && str_is(n->names.p[0], field))
        return true;
    for (u32 i = 0; (n->kind == GON_PIPE || n->kind == GON_COMMAND) && i < n->body.n; i++)
        if (uses(n->body.p[i], field))
            return true;
    return false;
}

static void search_list(struct think_search s, const struct go_nodes *list);

/* A pipeline that holds .Thinking: the texts at both ends of its list are the tags; a later one wins. */
static void search_pipe(struct think_search s, const struct go_node *pipe) {
    if (!pipe || !uses(pipe, "Thinking") || !s.range || !uses(s.range->pipe, "Messages"))
        return;
    const struct go_node *first = s.list->p[0], *last = s.list->p[s.list->n - 1];
    if (first->kind == GON_TEXT)
        s.out->think_open = str_trim(first->v.s);
    if (last->kind == GON_TEXT)
        s.out->think_close = str_trim(last->v.s);
}

static void search_list(struct think_search s, const struct go_nodes *list) {
    s.list = list;
    for (u32 i = 0; i < list->n; i++) {
        const struct go_node *n = list->p[i];
        struct think_search inner = s;
        if (n->kind == GON_ACTION || n->kind == GON_TEMPLATE)
            search_pipe(s, n->pipe);
        if (!is_branch(n))
            continue;
        if (n->kind == GON_RANGE)
            inner.range = n;
        search_pipe(inner, n->pipe);
        search_list(inner, &n->body);
        search_list(inner, &n->other);
    }
}

static bool mentions(const struct go_template *t, const char *field) {
    return value_get(&t->mentioned, str_of(field)).kind != VALUE_UNDEFINED;
}

void style_of_go(const struct go_template *t, struct str source, struct template_style *out) {
    *out = (struct template_style){.can = {.tools = mentions(t, "tools"), .insert = mentions(t, "suffix")}};
    bool results =
        has(source, "eq .Role \"tool\"") || has(source, "tool_response") || has(source, "TOOL_RESULTS");
    out->can.round_trip = out->can.tools && mentions(t, "toolcalls") && results;
    search_list((struct think_search){.out = out}, &t->body);
    out->can.thinking = out->think_open.n && out->think_close.n;
    call_style(t, source, out);
    out->parameters = says_parameters(source, ".Arguments");
    if (has(source, "<|python_tag|>"))
        out->call_other = STR("<|python_tag|>");
}

/* --- the choice --- */

static u32 count(const struct template_can *c) { return (u32)c->tools + c->insert + c->thinking; }

bool style_prefers_jinja(const struct template_can *jinja, const struct template_can *go) {
    if (count(jinja) > count(go))
        return !go->round_trip || jinja->round_trip;
    bool same = jinja->tools == go->tools && jinja->insert == go->insert && jinja->thinking == go->thinking;
    return same && jinja->tools && jinja->round_trip && !go->round_trip;
}
