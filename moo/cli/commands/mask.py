"""moo mask: mask a text, lines or a table, or measure the masker itself."""

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from moo.cli.arguments import Commands, Parser, add_reading, filled, whole
from moo.cli.console import headers, out, say
from moo.cli.language import spoken, words
from moo.core.errors import InputError
from moo.core.messages import Message
from moo.core.personal_data_types import MAX_LEVEL

if TYPE_CHECKING:
    from moo.masking.tables.files import MaskedFile

# Synthetic records of each language and wording
EVALUATED = 30_000


def add(commands: Commands) -> None:
    """Add the command."""
    parser = commands.command("mask", mask, "mask a text, lines from standard input, or a table")
    parser.add_argument("text", nargs="?", metavar="TEXT|FILE", help="a text, or a .csv, .tsv, .jsonl or .parquet file")
    parser.option("--level", whole(0, MAX_LEVEL), default=2, metavar="L", help="masking level, 0 to 5 (default 2)")
    parser.option("--out", filled, metavar="FILE", help="masked file to write; with --evaluate, its figures")
    _add_columns(parser)
    parser.add_argument(
        "--ner",
        action="store_true",
        help="use the optional recogniser of Chinese names too (moo-privacy[ner]); much slower",
    )
    parser.option("--workers", whole(1, 256), default=1, metavar="N", help="processes that mask a file (default 1)")
    add_reading(parser)
    parser.add_argument("--explain", action="store_true", help="show what was masked and why")
    parser.option(
        "--evaluate",
        whole(1, 10_000_000),
        nargs="?",
        const=EVALUATED,
        metavar="N",
        help=Message("measure recall and precision on N synthetic records of each kind (default {n:,})", n=EVALUATED),
    )


def _add_columns(parser: Parser) -> None:
    parser.add_argument(
        "--columns",
        metavar="COLUMN=ROLE[,...]",
        default="",
        help="roles of columns: text, keep, or a type such as name, mobile, age (default: by the column's name, else "
        "text)",
    )
    parser.add_argument(
        "--operator",
        metavar="TYPE=OP",
        action="append",
        default=[],
        help="token, bin, hmac (key in MOO_MASK_KEY) or redact for a type; may be repeated",
    )


def mask(options: argparse.Namespace) -> int:
    """Mask a file or texts, or evaluate the masker."""
    if options.evaluate is not None:
        from moo.cli.commands.mask_evaluation import evaluate

        return evaluate(options, out)
    if options.text is not None and (options.out or _is_table(options.text)):
        return _mask_file(options, out)
    return _mask_texts(options, out)


def _is_table(text: str) -> bool:
    from moo.tables import FORMATS

    return "\n" not in text and len(text) < 1000 and Path(text).suffix.lower() in FORMATS


def _pairs(items: Iterable[str], option: str) -> dict[str, str]:
    """Return NAME=VALUE pairs of an option as a dictionary."""
    pairs = {}
    for item in items:
        name, mark, value = item.rpartition("=")
        if not mark or not name or not value:
            raise InputError("{option} must be NAME=VALUE, got {item!r}.", option=option, item=item)
        pairs[name.strip()] = value.strip()
    return pairs


def _mask_texts(options: argparse.Namespace, out: Console) -> int:
    from moo.masking import Operators, apply, find_spans

    operators = Operators.from_environment(_pairs(options.operator, "--operator"))
    for line in [options.text] if options.text is not None else sys.stdin:
        text = line.rstrip("\n")
        spans = find_spans(text, options.level, operators=operators, ner=options.ner)
        sys.stdout.write(apply(text, spans) + "\n")
        if options.explain:
            sys.stdout.flush()
            table = Table(*headers("from", "to", "masked text", "type", "level", "why"), box=None)
            for s in spans:
                cells = (escape(text[s.start : s.end]), s.type, f"L{s.level}", spoken(s.why))
                table.add_row(str(s.start), str(s.end), *cells)
            out.print(table)
    return 0


def _mask_file(options: argparse.Namespace, out: Console) -> int:
    from moo.cli.live import fetching
    from moo.masking import Operators
    from moo.masking.tables.columns import ColumnPlan
    from moo.masking.tables.files import mask_file
    from moo.tables import Reading

    if not options.out:
        raise InputError("a masked file needs a target: give --out FILE; {text} was not read.", text=options.text)
    plan = ColumnPlan(
        level=options.level,
        roles=_pairs((c for c in options.columns.split(",") if c), "--columns"),
        operators=Operators.from_environment(_pairs(options.operator, "--operator")),
        ner=options.ner,
    )
    with fetching(out) as stage:
        what = words("masking {file}", file=options.text)
        masked = mask_file(
            Path(options.text),
            Path(options.out),
            plan,
            progress=lambda done, total: stage(what, done, total),
            workers=options.workers,
            reading=Reading(encoding=options.encoding, separator=options.separator),
        )
    _print_masked(out, masked, explain=options.explain)
    if masked.keys:
        say(
            out,
            "[yellow]Left unchanged although they identify rows: {columns}. Whoever holds the other table joins them "
            "to "
            "a person: drop them, or hash them with --columns NAME=order_number --operator order_number=hmac.[/]",
            columns=escape(", ".join(masked.keys)),
        )
    say(out, "Written: {file}, {rows:,} records at L{level}.", file=options.out, rows=masked.rows, level=options.level)
    return 0


def _print_masked(out: Console, masked: "MaskedFile", *, explain: bool) -> None:
    last = headers("mentions masked")
    table = Table(*headers("column", "taken as"), *(headers("type", "why") if explain else []), *last, box=None)
    for column, role in masked.columns.items():
        mine = {(kind, why): n for (c, kind, why), n in masked.counts.items() if c == column}
        if not explain:
            table.add_row(escape(column), role, f"{sum(mine.values()):,}")
            continue
        for (kind, why), n in sorted(mine.items(), key=lambda item: -item[1]) or [(("", ""), 0)]:
            table.add_row(escape(column), role, kind, spoken(why), f"{n:,}")
    out.print(table)
