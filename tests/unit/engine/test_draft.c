/* Goal: a guess is what followed the newest place with the same last three tokens, longer after longer
 * agreement, never more than asked for, and never from what is not there. Method: sequences whose right guess
 * can be seen; and random ones, grown in pieces, against a search through all of it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine/draft.h"

static void expect(const char *text, u32 max, const char *want) {
    u32 tokens[64], out[16], n = (u32)strlen(text);
    for (u32 i = 0; i < n; i++)
        tokens[i] = (u8)text[i];
    struct draft *d = draft_new(n);
    u32 n_out = draft_guess(d, tokens, n, max, out);
    assert_int_equal(n_out, strlen(want));
    for (u32 i = 0; i < n_out; i++)
        assert_int_equal(out[i], (u8)want[i]);
    draft_free(d);
}

static void test_what_followed(void **state) {
    (void)state;
    expect("", 8, "");
    expect("ab", 8, "");
    expect("abcdef", 8, "");
    expect("abcdefg--abc", 8, "de");     /* three agree: two are dared */
    expect("xabcdefg--xabc", 8, "defg"); /* four agree */
    expect("xabcdefg--xabc", 3, "def");  /* no more than asked for */
    expect("xabcdefg--xabc", 0, "");
    expect("abcX--abcY--abc", 8, "Y--abc"); /* the newest; "--abc" agrees */
    expect("abababab", 8, "abababab");      /* goes on through its own end */
    expect("aaaa", 8, "aa");
}

static void test_reset_forgets(void **state) {
    (void)state;
    u32 tokens[] = {1, 2, 3, 4, 1, 2, 3}, out[4];
    struct draft *d = draft_new(8);
    assert_int_equal(draft_guess(d, tokens, 7, 4, out), 2);
    draft_reset(d);
    tokens[3] = 9; /* another sequence now */
    assert_int_equal(draft_guess(d, tokens, 7, 4, out), 2);
    assert_int_equal(out[0], 9);
    draft_free(d);
}

static bool same_three(const u32 *tokens, u32 a, u32 b) {
    return !memcmp(tokens + a - 3, tokens + b - 3, 12);
}

static void test_random_sequences(void **state) {
    (void)state;
    u32 tokens[600], out[16], random = 1, n_found = 0, n_there = 0;
    for (u32 run = 0; run < 50; run++) {
        struct draft *d = draft_new(8000);
        for (u32 n = 1; n < 600; n++) {
            random = random * 1664525u + 1013904223u;
            tokens[n - 1] = random >> 24 & (run % 2 ? 3 : 7);
            if (random >> 20 & 1)
                continue; /* several at once */
            u32 n_out = draft_guess(d, tokens, n, 15, out), from = n < 3 ? 0 : n - 1;
            while (from >= 3 && !same_three(tokens, from, n))
                from--;
            n_there += from >= 3;
            if (n_out == 0)
                continue; /* an entry may have been displaced */
            n_found++;
            assert_true(from >= 3);
            for (u32 i = 0; i < n_out; i++)
                assert_int_equal(out[i], from + i < n ? tokens[from + i] : out[from + i - n]);
        }
        draft_free(d);
    }
    assert_true(n_found > n_there * 9 / 10 && n_there > 5000);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_followed),
        cmocka_unit_test(test_reset_forgets),
        cmocka_unit_test(test_random_sequences),
    };
    return cmocka_run_group_tests_name("engine_draft", tests, NULL, NULL);
}
