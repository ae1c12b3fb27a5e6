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
CRASHED = 70  # the status after an exception
ALLOWED: list[str] = []  # folders where every case may write
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


class Case:
    """A case that has begun: `work` in a fork, which may write only within `folder`.

    Args:
        work: What to do. SystemExit gives the status, another exception 70 and a traceback.
        folder: Where it may write.
        watched: Whether to forbid writing elsewhere and running code.
    """

    def __init__(self, work: Callable[[], object], folder: Path, watched: bool = True) -> None:
        handle, self._log = tempfile.mkstemp(dir=folder.parent, prefix=f"{folder.name}.log.")
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if not self.pid:
            os._exit(_work(work, folder, handle, watched))
        os.close(handle)
        self._status: int | None = None

    def wait(self, seconds: float) -> bool:
        """Waits for the end, at most so long. Returns whether it has ended."""
        deadline = time.monotonic() + seconds
        while self._status is None and time.monotonic() < deadline:
            found, status = os.waitpid(self.pid, os.WNOHANG)
            if found:
                self._status = status
            else:
                time.sleep(0.005)
        return self._status is not None

    def send(self, number: int) -> None:
        """Sends a signal, unless it has ended."""
        if self._status is None:
            os.kill(self.pid, number)

    def end(self) -> End:
        """Waits for the end, and says how it was."""
        if self._status is None:
            _, self._status = os.waitpid(self.pid, 0)
        output = Path(self._log).read_text(encoding="utf-8", errors="replace")
        os.unlink(self._log)
        return End(os.waitstatus_to_exitcode(self._status), output)


def run(work: Callable[[], object], folder: Path, watched: bool = True) -> End:
    """Runs a case from its beginning to its end."""
    return Case(work, folder, watched).end()


def refuse_started_backends() -> None:
    """Raises an error if a backend has computed: a fork would have none of its threads."""
    context = sys.modules.get("tensorflow.python.eager.context")
    bridge = sys.modules.get("jax._src.xla_bridge")
    started = context and context.context()._context_handle, bridge and bridge._backends
    if any(started):
        raise RuntimeError(f"TensorFlow or JAX has computed before the forks: {started}")


def _work(work, folder, log, watched):
    signal.alarm(SECONDS)
    for descriptor in (1, 2):
        os.dup2(log, descriptor)
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
        status = CRASHED
    sys.stdout.flush()
    sys.stderr.flush()
    return status


def _watch(*folders):
    allowed = (*map(os.path.realpath, [*folders, *ALLOWED]), "/dev/", "/proc/")

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
