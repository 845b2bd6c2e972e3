/* machine.h - what the machine can do at most, to hold kernels against: the rate of a tier's dot product
 * instruction and of its fma on registers alone, and of a plain read of memory. */
#ifndef MINKA_MACHINE_H
#define MINKA_MACHINE_H

#include "base/base.h"

/* Runs a loop of independent dot products n times; the value keeps the compiler from leaving it out. */
f64 machine_dot(const char *tier, u32 n);
/* Operations of that loop (a multiply and an add are two); 0 for a tier without such an instruction. */
f64 machine_dot_ops(const char *tier, u32 n);
/* The same for fma on floats. */
f64 machine_fma(const char *tier, u32 n);
f64 machine_fma_ops(const char *tier, u32 n);
/* Reads n bytes, with the tier's widest loads. */
f64 machine_read(const char *tier, const u8 *p, size_t n);

#endif
