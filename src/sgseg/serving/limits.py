"""What the service takes on, so that no client can exhaust it."""

from __future__ import annotations

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
    """

    upload_bytes: int = 32 * 2**20
    pixels: int = 25_000_000
    images: int = 16
    requests: int = 32
    queue: int = 64
    seconds: float = 30.0
    kept_images: int = 32
    kept_pixels: int = 200_000_000
