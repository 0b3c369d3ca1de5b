"""moo confirm: train the front again, and the recommendation on a fresh split."""

import argparse
from pathlib import Path

from moo.cli.arguments import Commands, add_folder, even
from moo.cli.console import out, say
from moo.core.messages import LANGUAGES


def add(commands: Commands) -> None:
    """Add the command."""
    parser = commands.command(
        "confirm", confirm, "train the front again with more shadows, and the recommendation on a fresh split"
    )
    add_folder(parser)
    parser.option("--shadows", even(4, 1024), default=8, metavar="K", help="shadows of each training, even (default 8)")
    parser.add_argument("--lang", choices=LANGUAGES, default="en", help="language of report and terminal (default en)")


def confirm(options: argparse.Namespace) -> int:
    """Confirm the study in a folder."""
    return confirm_study(Path(options.out), shadows=options.shadows, lang=options.lang)


def confirm_study(folder: Path, *, shadows: int, lang: str) -> int:
    """Train the front again, renew the reports and print the result.

    Args:
        folder: Folder of a study that ran.
        shadows: Shadows of each training, even.
        lang: Language of the report.
    """
    from moo.cli.live import fetching
    from moo.cli.risk_lines import print_refined
    from moo.cli.tables import print_result
    from moo.report import renew_reports, save_report
    from moo.studies.workflows.confirm import confirm as train_again

    with fetching(out) as stage:
        result = train_again(folder, n_shadows=shadows, stage=stage)
    result.save(folder)
    written = save_report(result, folder, lang=lang)
    renew_reports(folder, but=lang)
    print_refined(out, result)
    print_result(out, result)
    say(out, "\nWritten: {files}", files=f"{folder}/front.csv, front.json, {written.name}")
    return 0
