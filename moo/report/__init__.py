"""The report of a study: one HTML file that needs nothing else, in English or Chinese."""

from typing import TYPE_CHECKING

from moo.core.lazy_names import lazy_names

__all__ = ["renew_reports", "save_report"]

if TYPE_CHECKING:
    from moo.report.html import renew_reports, save_report

__getattr__ = lazy_names(__name__, dict.fromkeys(__all__, "moo.report.html"))
