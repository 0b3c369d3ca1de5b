"""The report of a study: one HTML file that needs nothing beside it, in English or Chinese."""

from moo.report.page import save_report

__all__ = ["save_report"]
