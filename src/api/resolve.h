/* resolve.h - the steps from a dialect's fields to a gen_request that all dialects share. */
#ifndef MINKA_API_RESOLVE_H
#define MINKA_API_RESOLVE_H

#include "api/call.h"

/* How a dialect's route answers a missing name. */
enum name_style { NAME_STYLE_GENERATE, NAME_STYLE_CHAT, NAME_STYLE_EMBED, NAME_STYLE_EMBEDDINGS };

/* Finds the model of c->model. On failure err and c->refused_code say what to answer. */
enum status resolve_model(struct call *c, enum name_style style, struct model *m, struct err *err) MUST_USE;
/* ERR_INVALID if the model cannot `route` ("chat", "generate") at all; ERR_UNSUPPORTED if it needs something
 * that minka has not yet (adapters, tensor files); ERR_CORRUPT, an error of the model: 500, if its TEMPLATE layer
 * is not understood. */
enum status resolve_completion(const struct call *c, const struct model *m, const char *route,
                               struct err *err) MUST_USE;
/* How the model renders messages, and thinks where the request leaves that open: on if it can. */
void resolve_template(const struct model *m, struct gen_request *r);
/* The tools of a request, as JSON text in *r. ERR_INVALID for what is no function with a name, and if the model
 * cannot use tools. */
enum status resolve_tools(struct call *c, const struct model *m, const json_t *tools, struct gen_request *r,
                          struct err *err) MUST_USE;
/* Some models must not see their old thoughts: cuts them from answers before the last message of the user. */
void thoughts_cut(const struct model *m, struct gen_message *messages, u32 n);
/* ERR_UNSUPPORTED if the model needs something that minka has not yet. */
enum status resolve_embedding(const struct model *m, struct err *err) MUST_USE;
/* Defaults, then the model's parameters, in *o. An error is the model's: 500. */
enum status resolve_parameters(struct call *c, const struct model *m, struct options *o,
                               struct err *err) MUST_USE;
/* ERR_INVALID if r asks for thoughts and the model has none. */
enum status think_check(const struct call *c, const struct model *m, const struct gen_request *r,
                        struct err *err) MUST_USE;
/* The options of a request on top. An error has the reference's code, 500. */
enum status resolve_options(struct call *c, const json_t *object, struct options *o,
                            struct err *err) MUST_USE;
/* The draft model that o names for m, in c->draft. ERR_NOT_FOUND, ERR_INVALID: it is unknown, the model itself or
 * has another vocabulary; one whose file cannot be read is left out. */
enum status resolve_draft(struct call *c, const struct model *m, const struct options *o,
                          struct err *err) MUST_USE;
/* keep_alive of a request; NULL: the default. *given says whether the request set it. */
enum status resolve_keep_alive(const struct api *api, const json_t *v, i64 *ns, bool *given,
                               struct err *err) MUST_USE;
/* A field that minka does not honour yet: ERR_UNSUPPORTED naming it. */
enum status unsupported(const char *field, struct err *err);

/* A JSON Schema that the answer must follow; the engine says what is wrong with it. */
void resolve_schema(struct call *c, const json_t *schema, struct gen_request *r);

/* A growing list of messages in an arena. */
struct message_list {
    struct gen_message *items;
    u32 n, cap;
};
enum status message_add(struct message_list *l, struct arena *a, const struct gen_message *m,
                        struct err *err) MUST_USE;
/* ERR_INVALID for an unknown role. Case is ignored; "developer" is OpenAI's name for system. */
enum status role_parse(struct str text, enum gen_role *role, struct err *err) MUST_USE;
/* The messages of a native request or of a model's messages layer. */
enum status messages_read(struct message_list *l, const json_t *list, struct arena *a,
                          struct err *err) MUST_USE;
/* The model's own MESSAGEs. */
enum status resolve_messages(struct call *c, const struct model *m, struct message_list *l,
                             struct err *err) MUST_USE;
/* Arguments of a tool call, "{...}", in the arena. */
struct str arguments_text(const json_t *v, struct arena *a);

#endif
