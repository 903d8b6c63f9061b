"""Chest X-rays: reading them, and the geometry to the network's square and back."""

from sgseg.imaging.chestxray import ChestXray
from sgseg.imaging.dicom import DICOMDIR, holds_dicom, listed_files
from sgseg.imaging.geometry import Box, fit, fit_mask, restore
from sgseg.imaging.hanging import Hanging
from sgseg.imaging.reader import SUFFIXES, read, read_bytes

__all__ = [
    "DICOMDIR",
    "SUFFIXES",
    "Box",
    "ChestXray",
    "Hanging",
    "fit",
    "fit_mask",
    "holds_dicom",
    "listed_files",
    "read",
    "read_bytes",
    "restore",
]
