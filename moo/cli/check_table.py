"""Table and lines of `moo compliance check`."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from moo.cli.console import headers, out, say
from moo.cli.language import language, listed, spoken, words

if TYPE_CHECKING:
    from moo.data.tables.check import DataCheck
    from moo.studies.spec.study import StudySpec

_COLOUR = {"pass": "green", "fail": "bold red", "not assessed": "yellow"}


def print_check(spec: "StudySpec", checked: "DataCheck", rows: Sequence[Mapping[str, Any]], has_dossier: bool) -> None:
    """Print the verdict of every gate, and what a study would do with the table.

    Args:
        spec: Study that the table belongs to.
        checked: Check of the table.
        rows: One row a gate, as `evaluate` makes them.
        has_dossier: True if the gates of the organisation were judged too.
    """
    from moo.studies.setup.legal_gates import notes_of

    say(
        out,
        "{data} as of {day}, for {purpose}: {rows:,} rows of {units:,} units",
        data=spec.data,
        day=spec.as_of,
        purpose=spec.purpose,
        rows=checked.rows,
        units=checked.units,
    )
    out.print(_gates(checked, rows))
    _print_missing(spec, checked)
    if not spec.gates:
        say(out, "[yellow]The study sets gates = false: it judges none of these, and none of them stops it.[/]")
    for note in notes_of({"declare": spec.declare}):
        say(out, "[yellow]{note}.[/]", note=escape(spoken(note)))
    _print_drops(checked)
    if not has_dossier:
        say(out, "Gates of the organisation (G08 to G16) were not looked at: no dossier was given.")
    for problem in checked.problems[1:]:
        say(out, "[bold red]bad input[/] {problem}", problem=escape(spoken(problem)))


def _gates(checked: "DataCheck", rows: Sequence[Mapping[str, Any]]) -> Table:
    """Return one row a gate."""
    table = Table(*headers("rule", "requirement", "verdict", "rows", "first", "article"), box=None)
    for row in rows:
        facts = (key.removeprefix("data.") for key in row["facts"])
        broken = [checked.breaches[fact] for fact in facts if fact in checked.breaches]
        count = f"{sum(b.rows for b in broken):,}" if broken else ""
        first = broken[0].places[0] if broken else ""
        verdict = f"[{_COLOUR[row['verdict']]}]{words(row['verdict'])}[/]"
        table.add_row(row["rule"], row[f"title_{language()}"], verdict, count, first, row["article"])
    return table


def _print_missing(spec: "StudySpec", checked: "DataCheck") -> None:
    from moo.data.tables.columns import BASES
    from moo.studies.setup.legal_gates import WANTED

    missing = [name for name in checked.missing if name != "tags" or "profiling" in spec.applies]
    if missing:
        say(
            out,
            "Not assessed for want of columns: {columns}. An unknown gate is not met and stops a study: add the "
            "columns, "
            r"or state what holds for the whole table under \[declare] in the study's TOML.",
            columns=listed(missing),
        )
        for name in missing:
            say(out, "  {column}: {content}", column=name, content=spoken(WANTED[name]))
    for value, n in checked.unlisted.items():
        say(
            out,
            "basis {value} is no lawful basis ({n:,} rows); choose {known}.",
            value=escape(repr(value)),
            n=n,
            known=listed(list(BASES)),
        )


def _print_drops(checked: "DataCheck") -> None:
    """Print the rows that a study drops or changes."""
    if checked.dropped:
        say(
            out,
            "The filter of a study would drop {dropped:,} of {rows:,} rows.",
            dropped=checked.dropped,
            rows=checked.rows,
        )
    if checked.unlabelled:
        say(out, "Rows without a label, which a study drops: {n:,}.", n=checked.unlabelled)
    if checked.stripped:
        say(out, "Labels with blanks around them, which a study takes away: {n:,}.", n=checked.stripped)
    if checked.not_found:
        say(out, "Listed users who were not found in the data: {n:,}.", n=checked.not_found)
