"""SGSeg: chest X-ray segmentation that writes its own report and is guided by it."""

__version__ = "0.1.0"
