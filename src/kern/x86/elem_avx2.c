/* elem_avx2.c - the elementwise kernels of this tier. */
#include "kern/x86/vec_avx2.h"

#include "kern/x86/elem_x86.h"
