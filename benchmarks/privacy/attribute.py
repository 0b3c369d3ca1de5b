"""H(P|M) for real: age band and gender of MovieLens users from the outputs of a study's shadows, and where there is nothing to find.

python -m benchmarks.attribute [--per-user 4] [--model e5-small] [--study recommendation] [--depth 0] [--steps 25] [--epsilon inf]
    [--permutations 99] [--folder DIR] [--null 200]
"""

import argparse
import dataclasses
import math
import tempfile
from pathlib import Path

import numpy as np

from moo.core.evidence import AttributeEvidence
from moo.core.measurement import Measurement
from moo.core.trial_record import TrialParams
from moo.data.catalogue import Records
from moo.objectives.attribute.risk import attribute_risk
from moo.objectives.membership.risk import membership_risk
from moo.objectives.utility.accuracy import accuracy
from moo.privacy.keys import StudyKey
from moo.studies.setup.prepared import Prepared
from moo.studies.spec.study import load_spec
from moo.studies.trial.evidence import columns_of
from moo.studies.trial.run import run_trial

ASKED = (("age_band", ()), ("age_band", ("gender",)), ("gender", ()), ("gender", ("age_band",)))
DIFFERENT = "users have the attributes of others: nothing can be found"


def evidence(base: AttributeEvidence, prepared: Prepared, name: str, known: tuple[str, ...]) -> AttributeEvidence:
    """The same outputs beside another attribute."""
    groups = prepared.parts["pool"].groups
    return dataclasses.replace(base, name=name, attribute=groups[name], auxiliary=columns_of(groups, known))


def thinned(records: Records, most: int) -> Records:
    """At most so many records of each user, the first that stand there."""
    _, codes = np.unique(records.units, return_inverse=True)
    order = np.argsort(codes, kind="stable")
    place = np.empty(len(codes), dtype=int)
    place[order] = np.concatenate([np.arange(n) for n in np.bincount(codes)])
    return records.take(place < most)


def dealt(base: AttributeEvidence, rng: np.random.Generator) -> AttributeEvidence:
    """The same outputs, every user with another one's attribute."""
    _, first, codes = np.unique(base.units, return_index=True, return_inverse=True)
    return dataclasses.replace(base, attribute=rng.permutation(base.attribute[first])[codes])


def null(base: AttributeEvidence, n: int) -> None:
    """Bias and coverage of leakage and of members minus others on n deals."""
    risks = [attribute_risk(dealt(base, np.random.default_rng([7, i])), seed=i) for i in range(n)]
    for name, told in (("leakage", [r.leakage for r in risks]), ("members - others", [r.training for r in risks])):
        values = np.array([m.value for m in told])
        covered, above = np.mean([m.low <= 0 <= m.high for m in told]), np.mean([m.low > 0 for m in told])
        spread = f"sd of one {values.std(ddof=1):.4f}, told {np.mean([m.stderr for m in told]):.4f}"
        print(
            f"  {name:17} mean {values.mean():+.4f} ({spread}); 95 % intervals cover 0 in {covered:.3f}, above it {above:.3f}"
        )


def pm(m: Measurement) -> str:
    return f"{m.value:+.3f} +- {m.stderr:.3f}" if not math.isnan(m.value) else m.note


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--per-user", type=int, default=4, help="records of each user; all of them cost hours")
    parser.add_argument("--model", default="e5-small")
    parser.add_argument("--study", default="recommendation", help="or profiling, whose label is the age band")
    parser.add_argument("--depth", type=int, default=0)
    parser.add_argument("--null", type=int, default=0, metavar="N", help="deals of the attribute among the users")
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--epsilon", type=float, default=math.inf)
    parser.add_argument("--permutations", type=int, default=99)
    parser.add_argument(
        "--folder", type=Path, help="keeps the key and the trunk's cache, so that another epsilon is quick"
    )
    o = parser.parse_args()
    spec = load_spec(o.study)
    spec = dataclasses.replace(
        spec,
        model=o.model,
        attribute="gender",
        training=dataclasses.replace(spec.training, steps=o.steps, max_length=64),
    )
    params = TrialParams(
        target_epsilon=o.epsilon, masking_level=0, lora_rank=8, learning_rate=1e-3, adapted_layers=o.depth
    )
    with tempfile.TemporaryDirectory() as temporary:
        folder = o.folder or Path(temporary)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        prepared = Prepared(spec, StudyKey.load_or_create(folder / "study.key"), folder)
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
    asked = [a for a in ASKED if {a[0], *a[1]} <= set(prepared.parts["pool"].groups)]
    for name, known in asked:
        risk = attribute_risk(evidence(found.attribute, prepared, name, known), n_permutations=o.permutations)
        print(
            f"{name:10}{' '.join(known) or '-':10}{risk.entropy:7.3f}{risk.imputed:9.3f}{risk.attacked:9.3f}  "
            f"{pm(risk.leakage):18}{pm(risk.min_entropy):18}{pm(risk.training):18}{risk.p_value:.2f}"
        )
    if o.null:
        print(f"{o.null} deals of {asked[0][0]}, {DIFFERENT}:")
        null(evidence(found.attribute, prepared, asked[0][0], ()), o.null)


if __name__ == "__main__":
    main()
