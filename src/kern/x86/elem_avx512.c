/* elem_avx512.c - the elementwise kernels of this tier. */
#include "kern/x86/vec_avx512.h"

#include "kern/x86/elem_x86.h"
