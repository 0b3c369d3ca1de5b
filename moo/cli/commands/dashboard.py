"""moo dashboard: open a study in the Optuna dashboard."""

import argparse
from pathlib import Path

from rich.markup import escape

from moo.cli.arguments import Commands, add_folder, add_storage, whole
from moo.cli.console import out
from moo.cli.language import spoken


def add(commands: Commands) -> None:
    """Add the command."""
    parser = commands.command("dashboard", dashboard, "open a study in the Optuna dashboard")
    add_folder(parser)
    add_storage(parser, "Optuna storage (default DIR/study.db)")
    parser.option("--port", whole(1, 65_535), default=8080, help="TCP port (default 8080)")


def dashboard(options: argparse.Namespace) -> int:
    """Serve the dashboard until interrupted."""
    from moo.dashboard import serve

    serve(
        Path(options.out),
        storage=options.storage,
        port=options.port,
        announce=lambda text: out.print(escape(spoken(text)), highlight=False),
    )
    return 0
