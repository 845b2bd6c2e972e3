/* key.c - OpenSSH key files for one kind of key, and signing with it. */
#include "registry/key.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#define HEAD "-----BEGIN OPENSSH PRIVATE KEY-----"
#define TAIL "-----END OPENSSH PRIVATE KEY-----"
#define MAGIC "openssh-key-v1"
#define KIND "ssh-ed25519"
/* A key file has about 400 bytes; a long comment is still far below. */
#define KEY_FILE_BYTES_MAX 16384

void base64_write(struct buf *out, const void *bytes, size_t n) {
    check(n < 1 << 20);
    buf_reserve(out, 4 * DIV_CEIL(n, 3) + 1);
    out->n += (size_t)EVP_EncodeBlock((u8 *)out->p + out->n, bytes, (int)n);
}

/* --- reading --- */

static bool take_u32(struct str *s, u32 *v) {
    if (s->n < 4)
        return false;
    const u8 *p = (const u8 *)s->p;
    *v = (u32)p[0] << 24 | (u32)p[1] << 16 | (u32)p[2] << 8 | p[3];
    *s = str_slice(*s, 4, s->n);
    return true;
}

static bool take_text(struct str *s, struct str *text) {
    u32 n;
    if (!take_u32(s, &n) || n > s->n)
        return false;
    *text = str_slice(*s, 0, n);
    *s = str_slice(*s, n, s->n);
    return true;
}

static bool take_is(struct str *s, const char *want) {
    struct str text;
    return take_text(s, &text) && str_is(text, want);
}

/* The part that a passphrase would have encrypted. */
static bool secret_part(struct str s, struct key *out) {
    u32 check1, check2;
    struct str pub, both;
    if (!take_u32(&s, &check1) || !take_u32(&s, &check2) || check1 != check2 || !take_is(&s, KIND) ||
        !take_text(&s, &pub) || !take_text(&s, &both) || pub.n != KEY_PUBLIC_BYTES ||
        both.n != KEY_SECRET_BYTES + KEY_PUBLIC_BYTES)
        return false;
    memcpy(out->secret, both.p, KEY_SECRET_BYTES);
    memcpy(out->public_, pub.p, KEY_PUBLIC_BYTES);
    return memcmp(both.p + KEY_SECRET_BYTES, pub.p, KEY_PUBLIC_BYTES) == 0;
}

static enum status blob_parse(struct str s, struct key *out, struct err *err) {
    struct str cipher, kdf, options, pub, secret;
    u32 n_keys;
    if (s.n < sizeof MAGIC || memcmp(s.p, MAGIC, sizeof MAGIC) != 0)
        return err_set(err, ERR_CORRUPT, "no OpenSSH key");
    s = str_slice(s, sizeof MAGIC, s.n);
    if (!take_text(&s, &cipher) || !take_text(&s, &kdf) || !take_text(&s, &options) || !take_u32(&s, &n_keys))
        return err_set(err, ERR_CORRUPT, "the key is cut off");
    if (!str_is(cipher, "none") || !str_is(kdf, "none"))
        return err_set(err, ERR_UNSUPPORTED, "the key has a passphrase");
    if (n_keys != 1 || !take_text(&s, &pub) || !take_text(&s, &secret))
        return err_set(err, ERR_CORRUPT, "the key is cut off");
    if (!take_is(&pub, KIND))
        return err_set(err, ERR_UNSUPPORTED, "the key is of another type than " KIND);
    return secret_part(secret, out) ? OK : err_set(err, ERR_CORRUPT, "the key is damaged");
}

/* Base64 with line ends. */
static bool base64_read(struct str text, struct buf *out) {
    EVP_ENCODE_CTX *c = EVP_ENCODE_CTX_new();
    check(c);
    buf_reserve(out, text.n + 64);
    int n = 0, rest = 0;
    EVP_DecodeInit(c);
    bool ok = EVP_DecodeUpdate(c, (u8 *)out->p, &n, (const u8 *)text.p, (int)text.n) >= 0 &&
              EVP_DecodeFinal(c, (u8 *)out->p + n, &rest) == 1;
    out->n = ok ? (size_t)(n + rest) : 0;
    EVP_ENCODE_CTX_free(c);
    return ok;
}

enum status key_parse(struct str text, struct key *out, struct err *err) {
    text = str_trim(text);
    if (text.n > KEY_FILE_BYTES_MAX || !str_starts(text, STR(HEAD)) || !str_ends(text, STR(TAIL)) ||
        text.n < sizeof HEAD + sizeof TAIL)
        return err_set(err, ERR_CORRUPT, "no OpenSSH key");
    struct buf blob = {0};
    struct str middle = str_slice(text, sizeof HEAD - 1, text.n - (sizeof TAIL - 1));
    enum status status = base64_read(middle, &blob) ? blob_parse(buf_str(&blob), out, err)
                                                    : err_set(err, ERR_CORRUPT, "the key is no base64");
    buf_release(&blob);
    return status;
}

/* --- writing --- */

static void put_u32(struct buf *b, u32 v) {
    u8 bytes[4] = {(u8)(v >> 24), (u8)(v >> 16), (u8)(v >> 8), (u8)v};
    buf_add(b, bytes, 4);
}

static void put_text(struct buf *b, const void *p, size_t n) {
    put_u32(b, u32_of(n));
    buf_add(b, p, n);
}

static void put_public(struct buf *b, const struct key *k) {
    put_text(b, KIND, sizeof KIND - 1);
    put_text(b, k->public_, KEY_PUBLIC_BYTES);
}

void key_write(const struct key *k, struct buf *out) {
    struct buf blob = {0}, part = {0}, text = {0};
    buf_add(&blob, MAGIC, sizeof MAGIC);
    put_text(&blob, "none", 4);
    put_text(&blob, "none", 4);
    put_u32(&blob, 0);
    put_u32(&blob, 1);
    put_public(&part, k);
    put_text(&blob, part.p, part.n);
    buf_clear(&part);
    u32 twice; /* two equal words show a reader that it decrypted well */
    check(getrandom(&twice, sizeof twice, 0) == (ssize_t)sizeof twice);
    put_u32(&part, twice);
    put_u32(&part, twice);
    put_public(&part, k);
    u8 both[KEY_SECRET_BYTES + KEY_PUBLIC_BYTES];
    memcpy(both, k->secret, KEY_SECRET_BYTES);
    memcpy(both + KEY_SECRET_BYTES, k->public_, KEY_PUBLIC_BYTES);
    put_text(&part, both, sizeof both);
    put_u32(&part, 0); /* no comment */
    for (char pad = 1; part.n % 8; pad++)
        buf_add_char(&part, pad);
    put_text(&blob, part.p, part.n);
    base64_write(&text, blob.p, blob.n);
    buf_add_str(out, STR(HEAD "\n"));
    for (size_t at = 0; at < text.n; at += 70) {
        buf_add_str(out, str_slice(buf_str(&text), at, at + 70));
        buf_add_char(out, '\n');
    }
    buf_add_str(out, STR(TAIL "\n"));
    buf_release(&blob);
    buf_release(&part);
    buf_release(&text);
}

void key_public_text(const struct key *k, struct buf *out) {
    struct buf blob = {0};
    put_public(&blob, k);
    base64_write(out, blob.p, blob.n);
    buf_release(&blob);
}

void key_sign(const struct key *k, struct str text, struct buf *out) {
    u8 signature[64];
    size_t n = sizeof signature;
    EVP_PKEY *pkey = EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, NULL, k->secret, KEY_SECRET_BYTES);
    EVP_MD_CTX *c = EVP_MD_CTX_new();
    check(pkey && c && EVP_DigestSignInit(c, NULL, NULL, NULL, pkey) == 1 &&
          EVP_DigestSign(c, signature, &n, (const u8 *)text.p, text.n) == 1 && n == sizeof signature);
    EVP_MD_CTX_free(c);
    EVP_PKEY_free(pkey);
    key_public_text(k, out);
    buf_add_char(out, ':');
    base64_write(out, signature, n);
}

/* --- the file --- */

static void key_make(struct key *k) {
    EVP_PKEY *pkey = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
    size_t n_secret = KEY_SECRET_BYTES, n_public = KEY_PUBLIC_BYTES;
    check(pkey && EVP_PKEY_get_raw_private_key(pkey, k->secret, &n_secret) == 1 &&
          EVP_PKEY_get_raw_public_key(pkey, k->public_, &n_public) == 1);
    EVP_PKEY_free(pkey);
}

/* Writes beside path, then links: another program's key, made at the same moment, stays. */
static enum status file_put(const char *path, struct str text, mode_t mode, struct err *err) {
    char temp[4096];
    int n = snprintf(temp, sizeof temp, "%s.%d.tmp", path, (int)getpid());
    if (n < 0 || (size_t)n >= sizeof temp)
        return err_set(err, ERR_INVALID, "the path %s is too long", path);
    int fd = open(temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
    if (fd < 0)
        return err_errno(err, ERR_IO, "create %s", temp);
    bool ok = write(fd, text.p, text.n) == (ssize_t)text.n && fsync(fd) == 0;
    ok = close(fd) == 0 && ok && (link(temp, path) == 0 || errno == EEXIST);
    enum status status = ok ? OK : err_errno(err, ERR_IO, "write %s", path);
    unlink(temp);
    return status;
}

static enum status secret_make(const char *path, struct err *err) {
    struct key k;
    struct buf text = {0};
    char folder[4096];
    if ((size_t)snprintf(folder, sizeof folder, "%s", path) >= sizeof folder)
        return err_set(err, ERR_INVALID, "the path %s is too long", path);
    char *slash = strrchr(folder, '/');
    if (slash)
        *slash = 0;
    if (slash && mkdir(folder, 0755) != 0 && errno != EEXIST)
        return err_errno(err, ERR_IO, "make folder %s", folder);
    key_make(&k);
    key_write(&k, &text);
    enum status status = file_put(path, buf_str(&text), 0600, err);
    explicit_bzero(text.p, text.n);
    explicit_bzero(&k, sizeof k);
    buf_release(&text);
    return status;
}

static enum status public_make(const char *path, const struct key *k, struct err *err) {
    struct buf text = {0}, pub = {0};
    buf_printf(&pub, "%s.pub", path);
    buf_add_str(&text, STR(KIND " "));
    key_public_text(k, &text);
    buf_add_char(&text, '\n');
    enum status status = file_put(buf_cstr(&pub), buf_str(&text), 0644, err);
    buf_release(&text);
    buf_release(&pub);
    return status;
}

static enum status file_read(const char *path, struct key *out, struct err *err) {
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return err_errno(err, ERR_IO, "open %s", path);
    char text[KEY_FILE_BYTES_MAX];
    ssize_t n = read(fd, text, sizeof text);
    close(fd);
    if (n < 0)
        return err_errno(err, ERR_IO, "read %s", path);
    struct err inner;
    enum status status = key_parse((struct str){text, (size_t)n}, out, &inner);
    explicit_bzero(text, sizeof text);
    return status == OK ? OK : err_set(err, status, "%s: %s", path, inner.text);
}

enum status key_load(const char *path, struct key *out, struct err *err) {
    bool missing = access(path, F_OK) != 0 && errno == ENOENT;
    if (missing)
        TRY(secret_make(path, err));
    TRY(file_read(path, out, err));
    return missing ? public_make(path, out, err) : OK;
}
