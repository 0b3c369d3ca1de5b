"""`moo mask`: a text, lines, a table, or the measurement of the masker itself."""

import argparse
import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from moo.cli.arguments import Parser, add_reading, filled, whole
from moo.cli.console import say
from moo.core.errors import InputError
from moo.core.personal_data_types import MAX_LEVEL

if TYPE_CHECKING:
    from moo.masking.evaluation.evaluate import Evaluation
    from moo.masking.tables.files import Masked

EVALUATED = 30_000  # records of each language and wording
_SEED = 11  # of the evaluated notes; public


def add_options(parser: Parser) -> None:
    """The options of the command."""
    parser.add_argument("text", nargs="?", metavar="TEXT|FILE", help="a text, or a .csv, .tsv, .jsonl or .parquet file")
    parser.option("--level", whole(0, MAX_LEVEL), default=2, metavar="L", help="0 to 5 (default 2)")
    parser.option("--out", filled, metavar="FILE", help="where a masked file (or, with --evaluate, the figures) goes")
    parser.add_argument(
        "--columns",
        metavar="COLUMN=ROLE[,...]",
        default="",
        help="what columns hold: text, keep, or a type as name, mobile, age (default: by the column's name, else text)",
    )
    parser.add_argument(
        "--operator",
        metavar="TYPE=OP",
        action="append",
        default=[],
        help="token, bin, hmac (key in MOO_MASK_KEY) or redact for a type; may be repeated",
    )
    parser.add_argument(
        "--ner",
        action="store_true",
        help="ask the optional recogniser of Chinese names too (moo-privacy[ner]); much slower",
    )
    parser.option("--workers", whole(1, 256), default=1, metavar="N", help="processes that mask a file (default 1)")
    add_reading(parser, "the file")
    parser.add_argument("--explain", action="store_true", help="show what was masked and why")
    parser.option(
        "--evaluate",
        whole(1, 10_000_000),
        nargs="?",
        const=EVALUATED,
        metavar="N",
        help=f"measure recall and precision on N synthetic records of each kind (default {EVALUATED:,})",
    )


def mask(options: argparse.Namespace, out: Console) -> int:
    """Do what the options say."""
    if options.evaluate is not None:
        return _evaluate(options, out)
    if options.text is not None and (options.out or _is_table(options.text)):
        return _mask_file(options, out)
    return _mask_texts(options, out)


def _is_table(text: str) -> bool:
    from moo.tables import FORMATS

    return "\n" not in text and len(text) < 1000 and Path(text).suffix.lower() in FORMATS


def _pairs(items: Iterable[str], what: str) -> dict[str, str]:
    out = {}
    for item in items:
        name, mark, value = item.rpartition("=")
        if not mark or not name or not value:
            raise InputError("{what} must be NAME=VALUE, but got {item!r}.", what=what, item=item)
        out[name.strip()] = value.strip()
    return out


def _mask_texts(options: argparse.Namespace, out: Console) -> int:
    from moo.masking import Operators, apply, find_spans

    operators = Operators.from_environment(_pairs(options.operator, "an operator"))
    for line in [options.text] if options.text is not None else sys.stdin:
        text = line.rstrip("\n")
        spans = find_spans(text, options.level, operators=operators, ner=options.ner)
        sys.stdout.write(apply(text, spans) + "\n")
        if options.explain:
            sys.stdout.flush()
            table = Table("from", "to", "what stood there", "type", "level", "why", box=None)
            for s in spans:
                table.add_row(str(s.start), str(s.end), _plain(text[s.start : s.end]), s.type, f"L{s.level}", s.why)
            out.print(table)
    return 0


def _plain(text: str) -> str:
    return text.replace("[", r"\[")


def _mask_file(options: argparse.Namespace, out: Console) -> int:
    from moo.cli import tables
    from moo.masking import Operators
    from moo.masking.tables.columns import Columns
    from moo.masking.tables.files import mask_file
    from moo.tables import Reading

    if not options.out:
        raise InputError("a masked file needs a place: give --out FILE; {text} was not read.", text=options.text)
    columns = Columns(
        level=options.level,
        roles=_pairs((c for c in options.columns.split(",") if c), "a column"),
        operators=Operators.from_environment(_pairs(options.operator, "an operator")),
        ner=options.ner,
    )
    with tables.fetching(out) as stage:
        masked = mask_file(
            Path(options.text),
            Path(options.out),
            columns,
            progress=lambda done, total: stage(f"masking {options.text}", done, total),
            workers=options.workers,
            reading=Reading(encoding=options.encoding, separator=options.separator),
        )
    _print_masked(out, masked, explain=options.explain)
    if masked.keys:
        say(
            out,
            f"[yellow]Left as they are, and they tell rows apart: {_plain(', '.join(masked.keys))}. Whoever holds the "
            "other table joins them to a person: drop them, or hash them with --columns NAME=order_number "
            "--operator order_number=hmac.[/]",
        )
    say(out, f"Written: {options.out}, {masked.rows:,} records at L{options.level}.")
    return 0


def _print_masked(out: Console, masked: "Masked", *, explain: bool) -> None:
    table = Table("column", "taken as", *(["type", "why"] if explain else []), "mentions masked", box=None)
    for column, role in masked.columns.items():
        mine = {(kind, why): n for (c, kind, why), n in masked.seen.items() if c == column}
        if not explain:
            table.add_row(_plain(column), role, f"{sum(mine.values()):,}")
            continue
        for (kind, why), n in sorted(mine.items(), key=lambda item: -item[1]) or [(("", ""), 0)]:
            table.add_row(_plain(column), role, kind, why, f"{n:,}")
    out.print(table)


def _evaluate(options: argparse.Namespace, out: Console) -> int:
    from moo.cli import tables

    results: list[tuple[Evaluation, Evaluation | None]] = []
    with tables.fetching(out) as stage:
        for name, texts, gold, fields, levels in _sets(options.evaluate):
            for level in levels:
                stage(f"{name}, L{level}", 0, 0)
                results.append(_twice(name, texts, gold, fields, level, ner=options.ner))
    cases = _cases()
    _print_groups(out, results)
    _print_types(out, [alone for alone, _ in results])
    table = Table("hard cases", "texts", "passed", box=None)
    for kind, (n, share) in cases.items():
        table.add_row(kind, str(n), f"{share:.3f}")
    out.print(table)
    if options.out:
        Path(options.out).write_text(json.dumps(_figures(results, cases), indent=1) + "\n", encoding="utf-8")
        say(out, f"Written: {options.out}")
    return 0


def _sets(n: int) -> Iterable[tuple[str, Any, Any, Any, tuple[int, ...]]]:
    """Name, texts, gold, own fields and levels of each set."""
    from moo.data.sources.labelled_contacts import load_labelled
    from moo.data.synthetic.free_wording import free_notes
    from moo.data.synthetic.order_notes import synthetic_notes

    for language in ("zh", "en"):
        shop = synthetic_notes(n, seed=_SEED, language=language)
        yield f"{language} shop's forms", shop.texts, shop.gold, shop.fields, (1, 2, 4)
        free = free_notes(n, seed=_SEED, language=language)
        yield f"{language} free wording", free.texts, free.gold, free.fields, (1, 2, 4)
        for which, name in enumerate(("held out", "held out, second")[: 2 if language == "zh" else 1], 1):
            held = free_notes(n, seed=_SEED, language=language, held_out=which)
            yield f"{language} {name}", held.texts, held.gold, held.fields, (1, 2)
    real = load_labelled()
    yield "zh real reviews", real.texts, real.gold, None, (1,)


def _twice(
    name: str, texts: Any, gold: Any, fields: Any, level: int, *, ner: bool
) -> "tuple[Evaluation, Evaluation | None]":
    """Without the records' own fields, and with them where there are any."""
    from moo.masking.evaluation.evaluate import evaluate

    alone = evaluate(texts, gold, level, name=name, ner=ner)
    return alone, None if fields is None else evaluate(texts, gold, level, name=name, fields=fields, ner=ner)


def _cases() -> dict[str, tuple[int, float]]:
    from moo.masking.evaluation.cases import KINDS, load_cases, score_cases

    return {kind: (len(cases := load_cases(kind)), score_cases(cases)) for kind in KINDS}


def _print_groups(out: Console, results: "list[tuple[Evaluation, Evaluation | None]]") -> None:
    names = (
        "set",
        "level",
        "group",
        "entities",
        "recall",
        "at least",
        "with own fields",
        "precision",
        "by bits",
        "F2",
        "masked",
    )
    table = Table(
        title="Without the records' own fields, which are searched for in one column", box=None, pad_edge=False
    )
    for name in names:
        table.add_column(name, justify="left" if name in ("set", "group") else "right", no_wrap=True)
    for alone, own in results:
        with_fields = {} if own is None else {s.name: f"{s.recall:.4f}" for s in own.groups}
        for i, s in enumerate(alone.groups):
            first = (alone.name, f"L{alone.level}") if i == 0 else ("", "")
            last = f"{100 * alone.characters_masked:.2f} %" if i == 0 else ""
            table.add_row(
                *first, s.name, f"{s.entities:,}", f"{s.recall:.4f}", f"{s.recall_low:.4f}", with_fields.get(s.name, ""),
                f"{s.precision:.4f}", f"{s.precision_bits:.4f}", f"{s.f2:.4f}", last,
            )  # fmt: skip
    out.print(table)


def _print_types(out: Console, results: "list[Evaluation]") -> None:
    """By type, at the highest level of each set."""
    last = {e.name: e for e in results}
    table = Table(title="By type, at the highest level of each set: recall (entities)", box=None, pad_edge=False)
    table.add_column("type")
    for name in last:
        table.add_column(name, justify="right")
    kinds = dict.fromkeys(s.name for e in last.values() for s in e.types if s.entities)
    for kind in kinds:
        cells = [next((s for s in e.types if s.name == kind and s.entities), None) for e in last.values()]
        table.add_row(kind, *("" if s is None else f"{s.recall:.3f} ({s.entities:,})" for s in cells))
    out.print(table)


def _figures(
    results: "list[tuple[Evaluation, Evaluation | None]]", cases: Mapping[str, tuple[int, float]]
) -> dict[str, Any]:
    def scores(e: "Evaluation") -> dict[str, Any]:
        return {
            s.name: {
                **vars(s),
                **{n: getattr(s, n) for n in ("recall", "recall_low", "precision", "precision_bits", "f2")},
            }
            for s in (*e.groups, *e.types)
        }

    return {
        "sets": [
            {
                "set": alone.name,
                "level": alone.level,
                "texts": alone.texts,
                "characters_masked": alone.characters_masked,
                "without_own_fields": scores(alone),
                "with_own_fields": None if own is None else scores(own),
            }
            for alone, own in results
        ],
        "hard_cases": {k: {"texts": n, "passed": share} for k, (n, share) in cases.items()},
    }
