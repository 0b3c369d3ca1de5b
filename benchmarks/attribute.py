"""H(P|M) for real: age band and gender of MovieLens users from the outputs of the recommendation study's shadows.

python -m benchmarks.attribute [--per-user 4] [--model e5-small] [--steps 25] [--epsilon inf] [--permutations 99]
"""

import argparse
import dataclasses
import math
import tempfile
from pathlib import Path

import numpy as np

from moo.data import Records
from moo.evidence import AttributeEvidence
from moo.objectives.attribute import attribute_risk
from moo.objectives.membership.risk import membership_risk
from moo.objectives.utility import accuracy
from moo.privacy.keys import StudyKey
from moo.records import Measurement, TrialParams
from moo.studies.base import load_spec
from moo.studies.prepare import Prepared
from moo.studies.trial import run_trial

ASKED = (("age_band", ()), ("age_band", ("gender",)), ("gender", ()), ("gender", ("age_band",)))


def evidence(base: AttributeEvidence, prepared: Prepared, name: str, known: tuple[str, ...]) -> AttributeEvidence:
    """The same outputs beside another attribute."""
    groups = prepared.parts["pool"].groups
    extra = np.concatenate([np.eye(int(groups[k].max()) + 2)[groups[k]] for k in known], axis=1) if known else None
    return dataclasses.replace(base, name=name, attribute=groups[name], auxiliary=extra)


def thinned(records: Records, most: int) -> Records:
    """At most so many records of each user, the first that stand there."""
    _, codes = np.unique(records.units, return_inverse=True)
    order = np.argsort(codes, kind="stable")
    place = np.empty(len(codes), dtype=int)
    place[order] = np.concatenate([np.arange(n) for n in np.bincount(codes)])
    return records.take(place < most)


def pm(m: Measurement) -> str:
    return f"{m.value:+.3f} +- {m.stderr:.3f}" if not math.isnan(m.value) else m.note


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--per-user", type=int, default=4, help="records of each user; all of them cost hours")
    parser.add_argument("--model", default="e5-small")
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--epsilon", type=float, default=math.inf)
    parser.add_argument("--permutations", type=int, default=99)
    o = parser.parse_args()
    spec = load_spec("recommendation")
    spec = dataclasses.replace(
        spec,
        model=o.model,
        attribute="gender",
        training=dataclasses.replace(spec.training, steps=o.steps, max_length=64),
    )
    params = TrialParams(target_epsilon=o.epsilon, masking_level=0, lora_rank=8, learning_rate=1e-3, adapted_layers=0)
    with tempfile.TemporaryDirectory() as folder:
        prepared = Prepared(spec, StudyKey.fresh(), Path(folder))
        prepared.parts = {part: thinned(records, o.per_user) for part, records in prepared.parts.items()}
        found = run_trial(params, prepared, number=0)
    assert found.attribute is not None
    print(
        f"{found.attribute.labels.size} records of {len(np.unique(found.attribute.units))} users in the pool; epsilon {o.epsilon:g}"
    )
    print(
        f"accuracy {pm(accuracy(found.utility))}; membership by user {pm(membership_risk(found.membership, level='user'))}"
    )
    heads = ("leakage", "min-entropy, bits", "members - others")
    print(
        f"{'attribute':10}{'known':10}{'H(P)':>7}{'imputed':>9}{'attacked':>9}  "
        + "".join(f"{h:18}" for h in heads)
        + "p"
    )
    for name, known in ASKED:
        risk = attribute_risk(evidence(found.attribute, prepared, name, known), n_permutations=o.permutations)
        print(
            f"{name:10}{' '.join(known) or '-':10}{risk.entropy:7.3f}{risk.imputed:9.3f}{risk.attacked:9.3f}  "
            f"{pm(risk.leakage):18}{pm(risk.min_entropy):18}{pm(risk.training):18}{risk.p_value:.2f}"
        )


if __name__ == "__main__":
    main()
