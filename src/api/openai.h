/* openai.h - the writers of OpenAI's dialect. */
#ifndef MINKA_API_OPENAI_H
#define MINKA_API_OPENAI_H

#include "api/call.h"

extern const struct call_writer openai_chat_writer, openai_completion_writer;

#endif
