"""From X-rays to predictions, without torch."""

from sgseg.inference.prediction import Prediction
from sgseg.inference.predictor import Predictor
from sgseg.inference.runtime import Encoded, Identity, OnnxRuntime, Runtime

__all__ = ["Encoded", "Identity", "OnnxRuntime", "Prediction", "Predictor", "Runtime"]
