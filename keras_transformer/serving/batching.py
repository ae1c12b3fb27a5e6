"""One thread that owns the model, and joins the requests that wait into batches."""

import collections
import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Any, NamedTuple


class QueueFull(Exception):
    """Raised by `Batcher.submit` if too many texts wait. `waiting` is their number."""

    def __init__(self, waiting: int) -> None:
        super().__init__(f"{waiting} texts wait already.")
        self.waiting = waiting


class Job(NamedTuple):
    """Texts, or what else is worked on, of one request that wait for their results."""

    kind: Hashable
    texts: list[Any]
    future: Future


class Batcher:
    """Calls `work(kind, texts)` in one thread, for several requests of the same kind at once.

    The oldest request is always next. All that wait and have its kind join it, up to `most` texts.
    So a lone request is answered without delay, and batches grow as requests come faster. A text
    may be an object of any type.

    Args:
        work: A function from a kind and a list of texts to a list of results, one per text.
        most: The greatest number of texts that are joined. A request that is longer comes alone.
        queue: The greatest number of texts that wait.

    Example:

    ```python
    batcher = Batcher(lambda kind, texts: [text.upper() for text in texts], most=64, queue=1024)
    batcher.start()
    batcher.submit("upper", ["a", "b"]).result()  # ['A', 'B']
    batcher.close()
    ```
    """

    def __init__(
        self, work: Callable[[Any, list[Any]], list[Any]], most: int = 64, queue: int = 1024
    ) -> None:
        self.work = work
        self.most = most
        self.queue = queue
        self._jobs: collections.deque[Job] = collections.deque()
        self._changed = threading.Condition()
        self._closed = False
        # A daemon, so that a second Ctrl-C ends the process in the middle of a translation.
        self._thread = threading.Thread(target=self._run, name="translator", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    @property
    def waiting(self) -> int:
        """How many texts wait, without those that are being worked on."""
        with self._changed:
            return self._count()

    def submit(self, kind: Hashable, texts: list[Any]) -> Future:
        """Adds a request to the queue, and returns the future of its list of results.

        A future that is cancelled before its turn costs nothing.

        Raises:
            QueueFull: If the queue has no room for these texts.
            RuntimeError: After `close`.
        """
        with self._changed:
            if self._closed:
                raise RuntimeError("The server is ending, and takes no more requests.")
            if (waiting := self._count()) + len(texts) > self.queue:
                raise QueueFull(waiting)
            job = Job(kind, texts, Future())
            self._jobs.append(job)
            self._changed.notify()
            return job.future

    def close(self) -> None:
        """Answers what waits, takes nothing more, and ends the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join()

    def _count(self):
        return sum(len(job.texts) for job in self._jobs if not job.future.cancelled())

    def _run(self):
        while jobs := self._take():
            self._answer([job for job in jobs if job.future.set_running_or_notify_cancel()])

    def _take(self):
        """Waits for requests, and returns those of the next batch; none at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._jobs or self._closed)
            taken, left, size = [], collections.deque(), 0
            for job in self._jobs:
                fits = not taken or (
                    job.kind == taken[0].kind and size + len(job.texts) <= self.most
                )
                (taken if fits else left).append(job)
                size += len(job.texts) if fits else 0
            self._jobs = left
            return taken

    def _answer(self, jobs):
        if not jobs:
            return
        try:
            results = self.work(jobs[0].kind, [text for job in jobs for text in job.texts])
        except Exception as error:
            if len(jobs) == 1:
                jobs[0].future.set_exception(error)
            for job in jobs if len(jobs) > 1 else ():  # others need not fail with one of them
                self._answer([job])
            return
        results = iter(results)
        for job in jobs:
            job.future.set_result([next(results) for _ in job.texts])
