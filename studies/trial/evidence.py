"""Evidence of a trial's privacy risks, from its predictions."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from moo.core.evidence import AttributeEvidence, Ints, MembershipEvidence, Population
from moo.studies.setup.prepared import PreparedStudy


def losses_of(prepared: PreparedStudy, part: str, predicted: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the loss of each record's label, shape (K, n), nats."""
    records = prepared.data.parts[part]
    losses: NDArray[np.float64] = -predicted[:, np.arange(len(records)), records.labels]
    return losses


def membership_of(
    prepared: PreparedStudy,
    part: str,
    losses: Mapping[str, NDArray[np.float64]],
    members: NDArray[np.bool_],
    hardness: Mapping[str, NDArray[np.float64]],
    *,
    population: str,
) -> MembershipEvidence:
    """Return the losses of a part with its members, and another part as the population.

    Args:
        prepared: The study.
        part: Name of the part.
        losses: Part -> losses, shape (K, n), nats.
        members: Shape (K, n). True for records that a shadow was trained on.
        hardness: Part -> losses of the frozen base model, shape (n,), nats.
        population: Name of the part that no shadow was trained on.
    """
    return MembershipEvidence(
        losses=losses[part],
        members=members,
        units=prepared.data.parts[part].units,
        base_losses=hardness.get(part),
        population=Population(losses=losses[population], base_losses=hardness.get(population)),
    )


def attribute_of(
    prepared: PreparedStudy, log_probs: NDArray[np.float64], members: NDArray[np.bool_]
) -> AttributeEvidence | None:
    """Return the outputs on the pool with the attacked attribute; None if the study names none."""
    spec, pool = prepared.spec, prepared.data.parts["pool"]
    if not spec.attribute:
        return None
    return AttributeEvidence(
        name=spec.attribute,
        log_probs=log_probs,
        labels=pool.labels,
        members=members,
        units=pool.units,
        attribute=pool.groups[spec.attribute],
        auxiliary=columns_of(pool.groups, spec.attribute_auxiliary),
    )


def columns_of(groups: Mapping[str, Ints], names: Sequence[str]) -> NDArray[np.float64] | None:
    """Return attributes as columns of zeros and ones, one for the unknown value.

    Returns None without attributes.
    """
    known = [np.eye(int(groups[name].max()) + 2)[groups[name]] for name in names]
    return np.concatenate(known, axis=1) if known else None
