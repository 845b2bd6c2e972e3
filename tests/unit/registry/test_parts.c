/* What a registry's answers and key files are read with: challenges, tokens, manifests, OpenSSH keys. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/limit.h"
#include "registry/challenge.h"
#include "registry/inflight.h"
#include "registry/key.h"
#include "registry/manifest.h"

/* Made by ssh-keygen for this test; they open nothing. */
static const char key_plain[] = "-----BEGIN OPENSSH PRIVATE KEY-----\n"
                                "b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAABAAAAMwAAAAtzc2gtZW\n"
                                "QyNTUxOQAAACAxqqN32Tg/wfhKo6covNfw/WmkjXvhgst2LKx3LvD2kQAAAJDnq7CO56uw\n"
                                "jgAAAAtzc2gtZWQyNTUxOQAAACAxqqN32Tg/wfhKo6covNfw/WmkjXvhgst2LKx3LvD2kQ\n"
                                "AAAED8vyhDdsOd36cXxzsM2qsBb76MDVxU8rWMsdVtkGd/MDGqo3fZOD/B+Eqjpyi81/D9\n"
                                "aaSNe+GCy3YsrHcu8PaRAAAACWEgY29tbWVudAECAwQ=\n"
                                "-----END OPENSSH PRIVATE KEY-----\n";
static const char key_plain_public[] = "AAAAC3NzaC1lZDI1NTE5AAAAIDGqo3fZOD/B+Eqjpyi81/D9aaSNe+GCy3YsrHcu8PaR";
static const char key_with_passphrase[] =
    "-----BEGIN OPENSSH PRIVATE KEY-----\n"
    "b3BlbnNzaC1rZXktdjEAAAAACmFlczI1Ni1jdHIAAAAGYmNyeXB0AAAAGAAAABCK7YRVU3\n"
    "FuXB/dguL5uKtvAAAAEAAAAAEAAAAzAAAAC3NzaC1lZDI1NTE5AAAAIFQSD+oT+gK0Okim\n"
    "aHQ31++GIrNNw7p3tquFl75QaW+zAAAAkLHmr6LepMnuBqmwN0y7JBeqYmbPRKlJgErTJx\n"
    "mAiBVklhDpzOtgr3KHVZACZUnEO5/KXimCchH9CSeoEf9MFqa4pBdyQsUwZhF5qBTyeEu0\n"
    "mN83ZheCo6K0464imqSEEN8UEOzUM2CJ8J60/UMYGdyiq8zN/IrAM/Cit4bqmJ4Xe/f1mW\n"
    "0uKYpfvDjbPO9rHQ==\n"
    "-----END OPENSSH PRIVATE KEY-----\n";
static const char key_rsa[] = "-----BEGIN OPENSSH PRIVATE KEY-----\n"
                              "b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAABAAAAlwAAAAdzc2gtcn\n"
                              "NhAAAAAwEAAQAAAIEA04Ov3XDRby6ysFIT8mUkTjkt75mRW7bL7vO1EL3vv/8Yb+5vqy8F\n"
                              "I8zkWqaXiQmzqI8GO7JQ4NOZtN526Ua7c/+ja0BzPGR/kmleoIdqIFgBXOUJZzw8CBbO3L\n"
                              "pvqGS8/cAWFWoZwDKqeA4dNkykvKXx4eBZGxboLVAitqP/v70AAAIABr8TIga/EyIAAAAH\n"
                              "c3NoLXJzYQAAAIEA04Ov3XDRby6ysFIT8mUkTjkt75mRW7bL7vO1EL3vv/8Yb+5vqy8FI8\n"
                              "zkWqaXiQmzqI8GO7JQ4NOZtN526Ua7c/+ja0BzPGR/kmleoIdqIFgBXOUJZzw8CBbO3Lpv\n"
                              "qGS8/cAWFWoZwDKqeA4dNkykvKXx4eBZGxboLVAitqP/v70AAAADAQABAAAAgQCgXqZHBb\n"
                              "Ul0YhWO8U38gvW62+yzQLzQOPa5xkP+pL/RdEnfOdaKaqB/GXffZRDqQF4+ghF1uuPq6BN\n"
                              "DKeoM6MH7Uv9mNHAFNxAEMcS5+fGG76kMLOEeGbDgsk7dzhsQYf74CGxfBGvGg2BpCk/aD\n"
                              "jmcrOGrWWZOo9jpy+ndHx4QQAAAEBae5AQmwR7i1wjV7tRV1QKOAFFK2TeBPYfNa/czHh9\n"
                              "0WP5VEv8IBqE2dEbMpoZ0EhynQrOAVDbiNFi9YmgiHkRAAAAQQDyuINnFKt123Bv40Sp20\n"
                              "GKqzLl/O8Fo8nndAZYxC3JTp4/j4VxlYk4UFLkVzsFhi8nn4gbDACiPJtsmlA3QWEJAAAA\n"
                              "QQDfFhrxH4r+d1jmNS5EBtafkBfDBRC7VVHTlak3nsmI/wrquD1Ih8i/k109FqxqJAKj7l\n"
                              "WFUAlm6UyiKIJD4PoVAAAAB3Jvb3RAdm0BAgM=\n"
                              "-----END OPENSSH PRIVATE KEY-----\n";

static enum status key_of(struct str text, struct key *k) {
    struct err err;
    return key_parse(text, k, &err);
}

/* Goal: keys of ssh-keygen are read, what is written is read back. */
static void keys(void **state) {
    (void)state;
    struct key k, again;
    struct buf b = {0};
    assert_int_equal(key_of(str_of(key_plain), &k), OK);
    key_public_text(&k, &b);
    assert_string_equal(buf_cstr(&b), key_plain_public);
    buf_clear(&b);
    key_write(&k, &b);
    assert_int_equal(key_of(buf_str(&b), &again), OK);
    assert_memory_equal(&k, &again, sizeof k);
    assert_int_equal(key_of(str_of(key_with_passphrase), &k), ERR_UNSUPPORTED);
    assert_int_equal(key_of(str_of(key_rsa), &k), ERR_UNSUPPORTED);
    buf_release(&b);
}

/* Goal: no damaged key file is taken for another key. Method: cut and changed at each byte. */
static void keys_damaged(void **state) {
    (void)state;
    struct key whole, k;
    char text[sizeof key_plain];
    assert_int_equal(key_of(str_of(key_plain), &whole), OK);
    for (size_t n = 0; n + 2 < sizeof key_plain; n++) {
        memcpy(text, key_plain, sizeof text);
        assert_int_not_equal(key_of((struct str){text, n}, &k), OK);
    }
    for (size_t i = 0; i + 1 < sizeof key_plain; i++) {
        memcpy(text, key_plain, sizeof text);
        text[i] = text[i] == 'A' ? 'B' : 'A';
        struct key changed = {0};
        /* A secret part whose halves agree again would need two changes; a comment may differ. */
        if (key_of(str_of(text), &changed) == OK)
            assert_memory_equal(changed.public_, whole.public_, KEY_PUBLIC_BYTES);
    }
}

/* Goal: the file is made once, private, and found again. */
static void key_file(void **state) {
    (void)state;
    char folder[] = "/tmp/minka-key-XXXXXX", path[128], pub[160];
    struct key a, b;
    struct err err;
    struct stat st;
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/home/id_ed25519", folder);
    snprintf(pub, sizeof pub, "%s.pub", path);
    assert_int_equal(key_load(path, &a, &err), OK);
    assert_int_equal(key_load(path, &b, &err), OK);
    assert_memory_equal(&a, &b, sizeof a);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(stat(pub, &st), 0);
    assert_int_equal(truncate(path, 20), 0);
    assert_int_equal(key_load(path, &b, &err), ERR_CORRUPT);
    unlink(path);
    unlink(pub);
    snprintf(path, sizeof path, "%s/home", folder);
    assert_int_equal(key_load(path, &b, &err), ERR_IO);
    rmdir(path);
    rmdir(folder);
}

/* Goal: the signature of a known key and text. RFC 8032, section 7.1, test 3. */
static void signature(void **state) {
    (void)state;
    static const u8 secret[32] = {0xc5, 0xaa, 0x8d, 0xf4, 0x3f, 0x9f, 0x83, 0x7b, 0xed, 0xb7, 0x44,
                                  0x2f, 0x31, 0xdc, 0xb7, 0xb1, 0x66, 0xd3, 0x85, 0x35, 0x07, 0x6f,
                                  0x09, 0x4b, 0x85, 0xce, 0x3a, 0x2e, 0x0b, 0x44, 0x58, 0xf7};
    struct key k = {0};
    struct buf b = {0};
    memcpy(k.secret, secret, sizeof secret);
    key_sign(&k, (struct str){"\xaf\x82", 2}, &b);
    size_t colon = str_find(buf_str(&b), STR(":"), 0);
    assert_true(
        str_is(str_slice(buf_str(&b), colon + 1, b.n),
               "YpHWV97sJAJIJ+acOr4BowzlSKKEdDpEXjaA19taw6wY/5tTjRbykK5n92CYTcZZSnwV6XFu0o3AJ77O6h7ECg=="));
    buf_release(&b);
}

/* Goal: realm, service and scope in every spelling of the header. */
static void challenges(void **state) {
    (void)state;
    static const struct {
        const char *header, *realm, *service, *scope;
    } cases[] = {
        {"Bearer realm=\"https://r/token\",service=\"s\",scope=\"repository:a/b:pull\"", "https://r/token",
         "s", "repository:a/b:pull"},
        {"bearer  scope = x, realm=https://r", "https://r", "", ""},
        {"BEARER REALM=\"https://r\\\"q\" , x , =, service=", "https://r\"q", "", ""},
        {"Bearer realm=\"https://r", "https://r", "", ""},
        {"Bearer error=\"x\",realm=\"https://r\",scope=\"a b\"", "https://r", "", "a b"},
    };
    static const char *const bad[] = {"",
                                      "Basic realm=\"x\"",
                                      "Bearer",
                                      "Bearer realm=\"\"",
                                      "Bearer realm=\"a b\"",
                                      "Bearer realm=\"a\tb\"",
                                      "Bearerrealm=x",
                                      "Bearer realm",
                                      "Bearer =x,,,\""};
    struct arena a;
    struct err err;
    struct challenge c;
    arena_init(&a, 0);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        assert_int_equal(challenge_parse(str_of(cases[i].header), &a, &c, &err), OK);
        assert_true(str_is(c.realm, cases[i].realm));
        assert_true(str_is(c.service, cases[i].service));
        assert_true(str_is(c.scope, cases[i].scope));
    }
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        assert_int_equal(challenge_parse(str_of(bad[i]), &a, &c, &err), ERR_INVALID);
    c = (struct challenge){STR("https://r/t?x=1#f"), STR("s v"), STR("a:b/c:pull,push  d")};
    assert_string_equal(challenge_url(&c, STR("N-_"), 7, &a).p,
                        "https://r/t?x=1&nonce=N-_&scope=a%3Ab%2Fc%3Apull%2Cpush&scope=d&service=s+v&ts=7");
    c = (struct challenge){STR("https://r/t"), STR_NONE, STR_NONE};
    assert_string_equal(challenge_url(&c, STR("N"), 7, &a).p, "https://r/t?nonce=N&service=&ts=7");
    arena_release(&a);
}

static void tokens(void **state) {
    (void)state;
    static const char *const bad[] = {"",
                                      "{}",
                                      "[]",
                                      "{\"token\":\"\"}",
                                      "{\"token\":\"a b\"}",
                                      "{\"token\":\"a\\n\"}",
                                      "{\"token\":\"\\u00e4\"}",
                                      "{\"token\":1}",
                                      "{\"token\":\"a\""};
    struct arena a;
    struct err err;
    struct str token;
    arena_init(&a, 0);
    assert_int_equal(token_parse(STR("{\"token\":\"abc.def\"}"), &a, &token, &err), OK);
    assert_true(str_is(token, "abc.def"));
    assert_int_equal(token_parse(STR("{\"token\":\"\",\"access_token\":\"x\"}"), &a, &token, &err), OK);
    assert_true(str_is(token, "x"));
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        assert_int_equal(token_parse(str_of(bad[i]), &a, &token, &err), ERR_CORRUPT);
    arena_release(&a);
}

#define D(c)                                                                                                 \
    "sha256:" c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c c  \
        c c c c c c c c c c c c c c c c c

/* Goal: layers in order, the config behind them, each digest once, `from` only where it can stand in a URL.
 */
static void manifests(void **state) {
    (void)state;
    struct arena a;
    struct err err;
    struct registry_manifest m;
    arena_init(&a, 0);
    struct str text = STR("{\"config\":{\"digest\":\"" D("c") "\",\"size\":3},\"layers\":[{\"digest\":\"" D(
        "b") "\",\"size\":5,"
             "\"from\":\"library/x\"},{\"digest\":\"" D(
                 "a") "\",\"size\":7,\"from\":\"x?y\"},{\"digest\":\"" D("b") "\","
                                                                              "\"size\":5}]}");
    assert_int_equal(registry_manifest_parse(text, &a, &m, &err), OK);
    assert_int_equal(m.n_blobs, 3);
    assert_int_equal(m.bytes, 15);
    assert_string_equal(m.blobs[0].digest, D("b"));
    assert_string_equal(m.blobs[1].digest, D("a"));
    assert_string_equal(m.blobs[2].digest, D("c"));
    assert_true(str_is(m.blobs[0].from, "library/x"));
    assert_int_equal(m.blobs[1].from.n, 0);
    /* Cut at each byte: never taken for whole. */
    for (size_t n = 0; n < text.n; n++)
        assert_int_not_equal(registry_manifest_parse(str_slice(text, 0, n), &a, &m, &err), OK);
    static const char *const bad[] = {
        "{\"layers\":[{\"digest\":\"" D("A") "\",\"size\":1}]}",
        "{\"layers\":[{\"digest\":\"" D("a") "\"}]}",
        "{\"layers\":[{\"digest\":\"" D("/") "\",\"size\":1}]}",
        "{\"layers\":[{\"digest\":\"" D("a") "\",\"size\":-1}]}",
        "{\"layers\":[{\"digest\":\"" D("a") "\",\"size\":1},{\"digest\":\"" D("a") "\",\"size\":2}]}",
        "{\"layers\":[]}",
        "{\"layers\":{}}",
        "[]"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        assert_int_equal(registry_manifest_parse(str_of(bad[i]), &a, &m, &err), ERR_CORRUPT);
    assert_int_equal(
        registry_manifest_parse(
            STR("{\"layers\":[{\"digest\":\"" D("a") "\",\"size\":4611686018427387904}]}"), &a, &m, &err),
        ERR_TOO_LARGE);
    arena_release(&a);
}

static void one_download_at_a_time(void **state) {
    (void)state;
    u64 have = 0;
    struct inflight *a = inflight_take("/store", D("a"), &have), *b;
    assert_non_null(a);
    inflight_progress(a, 77);
    assert_null(inflight_take("/store", D("a"), &have));
    assert_int_equal(have, 77);
    assert_non_null(b = inflight_take("/other", D("a"), &have));
    inflight_drop(a);
    assert_non_null(a = inflight_take("/store", D("a"), &have));
    inflight_drop(a);
    inflight_drop(b);
    inflight_drop(NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys),       cmocka_unit_test(keys_damaged),
        cmocka_unit_test(key_file),   cmocka_unit_test(signature),
        cmocka_unit_test(challenges), cmocka_unit_test(tokens),
        cmocka_unit_test(manifests),  cmocka_unit_test(one_download_at_a_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
