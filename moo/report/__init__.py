"""The report of a study: one HTML file that needs nothing beside it, in English or Chinese."""

from moo.report.html import renew_reports, save_report

__all__ = ["renew_reports", "save_report"]
