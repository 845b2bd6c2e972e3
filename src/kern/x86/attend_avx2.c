/* attend_avx2.c - attention with 16 registers of 8 floats: 6 accumulators of 16 floats beside the vectors or
 * weights of a step. */
#include "kern/x86/vec_avx2.h"

#define TILE_MAX 6u
#define SCORES_SHAPES(f) f(1, 1) f(1, 2) f(1, 3) f(1, 4) f(2, 1) f(2, 2) f(3, 1) f(4, 1) f(5, 1) f(6, 1)
#define VALUES_SHAPES(f)                                                                                     \
    f(1, 1) f(1, 2) f(1, 3) f(1, 4) f(2, 1) f(2, 2) f(3, 1) f(4, 1) f(5, 1) f(6, 1)

#include "kern/x86/attend_x86.h"
