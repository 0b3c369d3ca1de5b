"""moo mask --evaluate: recall and precision of the masker on synthetic and real records."""

import argparse
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from moo.cli.console import headers, say
from moo.cli.language import words

if TYPE_CHECKING:
    from moo.masking.evaluation.evaluate import Evaluation

# Seed of the evaluated notes; public
_SEED = 11


def evaluate(options: argparse.Namespace, out: Console) -> int:
    """Print recall and precision of each set, level and type, and the hard cases."""
    from moo.cli.live import fetching

    results: list[tuple[Evaluation, Evaluation | None]] = []
    with fetching(out) as stage:
        for name, texts, gold, fields, levels in _sets(options.evaluate):
            for level in levels:
                stage(f"{name}, L{level}", 0, 0)
                results.append(_twice(name, texts, gold, fields, level, ner=options.ner))
    cases = _cases()
    _print_groups(out, results)
    _print_types(out, [alone for alone, _ in results])
    table = Table(*headers("hard cases", "texts", "passed"), box=None)
    for kind, (n, share) in cases.items():
        table.add_row(kind, str(n), f"{share:.3f}")
    out.print(table)
    if options.out:
        Path(options.out).write_text(json.dumps(_figures(results, cases), indent=1) + "\n", encoding="utf-8")
        say(out, "Written: {files}", files=options.out)
    return 0


def _sets(n: int) -> Iterable[tuple[str, Any, Any, Any, tuple[int, ...]]]:
    """Yield name, texts, gold, own fields and levels of each set."""
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
    """Return the evaluation without the records' own fields, and with them if there are any."""
    from moo.masking.evaluation.evaluate import evaluate

    alone = evaluate(texts, gold, level, name=name, ner=ner)
    return alone, None if fields is None else evaluate(texts, gold, level, name=name, fields=fields, ner=ner)


def _cases() -> dict[str, tuple[int, float]]:
    from moo.masking.evaluation.cases import KINDS, load_cases, score_cases

    return {kind: (len(cases := load_cases(kind)), score_cases(cases)) for kind in KINDS}


def _print_groups(out: Console, results: "list[tuple[Evaluation, Evaluation | None]]") -> None:
    texts = headers("set", "entity group")
    names = headers(
        "set",
        "level",
        "entity group",
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
        title=words("Without the records' own fields, which are searched for in one column"), box=None, pad_edge=False
    )
    for name in names:
        table.add_column(name, justify="left" if name in texts else "right", no_wrap=True)
    for alone, fields in results:
        with_fields = {} if fields is None else {s.name: f"{s.recall:.4f}" for s in fields.groups}
        for i, s in enumerate(alone.groups):
            first = (alone.name, f"L{alone.level}") if i == 0 else ("", "")
            last = f"{100 * alone.characters_masked:.2f} %" if i == 0 else ""
            table.add_row(
                *first,
                s.name,
                f"{s.entities:,}",
                f"{s.recall:.4f}",
                f"{s.recall_low:.4f}",
                with_fields.get(s.name, ""),
                f"{s.precision:.4f}",
                f"{s.precision_bits:.4f}",
                f"{s.f2:.4f}",
                last,
            )
    out.print(table)


def _print_types(out: Console, results: "list[Evaluation]") -> None:
    """Print the recall by type, at the highest level of each set."""
    last = {e.name: e for e in results}
    table = Table(title=words("By type, at the highest level of each set: recall (entities)"), box=None, pad_edge=False)
    table.add_column(*headers("type"))
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
                "with_own_fields": None if fields is None else scores(fields),
            }
            for alone, fields in results
        ],
        "hard_cases": {k: {"texts": n, "passed": share} for k, (n, share) in cases.items()},
    }
