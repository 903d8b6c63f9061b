"""What the service takes on, so that no client can exhaust it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Bounds of the service.

    Attributes:
        upload_bytes: of one request's body; 413 above.
        pixels: of one image, by its header; 413 above.
        images: of one batch request; 413 above.
        requests: under way at once; 429 above.
        queue: images that may wait for the model; 429 above.
        seconds: for one request, its upload included; 503 after.
        kept_images: whose features stay in memory, so that another report costs only the decoder.
        kept_pixels: of these images together.
        answered_pixels: of the images whose answers are made at once, together; more wait.
    """

    upload_bytes: int = 32 * 2**20
    pixels: int = 25_000_000
    images: int = 16
    requests: int = 32
    queue: int = 64
    seconds: float = 30.0
    kept_images: int = 32
    kept_pixels: int = 200_000_000
    answered_pixels: int = 100_000_000


class PixelBudget:
    """Lets so many pixels through at once; an image larger than that passes alone. For one event loop."""

    def __init__(self, pixels: int) -> None:
        self._pixels = self._free = pixels
        self._freed = asyncio.Event()

    @asynccontextmanager
    async def spend(self, pixels: int) -> AsyncIterator[None]:
        """Waits for so many pixels, and gives them back at the end."""
        pixels = min(pixels, self._pixels)
        while self._free < pixels:
            self._freed.clear()
            await self._freed.wait()
        self._free -= pixels
        try:
            yield
        finally:
            self._free += pixels
            self._freed.set()
