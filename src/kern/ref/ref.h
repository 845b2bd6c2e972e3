/* ref.h - sums over 16 lanes, the one order in which all tiers add up a row. */
#ifndef MINKA_KERN_REF_H
#define MINKA_KERN_REF_H

#include "base/base.h"

/* Lane i of the first half takes lane i of the second: 8, 4, 2, 1. */
static inline f32 lanes_sum(f32 lane[16]) {
    for (u32 half = 8; half; half /= 2)
        for (u32 i = 0; i < half; i++)
            lane[i] = lane[i] + lane[i + half];
    return lane[0];
}

#endif
