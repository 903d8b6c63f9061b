"""Data sets as files: which cases there are, where they lie and what their reports say."""

from sgseg.data.cases import Case, load_mask
from sgseg.data.layouts import read_cases, split_names

__all__ = ["Case", "load_mask", "read_cases", "split_names"]
