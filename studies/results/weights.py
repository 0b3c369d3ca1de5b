"""Weights of the objectives in a recommendation."""

import math
from collections.abc import Mapping

from moo.core import validate
from moo.core.errors import InputError
from moo.core.trial_record import ACCURACY, PENALTY, RISK

NAMES = {"accuracy": ACCURACY, "risk": RISK, "penalty": PENALTY}
SAID = {ACCURACY: "accuracy", RISK: "membership risk", PENALTY: "compliance penalty"}

Weights = Mapping[str, float]


def weights_of(asked: str | Weights | None) -> dict[str, float]:
    """Return the weights of the knee by objective, from "accuracy=2,risk=1" or {"accuracy": 2}.

    Args:
        asked: Weights; what is not named weighs 1. None, {} or "none" asks for no knee.

    Returns:
        Weight by objective, >= 0; empty for the default, the most accurate point whose limits hold.

    Raises:
        InputError: If a name is none of accuracy, risk and penalty, a weight is no number >= 0, or all are 0.
    """
    if asked is not None and not isinstance(asked, str | Mapping):
        raise InputError("weights must be a text or a mapping of objectives, but got {asked!r}.", asked=asked)
    if asked is None or asked == "none" or asked == {}:
        return {}
    weights = dict.fromkeys(NAMES.values(), 1.0)
    for name, weight in (_parsed(asked) if isinstance(asked, str) else asked).items():
        if name not in NAMES:
            raise InputError(
                "weights of {names} must hold, but got {name!r}; write accuracy=2,risk=1,penalty=1.{nearest}",
                names=", ".join(NAMES),
                name=name,
                nearest=validate.nearest(name, NAMES),
            )
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < math.inf:
            raise InputError(
                "a weight >= 0 must hold, but got {name}={weight!r}; 0 leaves an objective out.",
                name=name,
                weight=weight,
            )
        weights[NAMES[name]] = float(weight)
    if not any(weights.values()):
        raise InputError("a weight above 0 must hold, but all are 0.")
    return weights


def _parsed(text: str) -> dict[str, float]:
    out: dict[str, float] = {}
    for part in text.split(","):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or name in out:
            raise InputError(
                "weights must be written accuracy=2,risk=1,penalty=1, each once, but got {text!r}.", text=text
            )
        try:
            out[name] = float(value)
        except ValueError:
            raise InputError("a weight must be a number, but got {part!r}.", part=part.strip()) from None
    return out
