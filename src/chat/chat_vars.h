/* chat_vars.h - the variables that templates see, made from a request. */
#ifndef MINKA_CHAT_VARS_H
#define MINKA_CHAT_VARS_H

#include "chat/chat.h"

/* A choice of messages: of those before `from` only the system ones, then all up to `to`. */
struct chat_window {
    u32 from, to;
};

/* What is the same for every window; made once per request. */
struct chat_vars {
    const struct chat_model *model;
    const struct gen_request *request;
    struct arena *arena;
    struct value *messages; /* [n_messages] as Jinja sees them */
    struct value tools;     /* list, or UNDEFINED */
    struct value kwargs;    /* object, or UNDEFINED */
};

enum status chat_vars_init(struct chat_vars *v, const struct chat_model *m, const struct gen_request *r, struct arena *arena,
                           struct err *err) MUST_USE;
enum status chat_vars_jinja(const struct chat_vars *v, struct chat_window w, struct value *root, struct err *err) MUST_USE;
/* Renders the window with a Go template onto out. */
enum status chat_render_go(const struct chat_vars *v, const struct chat_template *t, struct chat_window w, struct buf *out,
                           struct err *err) MUST_USE;
static inline bool chat_window_has(const struct gen_request *r, struct chat_window w, u32 i) {
    return i < w.to && (i >= w.from || r->messages[i].role == ROLE_SYSTEM);
}
/* No level set (default), off, or on. */
static inline bool chat_thinks(const struct gen_request *r) { return r->think != GEN_THINK_DEFAULT && r->think != GEN_THINK_OFF; }
const char *chat_think_level(enum gen_think think); /* "low", "medium", "high", else "" */

#endif
