"""Runs the service until it is told to stop."""

from __future__ import annotations

import uvicorn

from sgseg.inference import Predictor
from sgseg.serving.app import create_app
from sgseg.serving.limits import Limits


def run(predictor: Predictor, host: str, port: int, limits: Limits, api_key: str | None) -> None:
    """Serves until SIGINT or SIGTERM; requests that are under way are finished first.

    Args:
        predictor: answers.
        host: address to listen at.
        port: to listen at.
        limits: what the service takes on.
        api_key: that clients must send, if any.
    """
    uvicorn.run(
        create_app(predictor, limits, api_key),
        host=host,
        port=port,
        ws="none",
        log_level="warning",
        server_header=False,
        timeout_graceful_shutdown=round(limits.seconds),
    )
