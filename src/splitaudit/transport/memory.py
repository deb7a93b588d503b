"""What a process does with memory that it has freed."""

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8  # malloc.h
_LARGEST, _KEPT = 2**28, 2**29


def keep_freed_memory() -> None:
    """Have the C library (glibc; elsewhere nothing happens) keep up to 512 MiB that were freed for what comes next.

    Every message needs memory for as long as it is under way. By default that goes back to the system each time, and is
    given anew page by page, which takes longer than copying the message. One arena, since those of other threads
    than the first give back whatever is free. For a whole process, so to be called at its start.
    """
    if sys.platform != "linux":
        return
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):
        for option, value in ((_MMAP_THRESHOLD, _LARGEST), (_TRIM_THRESHOLD, _KEPT), (_ARENA_MAX, 1)):
            library.mallopt(option, value)
