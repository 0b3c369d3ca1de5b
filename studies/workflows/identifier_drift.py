"""Rates of identifiers in a sample of a table's texts, before and after masking, and a test of their drift."""

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

# records of a sample
SAMPLE = 2000
# chance of a false alarm over all types together
ALARM = 0.001
# level up to which mentions are counted: rare words and digits are no identifiers
_COUNTED_LEVEL = 4


@dataclass(frozen=True, kw_only=True)
class Residuals:
    """Counts of identifiers in a sample of a table at a masking level.

    Attributes:
        records: Number of records in the sample.
        level: Masking level.
        found: Type -> number of records that mention it, before masking.
        left: Number of records that still show one of their own structured fields after masking; None
            without such a column.
        left_ucb_per_1000: 95 % upper bound of `left` per 1,000 records.
    """

    records: int
    level: int
    found: Mapping[str, int]
    left: int | None
    left_ucb_per_1000: float | None


def sample_identifiers(
    path: Path, *, text: str, level: int, rows: int, sample: int = SAMPLE, reading: Reading | None = None
) -> Residuals:
    """Mask an evenly spaced sample of a table's texts and count identifiers; each text is read alone.

    A column named like a type of direct identifier ("mobile", "name", ...) is a structured field of its
    record: the masker never sees it, and the masked text is searched for it.

    Args:
        path: Table.
        text: Column of the text.
        level: Masking level of what is released.
        rows: Number of rows of the table.
        sample: Approximate number of rows to sample.
        reading: Encoding, separator and empty cells of the file.

    Returns:
        Counts over the sample.

    Raises:
        InputError: If the table lacks the column.
    """
    table = open_table(path, reading)
    if table.columns:
        table.require(text)
    stride, at, records, left = max(1, rows // sample), 0, 0, 0
    found: Counter[str] = Counter()
    for batch in table.batches([text, *sorted(DIRECT)]):
        fields = sorted(DIRECT.intersection(table.columns))
        frame = batch.frame()[[text, *fields]]
        chosen = frame.iloc[-at % stride :: stride]
        at += len(frame)
        for row in chosen.astype(object).where(chosen.notna(), "").to_dict("records"):
            body = str(row[text])
            found.update({span.type for span in find_spans(body, _COUNTED_LEVEL)})
            masked = apply(body, find_spans(body, level))
            left += any(len(value := str(row[name]).strip()) > 1 and value in masked for name in fields)
            records += 1
    table.require(text)
    fields = sorted(DIRECT.intersection(table.columns))
    return Residuals(
        records=records,
        level=level,
        found={kind: found[kind] for kind in ENTITY_LEVELS if found[kind]},
        left=left if fields else None,
        left_ucb_per_1000=1000 * rate_ucb(left, left, records) if fields and records else None,
    )


def find_drift(before: Mapping[str, int], n_before: int, now: Mapping[str, int], n_now: int) -> dict[str, float]:
    """Return the types that a larger share of records mentions than before, with their p-values.

    Fisher's exact test, one-sided, for each type, at `ALARM` over all types (Bonferroni).

    Args:
        before: Type -> number of records that mention it in the earlier sample.
        n_before: Number of records in the earlier sample.
        now: Type -> number of records that mention it in the present sample.
        n_now: Number of records in the present sample.
    """
    kinds = sorted(before.keys() | now.keys())
    out: dict[str, float] = {}
    for kind in kinds:
        new, old = now.get(kind, 0), before.get(kind, 0)
        p = float(fisher_exact(np.array([[new, n_now - new], [old, n_before - old]]), alternative="greater")[1])
        if p < ALARM / len(kinds):
            out[kind] = p
    return out
