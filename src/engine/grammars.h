/* grammars.h - the compiled grammars of one vocabulary. Agents send the same schema with every request, so
 * those that are in use by nobody are kept while there is room. */
#ifndef MINKA_GRAMMARS_H
#define MINKA_GRAMMARS_H

#include "chat/grammar.h"

struct grammars;

/* t must outlive it. The vocabulary's tries are built with the first grammar. */
struct grammars *grammars_new(const struct tokenizer *t) MUST_USE;
void grammars_free(struct grammars *gs); /* when all grammars are given back */
/* Compiles, or finds what has been compiled from the same parts. Every success is given back once. From any
 * thread. Errors as grammar_compile's; ERR_BUSY: over LIMIT_GRAMMARS_BYTES with those in use. */
enum status grammars_take(struct grammars *gs, const struct grammar_part *part, struct grammar **out,
                          struct err *err) MUST_USE;
/* Never waits for a compilation. */
void grammars_give(struct grammars *gs, struct grammar *g);

#endif
