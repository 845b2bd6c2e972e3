/* templates.h - compiled templates that requests bring with them, by their text: a model's TEMPLATE layer comes with
 * each of its requests and is compiled once. For one thread. */
#ifndef MINKA_TEMPLATES_H
#define MINKA_TEMPLATES_H

#include "chat/template.h"

struct templates;
struct templates *templates_new(void) MUST_USE;
void templates_free(struct templates *c);
/* The Go template with this text; valid until the next call. ERR_INVALID or ERR_TOO_LARGE as template_open. */
enum status templates_get(struct templates *c, struct str text, const struct chat_template **out,
                          struct err *err) MUST_USE;

#endif
