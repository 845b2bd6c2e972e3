/* quant.c - the table of weight formats, their exact decoding and the simple encoders.
 *
 * The order of float operations in the decoders is part of the format: (scale product) first, then
 * times the integer, then the minimum. Project-wide -ffp-contract=off keeps it. */
#include "gguf/quant.h"

#include <math.h>
#include <stdio.h>

struct type_info {
    const char *name;
    u16 values, bytes;
    bool supported;
};

/* ggml's table; the numbers that are missing (4, 5, 31..33, 36..38) were removed from the format. */
static const struct type_info type_table[QUANT_TYPES] = {
    [QUANT_F32] = {"F32", 1, 4, true},
    [QUANT_F16] = {"F16", 1, 2, true},
    [QUANT_Q4_0] = {"Q4_0", 32, 18, true},
    [QUANT_Q4_1] = {"Q4_1", 32, 20, true},
    [QUANT_Q5_0] = {"Q5_0", 32, 22, true},
    [QUANT_Q5_1] = {"Q5_1", 32, 24, true},
    [QUANT_Q8_0] = {"Q8_0", 32, 34, true},
    [9] = {"Q8_1", 32, 36, false},
    [QUANT_Q2_K] = {"Q2_K", 256, 84, false},
    [QUANT_Q3_K] = {"Q3_K", 256, 110, false},
    [QUANT_Q4_K] = {"Q4_K", 256, 144, true},
    [QUANT_Q5_K] = {"Q5_K", 256, 176, true},
    [QUANT_Q6_K] = {"Q6_K", 256, 210, true},
    [15] = {"Q8_K", 256, 292, false},
    [16] = {"IQ2_XXS", 256, 66, false},
    [17] = {"IQ2_XS", 256, 74, false},
    [18] = {"IQ3_XXS", 256, 98, false},
    [19] = {"IQ1_S", 256, 50, false},
    [QUANT_IQ4_NL] = {"IQ4_NL", 32, 18, true},
    [21] = {"IQ3_S", 256, 110, false},
    [22] = {"IQ2_S", 256, 82, false},
    [QUANT_IQ4_XS] = {"IQ4_XS", 256, 136, true},
    [24] = {"I8", 1, 1, false},
    [25] = {"I16", 1, 2, false},
    [26] = {"I32", 1, 4, false},
    [27] = {"I64", 1, 8, false},
    [28] = {"F64", 1, 8, false},
    [29] = {"IQ1_M", 256, 56, false},
    [QUANT_BF16] = {"BF16", 1, 2, true},
    [34] = {"TQ1_0", 256, 54, false},
    [35] = {"TQ2_0", 256, 66, false},
    [39] = {"MXFP4", 32, 17, false},
    [40] = {"NVFP4", 64, 36, false},
    [41] = {"Q1_0", 128, 18, false},
    [42] = {"Q2_0", 64, 18, false},
};

const i8 quant_iq4_values[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

u32 quant_block_values(u32 type) { return type < QUANT_TYPES ? type_table[type].values : 0; }
u32 quant_block_bytes(u32 type) { return type < QUANT_TYPES ? type_table[type].bytes : 0; }
bool quant_supported(u32 type) { return type < QUANT_TYPES && type_table[type].supported; }

const char *quant_name(u32 type) {
    static _Thread_local char text[24];
    if (type < QUANT_TYPES && type_table[type].name)
        return type_table[type].name;
    snprintf(text, sizeof text, "type %u", type);
    return text;
}

size_t quant_row_bytes(u32 type, u32 K) {
    u32 values = quant_block_values(type);
    check(values != 0);
    check(K % values == 0);
    return (size_t)(K / values) * quant_block_bytes(type);
}

/* --- 16-bit floats --- */

static f32 f32_from_bits(u32 bits) {
    f32 f;
    memcpy(&f, &bits, sizeof f);
    return f;
}
static u32 f32_bits(f32 f) {
    u32 bits;
    memcpy(&bits, &f, sizeof bits);
    return bits;
}

f32 f16_to_f32(u16 h) {
    u32 sign = (u32)(h & 0x8000) << 16, exponent = h >> 10 & 31, mantissa = h & 0x3ff;
    if (exponent == 31)
        return f32_from_bits(sign | 0x7f800000 | mantissa << 13);
    if (exponent == 0) {
        /* Subnormal: mantissa * 2^-24 is exact in f32. */
        f32 v = (f32)mantissa * 0x1p-24f;
        return sign ? -v : v;
    }
    return f32_from_bits(sign | (exponent + 112) << 23 | mantissa << 13);
}

u16 f32_to_f16(f32 f) {
    u32 bits = f32_bits(f), magnitude = bits & 0x7fffffff;
    u16 sign = (u16)(bits >> 16 & 0x8000);
    if (magnitude > 0x7f800000)
        return sign | 0x7e00;
    if (magnitude >= 0x477ff000) /* 65520 and above round to infinity */
        return sign | 0x7c00;
    if (magnitude < 0x38800000) {
        /* Below 2^-14: adding 0.5 leaves the value in units of 2^-24, rounded to even, in the low bits. */
        f32 shifted = f32_from_bits(magnitude) + 0.5f;
        return sign | (u16)(f32_bits(shifted) - f32_bits(0.5f));
    }
    u32 rounded = magnitude + 0xfff + (magnitude >> 13 & 1);
    return sign | (u16)((rounded - (112u << 23)) >> 13);
}

f32 bf16_to_f32(u16 h) { return f32_from_bits((u32)h << 16); }

u16 f32_to_bf16(f32 f) {
    u32 bits = f32_bits(f);
    if ((bits & 0x7fffffff) > 0x7f800000)
        return (u16)(bits >> 16 | 64); /* stays a NaN, made quiet */
    return (u16)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

/* --- decoding: one function per block layout --- */

static void block_decode_q4(const u8 *b, f32 *out, bool with_min) {
    f32 d = f16_to_f32(load_u16(b)), m = with_min ? f16_to_f32(load_u16(b + 2)) : 0;
    const u8 *qs = b + (with_min ? 4 : 2);
    for (u32 j = 0; j < 16; j++) {
        int lo = qs[j] & 15, hi = qs[j] >> 4;
        out[j] = with_min ? (f32)lo * d + m : (f32)(lo - 8) * d;
        out[j + 16] = with_min ? (f32)hi * d + m : (f32)(hi - 8) * d;
    }
}

static void block_decode_q5(const u8 *b, f32 *out, bool with_min) {
    f32 d = f16_to_f32(load_u16(b)), m = with_min ? f16_to_f32(load_u16(b + 2)) : 0;
    u32 qh = load_u32(b + (with_min ? 4 : 2));
    const u8 *qs = b + (with_min ? 8 : 6);
    for (u32 j = 0; j < 16; j++) {
        int lo = (qs[j] & 15) | (int)(qh >> j & 1) << 4, hi = qs[j] >> 4 | (int)(qh >> (j + 16) & 1) << 4;
        out[j] = with_min ? (f32)lo * d + m : (f32)(lo - 16) * d;
        out[j + 16] = with_min ? (f32)hi * d + m : (f32)(hi - 16) * d;
    }
}

static void block_decode_q8_0(const u8 *b, f32 *out) {
    f32 d = f16_to_f32(load_u16(b));
    for (u32 j = 0; j < 32; j++)
        out[j] = (f32)(i8)b[2 + j] * d;
}

/* 6-bit scale and min of sub-block j (0..7), packed into 12 bytes: the first four lie in the low 6 bits
 * of bytes 0..7, the last four in nibbles of bytes 8..11 with their top bits in those of bytes 0..7. */
static void k4_scale_min(const u8 *s, u32 j, f32 *scale, f32 *min) {
    if (j < 4) {
        *scale = (f32)(s[j] & 63);
        *min = (f32)(s[j + 4] & 63);
    } else {
        *scale = (f32)((s[j + 4] & 15) | s[j - 4] >> 6 << 4);
        *min = (f32)(s[j + 4] >> 4 | s[j] >> 6 << 4);
    }
}

/* Q4_K, and with high bits qh Q5_K. */
static void block_decode_k45(const u8 *b, const u8 *qh, const u8 *qs, f32 *out) {
    f32 d = f16_to_f32(load_u16(b)), dmin = f16_to_f32(load_u16(b + 2));
    for (u32 sub = 0; sub < 8; sub++) {
        f32 scale, min;
        k4_scale_min(b + 4, sub, &scale, &min);
        f32 ds = d * scale, dm = dmin * min;
        const u8 *q = qs + sub / 2 * 32;
        for (u32 j = 0; j < 32; j++) {
            int v = sub % 2 ? q[j] >> 4 : q[j] & 15;
            if (qh)
                v |= (qh[j] >> sub & 1) << 4;
            out[sub * 32 + j] = ds * (f32)v - dm;
        }
    }
}

static void block_decode_q6_k(const u8 *b, f32 *out) {
    f32 d = f16_to_f32(load_u16(b + 208));
    for (u32 half = 0; half < 2; half++) {
        const u8 *ql = b + half * 64, *qh = b + 128 + half * 32, *sc = b + 192 + half * 8;
        for (u32 j = 0; j < 128; j++) {
            u32 quarter = j / 32, l = j % 32;
            u32 low = quarter < 2 ? ql[l + quarter % 2 * 32] & 15u : ql[l + quarter % 2 * 32] >> 4;
            int v = (int)(low | (qh[l] >> (2 * quarter) & 3u) << 4) - 32;
            out[half * 128 + j] = d * (f32)(i8)sc[j / 16] * (f32)v;
        }
    }
}

static void iq4_decode(f32 d, const u8 *qs, f32 *out) {
    for (u32 j = 0; j < 16; j++) {
        out[j] = d * (f32)quant_iq4_values[qs[j] & 15];
        out[j + 16] = d * (f32)quant_iq4_values[qs[j] >> 4];
    }
}

static void block_decode_iq4_xs(const u8 *b, f32 *out) {
    f32 d = f16_to_f32(load_u16(b));
    u32 high = load_u16(b + 2);
    for (u32 sub = 0; sub < 8; sub++) {
        u32 low = b[4 + sub / 2] >> (4 * (sub % 2)) & 15u;
        int scale = (int)(low | (high >> (2 * sub) & 3u) << 4) - 32;
        iq4_decode(d * (f32)scale, b + 8 + sub * 16, out + sub * 32);
    }
}

static void block_decode(u32 type, const u8 *b, f32 *out) {
    switch (type) {
    case QUANT_F16: *out = f16_to_f32(load_u16(b)); return;
    case QUANT_BF16: *out = bf16_to_f32(load_u16(b)); return;
    case QUANT_Q4_0: block_decode_q4(b, out, false); return;
    case QUANT_Q4_1: block_decode_q4(b, out, true); return;
    case QUANT_Q5_0: block_decode_q5(b, out, false); return;
    case QUANT_Q5_1: block_decode_q5(b, out, true); return;
    case QUANT_Q8_0: block_decode_q8_0(b, out); return;
    case QUANT_Q4_K: block_decode_k45(b, NULL, b + 16, out); return;
    case QUANT_Q5_K: block_decode_k45(b, b + 16, b + 48, out); return;
    case QUANT_Q6_K: block_decode_q6_k(b, out); return;
    case QUANT_IQ4_NL: iq4_decode(f16_to_f32(load_u16(b)), b + 2, out); return;
    case QUANT_IQ4_XS: block_decode_iq4_xs(b, out); return;
    }
    check(!"a format with a decoder");
}

void quant_decode(u32 type, const void *blocks, f32 *out, size_t n) {
    check(quant_supported(type));
    check(n % quant_block_values(type) == 0);
    if (type == QUANT_F32) {
        memcpy(out, blocks, n * sizeof *out);
        return;
    }
    u32 values = quant_block_values(type), bytes = quant_block_bytes(type);
    const u8 *b = blocks;
    for (size_t i = 0; i < n; i += values, b += bytes)
        block_decode(type, b, out + i);
}

/* --- encoding --- */

static void store_u16(u8 *p, u16 v) { memcpy(p, &v, sizeof v); }

/* d = |max| / 127; the integer is rounded half away from zero. */
static void block_encode_q8_0(const f32 *v, u8 *b) {
    f32 max = 0;
    for (u32 j = 0; j < 32; j++)
        max = fmaxf(max, fabsf(v[j]));
    f32 d = max / 127.0f, inverse = d != 0 ? 1.0f / d : 0;
    store_u16(b, f32_to_f16(d));
    for (u32 j = 0; j < 32; j++)
        b[2 + j] = (u8)(i8)roundf(v[j] * inverse);
}

/* The value of largest magnitude becomes -8, so that the one code without a mirror image is used. */
static void block_encode_q4_0(const f32 *v, u8 *b) {
    f32 max = 0;
    for (u32 j = 0; j < 32; j++)
        if (fabsf(v[j]) > fabsf(max))
            max = v[j];
    f32 d = max / -8, inverse = d != 0 ? 1.0f / d : 0;
    store_u16(b, f32_to_f16(d));
    for (u32 j = 0; j < 16; j++) {
        int lo = MIN(15, (int)(v[j] * inverse + 8.5f)), hi = MIN(15, (int)(v[j + 16] * inverse + 8.5f));
        b[2 + j] = (u8)(lo | hi << 4);
    }
}

static void block_encode_q4_1(const f32 *v, u8 *b) {
    f32 min = v[0], max = v[0];
    for (u32 j = 1; j < 32; j++) {
        min = fminf(min, v[j]);
        max = fmaxf(max, v[j]);
    }
    f32 d = (max - min) / 15, inverse = d != 0 ? 1.0f / d : 0;
    store_u16(b, f32_to_f16(d));
    store_u16(b + 2, f32_to_f16(min));
    for (u32 j = 0; j < 16; j++) {
        int lo = MIN(15, (int)((v[j] - min) * inverse + 0.5f));
        int hi = MIN(15, (int)((v[j + 16] - min) * inverse + 0.5f));
        b[4 + j] = (u8)(lo | hi << 4);
    }
}

void quant_encode(u32 type, const f32 *values, void *blocks, size_t n) {
    u32 block_values = quant_block_values(type), bytes = quant_block_bytes(type);
    check(block_values != 0);
    check(n % block_values == 0);
    u8 *b = blocks;
    for (size_t i = 0; i < n; i += block_values, b += bytes) {
        switch (type) {
        case QUANT_F32: memcpy(b, values + i, sizeof(f32)); break;
        case QUANT_F16: store_u16(b, f32_to_f16(values[i])); break;
        case QUANT_BF16: store_u16(b, f32_to_bf16(values[i])); break;
        case QUANT_Q8_0: block_encode_q8_0(values + i, b); break;
        case QUANT_Q4_0: block_encode_q4_0(values + i, b); break;
        case QUANT_Q4_1: block_encode_q4_1(values + i, b); break;
        default: check(!"a format with an encoder");
        }
    }
}
