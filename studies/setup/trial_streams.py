"""Streams of randomness of a study: one key for each training, from all that decides it."""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from typing import Any

from moo.core.trial_record import TrialParams
from moo.masking.recognisers import names_ner
from moo.privacy.keys import StudyKey
from moo.studies.setup.study_data import StudyData
from moo.studies.setup.study_model import StudyModel
from moo.studies.spec.study import PLACES, StudySpec


@dataclass(frozen=True, kw_only=True)
class TrialStreams:
    """Keys of everything random in a study.

    Attributes:
        key: The study's secret.
        study: Name of the study in storage and ledger.
        spec: The study.
        data: Its records.
        model: Its base model.
        parted: Share of the units set aside for release, and the name of the split.
    """

    key: StudyKey
    study: str
    spec: StudySpec
    data: StudyData
    model: StudyModel
    parted: tuple[float, str]

    def trial_key(
        self, params: TrialParams, *more: str | int, number: int, replicate: int = 0, key: StudyKey | None = None
    ) -> StudyKey:
        """Return the key of all that is random in one training.

        It covers noise, batches, initial LoRA, halves and noised answers.

        Runs that differ in anything share none of it, also if they have number, key and data in common: two sums
        with the same noise would tell their exact difference, while the ledger composes the runs as independent
        (ADR 24).

        Args:
            params: Configuration of the trial.
            more: Anything else that decides the draws.
            number: Number of the trial.
            replicate: Earlier trials of the same configuration.
            key: Secret to derive from instead of the study's.
        """
        run = {
            **self._parts_identity,
            "weights": self.model.base.digest,
            "tokenizer": self.model.tokenizer_digest,
            **({"ner": names_ner.version()} if self.spec.ner else {}),
            "params": params.to_json(),
            "engine": self.model.engine,
            "precision": self.model.precision,
        }
        secret = key or self.key
        return secret.child(self.data.digest, "trial", json.dumps(run, sort_keys=True), number, replicate, *more)

    def parts_key(self, *more: str) -> StudyKey:
        """Return the key of what is drawn once for the parts.

        No other data, split or study shares any of it.
        """
        return self.key.child(self.data.digest, "parts", json.dumps(self._parts_identity, sort_keys=True), *more)

    @property
    def _parts_identity(self) -> dict[str, Any]:
        return {
            "study": self.study,
            "moo": version("moo-privacy"),
            "parted": self.parted,
            "records": self._records_digest,
            "spec": without_places(self.spec),
        }

    @cached_property
    def _records_digest(self) -> str:
        """Digest of the records after filters and release split, with the fields of masking."""
        records = self.data.records
        fields = hashlib.sha256(repr(records.fields).encode("utf-8", "surrogatepass"))
        return records.digest + fields.hexdigest()


def without_places(spec: StudySpec) -> dict[str, Any]:
    """Return a specification as JSON, without the paths of its files."""
    return {name: value for name, value in spec.to_json().items() if name not in PLACES}
