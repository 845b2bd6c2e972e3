/* vocab_avx512.c - the passes over logits of this tier. */
#include "kern/x86/vec_avx512.h"

#include "kern/x86/vocab_x86.h"
