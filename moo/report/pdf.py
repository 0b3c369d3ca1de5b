"""Printing of a page to PDF by an installed browser."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from moo.core.errors import MachineError

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "msedge")
# seconds that a browser may take
_PATIENCE = 120.0


def find_browser() -> str | None:
    """Return `MOO_BROWSER`, else an installed Chromium; None without one."""
    chosen = os.environ.get("MOO_BROWSER")
    return chosen or next((path for name in BROWSERS if (path := shutil.which(name))), None)


def print_pdf(page: Path, browser: str) -> Path:
    """Print a page through a headless browser.

    Raises:
        MachineError: If the browser fails.
    """
    target = page.with_suffix(".pdf")
    with tempfile.TemporaryDirectory() as profile:
        command = [
            browser,
            "--headless",
            "--disable-gpu",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-sync",
            "--disable-component-update",
            "--no-pdf-header-footer",
            f"--user-data-dir={profile}",
            *(["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []),
            f"--print-to-pdf={target.resolve()}",
            page.resolve().as_uri(),
        ]
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=_PATIENCE)
        except (OSError, subprocess.SubprocessError) as error:
            raise MachineError(
                "the browser {browser} must print {page}, but: {error}; leave it out with --no-pdf.",
                browser=browser,
                page=page,
                error=error,
            ) from error
    if not target.is_file():
        raise MachineError(
            "the browser {browser} must write {target}, but did not; leave it out with --no-pdf.",
            browser=browser,
            target=target,
        )
    return target
