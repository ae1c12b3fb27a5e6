"""Makes the application of a translator, and runs it until a signal ends it."""

import contextlib
import signal
import socket
import threading
from collections.abc import Iterator
from typing import Any

from keras_transformer.decoding import Translator
from keras_transformer.progress import say
from keras_transformer.serving.limits import Limits
from keras_transformer.serving.requests import Search
from keras_transformer.serving.service import Service

MISSING = "Serving needs packages that are not installed: pip install keras-transformer-kit[serve]"
# Connections at the same time. More get status 503, in plain text.
CONNECTIONS = 1000


def app(
    translator: Translator,
    limits: Limits | None = None,
    beam_size: int = 4,
    length_penalty: float | str = 0.6,
    warm_up: bool = True,
) -> Any:
    """Returns the server of a translator as an ASGI application, for a server of your own.

    It has `POST /translate`, `POST /explain`, `GET /health`, `GET /metrics` and, for people, the
    page `GET /`. One thread translates, so run one process per copy of the model.

    Args:
        translator: A `Translator`.
        limits: What is accepted; `Limits()` unless given.
        beam_size, length_penalty: As in `Translator.translate`, for requests that do not say.
        warm_up: Whether to compile the usual search before the first request: for sentences of up
            to 31 tokens, one or several at once. Requests wait meanwhile, and `GET /health` has
            the status 503.

    Raises:
        ValueError: If Starlette is not installed.

    Example:

    ```python
    application = kt.serving.app(kt.load_translator("runs/en-de"))
    ```
    """
    return _application(_service(translator, limits, beam_size, length_penalty), warm_up)


def serve(
    translator: Translator,
    host: str = "127.0.0.1",
    port: int = 8000,
    limits: Limits | None = None,
    beam_size: int = 4,
    length_penalty: float | str = 0.6,
    warm_up: bool = True,
) -> None:
    """Serves a translator over HTTP until SIGTERM or Ctrl-C; see `app`.

    A signal closes the port. The requests that were accepted are still answered. A second Ctrl-C
    ends at once.

    Args:
        translator: A `Translator`.
        host: The address to listen at. Unless given, only this machine can connect: anyone who can
            connect can translate.
        port: The port to listen at; 0 is any free one.
        limits, beam_size, length_penalty, warm_up: As in `app`.

    Raises:
        ValueError: If Starlette or uvicorn is not installed.
        OSError: If nothing can listen at this address.
    """
    try:
        import uvicorn
    except ImportError as error:
        raise ValueError(MISSING) from error
    service = _service(translator, limits, beam_size, length_penalty)
    config = uvicorn.Config(
        _application(service, warm_up),
        log_config=None,  # uvicorn's own would close the handlers of others, such as absl's
        log_level="warning",
        access_log=False,
        lifespan="on",
        limit_concurrency=CONNECTIONS,
        server_header=False,
    )
    with _listening(host, port) as found:
        name = f"[{host}]" if ":" in host else host
        say(f"serving at http://{name}:{found.getsockname()[1]}/ until Ctrl-C")
        try:
            with _sigterm_ends():
                uvicorn.Server(config).run(sockets=[found])
        finally:
            say(f"ended after {service.counters.answered:,} request(s)")


def _service(translator, limits, beam_size, length_penalty):
    return Service(translator, limits or Limits(), Search(beam_size, length_penalty))


def _application(service, warm_up):
    try:
        from keras_transformer.serving.endpoints import application
    except ModuleNotFoundError as error:
        raise ValueError(MISSING) from error
    return application(service, warm_up)


def _listening(host, port):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=CONNECTIONS)
    except (OSError, OverflowError) as error:
        raise OSError(
            f"Nothing can listen at {host}, port {port}: {error}. Choose another --host or --port."
        ) from error


@contextlib.contextmanager
def _sigterm_ends() -> Iterator[None]:
    """Inside this block SIGTERM ends the program with status 0; uvicorn passes it on at its end."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(*_):
        raise SystemExit(0)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
