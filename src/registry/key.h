/* key.h - the Ed25519 key that identifies this machine to a registry: ~/.ollama/id_ed25519 in OpenSSH's
 * format (PROTOCOL.key of OpenSSH: "openssh-key-v1", unencrypted), shared with Ollama. */
#ifndef MINKA_REGISTRY_KEY_H
#define MINKA_REGISTRY_KEY_H

#include "base/buf.h"

#define KEY_SECRET_BYTES 32
#define KEY_PUBLIC_BYTES 32

struct key {
    u8 secret[KEY_SECRET_BYTES]; /* the seed */
    u8 public_[KEY_PUBLIC_BYTES];
};

/* Reads the key file; makes it (0600) and its .pub (0644) when it is missing. ERR_UNSUPPORTED: a key of
 * another type or with a passphrase. */
enum status key_load(const char *path, struct key *out, struct err *err) MUST_USE;
/* Text of a key file; strict about everything but the comment. */
enum status key_parse(struct str text, struct key *out, struct err *err) MUST_USE;
void key_write(const struct key *k, struct buf *out);
/* Base64 of the public key in SSH's wire form, as in the second word of a .pub file. */
void key_public_text(const struct key *k, struct buf *out);
/* "<public>:<base64 of the signature of text>", what the registry's token service takes. */
void key_sign(const struct key *k, struct str text, struct buf *out);

void base64_write(struct buf *out, const void *bytes, size_t n);

#endif
