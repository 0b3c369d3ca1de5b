"""moo data: list and fetch data sets, purge a study's evidence."""

import argparse
import shutil
from pathlib import Path

from rich.table import Table

from moo.cli.arguments import Commands
from moo.cli.console import headers, out, say, show
from moo.cli.language import listed, spoken, words
from moo.core.errors import InputError


def add(commands: Commands) -> None:
    """Add the commands."""
    data = commands.group("data", "data sets: list, fetch, purge a study's evidence")
    data.command("list", list_data, "list the known data sets")
    fetch = data.command("fetch", fetch_data, "download a data set")
    fetch.add_argument("name", metavar="NAME", help="name of the data set, see moo data list")
    purge = data.command("purge", purge_study, "remove a study's evidence and cached activations")
    purge.add_argument("folder", metavar="DIR", help="folder of the study")


def list_data(_: argparse.Namespace) -> int:
    """Print the known data sets."""
    from moo.data.catalogue import DATASETS

    table = Table(*headers("name", "what it is", "unit of privacy", "download", "licence"), box=None)
    for d in DATASETS.values():
        size = f"{d.archive.megabytes} MB" if d.archive else words("none")
        table.add_row(d.name, spoken(d.title), spoken(d.unit), size, spoken(d.licence))
    out.print(table)
    say(out, "Your own: a path to CSV, Parquet or JSON Lines, with the columns named in a study's TOML.")
    return 0


def fetch_data(options: argparse.Namespace) -> int:
    """Download a data set and print its files."""
    from moo.cli.live import fetching
    from moo.data.catalogue import DATASETS, fetch_dataset, unknown_data

    name = options.name
    if name not in DATASETS:
        raise unknown_data(name)
    say(out, "Licence of {name}: {licence}", name=name, licence=spoken(DATASETS[name].licence))
    with fetching(out) as stage:
        what = words("fetching {name}", name=name)
        paths = fetch_dataset(name, progress=lambda done, total: stage(what, done, total))
    for path in paths:
        show(out, str(path))
    return 0


def purge_study(options: argparse.Namespace) -> int:
    """Remove a study's evidence, activations, checkpoints and logs."""
    folder = Path(options.folder)
    if not (folder / "study.key").is_file():
        raise InputError(
            "the folder must be a study's (with a study.key), but got {folder}; nothing was removed.", folder=folder
        )
    removed = [name for name in ("evidence", "trunk", "checkpoints", "logs") if (folder / name).is_dir()]
    for name in removed:
        shutil.rmtree(folder / name)
    if removed:
        say(out, "Removed from {folder}: {names}.", folder=folder, names=listed(removed))
    else:
        say(out, "Removed from {folder}: nothing was there.", folder=folder)
    return 0
