"""How far a long job is. Hidden unless a program asks for it, as the command line does."""

import contextlib
import contextvars
import shutil
import sys
import threading
import time
import unicodedata
from collections.abc import Callable, Iterator
from typing import Any, TextIO

# Seconds: a shorter job is not shown; a line is rewritten in a terminal, or added to a log.
QUIET, TERMINAL, LOG = 2.0, 0.2, 30.0

_stream: contextvars.ContextVar[Any] = contextvars.ContextVar("stream", default=None)  # or hidden
_passing = contextvars.ContextVar("passing", default=False)
_running: contextvars.ContextVar[Any] = contextvars.ContextVar("running", default=None)
_silenced = contextvars.ContextVar("silenced", default=False)
_clock = time.monotonic  # replaced by tests


@contextlib.contextmanager
def _set(variable, value):
    token = variable.set(value)
    try:
        yield
    finally:
        variable.reset(token)


def shown(stream: TextIO | None = None) -> contextlib.AbstractContextManager[None]:
    """Inside this block jobs show how far they are.

    In a terminal the line is rewritten in place; a pipe or file gets a plain line now and then. A
    job of more than two seconds leaves one line about what was done. Jobs that other threads start
    stay hidden.

    Args:
        stream: Where to write; `sys.stderr` unless given.

    Example:

    ```python
    with kt.progress.shown():
        encoded = kt.data.encode_pairs(pairs, tokenizer)
    ```
    """
    return _set(_stream, stream or sys.stderr)


def hidden() -> contextlib.AbstractContextManager[None]:
    """Inside this block jobs are hidden again, for results written to the same terminal."""
    return _set(_stream, None)


def passing() -> contextlib.AbstractContextManager[None]:
    """Inside this block jobs print nothing permanent, because the caller reports for them."""
    return _set(_passing, True)


def duration(seconds: float) -> str:
    """Returns seconds as hours:minutes:seconds."""
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"


def silenced(asked: bool = True) -> contextlib.AbstractContextManager[None]:
    """Inside this block nothing is said or shown, in a process that works for another one."""
    return _set(_silenced, asked)


def visible(text: str) -> str:
    """Returns a text whose control characters are written as escapes, except line ends and tabs.

    A terminal would obey those of a stranger's sentence or file name.
    """
    if text.isprintable():
        return text
    return "".join(each if each in "\n\t" else _escaped(each) for each in text)


def _escaped(character):
    control = unicodedata.category(character) in ("Cc", "Cs")
    return character.encode("unicode_escape").decode() if control else character


def say(message: str) -> None:
    """Prints to stderr, on a line of its own even while a job rewrites one."""
    if _silenced.get():
        return
    job = _running.get()
    with job.interrupted() if job else contextlib.nullcontext():
        print(visible(message), file=sys.stderr, flush=True)


class Line:
    """The last line of a terminal, which is rewritten in place; plain lines in a log."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.terminal = stream.isatty()
        self.open = False

    def show(self, text: str) -> None:
        """Writes a line that the next one replaces in a terminal. It is cut, so as not to wrap."""
        if self.terminal:
            text = f"\r{text[: shutil.get_terminal_size().columns - 1]}\x1b[K"
        self._write(text if self.terminal else f"{text}\n", opens=self.terminal)

    def leave(self, text: str) -> None:
        """Writes a line that stays."""
        self._write(f"\r{text}\x1b[K\n" if self.terminal else f"{text}\n")

    def clear(self) -> None:
        if self.open:
            self._write("\r\x1b[K")

    def end(self) -> None:
        """Keeps the present line."""
        if self.open:
            self._write("\n")

    def _write(self, text, opens=False):
        if _silenced.get():
            return
        self.stream.write(text)
        self.stream.flush()
        self.open = opens


@contextlib.contextmanager
def work(what: str, total: float | None = None, unit: str = "", ends: bool = True) -> Iterator[Any]:
    """Shows how far a job is. Yields `done(n)`; call it whenever n more units are done.

    A job inside another one is not shown. It counts as the part of the outer job that
    `done.part(n)` opens for it.

    Args:
        what: What is being done: "translating".
        total: All units, if known, for the time left. So each unit should take about as long.
        unit: What is counted, in the plural: "tokens". Without it only the time is shown.
        ends: Whether a line at the end says what was done. False if the caller says more.

    Example:

    ```python
    with progress.work("translating", size, "bytes") as done:
        for size, lines in chunks:
            with done.part(size):
                translator.translate(lines)  # another job, which counts tokens
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


def _every(seconds: float, function: Callable[[], Any]) -> Callable[[], None]:
    """Calls `function` in a thread, even while the job is one long call. Returns what stops it."""
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
    """`done` of a job inside another one: it counts as a share of the outer job's open part."""

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
        """Opens n units of this job for the job inside the block."""
        before, self.share = self.count, n
        yield
        self.share = 0
        self(before + n - self.count)  # exact, even if the inner job counted nothing

    def tick(self):
        """Shows how far the job is, if a line is due; called every TERMINAL seconds."""
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
        """Inside this block others may write, because the line is cleared."""
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
