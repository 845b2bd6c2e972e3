/* pretoken.h - the part of a scratch that the pre-tokenizer needs. */
#ifndef MINKA_PRETOKEN_H
#define MINKA_PRETOKEN_H

struct pretoken_scratch;
struct pretoken_scratch *pretoken_scratch_new(void);
void pretoken_scratch_free(struct pretoken_scratch *s);

#endif
