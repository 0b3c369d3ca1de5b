"""Facts of a masking level, measured on synthetic identities once a study."""

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache

from moo.core.atomic_files import write_whole
from moo.core.measurement import number_in, number_out
from moo.data.synthetic.order_notes import synthetic_notes
from moo.masking import probe
from moo.objectives.compliance.facts import masking_facts
from moo.studies.setup.prepared import PreparedStudy

_SEED = 0
_LANGUAGES = ("zh", "en")
_FILE = "masking-facts.json"

Facts = dict[str, float | None]


def measured_masking(prepared: PreparedStudy, level: int) -> Facts:
    """Return the facts of a masking level: how many synthetic identities it leaves."""
    path, spec = prepared.folder / _FILE, prepared.spec
    kept = json.loads(path.read_text()) if path.is_file() else {}
    if str(level) not in kept:
        prepared.stage(f"measuring masking level {level}", 0, 0)
        each = [_measure(level, spec.probe_records, name, spec.ner) for name in _languages(prepared)]
        kept[str(level)] = {k: None if v is None else number_out(v) for k, v in _worst(each).items()}
        write_whole(path, json.dumps(kept, indent=1))
    return {k: None if v is None else number_in(v) for k, v in kept[str(level)].items()}


def _languages(prepared: PreparedStudy) -> tuple[str, ...]:
    """Return the declared language of the data, else all, so that no user's text decides it."""
    language = prepared.data.records.language
    return (language,) if language else _LANGUAGES


def _worst(of_each: Sequence[Mapping[str, float | None]]) -> Facts:
    """Return the largest value of each fact, which is the worst; None if no language knows it."""
    known = {name: [facts[name] for facts in of_each] for name in of_each[0]}
    return {name: max((v for v in values if v is not None), default=None) for name, values in known.items()}


@lru_cache(maxsize=64)
def _measure(level: int, n_records: int, language: str, ner: bool) -> Mapping[str, float | None]:
    """Measure a masking level on synthetic identities, the same for every study of a process."""
    notes = synthetic_notes(n_records, seed=_SEED, language=language)
    return masking_facts(probe(notes.texts, notes.gold, notes.users, level, ner=ner))
