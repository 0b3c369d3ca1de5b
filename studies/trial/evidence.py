"""From a trial's predictions to the evidence of its privacy risks."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from moo.core.evidence import AttributeEvidence, Ints, MembershipEvidence, Population
from moo.studies.setup.prepared import Prepared


def losses_of(prepared: Prepared, part: str, predicted: NDArray[np.float64]) -> NDArray[np.float64]:
    """Loss of each record's label, shape (K, n), nats."""
    records = prepared.parts[part]
    losses: NDArray[np.float64] = -predicted[:, np.arange(len(records)), records.labels]
    return losses


def membership_of(
    prepared: Prepared,
    part: str,
    losses: Mapping[str, NDArray[np.float64]],
    members: NDArray[np.bool_],
    hardness: Mapping[str, NDArray[np.float64]],
    *,
    population: str,
) -> MembershipEvidence:
    return MembershipEvidence(
        losses=losses[part],
        members=members,
        units=prepared.parts[part].units,
        base_losses=hardness.get(part),
        population=Population(losses=losses[population], base_losses=hardness.get(population)),
    )


def attribute_of(
    prepared: Prepared, log_probs: NDArray[np.float64], members: NDArray[np.bool_]
) -> AttributeEvidence | None:
    """Outputs on the pool beside the attribute that the study asks for; the auxiliary attributes as columns of zeros and ones."""
    spec, pool = prepared.spec, prepared.parts["pool"]
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
    """Attributes as columns of zeros and ones, the unknown value one of them; None for no attribute."""
    known = [np.eye(int(groups[name].max()) + 2)[groups[name]] for name in names]
    return np.concatenate(known, axis=1) if known else None
