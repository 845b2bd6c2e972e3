/* vocab_avx2.c - the passes over logits of this tier. */
#include "kern/x86/vec_avx2.h"

#include "kern/x86/vocab_x86.h"
