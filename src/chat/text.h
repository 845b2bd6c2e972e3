/* text.h - Unicode text as Python's str methods see it: positions are code points, white space and case are
 * Unicode's. A byte that is no UTF-8 counts as one code point, U+FFFD. */
#ifndef MINKA_CHAT_TEXT_H
#define MINKA_CHAT_TEXT_H

#include "chat/run.h"

/* Code point at byte *at, which moves behind it. */
u32 text_next(struct str s, size_t *at);
size_t text_len(struct str s); /* code points */
/* Byte offset of code point i; s.n if there are fewer. */
size_t text_offset(struct str s, size_t i);
bool text_is_space(u32 c);  /* str.isspace */
/* chars.p == NULL: white space; else the code points to strip. */
struct str text_strip(struct str s, bool left, bool right, struct str chars);

enum text_case { TEXT_UPPER, TEXT_LOWER, TEXT_TITLE, TEXT_CAPITALIZE, TEXT_SWAP, TEXT_JINJA_TITLE };
/* Appends s in another case, with Unicode's special casing (one letter may become three). */
enum status text_put_case(struct run *r, struct str s, enum text_case to) MUST_USE;

enum text_class { TEXT_ALPHA, TEXT_DIGIT, TEXT_ALNUM, TEXT_SPACE, TEXT_IS_UPPER, TEXT_IS_LOWER, TEXT_IS_TITLE };
/* Python's isalpha() and so on. */
bool text_is(struct str s, enum text_class c);
bool text_is_printable(u32 c); /* what repr() shows as it is */

#endif
