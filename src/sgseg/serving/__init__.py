"""SGSeg over HTTP, and the viewer in which reports and masks can be corrected. Needs the extra `serve`."""

from sgseg.serving.app import create_app
from sgseg.serving.limits import Limits
from sgseg.serving.server import run

__all__ = ["Limits", "create_app", "run"]
