/* tiny.h - the tiny random models behind the golden numbers, made anew from their seeds.
 *
 * The numbers in data/forward.json come from models whose weights are normal variates of NumPy's
 * Generator(PCG64([crc32(name), seed])). This repeats that generator (PCG64: O'Neill 2014; the seeding hash
 * and the 256-layer ziggurat as NumPy documents them), so that megabytes of random weights need not lie in
 * the repository. The tests compare SHA-256 of every model's tensor data with that of the original file. */
#ifndef MINKA_TESTS_TINY_H
#define MINKA_TESTS_TINY_H

#include "base/base.h"

/* Writes the model `name` as a GGUF file without a vocabulary; false if there is no such model. */
bool tiny_write(const char *name, const char *path);
/* Name of the i-th model; NULL behind the last. */
const char *tiny_name(u32 i);

#endif
