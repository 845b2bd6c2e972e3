/* mapping.h - files mapped for reading that may be cut off, or fail to be read, while they are in use.
 *
 * The system answers such a read with SIGBUS. Here it loses the mapping, not the process: the whole mapping
 * becomes zeros and says so, and whoever computed with it throws the result away. Allowed in the engine's
 * sandbox; a SIGBUS anywhere else ends the process as usual. */
#ifndef MINKA_MAPPING_H
#define MINKA_MAPPING_H

#include "base/base.h"

struct mapping {
    const void *data; /* NULL = not open */
    u64 bytes;
    u32 entry; /* mapping.c */
};

/* Maps bytes > 0 of the file; fd may be closed afterwards. ERR_NO_MEMORY: no address space, or too many. */
enum status mapping_open(int fd, u64 bytes, struct mapping *out, struct err *err) MUST_USE;
/* A page could not be read: all that has been read since the last call that returned false may be zeros.
 * Stays true. */
bool mapping_lost(const struct mapping *m);
/* Nobody reads it any more. */
void mapping_close(struct mapping *m);

#endif
