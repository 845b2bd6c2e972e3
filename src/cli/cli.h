/* cli.h - the commands of `minka` that talk to a running server. */
#ifndef MINKA_CLI_H
#define MINKA_CLI_H

/* argv[0] is the program, argv[1] the command (serve, eval and import are the caller's). Returns the exit
 * code: 0, 1 after "Error: ..." on standard error, 130 after an interrupt. */
int cli_main(int argc, char **argv);

#endif
