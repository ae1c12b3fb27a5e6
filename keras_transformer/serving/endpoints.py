"""The paths of the server, as an application of Starlette."""

import asyncio
import base64
import contextlib
import hashlib
import re
import time
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from keras_transformer import __version__
from keras_transformer.serving import requests
from keras_transformer.serving.requests import Refusal
from keras_transformer.serving.service import Service
from keras_transformer.visualization.page import with_pictures

PATHS = ("POST /translate", "POST /explain", "GET /health", "GET /metrics", "GET /")


def application(service: Service, warm_up: bool) -> "Counted":
    """Returns the server of a service. Its batches are computed while its lifespan lasts."""

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        service.start(warm_up)
        yield
        await asyncio.to_thread(service.close)

    handlers = Handlers(service)
    routes = [
        Route(path, getattr(handlers, name), methods=[method])
        for method, path, name in (
            ("POST", "/translate", "translate"),
            ("POST", "/explain", "explain"),
            ("GET", "/health", "health"),
            ("GET", "/metrics", "metrics"),
            ("GET", "/", "page"),
        )
    ]
    errors = {
        Refusal: _refused,
        HTTPException: _unknown,
        ClientDisconnect: _gone,
        Exception: _failed,
    }
    return Counted(Starlette(routes=routes, lifespan=lifespan, exception_handlers=errors), service)


class Handlers:
    """One method per path."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self._page, self._policy = _page_and_policy()

    async def translate(self, request: Request) -> Response:
        service = self.service
        body = await _body(request, service.limits)
        asked = requests.read_translation(body, service.limits, service.defaults)
        answers = await service.translate(asked)
        return JSONResponse(answers[0] if asked.single else {"translations": answers})

    async def explain(self, request: Request) -> Response:
        service = self.service
        body = await _body(request, service.limits)
        asked = requests.read_explanation(body, service.limits, service.defaults)
        return JSONResponse(await service.explain(asked))

    async def health(self, request: Request) -> Response:
        state = self.service.state
        found = {
            "status": state,
            "version": __version__,
            "weights": self.service.translator.weights,
            "waiting": self.service.batcher.waiting,
        }
        return JSONResponse(found, 200 if state == "ok" else 503)

    async def metrics(self, request: Request) -> Response:
        text = self.service.counters.text(queue_sentences=self.service.batcher.waiting)
        return PlainTextResponse(text, media_type="text/plain; version=0.0.4; charset=utf-8")

    async def page(self, request: Request) -> Response:
        return HTMLResponse(self._page, headers={"Content-Security-Policy": self._policy})


def _page_and_policy():
    """Returns the page, and a policy that lets a browser run only its own script and style."""
    text = with_pictures(__package__)

    def hashed(tag):
        [inside] = re.findall(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        return base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()

    policy = (
        f"default-src 'none'; script-src 'sha256-{hashed('script')}'; "
        f"style-src 'sha256-{hashed('style')}'; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return text, policy


async def _body(request, limits) -> bytes:
    """Reads a JSON body within the limits of size and time."""
    kind = request.headers.get("content-type", "")
    # Other kinds may be sent by any page that a browser shows, without asking.
    if kind.partition(";")[0].strip().lower() != "application/json":
        raise Refusal(
            415, f"The body is JSON: send the header Content-Type: application/json, got {kind!r}."
        )
    body = bytearray()
    try:
        async with asyncio.timeout(limits.seconds):
            async for part in request.stream():
                body += part
                if len(body) > limits.body_bytes:  # uvicorn drops the rest
                    declared = request.headers.get("content-length", f"at least {len(body)}")
                    raise Refusal(
                        413,
                        f"The body has {declared} bytes, and at most {limits.body_bytes} are "
                        "allowed here. Send several requests.",
                    )
    except TimeoutError:
        raise Refusal(
            408, f"The body did not arrive within {limits.seconds:g} seconds, the limit here."
        ) from None
    return bytes(body)


async def _refused(request: Request, error: Any) -> Response:
    headers = {"Retry-After": "1"} if error.status == HTTPStatus.SERVICE_UNAVAILABLE else {}
    return JSONResponse({"error": error.message}, error.status, headers)


async def _unknown(request: Request, error: Any) -> Response:
    """Answers a path or a method that does not exist."""
    message = f"There is no {request.method} {request.url.path} here."
    return JSONResponse(
        {"error": f"{message} There are: {', '.join(PATHS)}."}, error.status_code, error.headers
    )


async def _gone(request: Request, error: Exception) -> Response:
    """Ends a request whose client went away before its body had arrived."""
    return Response(status_code=HTTPStatus.BAD_REQUEST)


async def _failed(request: Request, error: Exception) -> Response:
    """Answers after an error of the server. Its traceback is written to stderr."""
    return JSONResponse(
        {"error": f"The server failed: {type(error).__name__}: {str(error)[:300]}"}, 500
    )


class Counted:
    """Counts the requests of an application, with their statuses and seconds."""

    def __init__(self, app: Any, service: Service) -> None:
        self.app, self.service = app, service

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begin, path = time.perf_counter(), scope["path"]
        if not any(path == each.partition(" ")[2] for each in PATHS):
            path = "other"  # because a client could make up any number of paths

        async def counting(message):
            if message["type"] == "http.response.start":
                seconds = time.perf_counter() - begin
                self.service.counters.request(path, message["status"], seconds)
            await send(message)

        await self.app(scope, receive, counting)
