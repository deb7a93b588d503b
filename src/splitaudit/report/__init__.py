"""A finished run as one self-contained HTML page. Reads nothing but the files of the run's folder."""

from splitaudit.report.page import render_report, write_report

__all__ = ["render_report", "write_report"]
