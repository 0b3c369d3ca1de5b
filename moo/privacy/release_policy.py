"""Release policies: audience, cost and prohibitions. One is chosen before a study starts.

| policy | who sees what | what holds |
|---|---|---|
| internal | nothing leaves the data's controller | an odometer, no guarantee |
| publish_all(epsilon) | front, curves and models may leave | the budget, by a Renyi filter over all |
| select_one | the winner of a random search alone leaves | Theorem 2 of Papernot and Steinke 2022 |
| proxy_then_retrain(m) | m settings of other users, retrained on the release users | m-fold composition for them |
"""

import re
from dataclasses import dataclass
from typing import Literal, get_args

from moo.core import validate
from moo.core.errors import PolicyError

PolicyName = Literal["internal", "publish_all", "select_one", "proxy_then_retrain"]
POLICIES: tuple[PolicyName, ...] = get_args(PolicyName)
ANSWER_NOISE = 5.0
_VALUE = {"publish_all": "epsilon", "proxy_then_retrain": "m"}


@dataclass(frozen=True, kw_only=True)
class Policy:
    """A study's release policy; part of its identity.

    Attributes:
        name: One of `POLICIES`.
        epsilon: Budget of `publish_all`, > 0.
        retrain: m of `proxy_then_retrain`, >= 1: how many settings are retrained at most.
        answer_noise: Standard deviation of the noise on every number that reads private units, over
            its sensitivity, the counts of units that passed the legal gates among them; 0 tells
            them exactly, which `publish_all` and `select_one` do not allow.
        release_share: Of the users that `proxy_then_retrain` sets aside, in [.1, .9].

    Raises:
        PolicyError: If the policy is unknown, or lacks what it needs.
    """

    name: PolicyName = "internal"
    epsilon: float = 0.0
    retrain: int = 0
    answer_noise: float = 0.0
    release_share: float = 0.5

    def __post_init__(self) -> None:
        if self.name not in POLICIES:
            near = validate.nearest(self.name, POLICIES)
            raise PolicyError(
                "policy must be one of {policies}, got {name!r}.{near}",
                policies=list(POLICIES),
                name=self.name,
                near=near,
            )
        if self.name == "publish_all":
            validate.finite(epsilon=validate.positive(epsilon=self.epsilon, way_out="write publish_all(20)"))
        if self.name == "proxy_then_retrain":
            validate.whole(1, 1000, m=self.retrain)
        validate.in_range(0, 1000, answer_noise=self.answer_noise)
        if _noised(self.name) and not self.answer_noise > 0:
            raise PolicyError(
                "answer_noise must be > 0 under {name}, got {answer_noise!r}: an exact accuracy or risk "
                "of private units would leave.",
                name=self.name,
                answer_noise=self.answer_noise,
            )
        validate.in_range(0.1, 0.9, release_share=self.release_share)

    @classmethod
    def parse(cls, text: "str | Policy", *, answer_noise: float | None = None) -> "Policy":
        """Parse "internal", "publish_all(20)", "select_one" or "proxy_then_retrain(5)".

        Shells may write publish_all=20.

        Args:
            text: As above; a Policy is taken as it is.
            answer_noise: See `Policy`; by default 5 where the policy demands noise, else 0.

        Raises:
            PolicyError: If the text names no policy, or a value is missing.
        """
        if isinstance(text, Policy):
            return text
        if not isinstance(text, str):
            raise PolicyError("policy must be a name or a Policy, got {text!r}.", text=text)
        found = re.fullmatch(r"\s*(\w+?)\s*(?:\(\s*([\d.eE+-]+)\s*\)|=\s*([\d.eE+-]+))?\s*", text)
        name, value = (found[1], found[2] or found[3]) if found else (text, None)
        if name not in POLICIES:
            near = validate.nearest(name, POLICIES)
            raise PolicyError(
                "policy must be one of {policies}, got {text!r}.{near}",
                policies=list(POLICIES),
                text=text,
                near=near,
            )
        if (name in _VALUE) != (value is not None):
            asked = f"{name}({_VALUE[name]})" if name in _VALUE else name
            raise PolicyError("policy must be written {form}, got {text!r}.", form=asked, text=text)
        noise = answer_noise if answer_noise is not None else (ANSWER_NOISE if _noised(name) else 0.0)
        try:
            epsilon = float(value) if name == "publish_all" and value else 0.0
            retrain = int(value) if name == "proxy_then_retrain" and value else 0
        except ValueError:
            raise PolicyError(
                "The value of a policy must be a number, m a whole one, got {text!r}.", text=text
            ) from None
        return cls(name=name, epsilon=epsilon, retrain=retrain, answer_noise=noise)

    def __str__(self) -> str:
        value = {"publish_all": f"({self.epsilon:g})", "proxy_then_retrain": f"({self.retrain})"}.get(self.name, "")
        return self.name + value

    @property
    def allows_reference(self) -> bool:
        """Return True if a trial without DP may run in addition to the search."""
        return self.name in ("internal", "proxy_then_retrain")


def _noised(name: str) -> bool:
    return name in ("publish_all", "select_one")
