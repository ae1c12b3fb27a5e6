"""Signals that ask a training to end: a scheduler sends SIGTERM, a closed terminal SIGHUP."""

import contextlib
import signal
import threading
from collections.abc import Iterator

from keras_transformer.ops import processes

WATCHED = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))


@contextlib.contextmanager
def signals_noted(asked: bool = True) -> Iterator[list[signal.Signals]]:
    """Within it the first signal is added to the list that is yielded; a second one ends at once.

    Python calls handlers in the main thread. Elsewhere, and unless it is `asked` for, signals do
    what they did before.
    """
    seen: list[signal.Signals] = []
    if processes.several():  # JAX notes SIGTERM, so that all end together: `asked_to_stop`
        if not asked:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        yield seen
        return
    if not asked or threading.current_thread() is not threading.main_thread():
        yield seen
        return
    before = {each: signal.getsignal(each) for each in WATCHED}

    def restore():
        for each, handler in before.items():
            signal.signal(each, handler)

    def note(number, _):
        restore()
        seen.append(signal.Signals(number))

    for each in WATCHED:
        if before[each] is not signal.SIG_IGN:  # as under nohup
            signal.signal(each, note)
    try:
        yield seen
    finally:
        restore()
