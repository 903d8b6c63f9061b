"""How a file's rows and columns lie on the patient, and the way to the standard hanging and back."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

_Scalar = TypeVar("_Scalar", bound=np.generic)


class Hanging(NamedTuple):
    """What turns a file's rows and columns into a frontal X-ray hung the standard way.

    Hung the standard way, columns run to the patient's left and rows to the feet, so that the patient's
    right lung is at the left of the image. Applied in the order of the attributes.

    Attributes:
        transpose: the file's rows run along the body, head to feet or feet to head.
        upside_down: then, the rows run to the head.
        mirror: then, the columns run to the patient's right.
    """

    transpose: bool = False
    upside_down: bool = False
    mirror: bool = False

    @classmethod
    def of(cls, row: str, column: str) -> Hanging | None:
        """From DICOM's Patient Orientation (0020,0020), PS3.3 C.7.6.1.1.1.

        Args:
            row: where the first row runs to, from its first pixel to its last: "L", "R", "H" or "F", with
                further letters if it runs obliquely.
            column: where the first column runs to.

        Returns:
            None if these are not the two directions of a frontal view.
        """
        across, down = row[:1], column[:1]
        transpose = across in ("H", "F")
        if transpose:
            across, down = down, across
        if across not in ("L", "R") or down not in ("H", "F"):
            return None
        return cls(transpose, upside_down=down == "H", mirror=across == "R")

    def hung(self, stored: NDArray[_Scalar]) -> NDArray[_Scalar]:
        """A view of the file's array (H, W) as it hangs: (H, W), or (W, H) if it is transposed."""
        return self._flipped(stored.T if self.transpose else stored)

    def stored(self, hung: NDArray[_Scalar]) -> NDArray[_Scalar]:
        """The inverse of `hung`: a view in the file's own rows and columns."""
        flipped = self._flipped(hung)
        return flipped.T if self.transpose else flipped

    def _flipped(self, array: NDArray[Any]) -> NDArray[Any]:
        return array[:: -1 if self.upside_down else 1, :: -1 if self.mirror else 1]


STANDARD = Hanging()
