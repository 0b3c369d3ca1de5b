"""Release context of a study: the policy, and all that follows from it for a trial."""

from dataclasses import dataclass

from moo.privacy.release_policy import Policy
from moo.studies.spec.study import StudySpec

# Flag of a study with a budget that is fixed before the first trial.
BUDGETED = "budgeted"


@dataclass(frozen=True, kw_only=True)
class ReleaseContext:
    """Policy of a study, and its consequences.

    Attributes:
        policy: Release policy.
        covered: Names of the dataset-scoped steps that the ledger charges.
        may_log_private: True if numbers that read private units may be logged.
        flags: Flags that switch rules on.
    """

    policy: Policy
    covered: frozenset[str]
    may_log_private: bool
    flags: frozenset[str]

    @classmethod
    def of(cls, policy: Policy, spec: StudySpec, *, covered: frozenset[str] = frozenset()) -> "ReleaseContext":
        """Return the context of a policy and a study."""
        return cls(
            policy=policy,
            covered=covered,
            may_log_private=policy.name in ("internal", "proxy_then_retrain"),
            flags=frozenset(spec.applies) | ({BUDGETED} if policy.name == "publish_all" else set()),
        )


def release_share(policy: Policy) -> float:
    """Return the share of the units that no trial reads, in [0, 1]."""
    return policy.release_share if policy.name == "proxy_then_retrain" else 0.0
