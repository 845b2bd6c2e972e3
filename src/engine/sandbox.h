/* sandbox.h - the engine takes its own rights away before it reads the first byte of a model or request. */
#ifndef MINKA_SANDBOX_H
#define MINKA_SANDBOX_H

#include "base/base.h"

/* For the calling thread and all it starts later (call it before any thread exists): no new privileges,
 * no file may be opened (Landlock where the kernel has it, seccomp in any case), no socket made, no
 * program run, no other process touched; system calls outside a short list fail with EPERM. Memory may be
 * executable only when it is anonymous (the regex JIT). Open descriptors stay usable.
 * ERR_UNSUPPORTED if the kernel has no seccomp: the caller decides. */
enum status sandbox_enter(struct err *err) MUST_USE;

#endif
