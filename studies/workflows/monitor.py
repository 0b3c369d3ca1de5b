"""Daily monitor of data and released models: withdrawals, retention, drift of identifiers, budgets."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, Literal

from moo.core.atomic_files import write_whole
from moo.core.errors import InputError, StorageError
from moo.core.measurement import number_out
from moo.core.messages import Message, joined
from moo.data.legal.gates import Terms
from moo.data.tables.check import DataCheck, check_table
from moo.data.tables.users import load_withdrawals
from moo.objectives.compliance.loader import load_rules
from moo.privacy.composed_epsilon import ComposedEpsilon, compose
from moo.privacy.events import TrainingRun
from moo.privacy.ledger import PREPARATION, LedgerEntry, cap_of, charged, read_entries
from moo.privacy.renyi_filter import RenyiFilter
from moo.studies.accounting.account import everywhere, ledger_path
from moo.studies.workflows.identifier_drift import Residuals, find_drift, sample_identifiers
from moo.tables import Reading

Status = Literal["ok", "attention", "not assessed"]
# house policy: share of a budget below which the rest counts as scarce
LOW = 0.1
_DELTA = 1e-5


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Result of one check.

    Attributes:
        name: Name of the check, e.g. "withdrawals".
        status: "attention" if a person must act, "not assessed" if the check lacks its input.
        text: One sentence.
        numbers: Values behind the sentence.
    """

    name: str
    status: Status
    text: str
    numbers: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Watched:
    """Data and models under watch.

    Attributes:
        data: Path of a table.
        text, label, user: Columns; without `user` each row is a unit and rules about users are not assessed,
            without `label` no label is checked.
        required: Columns of the three that must exist if named.
        terms: Terms that rows are judged by, today's date among them.
        models: Folders that hold the card of a released model, at any depth.
        withdrawals: List of users who have withdrawn.
        allow_unmatched: True if listed users may lack a row, e.g. since their rows are deleted.
        days_ahead: Days ahead for which retention is checked.
        level: Masking level if no card states one.
        budget: Epsilon of all studies on the data; None leaves the ledger's budgets alone.
        state: File that keeps the rates of the first sample; empty keeps none.
        reading: Encoding, separator and empty cells of the table's file.
    """

    data: Path
    text: str
    user: str
    terms: Terms
    label: str = ""
    required: tuple[str, ...] = ("text", "label", "user")
    models: tuple[Path, ...] = ()
    withdrawals: str = ""
    allow_unmatched: bool = False
    days_ahead: int = 30
    level: int = 2
    budget: float | None = None
    state: str = ""
    reading: Reading = field(default_factory=Reading)


def watch(watched: Watched) -> list[Finding]:
    """Run every check once.

    Raises:
        InputError: If a table, list, card or state is unfit.
        MachineError: If the state cannot be written.
    """
    listed = load_withdrawals(Path(watched.withdrawals), as_of=watched.terms.as_of) if watched.withdrawals else {}
    found = check_table(
        watched.data,
        watched.terms,
        text=watched.text,
        label=watched.label,
        user=watched.user,
        required=watched.required,
        withdrawals=listed,
        allow_unmatched=watched.allow_unmatched,
        days_ahead=watched.days_ahead,
        reading=watched.reading,
    )
    if found.problems:
        raise InputError(found.problems[0])
    cards = _cards(watched.models)
    levels = [int(card["preprocessing"]["masking_level"]) for _, card in cards]
    seen = sample_identifiers(
        watched.data,
        text=watched.text,
        level=min(levels, default=watched.level),
        rows=found.rows,
        reading=watched.reading,
    )
    return [
        _withdrawals(found),
        *(_lag(folder, card, found, listed, user=watched.user) for folder, card in cards),
        _retention(found, watched.days_ahead),
        _left(seen),
        _drift(seen, watched.state),
        *_budgets(str(watched.data), watched.budget),
    ]


def _cards(folders: Sequence[Path]) -> list[tuple[Path, dict[str, Any]]]:
    out = []
    for folder in folders:
        paths = sorted(folder.rglob("card.json"))
        if not paths:
            raise InputError("A model's folder must hold a card.json, but {folder} has none.", folder=folder)
        for path in paths:
            try:
                card = json.loads(path.read_text(encoding="utf-8"))
                int(card["preprocessing"]["masking_level"])
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise InputError(
                    "A card must be as `moo retrain` writes it, but {path} is not: {error}.", path=path, error=error
                ) from error
            out.append((path.parent, card))
    return out


def _withdrawals(found: DataCheck) -> Finding:
    breach = found.breaches.get("withdrawn")
    if found.facts["data.withdrawn"] is None:
        return Finding(name="withdrawals", status="not assessed", text="no column withdrawn and no list of withdrawals")
    if breach is None:
        return Finding(
            name="withdrawals", status="ok", text="no row belongs to somebody who has withdrawn", numbers={"rows": 0}
        )
    return Finding(
        name="withdrawals",
        status="attention",
        text=Message(
            "{rows:,} rows of {units:,} units are withdrawn and still there, the first at {place}; delete them",
            rows=breach.rows,
            units=found.withdrawn_units,
            place=breach.places[0],
        ),
        numbers={"rows": breach.rows, "units": found.withdrawn_units},
    )


def _lag(
    folder: Path, card: Mapping[str, Any], found: DataCheck, listed: Mapping[str, date | None], *, user: str
) -> Finding:
    """Judge rule S10: the share of users who have withdrawn since a model was trained.

    A withdrawal without a date counts: nothing shows that it is older.
    """
    if not user:
        return Finding(
            name=Message("deletion lag of {folder}", folder=str(folder)),
            status="not assessed",
            text="the share of users who have withdrawn (S10) needs the column of the user; name it with --user",
        )
    trained = date.fromisoformat(
        card.get("made") or date.fromtimestamp((folder / "card.json").stat().st_mtime).isoformat()
    )
    older = sum(day is not None and day <= trained for day in listed.values())
    since = max(0, max(found.withdrawn_units, len(listed)) - older)
    share = since / max(1, found.units)
    score, verdict = load_rules()["S10"].judge({"release.withdrawn_share": share})
    lag = Message(
        "at most {n:,} of {total:,} units have withdrawn since {day} (S10 scores {score:.2f})",
        n=since,
        total=found.units,
        day=str(trained),
        score=score,
    )
    return Finding(
        name=Message("deletion lag of {folder}", folder=str(folder)),
        status="attention" if verdict == "fail" else "ok",
        text=joined("; ", [lag, Message("train again without them")]) if verdict == "fail" else lag,
        numbers={"units": since, "share": share, "score": score, "trained": trained.isoformat()},
    )


def _retention(found: DataCheck, days_ahead: int) -> Finding:
    if found.facts["data.over_retention"] is None:
        return Finding(name="retention", status="not assessed", text="no columns collected and retention_days")
    breach = found.breaches.get("over_retention")
    rows = 0 if breach is None else breach.rows
    past = Message("{rows:,} rows are past their limit", rows=rows)
    if breach is not None:
        template = "{rows:,} rows are past their limit, the first at {place}; delete them"
        past = Message(template, rows=rows, place=breach.places[0])
    ahead = Message("{rows:,} more will be within {days} days", rows=found.expiring, days=days_ahead)
    return Finding(
        name="retention",
        status="attention" if rows else "ok",
        text=joined("; ", [past, ahead]),
        numbers={"rows": rows, "expiring": found.expiring, "days_ahead": days_ahead},
    )


def _left(seen: Residuals) -> Finding:
    """Judge rule S01 on real rows: search masked texts for the structured fields of their record."""
    if seen.left_ucb_per_1000 is None:
        return Finding(
            name="residual identifiers",
            status="not assessed",
            text="the table has no structured field, such as mobile or name, to look for in its masked texts",
        )
    score, verdict = load_rules()["S01"].judge({"masking.direct_misses_ucb_per_1000": seen.left_ucb_per_1000})
    return Finding(
        name="residual identifiers",
        status="attention" if verdict == "fail" else "ok",
        text=Message(
            "{n} of {total:,} records masked at L{level} still show one of their own fields (at most {upper:.2f} per "
            "1,000; "
            "S01 would score {score:.2f})",
            n=seen.left,
            total=seen.records,
            level=seen.level,
            upper=seen.left_ucb_per_1000,
            score=score,
        ),
        numbers={
            "left": seen.left,
            "records": seen.records,
            "ucb_per_1000": seen.left_ucb_per_1000,
            "level": seen.level,
        },
    )


def _drift(seen: Residuals, state: str) -> Finding:
    rates = {kind: round(1000 * n / max(1, seen.records), 3) for kind, n in seen.found.items()}
    path = Path(state) if state else None
    if path is None or not path.is_file():
        text = Message("there is no earlier look")
        if path is not None:
            text = joined("; ", [text, Message("kept in {path} to compare with", path=str(path))])
            _write(path, {"records": seen.records, "found": dict(seen.found)})
        return Finding(
            name="drift of identifiers",
            status="not assessed",
            text=text,
            numbers={"per_1000": rates},
        )
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
        risen = find_drift(before["found"], int(before["records"]), seen.found, seen.records)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            "The state must be as an earlier run wrote it, but {path} is not: {error}.", path=path, error=error
        ) from error
    rises = [
        Message(
            "{type} {before:.1f} -> {now:.1f} per 1,000",
            type=kind,
            before=1000 * before["found"].get(kind, 0) / before["records"],
            now=rates[kind],
        )
        for kind in risen
    ]
    return Finding(
        name="drift of identifiers",
        status="attention" if risen else "ok",
        text=Message("more records hold {rises}; look at the source and at the masker", rises=joined(", ", rises))
        if risen
        else "no type of identifier has become more frequent",
        numbers={"per_1000": rates, "p": risen},
    )


def _write(path: Path, content: Mapping[str, Any]) -> None:
    try:
        write_whole(path, json.dumps(content, indent=1) + "\n")
    except OSError as error:
        raise StorageError(
            "The state must be writable, but {path} is not: {strerror}.", path=path, strerror=error.strerror
        ) from error


def _budgets(data: str, budget: float | None) -> list[Finding]:
    """Return the rest of each budget in the ledger, and of the one named for all studies."""
    try:
        entries = read_entries(ledger_path(data))
    except InputError:
        return [
            Finding(name="budget", status="not assessed", text="no study has run on these data: there is no ledger")
        ]
    out = []
    for gate in (e for e in entries if e.kind == "gate" and "order" in e.body):
        limit = RenyiFilter(**{k: gate.body[k] for k in ("epsilon", "delta", "order")})
        spent = _spent(limit, entries, gate.study)
        out.append(_budget(Message("budget of {study}", study=gate.study), spent, limit.epsilon))
    events, cap = charged(entries), cap_of(entries)
    if cap is not None and math.isfinite(cap.epsilon):
        out.append(_budget("cap on the data", cap.spent(events), cap.epsilon))
    if budget is not None:
        delta = max((e.delta for e in events if isinstance(e, TrainingRun)), default=_DELTA)
        out.append(_budget("budget of the house", compose(events, delta=delta, disjoint=False), budget))
    return out or [
        Finding(
            name="budget", status="not assessed", text="no study has fixed a budget, and none was named with --budget"
        )
    ]


def _spent(limit: RenyiFilter, entries: Sequence[LedgerEntry], study: str) -> ComposedEpsilon:
    """Compose a study's events at the Renyi order of its filter's guarantee."""
    preparation, searched = (charged([e for e in entries if e.study == of]) for of in (PREPARATION, study))
    return compose([*everywhere(preparation), *searched], delta=limit.delta, order=limit.order)


def _budget(name: str, spent: ComposedEpsilon, budget: float) -> Finding:
    left = max(0.0, budget - spent.value)
    scarce = spent.value > (1 - LOW) * budget
    return Finding(
        name=name,
        status="attention" if scarce else "ok",
        text=Message(
            "epsilon {spent} of {budget:g} is spent at delta {delta:g}, {left:.2f} left",
            spent=spent.text,
            budget=budget,
            delta=spent.delta,
            left=left,
        ),
        numbers={
            "spent": number_out(spent.value),
            "private_part": number_out(spent.private_part),
            "includes_non_private": spent.includes_non_private,
            "budget": budget,
            "delta": spent.delta,
            "left": left,
        },
    )
