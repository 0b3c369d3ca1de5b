"""moo models: list and fetch base models."""

import argparse
import json

from rich.table import Table

from moo.cli.arguments import Commands
from moo.cli.console import headers, out, say, show
from moo.cli.language import listed, spoken, words


def add(commands: Commands) -> None:
    """Add the commands."""
    models = commands.group("models", "base models: list, fetch")
    models.command("list", list_models, "list the known base models")
    fetch = models.command("fetch", fetch_base, "download and convert a base model")
    fetch.add_argument("name", metavar="NAME", help="name of the model, see moo models list")


def list_models(_: argparse.Namespace) -> int:
    """Print the known base models."""
    from moo.models.pretrained.loading import REGISTRY

    table = Table(*headers("name", "what it is", "languages", "download", "licence"), box=None)
    for m in REGISTRY.values():
        table.add_row(m.name, spoken(m.title), spoken(m.languages), f"{m.download_mb} MB", spoken(m.licence))
    out.print(table)
    say(out, "Others: a hub id or a local folder; safetensors only, no remote code.")
    return 0


def fetch_base(options: argparse.Namespace) -> int:
    """Download and convert a base model, and print how it was checked."""
    from moo.cli.live import fetching
    from moo.models.pretrained.catalogue import fetch_model, registered

    name = options.name
    say(out, "Licence of {name}: {licence}", name=name, licence=spoken(registered(name).licence))
    with fetching(out) as stage:
        what = words("fetching {name}", name=name)
        path = fetch_model(name, lambda done, total: stage(what, done, total))
    checked = json.loads((path / "checked.json").read_text())
    show(out, str(path))
    say(out, "checked: {values}", values=listed([f"{spoken(check)} {value:.3f}" for check, value in checked.items()]))
    return 0
