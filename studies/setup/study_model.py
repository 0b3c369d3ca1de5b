"""Base model of a study, loaded when first needed, cut below a trial's live layers."""

import dataclasses
import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, cast

from moo.core.errors import InputError
from moo.core.trial_record import TrialParams
from moo.models.bank.bank import Depth, Frozen, Head, check_depth
from moo.models.bank.feature_scaling import constants
from moo.models.pretrained.architectures import Cut, Targets, family_of, is_causal
from moo.models.pretrained.loading import BaseModel, load_base, refuse_longer
from moo.models.trunk.cache import Feature
from moo.models.trunk.constants import Constants
from moo.models.trunk.encode import last_cut
from moo.studies.setup.study_data import Stage, no_stage
from moo.studies.spec.study import StudySpec

Engine = Literal["bank", "opacus"]


@dataclass(frozen=True)
class StudyModel:
    """Base model, engine and cuts of a study.

    Attributes:
        spec: The study.
        stage: Receiver of progress.
    """

    spec: StudySpec
    stage: Stage = no_stage
    _constants: dict[Cut, Constants] = field(default_factory=dict, init=False, repr=False, compare=False)

    @cached_property
    def base(self) -> BaseModel:
        self.stage("loading the base model", 0, 0)
        base = load_base(
            self.spec.model,
            accelerator=self.spec.machine.accelerator,
            progress=lambda done, total: self.stage("fetching the base model", done, total),
        )
        refuse_longer(base.model, self.spec.training.max_length, name=self.spec.model, virtual=self._virtual_tokens)
        precision = self.spec.machine.precision
        return base if precision == "auto" else dataclasses.replace(base, low_precision=precision == "bf16-mixed")

    @property
    def precision(self) -> str:
        """Short name of the precision of the frozen layers: "bf16" or "fp32"."""
        return "bf16" if self.base.low_precision else "fp32"

    @property
    def _virtual_tokens(self) -> int:
        """Tokens of the largest prefix that the search could draw."""
        return 2 ** self.spec.space.lora_rank_log2[1] if self.spec.training.adaptation == "prefix" else 0

    @cached_property
    def engine(self) -> Engine:
        """Engine that trains the shadows: the specified one, else the bank if it can."""
        training = self.spec.training
        if training.engine != "auto":
            return cast(Engine, training.engine)
        supported = family_of(self.base.model) is not None
        return "bank" if supported and training.adaptation == "lora" else "opacus"

    @cached_property
    def tokenizer_digest(self) -> str:
        """SHA-256 of the tokenizer, hex."""
        tokenizer = self.base.tokenizer
        backend = getattr(tokenizer, "backend_tokenizer", None)
        content = repr(sorted(tokenizer.get_vocab().items())) if backend is None else backend.to_str()
        return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()

    def cut(self, params: TrialParams | None) -> Cut:
        """Return the first live block of a configuration; of the last layer if there is none.

        Raises:
            InputError: If the engine or the model cannot train that depth.
        """
        depth = Depth() if params is None else trial_depth(params, self.spec)
        if self.engine == "bank":
            return check_depth(self.base.model, depth)
        # The Opacus engine reads tokens; of the trunk it needs the frozen features alone.
        if depth.layers_dropped or depth.n_queries:
            raise InputError(
                "layers_dropped and n_queries must be 0 on the engine 'opacus', got {layers_dropped} and "
                "{n_queries}. Set space.layers_dropped = [0, 0] and space.n_queries = [0, 0].",
                layers_dropped=depth.layers_dropped,
                n_queries=depth.n_queries,
            )
        n = int(self.base.model.config.num_hidden_layers)
        if self.spec.training.adaptation == "lora" and depth.adapted_layers > n:
            raise InputError(
                "adapted_layers must be <= {n}, the model's layers, got {adapted_layers}. Lower space.adapted_layers.",
                n=n,
                adapted_layers=depth.adapted_layers,
            )
        return last_cut(self.base)

    def constants(self, cut: Cut) -> Constants:
        """Return the public shift and scale at a cut; no shift if the head has no bias for it."""
        if cut not in self._constants:
            scaling = constants(self.base, max_length=self.spec.training.max_length, cut=cut)
            bare = self.spec.training.head == "stock" and is_causal(self.base.model)
            self._constants[cut] = scaling.unshifted() if bare else scaling
        return self._constants[cut]

    def frozen(self, params: TrialParams) -> Frozen:
        """Return the frozen part of the base model that a bank needs."""
        cut = self.cut(params)
        return Frozen(base=self.base, cut=cut, constants=self.constants(cut))

    def feature(self, params: TrialParams | None) -> Feature:
        """Return the frozen feature that the head reads."""
        if self.spec.training.head != "stock" or params is None:
            return "mean"
        return "none" if params.adapted_layers else "pooled"


def trial_depth(params: TrialParams, spec: StudySpec) -> Depth:
    """Return the depth of a configuration, as the engine takes it."""
    return Depth(
        adapted_layers=params.adapted_layers,
        layers_dropped=params.layers_dropped,
        n_queries=params.n_queries,
        targets=cast(Targets, spec.training.lora_targets),
        head=cast(Head, spec.training.head),
    )
