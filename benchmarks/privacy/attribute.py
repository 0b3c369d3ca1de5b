"""H(P|M) measured: age band and gender of MovieLens users from shadows' outputs.

python -m benchmarks.privacy.attribute [--per-user 4] [--model e5-small] [--study recommendation] [--depth 0]
    [--steps 25] [--epsilon inf] [--permutations 99] [--folder DIR] [--null 200]

With --null also for users with the attributes of others, where nothing can be found.
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
from moo.studies.setup.prepared import PreparedStudy, prepare_study
from moo.studies.spec.study import load_spec
from moo.studies.trial.evidence import columns_of
from moo.studies.trial.plan import plan_trial
from moo.studies.trial.run import run_trial

ASKED = (("age_band", ()), ("age_band", ("gender",)), ("gender", ()), ("gender", ("age_band",)))
DIFFERENT = "users have the attributes of others: nothing can be found"


def evidence(base: AttributeEvidence, prepared: PreparedStudy, name: str, known: tuple[str, ...]) -> AttributeEvidence:
    """Return the same outputs with another attribute."""
    groups = prepared.data.parts["pool"].groups
    return dataclasses.replace(base, name=name, attribute=groups[name], auxiliary=columns_of(groups, known))


def thinned(records: Records, most: int) -> Records:
    """Return at most `most` records of each user, the first ones."""
    _, codes = np.unique(records.units, return_inverse=True)
    order = np.argsort(codes, kind="stable")
    place = np.empty(len(codes), dtype=int)
    place[order] = np.concatenate([np.arange(n) for n in np.bincount(codes)])
    return records.take(place < most)


def dealt(base: AttributeEvidence, rng: np.random.Generator) -> AttributeEvidence:
    """Return the same outputs, with users' attributes permuted."""
    _, first, codes = np.unique(base.units, return_index=True, return_inverse=True)
    return dataclasses.replace(base, attribute=rng.permutation(base.attribute[first])[codes])


def null(base: AttributeEvidence, n: int) -> None:
    """Print bias and coverage of leakage and of members minus others on n permutations."""
    risks = [attribute_risk(dealt(base, np.random.default_rng([7, i])), seed=i) for i in range(n)]
    for name, row in (("leakage", [r.leakage for r in risks]), ("members - others", [r.training for r in risks])):
        values = np.array([m.value for m in row])
        covered, above = np.mean([m.low <= 0 <= m.high for m in row]), np.mean([m.low > 0 for m in row])
        spread = f"sd of one {values.std(ddof=1):.4f}, stated {np.mean([m.stderr for m in row]):.4f}"
        print(
            f"  {name:17} mean {values.mean():+.4f} ({spread}); "
            f"95 % intervals cover 0 in {covered:.3f}, above it {above:.3f}"
        )


def pm(m: Measurement) -> str:
    """Return a measurement as text with its standard error."""
    return f"{m.value:+.3f} +- {m.stderr:.3f}" if not math.isnan(m.value) else m.note


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
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
        prepared = prepare_study(spec, StudyKey.load_or_create(folder / "study.key"), folder)
        parts = {part: thinned(records, o.per_user) for part, records in prepared.data.parts.items()}
        prepared = prepared.on(dataclasses.replace(prepared.data, parts=parts))
        found = run_trial(plan_trial(params, prepared), prepared, number=0)
    assert found.attribute is not None
    print(
        f"{found.attribute.labels.size} records of {len(np.unique(found.attribute.units))} users in the pool; "
        f"epsilon {o.epsilon:g}"
    )
    print(
        f"accuracy {pm(accuracy(found.utility))}; "
        f"membership by user {pm(membership_risk(found.membership, level='user'))}"
    )
    heads = ("leakage", "min-entropy, bits", "members - others")
    print(
        f"{'attribute':10}{'known':10}{'H(P)':>7}{'imputed':>9}{'attacked':>9}  "
        + "".join(f"{h:18}" for h in heads)
        + "p"
    )
    cases = [a for a in ASKED if {a[0], *a[1]} <= set(prepared.data.parts["pool"].groups)]
    for name, known in cases:
        risk = attribute_risk(evidence(found.attribute, prepared, name, known), n_permutations=o.permutations)
        print(
            f"{name:10}{' '.join(known) or '-':10}{risk.entropy:7.3f}{risk.imputed:9.3f}{risk.attacked:9.3f}  "
            f"{pm(risk.leakage):18}{pm(risk.min_entropy):18}{pm(risk.training):18}{risk.p_value:.2f}"
        )
    if o.null:
        print(f"{o.null} deals of {cases[0][0]}, {DIFFERENT}:")
        null(evidence(found.attribute, prepared, cases[0][0], ()), o.null)


if __name__ == "__main__":
    main()
