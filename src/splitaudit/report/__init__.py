"""Finished runs as self-contained HTML pages. Reads nothing but the files of their folders."""

from splitaudit.report.folders import write_reports
from splitaudit.report.page import render_report, write_report
from splitaudit.report.seeds_page import render_seeds_report, write_seeds_report

__all__ = [
    "render_report",
    "render_seeds_report",
    "write_report",
    "write_reports",
    "write_seeds_report",
]
