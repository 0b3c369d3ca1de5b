"""Activations of masked texts behind the frozen trunk, cached on disk and in memory."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from moo.core.trial_record import TrialParams
from moo.masking import Found, apply, find_spans
from moo.models.pretrained.architectures import Cut
from moo.models.training.memory import release_free_memory
from moo.models.trunk.cache import Feature, TrunkCache
from moo.models.trunk.encode import token_ids
from moo.models.trunk.packed import Packed
from moo.studies.setup.study_data import Stage, StudyData, no_stage
from moo.studies.setup.study_model import StudyModel

# Part, masking level, cut and feature of what is held in memory.
_Held = tuple[str, int, Cut, Feature]


@dataclass(frozen=True)
class MaskedPart:
    """Part of the data at one masking level.

    Attributes:
        packed: Activations.
        spans: Masked spans of each record.
        wordless: Shape (n,). True for records that had a word to learn from, and that masking left without one.
        notices: Remarks of the trunk's cache for a person.
    """

    packed: Packed
    spans: tuple[tuple[Found, ...], ...]
    wordless: NDArray[np.bool_]
    notices: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class TrunkFeatures:
    """Activations of the study's parts.

    Those of one masking level and depth are held in memory, and no more.

    Attributes:
        model: Base model.
        data: Records, by part.
        folder: Folder of the cache.
        key: Secret that names the cache's files.
        stage: Receiver of progress.
    """

    model: StudyModel
    data: StudyData
    folder: Path
    key: bytes
    stage: Stage = no_stage
    _held: dict[_Held, MaskedPart] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def held_parts(self) -> frozenset[str]:
        """Names of the parts that are in memory now."""
        return frozenset(part for part, *_ in self._held)

    def masked(self, part: str, level: int, params: TrialParams | None = None) -> MaskedPart:
        """Return a part at a masking level, with activations for the depth of a configuration."""
        wanted = (part, level, self.model.cut(params), self.model.feature(params))
        if wanted not in self._held:
            self._keep(lambda held: held[1:] == wanted[1:])
            # pages that the trial before has freed
            release_free_memory()
            self._held[wanted] = self._mask(*wanted)
        return self._held[wanted]

    def release_features(self, *parts: str) -> None:
        """Drop parts from memory; when next needed, they come from the cache on disk."""
        self._keep(lambda held: held[0] not in parts)

    def packed(self, texts: Sequence[str], params: TrialParams) -> Packed:
        """Return activations of other texts, as a configuration would see them."""
        cut = self.model.cut(params)
        return self._packed(self._cache(cut), list(texts), cut, self.model.feature(params), None)

    def _keep(self, kept: Callable[[_Held], bool]) -> None:
        for held in [held for held in self._held if not kept(held)]:
            del self._held[held]

    def _cache(self, cut: Cut) -> TrunkCache:
        spec = self.model.spec
        return TrunkCache(
            self.folder,
            self.key,
            self.model.base,
            max_length=spec.training.max_length,
            cut=cut,
            limit_gib=spec.machine.cache_gib,
        )

    def _packed(
        self, cache: TrunkCache, texts: list[str], cut: Cut, feature: Feature, progress: Callable[[int], None] | None
    ) -> Packed:
        packed = cache.packed(texts, self.model.constants(cut), feature=feature, progress=progress)
        if self.model.engine == "opacus":
            ids, _ = token_ids(self.model.base, texts, max_length=self.model.spec.training.max_length)
            packed = dataclasses.replace(packed, ids=ids)
        return packed

    def _mask(self, part: str, level: int, cut: Cut, feature: Feature) -> MaskedPart:
        records, ner = self.data.parts[part], self.model.spec.ner
        spans = [
            tuple(find_spans(t, level, fields=f, ner=ner)) for t, f in zip(records.texts, records.fields, strict=True)
        ]
        texts = [apply(t, s) for t, s in zip(records.texts, spans, strict=True)]
        done = 0

        def progress(n: int) -> None:
            nonlocal done
            done += n
            self.stage(f"trunk, masking level {level}, {part}", done, len(texts))

        cache = self._cache(cut)
        packed = self._packed(cache, texts, cut, feature, progress)
        wordless = np.array(
            [_has_words(t, ()) and not _has_words(t, s) for t, s in zip(records.texts, spans, strict=True)]
        )
        return MaskedPart(packed, tuple(spans), wordless, tuple(cache.notices))


def _has_words(text: str, spans: tuple[Found, ...]) -> bool:
    """Return True if a letter is outside the masked spans."""
    covered: NDArray[np.bool_] = np.zeros(len(text), dtype=bool)
    for span in spans:
        covered[span.start : span.end] = True
    return any(c.isalpha() and not covered[i] for i, c in enumerate(text))
