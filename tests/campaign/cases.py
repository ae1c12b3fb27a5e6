"""A case in a process of its own: how it ended, and whether it did what no file may make it do."""

import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

SECONDS = 120  # that a case may take
# What loading a file never needs, as Python's audit hooks name it.
FORBIDDEN = {"os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "pickle.find_class"}
FORBIDDEN |= {"socket.connect"}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class End(NamedTuple):
    """How a case ended: an exit status, or minus the signal that killed it; and what it printed."""

    status: int
    output: str

    @property
    def traceback(self) -> bool:
        return "Traceback (most recent call last)" in self.output

    @property
    def hung(self) -> bool:
        return self.status == -signal.SIGALRM

    @property
    def forbidden(self) -> bool:
        return "FORBIDDEN" in self.output


def run(
    work: Callable[[], object], folder: Path, watched: bool = True, kill_after: float | None = None
) -> End:
    """Runs `work` in a fork, which may write only within `folder`.

    Args:
        work: What to do. SystemExit gives the status, another exception 70 and a traceback.
        folder: Where it may write.
        watched: Whether to forbid writing elsewhere and running code.
        kill_after: Seconds after which it gets SIGKILL.
    """
    log = folder.parent / f"{folder.name}.log"
    sys.stdout.flush()
    child = os.fork()
    if not child:
        os._exit(_work(work, folder, log, watched))
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    output = log.read_text(encoding="utf-8", errors="replace")
    log.unlink()
    return End(os.waitstatus_to_exitcode(status), output)


def _work(work, folder, log, watched):
    signal.alarm(SECONDS)
    with open(log, "w") as file:
        for descriptor in (1, 2):
            os.dup2(file.fileno(), descriptor)
    sys.stdin, sys.stdout, sys.stderr = open(os.devnull), open(1, "w"), open(2, "w")
    tempfile.tempdir = f"{folder}.tmp"  # where TensorFlow writes too
    os.makedirs(tempfile.tempdir, exist_ok=True)
    if watched:
        _watch(str(folder), tempfile.tempdir)
    status = 0
    try:
        work()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        status = 70
    sys.stdout.flush()
    sys.stderr.flush()
    return status


def _watch(*folders):
    allowed = (*map(os.path.realpath, folders), "/dev/", "/proc/")

    def hook(event, arguments):
        bad = event in FORBIDDEN
        if event == "open" and isinstance(arguments[0], str | bytes):
            path, _, flags = arguments
            path = os.path.realpath(os.fsdecode(path))
            bad = bool(flags & WRITING) and not path.startswith(allowed)
        elif event in ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "shutil.rmtree"):
            path = os.path.abspath(os.fsdecode(arguments[event == "os.rename"]))
            within = event != "shutil.rmtree" and arguments[-1] not in (-1, None)  # of a folder
            bad = not within and not path.startswith(allowed)
        if bad:
            os.write(2, f"FORBIDDEN {event} {arguments!r}\n".encode())

    sys.addaudithook(hook)
