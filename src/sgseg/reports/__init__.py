"""The language of reports: zones <-> sentence, and which report guides the decoder."""

from sgseg.reports.grammar import NO_INFECTION, parse, write
from sgseg.reports.guidance import (
    NO_REPORT,
    SOFT_REPORTS,
    Guidance,
    likeliest_reports,
    report_probabilities,
)

__all__ = [
    "NO_INFECTION",
    "NO_REPORT",
    "SOFT_REPORTS",
    "Guidance",
    "likeliest_reports",
    "parse",
    "report_probabilities",
    "write",
]
