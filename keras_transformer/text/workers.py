"""Text to ids by all cores: processes that each hold the vocabularies.

Threads do not help, because SentencePiece holds Python's lock while it encodes a line. A process
gets texts and returns ids as plain bytes, so that nothing is unpickled.
"""

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import IO, Any

import numpy as np

from keras_transformer.text.tokenizer import Tokenizer

Flat = tuple[np.ndarray, np.ndarray]  # the ids of several texts, and the length of each


def flat_ids(tokenizer: Any, texts: Sequence[str]) -> Flat:
    """Returns the ids of texts one after another, int32, and the length of each text, int32."""
    encoded = tokenizer.encode(texts)
    ids = np.fromiter(itertools.chain.from_iterable(encoded), np.int32)
    return ids, np.fromiter(map(len, encoded), np.int32, len(encoded))


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def encoders(tokenizers: Sequence[Tokenizer], count: int) -> Iterator[list["Encoder"]]:
    """Yields processes that encode texts by these tokenizers; they end with the block."""
    with contextlib.ExitStack() as stack:
        found = []
        for _ in range(count):
            found.append(Encoder(tokenizers))
            stack.callback(found[-1].close)
        yield found


class Encoder:
    """One process that encodes lists of texts, one list for each of its tokenizers."""

    def __init__(self, tokenizers: Sequence[Tokenizer]) -> None:
        # The modules come from where this process has them, whatever lies in the current folder.
        code = (
            f"import sys; sys.path[:] = {sys.path!r}; "
            "from keras_transformer.text import workers; workers.serve()"
        )
        command = [sys.executable, "-P", "-c", code]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._waiting: deque[Any] = deque()
        self._send(len(tokenizers).to_bytes(8, "little"))
        for tokenizer in tokenizers:
            self._send(tokenizer.model_proto)

    def put(self, sides: Sequence[Sequence[str]], note: Any = None) -> None:
        """Hands over texts for each tokenizer; `get` returns `note` with their ids."""
        self._send(json.dumps(sides).encode())
        self._waiting.append(note)

    def get(self) -> tuple[Any, list[Flat]]:
        """Returns the note and the ids of the oldest texts that were put."""
        arrays = [np.frombuffer(self._receive(), np.int32) for _ in range(4)]
        return self._waiting.popleft(), [(arrays[0], arrays[1]), (arrays[2], arrays[3])]

    def close(self) -> None:
        """Ends the process, also in the middle of its work."""
        self._process.kill()
        self._process.communicate()

    def _send(self, data):
        try:
            _write(self._process.stdin, data)
        except BrokenPipeError:
            raise self._lost() from None

    def _receive(self):
        data = _read(self._process.stdout)
        if data is None:
            raise self._lost()
        return data

    def _lost(self):
        return RuntimeError(
            "A process that encodes text has ended, perhaps for lack of memory. Start again: what "
            "was encoded is kept if there is a cache."
        )


def serve(source: IO[bytes] | None = None, sink: IO[bytes] | None = None) -> None:
    """What such a process does: reads texts from stdin until it ends, writes ids to stdout."""
    # Ctrl-C reaches the whole group of processes; the first one decides what becomes of it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    source, sink = source or sys.stdin.buffer, sink or sys.stdout.buffer
    count = int.from_bytes(_read(source) or b"", "little")
    tokenizers = [Tokenizer(_read(source) or b"") for _ in range(count)]
    while (request := _read(source)) is not None:
        sides = zip(tokenizers, json.loads(request), strict=True)
        arrays = [array for each, texts in sides for array in flat_ids(each, texts)]
        try:
            for array in arrays:
                _write(sink, array.tobytes())
        except BrokenPipeError:  # the first process was killed, and nobody reads
            os._exit(1)


def in_order(
    workers: Sequence[Encoder], requests: Iterable[tuple[Sequence[Sequence[str]], Any]]
) -> Iterator[tuple[Any, list[Flat]]]:
    """Yields (note, ids) for each (texts, note), in their order.

    A process gets new texts only after its ids were taken, so none waits for the other.
    """
    turns = itertools.cycle(workers)
    busy: deque[Encoder] = deque()
    for sides, note in requests:
        worker = next(turns)
        if len(busy) == len(workers):
            yield busy.popleft().get()
        worker.put(sides, note)
        busy.append(worker)
    while busy:
        yield busy.popleft().get()


def _write(file, data):
    file.write(len(data).to_bytes(8, "little"))
    file.write(data)
    file.flush()


def _read(file):
    header = file.read(8)
    if len(header) < 8:
        return None
    size = int.from_bytes(header, "little")
    data = file.read(size)
    return data if len(data) == size else None
