/* ref/matmul.c - the definition of quantize, matmul and embed: one output after the other, one block after
 * the other, straight from the formulas of kern.h and the layouts of quant.h. */
#include "kern/kern_parts.h"

#include <math.h>

/* --- activations --- */

/* Quantizes n = 32 or 256 values into n / 32 blocks. */
static void group_quantize(const f32 *x, u32 n, struct kern_act_block *blocks) {
    f32 amax = 0;
    bool finite = true;
    for (u32 i = 0; i < n; i++) {
        finite = finite && isfinite(x[i]);
        amax = fabsf(x[i]) > amax ? fabsf(x[i]) : amax;
    }
    bool zero = !finite || amax < KERN_ACT_AMAX_MIN;
    f32 d = !finite ? NAN : zero ? 0 : amax / 127, inverse = zero ? 0 : 127 / amax;
    for (u32 b = 0; b < n / 32; b++) {
        i32 sum[2] = {0, 0};
        for (u32 j = 0; j < 32; j++) {
            blocks[b].q[j] = zero ? 0 : (i8)lrintf(x[b * 32 + j] * inverse);
            sum[j / 16] += blocks[b].q[j];
        }
        blocks[b].d = d;
        if (n == 32) {
            blocks[b].s = d * (f32)(sum[0] + sum[1]);
            blocks[b].n[0] = -(sum[0] + sum[1]);
            blocks[b].n[1] = 0;
        } else {
            blocks[b].s = (f32)(sum[0] + sum[1]);
            blocks[b].n[0] = -sum[0];
            blocks[b].n[1] = -sum[1];
        }
    }
}

void ref_quantize(const struct kern_acts *a, u32 row0, u32 row1, u32 k0, u32 k1) {
    u32 n = a->kind == KERN_ACT_Q8 ? 32 : 256;
    for (u32 row = row0; row < row1; row++)
        for (size_t at = (size_t)row * a->K + k0; at < (size_t)row * a->K + k1; at += n)
            group_quantize(a->x + at, n, a->blocks + at / 32);
}

/* --- weights: 32 of them as integers with their scales --- */

struct part {
    i32 w[32]; /* weight minus the type's offset */
    f32 d[2];  /* scale of w[0..15] and of w[16..31] */
    f32 m;     /* minimum, 0 for types without */
};

/* Blocks of 32: Q4_0, Q4_1, Q5_0, Q5_1, IQ4_NL, Q8_0. */
static void part_of_block32(enum quant_type type, const u8 *b, struct part *p) {
    bool with_min = type == QUANT_Q4_1 || type == QUANT_Q5_1, five = type == QUANT_Q5_0 || type == QUANT_Q5_1;
    const u8 *q = b + (with_min ? 4 : 2);
    u32 high = five ? load_u32(q) : 0;
    q += five ? 4 : 0;
    p->d[0] = p->d[1] = f16_to_f32(load_u16(b));
    p->m = with_min ? f16_to_f32(load_u16(b + 2)) : 0;
    for (u32 j = 0; j < 32; j++) {
        i32 nibble = j < 16 ? q[j] & 15 : q[j - 16] >> 4;
        if (type == QUANT_Q8_0)
            p->w[j] = (i8)q[j];
        else if (type == QUANT_IQ4_NL)
            p->w[j] = quant_iq4_values[nibble];
        else if (five)
            p->w[j] = (nibble | (i32)(high >> j & 1) << 4) - (type == QUANT_Q5_0 ? 16 : 0);
        else
            p->w[j] = nibble - (type == QUANT_Q4_0 ? 8 : 0);
    }
}

/* Sub-block j of a Q4_K or Q5_K block: scales in 6 bits, see quant.h. */
static void part_of_q45k(bool five, const u8 *b, u32 j, struct part *p) {
    const u8 *s = b + 4, *high = b + 16, *q = b + (five ? 48 : 16) + 32 * (j / 2);
    i32 scale = j < 4 ? s[j] & 63 : (s[j + 4] & 15) | s[j - 4] >> 6 << 4;
    i32 min = j < 4 ? s[j + 4] & 63 : s[j + 4] >> 4 | s[j] >> 6 << 4;
    p->d[0] = p->d[1] = f16_to_f32(load_u16(b)) * (f32)scale;
    p->m = -f16_to_f32(load_u16(b + 2)) * (f32)min;
    for (u32 l = 0; l < 32; l++)
        p->w[l] = (j % 2 ? q[l] >> 4 : q[l] & 15) | (five ? (high[l] >> j & 1) << 4 : 0);
}

/* Values 32 * j .. of a Q6_K block: 128 low nibbles and 2-bit highs in a period of 128 values. */
static void part_of_q6k(const u8 *b, u32 j, struct part *p) {
    const u8 *low = b + 64 * (j / 4) + 32 * (j % 2), *high = b + 128 + 32 * (j / 4);
    f32 d = f16_to_f32(load_u16(b + 208));
    for (u32 l = 0; l < 32; l++)
        p->w[l] = ((j % 4 < 2 ? low[l] & 15 : low[l] >> 4) | (high[l] >> 2 * (j % 4) & 3) << 4) - 32;
    p->d[0] = d * (f32)(i8)b[192 + 2 * j];
    p->d[1] = d * (f32)(i8)b[192 + 2 * j + 1];
    p->m = 0;
}

static void part_of_iq4xs(const u8 *b, u32 j, struct part *p) {
    const u8 *q = b + 8 + 16 * j;
    i32 scale = (b[4 + j / 2] >> 4 * (j % 2) & 15) | (load_u16(b + 2) >> 2 * j & 3) << 4;
    p->d[0] = p->d[1] = f16_to_f32(load_u16(b)) * (f32)(scale - 32);
    p->m = 0;
    for (u32 l = 0; l < 32; l++)
        p->w[l] = quant_iq4_values[l < 16 ? q[l] & 15 : q[l - 16] >> 4];
}

/* Values 32 * block .. of a row. */
static void part_of_row(enum quant_type type, const u8 *row, u32 block, struct part *p) {
    const u8 *super = row + (size_t)(block / 8) * quant_block_bytes(type);
    switch (type) {
    case QUANT_Q4_K: part_of_q45k(false, super, block % 8, p); break;
    case QUANT_Q5_K: part_of_q45k(true, super, block % 8, p); break;
    case QUANT_Q6_K: part_of_q6k(super, block % 8, p); break;
    case QUANT_IQ4_XS: part_of_iq4xs(super, block % 8, p); break;
    default: part_of_block32(type, row + (size_t)block * quant_block_bytes(type), p); break;
    }
}

/* --- one output --- */

static bool type_has_min(enum quant_type type) {
    return type == QUANT_Q4_1 || type == QUANT_Q5_1 || type == QUANT_Q4_K || type == QUANT_Q5_K;
}

/* acc or t after one block: Q6_K has a scale per 16 values, all others one per 32. */
static f32 part_add(enum quant_type type, const struct part *p, const struct kern_act_block *b, bool wide, f32 acc) {
    u32 values = type == QUANT_Q6_K ? 16 : 32;
    for (u32 j0 = 0; j0 < 32; j0 += values) {
        i32 isum = 0;
        for (u32 j = j0; j < j0 + values; j++)
            isum += p->w[j] * b->q[j];
        acc = fmaf((f32)isum, wide ? p->d[j0 / 16] : p->d[j0 / 16] * b->d, acc);
    }
    return type_has_min(type) ? fmaf(p->m, b->s, acc) : acc;
}

static f32 dot_q8(const struct kern_mat *w, const u8 *row, const struct kern_act_block *blocks, bool wide) {
    f32 acc = 0, t = 0;
    for (u32 b = 0; b < w->K / 32; b++) {
        struct part p;
        part_of_row(w->type, row, b, &p);
        if (!wide) {
            acc = part_add(w->type, &p, blocks + b, false, acc);
        } else {
            t = part_add(w->type, &p, blocks + b, true, b % 8 ? t : 0);
            if (b % 8 == 7)
                acc = fmaf(t, blocks[b].d, acc);
        }
    }
    return acc;
}

static f32 dot_f32(const struct kern_mat *w, const u8 *row, const f32 *x) {
    f32 buf[256], acc = 0;
    u32 values = quant_block_values(w->type);
    for (u32 k0 = 0; k0 < w->K; k0 += 256) {
        u32 n = MIN(w->K - k0, 256u);
        quant_decode(w->type, row + (size_t)(k0 / values) * quant_block_bytes(w->type), buf, n);
        for (u32 k = 0; k < n; k++)
            acc = fmaf(buf[k], x[k0 + k], acc);
    }
    return acc;
}

void ref_matmul(const struct kern_mat *w, u32 n0, u32 n1, const struct kern_acts *a, f32 *out, size_t ldo,
                void *scratch UNUSED, const u8 *next UNUSED) {
    check(a->K == w->K && n1 <= w->N && quant_supported(w->type));
    check(a->kind == KERN_ACT_F32 || a->kind == kern_act_kind(w->type, false));
    for (u32 m = 0; m < a->rows; m++)
        for (u32 n = n0; n < n1; n++) {
            const u8 *row = w->data + (size_t)n * w->row_bytes;
            if (a->kind == KERN_ACT_F32)
                out[m * ldo + n] = dot_f32(w, row, a->x + (size_t)m * a->K);
            else
                out[m * ldo + n] =
                    dot_q8(w, row, a->blocks + (size_t)m * (a->K / 32), a->kind == KERN_ACT_Q8_256);
        }
}

void ref_embed(const struct kern_mat *w, u32 row, f32 *out) {
    check(row < w->N);
    quant_decode(w->type, w->data + (size_t)row * w->row_bytes, out, w->K);
}
