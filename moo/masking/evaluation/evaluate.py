"""Recall, precision and F2 of a level on texts with known mentions.

Recall counts entities: one is found if every mention of it in the record is covered, letter by letter. Its lower bound
is Clopper and Pearson's, one-sided 95 %: with no miss in n about 1 - 3/n. There are two precisions: the share of masked
mentions that touch a true one, and the share of masked information, where the weight of a character in bits is minus
the base-2 logarithm of its frequency in the evaluated texts.

Source:
    Pilán et al. 2022, "The Text Anonymization Benchmark (TAB)", section 5: entity-level recall, direct and quasi
    identifiers apart, weighted precision.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from scipy.stats import beta

from moo.core.measurement import Span
from moo.core.personal_data_types import DIRECT, ENTITY_LEVELS, QUASI, SENSITIVE
from moo.masking.ladder import Found, find_spans

GROUPS = {
    "direct": DIRECT,
    "quasi": QUASI,
    "sensitive": SENSITIVE,
    "names and addresses": frozenset(("name", "address")),
}
# recall weighs four times as much as precision
F_BETA = 2.0


@dataclass(frozen=True, kw_only=True)
class Score:
    """Score of one type, or of one group of types.

    Attributes:
        name: Type or group.
        entities, missed: True entities, and those with a letter or digit left visible.
        found, wrong: Masked mentions, and those that touch no true one.
        bits, wrong_bits: Information masked, and the part of it outside true mentions, both in bits.
    """

    name: str
    entities: int
    missed: int
    found: int
    wrong: int
    bits: float
    wrong_bits: float

    @property
    def recall(self) -> float:
        """Share of the entities without a visible letter or digit, in [0, 1]; NaN without any entity."""
        return 1.0 - self.missed / self.entities if self.entities else math.nan

    @property
    def recall_low(self) -> float:
        """Lower bound of the recall, one-sided 95 %, by Clopper and Pearson."""
        if not self.entities or self.missed == self.entities:
            return 0.0 if self.entities else math.nan
        return float(beta.ppf(0.05, self.entities - self.missed, self.missed + 1))

    @property
    def precision(self) -> float:
        """Share of the masked mentions that touch a true one, in [0, 1]; NaN without any."""
        return 1.0 - self.wrong / self.found if self.found else math.nan

    @property
    def precision_bits(self) -> float:
        """Share of the masked information inside true mentions, in [0, 1]; NaN if nothing is masked."""
        return 1.0 - self.wrong_bits / self.bits if self.bits else math.nan

    @property
    def f2(self) -> float:
        """F2 of `recall` and `precision_bits`."""
        p, r, b = self.precision_bits, self.recall, F_BETA**2
        return (1 + b) * p * r / (b * p + r) if p + r > 0 else math.nan


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Evaluation of one level on one set of texts.

    Attributes:
        name: Name of the set.
        level: Level of the ladder, 0 to 5.
        texts: Number of texts.
        types, groups: Scores by type and by group, of the types that the level covers.
        characters_masked: Share of all characters, in [0, 1].
    """

    name: str
    level: int
    texts: int
    types: tuple[Score, ...]
    groups: tuple[Score, ...]
    characters_masked: float


@dataclass
class _Counts:
    entities: Counter[str] = field(default_factory=Counter)
    missed: Counter[str] = field(default_factory=Counter)
    found: Counter[str] = field(default_factory=Counter)
    wrong: Counter[str] = field(default_factory=Counter)
    bits: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    wrong_bits: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))

    def score(self, name: str, types: Iterable[str]) -> Score:
        chosen = [t for t in types if t in self.entities or t in self.found]
        return Score(
            name=name,
            entities=sum(self.entities[t] for t in chosen),
            missed=sum(self.missed[t] for t in chosen),
            found=sum(self.found[t] for t in chosen),
            wrong=sum(self.wrong[t] for t in chosen),
            bits=sum(self.bits[t] for t in chosen),
            wrong_bits=sum(self.wrong_bits[t] for t in chosen),
        )


def evaluate(
    texts: Sequence[str],
    gold: Sequence[Sequence[Span]],
    level: int,
    *,
    name: str = "",
    fields: Sequence[Mapping[str, str]] | None = None,
    ner: bool = False,
) -> Evaluation:
    """Mask each text and score the result against its gold spans, which the masker does not see.

    Args:
        texts: Texts, length n.
        gold: True spans of each text, length n. Types that only a higher level covers are left out.
        level: Level, 1 to 4; at 5 there is no gold for rare words.
        name: Name of the set.
        fields: The records' own values, length n; None searches for none.
        ner: True to ask the optional recogniser too.
    """
    bits = _bits(texts)
    counts = _Counts()
    masked = total = 0
    for i, text in enumerate(texts):
        spans = find_spans(text, level, fields=None if fields is None else fields[i], ner=ner)
        wanted = [s for s in gold[i] if ENTITY_LEVELS[s.type] <= level]
        _count_recall(counts, text, spans, wanted)
        _count_precision(counts, text, spans, wanted, bits)
        masked += sum(s.end - s.start for s in spans)
        total += len(text)
    kinds = sorted({*counts.entities, *counts.found}, key=lambda t: (ENTITY_LEVELS[t], t))
    groups = {n: g for n, g in {**GROUPS, "all": frozenset(kinds)}.items() if any(counts.entities[t] for t in g)}
    return Evaluation(
        name=name,
        level=level,
        texts=len(texts),
        types=tuple(counts.score(t, [t]) for t in kinds),
        groups=tuple(counts.score(n, g) for n, g in groups.items()),
        characters_masked=masked / total if total else 0.0,
    )


def _bits(texts: Sequence[str]) -> dict[str, float]:
    """Return character -> minus the base-2 logarithm of its frequency."""
    seen = Counter(c for text in texts for c in text)
    total = sum(seen.values())
    return {c: math.log2(total / n) for c, n in seen.items()}


def _count_recall(counts: _Counts, text: str, spans: Sequence[Found], wanted: Sequence[Span]) -> None:
    covered = {i for s in spans for i in range(s.start, s.end)}
    entities: dict[tuple[str, str], bool] = {}
    for span in wanted:
        entity = (span.type, text[span.start : span.end])
        bare = any(text[i].isalnum() and i not in covered for i in range(span.start, span.end))
        entities[entity] = entities.get(entity, False) or bare
    for (kind, _), missed in entities.items():
        counts.entities[kind] += 1
        counts.missed[kind] += missed


def _count_precision(
    counts: _Counts, text: str, spans: Sequence[Found], wanted: Sequence[Span], bits: Mapping[str, float]
) -> None:
    true = {i for s in wanted for i in range(s.start, s.end)}
    for span in spans:
        places = range(span.start, span.end)
        counts.found[span.type] += 1
        counts.wrong[span.type] += true.isdisjoint(places)
        for i in places:
            counts.bits[span.type] += bits[text[i]]
            counts.wrong_bits[span.type] += 0.0 if i in true else bits[text[i]]
