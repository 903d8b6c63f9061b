"""Many files at once."""

from sgseg.batch.demo import SEEDS, demonstrate
from sgseg.batch.inputs import find_images, result_names
from sgseg.batch.predict import RESULTS, Results, describe, predict_files

__all__ = [
    "RESULTS",
    "SEEDS",
    "Results",
    "demonstrate",
    "describe",
    "find_images",
    "predict_files",
    "result_names",
]
