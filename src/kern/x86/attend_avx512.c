/* attend_avx512.c - attention with 32 registers of 16 floats: up to 25 accumulators beside the vectors or
 * weights of a step. */
#include "kern/x86/vec_avx512.h"

#define TILE_MAX 8u
#define SCORES_SHAPES(f)                                                                                     \
    f(1, 1) f(1, 2) f(1, 3) f(1, 4) f(2, 1) f(2, 2) f(2, 3) f(2, 4) f(3, 1) f(3, 2) f(3, 3) f(3, 4)          \
    f(4, 1) f(4, 2) f(5, 1) f(5, 2) f(6, 1) f(6, 2) f(7, 1) f(7, 2) f(8, 1) f(8, 2)
#define VALUES_SHAPES(f)                                                                                     \
    f(1, 1) f(1, 2) f(1, 3) f(1, 4) f(1, 5) f(1, 6) f(1, 7) f(1, 8) f(1, 9) f(1, 10) f(1, 11) f(1, 12)       \
    f(1, 13) f(1, 14) f(1, 15) f(1, 16)                                                                      \
    f(2, 1) f(2, 2) f(2, 3) f(2, 4) f(2, 5) f(2, 6) f(2, 7) f(2, 8)                                          \
    f(3, 1) f(3, 2) f(3, 3) f(3, 4) f(3, 5) f(3, 6) f(3, 7) f(3, 8)                                          \
    f(4, 1) f(4, 2) f(4, 3) f(4, 4) f(4, 5) f(4, 6)                                                          \
    f(5, 1) f(5, 2) f(5, 3) f(5, 4) f(5, 5)                                                                  \
    f(6, 1) f(6, 2) f(6, 3) f(6, 4)                                                                          \
    f(7, 1) f(7, 2) f(7, 3)                                                                                  \
    f(8, 1) f(8, 2) f(8, 3)

#include "kern/x86/attend_x86.h"
