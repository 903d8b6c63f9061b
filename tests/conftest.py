"""Fixtures that several test files share: where the real data are, if they are."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

_BESIDE = Path(__file__).resolve().parents[2] / "shared"


def _root(variable: str, folder: str) -> Path:
    root = Path(os.environ.get(variable) or _BESIDE / folder)
    if not root.is_dir():
        pytest.skip(f"no data at {root}; set {variable} to the folder of the data set")
    return root


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Decoded X-rays go into a folder of the tests, not into the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SGSEG_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def qata_root() -> Path:
    """QaTa-COV19 in the authors' layout: SGSEG_QATA, or ../shared/qata beside the checkout."""
    return _root("SGSEG_QATA", "qata")


@pytest.fixture(scope="session")
def healthy_root() -> Path:
    """X-rays without a finding: SGSEG_HEALTHY, or ../shared/healthy beside the checkout."""
    return _root("SGSEG_HEALTHY", "healthy")
