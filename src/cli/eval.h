/* eval.h - `minka eval`: looks inside a model file without a server. JSON on standard output; errors on
 * standard error with exit code 1. The forward pass is the engine's own (eval_model.h). */
#ifndef MINKA_CLI_EVAL_H
#define MINKA_CLI_EVAL_H

/* argv[0] is "eval". Returns the exit code. */
int eval_main(int argc, char **argv);

#endif
