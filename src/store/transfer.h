/* transfer.h - the contract between who asks for a pull or push (api/) and who does it (registry/): what is
 * wanted, how progress is told. All of it happens on the loop's thread. */
#ifndef MINKA_STORE_TRANSFER_H
#define MINKA_STORE_TRANSFER_H

#include "store/store.h"

enum transfer_kind { TRANSFER_PULL, TRANSFER_PUSH };

struct transfer_request {
    enum transfer_kind kind;
    struct model_name name;
    bool http;     /* the name began with http:// */
    bool insecure; /* http and unchecked certificates are allowed */
};

/* One line of progress. */
struct transfer_progress {
    struct str status;
    struct str digest;    /* "sha256:..." of the blob that moves; empty if it is about none */
    u64 total, completed; /* bytes of that blob */
};

/* on_end is called once, last; not after leave. status ERR_CANCELED: the server stops. */
struct transfer_sink {
    void (*on_progress)(void *ctx, const struct transfer_progress *p);
    void (*on_end)(void *ctx, enum status status, const struct err *err);
    void *ctx;
};

/* Requests for the same name share one transfer; it is cancelled when the last of them leaves. */
struct transfer_service {
    /* *id (never 0) is for leave. ERR_BUSY: too many transfers run. Nothing is called before it returns. */
    enum status (*start)(void *ctx, const struct transfer_request *r, struct transfer_sink sink, u64 *id,
                         struct err *err);
    void (*leave)(void *ctx, u64 id);
    void *ctx;
};

#endif
