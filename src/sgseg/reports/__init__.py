"""The language of reports: zones <-> sentence, and which report guides the decoder."""

from sgseg.reports.grammar import NO_INFECTION, all_reports, parse, write
from sgseg.reports.guidance import (
    NO_REPORT,
    SOFT_REPORTS,
    Guidance,
    likeliest_reports,
    report_probabilities,
)
from sgseg.reports.refinement import Refinement, refine

__all__ = [
    "NO_INFECTION",
    "NO_REPORT",
    "SOFT_REPORTS",
    "Guidance",
    "Refinement",
    "all_reports",
    "likeliest_reports",
    "parse",
    "refine",
    "report_probabilities",
    "write",
]
