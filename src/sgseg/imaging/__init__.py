"""Chest X-rays: reading them, and the geometry to the network's square and back."""

from sgseg.imaging.chestxray import ChestXray
from sgseg.imaging.geometry import Box, fit, fit_mask, restore
from sgseg.imaging.reader import SUFFIXES, read

__all__ = ["SUFFIXES", "Box", "ChestXray", "fit", "fit_mask", "read", "restore"]
