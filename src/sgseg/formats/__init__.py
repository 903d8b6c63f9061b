"""Results as files and pictures: masks, overlays, contact sheets, JSON."""

from sgseg.formats.analysis import save_analysis
from sgseg.formats.atomic import atomic
from sgseg.formats.audit import save_audit
from sgseg.formats.mask import png_bytes, run_lengths, save_mask, save_picture
from sgseg.formats.overlay import overlay
from sgseg.formats.predictions import as_written, write_json
from sgseg.formats.sheet import SheetRow, contact_sheet
from sgseg.formats.zones import zone_grid

__all__ = [
    "SheetRow",
    "as_written",
    "atomic",
    "contact_sheet",
    "overlay",
    "png_bytes",
    "run_lengths",
    "save_analysis",
    "save_audit",
    "save_mask",
    "save_picture",
    "write_json",
    "zone_grid",
]
