"""What a run is shown by: metrics, pictures, and a page."""

from naign_ext.report.write import Report, write_report

__all__ = ["Report", "write_report"]
