"""Facts: measured numbers under the keys that the rules read.

From a masking probe, an accountant, and test predictions.
"""

import math
from collections import Counter
from collections.abc import Collection, Iterable

import numpy as np

from moo.core.errors import InputError
from moo.core.evidence import Bools, MaskingProbe, PrivacyEvidence, UtilityEvidence
from moo.core.personal_data_types import DIRECT, QUASI, SENSITIVE
from moo.core.validate import in_range, positive
from moo.objectives.utility.accuracy import group_gap
from moo.privacy.composition import group_privacy

# Unknown where users are.
OF_USERS = ("privacy.epsilon_user", "privacy.delta_times_users")
# policy: a class of fewer users points at a person.
K_STAR = 5


def masking_facts(probe: MaskingProbe) -> dict[str, float | None]:
    """Return the facts of a masking level: shares of mentions that stay visible.

    Args:
        probe: Gold mentions of synthetic-identity records after masking.

    Returns:
        masking.level; masking.direct_misses_ucb_per_1000 and masking.sensitive_misses_ucb_per_1000
        (95 % upper bounds); masking.small_group_share (of users); masking.entropy_kept (of the
        attributes' entropy). None where the probe holds no mention of the kind.

    Raises:
        InputError: If the columns' lengths differ, or n_records < 1.
    """
    _check_probe(probe)
    return {
        "masking.level": float(probe.level),
        "masking.direct_misses_ucb_per_1000": _misses(probe, DIRECT),
        "masking.sensitive_misses_ucb_per_1000": _misses(probe, SENSITIVE),
        "masking.small_group_share": small_group_share(probe),
        "masking.entropy_kept": entropy_kept(probe),
    }


def _check_probe(probe: MaskingProbe) -> None:
    positive(n_records=probe.n_records)
    lengths = {
        name: len(getattr(probe, name)) for name in ("records", "users", "types", "original", "visible", "missed")
    }
    if len(set(lengths.values())) != 1:
        raise InputError("Columns must have one length, got {lengths}.", lengths=lengths)


def _is(probe: MaskingProbe, kinds: Collection[str]) -> Bools:
    return np.fromiter((t in kinds for t in probe.types), dtype=bool, count=len(probe.types))


def _misses(probe: MaskingProbe, kinds: Collection[str]) -> float | None:
    mine = _is(probe, kinds)
    if not mine.any():
        return None
    missed = mine & probe.missed
    return 1000.0 * rate_ucb(int(missed.sum()), len(np.unique(probe.users[missed])), probe.n_records)


def rate_ucb(events: int, clusters: int, n: int, confidence: float = 0.95) -> float:
    """Return an upper bound of a rate of events per trial, events in independent clusters.

    The clusters' number is bounded as a Poisson count; each holds events / clusters of them. No
    event in n trials gives 3.0 / n at 95 %: .0999 per 1,000 in 30,000.

    Args:
        events: Events seen, >= 0.
        clusters: Users with an event; 0 exactly where events is 0.
        n: Trials, >= 1.
        confidence: One-sided, in (0, 1).

    Source:
        Garwood 1936, "Fiducial Limits for the Poisson Distribution"; zero events: the rule of
        three.
    """
    in_range(0, max(events, 0), clusters=clusters)
    per_cluster = events / clusters if clusters else 1.0
    from scipy.stats import chi2

    return float(chi2.ppf(confidence, 2 * (clusters + 1)) / 2) * per_cluster / positive(n=n)


def small_group_share(probe: MaskingProbe, k: int = K_STAR) -> float | None:
    """Return the share of probed users with visible quasi-identifiers that fewer than k share.

    Masked records carry no pseudonym, so whoever reads them sees one record at a time: classes are
    of records, and a class's size is the number of its users. Users without any quasi-identifier
    are in nobody's small class.
    """
    quasi = np.flatnonzero(_is(probe, QUASI))
    if not len(quasi):
        return None
    seen: dict[int, list[tuple[str, str]]] = {}
    owner: dict[int, int] = {}
    for i in quasi:
        record = int(probe.records[i])
        seen.setdefault(record, []).append((probe.types[i], probe.visible[i]))
        owner[record] = int(probe.users[i])
    classes: dict[tuple[tuple[str, str], ...], set[int]] = {}
    for record, values in seen.items():
        classes.setdefault(tuple(sorted(values)), set()).add(owner[record])
    small = set().union(*(users for users in classes.values() if len(users) < k))
    return len(small) / len(np.unique(probe.users))


def entropy_kept(probe: MaskingProbe) -> float | None:
    """Return the share of the attributes' entropy that is still visible.

    Bits of all types after masking over bits before.

    Each type of personal information weighs as many bits as its mentions hold before masking
    (mentions x entropy of their values), so a mobile number weighs more than a province.
    """
    before = after = 0.0
    for kind in sorted(set(probe.types) & (DIRECT | QUASI | SENSITIVE)):
        rows = [i for i, t in enumerate(probe.types) if t == kind]
        before += len(rows) * entropy(probe.original[i] for i in rows)
        after += len(rows) * entropy(probe.visible[i] for i in rows)
    return min(1.0, after / before) if before > 0 else None


def entropy(values: Iterable[str]) -> float:
    """Return the empirical Shannon entropy of values, in bits."""
    counts = np.array(list(Counter(values).values()), dtype=float)
    p = counts / counts.sum()
    return float(-(p * np.log2(p)).sum())


def privacy_facts(evidence: PrivacyEvidence) -> dict[str, float | None]:
    """Return the guarantee of one training to a user, by group privacy from the unit's.

    Returns:
        privacy.epsilon_user; privacy.delta_times_users, over all units of the data. Infinite
        epsilon and delta 1 where the claim is withdrawn; None, "not assessed", where nothing says
        how many units one user may be.
    """
    if not (evidence.claim.startswith("holds") and math.isfinite(evidence.epsilon_spent)):
        epsilon, delta = math.inf, 1.0
    elif evidence.records_per_user is None:
        return dict.fromkeys(OF_USERS)
    else:
        epsilon, delta = group_privacy(evidence.epsilon_spent, evidence.delta, evidence.records_per_user)
    return dict(zip(OF_USERS, (epsilon, delta * evidence.n_units), strict=True))


def utility_facts(evidence: UtilityEvidence) -> dict[str, float | None]:
    """Return utility.group_gap: the widest accuracy gap over the assessed groupings.

    None without any.
    """
    gaps = [group_gap(evidence, group).value for group in sorted(evidence.groups)]
    known = [gap for gap in gaps if not math.isnan(gap)]
    return {"utility.group_gap": max(known) if known else None}


def generation_facts(*, emitted: int, planted: int) -> dict[str, float | None]:
    """Return generation.canaries_emitted_ucb: a 95 % upper bound.

    Bound of the share of planted canaries that a model emits word for word.

    Source:
        Clopper and Pearson 1934, "The Use of Confidence or Fiducial Limits".
    """
    in_range(0, positive(planted=planted), emitted=emitted)
    from scipy.stats import beta

    bound = 1.0 if emitted == planted else float(beta.ppf(0.95, emitted + 1, planted - emitted))
    return {"generation.canaries_emitted_ucb": bound}
