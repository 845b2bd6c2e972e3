/* import.h - `minka import FILE.gguf [NAME]`: adds a model file to the store, without a server. */
#ifndef MINKA_IMPORT_H
#define MINKA_IMPORT_H

/* argv[0] is "import". Returns the exit code; messages go to standard error. */
int import_main(int argc, char **argv);

#endif
