"""Data of a study: loaded, filtered by the legal gates, split under the study's key."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date

from moo.data.catalogue import Records, load_records
from moo.data.legal.dossier import Dossier, load_dossier
from moo.data.legal.dossier_facts import declared_facts
from moo.data.legal.gates import PreparationReport, Terms, data_facts
from moo.privacy.calibration import check_delta
from moo.privacy.claims import claim
from moo.privacy.events import TrainingRun
from moo.privacy.keys import StudyKey
from moo.studies.setup import partition
from moo.studies.setup.rare_classes import study_steps
from moo.studies.setup.records_per_user import records_per_user
from moo.studies.spec.study import StudySpec

# Arguments: name of the step, items done, items in all (0 if they are not counted).
Stage = Callable[[str, int, int], None]


def no_stage(_name: str, _done: int, _total: int) -> None:
    """Report to nobody."""


@dataclass(frozen=True, kw_only=True)
class StudyData:
    """Records of a study and the numbers that follow from them; no trial changes any of it.

    Attributes:
        loaded: Records as the source gave them.
        records: Records that passed the filters and that the search may read.
        parts: Name of a part -> its records: pool, test, unseen, and release where users are set aside.
        terms: Law that the records are judged by.
        facts: Facts of the records for the rules, under `data.*`.
        dossier: The controller's dossier; None without one.
        declared: Facts of the dossier for the rules, under `declared.*`, at the study's day.
        preparation: Counts of the records that the filters dropped.
        digest: Keyed digest of the loaded records, hex.
        n_units: Units that the search may read, expected; public.
        release_units: Units set aside for release, expected; public.
        all_units: Units in all; public.
        expected_units: Units that one shadow trains on, expected; public.
        records_per_user: Most units of privacy of one user; None if unknown.
    """

    loaded: Records
    records: Records
    parts: Mapping[str, Records]
    terms: Terms
    facts: Mapping[str, float | None]
    dossier: Dossier | None
    declared: Mapping[str, float | None]
    preparation: PreparationReport
    digest: str
    n_units: int
    release_units: int
    all_units: int
    expected_units: int
    records_per_user: int | None

    @property
    def unit(self) -> str:
        """Name of the unit of privacy, such as "user"."""
        return self.records.unit_name

    def claim(self, run: TrainingRun, covered: frozenset[str]) -> str:
        """Return the DP claim of a training on these records, given the steps that the ledger charges."""
        return claim(run, self.records.transformations, ledger_covered=covered, n_units=self.all_units)


def load_study_data(
    spec: StudySpec, key: StudyKey, stage: Stage = no_stage, *, release_share: float = 0.0, split: str = ""
) -> StudyData:
    """Load the records of a study, and split them by keyed hashes of their units.

    Args:
        spec: The study, with its day.
        key: The study's secret.
        stage: Receiver of progress.
        release_share: Share of the units that no trial reads; 0 sets none aside.
        split: Name of another split into pool, test and unseen; empty for the study's own.

    Raises:
        InputError: If the data cannot be read, or do not fit the study.
    """
    as_of = date.fromisoformat(spec.as_of)
    loaded = _load(spec, as_of, stage)
    dossier = load_dossier(spec.dossier) if spec.dossier else None
    terms = Terms.of(dossier, purpose=spec.purpose, as_of=as_of, declared=spec.declare)
    kept, preparation = partition.filtered(loaded, spec, terms)
    records, release = partition.split_off_release_users(kept, key.derive("release"), release_share)
    records = dataclasses.replace(records, transformations=(*records.declared(), *study_steps(spec)))
    n_units = round((1 - release_share) * loaded.n_units)
    check_delta(spec.training.target_delta, loaded.n_units)
    per_user = records_per_user(spec, loaded)
    parts = partition.split(records, spec, key.derive("split", split) if split else key.derive("split"))
    return StudyData(
        loaded=loaded,
        records=records,
        parts=parts if release is None else {**parts, "release": release},
        terms=terms,
        facts=data_facts(records, terms),
        dossier=dossier,
        declared=declared_facts(dossier, as_of=as_of, space=dataclasses.asdict(spec.space)),
        preparation=preparation,
        digest=key.derive("data", loaded.digest).hex(),
        n_units=n_units,
        release_units=loaded.n_units - n_units,
        all_units=loaded.n_units,
        expected_units=max(1, round(0.5 * spec.pool * n_units)),
        records_per_user=per_user,
    )


def _load(spec: StudySpec, as_of: date, stage: Stage) -> Records:
    return load_records(
        spec.data,
        n_records=spec.n_records,
        text=spec.text,
        label=spec.label,
        user=spec.user,
        as_of=as_of,
        withdrawals=spec.withdrawals,
        allow_unmatched=spec.allow_unmatched,
        reading=spec.reading,
        language=spec.language,
        classes=spec.classes,
        groups=[name for name in (spec.attribute, *spec.attribute_auxiliary) if name],
        progress=lambda done, total: stage("fetching the data", done, total),
    )
