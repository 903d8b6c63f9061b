"""From X-rays to predictions, without torch."""

from sgseg.inference.prediction import Prediction
from sgseg.inference.predictor import Predictor
from sgseg.inference.runtime import NO_REPORT, Encoded, Identity, OnnxRuntime, Runtime

__all__ = ["NO_REPORT", "Encoded", "Identity", "OnnxRuntime", "Prediction", "Predictor", "Runtime"]
