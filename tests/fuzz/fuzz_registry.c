/* fuzz_registry.c - what a registry answers: a manifest, a challenge with the URL made of it, a token; and a
 * key file. Input: a byte that picks the reader, then its text. */
#include <stdlib.h>

#include "base/limit.h"
#include "registry/challenge.h"
#include "registry/key.h"
#include "registry/manifest.h"

int LLVMFuzzerTestOneInput(const u8 *data, size_t size);

static void manifest(struct str text, struct arena *a) {
    struct registry_manifest m;
    u64 bytes = 0;
    if (registry_manifest_parse(text, a, &m, NULL) != OK)
        return;
    check(m.n_blobs > 0 && m.n_blobs <= LIMIT_REGISTRY_LAYERS + 1);
    for (u32 i = 0; i < m.n_blobs; i++) {
        struct str d = str_of(m.blobs[i].digest);
        check(d.n == 71 && str_starts(d, STR("sha256:")) && str_find(d, STR("/"), 0) == SIZE_MAX);
        check(m.blobs[i].bytes <= LIMIT_REGISTRY_BLOB_BYTES && m.blobs[i].from.n <= 200);
        bytes += m.blobs[i].bytes;
    }
    check(bytes == m.bytes);
}

static void challenge(struct str text, struct arena *a) {
    struct challenge c;
    if (challenge_parse(text, a, &c, NULL) != OK)
        return;
    struct str url = challenge_url(&c, STR("nonce"), 1, a);
    for (size_t i = 0; i < url.n; i++)
        check((u8)url.p[i] > 0x20 && (u8)url.p[i] < 0x7f);
}

static void token(struct str text, struct arena *a) {
    struct str t;
    if (token_parse(text, a, &t, NULL) != OK)
        return;
    check(t.n > 0 && t.n <= LIMIT_REGISTRY_TOKEN_BYTES);
    for (size_t i = 0; i < t.n; i++)
        check((u8)t.p[i] > 0x20 && (u8)t.p[i] < 0x7f);
}

static void key(struct str text) {
    struct key k, again;
    struct buf b = {0};
    if (key_parse(text, &k, NULL) == OK) {
        key_write(&k, &b);
        check(key_parse(buf_str(&b), &again, NULL) == OK && memcmp(&k, &again, sizeof k) == 0);
    }
    buf_release(&b);
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size) {
    if (size < 1)
        return 0;
    struct arena a;
    arena_init(&a, 0);
    struct str text = {(const char *)data + 1, size - 1};
    switch (data[0] % 4) {
    case 0: manifest(text, &a); break;
    case 1: challenge(text, &a); break;
    case 2: token(text, &a); break;
    default: key(text); break;
    }
    arena_release(&a);
    return 0;
}
