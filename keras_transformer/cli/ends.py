"""How programs end, the command and the recipes: by what to type next, or by what went wrong."""

import contextlib
import io
import os
import shlex
import sys
from collections.abc import Iterator

from keras_transformer import progress


@contextlib.contextmanager
def program(name: str, interrupted: str = "interrupted") -> Iterator[None]:
    """Runs a program, `with` it or as a decorator of its `main`; its long jobs are shown.

    Its output is UTF-8, whatever the locale.

    What the user can mend (a path, an option, a broken run) ends it as one line on stderr and
    status 1, Ctrl-C as 130. With KERAS_TRANSFORMER_TRACEBACK set, errors keep their traceback.

    Args:
        name: What the line begins with.
        interrupted: What is said after Ctrl-C.

    Raises:
        SystemExit: With the status, where it is not 0; with the line, which Python prints, for 1.

    Example:

    ```python
    @program("translate_multi30k", INTERRUPTED)
    def main(): ...
    ```
    """
    _write_utf8()
    try:
        with progress.shown():
            yield
        sys.stdout.flush()
    except KeyboardInterrupt:
        # What a display has left open, and the terminal's own ^C.
        ended = "\n" if sys.stderr.isatty() else ""
        print(f"{ended}{name}: {interrupted}", file=sys.stderr)
        raise SystemExit(130) from None
    except BrokenPipeError:  # the reader of our output has gone: `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(141) from None
    except (ValueError, OSError, FloatingPointError, MemoryError) as error:
        if os.environ.get("KERAS_TRANSFORMER_TRACEBACK"):
            raise
        raise SystemExit(f"{name}: error: {' '.join(str(error).split())}") from None


def _write_utf8():
    """As texts are read: a locale without the characters of a translation would lose it."""
    # What Python makes of a file name that is not UTF-8 goes back to its bytes.
    for stream, errors in ((sys.stdout, "surrogateescape"), (sys.stderr, "backslashreplace")):
        if isinstance(stream, io.TextIOWrapper):  # not so in a notebook
            stream.reconfigure(encoding="utf-8", errors=errors)


def beside_results() -> contextlib.AbstractContextManager:
    """Hides how far a job is where its results come to the same terminal, or lines are typed."""
    typed_or_shown = sys.stdout.isatty() or sys.stdin.isatty()
    return progress.hidden() if typed_or_shown else contextlib.nullcontext()


# Of what trains.
INTERRUPTED = "interrupted; the same command goes on from the last checkpoint, if there is one"


def say_next(commands: dict[str, str]) -> None:
    """Says what can be typed next, a line each: `say_next({"Words": command("ls", "a run")})`."""
    sys.stdout.flush()  # what comes last stands last
    width = max(map(len, commands)) + 3
    lines = [f"{name + ':':<{width}}{text}" for name, text in commands.items()]
    progress.say("\n".join(["", *lines]))


def command(*words: object, rest: str = "") -> str:
    """A command to type: its words, quoted where a shell needs it, and `rest` as it is."""
    return f"{shlex.join(map(str, words))} {rest}".rstrip()
