/* recover_copy.h - keep the files that a repair may change. */
#ifndef RECOVER_COPY_H
#define RECOVER_COPY_H

#include <stddef.h>

/* Copy what the next open and close of the store may rewrite or unlink - FORMAT, the log and the checkpoints - into the
 * new directory "<store>.repair-<UTC time>", synced. Column files are left where they are: they are never written again.
 * Returns 0, or -1 with the reason in message. target gets the directory's path. */
int recover_copy_aside(const char *store, char *target, size_t target_size, char *message, size_t message_size);

#endif
