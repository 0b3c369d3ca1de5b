"""Prepared study: the values that all of its trials share."""

import dataclasses
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from moo.masking.recognisers import names_ner
from moo.privacy.keys import StudyKey
from moo.privacy.release_policy import Policy
from moo.studies.setup.release_context import ReleaseContext, release_share
from moo.studies.setup.study_data import Stage, StudyData, load_study_data, no_stage
from moo.studies.setup.study_model import StudyModel
from moo.studies.setup.trial_streams import TrialStreams
from moo.studies.setup.trunk_features import TrunkFeatures
from moo.studies.spec.study import StudySpec


@dataclass(frozen=True, kw_only=True)
class PreparedStudy:
    """Values that the trials of a study share. None of them depends on a trial's parameters.

    Attributes:
        spec: The study, with its day.
        key: The study's secret.
        folder: The study's folder, mode 0700.
        stage: Receiver of progress.
        data: Records, parts and facts.
        model: Base model, loaded when it is first needed.
        features: Activations of the parts.
        streams: Keys of all that is random.
        context: Release policy and its consequences.
    """

    spec: StudySpec
    key: StudyKey
    folder: Path
    stage: Stage
    data: StudyData
    model: StudyModel
    features: TrunkFeatures
    streams: TrialStreams
    context: ReleaseContext

    def covering(self, steps: frozenset[str]) -> "PreparedStudy":
        """Return the study with the dataset-scoped steps that the ledger charges."""
        return dataclasses.replace(self, context=dataclasses.replace(self.context, covered=steps))

    def on(self, data: StudyData) -> "PreparedStudy":
        """Return the study on other data."""
        return dataclasses.replace(
            self,
            data=data,
            features=dataclasses.replace(self.features, data=data),
            streams=dataclasses.replace(self.streams, data=data),
        )


def prepare_study(
    spec: StudySpec,
    key: StudyKey,
    folder: Path,
    stage: Stage = no_stage,
    *,
    policy: Policy | None = None,
    split: str = "",
    name: str = "",
) -> PreparedStudy:
    """Load and split the data of a study; its base model is loaded when it is first needed.

    Args:
        spec: The study.
        key: The study's secret.
        folder: The study's folder, mode 0700; activations are cached below it.
        stage: Receiver of progress.
        policy: Release policy; by default "internal".
        split: Name of another split into pool, test and unseen; empty for the study's own.
        name: Name of the study in storage and ledger; by default the specification's.

    Raises:
        InputError: If the data cannot be read, or do not fit the study.
    """
    if spec.ner:
        # refuses before anything is fetched if the package is not installed
        names_ner.version()
    spec, policy = spec.on(date.today()), policy or Policy()
    share = release_share(policy)
    data = load_study_data(spec, key, stage, release_share=share, split=split)
    model = StudyModel(spec, stage)
    return PreparedStudy(
        spec=spec,
        key=key,
        folder=folder,
        stage=stage,
        data=data,
        model=model,
        features=TrunkFeatures(
            model=model,
            data=data,
            folder=folder / "trunk",
            key=key.derive("trunk cache", data.digest),
            stage=stage,
        ),
        streams=TrialStreams(
            key=key, study=name or spec.name, spec=spec, data=data, model=model, parted=(share, split)
        ),
        context=ReleaseContext.of(policy, spec),
    )
