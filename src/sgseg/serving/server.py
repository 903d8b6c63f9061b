"""Runs the service until it is told to stop."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress

import uvicorn

from sgseg.inference import Predictor
from sgseg.serving.app import create_app
from sgseg.serving.limits import Limits


class _Server(uvicorn.Server):
    """Tells where it listens, once it does."""

    def __init__(self, config: uvicorn.Config, announce: Callable[[int], None]) -> None:
        super().__init__(config)
        self._announce = announce

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._announce(self.servers[0].sockets[0].getsockname()[1])


def run(
    predictor: Predictor,
    host: str,
    port: int,
    limits: Limits,
    api_key: str | None,
    announce: Callable[[int], None] = lambda port: None,
) -> None:
    """Serves until SIGINT or SIGTERM; requests that are under way are finished first.

    Args:
        predictor: answers.
        host: address to listen at.
        port: to listen at; 0 takes a free one.
        limits: what the service takes on.
        api_key: that clients must send, if any.
        announce: called with the port when it listens there.
    """
    config = uvicorn.Config(
        create_app(predictor, limits, api_key),
        host=host,
        port=port,
        ws="none",
        log_level="warning",
        server_header=False,
        timeout_graceful_shutdown=round(limits.seconds),
    )
    with suppress(KeyboardInterrupt):  # it has ended by then
        _Server(config, announce).run()
