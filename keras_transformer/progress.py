"""How far a long job is. Silent unless a program asks for it, as the command line does."""

import contextlib
import sys
import threading
import time

# Seconds: a shorter job says nothing; how often a terminal's line and a log's are written.
QUIET, TERMINAL, LOG = 2.0, 0.2, 30.0

_stream = None


@contextlib.contextmanager
def shown(stream=None):
    """Within it jobs say how far they are.

    In a terminal the line is rewritten in place; in a pipe or file there is a plain line now and
    then. A job that took a while ends with one line of what was done.

    Args:
        stream: Where to write; `sys.stderr` where not given.

    Example:

    ```python
    with kt.progress.shown():
        encoded = kt.data.encode_pairs(pairs, tokenizer)
    ```
    """
    global _stream
    before, _stream = _stream, stream or sys.stderr
    try:
        yield
    finally:
        _stream = before


def duration(seconds):
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"


@contextlib.contextmanager
def work(what, total=None, unit="", clock=time.monotonic):
    """A job to be followed: yields `done(n)`, to be called with each n units of work done.

    Args:
        what: What is being done: "translating".
        total: How much there is in all; the time left goes by it.
        unit: What is counted, in the plural: "tokens".
        clock: For tests.
    """
    if _stream is None:
        yield lambda n=1: None
        return
    job = _Job(what, total, unit, clock, _stream)
    try:
        yield job.done
    finally:
        job.end(completed=sys.exc_info()[0] is None)


class _Job:
    def __init__(self, what, total, unit, clock, stream):
        self.what, self.total, self.unit = what, total, unit
        self.clock, self.stream = clock, stream
        self.terminal = stream.isatty()
        self.start = self.last = clock()
        self.count, self.open = 0, False
        self.lock = threading.Lock()  # batches may be translated side by side

    def done(self, n=1):
        with self.lock:
            self.count += n
            now = self.clock()
            interval = TERMINAL if self.terminal else LOG
            if now - self.start >= QUIET and now - self.last >= interval:
                self.last = now
                self._write(now - self.start)

    def _write(self, seconds):
        text = f"{self.what}: {self.count:,}"
        if self.total:
            left = seconds * (self.total - self.count) / max(self.count, 1)
            text += f" of {self.total:,} {self.unit}  left {duration(left)}"
        else:
            text += f" {self.unit}  {duration(seconds)}"
        if self.terminal:
            self.stream.write(f"\r{text}\x1b[K")
            self.open = True
        else:
            self.stream.write(f"{text}\n")
        self.stream.flush()

    def end(self, completed):
        seconds = self.clock() - self.start
        if self.open:
            self.stream.write("\r\x1b[K" if completed else "\n")
        if completed and seconds >= QUIET:
            amount = f" {self.count:,} {self.unit}" if self.count else ""
            self.stream.write(f"{self.what}:{amount} in {seconds:.1f} s\n")
        self.stream.flush()
