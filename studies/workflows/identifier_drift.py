"""What is found, and what is left, in a sample of a table's texts: rates of identifiers, and whether they have drifted."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.stats import fisher_exact

from moo.core.personal_data_types import DIRECT, ENTITY_LEVELS
from moo.masking import apply, find_spans
from moo.objectives.compliance.facts import rate_ucb
from moo.tables import Reading, open_table

SAMPLE = 2000  # records looked at
ALARM = 0.001  # chance of a false alarm over all types together
_ASKED = 4  # level up to which mentions are counted: rare words and digits are no identifiers


@dataclass(frozen=True, kw_only=True)
class Residuals:
    """A sample of a table at a masking level.

    Attributes:
        records: Looked at.
        level: Masking level.
        found: Type -> records that hold a mention of it, before masking.
        left: Records in which one of their own structured fields is still to be read after masking; None without such a column.
        left_ucb_per_1000: 95 % upper bound of `left` per 1,000 records.
    """

    records: int
    level: int
    found: Mapping[str, int]
    left: int | None
    left_ucb_per_1000: float | None


def look(
    path: Path, *, text: str, level: int, rows: int, sample: int = SAMPLE, reading: Reading | None = None
) -> Residuals:
    """Mask an even sample of a table's texts and count; each text is read by itself.

    A column named like a type of direct identifier ("mobile", "name", ...) is a structured field of its record: it is never shown to
    the masker, and looked for in what the masker leaves.

    Args:
        path: The table.
        text: Column of the text.
        level: Masking level of what is released.
        rows: Rows of the table.
        sample: About how many are looked at.
        reading: How the file is read.

    Raises:
        InputError: If the column is not there.
    """
    table = open_table(path, reading)
    if table.columns:
        table.require(text)
    stride, at, looked, left = max(1, rows // sample), 0, 0, 0
    found: Counter[str] = Counter()
    for batch in table.batches([text, *sorted(DIRECT)]):
        fields = sorted(DIRECT.intersection(table.columns))
        frame = batch.frame()[[text, *fields]]
        chosen = frame.iloc[-at % stride :: stride]
        at += len(frame)
        for row in chosen.astype(object).where(chosen.notna(), "").to_dict("records"):
            body = str(row[text])
            found.update({span.type for span in find_spans(body, _ASKED)})
            masked = apply(body, find_spans(body, level))
            left += any(len(own := str(row[name]).strip()) > 1 and own in masked for name in fields)
            looked += 1
    table.require(text)
    fields = sorted(DIRECT.intersection(table.columns))
    return Residuals(
        records=looked,
        level=level,
        found={kind: found[kind] for kind in ENTITY_LEVELS if found[kind]},
        left=left if fields else None,
        left_ucb_per_1000=1000 * rate_ucb(left, left, looked) if fields and looked else None,
    )


def drifted(before: Mapping[str, int], n_before: int, now: Mapping[str, int], n_now: int) -> dict[str, float]:
    """Types of which a larger share of records holds a mention than before, with the p-value.

    One-sided exact test of Fisher for each type, at `ALARM` over all types (Bonferroni).
    """
    kinds = sorted(before.keys() | now.keys())
    out: dict[str, float] = {}
    for kind in kinds:
        new, old = now.get(kind, 0), before.get(kind, 0)
        p = float(fisher_exact(np.array([[new, n_now - new], [old, n_before - old]]), alternative="greater")[1])
        if p < ALARM / len(kinds):
            out[kind] = p
    return out
