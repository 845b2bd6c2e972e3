/* acts.c - which form activations take for which weights, and where its parts lie. */
#include "kern/kern_parts.h"

_Static_assert(sizeof(struct kern_act_block) == 48, "the kernels step through blocks by 48 bytes");

enum kern_act kern_act_kind(enum quant_type type, bool force_f32) {
    if (force_f32)
        return KERN_ACT_F32;
    switch (type) {
    case QUANT_Q4_0:
    case QUANT_Q4_1:
    case QUANT_Q5_0:
    case QUANT_Q5_1:
    case QUANT_Q8_0:
    case QUANT_IQ4_NL:
        return KERN_ACT_Q8;
    case QUANT_Q4_K:
    case QUANT_Q5_K:
    case QUANT_Q6_K:
    case QUANT_IQ4_XS:
        return KERN_ACT_Q8_256;
    default:
        return KERN_ACT_F32;
    }
}

size_t kern_acts_bytes(enum kern_act kind, u32 rows, u32 K) {
    if (kind == KERN_ACT_F32)
        return 0;
    check(K % (kind == KERN_ACT_Q8 ? 32 : 256) == 0);
    return (size_t)rows * (K / KERN_ACT_BLOCK) * sizeof(struct kern_act_block);
}

void kern_acts_at(struct kern_acts *a, enum kern_act kind, u32 rows, u32 K, const f32 *x, void *mem) {
    check((uintptr_t)mem % 64 == 0);
    *a = (struct kern_acts){.kind = kind, .K = K, .rows = rows, .x = x};
    if (kind != KERN_ACT_F32)
        a->blocks = mem;
}

size_t kern_matmul_scratch_bytes(void) { return KERN_MATMUL_SCRATCH_BYTES; }
