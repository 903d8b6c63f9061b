"""What every request passes: the key, the bounds, the clock, the counters and the headers."""

from __future__ import annotations

import secrets
import time

import anyio
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sgseg.serving.limits import Limits
from sgseg.serving.metrics import Metrics

SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}

_GUARDED = ("/v1/", "/metrics")
_DRAINED_SECONDS = 5.0


class Gate:
    """Lets in what the service can hold, and no one without the key.

    Only `/v1/` and `/metrics` need the key and count against the bounds: health checks must answer under
    load, and the viewer's page asks for the key itself.
    """

    def __init__(self, app: ASGIApp, limits: Limits, metrics: Metrics, api_key: str | None) -> None:
        self._app = app
        self._limits = limits
        self._metrics = metrics
        self._key = None if api_key is None else api_key.encode()
        self._under_way = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.perf_counter(), 500

        async def send_on(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                _add_headers(message, scope["path"])
            await send(message)

        self._metrics.under_way.inc()
        try:
            await self._admit(scope, receive, send_on)
        finally:
            self._metrics.under_way.dec()
            route = getattr(scope.get("route"), "path", "other")
            self._metrics.requests.labels(route, str(status)).inc()
            self._metrics.seconds.labels(route).observe(time.perf_counter() - began)

    async def _admit(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not scope["path"].startswith(_GUARDED):
            await self._app(scope, receive, send)
        elif not self._knows_key(Headers(scope=scope)):
            await failure(401, "unauthorized", "give the API key as X-API-Key or as a bearer token")(
                scope, receive, send
            )
        elif self._under_way >= self._limits.requests:
            await failure(429, "too_many_requests", "too many requests at once; try again in a second")(
                scope, receive, send
            )
        else:
            self._under_way += 1
            try:
                await self._timed(scope, receive, send)
            finally:
                self._under_way -= 1

    async def _timed(self, scope: Scope, receive: Receive, send: Send) -> None:
        answering = False

        async def send_on(message: Message) -> None:
            nonlocal answering
            answering = True
            await send(message)

        with anyio.move_on_after(self._limits.seconds) as clock:
            await self._app(scope, self._bounded(receive), send_on)
        if clock.cancelled_caught and not answering:
            message = f"not finished after {self._limits.seconds:g} s; try again later"
            await failure(503, "timeout", message)(scope, receive, send)

    def _bounded(self, receive: Receive) -> Receive:
        """Counts the body's bytes as they come, whatever their header claimed."""
        got = 0

        async def receive_on() -> Message:
            nonlocal got
            message = await receive()
            got += len(message.get("body", b""))
            if got > self._limits.upload_bytes:
                await _drain(message, receive)
                raise HTTPException(413, f"the request is larger than {self._limits.upload_bytes:,} bytes")
            return message

        return receive_on

    def _knows_key(self, headers: Headers) -> bool:
        if self._key is None:
            return True
        scheme, _, token = headers.get("Authorization", "").partition(" ")
        given = headers.get("X-API-Key") or (token if scheme.lower() == "bearer" else "")
        return secrets.compare_digest(given.encode("latin-1"), self._key)  # the bytes as they were sent


def failure(status: int, code: str, message: str) -> JSONResponse:
    """An error as JSON; what may pass by itself says when to try again."""
    headers = {"Retry-After": "1"} if status in (429, 503) else None
    readable = message.encode("utf-8", "replace").decode()  # file names may hold lone surrogates
    return JSONResponse({"error": {"code": code, "message": readable}}, status, headers)


async def _drain(message: Message, receive: Receive) -> None:
    """Reads on without keeping anything: a client that still sends does not see the answer."""
    with anyio.move_on_after(_DRAINED_SECONDS):
        while message.get("more_body", False):
            message = await receive()


def _add_headers(message: Message, path: str) -> None:
    headers = MutableHeaders(scope=message)
    headers.update(SECURITY_HEADERS)
    headers["Cache-Control"] = "no-store" if path.startswith("/v1/") else "no-cache"
