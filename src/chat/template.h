/* template.h - chat templates: a Jinja evaluator (the language that GGUF chat templates use, as
 * transformers configures it: trim_blocks, lstrip_blocks, loop controls, {% generation %}) and a Go
 * text/template evaluator behind one interface. Templates are hostile: steps, output, memory and depth
 * are bounded by limit.h. */
#ifndef MINKA_TEMPLATE_H
#define MINKA_TEMPLATE_H

#include "chat/style.h"
#include "chat/value.h"

struct chat_template;

enum template_kind { TEMPLATE_JINJA, TEMPLATE_GO };

/* Compiles; source is copied. ERR_INVALID with the line. */
enum status template_open(struct str source, enum template_kind kind, struct chat_template **out, struct err *err) MUST_USE;
void template_close(struct chat_template *t);
enum template_kind template_kind_of(const struct chat_template *t);
u64 template_bytes(const struct chat_template *t); /* memory it holds, for the ledger */
/* Runs with the members of `root` (an object) as variables and appends the text to out; on failure out is
 * as before. now_unix and utc_offset_s feed strftime_now / currentDate. A template that raises
 * (raise_exception) is ERR_INVALID with its text; over a limit ERR_TOO_LARGE. Thread-safe: a compiled
 * template is read-only. */
enum status template_render(const struct chat_template *t, const struct value *root, i64 now_unix, i32 utc_offset_s,
                            struct buf *out, struct err *err) MUST_USE;

/* What it says about the model's answers; valid while t lives. */
const struct template_style *template_style(const struct chat_template *t);

#endif
