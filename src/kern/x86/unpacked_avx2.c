/* unpacked_avx2.c - the multiplying kernels without VNNI. */
#define VNNI 0
#include "kern/x86/unpacked_avx2.h"

#define INSTANCES(form, narrow, sign)                                                                        \
    INSTANCE(form, narrow, sign, 1)                                                                          \
    INSTANCE(form, narrow, sign, 2)                                                                          \
    INSTANCE(form, narrow, sign, 3)                                                                          \
    INSTANCE(form, narrow, sign, 4)
#define DISPATCH(form, narrow)                                                                               \
    switch (c->rows) {                                                                                       \
    case 1: unpacked_##form##_##narrow##_1(c, bias_shift); break;                                            \
    case 2: unpacked_##form##_##narrow##_2(c, bias_shift); break;                                            \
    case 3: unpacked_##form##_##narrow##_3(c, bias_shift); break;                                            \
    default: unpacked_##form##_##narrow##_4(c, bias_shift); break;                                           \
    }                                                                                                        \
    break;

INSTANCES(FORM_32, 8, false)
INSTANCES(FORM_32, 4, false)
INSTANCES(FORM_32, 1, true)
INSTANCES(FORM_32_MIN, 8, false)
INSTANCES(FORM_32_MIN, 4, false)
INSTANCES(FORM_256, 1, true)
INSTANCES(FORM_256_MIN, 8, false)
INSTANCES(FORM_256_MIN, 4, false)
INSTANCES(FORM_256_HALVES, 2, false)

void avx2_unpacked(enum quant_type type, const struct chunk *c) {
    i32 bias_shift = MAX(matmul_bias_shift(type), 0);
    switch ((int)type) {
    case QUANT_Q4_0: DISPATCH(FORM_32, 8)
    case QUANT_Q5_0: DISPATCH(FORM_32, 4)
    case QUANT_Q8_0:
    case QUANT_IQ4_NL: DISPATCH(FORM_32, 1)
    case QUANT_Q4_1: DISPATCH(FORM_32_MIN, 8)
    case QUANT_Q5_1: DISPATCH(FORM_32_MIN, 4)
    case QUANT_Q4_K: DISPATCH(FORM_256_MIN, 8)
    case QUANT_Q5_K: DISPATCH(FORM_256_MIN, 4)
    case QUANT_Q6_K: DISPATCH(FORM_256_HALVES, 2)
    case QUANT_IQ4_XS: DISPATCH(FORM_256, 1)
    }
}
