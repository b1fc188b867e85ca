#!/usr/bin/env python3
"""Prove that the library calls the system through core/base/io_posix.c only.

usage: check_one_door.py LIBRARY.a ...

Reads the undefined symbols of every object in the static libraries. Each must be one of the project's own, one of a
bundled-in dependency where that is allowed, or one of the pure functions of the C library listed here: those touch nothing
but memory. What is not listed is refused, so a new function has to be looked at before it is added.
"""

import re
import subprocess
import sys

# Pure: work on memory they are given, on errno, or on locks between threads.
PURE = set("""
    memcpy memmove memset memcmp memchr memrchr mempcpy rawmemchr bcmp
    strlen strnlen strcmp strncmp strchr strrchr strstr strcspn strspn strpbrk strcpy strncpy stpcpy strcat strncat
    strtol strtoul strtoll strtoull strtod __isoc23_strtol __isoc23_strtoul __isoc23_strtoll __isoc23_strtoull
    __ctype_b_loc __ctype_tolower_loc __ctype_toupper_loc isxdigit isdigit
    snprintf vsnprintf __xpg_strerror_r __errno_location
    qsort bsearch
    pthread_mutex_init pthread_mutex_destroy pthread_mutex_lock pthread_mutex_trylock pthread_mutex_unlock
    pthread_mutexattr_init pthread_mutexattr_destroy pthread_mutexattr_settype
    pthread_rwlock_init pthread_rwlock_destroy pthread_rwlock_rdlock pthread_rwlock_wrlock pthread_rwlock_unlock
    pthread_cond_init pthread_cond_destroy pthread_cond_wait pthread_cond_signal pthread_cond_broadcast
    pthread_once pthread_self pthread_equal pthread_join pthread_atfork __register_atfork
    pthread_key_create pthread_key_delete pthread_getspecific pthread_setspecific
    log log2 exp pow sqrt floor ceil
    __stack_chk_fail _GLOBAL_OFFSET_TABLE_ __tls_get_addr __dso_handle
""".split())

# Put in by the compiler: fortified variants of the above, sanitizers, coverage, 128-bit and atomic arithmetic.
COMPILER = re.compile(r"__(?P<plain>\w+)_chk$|__(asan|ubsan|tsan|msan|lsan|sanitizer|sancov|gcov|llvm|afl)_|__atomic_|__aarch64_"
                      r"|__(u?div|u?mod|mul|popcount|ashl|lshr|clz|ctz)\w*[dts]i\d$|__cpu_(model|indicator_init)$")

# Only here: object -> further symbols. alloc.c is the door to memory; thread.c that to threads and their clock; LMDB and LZ4
# do their own work behind one file each.
ALLOWED = {
    "alloc.c.o": r"malloc|calloc|realloc|free",
    "thread.c.o": r"pthread_\w+|clock_gettime|sigfillset|sigemptyset|sigaddset|sigtimedwait",
    "index.c.o": r"mdb_\w+",
    "opening.c.o": r"getenv",  # NPK_TEST_PAUSE: reads the process's own memory, not the system
    "wal_format.c.o": r"LZ4_\w+",
    "wal_reader.c.o": r"LZ4_\w+",
    "wal_writer.c.o": r"LZ4_\w+",
    "wal.c.o": r"LZ4_\w+",
}
THE_DOOR = "io_posix.c.o"


def undefined_symbols(library):
    """Yield (object, symbol) for each undefined symbol of a static library."""
    text = subprocess.run(["nm", "-u", library], check=True, capture_output=True, text=True).stdout
    member = None
    for line in text.splitlines():
        line = line.strip()
        if line.endswith(":"):
            member = line[:-1]
        elif line:
            symbol = line.split()[-1].split("@")[0]
            yield member, symbol


def is_allowed(member, symbol):
    if symbol.startswith("npk_") or symbol in PURE:
        return True
    match = COMPILER.match(symbol)
    if match:
        plain = match.group("plain")
        return plain is None or plain in PURE
    return member in ALLOWED and re.fullmatch(ALLOWED[member], symbol) is not None


def main(libraries):
    if not libraries:
        print(__doc__, file=sys.stderr)
        return 2
    seen, doors, bad = set(), 0, []
    for library in libraries:
        for member, symbol in undefined_symbols(library):
            seen.add((library, member))
            if member == THE_DOOR:
                doors += 1
            elif not is_allowed(member, symbol):
                bad.append(f"{library}({member}): {symbol}")
    for line in sorted(set(bad)):
        print(f"not through the door: {line}", file=sys.stderr)
    if not doors:
        print(f"no {THE_DOOR} in these libraries: nothing was proven", file=sys.stderr)
        return 2
    print(f"{len(seen)} objects looked at, {len(set(bad))} symbols refused")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
