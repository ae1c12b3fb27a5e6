"""Memory that is freed and asked for again, step after step."""

import ctypes
import sys

# Of glibc's <malloc.h>.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -2, -4, -8


def keep_freed_memory():
    """Lets the process keep the memory of large tensors instead of returning it to the system.

    A training step on the CPU frees tensors of hundreds of megabytes (the logits and their
    gradients) and asks for the same again in the next step. By default glibc gives such blocks
    back to the system at once, and each comes back as tens of thousands of page faults, each page
    filled with zeros: on a virtual machine that can cost more than the arithmetic. The commands
    call this before they compute. It concerns the whole process, so importing the package does
    not do it.

    Returns:
        Whether it took effect: True on Linux with glibc, False elsewhere (where nothing is done).

    Example:

    ```python
    keep_freed_memory()
    model.fit(...)
    ```
    """
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # another C library
        return False
    settings = (
        (_M_MMAP_MAX, 0),  # large blocks come from the heap, ...
        (_M_TRIM_THRESHOLD, 2**31 - 1),  # ... which does not shrink, ...
        (_M_TOP_PAD, 256 * 2**20),  # ... grows in large steps, ...
        (_M_ARENA_MAX, 1),  # ... and is one: those of other threads are limited to 64 MiB
    )
    return all([mallopt(*setting) for setting in settings])
