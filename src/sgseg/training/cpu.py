"""What makes training fast on plain CPUs."""

from __future__ import annotations

import ctypes
import sys
import time

import torch

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def keep_freed_memory() -> None:
    """Tells glibc to keep freed memory for the next step instead of returning it to the system.

    By default each large tensor is mapped and unmapped anew, and every step pays for the page faults:
    a step at 224 px took a quarter less time without them. Elsewhere than on glibc this does nothing.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def bfloat16_pays() -> bool:
    """Measures whether a convolution is faster in bfloat16 here, as with AVX-512-BF16 or AMX."""
    return _seconds(torch.bfloat16) < 0.8 * _seconds(torch.float32)


def _seconds(dtype: torch.dtype) -> float:
    """Best of ten forward and backward passes of a 3×3 convolution."""
    x = torch.randn(8, 64, 56, 56, dtype=dtype).to(memory_format=torch.channels_last).requires_grad_()
    weight = torch.randn(64, 64, 3, 3, dtype=dtype, requires_grad=True)
    best = float("inf")
    for _ in range(10):
        start = time.perf_counter()
        torch.nn.functional.conv2d(x, weight, padding=1).sum().backward()
        best = min(best, time.perf_counter() - start)
    return best
