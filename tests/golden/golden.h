/* golden.h - what the tests of the forward pass share: the numbers, and models as files. */
#ifndef MINKA_TESTS_GOLDEN_H
#define MINKA_TESTS_GOLDEN_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>
#include <jansson.h>

#include "cli/eval_model.h"

json_t *golden_load(const char *name); /* of the data folder; fails the test */
void golden_path(const char *name, char path[4096]);

/* An array of numbers or of ids; n is its length. Free with free(). */
f64 *golden_numbers(const json_t *array, u32 *n);
u32 *golden_ids(const json_t *array, u32 *n);
/* The members ids of forward.json's sequences. */
u32 *golden_sequence(const json_t *forward, const char *name, u32 *n);

/* Path of a tiny model: the copied file, or made anew (once per process, in a temporary folder that
 * golden_cleanup removes). */
void golden_model(const json_t *forward, const char *name, char path[4096]);
void golden_cleanup(void);

/* Opens and fails the test if it cannot. */
void golden_open(const char *path, const struct eval_options *o, struct eval_model *out);
/* Logits of all positions, [n][n_vocab]; free with free(). */
f32 *golden_run(struct eval_model *e, const u32 *ids, u32 n);

#endif
