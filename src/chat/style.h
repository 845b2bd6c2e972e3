/* style.h - what the text of a template says about its model: what the model can do, and how its answers
 * write thoughts and tool calls.
 *
 * Go templates follow the reference: the tag of tool calls is the first text inside {{ if .ToolCalls }} up to
 * its first brace, the tags of thoughts are the texts around .Thinking inside {{ range .Messages }}. Jinja
 * templates are searched for the tags of the known families; which words stand for which capability is the
 * reference's rule. */
#ifndef MINKA_CHAT_STYLE_H
#define MINKA_CHAT_STYLE_H

#include "base/str.h"

struct go_template;

struct template_can {
    bool tools;      /* tools go into the prompt */
    bool round_trip; /* calls and their results too */
    bool insert;     /* there is a form with a suffix */
    bool thinking;   /* thoughts have tags */
};

struct template_style {
    struct template_can can;
    /* Tags of thoughts, without white space around them; with can.thinking both are there. */
    struct str think_open, think_close;
    /* What a call begins with. Empty: calls are bare JSON, an answer that begins with { or [ may be one. */
    struct str call_open;
    struct str call_close; /* empty: unknown, calls go on to the end of the answer */
    struct str call_other; /* a further text that calls may begin with, or empty */
    struct str name_end;   /* not empty: a call is its name, this, and the arguments */
    bool list;             /* calls are elements of one JSON array behind call_open */
    bool parameters;       /* the member with the arguments is "parameters", not "arguments" */
    bool short_ids;        /* ids of calls must have nine letters or digits */
};

/* The texts lie in t and source or, for Jinja always, are constants. */
void style_of_go(const struct go_template *t, struct str source, struct template_style *out);
void style_of_jinja(struct str source, struct template_style *out);

/* The reference's choice between a model's TEMPLATE layer (go) and its file's Jinja template: Jinja wins if
 * it can more, or as much where only it renders calls with their results. */
bool style_prefers_jinja(const struct template_can *jinja, const struct template_can *go);

#endif
