/* native.h - the writers of Ollama's own dialect. */
#ifndef MINKA_API_NATIVE_H
#define MINKA_API_NATIVE_H

#include "api/call.h"

extern const struct call_writer native_generate_writer, native_chat_writer;

#endif
