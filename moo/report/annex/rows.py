"""Rows and lines of the annex: the front, facts, settings, and what changed since an earlier annex."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from moo.core.trial_record import ACCURACY, MAJORITY, PENALTY, RISK
from moo.privacy.composed_epsilon import ComposedEpsilon
from moo.report.annex.words import fact_words
from moo.report.sections.texts import say

SHORT = {"accuracy": ACCURACY, "risk": RISK, "penalty": PENALTY}


def number(value: object) -> str:
    """Return a number as people read it; infinities arrive as texts."""
    x = float(value)  # type: ignore[arg-type]
    if math.isinf(x) or math.isnan(x):
        return "∞" if x > 0 else "–"
    return f"{x:.0f}" if x.is_integer() and abs(x) < 1e6 else f"{x:.3g}" if abs(x) >= 0.01 else f"{x:.2g}"


def fact_line(key: str, value: object, lang: str, t: Mapping[str, str]) -> str:
    """Return a fact with its number, in words."""
    name, kind = fact_words(key, lang)
    if value is None:
        return f"{name}{t['colon']}{t['unknown']}"
    x = float(value)  # type: ignore[arg-type]
    shown = {"share": f"{100 * x:.3g}\u00a0%", "days": f"{x:.0f} {t['days']}", "level": f"L{x:.0f}"}.get(
        kind, number(x)
    )
    return f"{name}{t['colon']}{shown}"


def settings_line(params: Mapping[str, Any], t: Mapping[str, str]) -> str:
    epsilon = float(params["target_epsilon"])
    shown = t["no_dp"] if math.isinf(epsilon) else f"{t['epsilon']} {number(epsilon)}"
    halvings = params.get("batch_halvings", 0)
    halved = f" · {t['halvings']} {halvings}" if halvings else ""
    return f"{shown} · {t['masking']} L{params['masking_level']} · {t['depth']} {params['adapted_layers']}{halved}"


def front_rows(annex: Mapping[str, Any], t: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return rows of the front and of points that other weights keep, status quo first."""
    chosen = annex["point"]["number"]
    shown = [row for row in annex["front"] if row["on_front"] or row["kept"] or row["number"] == chosen]
    out = [
        {
            "name": f"{_called(row['number'], annex, t)}{' · ' + t['shown_here'] if row['number'] == chosen else ''}",
            "css": "chosen" if row["number"] == chosen else "",
            "settings": settings_line(row["params"], t),
            "kept": f"{100 * row['kept']:.0f} %",
            "majority": _majority(row.get("majority")),
            **{short: _pm(row[long]) for short, long in SHORT.items()},
        }
        for row in sorted(shown, key=lambda row: -row[ACCURACY][0])
    ]
    quo = annex["status_quo"]
    if quo:
        values = {s: _pm([quo["objectives"][n]["value"], quo["objectives"][n]["stderr"]]) for s, n in SHORT.items()}
        settings = settings_line(quo["params"], t)
        measured = quo["extras"].get(MAJORITY, {})
        majority = _majority([measured["value"], measured["stderr"]] if measured else None)
        quiet = {"name": t["status_quo"], "css": "", "settings": settings, "kept": "–", "majority": majority}
        out.insert(0, quiet | values)
    return out


def _called(number: int, annex: Mapping[str, Any], t: Mapping[str, str]) -> str:
    return t["winner"] if annex["study"].get("alone") else str(number)


def _majority(measured: Sequence[Any] | None) -> str:
    """Return the majority baseline of a row, a dash where there is none."""
    return "–" if measured is None else _pm(measured)


def _pm(measured: Sequence[Any]) -> str:
    value, error = float(measured[0]), float(measured[1])
    return f"{value:.3f} ± {error:.3f}" if error else f"{value:.3f}"


def composed_text(found: Any, t: Mapping[str, str]) -> str:
    """Return a composed epsilon in words; a bare number is of an older annex."""
    return say(ComposedEpsilon.from_json(found, delta=0.0).text, t)


def difference_rows(annex: Mapping[str, Any], lang: str, t: Mapping[str, str]) -> dict[str, Any] | None:
    """Return changes as lines of (name, before, after)."""
    changes = annex["difference"]
    if changes is None:
        return None
    rows: list[tuple[str, ...]] = [
        (t[name], f"{float(before):.3f}", f"{float(after):.3f}")
        for name, (before, after) in changes["objectives"].items()
    ]
    if changes["params"][0] != changes["params"][1]:
        rows.insert(0, (t["changed_point"], *(settings_line(p, t) for p in changes["params"])))
    if changes["composed_epsilon"][0] != changes["composed_epsilon"][1] and None not in changes["composed_epsilon"]:
        rows.append((t["changed_search"], *(composed_text(e, t) for e in changes["composed_epsilon"])))
    for change in changes["rules"]:
        shown = [
            t["aside"].format(text=t[verdict], aside=t["and"].join(fact_line(k, v, lang, t) for k, v in facts.items()))
            for verdict, facts in zip(change["verdict"], change["facts"], strict=True)
        ]
        rows.append((change["rule"], *shown))
    if changes["sections"]:
        rows.append((t["changed_sections"], "", t["and"].join(t.get(name, name) for name in changes["sections"])))
    for what in ("added", "removed"):
        if changes[what]:
            rows.append((t[what], "", t["and"].join(changes[what])))
    return {
        "line": t["previous"].format(made=changes["made"], digest=changes["previous"][:16]),
        "edited": not changes["intact"],
        "rows": rows,
    }
