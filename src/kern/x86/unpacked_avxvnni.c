/* unpacked_avxvnni.c - the multiplying kernels with the 256-bit vpdpbusd. */
#define VNNI 1
#include "kern/x86/unpacked_avx2.h"

#define INSTANCES(form, narrow, sign)                                                                        \
    INSTANCE(form, narrow, sign, 1)                                                                          \
    INSTANCE(form, narrow, sign, 2)                                                                          \
    INSTANCE(form, narrow, sign, 3)                                                                          \
    INSTANCE(form, narrow, sign, 4)                                                                          \
    INSTANCE(form, narrow, sign, 5)                                                                          \
    INSTANCE(form, narrow, sign, 6)
#define DISPATCH(form, narrow)                                                                               \
    switch (c->rows) {                                                                                       \
    case 1: unpacked_##form##_##narrow##_1(c, bias_shift); break;                                            \
    case 2: unpacked_##form##_##narrow##_2(c, bias_shift); break;                                            \
    case 3: unpacked_##form##_##narrow##_3(c, bias_shift); break;                                            \
    case 4: unpacked_##form##_##narrow##_4(c, bias_shift); break;                                            \
    case 5: unpacked_##form##_##narrow##_5(c, bias_shift); break;                                            \
    default: unpacked_##form##_##narrow##_6(c, bias_shift); break;                                           \
    }                                                                                                        \
    break;

INSTANCES(FORM_32, 8, false)
INSTANCES(FORM_32_MIN, 8, false)
INSTANCES(FORM_256, 8, false)
INSTANCES(FORM_256_MIN, 8, false)
INSTANCES(FORM_256_HALVES, 8, false)

void avxvnni_unpacked(enum quant_type type, const struct chunk *c) {
    i32 bias_shift = MAX(matmul_bias_shift(type), 0);
    switch ((int)type) {
    case QUANT_Q4_0:
    case QUANT_Q5_0:
    case QUANT_Q8_0:
    case QUANT_IQ4_NL: DISPATCH(FORM_32, 8)
    case QUANT_Q4_1:
    case QUANT_Q5_1: DISPATCH(FORM_32_MIN, 8)
    case QUANT_Q4_K:
    case QUANT_Q5_K: DISPATCH(FORM_256_MIN, 8)
    case QUANT_Q6_K: DISPATCH(FORM_256_HALVES, 8)
    case QUANT_IQ4_XS: DISPATCH(FORM_256, 8)
    }
}
