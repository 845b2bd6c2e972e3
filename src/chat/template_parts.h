/* template_parts.h - what chat/ itself needs of templates beyond template.h. */
#ifndef MINKA_CHAT_TEMPLATE_PARTS_H
#define MINKA_CHAT_TEMPLATE_PARTS_H

#include "chat/template.h"

/* Does a Go template mention the field (any case), e.g. "messages"? */
bool template_mentions(const struct chat_template *t, const char *field);
/* cut: a Go template's text ends at its first .Response. */
enum status template_render_part(const struct chat_template *t, const struct value *root, i64 now_unix, i32 utc_offset_s, bool cut,
                                 struct buf *out, struct err *err) MUST_USE;

#endif
