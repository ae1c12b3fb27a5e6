"""Starts TensorFlow without the notices that its C++ prints at every log level."""

import contextlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator

# TensorFlow 2.21: the warning before absl is initialised, and everything of level INFO.
NOTICE = re.compile(
    rb"(WARNING: All log messages before absl::InitializeLog|I\d{4} |To enable the following )"
)


@contextlib.contextmanager
def without_notices() -> Iterator[None]:
    """Buffers stderr inside the block, then prints it without TensorFlow's start-up notices.

    TF_CPP_MIN_LOG_LEVEL=0 shows them.
    """
    with contextlib.ExitStack() as held:
        if os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3") != "0" and (
            "tensorflow" not in sys.modules
        ):
            with contextlib.suppress(OSError):  # without a stderr, or room for a file
                said, stderr = held.enter_context(tempfile.TemporaryFile()), os.dup(2)
                held.callback(_pass_on, said, stderr)
                os.dup2(said.fileno(), 2)
        yield


def _pass_on(said, stderr):
    os.dup2(stderr, 2)
    said.seek(0)
    rest = b"".join(line for line in said if not NOTICE.match(line))
    while rest:
        rest = rest[os.write(stderr, rest) :]
    os.close(stderr)
