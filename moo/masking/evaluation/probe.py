"""Probe of masking: the visible rest of mentions with known places, which the masker never sees."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from moo.core.evidence import MaskingProbe
from moo.core.measurement import Span
from moo.masking.ladder import Found, apply, find_spans


def probe(
    texts: Sequence[str],
    gold: Sequence[Sequence[Span]],
    users: NDArray[np.int64],
    level: int,
    *,
    fields: Sequence[Mapping[str, str]] | None = None,
    ner: bool = False,
) -> MaskingProbe:
    """Mask each text and return the visible rest of each gold mention.

    Args:
        texts: Texts, length n.
        gold: True spans of each text, length n.
        users: User of each text, shape (n,).
        level: Level, 0 to 5.
        fields: The records' own values, length n; None searches for none.
        ner: True to ask the optional recogniser too.
    """
    records, kinds, original, visible, missed = [], [], [], [], []
    for i, text in enumerate(texts):
        mentions = find_spans(text, level, fields=None if fields is None else fields[i], ner=ner)
        covered = np.zeros(len(text) + 1, dtype=bool)
        for f in mentions:
            covered[f.start : f.end] = True
        for span in gold[i]:
            mention = text[span.start : span.end]
            bare = any(not covered[j] and text[j].isalnum() for j in range(span.start, span.end))
            inside = [f for f in mentions if f.start < span.end and f.end > span.start]
            records.append(i)
            kinds.append(span.type)
            original.append(mention)
            missed.append(bare)
            visible.append(mention if not inside else _left_of(text, span, inside))
    at = np.array(records, dtype=np.int64)
    return MaskingProbe(
        level=level,
        n_records=len(texts),
        records=at,
        users=users[at] if len(at) else at,
        types=tuple(kinds),
        original=tuple(original),
        visible=tuple(visible),
        missed=np.array(missed, dtype=bool),
    )


def _left_of(text: str, span: Span, inside: Sequence[Found]) -> str:
    """Return the part of the masked text that replaces the mention."""
    low = min(span.start, *(f.start for f in inside))
    high = max(span.end, *(f.end for f in inside))
    return apply(text[low:high], [replace(f, start=f.start - low, end=f.end - low) for f in inside])
