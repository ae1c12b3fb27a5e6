"""How far a long job is. Silent unless a program asks for it, as the command line does."""

import contextlib
import contextvars
import shutil
import sys
import threading
import time

# Seconds: a shorter job says nothing; how often a terminal's line and a log's are written.
QUIET, TERMINAL, LOG = 2.0, 0.2, 30.0

_stream = contextvars.ContextVar("stream", default=None)  # None: nothing is shown
_passing = contextvars.ContextVar("passing", default=False)
_running = contextvars.ContextVar("running", default=None)
_clock = time.monotonic  # replaced by tests


@contextlib.contextmanager
def shown(stream=None):
    """Within it jobs say how far they are.

    In a terminal the line is rewritten in place; in a pipe or file there is a plain line now and
    then. A job that took a while ends with one line of what was done. Jobs that other threads begin
    stay silent.

    Args:
        stream: Where to write; `sys.stderr` where not given.

    Example:

    ```python
    with kt.progress.shown():
        encoded = kt.data.encode_pairs(pairs, tokenizer)
    ```
    """
    token = _stream.set(stream or sys.stderr)
    try:
        yield
    finally:
        _stream.reset(token)


@contextlib.contextmanager
def hidden():
    """Within it jobs say nothing again, as where a result is written to the same terminal."""
    token = _stream.set(None)
    try:
        yield
    finally:
        _stream.reset(token)


@contextlib.contextmanager
def passing():
    """Within it jobs leave no line behind, and say nothing in a log: parts of another's report."""
    token = _passing.set(True)
    try:
        yield
    finally:
        _passing.reset(token)


def duration(seconds):
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"


def say(message):
    """Prints to stderr, on a line of its own also while a job rewrites one."""
    job = _running.get()
    with job.interrupted() if job else contextlib.nullcontext():
        print(message, file=sys.stderr, flush=True)


class Line:
    """The last line of a terminal, rewritten in place; in a log, plain lines.

    Args:
        stream: Where to write.
    """

    def __init__(self, stream):
        self.stream = stream
        self.terminal = stream.isatty()
        self.open = False

    def show(self, text):
        """A line that the next one replaces, in a terminal; cut: one that wraps could not be."""
        if self.terminal:
            text = f"\r{text[: shutil.get_terminal_size().columns - 1]}\x1b[K"
        self._write(text if self.terminal else f"{text}\n", opens=self.terminal)

    def leave(self, text):
        """A line that stays."""
        self._write(f"\r{text}\x1b[K\n" if self.terminal else f"{text}\n")

    def clear(self):
        if self.open:
            self._write("\r\x1b[K")

    def end(self):
        """Leaves what stands there."""
        if self.open:
            self._write("\n")

    def _write(self, text, opens=False):
        self.stream.write(text)
        self.stream.flush()
        self.open = opens


@contextlib.contextmanager
def work(what, total=None, unit="", ends=True):
    """A job to be followed: yields `done(n)`, to be called with each n units of work done.

    A job within another one is not shown by itself; what it has done counts as the part of the
    outer job that `done.part(n)` sets apart for it.

    Args:
        what: What is being done: "translating".
        total: How much there is in all; the time left goes by it, so the unit is one that takes
            about as long each time. None where that is not known.
        unit: What is counted, in the plural: "tokens". Without one only the time is shown.
        ends: Whether it says at its end what was done; False where the caller says more.

    Example:

    ```python
    with progress.work("translating", size, "bytes") as done:
        for size, lines in chunks:
            with done.part(size):
                translator.translate(lines)  # a job too, which counts tokens
    ```
    """
    if _stream.get() is None:
        yield _Unseen()
    elif (outer := _running.get()) is not None:
        yield _Within(outer, total)
    else:
        job = _Job(what, total, unit, Line(_stream.get()))
        token = _running.set(job)
        stop = _every(TERMINAL, job.tick)
        completed = False
        try:
            yield job
            completed = True
        finally:
            stop()
            _running.reset(token)
            job.end(completed, ends and not _passing.get())


def _every(seconds, function):
    """Calls `function` now and then, also while the job is one long call; returns what stops it."""
    stopped = threading.Event()

    def run():
        while not stopped.wait(seconds):
            function()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()

    def stop():
        stopped.set()
        thread.join()

    return stop


class _Unseen:
    """`done` of a job that is not shown."""

    def __call__(self, n=1):
        pass

    @contextlib.contextmanager
    def part(self, n):
        yield


class _Within(_Unseen):
    """`done` of a job within another: its share of what the outer one has set apart."""

    def __init__(self, outer, total):
        self.outer, self.unit = outer, outer.share / total if total else 0

    def __call__(self, n=1):
        self.outer(n * self.unit)


class _Job:
    """`done` of a job that is shown."""

    def __init__(self, what, total, unit, line):
        self.what, self.total, self.unit, self.line = what, total, unit, line
        self.logs = not _passing.get()
        self.start = self.last = _clock()
        self.count, self.share = 0, 0
        self.lock = threading.Lock()  # batches may be translated side by side

    def __call__(self, n=1):
        with self.lock:
            self.count += n

    @contextlib.contextmanager
    def part(self, n):
        """The job within it makes up n units of this one."""
        before, self.share = self.count, n
        yield
        self.share = 0
        self(before + n - self.count)  # to the unit, also where nothing was counted within

    def tick(self):
        """Shows how far it is, if it is time to; called every TERMINAL seconds."""
        with self.lock:
            now = _clock()
            if self.line.terminal:
                due = now - self.start >= QUIET
            else:
                due = self.logs and now - self.last >= LOG
            if due:
                self.last = now
                self.line.show(self._text(now - self.start))

    def _text(self, seconds):
        if not self.unit:
            return f"{self.what}  {duration(seconds)}"
        count = round(self.count)
        if not self.total:
            return f"{self.what}: {count:,} {self.unit}  {duration(seconds)}"
        text = f"{self.what}: {count:,} of {self.total:,} {self.unit}"
        if not count:
            return f"{text}  {duration(seconds)}"
        return f"{text}  left {duration(seconds * max(self.total - count, 0) / count)}"

    @contextlib.contextmanager
    def interrupted(self):
        """Within it others may write: the line is cleared."""
        with self.lock:
            self.line.clear()
            yield

    def end(self, completed, says):
        seconds = _clock() - self.start
        if not completed:
            self.line.end()
        elif says and seconds >= QUIET:
            amount = f": {round(self.count):,} {self.unit}" if self.unit else ""
            self.line.leave(f"{self.what}{amount} in {seconds:.1f} s")
        else:
            self.line.clear()
