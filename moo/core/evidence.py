"""Evidence of a trial for the objectives: frozen records of arrays, never a network."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from moo.core.trial_record import TrialParams

Floats = NDArray[np.floating]
Ints = NDArray[np.integer]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Population:
    """Losses on m records that no shadow was trained on; some attacks are calibrated by them.

    Attributes:
        losses: Shape (K, m), nats.
        base_losses: Shape (m,), nats; as in `MembershipEvidence`.
    """

    losses: Floats
    base_losses: Floats | None = None


@dataclass(frozen=True, kw_only=True)
class MembershipEvidence:
    """Losses of K shadows on n records, and who was trained on what.

    The shadows are K/2 complementary pairs: rows 2j and 2j+1 of `members` are each other's
    negation.

    Attributes:
        losses: Shape (K, n), nats. Cross-entropy of the true label; lower means better fitted.
        members: Shape (K, n). True where the shadow was trained on the record.
        units: Shape (n,). Unit of privacy (user) of each record.
        base_losses: Shape (n,), nats. Loss of a head on the frozen base model, fitted on records
            that are neither these nor any shadow's: how hard a record is to whoever has not seen
            it. None where there is none.
        population: Records that no shadow saw; None where there are none.
    """

    losses: Floats
    members: Bools
    units: Ints
    base_losses: Floats | None = None
    population: Population | None = None

    def take(self, rows: Bools | Ints) -> "MembershipEvidence":
        """Return the evidence on some of the records; shadows and population stay."""
        base = None if self.base_losses is None else self.base_losses[rows]
        return MembershipEvidence(
            losses=self.losses[:, rows],
            members=self.members[:, rows],
            units=self.units[rows],
            base_losses=base,
            population=self.population,
        )


@dataclass(frozen=True, kw_only=True)
class UtilityEvidence:
    """Predictions of K shadows on m held-out records, masked at the trial's level.

    Attributes:
        log_probs: Shape (K, m, C), nats.
        labels: Shape (m,), in 0..C-1.
        units: Shape (m,).
        groups: Name -> shape (m,) codes; -1 where the group of a record is not known. For the group
            gap.
    """

    log_probs: Floats
    labels: Ints
    units: Ints
    groups: Mapping[str, Ints] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class MaskingProbe:
    """Effect of one masking level on the gold mentions of synthetic records: one row a mention.

    Attributes:
        level: Masking level, 0..5.
        n_records: Records probed (no training involved).
        records: Shape (m,). Record of each gold mention.
        users: Shape (m,). Synthetic customer of each gold mention.
        types: Length m. Entity type (`moo.core.personal_data_types`).
        original: Length m. The mention's text.
        visible: Length m. What is left of it after masking: the text itself where it was missed (in
            whole or in part), the operator's output (a token or a public bin) where it was covered.
        missed: Shape (m,). True where at least one character of the mention survived as it was.
    """

    level: int
    n_records: int
    records: Ints
    users: Ints
    types: tuple[str, ...]
    original: tuple[str, ...]
    visible: tuple[str, ...]
    missed: Bools


@dataclass(frozen=True, kw_only=True)
class PrivacyEvidence:
    """Accounting of one training run of one shadow.

    Attributes:
        epsilon_spent: Derived from the event, at `delta`; `math.inf` without DP.
        delta: Target delta, in (0, 1 / n_units).
        n_units: Units of the whole data set (public).
        noise_multiplier: Standard deviation of the noise over max_grad_norm; 0 without DP.
        sample_rate: Probability with which a unit enters a step's batch.
        steps: Optimizer steps taken.
        claim: "holds" or "withdrawn because ...".
        records_per_user: Most units of one user: 1 where the user is the unit; None if nothing says
            it.
    """

    epsilon_spent: float
    delta: float
    n_units: int
    noise_multiplier: float
    sample_rate: float
    steps: int
    claim: str
    records_per_user: int | None = None


@dataclass(frozen=True, kw_only=True)
class AttributeEvidence:
    """Outputs of K shadows on the records of users who have a personal attribute.

    Attributes:
        name: Of the attribute.
        log_probs: Shape (K, n, C), nats.
        labels: Shape (n,), in 0..C-1: the task's labels, not the attribute.
        members: Shape (K, n). True where the shadow was trained on the record.
        units: Shape (n,). User of each record.
        attribute: Shape (n,), the same for all records of a user; -1 where it is not known.
        auxiliary: Shape (n, d). What an attacker knows of users without the model; None is nothing.
    """

    name: str
    log_probs: Floats
    labels: Ints
    members: Bools
    units: Ints
    attribute: Ints
    auxiliary: Floats | None = None


@dataclass(frozen=True, kw_only=True)
class TrialEvidence:
    """Everything one trial leaves for its judges.

    Attributes:
        params: The configuration that ran.
        membership: On the pool, from which the shadows' halves were drawn.
        unseen: On records that no shadow saw, with a membership matrix drawn in the same way: the
            null.
        utility: On held-out users.
        privacy: Of one shadow's training run.
        facts: Namespaced numbers for the compliance rules; None is "unknown".
        seconds: Wall-clock seconds by stage.
        resumed_at: Steps that came from the checkpoint of a killed attempt.
        attribute: On the pool, where the study asks for an attribute.
        notices: What a person should know of how it ran.
        outputs: Shape (K, n, C), nats. Log-probabilities on the pool: what an attack on an
            attribute reads; None where not kept.
    """

    params: TrialParams
    membership: MembershipEvidence
    unseen: MembershipEvidence
    utility: UtilityEvidence
    privacy: PrivacyEvidence
    facts: Mapping[str, float | None]
    seconds: Mapping[str, float]
    resumed_at: int = 0
    notices: tuple[str, ...] = ()
    attribute: AttributeEvidence | None = None
    outputs: Floats | None = None
