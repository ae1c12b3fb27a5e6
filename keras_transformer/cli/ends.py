"""How the command and the recipes end: with what to type next, or with what went wrong."""

import contextlib
import functools
import io
import os
import shlex
import sys
from collections.abc import Iterator

from keras_transformer import progress


@contextlib.contextmanager
def program(name: str, interrupted: str = "interrupted") -> Iterator[None]:
    """Runs a program and shows its long jobs: a context manager, or a decorator of `main`.

    Output is UTF-8 in every locale. An error that the user can mend (a path, an option, a broken
    run) becomes one line on stderr and status 1; Ctrl-C becomes status 130. If
    KERAS_TRANSFORMER_TRACEBACK is set, errors keep their traceback.

    Args:
        name: The name that the line begins with.
        interrupted: The message after Ctrl-C.

    Raises:
        SystemExit: With a one-line message (status 1) for user errors, or with the status.

    Example:

    ```python
    @program("translate_multi30k", INTERRUPTED)
    def main(): ...
    ```
    """
    if sys.stdout is None or sys.stderr is None:  # as a shell does by `>&-`
        raise SystemExit(f"{name}: error: standard output or standard error is closed: open both.")
    sys.stdin = sys.stdin or open(os.devnull, encoding="utf-8")
    _write_utf8()
    try:
        with progress.shown():
            yield
        sys.stdout.flush()
    except KeyboardInterrupt:
        # A display may have left its line open, and the terminal shows ^C.
        ended = "\n" if sys.stderr.isatty() else ""
        print(f"{ended}{name}: {interrupted}", file=sys.stderr)
        raise SystemExit(130) from None
    except BrokenPipeError:  # the reader of our output has gone: `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(141) from None
    except (ValueError, OSError, FloatingPointError, MemoryError) as error:
        if os.environ.get("KERAS_TRANSFORMER_TRACEBACK"):
            raise
        message = progress.visible(" ".join(str(error).split()))
        raise SystemExit(f"{name}: error: {message}") from None


def _write_utf8():
    """Writes UTF-8, as texts are read: some locales lack the characters of a translation."""
    # A file name that is not UTF-8 is written as its bytes.
    for stream, errors in ((sys.stdout, "surrogateescape"), (sys.stderr, "backslashreplace")):
        if isinstance(stream, io.TextIOWrapper):  # not so in a notebook
            stream.reconfigure(encoding="utf-8", errors=errors)


def beside_results() -> contextlib.AbstractContextManager:
    """Hides the progress if results go to the same terminal, or lines are typed there."""
    typed_or_shown = sys.stdout.isatty() or sys.stdin.isatty()
    return progress.hidden() if typed_or_shown else contextlib.nullcontext()


# The message of programs that train.
INTERRUPTED = "interrupted; the same command continues at the last checkpoint, if there is one"


def say_next(commands: dict[str, str]) -> None:
    """Says what can be typed next, one line per command: `say_next({"List": command("ls")})`."""
    sys.stdout.flush()  # so that these lines come last
    width = max(map(len, commands)) + 3
    lines = [f"{name + ':':<{width}}{text}" for name, text in commands.items()]
    progress.say("\n".join(["", *lines]))


def command(*words: object, rest: str = "") -> str:
    """A command to type: its words, quoted for a shell, and `rest` unquoted."""
    return f"{shlex.join(map(str, words))} {rest}".rstrip()


verb = functools.partial(command, "keras-transformer")
