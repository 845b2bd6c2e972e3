/* rope.h - the rotation of queries and keys by position: angle of pair i at position p is p * freq[i].
 * A model has up to three tables of frequencies: its usual one, one for long contexts (longrope) and
 * one for layers with a window (gemma3). */
#ifndef MINKA_MODEL_ROPE_H
#define MINKA_MODEL_ROPE_H

#include "model/hyper.h"

struct rope {
    u32 n_rot;
    f64 *freq; /* [n_rot / 2] radians per position */
    f64 scale; /* of cos and sin */
};

enum rope_variant { ROPE_USUAL, ROPE_LONG, ROPE_WINDOWED, ROPE_VARIANTS };

struct ropes {
    struct rope r[ROPE_VARIANTS];
    bool has_long, has_windowed; /* else that variant equals the usual one */
    u32 ctx_orig;                /* contexts above it use ROPE_LONG */
};

/* Factors divide the frequencies, [n_rot / 2] or NULL: usual comes from rope_freqs.weight or
 * rope_factors_short.weight, lengthy from rope_factors_long.weight. Frequencies come from arena. */
void ropes_init(struct ropes *out, const struct hyper *h, const f32 *usual, const f32 *lengthy,
                struct arena *arena);
/* cos and sin of every pair at one position: out [n_rot / 2][2], computed in f64 and rounded once. */
void rope_angles(const struct rope *r, u32 pos, f32 *out);

#endif
