"""The shipped weights, each in a folder of its own with its model card."""

from pathlib import Path

SHIPPED = Path(__file__).parent / "sgseg-compact"
"""The artefact that `sgseg.load()` plays."""
